//! Which chunks lie where, in one generation and one vault.
//!
//! Begins with what an earlier run's journal says *and* a listing of this run confirms by name and size; grows as packs
//! are sent. Never filled from anything else, so that no file planted in a vault can stand for a chunk.

use std::collections::HashMap;

use crate::id::{ChunkId, ObjectName};
use crate::vault::inventory::InventoryLine;

/// A chunk at its place in an object's plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedChunk {
    /// Which chunk it is.
    pub id: ChunkId,
    /// First byte in the object's plaintext.
    pub offset: u32,
    /// Length.
    pub bytes: u32,
}

/// An object that a vault has answered for, with the chunks in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// Its name.
    pub name: ObjectName,
    /// Its stored size.
    pub stored_bytes: u64,
    /// Length of its plaintext.
    pub plain_bytes: u32,
    /// Its chunks.
    pub chunks: Vec<PackedChunk>,
}

#[derive(Debug, Clone, Copy)]
struct Location {
    object: u32,
    offset: u32,
    bytes: u32,
}

#[derive(Debug, Clone, Copy)]
struct Object {
    /// Absent until the vault has answered.
    name: Option<ObjectName>,
    stored_bytes: u64,
    plain_bytes: u32,
}

/// The chunks that need not be stored again.
///
/// A sorted list, half the size of a map and without the moment at which a map that grows is there twice. Only what came
/// since it was sorted last is in a map.
#[derive(Debug, Default)]
pub struct Known {
    /// Sorted by chunk, each once.
    sorted: Vec<(ChunkId, Location)>,
    /// None of those.
    recent: HashMap<ChunkId, Location>,
    objects: Vec<Object>,
}

/// Takes what a journal remembers, entry by entry, so that nobody need hold all of it.
#[derive(Debug)]
pub struct Confirming<'l> {
    listed: &'l [InventoryLine],
    known: Known,
}

impl<'l> Confirming<'l> {
    /// `listed`, sorted by name: the objects that a listing of this run showed.
    pub fn new(listed: &'l [InventoryLine]) -> Self {
        Self { listed, known: Known::default() }
    }

    /// Keeps what the listing confirms by name and size.
    pub fn take(&mut self, entry: &JournalEntry) {
        let line = InventoryLine { name: entry.name, bytes: entry.stored_bytes };
        if self.listed.binary_search(&line).is_err() {
            return;
        }
        let object = self.known.reserve();
        let at = |chunk: &PackedChunk| Location { object, offset: chunk.offset, bytes: chunk.bytes };
        self.known.sorted.extend(entry.chunks.iter().map(|chunk| (chunk.id, at(chunk))));
        self.known.confirm(object, entry);
    }

    /// What is known. Of a chunk that lies in several objects the first is taken.
    pub fn finish(self) -> Known {
        let mut known = self.known;
        known.sort();
        known
    }
}

/// A chunk that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Number of the object within this run.
    pub object: u32,
    /// First byte in its plaintext.
    pub offset: u32,
    /// Length.
    pub bytes: u32,
}

/// So many chunks may wait to be sorted in, or an eighth of those that are.
const RECENT: usize = 1 << 16;

impl Known {
    /// Sorts in what is recent. Of a chunk that lies in several objects the first stays.
    fn sort(&mut self) {
        self.sorted.extend(self.recent.drain());
        self.sorted.sort_unstable_by_key(|(id, at)| (*id, at.object, at.offset));
        self.sorted.dedup_by_key(|(id, _)| *id);
    }

