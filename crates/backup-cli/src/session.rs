//! From the configuration to the engine's values: vaults, keys, state, sources. The edge, where files and the environment
//! are read; everything that a verb hands to the engine comes from here.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backup_core::config::{self, Config, Credentials, Place, SecretRef, SourceKind, State as StatePlace};
use backup_core::id::{SourceName, StackName, VaultId};
use backup_core::monitor::{Event, Monitor};
use backup_core::seal::key::{Identities, IdentityError};
use backup_core::secret::Secret;
use backup_core::signature::{HostKey, Signers};
use backup_core::source::Source;
use backup_core::source::files::FilesOptions;
use backup_core::source::postgres::{ClientsOption, ConnectOptions, Globals, PostgresOptions};
use backup_core::state::{State, StateError};
use backup_core::vault::local::{LocalOptions, LocalStore};
use backup_core::vault::retry::RetryPolicy;
use backup_core::vault::s3::{S3Credentials, S3Options, S3Store, parse_credentials};
use backup_core::vault::store::{Store, StoreError, StorePath};
use backup_core::vault::throttle::Throttled;
use backup_core::vault::{Vault, VaultError};
use zeroize::Zeroizing;

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::{locks, secrets, terminal};

/// Name and version of this program, as it stands in documents.
pub(crate) const TOOL: &str = concat!("backup ", env!("CARGO_PKG_VERSION"));

/// A configuration with everything at hand to act on it.
pub(crate) struct Session<'a> {
    /// Context of the process.
    pub(crate) cx: &'a Context,
    /// The configuration.
    pub(crate) config: Config,
    /// Told by the engine.
    pub(crate) monitor: Arc<dyn Monitor>,
}

/// Hands the engine's events to the printer.
struct Talk(Arc<Printer>);

impl Monitor for Talk {
    fn event(&self, event: Event) {
        match event {
            Event::Warning { text } => self.0.warn(&text, ""),
            Event::Retry { what, why, attempt } => self.0.detail(&format!("{what}: attempt {attempt} failed: {why}")),
            Event::Phase { source, phase } => self.0.detail(&format!("{source}: {phase}")),
            Event::CaptureStarted { source } => self.0.detail(&format!("{source}: capture")),
            Event::Note { text } => self.0.detail(&text),
            _ => {}
        }
    }
}

/// The monitor for this process.
pub(crate) fn monitor(cx: &Context) -> Arc<dyn Monitor> {
    Arc::new(Talk(cx.printer.clone()))
}

impl<'a> Session<'a> {
    /// With the configuration that the context finds.
    pub(crate) fn open(cx: &'a Context) -> Result<Self, CliError> {
        Ok(Self { cx, config: cx.config()?, monitor: monitor(cx) })
    }

    /// The stack.
    pub(crate) fn stack(&self) -> &StackName {
        &self.config.stack
    }

    /// The signers that are believed.
    pub(crate) fn signers(&self) -> Result<Signers, CliError> {
        let lines = &self.config.keys.signer_lines;
        if !lines.is_empty() {
            let hint = "write each as `backup namespaces=\"backup.*\" ssh-ed25519 …`";
            let signers = Signers::parse(&lines.join("\n"))
                .map_err(|error| CliError::caused(Exit::WrongKey, "`keys.signer_lines`", &error).hint(hint))?;
            if signers.is_empty() {
                return Err(CliError::new(Exit::WrongKey, "`keys.signer_lines` pins nobody").hint(hint));
            }
            return Ok(signers);
        }
        let path = &self.config.keys.signers;
        let text = std::fs::read_to_string(path).map_err(|error| {
            CliError::caused(Exit::WrongKey, format!("cannot read the signers `{}`", path.display()), &error).hint(
                match &self.config.keys.host_key {
                    Some(key) if key.exists() => "put the host key's line there: `backup key list` prints it",
                    Some(_) => {
                        "make a host key with `backup key new --host FILE`, and put the line that it prints there"
                    }
                    None => {
                        "put the lines of the hosts there that make the backups: `backup key list` prints them there"
                    }
                },
            )
        })?;
        let signers = Signers::parse(&text).map_err(|error| {
            CliError::caused(Exit::WrongKey, format!("`{}`", path.display()), &error)
                .hint("each line is `backup namespaces=\"backup.*\" ssh-ed25519 …`")
        })?;
        if signers.is_empty() {
            return Err(CliError::new(Exit::WrongKey, format!("`{}` pins nobody", path.display()))
                .hint("put the host key's line there: `backup key list` prints it"));
        }
        Ok(signers)
    }

