//! Captures one database: one instant, every row counted, nothing believed.
//!
//! The order is the argument:
//! 1. list the tables and refuse at once what may not be read;
//! 2. lock them, all or nothing, and only *then* take and export the snapshot (`snapshot`);
//! 3. list again inside it; newcomers are locked or the capture starts over;
//! 4. start `pg_dump` on the snapshot at once (`archive`), the workers beside it (`workers`), each COPY between checks
//!    (`copy_out`);
//! 5. afterwards the coordinator must still hold its transaction, what prints as it is now must still be what it was
//!    (`printed`), and the archive's contents must agree with the plan (`reconcile`).
//!
//! From the first lock on `waiters` looks who waits because of us, and whatever ends an attempt, its sessions are ended too,
//! by their name.
//!
//! Whatever disturbs this (a lock, a TRUNCATE, a rename) makes it start over from 1, a bounded number of times; streams
//! of a failed attempt are dropped unfinished and are in no manifest.

use std::time::Duration;

use tokio::sync::Mutex;

use super::catalog;
use super::clients::Clients;
use super::error::{BY_THE_STANDBY, PostgresError, sql_state};
use super::names::Encoding;
use super::options::{Globals, PostgresOptions};
use super::plan::{self, Plan, Table};
use super::printed::Printed;
use super::rows::RowFormat;
use super::session::{Session, column};
use super::shape::Shapes;
use super::snapshot::{Coordinator, ENDING, give_way};
use super::workers::{self, Place, Results, Work, parts};
use super::{archive, copy_out, globals, large_objects, pooler, properties, waiters};
use crate::clock::Clock;
use crate::fingerprint::RowSum;
use crate::manifest::{Part, Property, TableEntry};
use crate::monitor::{Event, Monitor};
use crate::source::{Captured, CapturedStream, FinishedStream, Sink};

/// Captures the database. Streams are opened on `sink` as they are needed; nothing is written to the database.
///
/// # Errors
/// [`PostgresError::GaveUp`] after `options.attempts` disturbed attempts; everything else ends the capture at once.
pub async fn capture(
    options: &PostgresOptions,
    sink: &dyn Sink,
    clock: &Clock,
    monitor: &dyn Monitor,
) -> Result<Captured, PostgresError> {
    monitor.event(Event::CaptureStarted { source: options.source.clone() });
    let server = Server::ask(options, monitor).await?;
    let (run, mut attempt) = (random(), 1);
    loop {
        // All sessions of an attempt carry its name: so they are found, watched and ended, and no others.
        let connect = options.connect.named(format!("backup/{run}/{attempt}"));
        let named = PostgresOptions { connect, ..options.clone() };
        match Box::pin(once(&named, &server, sink, clock, monitor)).await {
            Err(error @ PostgresError::Disturbed { .. }) if attempt >= options.attempts => {
                return Err(PostgresError::GaveUp { attempts: attempt, source: Box::new(error) });
            }
            Err(error @ PostgresError::Disturbed { .. }) => {
                let what = format!("capture of database `{}`", options.connect.database());
                monitor.event(Event::Retry { what, why: error.to_string(), attempt });
                tokio::time::sleep(pause(attempt)).await;
                attempt += 1;
            }
            other => return other,
        }
    }
}

/// Eight hex digits that no other capture has.
fn random() -> String {
    let mut random = std::process::id().to_be_bytes();
    // Without randomness it is unique on this machine.
    let _ = getrandom::fill(&mut random);
    hex::encode(random)
}

/// Grows with the attempts, and differs between two captures that got into each other's way.
fn pause(attempt: u32) -> Duration {
    let mut random = [0; 2];
    // Without randomness the pause is merely the same each time.
    let _ = getrandom::fill(&mut random);
    Duration::from_millis(u64::from(100 * attempt.min(20)) + u64::from(u16::from_le_bytes(random) % 500))
}

/// How often tables are listed again within one attempt.
const LISTINGS: u32 = 20;

/// What does not change between attempts.
struct Server {
    version: i64,
    encoding: Encoding,
    standby: bool,
    clients: Clients,
    globals: Globals,
}

