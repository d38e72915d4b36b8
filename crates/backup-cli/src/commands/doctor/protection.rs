//! What protects an S3 vault from the key that this host uses, and what the bucket itself would delete.

use backup_core::config::{self, Protects};
use backup_core::id::StackName;
use backup_core::vault::protection::{Hidden, Lifecycle, LifecycleRule};
use backup_core::vault::s3::{LockSeen, Probe, Shield, Versioning};
use backup_core::vault::store::Store as _;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{Checks, Level};
use crate::error::CliError;
use crate::session::Session;
use crate::{endpoint, locks, words};

/// What must not be trusted to be protected.
pub(super) const NONE: &str = "protection: none: deletable by this host";

/// Classes from which a body can be read at once.
const READABLE: [&str; 4] = ["STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"];

/// Everything that was tried and asked of an endpoint.
pub(super) struct Seen {
    pub(super) probe: Probe,
    pub(super) shield: Shield,
    pub(super) hidden: Option<Hidden>,
    pub(super) rules: Lifecycle,
    /// What the vault's keys begin with.
    pub(super) prefix: String,
}

/// What was concluded for one vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Protection {
    /// Whether this host cannot delete what is in there.
    pub(super) good: bool,
    /// For programs.
    pub(super) kind: &'static str,
    pub(super) text: String,
}

impl Protection {
    fn seen(kind: &'static str, text: impl Into<String>) -> Self {
        Self { good: true, kind, text: format!("protection: {}", text.into()) }
    }

    fn none(why: &str) -> Self {
        let text = if why.is_empty() { NONE.to_owned() } else { format!("{NONE}; {why}") };
        Self { good: false, kind: "none", text }
    }

    pub(super) fn to_json(&self, vault: &str) -> Value {
        json!({ "vault": vault, "protected": self.good, "by": self.kind, "text": self.text })
    }
}

/// Tries and asks. Errors: the endpoint fails, or refuses what a run needs.
pub(super) async fn look(session: &Session<'_>, vault: &config::Vault, s3: &config::S3) -> Result<Seen, CliError> {
    let store = session.s3(&vault.name, s3).await?;
    let probe = store.probe().await?;
    let shield = store.shield(&probe.versioning, locks::mode(vault)).await?;
    let rules = store.lifecycle().await?;
    // A key that may list and not list versions is a good key.
    let hidden = store.hidden().await.ok().flatten();
    Ok(Seen { probe, shield, hidden, rules, prefix: store.key_prefix().to_owned() })
}

/// What of it somebody must know.
pub(super) fn report(session: &Session<'_>, about: &str, vault: &config::Vault, seen: &Seen, checks: &mut Checks) {
    if !seen.shield.listed_after_write {
        checks.add(about, Level::Fail, endpoint::UNLISTED, endpoint::UNLISTED_HINT);
    }
    if let Err(error) = locks::check(vault, seen.shield.lock.as_ref()) {
        checks.fail(about, &error);
    }
    versions(about, seen, checks);
    lifecycle(about, seen, session.stack(), needed(session, vault), checks);
}

/// How long a file of a vault may be needed after it was stored; `None`: for ever.
pub(crate) fn needed(session: &Session<'_>, vault: &config::Vault) -> Option<TimeDelta> {
    let span = session.config.kept_at_most(vault)?;
    TimeDelta::try_seconds(i64::try_from(span.as_seconds()).ok()?)
}

/// What a bucket's rules delete too early, a line each.
pub(crate) fn too_short(
    rules: &Lifecycle,
    (prefix, stack): (&str, &StackName),
    needed: Option<TimeDelta>,
) -> Vec<String> {
    let promise = needed.map_or("for ever".to_owned(), |needed| format!("up to {} days", needed.num_days()));
    let told = |rule: &LifecycleRule| {
        let harm = if rule.is_shorter_than(needed) {
            format!("what is stored here is needed {promise}")
        } else {
            "with it `vault.json`, marks and receipts, which are needed for ever".to_owned()
        };
        Some(format!("the bucket's rule `{}` deletes `{}*` {}, and {harm}", rule.id, rule.prefix, rule.expires?))
    };
    rules.too_short(prefix, stack.as_str(), needed).into_iter().filter_map(told).collect()
}