    /// The key that signs, which must be among the pinned signers.
    pub(crate) fn host_key(&self) -> Result<HostKey, CliError> {
        let Some(path) = &self.config.keys.host_key else {
            return Err(CliError::new(
                Exit::WrongKey,
                "`keys.host_key` is not configured: this machine makes no backups",
            )
            .hint("make one with `backup key new --host FILE` and name it in `keys.host_key`"));
        };
        if let Some(private) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".pub")) {
            let message = format!("`keys.host_key`: `{}` is the public half of a key", path.display());
            let hint = format!("name the other half, which signs: `{}`", path.with_file_name(private).display());
            return Err(CliError::new(Exit::WrongKey, message).hint(hint));
        }
        let bytes = secrets::read_private(path).map_err(|error| {
            // Of a key that is there, the reason for refusing it says what to do.
            let own = error.advice().filter(|_| path.exists());
            CliError::new(Exit::WrongKey, format!("`keys.host_key`: {}", error.message()))
                .hint(own.unwrap_or("make one with `backup key new --host FILE`, or check the path"))
        })?;
        let text = String::from_utf8_lossy(&bytes);
        let key = HostKey::from_openssh(&text).map_err(|error| {
            CliError::caused(Exit::WrongKey, format!("`{}`", path.display()), &error)
                .hint("make one with `backup key new --host FILE`")
        })?;
        let signers = self.signers()?;
        if let Some(why) = signers.ended(&key.fingerprint(), self.cx.clock.now()) {
            let message = format!("the host key {} would not be believed: {why}", key.fingerprint());
            return Err(CliError::new(Exit::WrongKey, message).hint(format!(
                "name the key that took its place in `keys.host_key`, or make one with `backup key new --host FILE` and put \
                 its line into `{}`",
                self.config.keys.signers.display()
            )));
        }
        if !signers.fingerprints().contains(&key.fingerprint()) {
            let message = format!("the host key {} is not among the pinned signers", key.fingerprint());
            return Err(CliError::new(Exit::WrongKey, message).hint(format!(
                "add this line to `{}`: {}",
                self.config.keys.signers.display(),
                key.allowed_signers_line()
            )));
        }
        Ok(key)
    }

    /// What this host remembers.
    pub(crate) async fn state(&self) -> Result<State, CliError> {
        Ok(State::open(self.state_folder()?, self.stack()).await?)
    }

    /// What this host remembers; a state that is broken is moved aside, which is told, and begun anew.
    pub(crate) async fn state_or_new(&self) -> Result<Result<State, StateError>, CliError> {
        let dir = self.state_folder()?;
        Ok(match State::open_or_renew(dir, self.stack(), self.cx.clock.now()).await {
            Ok((state, None)) => Ok(state),
            Ok((state, Some(aside))) => {
                let text = format!("the state was broken; it is kept as `{}`, and a new one is begun", aside.display());
                let hint = "nothing in the vaults is lost: each source opens a new generation, and uploads everything once; what is \
                            damaged there was forgotten, and nothing is deleted before `backup verify --read-data 1/1` has \
                            looked for it";
                self.cx.printer.warn(&text, hint);
                Ok(state)
            }
            Err(error) => Err(error),
        })
    }

    /// What this host remembers; of a broken state nothing, which is told.
    pub(crate) async fn state_if_whole(&self) -> Result<Option<State>, CliError> {
        match State::open(self.state_folder()?, self.stack()).await {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.is_broken() => {
                let error = CliError::from(error);
                self.cx.printer.warn(error.message(), error.advice().unwrap_or_default());
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The folder of the state, which is made where it is not there.
    fn state_folder(&self) -> Result<&Path, CliError> {
        let dir = self.state_dir()?;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
            CliError::caused(Exit::Failed, format!("cannot make the state folder `{}`", dir.display()), &error)
                .hint("check `state` and the rights of this user")
        })?;
        Ok(dir)
    }

    /// What this host remembers, where it remembers anything: no state is made.
    pub(crate) async fn remembered(&self) -> Option<State> {
        let there = self.state_dir().is_ok_and(|dir| dir.join("state.sqlite").exists());
        if there { self.state().await.ok() } else { None }
    }

    /// The folder of the state.
    pub(crate) fn state_dir(&self) -> Result<&Path, CliError> {
        match &self.config.state {
            StatePlace::Folder(dir) => Ok(dir),
            StatePlace::Postgres { .. } => {
                Err(CliError::usage("a state in PostgreSQL is not supported by this version")
                    .hint("name a folder: `state = \"/var/lib/backup/NAME\"`"))
            }
        }
    }

    /// The store of a configured vault; with `writing`, an endpoint is first asked what it checks.
    pub(crate) async fn store(&self, vault: &config::Vault, writing: bool) -> Result<Arc<dyn Store>, CliError> {
        match &vault.place {
            Place::Path(path) => {
                let mut options = LocalOptions::default();
                if !writing {
                    // Who only reads leaves everything as it is.
                    options.stale_after = Duration::ZERO;
                }
                Ok(Arc::new(LocalStore::open(path, options)?))
            }
            Place::S3(s3) => {
                let store = self.s3(&vault.name, s3).await?;
                let store = store.with_lock(locks::rule(&self.config, vault, &self.cx.clock));
                let store = if writing { store.try_writing().await.map_err(away)? } else { store };
                Ok(match &self.config.limits.upload {
                    Some(rate) => Arc::new(Throttled::new(store, rate.0.0)),
                    None => Arc::new(store),
                })
            }
        }
    }

    /// The S3 store of a vault, not yet talked to.
    pub(crate) async fn s3(&self, name: &str, s3: &config::S3) -> Result<S3Store, CliError> {
        let credentials = credentials(&s3.credentials, &format!("vault.{name}.credentials"))?;
        let endpoint = s3.endpoint.clone().unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", s3.region));
        let mut options = S3Options::new(endpoint, &s3.bucket, &s3.region, credentials);
        options.path_style = s3.path_style;
        options.prefix = prefix(&s3.prefix)?;
        options.retry = RetryPolicy::within(self.config.limits.patience.as_std());
        if let Some(path) = &s3.ca {
            let pem = std::fs::read(path).map_err(|error| {
                CliError::caused(Exit::Usage, format!("`vault.{name}.s3.ca`: cannot read `{}`", path.display()), &error)
                    .hint("name the PEM file of the authority that signed the endpoint's certificate")
            })?;
            options.ca = Some(pem);
        }
        Ok(S3Store::connect(options, self.monitor.clone()).await?)
    }

    /// One configured vault, whose id must be the pinned one.
    pub(crate) async fn vault(&self, vault: &config::Vault, writing: bool) -> Result<Vault, CliError> {
        let id = pinned(vault)?;
        let store = self.store(vault, writing).await?;
        Vault::open(&vault.name, store, Some(id)).await.map_err(|error| not_opened(vault, error))
    }

    /// One configured vault to restore from: what was deleted or written over there is read from older versions.
    pub(crate) async fn vault_for_restore(&self, vault: &config::Vault) -> Result<Vault, CliError> {
        let id = pinned(vault)?;
        let store = self.store(vault, false).await?;
        Vault::open_for_restore(&vault.name, store, Some(id)).await.map_err(|error| not_opened(vault, error))
    }

    /// Refuses the name of a vault that is not configured.
    pub(crate) fn check_vault(&self, name: Option<&str>) -> Result<(), CliError> {
        let Some(name) = name.filter(|name| self.config.vault(name).is_none()) else { return Ok(()) };
        let known: Vec<String> = self.config.vaults.iter().map(|vault| format!("`{}`", vault.name)).collect();
        Err(CliError::usage(format!("there is no vault `{name}` in the configuration"))
            .hint(format!("choose one of {}", known.join(", "))))
    }

    /// All configured vaults (or the one named), those that answer and those that do not.
    pub(crate) async fn vaults(
        &self,
        only: Option<&str>,
        writing: bool,
    ) -> Result<(Vec<Vault>, Vec<(String, CliError)>), CliError> {
        self.each(only, async |vault| self.vault(vault, writing).await).await
    }

    /// [`Session::vaults`], each as [`Session::vault_for_restore`].
    pub(crate) async fn vaults_for_restore(
        &self,
        only: Option<&str>,
    ) -> Result<(Vec<Vault>, Vec<(String, CliError)>), CliError> {
        self.each(only, async |vault| self.vault_for_restore(vault).await).await
    }

    /// All configured vaults, those of them for writing that are named so: others may be ones that can only be read.
    pub(crate) async fn vaults_writing(&self, writing: impl Fn(&str) -> bool) -> (Vec<Vault>, Vec<(String, CliError)>) {
        open_each(self.config.vaults.iter(), async |vault| self.vault(vault, writing(&vault.name)).await).await
    }

    async fn each(
        &self,
        only: Option<&str>,
        open_one: impl AsyncFn(&config::Vault) -> Result<Vault, CliError>,
    ) -> Result<(Vec<Vault>, Vec<(String, CliError)>), CliError> {
        self.check_vault(only)?;
        let asked = self.config.vaults.iter().filter(|vault| only.is_none_or(|name| name == vault.name));
        Ok(open_each(asked, open_one).await)
    }

    /// The configured sources, or those that are named.
    pub(crate) fn sources(&self, only: &[SourceName]) -> Result<Vec<&config::Source>, CliError> {
        for name in only {
            if self.config.source(name.as_str()).is_none() {
                let known: Vec<String> =
                    self.config.sources.iter().map(|source| format!("`{}`", source.name)).collect();
                return Err(CliError::usage(format!("there is no source `{name}` in the configuration"))
                    .hint(format!("choose one of {}", known.join(", "))));
            }
        }
        Ok(self.config.sources.iter().filter(|s| only.is_empty() || only.contains(&s.name)).collect())
    }
}

