//! What still freezes a source's expiry when one of its snapshots has been accepted: each suspect one freezes by itself, and so
//! do gaps, clocks and chains.

use std::collections::BTreeSet;

use backup_core::id::SourceName;
use backup_core::prune::Waiver;
use backup_core::prune::frozen::unaccepted;
use backup_core::prune::history::Fact;
use backup_core::signature::Signers;
use backup_core::vault::layout::SnapshotId;
use chrono_tz::Tz;
use retention::Freeze;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::find::Found;
use crate::pruning;
use crate::session::Session;
use crate::words;

/// So many are named in the text; JSON has all.
const NAMED: usize = 8;

/// What is left.
pub(super) struct Still {
    suspects: Vec<SnapshotId>,
    /// Vault, and cause in words.
    frozen: Vec<(String, String)>,
    /// Vaults that could not be asked about it.
    unknown: Vec<(String, CliError)>,
}

impl Still {
    /// Looks into all vaults once `accepted` is; in a dry run as if `marks` said so.
    pub(super) async fn look(
        session: &Session<'_>,
        found: &Found,
        signers: &Signers,
        (source, accepted): (&SourceName, &SnapshotId),
        marks: &BTreeSet<Fact>,
    ) -> Result<Self, CliError> {
        let rest = unaccepted(&found.vaults, signers, &found.of(source)).await;
        let mut still = Self {
            suspects: rest.found.into_iter().map(|doc| doc.id).filter(|id| id != accepted).collect(),
            frozen: Vec::new(),
            unknown: rest.failed.into_iter().map(|(vault, error)| (vault, error.into())).collect(),
        };
        // A source that is in the vaults only has no policy, and nothing of it expires.
        let configured: Vec<_> = session.config.sources.iter().filter(|one| one.name == *source).collect();
        // In a dry run the mark is not there, and what it would close must not be told as still open.
        let waiver = Waiver::default();
        let as_if = (&waiver, marks);
        for pruning in pruning::prune_as_if(session, &found.vaults, &|_| true, &configured, None, as_if).await? {
            let causes = pruning.plan.iter().flat_map(|plan| &plan.frozen).filter(|freeze| !is_of(freeze, accepted));
            still.frozen.extend(causes.map(|freeze| (pruning.vault.clone(), freeze.to_string())));
            still.unknown.extend(pruning.error.map(|error| (pruning.vault, error)));
        }
        Ok(still)
    }

    pub(super) fn to_json(&self) -> Value {
        let cause = |(vault, cause): &(String, String)| json!({ "vault": vault, "cause": cause });
        let unknown = |(vault, error): &(String, CliError)| json!({ "vault": vault, "error": error.to_json() });
        json!({
            "suspects": self.suspects,
            "frozen": self.frozen.iter().map(cause).collect::<Vec<_>>(),
            "unknown": self.unknown.iter().map(unknown).collect::<Vec<_>>(),
        })
    }

    pub(super) fn text(&self, timezone: Tz) -> String {
        let mut text = String::new();
        if !self.suspects.is_empty() {
            let count = words::count(self.suspects.len(), "suspect snapshot");
            text.push_str(&format!("still frozen by {count} that nobody accepted; `backup accept ID` for each:\n"));
            for id in self.suspects.iter().take(NAMED) {
                text.push_str(&format!("  {} of {}\n", id.short(), words::local(id.instant(), timezone)));
            }
            if self.suspects.len() > NAMED {
                text.push_str(&format!("  and {} newer\n", self.suspects.len() - NAMED));
            }
        }
        for (vault, cause) in &self.frozen {
            text.push_str(&format!("still frozen, vault {vault}: {cause}\n"));
        }
        for (vault, error) in &self.unknown {
            text.push_str(&format!("vault {vault} could not be asked what else freezes: {}\n", error.message()));
        }
        if text.is_empty() {
            text.push_str("nothing else freezes the expiry of this source\n");
        }
        text
    }
}

/// What accepting a snapshot lifts besides the snapshot's own anomaly: whoever looked at that may not know of it. By vault, in
/// words; looked up before the mark is set, so that a dry run says the same.
pub(super) async fn lifts(
    session: &Session<'_>,
    found: &Found,
    source: &SourceName,
    facts: &BTreeSet<Fact>,
) -> Result<Vec<(String, String)>, CliError> {
    let configured: Vec<_> = session.config.sources.iter().filter(|one| one.name == *source).collect();
    let mut causes = Vec::new();
    for marks in [&BTreeSet::new(), facts] {
        let waiver = Waiver::default();
        let as_if = (&waiver, marks);
        let all = pruning::prune_as_if(session, &found.vaults, &|_| true, &configured, None, as_if).await?;
        let mut now = BTreeSet::new();
        for pruning in &all {
            for freeze in pruning.plan.iter().flat_map(|plan| &plan.frozen) {
                // One freeze names all the places where the chain is open.
                let texts: Vec<String> = match freeze {
                    Freeze::OpenChain { place } => place.split("; ").map(str::to_owned).collect(),
                    other => vec![other.to_string()],
                };
                now.extend(texts.into_iter().map(|text| (pruning.vault.clone(), text)));
            }
        }
        causes.push(now);
    }
    Ok(causes[0].difference(&causes[1]).cloned().collect())
}

/// Whether accepting `id` lifts this freeze.
fn is_of(freeze: &Freeze, id: &SnapshotId) -> bool {
    matches!(freeze, Freeze::Gap { after, .. } | Freeze::FutureSnapshot { id: after, .. } if after == id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_left_is_said() {
        let none = Still { suspects: Vec::new(), frozen: Vec::new(), unknown: Vec::new() };
        assert_eq!(none.text(Tz::UTC), "nothing else freezes the expiry of this source\n");
        let id = |day: u32| format!("202611{day:02}T020000Z-1r-abc2{day:02}-suspect").parse().unwrap();
        let some = Still {
            suspects: (1..=9).map(id).collect(),
            frozen: vec![("local".into(), "`x` is listed twice".into())],
            unknown: vec![("offsite".into(), CliError::new(crate::exit::Exit::Failed, "gone"))],
        };
        let text = some.text(Tz::UTC);
        for line in [
            "still frozen by 9 suspect snapshots that nobody accepted; `backup accept ID` for each:\n",
            "  abc201 of 2026-11-01 02:00\n",
            "  and 1 newer\n",
            "still frozen, vault local: `x` is listed twice\n",
            "vault offsite could not be asked what else freezes: gone\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        let until = "2026-11-01T02:00:00Z".parse().unwrap();
        let gap =
            |after: &str| Freeze::Gap { after: after.into(), from: until, until, limit: retention::Span::days(7) };
        assert!(is_of(&gap(id(1).as_str()), &id(1)) && !is_of(&gap(id(2).as_str()), &id(1)));
        assert!(!is_of(&Freeze::NoSnapshot, &id(1)));
    }
}
