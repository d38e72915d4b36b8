//! How many rows differ, where fingerprints do.
//!
//! A fingerprint is a sum: it says that rows differ and not how many. When it does, the captured rows are read again and
//! the restored ones as well, row hashes of the one against those of the other. In memory that does not grow with the
//! table: first every hash goes into one of many buckets, plus for the captured and minus for the restored; a bucket that
//! is not zero in the end holds a row that differs. Then both are read once more, and the hashes of these buckets only are
//! counted one by one. Are they too many for that too, then what the buckets show is a lower bound, and said to be one.

use std::collections::HashMap;
use std::fmt;

/// Buckets: 8 MiB of them.
const BUCKETS: usize = 1 << 18;

/// Different hashes that are counted one by one.
const HASHES: usize = 1 << 20;

/// Rows on one side that are not on the other. A row with another value is one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Differing {
    /// Captured rows that are not there.
    pub missing: u64,
    /// Rows that are there and were not captured.
    pub surplus: u64,
    /// Whether it is these numbers, or at least these.
    pub exact: bool,
}

impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = if self.exact { "" } else { "at least " };
        write!(f, "{least}{} of them missing, {least}{} there that were not captured", self.missing, self.surplus)
    }
}

/// Which side a row is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Captured,
    Restored,
}

/// The first reading.
pub(super) struct Buckets(Vec<(i64, u128)>);

impl Buckets {
    pub(super) fn new() -> Self {
        Self(vec![(0, 0); BUCKETS])
    }

    pub(super) fn add(&mut self, side: Side, hash: u128) {
        let (rows, sum) = &mut self.0[place(hash)];
        (*rows, *sum) = match side {
            Side::Captured => (*rows + 1, sum.wrapping_add(hash)),
            Side::Restored => (*rows - 1, sum.wrapping_sub(hash)),
        };
    }

    /// What the second reading counts.
    pub(super) fn uneven(self) -> Uneven {
        Uneven { buckets: self.0, hashes: HashMap::new(), over: false }
    }
}

/// The second reading.
pub(super) struct Uneven {
    buckets: Vec<(i64, u128)>,
    hashes: HashMap<u128, i64>,
    over: bool,
}

impl Uneven {
    pub(super) fn add(&mut self, side: Side, hash: u128) {
        if self.over || self.buckets[place(hash)] == (0, 0) {
            return;
        }
        let rows = self.hashes.entry(hash).or_default();
        *rows += if side == Side::Captured { 1 } else { -1 };
        if *rows == 0 {
            self.hashes.remove(&hash);
        }
        self.over = self.hashes.len() > HASHES;
    }

    pub(super) fn finish(self) -> Differing {
        let mut found = Differing { missing: 0, surplus: 0, exact: !self.over };
        let mut add = |rows: i64| {
            found.missing += u64::try_from(rows).unwrap_or(0);
            found.surplus += u64::try_from(-rows).unwrap_or(0);
        };
        if self.over {
            // As many on both sides, and not the same: one of each at least.
            self.buckets.iter().filter(|bucket| **bucket != (0, 0)).for_each(|(rows, _)| {
                if *rows == 0 {
                    add(1);
                    add(-1);
                } else {
                    add(*rows);
                }
            });
        } else {
            self.hashes.values().for_each(|rows| add(*rows));
        }
        found
    }
}

fn place(hash: u128) -> usize {
    // The remainder is below `BUCKETS`.
    usize::try_from(hash % BUCKETS as u128).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_128;

    use super::*;

    fn compared(captured: impl Iterator<Item = u64> + Clone, restored: impl Iterator<Item = u64> + Clone) -> Differing {
        let hash = |n: u64| xxh3_128(&n.to_be_bytes());
        let mut buckets = Buckets::new();
        captured.clone().for_each(|n| buckets.add(Side::Captured, hash(n)));
        restored.clone().for_each(|n| buckets.add(Side::Restored, hash(n)));
        let mut uneven = buckets.uneven();
        captured.for_each(|n| uneven.add(Side::Captured, hash(n)));
        restored.for_each(|n| uneven.add(Side::Restored, hash(n)));
        uneven.finish()
    }

    #[test]
    fn each_row_that_is_on_one_side_only_counts_once() {
        let differing = |missing, surplus| Differing { missing, surplus, exact: true };
        assert_eq!(compared(0..1000, (0..1000).rev()), differing(0, 0));
        assert_eq!(compared(0..1000, 3..1000), differing(3, 0));
        assert_eq!(compared(0..1000, (0..998).chain([7000, 7001])), differing(2, 2));
        // Equal rows count as often as they are there.
        assert_eq!(compared([5, 5, 5, 6].into_iter(), [5, 6, 6].into_iter()), differing(2, 1));
        assert_eq!(compared(0..600_000, 600_000..1_000_000), differing(600_000, 400_000));
    }

    #[test]
    fn where_too_many_differ_it_is_at_least_so_many() {
        let found = compared(0..900_000, 900_000..1_500_000);
        assert!(!found.exact, "{found:?}");
        // What the numbers of rows say is the least of all.
        assert!((300_000..=900_000).contains(&found.missing) && found.surplus <= 600_000, "{found:?}");
        assert!(found.to_string().starts_with("at least "), "{found}");
    }
}
