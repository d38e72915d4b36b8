//! `backup config check`.

use std::fs;
use std::path::Path;

use backup_core::config::{Clients, Config, ConfigWarning, Credentials, Place, SecretRef, SourceKind, State};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::secrets;

/// Read the configuration and the files that it names, and say what is wrong or unwise
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Prints what was found. Warnings do not change the exit code: `doctor` asks the servers and judges. A host key that others can
/// read does: every verb that signs refuses it, with the same exit code.
pub(crate) fn run(cx: &Context, _args: &Args) -> Result<Exit, CliError> {
    let config = cx.config()?;
    config.refuse_revoked()?;
    let mut warnings = config.warnings.clone();
    warnings.extend(files(&config));
    warnings.extend(super::cadence(&config, cx.clock.now()));
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
    Ok(if config.keys.host_key.as_deref().is_some_and(is_exposed) { Exit::WrongKey } else { Exit::Done })
}

fn is_exposed(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| secrets::exposed(path, &metadata).is_some())
}

/// Looks at the files that the configuration names; never at their content.
pub(in crate::commands) fn files(config: &Config) -> Vec<ConfigWarning> {
    let mut look = Look(Vec::new());
    if config.keys.signer_lines.is_empty() {
        look.public("keys.signers", &config.keys.signers);
    }
    if let Some(path) = &config.keys.host_key {
        look.private("keys.host_key", path);
    }
    look.secret("keys.identity", config.keys.identity.as_ref());
    if let State::Postgres { password, .. } = &config.state {
        look.secret("state.password", password.as_ref());
    }
    for vault in &config.vaults {
        let Place::S3(s3) = &vault.place else { continue };
        if let Some(path) = &s3.ca {
            look.public(&format!("vault.{}.s3.ca", vault.name), path);
        }
        if let Credentials::Secret(reference) = &s3.credentials {
            look.secret(&format!("vault.{}.credentials", vault.name), Some(reference));
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

    /// A secret, if it is in a file. Environment and programs are asked when the secret is needed.
    fn secret(&mut self, key: &str, reference: Option<&SecretRef>) {
        if let Some(SecretRef::File(path)) = reference {
            self.private(key, path);
        }
    }
}