fn versions(about: &str, seen: &Seen, checks: &mut Checks) {
    let Some(Hidden { deleted, older, older_bytes }) = seen.hidden else { return };
    let text = format!(
        "{deleted} files are hidden by delete markers, {older} older versions take {}",
        words::bytes(older_bytes)
    );
    let drops = match &seen.rules {
        Lifecycle::Unknown(_) => true,
        Lifecycle::Rules(rules) => rules.iter().any(|rule| rule.older_days.is_some() && rule.reaches(&seen.prefix)),
    };
    if older > 0 && !drops {
        let hint = "what prune deletes stays there as older versions: let a rule of the bucket drop those after some weeks \
                    (NoncurrentVersionExpiration, at least 30 days)";
        checks.warn(about, format!("{text}, and no rule of the bucket ever drops them"), hint);
    } else {
        checks.good(about, text);
    }
}

/// The bucket's own rules against the vault's policy: `needed` is how long a file may be needed, `None` for ever.
fn lifecycle(about: &str, seen: &Seen, stack: &StackName, needed: Option<TimeDelta>, checks: &mut Checks) {
    let rules = match &seen.rules {
        Lifecycle::Unknown(why) => {
            return checks.good(about, format!("the bucket's lifecycle rules were not seen ({why})"));
        }
        Lifecycle::Rules(rules) => rules,
    };
    for text in too_short(&seen.rules, (&seen.prefix, stack), needed) {
        checks.add(about, Level::Breach, text, "take that rule away, or let it reach other prefixes only");
    }
    for rule in rules.iter().filter(|rule| rule.reaches(&seen.prefix)) {
        let Some(class) = rule.moves_to.as_deref().filter(|class| !READABLE.contains(class)) else { continue };
        let text =
            format!("the bucket's rule `{}` moves `{}*` to {class}: it cannot be read at once", rule.id, rule.prefix);
        checks.warn(about, text, "take that rule away: a restore would have to wait for hours, or to be asked for");
    }
}

/// So many days must an older version stay to be of use, where the vault itself promises longer or for ever: somebody notices
/// within that time what was deleted.
const OLDER_STAY: i64 = 30;

/// The fewest days that older versions stay in the vault, where a rule of the bucket drops them sooner than it may: sooner
/// than what is stored is needed, and than [`OLDER_STAY`] days.
fn older_only(seen: &Seen, needed: Option<TimeDelta>) -> Option<u32> {
    let enough = needed.map_or(OLDER_STAY, |needed| needed.num_days().min(OLDER_STAY));
    let Lifecycle::Rules(rules) = &seen.rules else { return None };
    let reaching = rules.iter().filter(|rule| rule.reaches(&seen.prefix)).filter_map(|rule| rule.older_days);
    reaching.min().filter(|days| i64::from(*days) < enough)
}

