//! A resolved configuration as TOML and JSON, in a stable order.
//!
//! The full view is a configuration that reads back to the same [`Config`], but for one thing: of a program's arguments
//! only the program's name is shown, because arguments are where people put secrets. The public view is an auditor's
//! policy file: what was promised and where the vaults are. It reads back as well; of the host, its sources and its secrets
//! there are only names in it, and words that lead nowhere where a configuration must say something.

use serde_json::{Map, Value, json};

use super::types::{
    Clients, Credentials, Globals, Job, Keep, Lock, Notify, Objective, Place, Protects, S3, SecretRef, Service, Source,
    SourceKind, State, TableName, TablePattern, Vault,
};
use super::{Config, SCHEMA_VERSION, Span};

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Everything but secrets.
    Full,
    /// The policy only, as a configuration of its own: no paths of this host but those of directory vaults, no addresses of
    /// sources, no users, no references to credentials.
    Public,
}

/// A value with its order.
enum Node {
    Text(String),
    Integer(i64),
    Boolean(bool),
    /// A TOML local date.
    Date(String),
    List(Vec<Node>),
    Table(Fields),
    /// Tables by name: `[key.name]` in TOML, an array of objects with `name` in JSON (whose objects have no order).
    Named(Vec<(String, Fields)>),
}