/// Why a vault whose id is pinned did not open. It was made once: `init` makes it again only where it finds that it was there.
pub(crate) fn not_opened(vault: &config::Vault, error: VaultError) -> CliError {
    match error {
        VaultError::NoVault { .. } => CliError::from(error).hint(format!(
            "check the path of `[vault.{}]` and whether it is mounted; where only its `vault.json` is gone, `backup init` writes that \
             anew with the same id",
            vault.name
        )),
        VaultError::Store { source: StoreError::Failed { .. } | StoreError::Denied { .. }, .. } => {
            CliError::from(error).ends(Exit::NoVault)
        }
        other => other.into(),
    }
}

/// A store that does not answer at all, or does not take this host's keys or clock, is no vault, as a folder that is not there. One that
/// knows this host and does not let it write is one.
pub(crate) fn away(error: StoreError) -> CliError {
    let is_away = match &error {
        StoreError::Failed { .. } => true,
        StoreError::Denied { reason, .. } => reason != "AccessDenied",
        _ => false,
    };
    let error = CliError::from(error);
    if is_away { error.ends(Exit::NoVault) } else { error }
}

/// The id that the configuration pins.
pub(crate) fn pinned(vault: &config::Vault) -> Result<&VaultId, CliError> {
    vault.id.as_ref().ok_or_else(|| {
        CliError::new(Exit::NoVault, format!("vault `{}` has no pinned `id`", vault.name))
            .hint("make it with `backup init`, which writes its id into the configuration")
    })
}

