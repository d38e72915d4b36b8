//! Does a vault hold what was promised? Asked by somebody who can open nothing and sign nothing.
//!
//! ```text
//! vault --read--> Evidence    signatures, chains, inventories (verify), history (prune), receipts, strangers
//! Evidence of all vaults + Promise of each --judge--> Finding    no store, no clock, no order of input matters
//! ```
//!
//! It needs the pinned signers and the right to list and to read, no identity, no host key and no state. What it counts for a
//! promise is signed by a pinned signer; whatever else lies in a vault can only be a finding. It writes nothing, and does
//! not ask a store for its clock either, because a directory's clock is read from a file that has to be made.
//!
//! What it cannot see: that all vaults lost the same newest snapshots together (the host's state knows, `verify` there says
//! so), and what was in a vault before the oldest snapshot that is left, where that one claims to be the first.

mod copies;
mod days;
mod expiry;
mod judge;
mod locks;
mod strangers;

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use retention::{Policy, Span};

use crate::id::{SourceName, StackName};
use crate::prune::history::{self, Seen};
use crate::prune::notice::{self, Notice};
use crate::signature::Signers;
use crate::vault::document::{ExpiredDoc, PruneStage};
use crate::vault::protection::LockRule;
use crate::vault::{Vault, VaultError};
use crate::verify::{Depth, Fraction, Verified, verify};

pub use judge::judge;
pub use locks::Locks;
pub use strangers::{Strangers, beside};

/// What was promised for one source in one vault.
#[derive(Debug)]
pub struct Promise {
    /// The vault's name.
    pub vault: String,
    /// What is kept; `None`: everything, for ever.
    pub policy: Option<Policy>,
    /// Every snapshot of this time is kept; `None` where `keep` has no window.
    pub window: Option<Span>,
    /// The Object Lock that was promised.
    pub lock: Option<LockRule>,
    /// What was found there; `None` where the vault did not answer: it counts as holding nothing.
    pub evidence: Option<Evidence>,
}

/// What was promised for a source, wherever it is kept.
pub struct Expected<'a> {
    /// Now, by the auditor's clock.
    pub now: DateTime<Utc>,
    /// Calendar of the policies' tiers and of days.
    pub timezone: Tz,
    /// The captures that the schedule promises from an instant on, in order.
    pub slots: &'a (dyn Fn(DateTime<Utc>) -> Vec<Slot> + Sync),
    /// How long a copy into another vault may take.
    pub copied_within: TimeDelta,
    /// Most data that may be lost, as time; `None` where nothing is promised or a waiver accepts it.
    pub rpo: Option<TimeDelta>,
}

/// A day that promises a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Its name in reports.
    pub day: NaiveDate,
    /// The first instant whose data counts for it.
    pub from: DateTime<Utc>,
    /// The instant at which the next day's first capture is due. Until then nothing is missing.
    pub to: DateTime<Utc>,
    /// How many captures the schedule promises for it.
    pub captures: u32,
}

/// What one vault proves about one source.
#[derive(Debug)]
pub struct Evidence {
    /// What a verification without keys found; `None` where the vault was read for comparison only.
    pub verified: Option<Verified>,
    /// Signed snapshots and receipts, with what a plan needs.
    pub seen: Seen,
    /// Signed announcements of deletions.
    pub announced: Vec<ExpiredDoc>,
    /// Files that belong to nothing.
    pub strangers: Strangers,
    /// What was seen of locks; `None` where none is promised or nobody asked.
    pub locks: Option<Locks>,
}

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Worth knowing.
    Note,
    /// A promise is not kept, or nobody can prove that it is.
    Breach,
    /// What is there is not what was stored.
    Damage,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $word:literal $weight:ident,)*) => {
        /// What a finding is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// The word for programs.
            pub fn word(self) -> &'static str {
                match self { $(Self::$kind => $word,)* }
            }

            /// How much it weighs.
            pub fn weight(self) -> Weight {
                match self { $(Self::$kind => Weight::$weight,)* }
            }
        }
    };
}