impl Server {
    async fn ask(options: &PostgresOptions, monitor: &dyn Monitor) -> Result<Self, PostgresError> {
        const DURING: &str = "asking the server for its version";
        let mut session = Session::open(&options.connect).await?;
        let sql = "SELECT current_setting('server_version_num')::int8 AS version, \
            current_setting('server_encoding') AS encoding, pg_catalog.pg_is_in_recovery() AS standby";
        let row = session.one(DURING, sql).await?;
        let version: i64 = column(&row, "version", DURING)?;
        pooler::refuse(&mut session, &options.connect).await?;
        let globals = globals::possible(options.globals, &mut session, monitor).await?;
        session.close().await;
        Ok(Self {
            version,
            encoding: Encoding { name: column(&row, "encoding", DURING)? },
            standby: column(&row, "standby", DURING)?,
            clients: Clients::find(&options.clients, u32::try_from(version / 10_000).unwrap_or(0)).await?,
            globals,
        })
    }
}

/// One attempt. Whatever ends it, none of its sessions stays behind, and nobody had to wait for one of its locks.
async fn once(
    options: &PostgresOptions,
    server: &Server,
    sink: &dyn Sink,
    clock: &Clock,
    monitor: &dyn Monitor,
) -> Result<Captured, PostgresError> {
    let work = attempt(options, server, sink, clock, monitor);
    let error = match Box::pin(waiters::unless(&options.connect, monitor, work)).await {
        Ok(captured) => return Ok(captured),
        Err(error) if server.standby => ended_by_the_standby(error),
        Err(error) => error,
    };
    match error {
        PostgresError::Disturbed { what, blockers: none, source } if none.is_empty() => {
            let blockers = give_way(&options.connect).await;
            Err(PostgresError::Disturbed { what, blockers, source })
        }
        // They are ended already; there are none; or there is nobody to end them.
        PostgresError::Disturbed { .. } | PostgresError::NotReadable { .. } | PostgresError::ServerDown { .. } => {
            Err(error)
        }
        error => {
            let _ = tokio::time::timeout(ENDING, give_way(&options.connect)).await;
            Err(error)
        }
    }
}

/// A standby ends whoever stands in the way of what comes from the primary, and not everybody hears why.
fn ended_by_the_standby(error: PostgresError) -> PostgresError {
    match error {
        PostgresError::Lost { during, source } => {
            PostgresError::disturbed(format!("a session was {BY_THE_STANDBY} during {during}"), Some(source))
        }
        PostgresError::ClientFailed { program, stderr, .. } if stderr.contains("server closed the connection") => {
            PostgresError::disturbed(format!("a session was {BY_THE_STANDBY} during `{program}`: {stderr}"), None)
        }
        other => other,
    }
}

async fn attempt(
    options: &PostgresOptions,
    server: &Server,
    sink: &dyn Sink,
    clock: &Clock,
    monitor: &dyn Monitor,
) -> Result<Captured, PostgresError> {
    let phase = |phase: &str| {
        monitor.event(Event::Phase { source: options.source.clone(), phase: phase.to_owned() });
    };
    phase("locking tables and taking a snapshot");
    let mut coordinator = locked(options, server).await?;
    let plan = coordinator.plan(&options.exclude_data, &server.encoding, server.standby).await?;
    let excludes = archive::excludes(&mut coordinator.session, &plan, &server.encoding).await?;

    phase("dumping and copying");
    let (snapshot, instant) = (coordinator.snapshot.clone(), coordinator.instant);
    let coordinator = Mutex::new(coordinator);
    // `pg_dump` locks while we still look around: each moment between our locks and its own is one in which a queued
    // TRUNCATE makes both wait.
    let copying = async {
        let mut details = Details::read(&mut *coordinator.lock().await, plan, server).await?;
        if options.text_only {
            for table in &mut details.tables {
                (table.format, table.types) = (RowFormat::Text, Vec::new());
            }
        }
        let work = Work {
            connect: &options.connect,
            tables: &details.tables,
            encoding: &server.encoding,
            coordinator: &coordinator,
            sink,
            monitor,
            shapes: details.shapes.as_ref(),
            recounted: workers::recounted(&details.tables, options.count_check, instant.timestamp()),
            part_blocks: options.part_blocks,
        };
        let results = work.run(options.workers).await?;
        Ok((details, results))
    };
    // Before the names are compared nothing else happens: the shorter, the less can be renamed there and back.
    let dumping = async {
        let dumped = archive::dump(&server.clients, &options.connect, &snapshot, &excludes, sink).await?;
        Ok((dumped, Printed::now(&options.connect).await?))
    };
    let globals = globals::dump(&server.clients, &options.connect, server.globals, &server.encoding, sink);
    let (((archive, mut contents, warnings), dumped), globals, (mut details, results)) =
        match futures::try_join!(dumping, globals, copying) {
            Ok(done) => done,
            // While the coordinator holds its locks, it can be seen who waits for them.
            Err(PostgresError::Disturbed { what, blockers: none, source }) if none.is_empty() => {
                let blockers = give_way(&options.connect).await;
                return Err(PostgresError::Disturbed { what, blockers, source });
            }
            Err(error) => return Err(error),
        };

    phase("checking what was captured");
    let mut coordinator = coordinator.into_inner();
    coordinator.still_there().await?;
    details.names.same(&dumped)?;
    details.names.same_labels(&Printed::now(&options.connect).await?)?;
    contents.without_rows(details.without_rows.iter().copied());
    contents.reconcile(&details.tables)?;
    coordinator.session.close().await;

    let (globals, also) = globals.map_or((None, Vec::new()), |(stream, warnings)| (Some(stream), warnings));
    details.suspect.extend(warnings.into_iter().chain(also).map(|line| format!("not captured as it is: {line}")));
    if let Some(foreign) = details.properties.iter().find(|property| property.name == properties::FOREIGN) {
        let text = format!("rows of foreign tables live on another server and are not captured: {}", foreign.value);
        monitor.event(Event::Note { text });
    }
    details.properties.extend(properties::late(results.large_objects, server.clients.version()));
    let drift = clock.now() - instant;
    if drift.abs() > chrono::TimeDelta::hours(1) {
        let minutes = drift.num_minutes().abs();
        details.suspect.push(format!("the server's clock is {minutes} minutes away from this host's"));
    }
    let (streams, tables) =
        assemble(&details.tables, options.part_blocks, globals, archive, results, &server.encoding)?;
    Ok(Captured { instant, streams, tables, properties: details.properties, suspect: details.suspect })
}

