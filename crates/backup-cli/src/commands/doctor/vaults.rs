//! What can be seen of the vaults: identity, clock, what the endpoint really does, room.

use std::collections::BTreeSet;

use backup_core::config::{self, Place};
use backup_core::hidden;
use backup_core::vault::Vault;
use backup_core::vault::layout::SnapshotId;
use backup_core::vault::local::{FreeSpace, LocalOptions, LocalStore};
use backup_core::vault::s3::{Probe, Versioning};
use chrono::TimeDelta;
use serde_json::Value;

use super::protection::{self, Protection};
use super::{Checks, Level};
use crate::endpoint::{self, Clocks};
use crate::error::CliError;
use crate::find::UNSEEN_ADVICE;
use crate::session::Session;
use crate::{find, locks, words};

/// All configured vaults; gives what protects each, for programs.
pub(super) async fn look(session: &Session<'_>, checks: &mut Checks) -> Vec<Value> {
    if session.config.vaults.is_empty() {
        checks.warn("vaults", "none is configured", "add a `[vault.NAME]` to the configuration");
    }
    let mut protections: Vec<(&config::Vault, Protection)> = Vec::new();
    for vault in &session.config.vaults {
        let about = format!("vault {}", vault.name);
        let open = match session.vault(vault, false).await {
            Ok(open) => open,
            Err(error) => {
                checks.fail(&about, &error);
                continue;
            }
        };
        checks.good(&about, format!("{}, the pinned vault", open.describe()));
        match open.now().await {
            Ok(now) => clock(&about, now - session.cx.clock.now(), checks),
            Err(error) => checks.fail(&about, &error.into()),
        }
        deleted(session, &about, &open, checks).await;
        let seen = match &vault.place {
            Place::Path(path) => {
                match room(path).await {
                    Ok(space) => reserve(&about, space, session.config.limits.reserve, checks),
                    Err(error) => checks.fail(&about, &error),
                }
                None
            }
            Place::S3(s3) => match protection::look(session, vault, s3).await {
                Ok(seen) => {
                    answers(&about, &seen.probe, checks);
                    protection::report(session, &about, vault, &seen, checks);
                    Some(seen)
                }
                Err(error) => {
                    checks.fail(&about, &error);
                    continue;
                }
            },
        };
        let until = locks::rule(&session.config, vault, &session.cx.clock)
            .map(|rule| locks::ends(&rule, &session.config.sources));
        protections
            .push((vault, protection::protection(vault, seen.as_ref(), until, protection::needed(session, vault))));
    }
    // One protected vault is what is needed; that the others are not is worth a line and no warning.
    let protected = protections.iter().any(|(_, protection)| protection.good);
    for (vault, protection) in &protections {
        let about = format!("vault {}", vault.name);
        if protection.good || protected {
            checks.good(&about, &protection.text);
        } else {
            checks.warn(
                &about,
                &protection.text,
                "let another machine pull a copy, or turn on versioning beyond this host's rights, and say so in `protects`",
            );
        }
    }
    protections.iter().map(|(vault, protection)| protection.to_json(&vault.name)).collect()
}

/// Snapshots that somebody deleted and that older versions still hold.
async fn deleted(session: &Session<'_>, about: &str, vault: &Vault, checks: &mut Checks) {
    // That nobody is pinned is told of already.
    let Ok(signers) = session.signers() else { return };
    let mut ids: Vec<SnapshotId> = Vec::new();
    let (mut unseen, mut failed) = (BTreeSet::new(), BTreeSet::new());
    for source in &session.config.sources {
        match hidden::snapshots(vault, &signers, (session.stack(), &source.name)).await {
            Ok(found) => {
                ids.extend(found.snapshots.into_iter().map(|one| one.id));
                unseen.extend(found.unseen);
            }
            // The others are looked at all the same.
            Err(error) => {
                let error = CliError::from(error);
                if failed.insert(error.message().to_owned()) {
                    checks.fail(about, &error);
                }
            }
        }
    }
    for text in unseen {
        checks.warn(about, text, UNSEEN_ADVICE);
    }
    if !ids.is_empty() {
        let (text, hint) = find::deleted_text(vault.name(), &ids.iter().collect::<Vec<_>>());
        checks.add(about, Level::Breach, text, &hint);
    }
}

