//! Warnings: what is allowed, and what the operator should know before relying on it.

use super::super::error::ConfigWarning;
use super::super::{Config, cron};

/// All warnings about a resolved configuration, in the order of the file's tables.
pub(super) fn warnings(config: &Config) -> Vec<ConfigWarning> {
    let mut all = Vec::new();
    let mut warn = |key: String, text: String, hint: &str| all.push(ConfigWarning { key, text, hint: hint.to_owned() });
    let backs_up = config.keys.host_key.is_some();
    if config.keys.recipients.len() < 2 {
        warn(
            "keys.recipients".to_owned(),
            "only one recipient: with its identity lost, every backup is lost".to_owned(),
            "add the recipient of a second identity that is kept elsewhere",
        );
    }
    if backs_up && config.keys.identity.is_some() {
        warn(
            "keys.identity".to_owned(),
            "an identity beside the host key: this host can read its own backups".to_owned(),
            "keep identities off the machine that makes backups",
        );
    }
    for vault in &config.vaults {
        if vault.id.is_none() {
            warn(
                format!("vault.{}.id", vault.name),
                "no id is pinned: another vault in its place would not be noticed".to_owned(),
                "run `backup init`, which makes the vault and writes its id",
            );
        }
    }
    for source in config.sources.iter().filter(|_| backs_up) {
        let Some(objective) = source.objective.as_ref().filter(|objective| objective.waiver.is_none()) else {
            continue;
        };
        let pauses = config.jobs.iter().filter(|job| job.sources.contains(&source.name)).filter_map(|job| {
            let text = job.cron.as_deref()?;
            Some((cron::longest_pause(text).ok()?, job))
        });
        let key = format!("source.{}.objective.rpo", source.name);
        match pauses.min_by_key(|(pause, _)| *pause) {
            None => warn(
                key,
                format!("an RPO of {} is promised, and no scheduled job captures the source", objective.rpo),
                "add a job with a `cron`, or a `waiver` with a reason",
            ),
            Some((pause, job)) if pause > objective.rpo => warn(
                key,
                format!("an RPO of {} is promised, and `job.{}` pauses for {pause}", objective.rpo, job.name),
                "run the job more often, or add a `waiver` with a reason",
            ),
            Some(_) => {}
        }
    }
    all
}