kinds! {
    /// A snapshot is not complete, not intact, or not where it says.
    Damaged "damaged" Damage,
    /// The chain of snapshots does not close in the vault.
    Chain "chain" Damage,
    /// A chain goes on twice, or the chains of two vaults do not agree.
    Fork "fork" Damage,
    /// A mark, a receipt or an announcement is not believed, or a generation's document is missing or damaged.
    Document "document" Damage,
    /// A document is signed by a key that is not pinned.
    Foreign "foreign" Breach,
    /// There is no snapshot at all.
    NoSnapshot "no-snapshot" Breach,
    /// A promised day has no snapshot.
    Missing "missing" Breach,
    /// What came before the oldest snapshot is gone, and everything was promised.
    Beginning "beginning" Breach,
    /// A receipt says that a snapshot was removed before its time.
    Removed "removed" Breach,
    /// Another vault has it, and this one promises it too.
    NotReplicated "not-replicated" Breach,
    /// The newest snapshot is older than the objective allows.
    Objective "objective" Breach,
    /// It is still there after the promised maximum.
    TooLong "too-long" Breach,
    /// Object Lock was promised and cannot be proved.
    Unlocked "unlocked" Breach,
    /// A pinned snapshot is not under the legal hold that a pin sets where locks are promised.
    Unheld "unheld" Breach,
    /// Another vault has a newer snapshot.
    Behind "behind" Note,
    /// A day has fewer captures than its schedule promises.
    Short "short" Note,
    /// A place where the chain does not close, and that somebody looked at and accepted.
    Accepted "accepted" Note,
    /// A suspect snapshot that nobody accepted.
    Suspect "suspect" Note,
    /// Whether documents were deleted in a bucket that may keep versions could not be looked at.
    Unseen "unseen" Note,
    /// Something lies there that this program did not make, or that no snapshot needs.
    Stranger "stranger" Note,
    /// A signature lies there without its document.
    Alone "alone" Note,
}

/// Something that an auditor should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub kind: Kind,
    /// In words, on one line.
    pub text: String,
    /// All snapshots, days or files that it is about, by name; the text may name the first few only.
    pub about: Vec<String>,
}

/// A promised day and what one vault holds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// What was promised.
    pub slot: Slot,
    /// Signed snapshots of that day that the vault lists.
    pub found: u32,
    /// Whether the next day's capture is due, so that a missing one can no longer come.
    pub is_over: bool,
}

/// The judgement on one source in one vault.
#[derive(Debug, Clone)]
pub struct Audited {
    /// The vault.
    pub vault: String,
    /// What was found, worst first.
    pub findings: Vec<Finding>,
    /// The promised days, oldest first; empty where the vault promises none.
    pub days: Vec<Day>,
    /// Signed captures that it lists.
    pub snapshots: usize,
    /// Instant of the newest of them.
    pub newest: Option<DateTime<Utc>>,
    /// What expires next, a line each.
    pub next: Vec<String>,
}

/// The judgement on one source.
#[derive(Debug, Clone)]
pub struct Judged {
    /// In each vault that was to be judged and answered.
    pub vaults: Vec<Audited>,
    /// What is wrong with the source, and in no single vault.
    pub findings: Vec<Finding>,
    /// Whether snapshots are there, and none is by a pinned signer: the auditor may have the wrong signers.
    pub is_all_foreign: bool,
}

/// Reads what a vault proves about a source: listings, documents, inventories; with `read` also a fraction of the objects.
/// `judged`: otherwise only what other vaults are compared with. With `lock`, also whether it is kept at that instant of the
/// auditor's clock. Errors: a store that fails.
pub async fn read(
    vault: &Vault,
    signers: &Signers,
    (stack, source): (&StackName, &SourceName),
    read: Option<Fraction>,
    judged: bool,
    lock: Option<(&LockRule, DateTime<Utc>)>,
) -> Result<Evidence, VaultError> {
    let verified = if judged {
        Some(verify(vault, signers, stack, source, None, Depth { read, identities: None }).await?)
    } else {
        None
    };
    let objects = verified.iter().flat_map(|verified| verified.objects.keys());
    let damaged = objects.map(|(dir, name)| (dir.clone(), name.to_string())).collect();
    let none = (BTreeSet::new(), BTreeSet::new());
    let seen = history::read(vault, signers, (stack, source), &none.0, &none.1, &damaged).await?;
    let mut announced = Vec::new();
    for dir in &seen.generations {
        for stage in [PruneStage::Deleting, PruneStage::Expired] {
            if let Notice::Signed(doc) = notice::read(vault, signers, dir, stage).await? {
                announced.push(*doc);
                break;
            }
        }
    }
    let strangers = if judged { strangers::look(vault, (stack, source), &seen).await? } else { Strangers::default() };
    let locks = match lock.filter(|_| judged) {
        Some((rule, now)) => Some(locks::read(vault, rule, now, &seen, read).await?),
        None => None,
    };
    Ok(Evidence { verified, seen, announced, strangers, locks })
}

/// The first few names of several, and how many more there are.
fn few<T: std::fmt::Display>(names: &[T]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// `1 snapshot`, `2 snapshots`.
fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
