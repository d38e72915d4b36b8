//! `backup config check`.

use std::fs;
use std::path::Path;

use backup_core::config::{Clients, Config, ConfigWarning, Credentials, Place, SecretRef, SourceKind, State};
use backup_scheduler::Crontab;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::secrets;
use crate::session::{self, Session};

/// Read the configuration and the files that it names, and say what is wrong or unwise
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Prints what was found. Warnings do not change the exit code: `doctor` asks the servers and judges. Keys that every verb or every
/// run refuses do, with the exit code that those end with.
pub(crate) fn run(cx: &Context, _args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    let config = &session.config;
    config.refuse_revoked()?;
    let mut warnings = config.warnings.clone();
    let refused = keys(&session);
    let end = refused.iter().fold(Exit::Done, |end, (_, exit)| end.worse(*exit));
    warnings.extend(refused.into_iter().map(|(warning, _)| warning));
    warnings.extend(jobs(config, cx.clock.now()));
    warnings.extend(files(config));
    warnings.extend(super::places(config));
    warnings.extend(super::cadence(config, cx.clock.now()));
    let listed: Vec<Value> = warnings
        .iter()
        .map(|warning| json!({ "key": warning.key, "text": warning.text, "hint": warning.hint }))
        .collect();
    let value = json!({ "file": config.file, "stack": config.stack, "warnings": listed });
    for warning in &warnings {
        cx.printer.warn(&format!("`{}`: {}", warning.key, warning.text), &warning.hint);
    }
    cx.printer.result("config check", value, || {
        let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        format!(
            "`{}`: stack {}, {}, {}, {}, {}\n",
            config.file.display(),
            config.stack,
            count(config.sources.len(), "source"),
            count(config.vaults.len(), "vault"),
            count(config.jobs.len(), "job"),
            count(warnings.len(), "warning"),
        )
    })?;
    Ok(end)
}

/// The pinned signers and the host key as the verbs find them: what these refuse, and how they end then.
pub(in crate::commands) fn keys(session: &Session<'_>) -> Vec<(ConfigWarning, Exit)> {
    let keys = &session.config.keys;
    let file = if keys.signer_lines.is_empty() { "keys.signers" } else { "keys.signer_lines" };
    let mut refused: Vec<(&str, CliError)> = Vec::new();
    refused.extend(session.signers().err().map(|error| (file, error)));
    // Whoever has the key is looked for among the signers: without any, that is said once.
    let own = keys.host_key.as_ref().and_then(|_| session.host_key().err());
    let own = own.filter(|own| refused.iter().all(|(_, error)| error != own));
    refused.extend(own.map(|error| ("keys.host_key", error)));
    let warning = |(key, error): (&str, CliError)| {
        let text = error.message().strip_prefix(&format!("`{key}`: ")).unwrap_or(error.message()).to_owned();
        let hint = error.advice().unwrap_or_default().to_owned();
        (ConfigWarning { key: key.to_owned(), text, hint }, error.exit())
    };
    refused.into_iter().map(warning).collect()
}

/// Jobs that cannot run on this machine, or never do.
fn jobs(config: &Config, now: DateTime<Utc>) -> Vec<ConfigWarning> {
    let mut look = Look(Vec::new());
    for job in &config.jobs {
        if config.keys.host_key.is_none() {
            look.warn(
                &format!("job.{}", job.name),
                "no `keys.host_key` is configured: this machine runs no job".to_owned(),
                "make one with `backup key new --host FILE` and name it in `keys.host_key`; a machine that only reads needs no job",
            );
        }
        let schedule = job.cron.as_deref().and_then(|cron| Crontab::parse(cron).ok());
        if schedule.is_some_and(|schedule| schedule.next_after(now, job.timezone).is_none()) {
            look.warn(
                &format!("job.{}.cron", job.name),
                "there is no such day: the job is never due".to_owned(),
                "correct the day and the month",
            );
        }
    }
    look.0
}

/// Looks at the files that the configuration names, but for those of [`keys`]; never at their content.
pub(in crate::commands) fn files(config: &Config) -> Vec<ConfigWarning> {
    let mut look = Look(Vec::new());
    look.secret("keys.identity", config.keys.identity.as_ref());
    if let State::Postgres { password, .. } = &config.state {
        look.secret("state.password", password.as_ref());
    }
    for vault in &config.vaults {
        let Place::S3(s3) = &vault.place else { continue };
        if let Some(path) = &s3.ca {
            look.public(&format!("vault.{}.s3.ca", vault.name), path);
        }
        let key = format!("vault.{}.credentials", vault.name);
        match &s3.credentials {
            Credentials::Secret(reference) => look.secret(&key, Some(reference)),
            Credentials::EnvPrefix(prefix) => {
                if let Err(error) = session::environment_credentials(prefix) {
                    look.warn(&key, error.message().to_owned(), error.advice().unwrap_or_default());
                }
            }
            Credentials::AwsChain => {}
        }
    }
    for source in &config.sources {
        let key = |part: &str| format!("source.{}.{part}", source.name);
        match &source.kind {
            SourceKind::Postgres(postgres) => {
                look.secret(&key("password"), postgres.password.as_ref());
                if let Clients::Dir(dir) = &postgres.clients {
                    look.public(&key("clients.dir"), dir);
                }
            }
            SourceKind::Redis(redis) => look.secret(&key("password"), redis.password.as_ref()),
            SourceKind::Dvc(dvc) => look.public(&key("repo"), &dvc.repo),
            SourceKind::Files(files) => {
                for path in files.paths.iter().filter(|path| !files.optional.contains(path)) {
                    look.public(&key("paths"), path);
                }
            }
            SourceKind::Command(_) => {}
        }
    }
    look.0
}

struct Look(Vec<ConfigWarning>);

impl Look {
    fn warn(&mut self, key: &str, text: String, hint: &str) {
        self.0.push(ConfigWarning { key: key.to_owned(), text, hint: hint.to_owned() });
    }

    /// A file that must be there.
    fn public(&mut self, key: &str, path: &Path) {
        self.look(key, path);
    }

    fn look(&mut self, key: &str, path: &Path) -> Option<fs::Metadata> {
        match fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(error) => {
                self.warn(key, format!("cannot look at `{}`: {error}", path.display()), "make it, or correct the path");
                None
            }
        }
    }

    /// A file that must be there, for its owner only.
    fn private(&mut self, key: &str, path: &Path) {
        let exposed = self.look(key, path).and_then(|metadata| secrets::exposed(path, &metadata));
        if let Some(error) = exposed {
            self.warn(key, error.message().to_owned(), error.advice().unwrap_or_default());
        }
    }

    /// A secret, if it is in a file or in the environment. Programs are asked when the secret is needed.
    fn secret(&mut self, key: &str, reference: Option<&SecretRef>) {
        match reference {
            Some(SecretRef::File(path)) => self.private(key, path),
            Some(SecretRef::Env(name)) if std::env::var_os(name).is_none() => self.warn(
                key,
                format!("the environment variable `{name}` is not set here"),
                &format!("set `{name}` in the environment that starts this program, also in cron's"),
            ),
            Some(SecretRef::Env(_) | SecretRef::Command(_)) | None => {}
        }
    }
}