    /// Number of known chunks.
    pub fn len(&self) -> usize {
        self.sorted.len() + self.recent.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn location(&self, id: &ChunkId) -> Option<&Location> {
        match self.sorted.binary_search_by_key(id, |(id, _)| *id) {
            Ok(at) => self.sorted.get(at).map(|(_, location)| location),
            Err(_) => self.recent.get(id),
        }
    }

    pub(super) fn find(&self, id: &ChunkId) -> Option<Found> {
        self.location(id).map(|l| Found { object: l.object, offset: l.offset, bytes: l.bytes })
    }

    /// The object whose whole plaintext is this one chunk.
    pub(super) fn whole_object(&self, id: &ChunkId) -> Option<u32> {
        let at = self.location(id)?;
        let object = self.objects.get(at.object as usize)?;
        (object.name.is_some() && at.offset == 0 && at.bytes == object.plain_bytes).then_some(at.object)
    }

    pub(super) fn reserve(&mut self) -> u32 {
        self.objects.push(Object { name: None, stored_bytes: 0, plain_bytes: 0 });
        u32::try_from(self.objects.len() - 1).expect("fewer than four billion objects")
    }

    pub(super) fn announce(&mut self, object: u32, chunks: &[PackedChunk]) {
        for PackedChunk { id, offset, bytes } in chunks {
            if self.location(id).is_some() {
                continue;
            }
            self.recent.insert(*id, Location { object, offset: *offset, bytes: *bytes });
        }
        if self.recent.len() > RECENT.max(self.sorted.len() / 8) {
            self.sort();
        }
    }

    pub(super) fn confirm(&mut self, object: u32, entry: &JournalEntry) {
        if let Some(slot) = self.objects.get_mut(object as usize) {
            *slot = Object { name: Some(entry.name), stored_bytes: entry.stored_bytes, plain_bytes: entry.plain_bytes };
        }
    }

    pub(super) fn name(&self, object: u32) -> Option<ObjectName> {
        self.objects.get(object as usize)?.name
    }

    /// The inventory of those `names` that are known: sorted, each once.
    pub(super) fn inventory(&self, names: impl Iterator<Item = ObjectName>) -> Vec<InventoryLine> {
        let known = self.objects.iter().filter_map(|object| Some((object.name?, object.stored_bytes, false)));
        let mut known: Vec<(ObjectName, u64, bool)> = known.collect();
        known.sort_unstable();
        known.dedup_by_key(|(name, ..)| *name);
        for wanted in names {
            if let Ok(at) = known.binary_search_by_key(&wanted, |(name, ..)| *name)
                && let Some((.., is_needed)) = known.get_mut(at)
            {
                *is_needed = true;
            }
        }
        let needed = known.into_iter().filter(|(.., is_needed)| *is_needed);
        needed.map(|(name, bytes, _)| InventoryLine { name, bytes }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Hash256;

    #[test]
    fn only_what_a_listing_confirms_is_known() {
        let entry = |n: u8| JournalEntry {
            name: Hash256([n; 32]),
            stored_bytes: 100,
            plain_bytes: 8,
            chunks: vec![PackedChunk { id: ChunkId([n + 100; 32]), offset: 0, bytes: 8 }],
        };
        let line = |n: u8, bytes| InventoryLine { name: Hash256([n; 32]), bytes };
        let listed = [line(1, 100), line(2, 99)];
        let mut confirming = Confirming::new(&listed);
        for n in 1..=3 {
            confirming.take(&entry(n));
        }
        let known = confirming.finish();
        assert_eq!(known.len(), 1);
        let found = known.find(&ChunkId([101; 32])).unwrap();
        assert_eq!(known.name(found.object), Some(Hash256([1; 32])));
        assert_eq!(known.whole_object(&ChunkId([101; 32])), Some(found.object));
        assert_eq!(known.find(&ChunkId([102; 32])), None, "another size");
        assert_eq!(known.find(&ChunkId([103; 32])), None, "not listed");
    }

    #[test]
    fn a_long_first_run_finds_all_that_it_stored() {
        let id = |n: u32| ChunkId::of(&n.to_le_bytes());
        let (mut known, each, objects) = (Known::default(), 1000, 200);
        for object in 0..objects {
            let chunk = |n| PackedChunk { id: id(object * each + n), offset: n, bytes: 1 };
            let again = PackedChunk { id: id(0), offset: each, bytes: 1 };
            let chunks: Vec<_> = (0..each).map(chunk).chain([again]).collect();
            assert_eq!(known.reserve(), object);
            known.announce(object, &chunks);
            assert!(known.recent.len() <= RECENT + 1000);
        }
        assert!(!known.sorted.is_empty() && !known.recent.is_empty(), "both are looked into");
        assert_eq!(known.len(), 200_000);
        for n in (0..objects * each).step_by(7) {
            let found = known.find(&id(n)).unwrap();
            assert_eq!((found.object, found.offset), (n / each, n % each), "{n}");
        }
        assert_eq!(known.find(&id(objects * each)), None);
    }

    #[test]
    fn what_is_known_from_before_and_what_this_run_stores_are_one() {
        let chunk = |n: u8, offset| PackedChunk { id: ChunkId([n; 32]), offset, bytes: 8 };
        let entry = |n: u8, chunks: &[PackedChunk]| JournalEntry {
            name: Hash256([n; 32]),
            stored_bytes: n.into(),
            plain_bytes: 8 * u32::try_from(chunks.len()).unwrap(),
            chunks: chunks.to_vec(),
        };
        // Chunk 1 lies in both, out of order.
        let before = [entry(9, &[chunk(3, 0), chunk(1, 8)]), entry(7, &[chunk(1, 0), chunk(2, 8)])];
        let listed = [7, 9].map(|n| InventoryLine { name: Hash256([n; 32]), bytes: n.into() });
        let mut confirming = Confirming::new(&listed);
        for entry in &before {
            confirming.take(entry);
        }
        let mut known = confirming.finish();
        assert_eq!((known.len(), known.is_empty()), (3, false));
        let found = |known: &Known, n: u8| known.find(&ChunkId([n; 32])).map(|at| (at.object, at.offset));
        assert_eq!([1, 2, 3, 4].map(|n| found(&known, n)), [Some((0, 8)), Some((1, 8)), Some((0, 0)), None]);
        let own = known.reserve();
        let stored = entry(5, &[chunk(3, 0), chunk(4, 8)]);
        known.announce(own, &stored.chunks);
        assert_eq!((known.sorted.len(), known.recent.len()), (3, 1));
        assert_eq!((found(&known, 3), found(&known, 4)), (Some((0, 0)), Some((own, 8))), "the first place stays");
        assert_eq!(known.whole_object(&ChunkId([4; 32])), None, "no name yet");
        known.confirm(own, &stored);
        let wanted = [5, 9, 5, 8].map(|n| Hash256([n; 32]));
        let lines = known.inventory(wanted.into_iter());
        assert_eq!(lines, [5, 9].map(|n| InventoryLine { name: Hash256([n; 32]), bytes: n.into() }));
    }
}