type Fields = Vec<(&'static str, Node)>;

impl Config {
    /// The configuration as JSON.
    pub fn show_json(&self, view: View) -> Value {
        object(&self.nodes(view))
    }

    /// The configuration as TOML.
    pub fn show_toml(&self, view: View) -> String {
        let (mut head, mut tables) = (String::new(), String::new());
        for (key, node) in self.nodes(view) {
            match node {
                Node::Table(fields) => tables.push_str(&section(key, &fields)),
                Node::Named(entries) => {
                    for (name, fields) in entries {
                        tables.push_str(&section(&format!("{key}.{name}"), &fields));
                    }
                }
                value => head.extend([key, " = ", &inline(&value), "\n"]),
            }
        }
        head + &tables
    }

    /// The longest time that prune may leave a snapshot of `vault` after it was taken, while backups go on:
    /// window + period + deadline + grace. `None`: nothing expires.
    pub fn kept_at_most(&self, vault: &Vault) -> Option<Span> {
        let window = self.window(vault)?.as_seconds();
        let period = self.longest_period().as_seconds();
        // The deadline is one period after the generation's end, closed a day later; prune waits 24 hours more.
        Some(Span::seconds(window + period + period + Span::days(2).as_seconds()))
    }

    /// The longest that `vault` promises anything: its window, or a longer tier. `None`: for ever.
    pub fn window(&self, vault: &Vault) -> Option<Span> {
        let keep = vault.keep?;
        let within = keep.within.map_or(0, Span::as_seconds);
        let tiers = [(keep.weekly, 7), (keep.monthly, 31), (keep.yearly, 366)];
        let window =
            tiers.iter().map(|(count, days)| Span::days(u64::from(*count) * days).as_seconds()).fold(within, u64::max);
        Some(Span::seconds(window))
    }

    /// The longest period of a source's generations.
    pub fn longest_period(&self) -> Span {
        self.sources.iter().map(|source| source.generation).max().unwrap_or(self.generation)
    }

    fn nodes(&self, view: View) -> Fields {
        let full = view == View::Full;
        let mut all: Fields = vec![
            ("schema", Node::Integer(SCHEMA_VERSION)),
            ("stack", text(&self.stack)),
            ("timezone", text(self.timezone.name())),
            ("generation", text(self.generation)),
        ];
        let mut keys: Fields = vec![("recipients", texts(&self.keys.recipients))];
        if !self.keys.revoked.is_empty() {
            keys.push(("revoked", texts(&self.keys.revoked)));
        }
        if full {
            all.push(("state", state(&self.state)));
            let limits = &self.limits;
            let mut fields: Fields = vec![("memory", text(limits.memory))];
            fields.extend(limits.upload.map(|rate| ("upload", text(rate))));
            fields.push(("reserve", text(limits.reserve)));
            fields.push(("patience", text(limits.patience)));
            all.push(("limits", Node::Table(fields)));
            if self.keys.signer_lines.is_empty() {
                keys.push(("signers", text(self.keys.signers.display())));
            }
            keys.extend(self.keys.host_key.as_ref().map(|path| ("host_key", text(path.display()))));
            keys.extend(self.keys.identity.as_ref().map(|reference| ("identity", secret(reference))));
        }
        if !self.keys.signer_lines.is_empty() {
            keys.push(("signer_lines", texts(&self.keys.signer_lines)));
        }
        all.push(("keys", Node::Table(keys)));
        let vaults = self.vaults.iter().map(|one| (one.name.clone(), vault(one, view))).collect();
        all.push(("vault", Node::Named(vaults)));
        let sources = self.sources.iter().map(|one| (one.name.to_string(), source(one, view))).collect();
        all.push(("source", Node::Named(sources)));
        let services = self.services.iter().map(|one| (one.name.clone(), service(one))).collect();
        all.push(("service", Node::Named(services)));
        all.push(("job", Node::Named(self.jobs.iter().map(|one| (one.name.clone(), job(one, view))).collect())));
        if full {
            all.push(("notify", Node::Named(self.notify.iter().map(|one| (one.name.clone(), notify(one))).collect())));
        }
        all
    }
}

fn text(value: impl std::fmt::Display) -> Node {
    Node::Text(value.to_string())
}

fn texts<T: std::fmt::Display>(values: &[T]) -> Node {
    Node::List(values.iter().map(text).collect())
}

fn state(state: &State) -> Node {
    match state {
        State::Folder(folder) => text(folder.display()),
        State::Postgres { url, password } => {
            // A table below the root's plain keys: written inline, or it would swallow the keys that follow.
            let mut fields: Fields = vec![("postgres", text(url))];
            fields.extend(password.as_ref().map(|reference| ("password", secret(reference))));
            Node::Table(fields)
        }
    }
}

fn secret(reference: &SecretRef) -> Node {
    Node::Table(vec![match reference {
        SecretRef::File(path) => ("file", text(path.display())),
        SecretRef::Env(name) => ("env", text(name)),
        SecretRef::Command(command) => ("command", program(command)),
    }])
}

/// The program's name, and a mark where arguments were left out.
fn program(command: &[String]) -> Node {
    let mut shown: Vec<&str> = command.iter().take(1).map(String::as_str).collect();
    if command.len() > 1 {
        shown.push("…");
    }
    texts(&shown)
}

fn vault(vault: &Vault, view: View) -> Fields {
    let mut fields: Fields = Vec::new();
    fields.extend(vault.id.as_ref().map(|id| ("id", text(id))));
    match &vault.place {
        Place::Path(path) => fields.push(("path", text(path.display()))),
        Place::S3(s3) => fields.extend(self::s3(s3, &vault.name, view)),
    }
    fields.extend(vault.keep.map(|keep| ("keep", self::keep(keep))));
    let lock = match vault.lock {
        Lock::None => "none",
        Lock::Governance => "governance",
        Lock::Compliance => "compliance",
    };
    let protects = match vault.protects {
        Protects::None => "none",
        Protects::Versioning => "versioning",
        Protects::ConditionalPut => "conditional-put",
        Protects::Pulled => "pulled",
    };
    fields.extend([("lock", text(lock)), ("protects", text(protects))]);
    fields
}

/// The prefix of the environment variables with which an auditor's policy file expects the credentials for a vault.
pub fn audit_variables(vault: &str) -> String {
    format!("AUDIT_{}_", vault.to_ascii_uppercase().replace('-', "_"))
}

fn s3(s3: &S3, vault: &str, view: View) -> Fields {
    let mut fields: Fields = Vec::new();
    fields.extend(s3.endpoint.as_ref().map(|endpoint| ("endpoint", text(endpoint))));
    fields.extend([
        ("bucket", text(&s3.bucket)),
        ("prefix", text(&s3.prefix)),
        ("region", text(&s3.region)),
        ("path_style", Node::Boolean(s3.path_style)),
    ]);
    // The authority's certificate is no secret, its place on this host is nobody's business: it goes with the policy file.
    fields.extend(s3.ca.as_ref().map(|path| match view {
        View::Full => ("ca", text(path.display())),
        View::Public => ("ca", text(format!("{vault}-ca.pem"))),
    }));
    let credentials = match &s3.credentials {
        _ if view == View::Public => Node::Table(vec![("env", text(audit_variables(vault)))]),
        Credentials::AwsChain => text("aws-chain"),
        Credentials::EnvPrefix(prefix) => Node::Table(vec![("env", text(prefix))]),
        Credentials::Secret(reference) => secret(reference),
    };
    vec![("s3", Node::Table(fields)), ("credentials", credentials)]
}

fn keep(keep: Keep) -> Node {
    let mut fields: Fields = Vec::new();
    fields.extend(keep.within.map(|span| ("within", text(span))));
    for (name, count) in [("weekly", keep.weekly), ("monthly", keep.monthly), ("yearly", keep.yearly)] {
        if count > 0 {
            fields.push((name, Node::Integer(count.into())));
        }
    }
    fields.push(("min", Node::Integer(keep.min.into())));
    Node::Table(fields)
}

fn source(source: &Source, view: View) -> Fields {
    let mut fields: Fields = vec![("type", text(source.kind.word()))];
    match view {
        View::Full => fields.extend(kind(&source.kind)),
        View::Public => fields.push(not_shown(&source.kind)),
    }
    fields.push(("generation", text(source.generation)));
    fields.extend(source.objective.as_ref().map(|one| ("objective", objective(one))));
    fields
}

/// What a source of that kind must have to be read back, without saying where it is.
fn not_shown(kind: &SourceKind) -> (&'static str, Node) {
    const NOWHERE: &str = "not-shown";
    match kind {
        SourceKind::Postgres(_) => ("url", text("postgres://not-shown.invalid/not-shown")),
        SourceKind::Files(_) => ("paths", texts(&[NOWHERE])),
        SourceKind::Dvc(_) => ("repo", text(NOWHERE)),
        SourceKind::Redis(_) => ("url", text("redis://not-shown.invalid")),
        SourceKind::Command(_) => ("command", texts(&[NOWHERE])),
    }
}

fn kind(kind: &SourceKind) -> Fields {
    let mut fields: Fields = Vec::new();
    match kind {
        SourceKind::Postgres(postgres) => {
            fields.push(("url", text(&postgres.url)));
            fields.extend(postgres.password.as_ref().map(|reference| ("password", secret(reference))));
            match &postgres.clients {
                Clients::Auto => {}
                Clients::Dir(dir) => fields.push(("clients", Node::Table(vec![("dir", text(dir.display()))]))),
                Clients::Wrap(wrap) => fields.push(("clients", Node::Table(vec![("wrap", texts(wrap))]))),
            }
            let globals = match postgres.globals {
                Globals::Passwords => "passwords",
                Globals::NoPasswords => "no-passwords",
                Globals::None => "none",
            };
            fields.push(("globals", text(globals)));
            fields.push(("exclude_data", texts(&postgres.exclude_data)));
            fields.push(("expect_drops", texts(&postgres.expect_drops)));
            let expect = postgres.expect.iter();
            let expect = expect.map(|one| Node::Table(vec![("name", text(&one.name)), ("sql", text(&one.sql))]));
            fields.push(("expect", Node::List(expect.collect())));
        }
        SourceKind::Files(files) => {
            let shown =
                |paths: &[std::path::PathBuf]| Node::List(paths.iter().map(|path| text(path.display())).collect());
            fields.push(("paths", shown(&files.paths)));
            fields.push(("optional", shown(&files.optional)));
            fields.push(("secret", Node::Boolean(files.secret)));
        }
        SourceKind::Dvc(dvc) => {
            fields.push(("repo", text(dvc.repo.display())));
            fields.extend(dvc.model_card.as_ref().map(|card| {
                ("model_card", Node::Table(vec![("file", text(&card.file)), ("pointer", text(&card.pointer))]))
            }));
            fields.push(("push", Node::Boolean(dvc.push)));
        }
        SourceKind::Redis(redis) => {
            fields.push(("url", text(&redis.url)));
            fields.extend(redis.password.as_ref().map(|reference| ("password", secret(reference))));
        }
        SourceKind::Command(command) => {
            fields.push(("command", program(&command.command)));
            fields.push(("minimum", text(command.minimum)));
        }
    }
    fields
}

impl std::fmt::Display for TableName {
    /// Writes the name as the configuration reads it: a part that would be misread stands in double quotes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = |part: &str| name_part(part, &['.', '"', '*', '?', '[', ']']);
        write!(f, "{}.{}", part(&self.schema), part(&self.table))
    }
}

