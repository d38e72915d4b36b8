//! Removing what no promise needs any more: whole generations, in two runs, with a signed trace.
//!
//! ```text
//! history (signed snapshots, marks, receipts, listings) --> retention::plan --> PrunePlan   (shown; a dry run ends here)
//! first run     expired.json   names every snapshot that will go
//! >= 24 h later, with a newer snapshot, the same plan again
//! second run    deleting.json --> list again --> receipt --> snapshots --> objects --> the rest
//! ```
//!
//! Here is the plan; `apply` does what it says. An operator may waive two things for one call, and both are written down in
//! every document of the deletion ([`Waiver`]): the rest of the day, where another vault is then seen to hold everything
//! (`holder`), and what a vault that is lost had promised. [`purge`] removes a generation that no rule would.
//!
//! What it never does: delete on the word of the host's clock, on a document that no pinned signer signed or that somebody put back
//! long after it was signed, or a file that it does not know. Whatever is not understood keeps its generation, and so does a
//! pin, believed or not: it may be an operator's whose signature was damaged, and whoever can plant one can as well fill the
//! vault. It is named, and `unpin` takes it away. Until `deleting.json` is written, [`undo`] takes it all back.

pub(crate) mod announced;
mod apply;
mod delete;
pub mod elsewhere;
pub mod frozen;
pub mod history;
mod holder;
pub(crate) mod locked;
pub(crate) mod notice;
pub mod purge;
mod settle;
pub(crate) mod unlisted;

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use retention::{Clocks, Freeze, Policy, Reason};

use crate::id::{SourceName, StackName, VaultId};
use crate::signature::Signers;
use crate::vault::document::{ExpiredDoc, Grounds, ReceiptDoc};
use crate::vault::layout::{GenerationDir, GenerationId, SnapshotId};
use crate::vault::{Vault, VaultError};
use crate::words::plain;
use announced::Announced;
use history::{Fact, Folder, Reading};

pub use apply::{Done, Undone, apply, apply_beside, undo};
pub use holder::Witness;
pub use notice::pending;

/// Least time between announcing and deleting, by the store's clock.
pub const GRACE: TimeDelta = TimeDelta::hours(24);

/// What to plan for.
#[derive(Debug, Clone)]
pub struct PruneRequest {
    /// Stack.
    pub stack: StackName,
    /// Source.
    pub source: SourceName,
    /// What was promised for this vault.
    pub policy: Policy,
    /// Calendar of the policy's tiers.
    pub timezone: Tz,
    /// This machine's clock.
    pub host_now: DateTime<Utc>,
    /// Snapshots that another vault's policy promises and does not hold.
    pub promised_elsewhere: BTreeSet<String>,
    /// What pinned signers marked in any vault: a pin that did not reach this one yet protects here too.
    pub marks: BTreeSet<Fact>,
    /// Snapshots of the source that this host committed into the vault, or that any vault shows: one that this vault's listing
    /// does not show is asked for by name before its generation goes.
    pub known: BTreeSet<(GenerationId, SnapshotId)>,
    /// What a verification found damaged in this vault: objects and snapshots, by name. It takes nobody's place.
    pub damaged: BTreeSet<(GenerationDir, String)>,
    /// Name and version of this program.
    pub tool: String,
}

/// What an operator waives for one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiver {
    /// The rest of the day between announcing and deleting, where another vault is seen to hold everything. Never the newer
    /// snapshot.
    pub now: bool,
    /// Configured vaults whose promises are passed over. They are left out of [`PruneRequest::promised_elsewhere`] already; here they are
    /// to be written down.
    pub without: Vec<String>,
}

/// What will be done with one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Keep,
    /// Announce its deletion.
    Announce,
    /// It is announced; what the second run still waits for.
    Wait {
        /// In words.
        reason: String,
    },
    /// It was announced, but the plan no longer wants it gone, or not the same, or what lies there was put back; or a receipt tells of
    /// a deletion that was taken back: both are taken back.
    Withdraw,
    /// Delete it now.
    Delete,
    /// Delete it before its day is over, if another vault is seen to hold everything: all of it is read there first.
    Hurry {
        /// From when on it could be deleted without.
        until: DateTime<Utc>,
        /// Objects that lie here, about as many as are to be read there.
        objects: u64,
        /// Their stored bytes.
        bytes: u64,
    },
    /// A deletion began and was interrupted: go on.
    Resume,
    /// A deletion was interrupted before its very last file: of the generation only that signature is left.
    Sweep,
}