/// Lists the tables, locks them and takes the snapshot. A table that goes between listing and locking is no loss, because
/// nothing is taken yet: listed again at once, a few times.
async fn locked(options: &PostgresOptions, server: &Server) -> Result<Coordinator, PostgresError> {
    let mut tries = 0;
    loop {
        let mut session = Session::open(&options.connect).await?;
        let relations = catalog::relations(&mut session).await?;
        let mut refused = plan::refusals(&relations);
        refused.extend(large_objects::unreadable(&mut session).await?);
        if !refused.is_empty() {
            return Err(PostgresError::NotReadable { user: options.connect.user().to_owned(), objects: refused });
        }
        let before = plan::plan(&relations, &options.exclude_data, server.standby)?;
        match Coordinator::take(session, &before.tables, &server.encoding).await {
            Err(PostgresError::Disturbed { source: Some(error), .. })
                if tries < LISTINGS && matches!(sql_state(&error).as_deref(), Some("42P01" | "3F000")) =>
            {
                tries += 1;
            }
            other => return other,
        }
    }
}

/// What is read inside the snapshot while `pg_dump` is at work already.
struct Details {
    tables: Vec<Table>,
    without_rows: Vec<i64>,
    names: Printed,
    shapes: Option<Shapes>,
    properties: Vec<Property>,
    suspect: Vec<String>,
}

impl Details {
    async fn read(coordinator: &mut Coordinator, mut plan: Plan, server: &Server) -> Result<Self, PostgresError> {
        coordinator.look_closer(&mut plan.tables, server.version, &server.encoding).await?;
        let mut properties = properties::read(&mut coordinator.session).await?;
        properties.extend(properties::foreign(&plan.foreign));
        Ok(Self {
            names: Printed::read(&mut coordinator.session).await?,
            shapes: if coordinator.locked { None } else { Some(Shapes::read(&mut coordinator.session).await?) },
            properties,
            suspect: suspicions(coordinator, &mut plan, &server.encoding).await?,
            tables: plan.tables,
            without_rows: plan.without_rows,
        })
    }
}