async fn room(path: &std::path::Path) -> Result<FreeSpace, CliError> {
    Ok(LocalStore::open(path, LocalOptions::default())?.free_space().await?)
}

/// Expiry freezes and commits are refused by clocks that are far apart; five minutes are worth a look.
fn clock(about: &str, ahead: TimeDelta, checks: &mut Checks) {
    match endpoint::clocks(ahead) {
        (Clocks::TooFar, text) => checks.add(about, Level::Fail, text, endpoint::CLOCK_HINT),
        (Clocks::Apart, text) => checks.warn(about, text, endpoint::CLOCK_HINT),
        (Clocks::Agree, text) => checks.good(about, text),
    }
}

fn reserve(about: &str, space: FreeSpace, reserve: config::Reserve, checks: &mut Checks) {
    let kept = reserve.of(space.total_bytes);
    let text = format!(
        "{} free of {}, reserve {}",
        words::bytes(space.free_bytes),
        words::bytes(space.total_bytes),
        words::bytes(kept)
    );
    if space.free_bytes <= kept {
        checks.add(about, Level::Fail, text, "make room, shorten `keep` and prune, or lower `limits.reserve`");
    } else if space.free_bytes / 2 <= kept {
        checks.warn(about, text, "make room before the reserve is reached");
    } else {
        checks.good(about, text);
    }
}

fn answers(about: &str, probe: &Probe, checks: &mut Checks) {
    if probe.checksums_verified {
        checks.good(about, "the endpoint refuses a body that does not match its checksum");
    } else {
        checks.warn(
            about,
            "the endpoint does not verify checksums: every upload is read back",
            "nothing must be done; uploads take longer",
        );
    }
    if probe.refused_body_kept {
        checks.warn(
            about,
            "the endpoint keeps a body that it refused",
            "read the data from time to time: `backup verify --read-data 1/30`",
        );
    }
    let conditional = if probe.if_none_match { "honours" } else { "ignores" };
    let versioning = match &probe.versioning {
        Versioning::Off => "off".to_owned(),
        Versioning::Enabled => "on".to_owned(),
        Versioning::Suspended => "suspended".to_owned(),
        Versioning::Denied(why) => format!("not told to these credentials ({why})"),
        Versioning::Unknown(why) => format!("unknown ({why})"),
    };
    checks.good(about, format!("the endpoint {conditional} If-None-Match; versioning is {versioning}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::config::{ByteSize, Reserve};

    fn one(run: impl FnOnce(&mut Checks)) -> (Level, String) {
        let mut checks = Checks::default();
        run(&mut checks);
        assert_eq!(checks.0.len(), 1);
        let check = checks.0.remove(0);
        (check.level, check.text)
    }

    #[test]
    fn clocks_apart_are_told() {
        for (seconds, level) in [(0, Level::Good), (-299, Level::Good), (400, Level::Warn), (-3601, Level::Fail)] {
            let (seen, text) = one(|checks| clock("v", TimeDelta::seconds(seconds), checks));
            assert_eq!(seen, level, "{text}");
        }
        assert!(one(|checks| clock("v", TimeDelta::seconds(-400), checks)).1.contains("400s behind"));
    }

    #[test]
    fn the_reserve_is_compared_with_what_is_free() {
        let reserved = Reserve::Bytes(ByteSize(100));
        for (free_bytes, level) in [(1000, Level::Good), (201, Level::Warn), (100, Level::Fail)] {
            let space = FreeSpace { free_bytes, total_bytes: 2000 };
            assert_eq!(one(|checks| reserve("v", space, reserved, checks)).0, level, "{free_bytes}");
        }
    }
}
