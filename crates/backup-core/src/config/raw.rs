//! The file as serde reads it: texts as written, with their places, nothing filled in, nothing joined.
//!
//! All kinds of sources share one struct here (serde loses places inside tagged enums); `check.rs` has already refused
//! keys that do not belong to the source's kind.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;
use toml::value::Datetime;

pub(super) type Text = Spanned<String>;
/// Named tables; keys carry their place, by which the file's order is found again.
pub(super) type Named<T> = BTreeMap<Text, T>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Root {
    pub(super) schema: Spanned<i64>,
    pub(super) stack: Text,
    pub(super) timezone: Option<Text>,
    pub(super) generation: Option<Text>,
    pub(super) state: Option<Spanned<StateValue>>,
    #[serde(default)]
    pub(super) limits: Limits,
    pub(super) keys: Keys,
    #[serde(default)]
    pub(super) vault: Named<Vault>,
    #[serde(default)]
    pub(super) source: Named<Source>,
    #[serde(default)]
    pub(super) service: Named<Service>,
    #[serde(default)]
    pub(super) job: Named<Job>,
    #[serde(default)]
    pub(super) notify: Named<Notify>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum StateValue {
    Folder(String),
    Server(StateServer),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StateServer {
    pub(super) postgres: String,
    pub(super) password: Option<Secret>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) memory: Option<Text>,
    pub(super) upload: Option<Text>,
    pub(super) reserve: Option<Text>,
    pub(super) patience: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    pub(super) recipients: Spanned<Vec<Text>>,
    pub(super) revoked: Option<Spanned<Vec<Text>>>,
    pub(super) signers: Option<Text>,
    #[serde(default)]
    pub(super) signer_lines: Vec<Text>,
    pub(super) host_key: Option<Text>,
    pub(super) identity: Option<Spanned<Secret>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secret {
    pub(super) file: Option<String>,
    pub(super) env: Option<String>,
    pub(super) command: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum CredentialsValue {
    Word(String),
    Secret(Secret),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vault {
    pub(super) id: Option<Text>,
    pub(super) path: Option<Text>,
    pub(super) s3: Option<Spanned<S3>>,
    pub(super) credentials: Option<Spanned<CredentialsValue>>,
    pub(super) keep: Option<Spanned<Keep>>,
    pub(super) lock: Option<Text>,
    pub(super) protects: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct S3 {
    pub(super) endpoint: Option<Text>,
    pub(super) bucket: Text,
    pub(super) prefix: Option<Text>,
    pub(super) region: Option<Text>,
    pub(super) path_style: Option<bool>,
    pub(super) ca: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keep {
    pub(super) within: Option<Text>,
    pub(super) weekly: Option<Spanned<i64>>,
    pub(super) monthly: Option<Spanned<i64>>,
    pub(super) yearly: Option<Spanned<i64>>,
    pub(super) min: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    pub(super) r#type: Text,
    pub(super) generation: Option<Text>,
    pub(super) objective: Option<Objective>,
    pub(super) url: Option<Text>,
    pub(super) password: Option<Spanned<Secret>>,
    pub(super) clients: Option<Spanned<Clients>>,
    pub(super) globals: Option<Text>,
    #[serde(default)]
    pub(super) exclude_data: Vec<Text>,
    #[serde(default)]
    pub(super) expect_drops: Vec<Text>,
    #[serde(default)]
    pub(super) expect: Vec<Expect>,
    pub(super) paths: Option<Spanned<Vec<Text>>>,
    #[serde(default)]
    pub(super) optional: Vec<Text>,
    pub(super) secret: Option<bool>,
    pub(super) repo: Option<Text>,
    pub(super) model_card: Option<ModelCard>,
    pub(super) push: Option<bool>,
    pub(super) command: Option<Spanned<Vec<String>>>,
    pub(super) minimum: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Clients {
    pub(super) dir: Option<Text>,
    pub(super) wrap: Option<Spanned<Vec<String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    pub(super) name: Text,
    pub(super) sql: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelCard {
    pub(super) file: Text,
    pub(super) pointer: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Objective {
    pub(super) rpo: Text,
    pub(super) rto: Text,
    pub(super) waiver: Option<Waiver>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Waiver {
    pub(super) until: Spanned<Datetime>,
    pub(super) reason: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    pub(super) needs: Vec<Text>,
    pub(super) objective: Option<Objective>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    pub(super) cron: Option<Text>,
    pub(super) timezone: Option<Text>,
    pub(super) sources: Option<Spanned<Vec<Text>>>,
    pub(super) vaults: Option<Spanned<Vec<Text>>>,
    pub(super) deadline: Option<Text>,
    pub(super) catch_up: Option<Text>,
    #[serde(default)]
    pub(super) retry: Retry,
    #[serde(default)]
    pub(super) then: Vec<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    pub(super) times: Option<Spanned<i64>>,
    pub(super) backoff: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Notify {
    pub(super) smtp: Smtp,
    pub(super) on: Spanned<Vec<Text>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Smtp {
    pub(super) host: Text,
    pub(super) to: Text,
}