/// The engine's source for a configured one.
pub(crate) fn engine(source: &config::Source) -> Result<Box<dyn Source>, CliError> {
    match &source.kind {
        SourceKind::Postgres(database) => Ok(Box::new(postgres(&source.name, database)?)),
        SourceKind::Files(files) => Ok(Box::new(FilesOptions {
            optional: files.optional.clone(),
            secret: files.secret,
            ..FilesOptions::new(files.paths.clone())
        })),
        other => Err(CliError::usage(format!(
            "source `{}` is of type `{}`, which this version cannot capture yet",
            source.name,
            other.word()
        ))
        .hint("name the other sources: `backup run --source NAME`")),
    }
}

/// The engine's options for a PostgreSQL source.
pub(crate) fn postgres(name: &SourceName, source: &config::PostgresSource) -> Result<PostgresOptions, CliError> {
    let mut options = PostgresOptions::new(name.to_string(), connect(name, source)?);
    options.clients = clients(&source.clients);
    options.globals = match source.globals {
        config::Globals::Passwords => Globals::Passwords,
        config::Globals::NoPasswords => Globals::NoPasswords,
        config::Globals::None => Globals::None,
    };
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let name = |table: &config::TableName| format!("{}.{}", quoted(&table.schema), quoted(&table.table));
    options.exclude_data = source.exclude_data.iter().map(name).collect();
    options.expect_drops.clone_from(&source.expect_drops);
    Ok(options)
}