/// The plan for one generation.
#[derive(Debug, Clone)]
pub struct Step {
    /// The generation.
    pub dir: GenerationDir,
    /// What will be done.
    pub action: Action,
    /// Why, in words.
    pub reason: String,
    /// Its snapshots, each with the decision on it in words.
    pub snapshots: Vec<(SnapshotId, String)>,
    begun: Option<Begun>,
    /// Receipts that say of what is there that it was removed, and what of it is there: to be set right when it is taken back.
    untrue: (Vec<ReceiptDoc>, BTreeSet<SnapshotId>),
}

/// A deletion that was interrupted.
#[derive(Debug, Clone)]
struct Begun {
    grounds: Grounds,
    /// Its receipt is there: what it was waiting for had been looked at, and files may be gone.
    receipted: bool,
    /// That was put within the last hour.
    is_fresh: bool,
}

/// The plan for one source in one vault.
#[derive(Debug, Clone)]
pub struct PrunePlan {
    /// Why nothing expires, if so.
    pub frozen: Vec<Freeze>,
    /// Each generation, oldest first.
    pub steps: Vec<Step>,
    /// What lies where an announcement belongs and is not believed (it is not obeyed), and snapshots that a listing should show and
    /// does not, in words.
    pub foreign: Vec<String>,
    /// What a lock or a legal hold still keeps from being deleted, in words.
    pub locked: Vec<String>,
    /// Why what would be deleted now is not, where there is anything: see [`PrunePlan::hold`].
    pub held: Option<String>,
    /// When it was made, by the store's clock.
    at: DateTime<Utc>,
    newest: Option<SnapshotId>,
    request: PruneRequest,
    waiver: Waiver,
    signers: Signers,
}

impl PrunePlan {
    /// Vaults that were planned for as if they promised nothing.
    pub fn without(&self) -> &[String] {
        &self.waiver.without
    }

    /// Whether carrying it out takes anything away for good. Such a plan is made from a reading that remembers nothing, see
    /// [`history::look`].
    pub fn deletes(&self) -> bool {
        let goes = |step: &Step| matches!(step.action, Action::Delete | Action::Hurry { .. } | Action::Resume);
        self.steps.iter().any(goes)
    }

    /// Turns every deletion of the plan into waiting, for `reason`. What is announced or taken back stays as planned.
    pub fn hold(&mut self, reason: &str) {
        for step in &mut self.steps {
            if matches!(step.action, Action::Delete | Action::Hurry { .. } | Action::Resume) {
                step.action = Action::Wait { reason: reason.to_owned() };
                self.held = Some(reason.to_owned());
            }
        }
    }
}

/// Makes the plan. Reads only.
pub async fn plan(vault: &Vault, signers: &Signers, request: &PruneRequest) -> Result<PrunePlan, VaultError> {
    plan_waiving(vault, signers, request, &Waiver::default()).await
}

/// Makes the plan with what an operator waives. Reads only.
pub async fn plan_waiving(
    vault: &Vault,
    signers: &Signers,
    request: &PruneRequest,
    waiver: &Waiver,
) -> Result<PrunePlan, VaultError> {
    let now = vault.now().await?;
    let whose = (&request.stack, &request.source);
    let reading = history::look(vault, signers, whose, &request.damaged, None).await?;
    plan_of(vault, signers, request, waiver, (&reading, now)).await
}

