//! Workers: sessions that read the coordinator's snapshot and take tables from one queue, the largest first.
//!
//! Small tables go one after another through one worker into one tar, because twenty thousand tables are not twenty
//! thousand objects. A table that a worker cannot lock at once is copied on the coordinator's session, which holds
//! its lock already: whoever waits for an exclusive lock then waits for us, not we for them.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Mutex, MutexGuard};

use super::copy_out::{self, Blocks, Copied, Ended, MEMBER_BYTES, Output, Reader, load_statement};
use super::error::PostgresError;
use super::large_objects::LargeObjects;
use super::names::Encoding;
use super::options::{ConnectOptions, CountCheck};
use super::plan::Table;
use super::session::open_wire;
use super::shape::Shapes;
use super::snapshot::Coordinator;
use super::wire::Wire;
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
    /// The snapshot's columns, where the coordinator holds no locks.
    pub(super) shapes: Option<&'a Shapes>,
    /// Indices of tables that are counted a second time.
    pub(super) recounted: Vec<usize>,
    /// Blocks of one part of a table without TOAST. Boundaries are fixed, so that a part that did not change is the
    /// same stream the next time.
    pub(super) part_blocks: u64,
}

/// The rows of a table, or of a range of its blocks, and where they are.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) blocks: Option<Blocks>,
    pub(super) sum: RowSum,
    pub(super) bytes: u64,
    pub(super) place: Place,
}

/// Where rows are.
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
    /// By index of the table, in the order of the blocks.
    pub(super) tables: BTreeMap<usize, Vec<Done>>,
    /// Rows by the second count, by index of the table.
    pub(super) counted: BTreeMap<usize, u64>,
    pub(super) tar: Option<(FinishedStream, Vec<Member>)>,
    pub(super) large_objects: LargeObjects,
}

