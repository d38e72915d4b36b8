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
#[derive(Debug, Default)]
pub struct Known {
    chunks: HashMap<ChunkId, Location>,
    objects: Vec<Object>,
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

impl Known {
    /// What `journal` remembers and `listed` confirms by name and size.
    pub fn confirmed(journal: impl IntoIterator<Item = JournalEntry>, listed: &[InventoryLine]) -> Self {
        let listed: HashMap<ObjectName, u64> = listed.iter().map(|line| (line.name, line.bytes)).collect();
        let mut known = Self::default();
        for entry in journal {
            if listed.get(&entry.name) == Some(&entry.stored_bytes) {
                let object = known.reserve();
                known.announce(object, &entry.chunks);
                known.confirm(object, &entry);
            }
        }
        known
    }

    /// Number of known chunks.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) fn find(&self, id: &ChunkId) -> Option<Found> {
        self.chunks.get(id).map(|l| Found { object: l.object, offset: l.offset, bytes: l.bytes })
    }

    /// The object whose whole plaintext is this one chunk.
    pub(super) fn whole_object(&self, id: &ChunkId) -> Option<u32> {
        let at = self.chunks.get(id)?;
        let object = self.objects.get(at.object as usize)?;
        (object.name.is_some() && at.offset == 0 && at.bytes == object.plain_bytes).then_some(at.object)
    }

    pub(super) fn reserve(&mut self) -> u32 {
        self.objects.push(Object { name: None, stored_bytes: 0, plain_bytes: 0 });
        u32::try_from(self.objects.len() - 1).expect("fewer than four billion objects")
    }

    pub(super) fn announce(&mut self, object: u32, chunks: &[PackedChunk]) {
        for PackedChunk { id, offset, bytes } in chunks {
            self.chunks.entry(*id).or_insert(Location { object, offset: *offset, bytes: *bytes });
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

    pub(super) fn sizes(&self) -> impl Iterator<Item = (ObjectName, u64)> + '_ {
        self.objects.iter().filter_map(|object| Some((object.name?, object.stored_bytes)))
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
        let known = Known::confirmed([entry(1), entry(2), entry(3)], &[line(1, 100), line(2, 99)]);
        assert_eq!(known.len(), 1);
        let found = known.find(&ChunkId([101; 32])).unwrap();
        assert_eq!(known.name(found.object), Some(Hash256([1; 32])));
        assert_eq!(known.whole_object(&ChunkId([101; 32])), Some(found.object));
        assert_eq!(known.find(&ChunkId([102; 32])), None, "another size");
        assert_eq!(known.find(&ChunkId([103; 32])), None, "not listed");
    }
}
