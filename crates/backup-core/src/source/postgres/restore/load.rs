//! Rows: from streams into tables, several at a time, and back out of tables for comparison.
//!
//! A part's rows are summed as they are sent; sum, the manifest and the server's COPY tag must agree before the
//! transaction commits, and the stream's reader must have said that it was whole. So what is in a table is what was
//! captured, or the restore has failed. A session in which a COPY failed is closed, never used again.

mod back;
mod givers;
mod queue;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::try_join_all;
use sqlx::{Connection as _, Row};

pub(super) use self::back::{differing, read_back};
pub(super) use self::givers::Rows;
use self::givers::Taker;
use self::queue::{Job, Queue, Work};
use super::Snapshot;
use super::error::RestoreError;
use super::post_data::{EarlyIndex, PostData};
use super::rows::{Numbered, TarMembers};
use super::session;
use super::sql::{ident, qualified};
use super::types;
use crate::fingerprint::RowSum;
use crate::manifest::{Part, StreamKind, TableEntry};
use crate::monitor::{Event, Monitor};
use crate::source::Streams;
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::options::ConnectOptions;
use crate::source::postgres::rows::{RowFormat, RowSplitter};
use crate::source::postgres::wire::Wire;

/// Loads the rows of a snapshot into one database.
pub(super) struct Loader<'a> {
    pub(super) snapshot: &'a Snapshot<'a>,
    pub(super) streams: &'a dyn Streams,
    pub(super) to: &'a ConnectOptions,
    pub(super) monitor: &'a dyn Monitor,
    pub(super) jobs: usize,
    /// Indexes of the tables to load.
    pub(super) tables: &'a [usize],
    /// What is built for a large table while others are loaded, and from how many bytes of rows on one is large.
    pub(super) early: Option<(&'a PostData<'a>, u64)>,
}

/// Tables up to this size are not truncated for the sake of FREEZE.
const UNFROZEN_BYTES: usize = 64 * 1024;

/// What was loaded.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Per table of the manifest.
    pub(super) sums: BTreeMap<usize, RowSum>,
    /// Partition trees that took rows through their root, as (root's schema, root's name), with the leaves' indexes.
    pub(super) through_root: BTreeMap<(String, String), Vec<usize>>,
}

