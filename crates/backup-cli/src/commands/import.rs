//! `backup import`: an old dump of `pg_dump` as a snapshot of a source.

use std::path::PathBuf;

use backup_core::backup::{BackupRequest, Host, backup};
use backup_core::config::{self, PostgresSource, SourceKind, View};
use backup_core::id::SourceName;
use backup_core::source::postgres::ConnectOptions;
use backup_core::source::postgres::import::{self, Dump, ImportOptions, InstantFrom};
use backup_core::vault::Vault;
use chrono::{DateTime, SubsecRound as _, Utc};
use serde_json::{Value, json};

use super::run;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::find;
use crate::lock::RunLock;
use crate::session::{self, Session, TOOL};
use crate::{when, words};

/// Bring an old dump of `pg_dump` into a vault, as a snapshot of a source
///
/// Custom (-Fc), directory (-Fd) and tar (-Ft) archives and plain SQL (also .gz, .zst) are kept as they are, encrypted, and come
/// back with `backup restore`, by `pg_restore` and `psql`. The dump is read to its end first: rows of every table are counted,
/// and a restore compares them. Compressed dumps share nothing with other snapshots: each needs its own room.
///
/// Importing a dump means trusting it: a restore runs what is in it on the server, as `psql` and `pg_restore` would.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The dump: a file, or the folder of a directory-format dump
    #[arg(value_name = "FILE|DIR")]
    pub(crate) path: PathBuf,
    /// The source that it is a snapshot of, of type `postgres`
    #[arg(long, value_name = "S")]
    pub(crate) source: SourceName,
    /// Of when its data is, as in `restore --at` [default: what the dump says, in the stack's time zone; else the file's time]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) at: Option<String>,
    /// Into this vault [default: the first that answers]
    #[arg(long, value_name = "NAME")]
    pub(crate) vault: Option<String>,
    /// Read the dump to its end, show what would be imported, and store nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Looks at the dump, says what it is, stores it. Exit 3 when the snapshot is suspect.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    let (source, database) = source(&session, &args.source)?;
    session.check_vault(args.vault.as_deref())?;
    let dump = import::inspect(options(&session, args, database)?).await?;
    let plan = plan(&session, &dump, source);
    if args.dry_run {
        let counted = dump.count().await?;
        let mut value = plan_json(&dump, source);
        value["dry_run"] = true.into();
        value["tables"] = counted.tables.into();
        value["rows"] = counted.rows.into();
        value["suspect"] = json!(counted.suspect);
        cx.printer.result("import", value, || {
            let suspect = counted.suspect.iter().map(|why| format!("suspect: {why}\n"));
            let rows = format!("{} with {} rows\n", words::count(counted.tables, "table"), counted.rows);
            [format!("would import {plan}\n"), rows].into_iter().chain(suspect).collect()
        })?;
        return Ok(if counted.suspect.is_empty() { Exit::Done } else { Exit::Partial });
    }
    session.config.refuse_revoked()?;
    let key = session.host_key()?;
    if session.config.keys.recipients.is_empty() {
        return Err(CliError::usage("`keys.recipients` is empty: nobody could read the snapshot")
            .hint("make an identity with `backup key new FILE` and name its recipient"));
    }
    let state = session.state_or_new().await??;
    let _lock = RunLock::take_import(session.state_dir()?, session.stack(), &source.name)?;
    let vault = vault(&session, args.vault.as_deref()).await?;
    refuse_twice(&session, &dump, source).await?;
    cx.printer.talk(&format!("importing {plan}"));
    let request = request(&session, source)?;
    let signers = session.signers()?;
    let host = Host { key: &key, signers: &signers, state: &state, clock: &cx.clock, monitor: &session.monitor };
    let committed = backup(&vault, host, &request, &dump).await?;
    let doc = &committed.snapshot.doc;
    let mut value = plan_json(&dump, source);
    value["snapshot"] = json!(doc.id);
    value["vault"] = vault.name().into();
    value["tables"] = doc.tables.into();
    value["rows"] = doc.rows.into();
    value["plain_bytes"] = doc.plain_bytes.into();
    value["stored_bytes"] = doc.stored_bytes.into();
    value["suspect"] = json!(committed.suspect);
    cx.printer.result("import", value, || {
        let count = words::count(usize::try_from(doc.tables).unwrap_or(usize::MAX), "table");
        let stored = format!("{} of {} stored", words::bytes(doc.stored_bytes), words::bytes(doc.plain_bytes));
        let mut text = format!(
            "{}: {} in vault {}: {count} with {} rows, {stored}\n",
            source.name,
            doc.id,
            vault.name(),
            doc.rows
        );
        for why in &committed.suspect {
            text.push_str(&format!("suspect: {why}\n"));
        }
        text
    })?;
    if session.config.vaults.len() > 1 {
        cx.printer.talk("copy it into the other vaults with `backup replicate`");
    }
    Ok(if committed.suspect.is_empty() { Exit::Done } else { Exit::Partial })
}