/// How to reach a configured database.
pub(crate) fn connect(name: &SourceName, source: &config::PostgresSource) -> Result<ConnectOptions, CliError> {
    let key = format!("source.{name}.password");
    let password = source.password.as_ref().map(|reference| secrets::read(reference, &key)).transpose()?;
    Ok(ConnectOptions::new(&source.url, password)?)
}

/// The engine's form of `clients`.
pub(crate) fn clients(clients: &config::Clients) -> ClientsOption {
    match clients {
        config::Clients::Auto => ClientsOption::Search,
        config::Clients::Dir(dir) => ClientsOption::Dir(dir.clone()),
        config::Clients::Wrap(words) => ClientsOption::Wrap(words.clone()),
    }
}

/// The store path of a prefix, which may be empty.
pub(crate) fn prefix(text: &str) -> Result<Option<StorePath>, CliError> {
    if text.is_empty() {
        return Ok(None);
    }
    StorePath::new(text).map(Some).ok_or_else(|| {
        CliError::usage(format!("`{text}` cannot be a prefix")).hint("use parts of `A-Z a-z 0-9 . _ -` joined by `/`")
    })
}

/// S3 credentials from where the configuration says they are.
fn credentials(credentials: &Credentials, key: &str) -> Result<S3Credentials, CliError> {
    match credentials {
        Credentials::AwsChain => Ok(S3Credentials::AwsChain),
        Credentials::Secret(reference) => {
            let text = secrets::read(reference, key)?;
            parse_credentials(text.reveal()).map_err(|error| {
                CliError::caused(Exit::Usage, format!("`{key}`"), &error)
                    .hint("write `AWS_ACCESS_KEY_ID=…` and `AWS_SECRET_ACCESS_KEY=…`, a line each")
            })
        }
        Credentials::EnvPrefix(prefix) => environment_credentials(prefix),
    }
}

/// S3 credentials from the environment, by prefix.
pub(crate) fn environment_credentials(prefix: &str) -> Result<S3Credentials, CliError> {
    let variable = |name: &str| {
        let name = format!("{prefix}{name}");
        std::env::var(&name).ok().filter(|value| !value.is_empty()).ok_or_else(|| {
            CliError::usage(format!("the environment variable `{name}` is not set"))
                .hint("set it in the environment that starts this program")
        })
    };
    Ok(S3Credentials::Static {
        access_key_id: variable("ACCESS_KEY_ID")?,
        secret_access_key: Secret::new(variable("SECRET_ACCESS_KEY")?),
        session_token: variable("SESSION_TOKEN").ok().map(Secret::new),
    })
}

/// The identities of a file, of standard input or of the configuration.
pub(crate) fn identities(
    flag: Option<&Path>,
    configured: Option<&SecretRef>,
    passphrase_file: Option<&Path>,
) -> Result<Identities, CliError> {
    let (name, bytes) = identity_bytes(flag, configured)?;
    open_identities(&name, &bytes, passphrase_file)
}

