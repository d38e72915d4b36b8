//! What the last plan of each vault said that keeps anything from expiring: a gap, clocks apart, a chain that does not close.
//!
//! To find it out anew, every document of every vault would have to be read, and `status` is to be quick. What the last prune was
//! told is remembered in this host's state; so it is told as it was then, with the time. A plan that failed replaces nothing: what
//! kept everything yesterday keeps it still, as far as anybody knows. One that is only shown (`backup prune`) takes away what is
//! no longer so.

use backup_core::config::Source;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::session::Session;
use crate::words;

/// Why nothing expires in one vault.
#[derive(Debug, PartialEq, Eq)]
struct Freeze {
    vault: String,
    reason: String,
    /// When it was planned.
    at: DateTime<Utc>,
}

/// What was frozen of one source when it was last planned.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told(Vec<Freeze>);

impl Told {
    /// By what is remembered of the configured vaults; `None` where that is nothing.
    pub(super) async fn of(session: &Session<'_>, source: &Source) -> Option<Self> {
        let state = session.remembered().await?;
        let mut freezes = Vec::new();
        for vault in &session.config.vaults {
            // Without a `keep` nothing is promised to expire.
            let Some(id) = vault.id.as_ref().filter(|_| vault.keep.is_some()) else { continue };
            let Ok(Some((reasons, at))) = state.frozen(id, &source.name).await else { continue };
            freezes.extend(reasons.into_iter().map(|reason| Freeze { vault: vault.name.clone(), reason, at }));
        }
        (!freezes.is_empty()).then_some(Self(freezes))
    }

    /// The warning.
    pub(super) fn warning(&self, source: &str, timezone: Tz) -> String {
        let one = |Freeze { vault, reason, at }: &Freeze| {
            format!("vault `{vault}` ({}): {reason}", words::local(*at, timezone))
        };
        let each: Vec<String> = self.0.iter().map(one).collect();
        format!("nothing of `{source}` expired when it was last planned: {}", each.join("; "))
    }

    /// What to do about it.
    pub(super) const ADVICE: &str = "see with `backup prune` whether it is still so; a gap or a hole in the chain is closed by `backup accept` of \
                                     the snapshot after it, when that is what it should be";

    /// Lines of the source's block.
    pub(super) fn lines(&self, timezone: Tz) -> Vec<String> {
        let line = |Freeze { vault, reason, at }: &Freeze| {
            format!("  frozen    {vault}, as planned {}: {reason}", words::local(*at, timezone))
        };
        self.0.iter().map(line).collect()
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let one =
            |Freeze { vault, reason, at }: &Freeze| json!({ "vault": vault, "reason": reason, "at": words::utc(*at) });
        json!({ "at": self.0.iter().map(|freeze| freeze.at).max().map(words::utc), "freezes": self.0.iter().map(one).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vault_is_told_with_its_own_time() {
        let freeze = |vault: &str, reason: &str, seconds| Freeze {
            vault: vault.to_owned(),
            reason: reason.to_owned(),
            at: DateTime::from_timestamp(seconds, 0).unwrap(),
        };
        let told = Told(vec![freeze("local", "a gap", 0), freeze("offsite", "clocks", 86_400)]);
        assert_eq!(
            told.lines(Tz::UTC),
            [
                "  frozen    local, as planned 1970-01-01 00:00: a gap",
                "  frozen    offsite, as planned 1970-01-02 00:00: clocks"
            ]
        );
        assert_eq!(told.to_json()["at"], "1970-01-02T00:00:00Z");
        assert!(told.warning("db", Tz::UTC).ends_with(
            "last planned: vault `local` (1970-01-01 00:00): a gap; vault `offsite` (1970-01-02 00:00): clocks"
        ));
    }
}
