//! What can be seen on this machine and at the sources: configuration, files, keys, state, servers.

use backup_core::config::{ConfigWarning, SourceKind};
use backup_core::source::postgres::preflight::preflight;
use backup_core::state::State;

use super::{Checks, Level};
use crate::commands::config;
use crate::error::CliError;
use crate::session::Session;

/// The configuration, what is unwise in it, and the files that it names.
pub(super) fn configuration(session: &Session<'_>, checks: &mut Checks) {
    let config = &session.config;
    checks.good("configuration", format!("`{}`: stack {}", config.file.display(), config.stack));
    for ConfigWarning { key, text, hint } in &config.warnings {
        checks.warn(key, text, hint);
    }
    for ConfigWarning { key, text, hint } in config::places(config) {
        checks.warn(&key, text, &hint);
    }
    let findings = config::files(config);
    for ConfigWarning { key, text, hint } in findings.iter().filter(|finding| !finding.key.starts_with("source.")) {
        checks.add(key, Level::Fail, text, hint);
    }
    // The keys have rows of their own, and are files all the same.
    if findings.is_empty() && config::keys(session).is_empty() {
        checks.good("files", "every file that is named is there, and secrets are their owner's only");
    }
}

/// Who signs, who is believed, who can read.
pub(super) fn keys(session: &Session<'_>, checks: &mut Checks) {
    let keys = &session.config.keys;
    match session.signers() {
        Ok(signers) => checks.good("keys.signers", format!("{} pinned", signers.fingerprints().len())),
        Err(error) => checks.fail("keys.signers", &error),
    }
    match (&keys.host_key, session.host_key()) {
        (None, _) => checks.good("keys.host_key", "none: this machine makes no backups"),
        (Some(_), Ok(key)) => checks.good("keys.host_key", format!("{}, among the pinned signers", key.fingerprint())),
        (Some(_), Err(error)) => checks.fail("keys.host_key", &error),
    }
    // Fewer than two, and an identity beside a host key, are among the configuration's warnings.
    if let Err(error) = session.config.refuse_revoked() {
        checks.fail("keys.recipients", &error.into());
    } else if keys.recipients.len() >= 2 {
        checks.good("keys.recipients", format!("{} can read", keys.recipients.len()));
    }
    if keys.identity.is_none() && keys.host_key.is_some() {
        checks.good("keys.identity", "none here: this machine cannot read its backups");
    }
}

/// The state, if there is one yet.
pub(super) async fn state(session: &Session<'_>, checks: &mut Checks) {
    match session.state_dir() {
        Err(error) => checks.fail("state", &error),
        Ok(dir) if !dir.join("state.sqlite").exists() => {
            checks.good("state", format!("`{}`: made by the first run", dir.display()));
        }
        Ok(dir) => match State::open(dir, session.stack()).await {
            Ok(_) => checks.good("state", format!("`{}`", dir.display())),
            Err(error) => checks.fail("state", &error.into()),
        },
    }
}

/// Each source: would its capture begin?
pub(super) async fn sources(session: &Session<'_>, checks: &mut Checks) {
    let findings = config::files(&session.config);
    for source in &session.config.sources {
        let about = format!("source {}", source.name);
        let prefix = format!("source.{}.", source.name);
        let mine: Vec<&ConfigWarning> = findings.iter().filter(|finding| finding.key.starts_with(&prefix)).collect();
        for finding in &mine {
            checks.add(&about, Level::Fail, &finding.text, &finding.hint);
        }
        match &source.kind {
            // Without its password the server is not asked, and that it lacks was said.
            SourceKind::Postgres(_) if mine.iter().any(|finding| finding.key.ends_with(".password")) => {}
            SourceKind::Postgres(postgres) => {
                let asked = match crate::session::postgres(&source.name, postgres) {
                    Ok(options) => preflight(&options).await.map_err(CliError::from),
                    Err(error) => Err(error),
                };
                match asked {
                    Ok(seen) => checks.good(
                        &about,
                        format!(
                            "PostgreSQL {}, clients {}, all {} tables and sequences readable",
                            seen.server, seen.clients, seen.relations
                        ),
                    ),
                    Err(error) => checks.fail(&about, &error),
                }
            }
            SourceKind::Files(files) if mine.is_empty() => {
                checks.good(&about, format!("{} paths, there", files.paths.len()));
            }
            SourceKind::Files(_) => {}
            _ => {
                if let Err(error) = crate::session::engine(source) {
                    checks.fail(&about, &error);
                }
            }
        }
    }
}