impl Loader<'_> {
    /// Loads everything. A table that a CHECK refuses, because it looks at other tables, comes again after all others.
    pub(super) async fn load(&self) -> Result<Loaded, RestoreError> {
        let mut conn = session::open(self.to).await?;
        types::compare(&mut conn, self.tables.iter().map(|index| &self.snapshot.tables[*index])).await?;
        // A session that is gone at once does not stand in the way of the rename.
        let _ = conn.close().await;
        let loaded = Mutex::new(Loaded::default());
        let mut refused = self.round(self.jobs(), self.jobs, &loaded).await?;
        loop {
            let before = refused.len();
            if before == 0 {
                return Ok(loaded.into_inner().unwrap_or_default());
            }
            let again = refused.into_iter().map(|(job, _)| job).collect();
            refused = self.round(again, 1, &loaded).await?;
            if refused.len() == before {
                break;
            }
        }
        // Nothing helps but to let the root of a partition tree choose the leaf.
        for (job, error) in refused {
            self.through_root(job, error, &loaded).await?;
        }
        Ok(loaded.into_inner().unwrap_or_default())
    }

    /// Works until the queue is empty; gives the jobs that were refused by a CHECK.
    async fn round(
        &self,
        jobs: VecDeque<Job>,
        sessions: usize,
        loaded: &Mutex<Loaded>,
    ) -> Result<Vec<(Job, RestoreError)>, RestoreError> {
        let (queue, refused) = (Queue::new(jobs), Mutex::new(Vec::new()));
        let worker = || async {
            let mut conn: Option<Wire> = None;
            while let Some(work) = queue.next().await {
                let job = match work {
                    Work::Load(job) => job,
                    Work::Build(index) => {
                        // Another process connects for that; a limit of connections must hold for both.
                        if let Some(idle) = conn.take() {
                            idle.close().await;
                        }
                        if let Some((post_data, _)) = self.early {
                            post_data.build(&index).await;
                        }
                        continue;
                    }
                };
                let done = match job {
                    Job::Table(index) => self.table(&mut conn, index, loaded).await,
                    Job::Tar(stream) => self.tar(&mut conn, stream, None, loaded, &refused).await,
                    Job::Member(stream, member) => self.tar(&mut conn, stream, Some(member), loaded, &refused).await,
                };
                let mut early = Vec::new();
                match done {
                    Err(error) if error.is_check_violation() => {
                        conn = None;
                        push(&refused, (job, error));
                    }
                    other => {
                        other?;
                        // Alone there is nothing beside which it could be built.
                        early = if sessions > 1 { self.early(job) } else { Vec::new() };
                    }
                }
                queue.loaded(early);
            }
            if let Some(conn) = conn {
                // A session that is gone at once does not stand in the way of the rename.
                conn.close().await;
            }
            Ok::<_, RestoreError>(())
        };
        try_join_all((0..sessions.max(1)).map(|_| worker())).await?;
        Ok(refused.into_inner().unwrap_or_default())
    }

    /// What can be built now that a job is done.
    fn early(&self, job: Job) -> Vec<EarlyIndex> {
        let Job::Table(index) = job else { return Vec::new() };
        let entry = &self.snapshot.tables[index];
        let whole = entry.parts.iter().all(|part| part.member.is_none());
        match self.early {
            Some((post_data, bytes)) if whole && entry.bytes >= bytes => post_data.early(entry),
            _ => Vec::new(),
        }
    }

    /// All jobs, the largest first, so that no large one is left to run alone at the end.
    fn jobs(&self) -> VecDeque<Job> {
        let mut sizes: BTreeMap<Job, u64> = BTreeMap::new();
        for &index in self.tables {
            for part in &self.snapshot.tables[index].parts {
                let job = if part.member.is_some() { Job::Tar(part.stream) } else { Job::Table(index) };
                let bytes = self.snapshot.stream(part.stream).map_or(0, |stream| stream.bytes);
                let size = sizes.entry(job).or_default();
                *size = if part.member.is_some() { bytes } else { *size + bytes };
            }
        }
        let mut jobs: Vec<(Job, u64)> = sizes.into_iter().collect();
        jobs.sort_by_key(|(job, bytes)| (std::cmp::Reverse(*bytes), *job));
        jobs.into_iter().map(|(job, _)| job).collect()
    }

    /// Loads the parts of a table that are streams of their own, in one transaction.
    async fn table(&self, conn: &mut Option<Wire>, index: usize, loaded: &Mutex<Loaded>) -> Result<(), RestoreError> {
        let entry = &self.snapshot.tables[index];
        let own: Vec<&Part> = entry.parts.iter().filter(|part| part.member.is_none()).collect();
        let whole = own.len() == entry.parts.len();
        let mut session = self.session(conn.take()).await?;
        let target = qualified(&entry.schema, &entry.name);
        let (mut sum, mut before) = (RowSum::default(), begin(&target, whole));
        for part in own {
            let stream = Numbered::open(self.streams, part.stream, StreamKind::PgTable).await?;
            let before = std::mem::take(&mut before);
            sum.merge(&self.copy(&mut session, entry, part, (&before, &target), whole, Rows::Stream(stream)).await?);
        }
        *conn = Some(commit(session, entry).await?);
        add(loaded, index, sum);
        Ok(())
    }

    /// Loads the members of a tar (or one of them), each in a transaction of its own.
    async fn tar(
        &self,
        conn: &mut Option<Wire>,
        number: u32,
        only: Option<u32>,
        loaded: &Mutex<Loaded>,
        refused: &Mutex<Vec<(Job, RestoreError)>>,
    ) -> Result<(), RestoreError> {
        let mut expected = self.members(number, only);
        let stream = Numbered::open(self.streams, number, StreamKind::PgTables).await?;
        let mut members = TarMembers::new(stream);
        while let Some((member, rows)) = members.next().await? {
            let Some((index, part)) = expected.remove(&member) else { continue };
            let entry = &self.snapshot.tables[index];
            // Three new files each, to save a vacuum that reads a few blocks: not for the small ones.
            let whole = entry.parts.len() == 1 && rows.len() > UNFROZEN_BYTES;
            let one = async {
                let mut session = self.session(conn.take()).await?;
                let target = qualified(&entry.schema, &entry.name);
                let (before, rows) = (begin(&target, whole), Rows::Memory(Some(rows)));
                let sum = self.copy(&mut session, entry, part, (&before, &target), whole, rows).await?;
                Ok::<_, RestoreError>((commit(session, entry).await?, sum))
            };
            match one.await {
                Ok((session, sum)) => {
                    *conn = Some(session);
                    add(loaded, index, sum);
                }
                Err(error) if error.is_check_violation() => push(refused, (Job::Member(number, member), error)),
                Err(error) => return Err(error),
            }
        }
        match expected.keys().next() {
            None => Ok(()),
            Some(member) => Err(RestoreError::Damaged { number, why: format!("it has no member {member}") }),
        }
    }

    /// Which member of a tar belongs to which part of which table.
    fn members(&self, number: u32, only: Option<u32>) -> BTreeMap<u32, (usize, &Part)> {
        let parts = self
            .tables
            .iter()
            .flat_map(|&index| self.snapshot.tables[index].parts.iter().map(move |part| (index, part)));
        let here = parts.filter(|(_, part)| part.stream == number);
        let named = here.filter_map(|(index, part)| Some((part.member?, (index, part))));
        named.filter(|(member, _)| only.is_none_or(|only| only == *member)).collect()
    }

    /// The session, or a new one.
    async fn session(&self, conn: Option<Wire>) -> Result<Wire, RestoreError> {
        match conn {
            Some(conn) => Ok(conn),
            None => Ok(session::open_wire(self.to).await?),
        }
    }

    /// Sends one part to `target`, behind the statements `before`, and compares.
    pub(super) async fn copy<S: Taker>(
        &self,
        session: &mut S,
        entry: &TableEntry,
        part: &Part,
        (before, target): (&str, &str),
        freeze: bool,
        rows: Rows,
    ) -> Result<RowSum, RestoreError> {
        let options = if freeze { ", FREEZE" } else { "" };
        let sql = format!("{before}COPY {target}{} FROM STDIN WITH ({}{options})", columns(entry), format_of(entry));
        let mut splitter = splitter(entry);
        let seen = |bytes: &[u8]| {
            splitter.feed(bytes);
            self.monitor.event(Event::Plain { bytes: bytes.len() as u64 });
        };
        let loaded = session.take(&sql, rows, seen).await?.map_err(|source| refused_load(entry, source))?;
        let expected = RowSum { rows: part.rows, fingerprint: part.fingerprint };
        let differs = |found| RestoreError::PartDiffers {
            schema: entry.schema.clone(),
            name: entry.name.clone(),
            expected,
            found,
        };
        let found = splitter.finish().ok_or_else(|| RestoreError::Damaged {
            number: part.stream,
            why: format!("the rows of {target} end inside a row"),
        })?;
        if found != expected {
            return Err(differs(found));
        }
        if loaded != found.rows {
            return Err(differs(RowSum { rows: loaded, fingerprint: found.fingerprint }));
        }
        Ok(found)
    }

    /// Loads a refused leaf through the root of its partition tree; anything else that was refused is an error now.
    async fn through_root(&self, job: Job, error: RestoreError, loaded: &Mutex<Loaded>) -> Result<(), RestoreError> {
        let (index, member) = match job {
            Job::Table(index) => (index, None),
            Job::Member(stream, member) => match self.members(stream, Some(member)).get(&member) {
                Some((index, _)) => (*index, Some((stream, member))),
                None => return Err(error),
            },
            Job::Tar(_) => return Err(error),
        };
        let entry = &self.snapshot.tables[index];
        let mut conn = session::open(self.to).await?;
        let sql = "SELECT n.nspname::text, c.relname::text FROM pg_class leaf \
                   JOIN pg_class c ON c.oid = pg_partition_root(leaf.oid) JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE leaf.oid = $1::regclass AND leaf.relispartition";
        let query = sqlx::query(sql).bind(qualified(&entry.schema, &entry.name));
        let row =
            query.fetch_optional(&mut conn).await.map_err(PostgresError::during("looking for a partition root"))?;
        let Some(row) = row else { return Err(error) };
        let named = |at| row.try_get(at).map_err(PostgresError::during("looking for a partition root"));
        let root: (String, String) = (named(0)?, named(1)?);
        let target = qualified(&root.0, &root.1);
        let _ = conn.close().await;
        let mut session = self.session(None).await?;
        let (mut sum, mut before) = (RowSum::default(), begin(&target, false));
        for part in &entry.parts {
            if member.is_none_or(|(stream, member)| (part.stream, part.member) == (stream, Some(member)))
                && part.member.is_some() == member.is_some()
            {
                let rows = self.part_rows(part).await?;
                let before = std::mem::take(&mut before);
                sum.merge(&self.copy(&mut session, entry, part, (&before, &target), false, rows).await?);
            }
        }
        commit(session, entry).await?.close().await;
        add(loaded, index, sum);
        if let Ok(mut loaded) = loaded.lock() {
            let leaves = loaded.through_root.entry(root).or_default();
            if !leaves.contains(&index) {
                leaves.push(index);
            }
        }
        Ok(())
    }

    /// The rows of one part on their own.
    pub(super) async fn part_rows(&self, part: &Part) -> Result<Rows, RestoreError> {
        let Some(wanted) = part.member else {
            return Ok(Rows::Stream(Numbered::open(self.streams, part.stream, StreamKind::PgTable).await?));
        };
        let stream = Numbered::open(self.streams, part.stream, StreamKind::PgTables).await?;
        let mut members = TarMembers::new(stream);
        while let Some((member, rows)) = members.next().await? {
            if member == wanted {
                return Ok(Rows::Memory(Some(rows)));
            }
        }
        Err(RestoreError::Damaged { number: part.stream, why: format!("it has no member {wanted}") })
    }
}