impl std::fmt::Display for TablePattern {
    /// The same; a `*` is itself, in quotes or not.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = |part: &str| name_part(part, &['.', '"', '?', '[', ']']);
        write!(f, "{}.{}", part(&self.schema), part(&self.table))
    }
}

fn name_part(part: &str, quoted: &[char]) -> String {
    let plain = !part.contains(quoted) && part.trim() == part;
    if plain { part.to_owned() } else { format!("\"{}\"", part.replace('"', "\"\"")) }
}

fn objective(objective: &Objective) -> Node {
    let mut fields: Fields = vec![("rpo", text(objective.rpo)), ("rto", text(objective.rto))];
    fields.extend(objective.waiver.as_ref().map(|waiver| {
        let until = Node::Date(waiver.until.to_string());
        ("waiver", Node::Table(vec![("until", until), ("reason", text(&waiver.reason))]))
    }));
    Node::Table(fields)
}

fn service(service: &Service) -> Fields {
    let mut fields: Fields = vec![("needs", texts(&service.needs))];
    fields.extend(service.objective.as_ref().map(|one| ("objective", objective(one))));
    fields
}

fn job(job: &Job, view: View) -> Fields {
    let mut fields: Fields = Vec::new();
    fields.extend(job.cron.as_ref().map(|cron| ("cron", text(cron))));
    fields.extend([
        ("timezone", text(job.timezone.name())),
        ("sources", texts(&job.sources)),
        ("vaults", texts(&job.vaults)),
    ]);
    fields.extend(job.deadline.map(|span| ("deadline", text(span))));
    fields.extend(job.catch_up.map(|span| ("catch_up", text(span))));
    if view == View::Full {
        let retry = vec![("times", Node::Integer(job.retry.times.into())), ("backoff", text(job.retry.backoff))];
        fields.push(("retry", Node::Table(retry)));
    }
    fields.push(("then", texts(&job.then)));
    fields
}

