//! Object Lock as the configuration wishes it, and whether the bucket grants it.

use backup_core::config::{Config, Lock, Source, Vault};
use backup_core::vault::layout::{GenerationId, Period};
use backup_core::vault::protection::{LockMode, LockRule};
use backup_core::vault::s3::LockSeen;
use backup_core::vault::store::StorePath;
use chrono::{DateTime, TimeDelta, Utc};

use crate::error::CliError;
use crate::exit::Exit;

/// What to do about a bucket that does not lock.
const HINT: &str = "make a bucket with Object Lock (it cannot be turned on by this program), or set `lock = \"none\"`";

/// The mode that is configured for a vault.
pub(crate) fn mode(vault: &Vault) -> Option<LockMode> {
    match vault.lock {
        Lock::None => None,
        Lock::Governance => Some(LockMode::Governance),
        Lock::Compliance => Some(LockMode::Compliance),
    }
}

/// How long what is stored in a vault is locked. A policy that promises only a number of snapshots has the window that prune
/// counts with: one generation and a day.
pub(crate) fn rule(config: &Config, vault: &Vault, clock: &backup_core::clock::Clock) -> Option<LockRule> {
    let seconds = |span: backup_core::config::Span| {
        TimeDelta::try_seconds(i64::try_from(span.as_seconds()).unwrap_or(i64::MAX)).unwrap_or(TimeDelta::MAX)
    };
    let period = seconds(config.longest_period());
    let window = seconds(config.window(vault)?);
    let window = if window.is_zero() { period + TimeDelta::days(1) } else { window };
    Some(LockRule { mode: mode(vault)?, window, period, clock: clock.clone() })
}

/// Until when everything is locked that a run stores now: of the generations that are open now, of all `sources`, the one that
/// ends first counts, as [`LockRule::until`] does for each file.
pub(crate) fn ends(rule: &LockRule, sources: &[Source]) -> DateTime<Utc> {
    let now = rule.clock.now();
    let open = sources.iter().filter_map(|source| {
        let period: Period = source.generation.to_string().parse().ok()?;
        Some(rule.promised(&GenerationId::new(period.first_day(now, &source.name), period, "")))
    });
    let anywhere = StorePath::new("vault.json").expect("a path of checked parts");
    open.min().unwrap_or_else(|| rule.until(&anywhere))
}

/// Refuses a vault whose `lock` its bucket was not seen to enforce.
pub(crate) fn check(vault: &Vault, seen: Option<&LockSeen>) -> Result<(), CliError> {
    match (mode(vault), seen) {
        // That this host's key may bypass it is for `doctor` to say: others' may not.
        (None, _) | (Some(_), Some(LockSeen::Enforced | LockSeen::Bypassable)) => Ok(()),
        (Some(mode), seen) => {
            let why = match seen {
                Some(LockSeen::NotEnforced(why)) => why,
                _ => "it was not tried",
            };
            let text =
                format!("vault `{}`: `lock = \"{mode}\"` is configured, and no lock holds there: {why}", vault.name);
            Err(CliError::new(Exit::Usage, text).hint(HINT))
        }
    }
}