/// What protects the vault from this host: what was seen, then what an operator says. `needed`: how long what is stored may
/// be needed, `None` for ever.
pub(super) fn protection(
    vault: &config::Vault,
    seen: Option<&Seen>,
    locked_until: Option<DateTime<Utc>>,
    needed: Option<TimeDelta>,
) -> Protection {
    if let (Some(mode), Some(LockSeen::Enforced), Some(until)) =
        (locks::mode(vault), seen.and_then(|seen| seen.shield.lock.as_ref()), locked_until)
    {
        return Protection::seen(
            "object-lock",
            format!("object lock ({mode}, until {} for what is stored now)", until.format("%F")),
        );
    }
    if locks::mode(vault).is_some() && seen.is_some_and(|seen| seen.shield.lock == Some(LockSeen::Bypassable)) {
        return Protection::none("this key may bypass the lock (`s3:BypassGovernanceRetention`)");
    }
    let versioning = seen.map(|seen| &seen.probe.versioning);
    let deletable = seen.and_then(|seen| seen.shield.versions_deletable);
    let versioned = versioning == Some(&Versioning::Enabled);
    let by_versions = vault.protects == Protects::Versioning || deletable == Some(false);
    if let Some(days) = seen.filter(|_| versioned && by_versions).and_then(|seen| older_only(seen, needed))
        && !matches!(vault.protects, Protects::Pulled | Protects::ConditionalPut)
    {
        return Protection::none(&format!(
            "versioning: deletions leave older versions, only {} long: a rule of the bucket drops them",
            words::count(usize::try_from(days).unwrap_or(usize::MAX), "day")
        ));
    }
    if let Some(Lifecycle::Unknown(why)) =
        seen.filter(|_| versioned && deletable == Some(false)).map(|seen| &seen.rules)
        && vault.protects == Protects::None
    {
        // An endpoint without rules has none.
        if !why.starts_with("NotImplemented") {
            return Protection::none(&format!(
                "versioning: deletions leave older versions, which this key may not delete; how long they stay was not seen ({why})"
            ));
        }
    }
    if versioned && deletable == Some(false) && seen.is_some_and(|seen| older_only(seen, needed).is_none()) {
        return Protection::seen(
            "versioning",
            "versioning: deletions leave older versions, which this key may not delete",
        );
    }
    match vault.protects {
        Protects::Pulled => Protection::seen("pulled", "pulled by another machine, as configured; not seen from here"),
        Protects::Versioning if versioned && deletable == Some(true) => {
            Protection::none("`protects` says versioning, and this key may delete older versions")
        }
        Protects::Versioning if versioned => {
            Protection::seen("versioning", "versioning is on; that this host cannot delete versions is as configured")
        }
        Protects::Versioning => Protection::none("`protects` says versioning, and it was not seen to be on"),
        Protects::ConditionalPut if seen.is_some_and(|seen| seen.probe.if_none_match) => Protection::seen(
            "conditional-put",
            "If-None-Match is honoured; that a policy demands it and denies deletion is as configured",
        ),
        Protects::ConditionalPut => Protection::none("`protects` says conditional-put, and it was not seen"),
        Protects::None if versioned && deletable == Some(true) => {
            Protection::none("versioning: deletions leave older versions, which this key may delete")
        }
        Protects::None => Protection::none(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::config::{Lock, Place};
    use backup_core::vault::protection::Expires;

    fn seen() -> Seen {
        Seen {
            probe: Probe {
                checksums_verified: true,
                refused_body_kept: false,
                if_none_match: false,
                versioning: Versioning::Off,
            },
            shield: Shield { listed_after_write: true, versions_deletable: None, lock: None },
            hidden: None,
            rules: Lifecycle::Rules(Vec::new()),
            prefix: "v/".to_owned(),
        }
    }

    #[test]
    fn protection_is_none_unless_seen_or_told() {
        let mut vault = config::Vault {
            name: "v".into(),
            id: None,
            place: Place::Path("/v".into()),
            keep: None,
            lock: Lock::None,
            protects: Protects::None,
        };
        let mut seen = seen();
        let until: DateTime<Utc> = "2027-01-01T00:00:00Z".parse().unwrap();
        let judged = |vault: &config::Vault, seen: &Seen| {
            let found = protection(vault, Some(seen), Some(until), None);
            (found.good, found.kind)
        };
        assert_eq!(protection(&vault, Some(&seen), None, None), Protection::none(""));
        vault.lock = Lock::Compliance;
        assert_eq!(judged(&vault, &seen), (false, "none"), "a lock that was not tried protects nothing");
        seen.shield.lock = Some(LockSeen::NotEnforced("ignored".into()));
        assert_eq!(judged(&vault, &seen), (false, "none"));
        assert!(locks::check(&vault, seen.shield.lock.as_ref()).is_err());
        seen.shield.lock = Some(LockSeen::Enforced);
        assert_eq!(judged(&vault, &seen), (true, "object-lock"));
        let text = protection(&vault, Some(&seen), Some(until), None).text;
        assert_eq!(text, "protection: object lock (compliance, until 2027-01-01 for what is stored now)");
        vault.lock = Lock::Governance;
        seen.shield.lock = Some(LockSeen::Bypassable);
        assert_eq!(judged(&vault, &seen), (false, "none"));
        let text = protection(&vault, Some(&seen), Some(until), None).text;
        assert!(text.starts_with("protection: none") && text.contains("this key may bypass the lock"), "{text}");
        assert!(locks::check(&vault, seen.shield.lock.as_ref()).is_ok(), "the bucket does lock");
        vault.lock = Lock::None;
        seen.shield.lock = None;
        vault.protects = Protects::Versioning;
        assert_eq!(judged(&vault, &seen), (false, "none"), "said, and seen to be off");
        seen.probe.versioning = Versioning::Enabled;
        assert_eq!(judged(&vault, &seen), (true, "versioning"), "said, and not seen to be otherwise");
        seen.shield.versions_deletable = Some(true);
        assert_eq!(judged(&vault, &seen), (false, "none"), "said, and seen to be otherwise");
        vault.protects = Protects::None;
        assert_eq!(judged(&vault, &seen), (false, "none"));
        seen.shield.versions_deletable = Some(false);
        assert_eq!(judged(&vault, &seen), (true, "versioning"), "seen, and nobody need say it");
        let drops = |prefix: &str, days| LifecycleRule {
            id: String::new(),
            prefix: prefix.into(),
            expires: None,
            older_days: Some(days),
            moves_to: None,
        };
        seen.rules = Lifecycle::Rules(vec![drops("v/", 30), drops("w/", 1)]);
        assert_eq!(judged(&vault, &seen), (true, "versioning"));
        seen.rules = Lifecycle::Rules(vec![drops("", 100), drops("v/", 1)]);
        assert_eq!(judged(&vault, &seen), (false, "none"), "older versions are gone the next day");
        let told = |vault: &config::Vault, needed| protection(vault, Some(&seen), None, needed).text;
        assert!(told(&vault, None).contains("only 1 day long"), "{}", told(&vault, None));
        assert!(!told(&vault, Some(TimeDelta::days(1))).contains("only"), "nothing is needed longer");
        vault.protects = Protects::Versioning;
        assert!(told(&vault, None).contains("only 1 day long"), "also where an operator says it");
        vault.protects = Protects::Pulled;
        assert!(protection(&vault, Some(&seen), None, None).good, "another protection does not end with that");
        vault.protects = Protects::None;
        seen.rules = Lifecycle::Unknown("AccessDenied".into());
        let unseen = protection(&vault, Some(&seen), None, None);
        assert!(
            !unseen.good && unseen.text.contains("how long they stay was not seen (AccessDenied)"),
            "{}",
            unseen.text
        );
        vault.protects = Protects::Versioning;
        assert_eq!(judged(&vault, &seen), (true, "versioning"), "an operator says it");
        vault.protects = Protects::None;
        seen.rules = Lifecycle::Unknown("NotImplemented: no such thing".into());
        assert_eq!(judged(&vault, &seen), (true, "versioning"), "there are no rules");
        seen.rules = Lifecycle::Rules(Vec::new());
        seen.probe.versioning = Versioning::Suspended;
        assert_eq!(judged(&vault, &seen), (false, "none"), "older versions stay, new ones do not");
        vault.protects = Protects::ConditionalPut;
        assert_eq!(judged(&vault, &seen), (false, "none"));
        seen.probe.if_none_match = true;
        assert_eq!(judged(&vault, &seen), (true, "conditional-put"));
        vault.protects = Protects::Pulled;
        assert!(protection(&vault, None, None, None).good);
    }

    #[test]
    fn rules_of_the_bucket_that_hurt_are_named() {
        let rule = |id: &str, prefix: &str, days: Option<u32>, moves_to: Option<&str>| LifecycleRule {
            id: id.into(),
            prefix: prefix.into(),
            expires: days.map(|days| Expires::After { days }),
            older_days: None,
            moves_to: moves_to.map(Into::into),
        };
        let mut seen = seen();
        seen.rules = Lifecycle::Rules(vec![
            rule("tidy", "", Some(3), None),
            rule("late", "v/", Some(23), None),
            rule("other", "w/", Some(1), Some("GLACIER")),
            rule("cold", "v/", None, Some("DEEP_ARCHIVE")),
            rule("warm", "v/", None, Some("STANDARD_IA")),
        ]);
        let mut checks = Checks::default();
        let stack = "s".parse().unwrap();
        lifecycle("vault v", &seen, &stack, Some(TimeDelta::days(23)), &mut checks);
        let found: Vec<_> = checks.0.iter().map(|check| (check.level, check.text.as_str())).collect();
        assert_eq!(
            found,
            [
                (
                    Level::Breach,
                    "the bucket's rule `tidy` deletes `*` after 3 days, and what is stored here is needed up to 23 days"
                ),
                (
                    Level::Breach,
                    "the bucket's rule `late` deletes `v/*` after 23 days, and with it `vault.json`, marks and receipts, which are needed for ever"
                ),
                (Level::Warn, "the bucket's rule `cold` moves `v/*` to DEEP_ARCHIVE: it cannot be read at once"),
            ]
        );
        seen.rules = Lifecycle::Unknown("AccessDenied".into());
        let mut checks = Checks::default();
        lifecycle("vault v", &seen, &stack, None, &mut checks);
        assert_eq!(checks.0[0].text, "the bucket's lifecycle rules were not seen (AccessDenied)");
    }

    #[test]
    fn older_versions_that_nothing_ever_drops_are_told() {
        let mut seen = seen();
        seen.hidden = Some(Hidden { deleted: 2, older: 3, older_bytes: 10 });
        let level = |seen: &Seen| {
            let mut checks = Checks::default();
            versions("vault v", seen, &mut checks);
            checks.0.remove(0).level
        };
        assert_eq!(level(&seen), Level::Warn);
        let drops = LifecycleRule {
            id: String::new(),
            prefix: "v".into(),
            expires: None,
            older_days: Some(30),
            moves_to: None,
        };
        seen.rules = Lifecycle::Rules(vec![drops]);
        assert_eq!(level(&seen), Level::Good);
    }
}
