//! Until when a file is locked: the one place that asks.
//!
//! Object Lock keeps even the owner of the credentials from deleting. What was promised and cannot be seen counts as not
//! kept: an auditor reports what is proved.

use crate::vault::layout::GenerationDir;

use super::{Finding, Kind, few};

/// Judges a vault whose policy promises a lock. Nothing here reads a lock's date from a store yet, so nothing is proved.
pub(super) fn judge(generations: &[GenerationDir]) -> Option<Finding> {
    let unproved: Vec<String> = generations.iter().map(|dir| dir.id.to_string()).collect();
    (!unproved.is_empty()).then(|| Finding {
        kind: Kind::Unlocked,
        text: format!(
            "an Object Lock is promised, and cannot be proved: this version reads no lock's date ({})",
            few(&unproved)
        ),
        about: unproved,
    })
}
