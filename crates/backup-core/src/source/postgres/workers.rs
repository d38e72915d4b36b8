//! Workers: sessions that read the coordinator's snapshot and take tables from one queue, the largest first.
//!
//! Small tables go one after another through one worker into one tar, because twenty thousand tables are not twenty
//! thousand objects. A table that a worker cannot lock at once is copied on the coordinator's session, which holds
//! its lock already: whoever waits for an exclusive lock then waits for us, not we for them.

use std::collections::{BTreeMap, HashSet, VecDeque};

use bytes::{Bytes, BytesMut};
use tokio::sync::Mutex;

use super::copy_out::{self, Copied, Ended, MEMBER_BYTES, Output};
use super::error::PostgresError;
use super::names::Encoding;
use super::options::{ConnectOptions, CountCheck};
use super::plan::Table;
use super::properties::{self, LargeObjects};
use super::session::Session;
use super::snapshot::Coordinator;
use crate::fingerprint::RowSum;
use crate::manifest::{Kept, Member, StreamKind};
use crate::monitor::Monitor;
use crate::source::{FinishedStream, Sink, StreamWriter};

/// What all workers share.
pub(super) struct Work<'a> {
    pub(super) connect: &'a ConnectOptions,
    pub(super) tables: &'a [Table],
    pub(super) encoding: &'a Encoding,
    pub(super) coordinator: &'a Mutex<Coordinator>,
    pub(super) sink: &'a dyn Sink,
    pub(super) monitor: &'a dyn Monitor,
    /// Indices of tables that are counted twice.
    pub(super) counted: HashSet<usize>,
}

/// A table's rows and where they are.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) sum: RowSum,
    pub(super) bytes: u64,
    pub(super) place: Place,
}

/// Where a table's rows are.
#[derive(Debug)]
pub(super) enum Place {
    /// In the archive; counted and fingerprinted only.
    Archive,
    /// In a stream of its own.
    Own(FinishedStream),
    /// In the tar, as this member.
    Member(u32),
}

/// What the workers give.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// By index of the table.
    pub(super) tables: BTreeMap<usize, Done>,
    pub(super) tar: Option<(FinishedStream, Vec<Member>)>,
    pub(super) large_objects: LargeObjects,
}

enum Job {
    Small(Vec<usize>),
    Large(usize),
    Count(usize),
    LargeObjects,
}

/// The jobs in the order they are started.
fn queue(tables: &[Table]) -> VecDeque<Job> {
    let of = |kept: Kept| tables.iter().enumerate().filter(move |(_, table)| table.kept == kept);
    let (small, large): (Vec<_>, Vec<_>) = of(Kept::Streamed).partition(|(_, table)| table.disk_bytes < MEMBER_BYTES);
    let mut by_size: Vec<_> = large;
    by_size.extend(of(Kept::Archive));
    by_size.sort_by_key(|(index, table)| (std::cmp::Reverse(table.disk_bytes), *index));
    let mut jobs = VecDeque::new();
    if !small.is_empty() {
        jobs.push_back(Job::Small(small.iter().map(|(index, _)| *index).collect()));
    }
    jobs.extend(by_size.iter().map(|(index, table)| match table.kept {
        Kept::Archive => Job::Count(*index),
        _ => Job::Large(*index),
    }));
    jobs.push_back(Job::LargeObjects);
    jobs
}

/// Which tables are counted twice: all, or one that changes from capture to capture.
pub(super) fn counted(tables: &[Table], check: CountCheck, turn: i64) -> HashSet<usize> {
    let kept: Vec<usize> =
        tables.iter().enumerate().filter(|(_, table)| table.kept != Kept::Excluded).map(|(index, _)| index).collect();
    match check {
        CountCheck::All => kept.into_iter().collect(),
        CountCheck::One => {
            let turn = usize::try_from(turn.unsigned_abs()).unwrap_or(0).checked_rem(kept.len());
            turn.and_then(|turn| kept.get(turn)).copied().into_iter().collect()
        }
    }
}