fn notify(notify: &Notify) -> Fields {
    let smtp = vec![("host", text(&notify.smtp.host)), ("to", text(&notify.smtp.to))];
    vec![("smtp", Node::Table(smtp)), ("on", texts(&notify.on))]
}

/// `[name]` with its keys.
fn section(name: &str, fields: &Fields) -> String {
    let lines: Vec<String> = fields.iter().map(|(key, node)| format!("{key} = {}\n", inline(node))).collect();
    format!("\n[{name}]\n{}", lines.concat())
}

/// A value on one line of TOML.
fn inline(node: &Node) -> String {
    match node {
        Node::Text(text) => toml::Value::String(text.clone()).to_string(),
        Node::Integer(number) => number.to_string(),
        Node::Boolean(truth) => truth.to_string(),
        Node::Date(date) => date.clone(),
        Node::List(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Node::Table(fields) => inline_fields(fields),
        Node::Named(entries) => {
            let inner: Vec<String> =
                entries.iter().map(|(name, fields)| format!("{name} = {}", inline_fields(fields))).collect();
            format!("{{ {} }}", inner.join(", "))
        }
    }
}

fn inline_fields(fields: &Fields) -> String {
    let inner: Vec<String> = fields.iter().map(|(key, node)| format!("{key} = {}", inline(node))).collect();
    format!("{{ {} }}", inner.join(", "))
}

fn object(fields: &Fields) -> Value {
    Value::Object(fields.iter().map(|(key, node)| ((*key).to_owned(), to_json(node))).collect::<Map<_, _>>())
}

fn to_json(node: &Node) -> Value {
    match node {
        Node::Text(text) | Node::Date(text) => json!(text),
        Node::Integer(number) => json!(number),
        Node::Boolean(truth) => json!(truth),
        Node::List(items) => items.iter().map(to_json).collect(),
        Node::Table(fields) => object(fields),
        Node::Named(entries) => entries
            .iter()
            .map(|(name, fields)| {
                let mut value = object(fields);
                value["name"] = json!(name);
                value
            })
            .collect(),
    }
}