/// Makes the plan from what was read of the vault, by its clock when the reading began. What is `damaged` must have been known to
/// the reading. Asks the vault for locks only.
pub async fn plan_of(
    vault: &Vault,
    signers: &Signers,
    request: &PruneRequest,
    waiver: &Waiver,
    (reading, now): (&Reading, DateTime<Utc>),
) -> Result<PrunePlan, VaultError> {
    let history = reading.history(&request.promised_elsewhere, &request.marks);
    let clocks = Clocks { store: now, host: request.host_now };
    let plan = retention::plan(&request.policy, &history, clocks, request.timezone);
    let (mut steps, mut foreign, mut locks) = (Vec::new(), reading.foreign(), Vec::new());
    for folder in &reading.generations {
        let dir = &folder.dir;
        let decision = plan.generations.iter().find(|decision| decision.id == dir.id.as_str());
        let snapshots = plan.snapshots.iter().filter(|snapshot| snapshot.generation == dir.id.as_str());
        let found = announced::judge(dir, &folder.notices, &folder.files, now);
        foreign.extend(found.foreign.iter().cloned());
        let delete = decision.is_some_and(|decision| decision.delete);
        let mut unlisted = if delete { unlisted(vault, folder, &request.known).await? } else { BTreeSet::new() };
        if let Some(begun) = &found.deleting {
            let named = begun.snapshots.iter().map(|(id, _)| id).filter(|id| !folder.listed.contains(id));
            unlisted.extend(unlisted::there(vault, dir, named.cloned().collect::<Vec<_>>()).await?);
        }
        foreign.extend(unlisted.iter().map(unlisted::text));
        // One that is being deleted has lost nothing of what is still named: names go first.
        let whole = if found.deleting.is_some() { folder.believed() } else { folder.whole() };
        let untrue = (settle::untrue(&reading.receipts, dir, &whole, now), whole);
        let scene = Scene {
            // Nothing is known of it but that it is there.
            delete: delete && unlisted.is_empty(),
            listed: folder.listed.iter().chain(&unlisted).cloned().collect(),
            snapshots: snapshots.filter_map(|one| Some((one.id.parse().ok()?, one.text()))).collect(),
            receipted: |doc: &ExpiredDoc| {
                reading.receipts.iter().filter(|one| settle::belongs(one, doc)).map(|one| one.at).max()
            },
            untrue: !untrue.0.is_empty(),
            folder,
            here: vault.id(),
            newest: reading.newest(),
            promised: {
                let kept = plan.snapshots.iter().filter(|one| one.generation == dir.id.as_str() && one.keep);
                kept.fold(None, |only, one| Some(only.unwrap_or(true) && one.reasons == [Reason::PromisedElsewhere]))
            }
            .unwrap_or(false),
            waiver,
            now,
        };
        let (action, begun, snapshots) = scene.judge(found);
        let action = match action {
            Action::Delete | Action::Hurry { .. } | Action::Resume if vault.locks() => {
                match locked::reason(vault, &vault.list(&dir.dir()).await?, now).await? {
                    Some(reason) => {
                        locks.push(format!("generation {}: {reason}", dir.id));
                        Action::Wait { reason }
                    }
                    None => action,
                }
            }
            other => other,
        };
        let reason = match (unlisted.first(), decision) {
            (Some(id), _) => format!("keep: `{id}` lies there, and the store's listing does not show it"),
            (None, Some(decision)) => decision.text(),
            (None, None) => "keep: it is not understood".to_owned(),
        };
        steps.push(Step { dir: dir.clone(), action, reason, snapshots, begun, untrue });
    }
    let frozen = plan.frozen.into_iter().chain(plan.frozen_also).collect();
    let (request, waiver, signers) = (request.clone(), waiver.clone(), signers.clone());
    let newest = reading.newest().cloned();
    let (locked, held) = (locks, None);
    Ok(PrunePlan { frozen, steps, foreign, locked, held, at: now, newest, request, waiver, signers })
}

/// What decides about one generation, beside what was announced.
struct Scene<'a, R: Fn(&ExpiredDoc) -> Option<DateTime<Utc>>> {
    /// The rules let it go.
    delete: bool,
    /// Snapshots that are believed, with the decisions on them.
    snapshots: Vec<(SnapshotId, String)>,
    /// When the last receipt of a deletion was put, if it got so far.
    receipted: R,
    /// A receipt says that something was removed that is there.
    untrue: bool,
    /// What lies there.
    folder: &'a Folder,
    /// Every snapshot that lies there, listed or not.
    listed: Vec<SnapshotId>,
    /// The vault.
    here: &'a VaultId,
    newest: Option<&'a SnapshotId>,
    /// What is kept is kept by another vault's promise alone.
    promised: bool,
    /// What is passed over in this call.
    waiver: &'a Waiver,
    now: DateTime<Utc>,
}