/// Why this snapshot should be looked at: what is not captured, and settings that hide damage.
async fn suspicions(
    coordinator: &mut Coordinator,
    plan: &mut Plan,
    encoding: &Encoding,
) -> Result<Vec<String>, PostgresError> {
    const DURING: &str = "looking for settings that hide damage";
    let mut out: Vec<String> = plan.left_out.iter().map(|what| format!("not captured: {what}")).collect();
    out.append(&mut plan.remarks);
    for member in &plan.members {
        let shown = member.shown();
        let extension = member.extension.as_deref().unwrap_or_default();
        // What cannot be looked at may hold rows.
        let filled = !member.readable || !copy_out::lock(&mut coordinator.session, member, encoding).await? || {
            let name = encoding.qualified(&member.schema, &member.name);
            let sql = format!("SELECT EXISTS (SELECT FROM ONLY {name}) AS filled");
            column(&coordinator.session.one(DURING, sql).await?, "filled", DURING)?
        };
        if filled {
            out.push(format!(
                "not captured: rows of `{shown}`, a table of extension `{extension}` that it does not have dumped"
            ));
        }
    }
    let sql = "SELECT name::text AS name FROM pg_catalog.pg_settings \
        WHERE name IN ('zero_damaged_pages', 'ignore_checksum_failure') AND setting = 'on' ORDER BY name";
    for row in coordinator.session.run(DURING, sql).await? {
        let name: String = column(&row, "name", DURING)?;
        out.push(format!("the server runs with `{name}` on: damaged pages can be missing without an error"));
    }
    Ok(out)
}

/// Puts the streams into manifest order and the tables beside them.
fn assemble(
    tables: &[Table],
    part_blocks: u64,
    globals: Option<FinishedStream>,
    archive: FinishedStream,
    mut results: Results,
    encoding: &Encoding,
) -> Result<(Vec<CapturedStream>, Vec<TableEntry>), PostgresError> {
    let plain = |stream| CapturedStream { stream, copy: None, members: Vec::new(), paths: Vec::new() };
    let mut streams: Vec<CapturedStream> = globals.into_iter().map(plain).collect();
    streams.push(plain(archive));
    let own = results.tables.values().flatten().filter(|done| matches!(done.place, Place::Own(_))).count();
    let number = |streams: usize| u32::try_from(streams).unwrap_or(u32::MAX);
    let tar_number = number(streams.len() + own + 1);
    let mut entries = Vec::with_capacity(tables.len());
    for (index, table) in tables.iter().enumerate() {
        let mut entry = TableEntry {
            schema: table.relation.schema.clone(),
            name: table.relation.name.clone(),
            kept: table.kept,
            rows: 0,
            bytes: 0,
            fingerprint: crate::fingerprint::Fingerprint::default(),
            format: table.format.word().to_owned(),
            columns: table.columns.clone(),
            types: table.types.clone(),
            encoding: encoding.name.clone(),
            parts: Vec::new(),
        };
        let done = results.tables.remove(&index).unwrap_or_default();
        let wanted = parts(table, part_blocks);
        if done.len() != wanted {
            let shown = table.relation.shown();
            let finding = format!("table `{shown}` was copied in {} parts instead of {wanted}", done.len());
            return Err(PostgresError::Unreconciled { findings: vec![finding] });
        }
        let mut sum = RowSum::default();
        for done in done {
            sum.merge(&done.sum);
            entry.bytes += done.bytes;
            let part = |stream, member| Part {
                stream,
                member,
                blocks: done.blocks,
                rows: done.sum.rows,
                fingerprint: done.sum.fingerprint,
            };
            match done.place {
                Place::Archive => {}
                Place::Member(member) => entry.parts.push(part(tar_number, Some(member))),
                Place::Own(stream) => {
                    let copy = Some(copy_out::load_statement(table, encoding));
                    streams.push(CapturedStream { copy, ..plain(stream) });
                    entry.parts.push(part(number(streams.len()), None));
                }
            }
        }
        (entry.rows, entry.fingerprint) = (sum.rows, sum.fingerprint);
        if let Some(counted) = results.counted.get(&index).copied().filter(|counted| *counted != entry.rows) {
            return Err(PostgresError::CountDiffers { table: table.relation.shown(), copied: entry.rows, counted });
        }
        if !entry.is_covered() {
            let finding = format!("the parts of table `{}` do not cover it once", table.relation.shown());
            return Err(PostgresError::Unreconciled { findings: vec![finding] });
        }
        entries.push(entry);
    }
    if let Some((stream, members)) = results.tar {
        streams.push(CapturedStream { members, ..plain(stream) });
    }
    Ok((streams, entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Never run: that it compiles is the proof that a capture can be a boxed future of the `Source` trait.
    #[expect(dead_code, reason = "checked by the compiler")]
    fn a_capture_may_move_between_threads<'a>(
        options: &'a PostgresOptions,
        sink: &'a dyn Sink,
        clock: &'a Clock,
        monitor: &'a dyn Monitor,
    ) -> futures::future::BoxFuture<'a, Result<Captured, PostgresError>> {
        Box::pin(capture(options, sink, clock, monitor))
    }
}