/// The configured source, which must be a database.
fn source<'a>(
    session: &'a Session<'_>,
    name: &SourceName,
) -> Result<(&'a config::Source, &'a PostgresSource), CliError> {
    let source = session.sources(std::slice::from_ref(name))?.into_iter().next();
    match source.map(|source| (source, &source.kind)) {
        Some((source, SourceKind::Postgres(database))) => Ok((source, database)),
        Some((_, other)) => Err(CliError::usage(format!(
            "source `{name}` is of type `{}`, and a dump of `pg_dump` is a snapshot of a `postgres` source",
            other.word()
        ))
        .hint("name a source of type `postgres` with `--source NAME`")),
        None => Err(CliError::usage(format!("there is no source `{name}` in the configuration"))),
    }
}

fn options(session: &Session<'_>, args: &Args, database: &PostgresSource) -> Result<ImportOptions, CliError> {
    let (now, timezone) = (session.cx.clock.now(), session.config.timezone);
    let at = args.at.as_deref().map(|text| when::parse(text, now, timezone)).transpose()?;
    Ok(ImportOptions {
        path: args.path.clone(),
        clients: session::clients(&database.clients),
        // Names have whole seconds.
        at: at.map(|at| at.trunc_subsecs(0).min(now)),
        timezone,
        now,
        database: ConnectOptions::new(&database.url, None)?.database().to_owned(),
    })
}

/// The vault to store into: the one that is named, or the first that answers and has room.
async fn vault(session: &Session<'_>, only: Option<&str>) -> Result<Vault, CliError> {
    let mut first: Option<CliError> = None;
    for vault in session.config.vaults.iter().filter(|vault| only.is_none_or(|name| name == vault.name)) {
        let opened = match session.vault(vault, true).await {
            Ok(opened) => run::reserve(session, vault).await.map(|()| opened),
            Err(error) => Err(error),
        };
        match opened {
            Ok(opened) => return Ok(opened),
            Err(error) => {
                if only.is_none() {
                    let text = format!("vault `{}` cannot be used: {}", vault.name, error.message());
                    session.cx.printer.warn(&text, error.advice().unwrap_or("trying the next vault"));
                }
                first = first.or(Some(error));
            }
        }
    }
    Err(first.unwrap_or_else(|| CliError::new(Exit::NoVault, "no vault is configured")))
}

/// What is inside is sealed, so that names are what tells: an import of the same source and second is the same dump.
async fn refuse_twice(session: &Session<'_>, dump: &Dump, source: &config::Source) -> Result<(), CliError> {
    let found = find::snapshots(session, std::slice::from_ref(&source.name), None).await?;
    let same = |instant: DateTime<Utc>| instant.timestamp() == dump.instant().timestamp();
    match found.of(&source.name).into_iter().find(|one| one.id.is_imported() && same(one.id.instant())) {
        None => Ok(()),
        Some(one) => Err(CliError::usage(format!(
            "source `{}` has an imported snapshot of {} already: {}",
            source.name,
            dump.instant().format("%F %T UTC"),
            one.id
        ))
        .hint("if this is another dump, say of when with `--at TIME`")),
    }
}

fn request(session: &Session<'_>, source: &config::Source) -> Result<BackupRequest, CliError> {
    let config = &session.config;
    let memory = usize::try_from(config.limits.memory.0).unwrap_or(usize::MAX);
    Ok(BackupRequest {
        stack: config.stack.clone(),
        source: source.name.clone(),
        run: format!("import-{}", run::run_id(session.cx.clock.now())),
        recipients: config.keys.recipients.clone(),
        period: source.generation.to_string().parse()?,
        level: run::LEVEL,
        budget_bytes: memory / 2,
        cpus: std::thread::available_parallelism().map_or(2, usize::from),
        secret: false,
        next_due: None,
        config: config.show_json(View::Full),
        tool: TOOL.to_owned(),
    })
}

/// How the instant is known, for people.
fn known_from(dump: &Dump, session: &Session<'_>) -> String {
    match dump.instant_from() {
        InstantFrom::Operator => "by `--at`".to_owned(),
        InstantFrom::Dump => format!("as the dump says, by clocks in {}", session.config.timezone),
        InstantFrom::Modified => "when the file was last written; say it with `--at` if that is wrong".to_owned(),
    }
}

/// One line about what is imported.
fn plan(session: &Session<'_>, dump: &Dump, source: &config::Source) -> String {
    let from = dump.server_version().map_or_else(String::new, |version| format!(" of PostgreSQL {version}"));
    format!(
        "{} ({} dump{from}, database {}) as a snapshot of {} at {} ({})",
        dump.file_name().escape_debug(),
        dump.format().word(),
        dump.database().escape_debug(),
        source.name,
        dump.instant().format("%F %T UTC"),
        known_from(dump, session)
    )
}

fn plan_json(dump: &Dump, source: &config::Source) -> Value {
    json!({
        "source": source.name, "file": dump.file_name(), "dump_format": dump.format().word(), "database": dump.database(),
        "server_version": dump.server_version(), "instant": words::utc(dump.instant()),
        "instant_from": dump.instant_from().word(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::restore::tests::parse;

    #[test]
    fn takes_a_file_and_a_source() {
        let args: Args = parse(&["/d/app.dump", "--source", "db", "--at", "-36h"]).unwrap();
        assert_eq!((args.source.as_str(), args.at.as_deref(), args.dry_run), ("db", Some("-36h"), false));
        assert!(parse::<Args>(&["/d/app.dump"]).is_err());
        assert!(parse::<Args>(&["--source", "db"]).is_err());
    }
}
