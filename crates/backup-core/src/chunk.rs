//! Cutting a stream into chunks by its content (FastCDC, v2020 variant), so that an insertion moves only the cuts near it.
//!
//! The gear tables are seeded from the host key: cut points are then no fingerprint of known files. Whatever the cuts
//! are, the restore does not need to know them; they may change between generations without harm.

use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};

/// Sizes that a cutter aims for, fixed when a generation opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSizes {
    /// Average, a power of two.
    pub average_bytes: usize,
}

impl ChunkSizes {
    /// 64 KiB on average, for sources up to 64 GiB.
    pub const SMALL: Self = Self { average_bytes: 64 << 10 };

    /// 1 MiB on average (256 KiB to 4 MiB): pieces of a manifest, each an object of its own.
    pub const MANIFEST: Self = Self { average_bytes: 1 << 20 };

    /// The sizes for a source of `plain_bytes`: doubled for each doubling beyond 64 GiB, so that it never has more than
    /// about a million known chunks. Capped where a chunk would not fit an object.
    pub fn for_source(plain_bytes: u64) -> Self {
        let doublings = (plain_bytes >> 36).checked_ilog2().map_or(0, |log| log + 1).min(4);
        Self { average_bytes: Self::SMALL.average_bytes << doublings }
    }

    /// No chunk but a stream's last is smaller.
    pub fn min_bytes(self) -> usize {
        self.average_bytes / 4
    }

    /// No chunk is larger.
    pub fn max_bytes(self) -> usize {
        self.average_bytes * 4
    }
}

/// Finds cut points. Immutable and shared by all streams of a run.
pub struct Cutter {
    sizes: ChunkSizes,
    masks: [u64; 2],
    gear: [Box<[u64]>; 2],
}

impl std::fmt::Debug for Cutter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cutter({} on average)", self.sizes.average_bytes)
    }
}

impl Cutter {
    /// A cutter with secret `seed`.
    pub fn new(sizes: ChunkSizes, seed: u64) -> Self {
        // A changed row costs the chunk that it is in, and is in a large one more often than in a small one: by calculation
        // 97 KiB of plaintext at level 1, 80 at level 2, 72 at level 3, which needs longer to find back after an insertion.
        let (small, large) = select_masks(sizes.average_bytes, Normalization::Level2);
        let (gear, shifted) = get_gear_with_seed(seed);
        Self { sizes, masks: [small, large], gear: [gear.as_ref().into(), shifted.as_ref().into()] }
    }

    /// The sizes it aims for.
    pub fn sizes(&self) -> ChunkSizes {
        self.sizes
    }

    /// Length of the next chunk at the start of `bytes`, or `None` where more bytes are needed to tell: at least
    /// [`ChunkSizes::max_bytes`] must be there unless the stream `ends` with them.
    pub fn next(&self, bytes: &[u8], ends: bool) -> Option<usize> {
        if bytes.is_empty() || (!ends && bytes.len() < self.sizes.max_bytes()) {
            return None;
        }
        let [small, large] = self.masks;
        let (_, length) = cut_gear(
            bytes,
            self.sizes.min_bytes(),
            self.sizes.average_bytes,
            self.sizes.max_bytes(),
            small,
            large,
            small << 1,
            large << 1,
            &self.gear[0],
            &self.gear[1],
        );
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        (0..len).map(|_| step()).collect()
    }

    fn cuts(cutter: &Cutter, bytes: &[u8]) -> Vec<usize> {
        let mut at = 0;
        std::iter::from_fn(|| {
            at += cutter.next(&bytes[at..], true)?;
            Some(at)
        })
        .collect()
    }

    #[test]
    fn an_insertion_moves_only_the_cuts_near_it() {
        let cutter = Cutter::new(ChunkSizes::SMALL, 42);
        let before = noise(4 << 20);
        let mut after = before.clone();
        after.splice(1_000_000..1_000_000, *b"inserted");
        let old = cuts(&cutter, &before);
        let kept = cuts(&cutter, &after).iter().filter(|cut| old.contains(&(**cut - 8)) || old.contains(cut)).count();
        assert!(kept + 3 >= old.len(), "{kept} of {}", old.len());
        assert_eq!(old.last(), Some(&before.len()));
        let sizes = cutter.sizes();
        let lengths = old.windows(2).map(|w| w[1] - w[0]);
        assert!(lengths.take(old.len() - 2).all(|l| l >= sizes.min_bytes() && l <= sizes.max_bytes()));
        assert_ne!(old, cuts(&Cutter::new(ChunkSizes::SMALL, 43), &before), "the seed matters");
        assert_eq!(cutter.next(&before[..1000], false), None);
    }

    #[test]
    fn sizes_double_with_the_source() {
        assert_eq!(ChunkSizes::for_source(0), ChunkSizes::SMALL);
        assert_eq!(ChunkSizes::for_source((64 << 30) - 1), ChunkSizes::SMALL);
        assert_eq!(ChunkSizes::for_source(64 << 30).average_bytes, 128 << 10);
        assert_eq!(ChunkSizes::for_source(1 << 50).max_bytes(), 4 << 20);
    }
}