impl<R: Fn(&ExpiredDoc) -> Option<DateTime<Utc>>> Scene<'_, R> {
    /// What will be done, the deletion that it goes on with, and the snapshots with the decisions on them.
    fn judge(self, found: announced::Found) -> (Action, Option<Begun>, Vec<(SnapshotId, String)>) {
        if let Some(reason) = found.purge() {
            let reason = format!("it is being purged ({reason}): `backup purge` goes on with it or takes it back");
            return (Action::Wait { reason }, None, self.snapshots);
        }
        let announced = found.expired.as_ref();
        let (Folder { dir, files, objects, .. }, listed) = (self.folder, &self.listed);
        let action = match found.deleting {
            Some(begun) => {
                // Snapshots go before their objects: one that is still listed is whole, and may have become wanted (a pin,
                // a commit in the last moment, an old document that was put back).
                let named: BTreeSet<&SnapshotId> = begun.snapshots.iter().map(|(id, _)| id).collect();
                let wanted = !self.delete || !listed.iter().all(|id| named.contains(id));
                let last = (self.receipted)(&begun);
                let (receipted, is_fresh) = (last.is_some(), last.is_some_and(|at| self.now - at < announced::LATE));
                // One that began before its day was over had been seen in another vault, if it got as far as its receipt.
                // A document that names this vault as the holder is another vault's: it was copied here.
                let elsewhere = begun.grounds.now.as_ref().is_some_and(|holder| holder.vault != *self.here);
                let hurried = elsewhere && receipted;
                let in_time = hurried || announced.is_some_and(|announced| announced.covers(listed, self.now));
                if !listed.is_empty() && (wanted || !in_time) {
                    Action::Withdraw
                } else {
                    // What is being deleted was named when it began; what is still listed may be less.
                    return (
                        Action::Resume,
                        Some(Begun { grounds: begun.grounds, receipted, is_fresh }),
                        begun.snapshots,
                    );
                }
            }
            None if objects.count == 0 && delete::is_swept(dir, files) => Action::Sweep,
            None if found.replayed => Action::Withdraw,
            None if self.untrue => Action::Withdraw,
            // Objects without a snapshot may be those of a replicator that is still at work.
            None if self.snapshots.is_empty() && self.delete && is_fresh(self.folder, self.now) => Action::Keep,
            None => self.action(announced),
        };
        (action, None, self.snapshots)
    }

    fn action(&self, announced: Option<&Announced>) -> Action {
        let Some(announced) = announced else { return if self.delete { Action::Announce } else { Action::Keep } };
        let found: BTreeSet<&SnapshotId> = self.snapshots.iter().map(|(id, _)| id).collect();
        let lacking: Vec<&str> = announced
            .doc
            .grounds
            .without
            .iter()
            .filter(|n| !self.waiver.without.contains(n))
            .map(String::as_str)
            .collect();
        if !self.delete && self.promised && announced.names() == found && !lacking.is_empty() {
            // An operator passed over a vault by name, and the nightly call cannot know: neither does it go on, nor take that back.
            let flags: Vec<String> = lacking.iter().map(|name| format!("--without-replica {}", plain(name))).collect();
            let flags = flags.join(" ");
            return Action::Wait {
                reason: format!(
                    "announced with {flags}: repeat `backup prune --apply {flags}`, or take it back with `backup prune --undo`"
                ),
            };
        }
        if !self.delete || announced.names() != found {
            return Action::Withdraw;
        }
        let before = &announced.doc.newest;
        let newer = self.newest.is_some_and(|newest| newest > before);
        let until = announced.until;
        // Without snapshots there is nothing that another vault could hold.
        let hurry = self.waiver.now && !found.is_empty();
        if self.now < until && !hurry {
            return Action::Wait { reason: format!("announced; may be deleted from {} on", until.format("%F %R UTC")) };
        }
        if !newer {
            return Action::Wait { reason: format!("announced; waits for a snapshot newer than {before}") };
        }
        if self.now < until {
            let history::Objects { count, bytes, .. } = self.folder.objects;
            return Action::Hurry { until, objects: count, bytes };
        }
        Action::Delete
    }
}

/// Snapshots of a generation that are known from elsewhere, are not among what was read of it, and lie there.
async fn unlisted(
    vault: &Vault,
    folder: &Folder,
    known: &BTreeSet<(GenerationId, SnapshotId)>,
) -> Result<BTreeSet<SnapshotId>, VaultError> {
    let of_it = known.iter().filter(|(id, snapshot)| *id == folder.dir.id && !folder.listed.contains(snapshot));
    unlisted::there(vault, &folder.dir, of_it.map(|(_, snapshot)| snapshot.clone())).await
}

/// Whether anything in a generation is younger than three days.
fn is_fresh(folder: &Folder, now: DateTime<Utc>) -> bool {
    folder.newest().is_some_and(|newest| now - newest < TimeDelta::days(3))
}