fn columns(entry: &TableEntry) -> String {
    if entry.columns.is_empty() {
        return String::new();
    }
    format!(" ({})", entry.columns.iter().map(|name| ident(name)).collect::<Vec<_>>().join(", "))
}

fn splitter(entry: &TableEntry) -> RowSplitter {
    // `plan` refused any other word.
    RowSplitter::new(RowFormat::parse(&entry.format).unwrap_or_default(), entry.columns.len())
}

fn format_of(entry: &TableEntry) -> String {
    format!("FORMAT {}, ENCODING {}", entry.format, super::sql::literal(&entry.encoding))
}

/// Rows of a table that was truncated in this transaction can be written frozen: no vacuum has to do it again.
fn begin(target: &str, truncate: bool) -> String {
    if truncate { format!("BEGIN; TRUNCATE ONLY {target}; ") } else { "BEGIN; ".to_owned() }
}

async fn commit(mut session: Wire, entry: &TableEntry) -> Result<Wire, RestoreError> {
    session.query("COMMIT").await.map_err(|e| refused_load(entry, e))?;
    Ok(session)
}

fn refused_load(entry: &TableEntry, source: sqlx::Error) -> RestoreError {
    RestoreError::Load { schema: entry.schema.clone(), name: entry.name.clone(), source }
}

fn add(loaded: &Mutex<Loaded>, index: usize, sum: RowSum) {
    if let Ok(mut loaded) = loaded.lock() {
        loaded.sums.entry(index).or_default().merge(&sum);
    }
}

fn push(refused: &Mutex<Vec<(Job, RestoreError)>>, one: (Job, RestoreError)) {
    if let Ok(mut refused) = refused.lock() {
        refused.push(one);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