/// What an identity is called in messages, and its file's bytes. May block until somebody types or a program ends.
pub(crate) fn identity_bytes(
    flag: Option<&Path>,
    configured: Option<&SecretRef>,
) -> Result<(String, Zeroizing<Vec<u8>>), CliError> {
    Ok(match (flag, configured) {
        (Some(path), _) if path.as_os_str() == "-" => {
            ("standard input".to_owned(), secrets::limited(std::io::stdin(), "standard input")?)
        }
        (Some(path), _) => (format!("`{}`", path.display()), private(path)?),
        (None, Some(SecretRef::File(path))) => (format!("`{}`", path.display()), private(path)?),
        (None, Some(reference)) => {
            let secret = secrets::read(reference, "keys.identity")?;
            ("`keys.identity`".to_owned(), secret.reveal().as_bytes().to_vec().into())
        }
        (None, None) => {
            return Err(CliError::new(Exit::WrongKey, "no identity was given, and backups open with one only")
                .hint("name its file with `--identity FILE`"));
        }
    })
}

/// Reads the bytes of an identity file; asks for the passphrase of a protected one. It asks on the thread that calls:
/// the terminal must get its echo back before the process ends.
pub(crate) fn open_identities(
    name: &str,
    bytes: &[u8],
    passphrase_file: Option<&Path>,
) -> Result<Identities, CliError> {
    let passphrase = match passphrase_file {
        Some(file) => Some(passphrase_of(file)?),
        None => None,
    };
    let parsed = match Identities::parse(bytes, passphrase.as_ref()) {
        Err(IdentityError::PassphraseNeeded) => match terminal::ask_secret(&format!("passphrase of {name}: "))? {
            Some(passphrase) => Identities::parse(bytes, Some(&passphrase)),
            None => Err(IdentityError::PassphraseNeeded),
        },
        other => other,
    };
    parsed.map_err(|error| {
        let wrong = CliError::caused(Exit::WrongKey, format!("identity {name}"), &error);
        match error {
            IdentityError::PassphraseNeeded => {
                wrong.hint("give its passphrase with `--passphrase-file FILE`, or run this at a terminal")
            }
            IdentityError::PassphraseWrong => wrong.hint("try again with the passphrase that protected this file"),
            _ => wrong.hint("use the file that `backup key new` or `age-keygen` wrote"),
        }
    })
}

fn private(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    secrets::read_private(path).map_err(|error| piped(path, error, "--identity -"))
}

/// An identity that was refused. On a medium without modes, or that cannot be written, `chmod` is no help: there it is piped.
pub(crate) fn piped(path: &Path, error: CliError, flag: &str) -> CliError {
    let hint = match error.advice() {
        Some(hint) if hint.starts_with("run `chmod") => {
            format!("{hint}; where that cannot be done, as on a stick, pipe it in: `{flag} < {}`", path.display())
        }
        Some(hint) => hint.to_owned(),
        None => return error.ends(Exit::WrongKey),
    };
    error.ends(Exit::WrongKey).hint(hint)
}

/// The passphrase in a file.
pub(crate) fn passphrase_of(file: &Path) -> Result<Secret, CliError> {
    secrets::read(&SecretRef::File(file.to_owned()), "--passphrase-file").map_err(|error| {
        let hint = error.advice().unwrap_or("give another file");
        let hint = format!("{hint}; or leave it out, and type the passphrase at the terminal");
        error.ends(Exit::WrongKey).hint(hint)
    })
}

/// Opens vaults one after the other: those that answer, and why the others did not.
async fn open_each<'v>(
    vaults: impl Iterator<Item = &'v config::Vault>,
    open_one: impl AsyncFn(&config::Vault) -> Result<Vault, CliError>,
) -> (Vec<Vault>, Vec<(String, CliError)>) {
    let (mut open, mut silent) = (Vec::new(), Vec::new());
    for vault in vaults {
        match open_one(vault).await {
            Ok(vault) => open.push(vault),
            Err(error) => silent.push((vault.name.clone(), error)),
        }
    }
    (open, silent)
}