impl Results {
    fn add(&mut self, index: usize, done: Done) {
        let parts = self.tables.entry(index).or_default();
        let at = parts.partition_point(|other| other.blocks < done.blocks);
        parts.insert(at, done);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Job {
    Small(Vec<usize>),
    Part(usize, Option<Blocks>),
    Sum(usize),
    Recount(usize),
    LargeObjects,
}

/// In how many parts a table is copied.
pub(super) fn parts(table: &Table, part_blocks: u64) -> usize {
    match table.kept {
        Kept::Excluded => 0,
        Kept::Streamed if is_small(table) => 1,
        Kept::Streamed => ranges(table, part_blocks).len(),
        Kept::Archive => 1,
    }
}

fn is_small(table: &Table) -> bool {
    table.disk_bytes < MEMBER_BYTES
}

/// The ranges that cover a table once; the last is open, because a table grows.
fn ranges(table: &Table, part_blocks: u64) -> Vec<Option<Blocks>> {
    let part_blocks = table.part_blocks(part_blocks);
    let count = table.blocks.div_ceil(part_blocks);
    if count <= 1 {
        return vec![None];
    }
    let range = |part| Some((part * part_blocks, (part + 1 < count).then(|| (part + 1) * part_blocks)));
    (0..count).map(range).collect()
}

/// The jobs in the order they are started: small tables first, because they are many round trips that wait rather than
/// work, then the largest parts.
fn queue(tables: &[Table], recounted: &[usize], part_blocks: u64) -> VecDeque<Job> {
    let of = |kept: Kept| tables.iter().enumerate().filter(move |(_, table)| table.kept == kept);
    let (small, large): (Vec<_>, Vec<_>) = of(Kept::Streamed).partition(|(_, table)| is_small(table));
    let mut by_size = Vec::new();
    for (index, table) in large {
        let ranges = ranges(table, part_blocks);
        let weight = table.disk_bytes / ranges.len() as u64;
        by_size.extend(ranges.into_iter().map(|blocks| (weight, Job::Part(index, blocks))));
    }
    by_size.extend(of(Kept::Archive).map(|(index, table)| (table.disk_bytes, Job::Sum(index))));
    // Stable: parts of one table stay in order.
    by_size.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    let mut jobs = VecDeque::new();
    if !small.is_empty() {
        jobs.push_back(Job::Small(small.iter().map(|(index, _)| *index).collect()));
    }
    jobs.extend(by_size.into_iter().map(|(_, job)| job));
    jobs.extend(recounted.iter().map(|index| Job::Recount(*index)));
    jobs.push_back(Job::LargeObjects);
    jobs
}

/// Which tables are counted twice: all, or one that changes from capture to capture.
pub(super) fn recounted(tables: &[Table], check: CountCheck, turn: i64) -> Vec<usize> {
    let kept: Vec<usize> =
        tables.iter().enumerate().filter(|(_, table)| table.kept != Kept::Excluded).map(|(index, _)| index).collect();
    match check {
        CountCheck::All => kept,
        CountCheck::One => {
            let turn = usize::try_from(turn.unsigned_abs()).unwrap_or(0).checked_rem(kept.len());
            turn.and_then(|turn| kept.get(turn)).copied().into_iter().collect()
        }
    }
}

impl Work<'_> {
    /// Works all jobs off with `workers` connections.
    pub(super) async fn run(&self, workers: usize) -> Result<Results, PostgresError> {
        let (snapshot, locked) = {
            let coordinator = self.coordinator.lock().await;
            (coordinator.snapshot.clone(), coordinator.locked)
        };
        let mut queue = queue(self.tables, &self.recounted, self.part_blocks);
        if let (Some(_), Some(Job::Small(small))) = (self.shapes, queue.front_mut()) {
            // Tables that come and go all the time are the youngest: they are copied while `pg_dump` has its locks.
            small.sort_by_key(|index| std::cmp::Reverse(self.tables[*index].relation.oid));
        }
        let workers = workers.clamp(1, queue.len().max(1));
        let (queue, results) = (Mutex::new(queue), Mutex::new(Results::default()));
        let worker = || async {
            let mut wire = open_wire(self.connect, &snapshot).await?;
            loop {
                let Some(job) = queue.lock().await.pop_front() else { break };
                match job {
                    Job::Part(index, blocks) => {
                        let output = Output::own(self.sink).await?;
                        let done = self.part(&mut wire, index, blocks, output, locked).await?;
                        results.lock().await.add(index, done);
                    }
                    Job::Sum(index) => {
                        let done = self.part(&mut wire, index, None, Output::Nowhere, locked).await?;
                        results.lock().await.add(index, done);
                    }
                    Job::Recount(index) => {
                        match self.recount(&mut wire, index, locked).await {
                            Ok(counted) => drop(results.lock().await.counted.insert(index, counted)),
                            // What nobody holds locked may be gone when it is copied: nothing is left to count then.
                            Err(PostgresError::Disturbed { .. }) if self.shapes.is_some() => {
                                wire = open_wire(self.connect, &snapshot).await?;
                            }
                            Err(error) => return Err(error),
                        }
                    }
                    Job::Small(indices) => {
                        let mut tar = Tar::new(self.sink.open(StreamKind::PgTables).await?);
                        for index in indices {
                            let done = self.small(&mut wire, index, &mut tar, locked).await?;
                            results.lock().await.add(index, done);
                        }
                        results.lock().await.tar = tar.finish().await?;
                    }
                    Job::LargeObjects => {
                        results.lock().await.large_objects = LargeObjects::read(&mut wire, true).await?;
                    }
                }
            }
            wire.close().await;
            Ok::<_, PostgresError>(())
        };
        futures::future::try_join_all((0..workers).map(|_| worker())).await?;
        if let Some(shapes) = self.shapes {
            shapes.compare(self.connect, self.tables).await?;
        }
        Ok(results.into_inner())
    }

    async fn small(&self, wire: &mut Wire, index: usize, tar: &mut Tar, locked: bool) -> Result<Done, PostgresError> {
        let copied = self.copy(wire, index, None, Output::small(self.sink), locked).await?;
        let place = match copied.ended {
            Ended::Small(bytes) => {
                Place::Member(tar.add(bytes, load_statement(&self.tables[index], self.encoding)).await?)
            }
            Ended::Own(stream) => Place::Own(stream),
            Ended::Nowhere => Place::Archive,
        };
        Ok(Done { blocks: None, sum: copied.sum, bytes: copied.bytes, place })
    }

    async fn part(
        &self,
        wire: &mut Wire,
        index: usize,
        blocks: Option<Blocks>,
        output: Output<'_>,
        locked: bool,
    ) -> Result<Done, PostgresError> {
        let copied = self.copy(wire, index, blocks, output, locked).await?;
        let (bytes, place) = match copied.ended {
            Ended::Own(stream) => (copied.bytes, Place::Own(stream)),
            Ended::Small(_) | Ended::Nowhere => (0, Place::Archive),
        };
        Ok(Done { blocks, sum: copied.sum, bytes, place })
    }

    async fn copy(
        &self,
        wire: &mut Wire,
        index: usize,
        blocks: Option<Blocks>,
        output: Output<'_>,
        locked: bool,
    ) -> Result<Copied, PostgresError> {
        let table = &self.tables[index];
        self.mark(wire).await?;
        let mut held = self.lock(wire, table, locked).await?;
        let copied = copy_out::copy(held.reader(), table, blocks, self.encoding, output, self.monitor).await?;
        drop(held);
        self.give_back(wire).await?;
        Ok(copied)
    }

    async fn recount(&self, wire: &mut Wire, index: usize, locked: bool) -> Result<u64, PostgresError> {
        let table = &self.tables[index];
        self.mark(wire).await?;
        let mut held = self.lock(wire, table, locked).await?;
        let counted = copy_out::count(held.reader(), table, self.encoding).await?;
        drop(held);
        self.give_back(wire).await?;
        Ok(counted)
    }

    /// Where there is no room for every lock, a worker gives each back when the table is copied: it would run out as well.
    async fn mark(&self, wire: &mut Wire) -> Result<(), PostgresError> {
        match self.shapes {
            Some(_) => {
                wire.query("SAVEPOINT one").await.map(drop).map_err(PostgresError::during("setting a savepoint"))
            }
            None => Ok(()),
        }
    }

    async fn give_back(&self, wire: &mut Wire) -> Result<(), PostgresError> {
        let sql = "ROLLBACK TO SAVEPOINT one; RELEASE SAVEPOINT one";
        match self.shapes {
            Some(_) => wire.query(sql).await.map(drop).map_err(PostgresError::during("giving a lock back")),
            None => Ok(()),
        }
    }

    /// Locks a table on this connection; where somebody is in the way, gives the coordinator's, which has its lock.
    async fn lock<'a>(&'a self, wire: &'a mut Wire, table: &Table, locked: bool) -> Result<Held<'a>, PostgresError> {
        if copy_out::lock(wire, &table.relation, self.encoding).await? {
            Ok(Held::Here(wire))
        } else if locked {
            Ok(Held::There(self.coordinator.lock().await))
        } else {
            let what = format!("table `{}` is locked by somebody else", table.relation.shown());
            Err(PostgresError::disturbed(what, None))
        }
    }
}

/// The session that holds a table's lock.
enum Held<'a> {
    Here(&'a mut Wire),
    There(MutexGuard<'a, Coordinator>),
}

impl Held<'_> {
    fn reader(&mut self) -> &mut dyn Reader {
        match self {
            Self::Here(wire) => *wire,
            Self::There(coordinator) => &mut coordinator.session,
        }
    }
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::plan::tests::relation;
    use super::*;
    use crate::chunk::{ChunkSizes, Cutter};

    #[test]
    fn the_parts_of_a_table_cover_it_once() {
        let mut table = Table::new(relation(20_000, 'r', "public", "t"), Kept::Streamed);
        for (blocks, toast_times) in [(0, 0), (1, 9), (63, 0), (64, 0), (65, 0), (1000, 1), (1000, 7), (1000, 1 << 40)]
        {
            (table.blocks, table.toast_bytes) = (blocks, blocks * 8192 * toast_times);
            table.disk_bytes = blocks * 8192 + table.toast_bytes;
            let ranges = ranges(&table, 64);
            if let [None] = ranges[..] {
                assert!(blocks <= 64);
                continue;
            }
            let ranges: Vec<Blocks> = ranges.into_iter().map(Option::unwrap).collect();
            assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (0, None));
            assert!(ranges.windows(2).all(|two| two[0].1 == Some(two[1].0)), "{ranges:?}");
        }
    }

    /// What a boundary that moves costs: chunks are cut by content, so that a part's second half is made of the same
    /// chunks when it becomes a part of its own, but for the first ones.
    #[test]
    fn a_new_boundary_costs_a_chunk_or_two() {
        let cutter = Cutter::new(ChunkSizes::SMALL, 7);
        let chunks = |mut bytes: &[u8]| {
            let mut found = HashSet::new();
            while let Some(length) = cutter.next(bytes, true) {
                found.insert(bytes[..length].to_vec());
                bytes = &bytes[length..];
            }
            found
        };
        let (mut rows, mut state) = (Vec::new(), 0x9e37_79b9_7f4a_7c15_u64);
        while rows.len() < 20 << 20 {
            for shift in [13, 39, 17] {
                state ^= if shift == 39 { state >> 7 } else { state << shift };
            }
            rows.extend(state.to_be_bytes());
        }
        let whole = chunks(&rows);
        let (first, second) = rows.split_at(9_999_984);
        let second = [b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", second].concat();
        let halves: HashSet<_> = chunks(first).union(&chunks(&second)).cloned().collect();
        let new = halves.difference(&whole).count();
        assert!(whole.len() > 200 && new <= 8, "{new} of {} chunks are new", whole.len());
    }
}
