//! The configuration file: one stack, read once, resolved once.
//!
//! Three steps, each of which can only refuse: `check` compares the parsed file with the schema (unknown keys, wrong
//! types), `raw` lets serde fill plain structs, `resolve` fills in defaults, joins paths and checks every value. What
//! comes out, [`Config`], needs no further checking and is never changed.
//!
//! It is pure: it takes a text and the path that it was read from, and reads neither files nor the environment. It
//! holds no secrets, only references to them ([`SecretRef`]); a literal secret is refused without being echoed, so
//! `Debug`, errors and `show` cannot leak one.

mod check;
mod cron;
mod error;
mod raw;
mod recipient;
mod resolve;
mod schema;
mod show;
mod size;
mod span;
mod step;
#[cfg(test)]
mod tests;
mod types;

use std::path::{Path, PathBuf};

use chrono_tz::Tz;
use toml::de::DeTable;

pub use error::{ConfigError, ConfigWarning, Problem};
pub use recipient::{Recipient, check_recipient, parse_recipient};
pub use schema::{SchemaKey, schema, schema_json};
pub use show::{View, audit_variables};
pub use size::{ByteSize, Rate, Reserve, SizeError};
pub use span::{Span, SpanError};
pub use step::{Share, Step, StepError};
pub use types::{
    Clients, CommandSource, Credentials, DvcSource, Expect, FilesSource, Globals, Job, Keep, Keys, Limits, Lock,
    ModelCard, Notify, Objective, Place, PostgresSource, Protects, RedisSource, Retry, S3, SecretRef, Service, Smtp,
    Source, SourceKind, State, TableName, TablePattern, Vault, Waiver,
};

use crate::id::StackName;

/// Version of the schema that this program reads.
const SCHEMA_VERSION: i64 = 1;

/// A resolved configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it was read from.
    pub file: PathBuf,
    /// Name of the stack.
    pub stack: StackName,
    /// Time zone for schedules without one, for reading `--at`, and for display.
    pub timezone: Tz,
    /// Length of a generation where a source sets none.
    pub generation: Span,
    /// Where the history of runs is kept.
    pub state: State,
    /// Limits of this machine.
    pub limits: Limits,
    /// Who can read, who signs, who is believed.
    pub keys: Keys,
    /// Vaults, in the order of the file.
    pub vaults: Vec<Vault>,
    /// Sources, in the order of the file.
    pub sources: Vec<Source>,
    /// Services, in the order of the file.
    pub services: Vec<Service>,
    /// Jobs, in the order of the file.
    pub jobs: Vec<Job>,
    /// Whom to tell, in the order of the file.
    pub notify: Vec<Notify>,
    /// What is allowed and unwise.
    pub warnings: Vec<ConfigWarning>,
}

impl Config {
    /// Reads a configuration from its text. `file` is where the text came from: named in errors, and its folder is
    /// where relative paths start (give an absolute path, or the resolved paths are relative to the working folder).
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let fail = |span: Option<std::ops::Range<usize>>, problem, hint| {
            let line = span.map(|span| line_of(text, span.start));
            ConfigError { file: file.to_owned(), line, problem, hint }
        };
        // `message` and never the error's own display: that quotes the line, and the line may hold a password.
        let syntax = |error: toml::de::Error| {
            let message = error.message().lines().next().unwrap_or_default().to_owned();
            fail(error.span(), Problem::Syntax { message }, None)
        };
        let table = DeTable::parse(text).map_err(syntax)?;
        let found = |finding: check::Finding| {
            // The root's own span is the whole text: a table that is missing has no line.
            let span = (finding.span != table.span()).then_some(finding.span);
            fail(span, finding.problem, finding.hint)
        };
        check::check(&table).map_err(found)?;
        // After the check serde finds nothing more to refuse but numbers that do not fit; its words may quote values.
        let raw: raw::Root = toml::from_str(text).map_err(|error| {
            let message = "a value has an unexpected form".to_owned();
            fail(error.span(), Problem::Syntax { message }, None)
        })?;
        resolve::resolve(raw, file, SCHEMA_VERSION).map_err(found)
    }

    /// Refuses to encrypt to a recipient that is revoked. Not part of reading the file: what only reads a vault must go
    /// on with a configuration that says both.
    pub fn refuse_revoked(&self) -> Result<(), ConfigError> {
        let revoked = |recipient: &String| self.keys.revoked.contains(recipient);
        let Some(at) = self.keys.recipients.iter().position(revoked) else { return Ok(()) };
        Err(ConfigError {
            file: self.file.clone(),
            line: None,
            problem: Problem::Value {
                key: "keys.recipients".to_owned(),
                why: format!("number {} is revoked by `keys.revoked`", at + 1),
            },
            hint: Some("take it out of `keys.recipients`; the next run opens new generations without it".to_owned()),
        })
    }

    /// The vault of this name.
    pub fn vault(&self, name: &str) -> Option<&Vault> {
        self.vaults.iter().find(|vault| vault.name == name)
    }

    /// The source of this name.
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.name.as_str() == name)
    }

    /// The job of this name.
    pub fn job(&self, name: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.name == name)
    }
}

/// Line of a byte offset, counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}