impl Work<'_> {
    /// Works all jobs off with `workers` sessions.
    pub(super) async fn run(&self, workers: usize) -> Result<Results, PostgresError> {
        let (snapshot, locked) = {
            let coordinator = self.coordinator.lock().await;
            (coordinator.snapshot.clone(), coordinator.locked)
        };
        let queue = queue(self.tables);
        let workers = workers.clamp(1, queue.len().max(1));
        let (queue, results) = (Mutex::new(queue), Mutex::new(Results::default()));
        let worker = || async {
            let mut session = Session::open(self.connect).await?;
            session.import(&snapshot).await?;
            loop {
                let Some(job) = queue.lock().await.pop_front() else { break };
                match job {
                    Job::Large(index) => {
                        let done = self.table(&mut session, index, Output::own(self.sink).await?, locked).await?;
                        let Ended::Own(stream) = done.ended else { continue };
                        let done = Done { sum: done.sum, bytes: done.bytes, place: Place::Own(stream) };
                        results.lock().await.tables.insert(index, done);
                    }
                    Job::Count(index) => {
                        let done = self.table(&mut session, index, Output::Nowhere, locked).await?;
                        let done = Done { sum: done.sum, bytes: 0, place: Place::Archive };
                        results.lock().await.tables.insert(index, done);
                    }
                    Job::Small(indices) => {
                        let mut tar = Tar::new(self.sink.open(StreamKind::PgTables).await?);
                        for index in indices {
                            let done = self.small(&mut session, index, &mut tar, locked).await?;
                            results.lock().await.tables.insert(index, done);
                        }
                        results.lock().await.tar = tar.finish().await?;
                    }
                    Job::LargeObjects => {
                        results.lock().await.large_objects = properties::large_objects(&mut session).await?;
                    }
                }
            }
            session.close().await;
            Ok::<_, PostgresError>(())
        };
        futures::future::try_join_all((0..workers).map(|_| worker())).await?;
        Ok(results.into_inner())
    }

    async fn small(
        &self,
        session: &mut Session,
        index: usize,
        tar: &mut Tar,
        locked: bool,
    ) -> Result<Done, PostgresError> {
        let copied = self.table(session, index, Output::small(self.sink), locked).await?;
        let place = match copied.ended {
            Ended::Small(bytes) => {
                let table = &self.tables[index];
                Place::Member(tar.add(bytes, load_statement(table, self.encoding)).await?)
            }
            Ended::Own(stream) => Place::Own(stream),
            Ended::Nowhere => Place::Archive,
        };
        Ok(Done { sum: copied.sum, bytes: copied.bytes, place })
    }

    /// Copies one table, on this session or on the coordinator's, and counts it a second time if it is its turn.
    async fn table(
        &self,
        session: &mut Session,
        index: usize,
        output: Output<'_>,
        locked: bool,
    ) -> Result<Copied, PostgresError> {
        let table = &self.tables[index];
        if copy_out::lock(session, &table.relation, self.encoding).await? {
            self.copy(session, index, output).await
        } else if locked {
            self.copy(&mut self.coordinator.lock().await.session, index, output).await
        } else {
            let what = format!("table `{}` is locked by somebody else", table.relation.shown());
            Err(PostgresError::disturbed(what, None))
        }
    }

    async fn copy(&self, session: &mut Session, index: usize, output: Output<'_>) -> Result<Copied, PostgresError> {
        let table = &self.tables[index];
        let copied = copy_out::copy(session, table, self.encoding, output, self.monitor).await?;
        if self.counted.contains(&index) {
            let counted = copy_out::count(session, table, self.encoding).await?;
            if counted != copied.sum.rows {
                // A table that changed places between the two is a disturbance, not a miscount.
                copy_out::same_table(session, &table.relation).await?;
                let table = table.relation.shown();
                return Err(PostgresError::CountDiffers { table, copied: copied.sum.rows, counted });
            }
        }
        Ok(copied)
    }
}

/// The statement of the manifest that loads a table's rows.
pub(super) fn load_statement(table: &Table, encoding: &Encoding) -> String {
    let relation = &table.relation;
    format!("COPY {} FROM STDIN", encoding.copied(&relation.schema, &relation.name, &table.columns))
}

/// A tar of small COPY files, the same bytes for the same files.
struct Tar {
    writer: Box<dyn StreamWriter>,
    batch: BytesMut,
    members: Vec<Member>,
}

impl Tar {
    const BATCH_BYTES: usize = 128 * 1024;
    const BLOCK_BYTES: usize = 512;

    fn new(writer: Box<dyn StreamWriter>) -> Self {
        Self { writer, batch: BytesMut::new(), members: Vec::new() }
    }

    async fn add(&mut self, bytes: Bytes, copy: String) -> Result<u32, PostgresError> {
        let number = u32::try_from(self.members.len() + 1).unwrap_or(u32::MAX);
        self.batch.extend_from_slice(&header(number, bytes.len() as u64));
        self.batch.extend_from_slice(&bytes);
        self.batch.resize(self.batch.len().next_multiple_of(Self::BLOCK_BYTES), 0);
        self.members.push(Member { number, bytes: bytes.len() as u64, copy });
        self.flush(Self::BATCH_BYTES).await?;
        Ok(number)
    }

    /// Writes while at least `keep` bytes wait. What remains starts at a block, so padding by length stays right.
    async fn flush(&mut self, keep: usize) -> Result<(), PostgresError> {
        while !self.batch.is_empty() && self.batch.len() >= keep {
            let now = self.batch.len().min(Self::BATCH_BYTES);
            self.writer.write(self.batch.split_to(now).freeze()).await?;
        }
        Ok(())
    }

    /// The finished tar, or nothing when no table was small enough after all (its stream is abandoned).
    async fn finish(mut self) -> Result<Option<(FinishedStream, Vec<Member>)>, PostgresError> {
        if self.members.is_empty() {
            return Ok(None);
        }
        self.batch.resize(self.batch.len() + 2 * Self::BLOCK_BYTES, 0);
        self.flush(0).await?;
        Ok(Some((self.writer.finish().await?, self.members)))
    }
}

fn header(number: u32, bytes: u64) -> [u8; 512] {
    let mut header = tar::Header::new_ustar();
    // Eight digits and five letters fit into the name field.
    let name = format!("{number:08}.copy");
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes);
    header.set_cksum();
    *header.as_bytes()
}
