//! Warnings: what is allowed, and what the operator should know before relying on it.

use super::super::error::ConfigWarning;
use super::super::types::{SourceKind, State};
use super::super::{Config, cron};
use super::clock_words;

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
    for source in &config.sources {
        let SourceKind::Postgres(postgres) = &source.kind else { continue };
        for (at, expect) in postgres.expect.iter().enumerate() {
            if let Some(word) = clock_words::first(&expect.sql) {
                warn(
                    format!("source.{}.expect[{at}].sql", source.name),
                    format!("the check `{}` asks the clock (`{word}`): older snapshots fail it", expect.name),
                    "compare with `$1`, the snapshot's instant",
                );
            }
        }
    }
    unused(config, &mut warn);
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
                "add a job with a `cron`, or a `waiver` with a reason; on a machine that only pulls leave `objective` out",
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

/// What this version reads and does not act on: said, because whoever wrote it relies on it.
fn unused(config: &Config, warn: &mut impl FnMut(String, String, &str)) {
    if let State::Postgres { .. } = &config.state {
        warn(
            "state.postgres".to_owned(),
            "a state in PostgreSQL is not supported yet: verbs that need the state refuse it".to_owned(),
            "name a folder instead, as in `state = \"/var/lib/backup/NAME\"`",
        );
    }
    for source in &config.sources {
        match &source.kind {
            SourceKind::Postgres(_) | SourceKind::Files(_) => {}
            SourceKind::Dvc(_) => warn(
                format!("source.{}.type", source.name),
                "a source of type `dvc` cannot be captured yet: each run that includes it fails".to_owned(),
                "capture the repository's folder by a source of type `files` meanwhile",
            ),
            SourceKind::Redis(_) | SourceKind::Command(_) => warn(
                format!("source.{}.type", source.name),
                format!(
                    "a source of type `{}` cannot be captured yet: each run that includes it fails",
                    source.kind.word()
                ),
                "let a program of yours write a file, and capture that by a source of type `files` meanwhile",
            ),
        }
    }
    for job in config.jobs.iter().filter(|job| job.catch_up.is_some()) {
        warn(
            format!("job.{}.catch_up", job.name),
            "not acted on yet: a missed run is not made up for".to_owned(),
            "let cron or a systemd timer with `Persistent=true` start the run meanwhile",
        );
    }
    for notify in &config.notify {
        warn(
            format!("notify.{}", notify.name),
            "not acted on yet: nobody is told".to_owned(),
            "let cron mail what `backup run` prints when it fails (`MAILTO=`) meanwhile",
        );
    }
}
