//! Where a restore looks: with a configuration or with nothing but an address, a stack's name and a signer.

use std::sync::Arc;

use backup_core::config::{self, Config};
use backup_core::id::StackName;
use backup_core::monitor::Monitor;
use backup_core::signature::Signers;
use backup_core::snapshot::met::Met;
use backup_core::vault::local::{LocalOptions, LocalStore};
use backup_core::vault::s3::{S3Options, S3Store};
use backup_core::vault::store::{Store, StoreError};
use backup_core::vault::{Vault, VaultError};
use chrono_tz::Tz;

use super::Args;
use crate::address::Address;
use crate::commands::silent;
use crate::context::Context;
use crate::error::{CliError, MEND};
use crate::exit::Exit;
use crate::session::{self, Session};
use crate::words;

/// The vaults to read from, and whom to believe.
pub(super) struct Scene<'a> {
    pub(super) cx: &'a Context,
    pub(super) monitor: Arc<dyn Monitor>,
    pub(super) config: Option<Config>,
    pub(super) stack: StackName,
    pub(super) vaults: Vec<Vault>,
    /// Vaults that did not open, with the reason.
    pub(super) silent: Vec<(String, CliError)>,
    pub(super) signers: Signers,
    pub(super) timezone: Tz,
    /// What is met damaged on the way.
    pub(super) met: Met,
}

impl<'a> Scene<'a> {
    pub(super) async fn open(cx: &'a Context, args: &Args) -> Result<Self, CliError> {
        let address = args.vault.as_deref().map(Address::parse).transpose()?.flatten();
        match address {
            Some(address) => Self::at_address(cx, args, &address).await,
            None => Self::configured(cx, args).await,
        }
    }

    async fn configured(cx: &'a Context, args: &Args) -> Result<Self, CliError> {
        let session = Session::open(cx)?;
        if let Some(stack) = args.stack.as_ref().filter(|stack| *stack != session.stack()) {
            return Err(CliError::usage(format!(
                "the configuration is for stack `{}`, not `{stack}`",
                session.stack()
            ))
            .hint("name the right one with `--config FILE`, or a vault's address with `--vault`"));
        }
        let signers = match super::pinned(&args.signer)? {
            Some(signers) => signers,
            None => session.signers()?,
        };
        let (vaults, silent) = session.vaults_for_restore(args.vault.as_deref()).await?;
        if vaults.is_empty() {
            return Err(silent::none(&silent).unwrap_or_else(|| {
                CliError::new(Exit::NoVault, "no vault is configured").hint("name one with `--vault ADDRESS`")
            }));
        }
        Ok(Self {
            cx,
            monitor: session.monitor.clone(),
            stack: session.stack().clone(),
            timezone: session.config.timezone,
            config: Some(session.config),
            vaults,
            silent,
            signers,
            met: Met::default(),
        })
    }

    async fn at_address(cx: &'a Context, args: &Args, address: &Address) -> Result<Self, CliError> {
        let config = config(cx, args)?;
        let Some(stack) = args.stack.clone().or_else(|| config.as_ref().map(|config| config.stack.clone())) else {
            return Err(CliError::usage("a vault's address needs the stack's name as well")
                .hint("add `--stack NAME`, as on the recovery sheet"));
        };
        // A configuration of another stack that happens to lie here is not this restore's business.
        let config = config.filter(|config| config.stack == stack);
        let signers = match (super::pinned(&args.signer)?, &config) {
            (Some(signers), _) => signers,
            (None, Some(_)) => Session::open(cx)?.signers()?,
            (None, None) => {
                return Err(CliError::new(Exit::WrongKey, "nobody is pinned: whose snapshots shall be believed?")
                    .hint("add `--signer SHA256:…`, as on the recovery sheet"));
            }
        };
        let monitor = session::monitor(cx);
        let vault = at_address(cx, address, config.as_ref(), Purpose::Restore).await?;
        let timezone = config.as_ref().map_or(chrono_tz::UTC, |config| config.timezone);
        let (vaults, silent, met) = (vec![vault], Vec::new(), Met::default());
        Ok(Self { cx, monitor, config, stack, vaults, silent, signers, timezone, met })
    }
}

impl Scene<'_> {
    /// Tells what was met damaged, and remembers it where this host remembers anything, so that `status` and `verify` know it.
    /// That it cannot be remembered ends no restore.
    pub(super) async fn tell_met(&self) {
        for (vault, number) in self.met.counts() {
            let text = format!("vault `{vault}`: this restore met {} there", words::count(number, "damaged object"));
            self.cx.printer.warn(&text, MEND);
        }
        let Some(config) = &self.config else { return };
        let session = Session { cx: self.cx, config: config.clone(), monitor: self.monitor.clone() };
        if let Some(state) = session.remembered().await
            && let Err(error) = self.met.remember(&state).await
        {
            let error = CliError::from(error);
            self.cx.printer.warn(&format!("what is damaged is not remembered: {}", error.message()), MEND);
        }
    }
}

/// The configuration beside an address. Where the call says all that a restore needs, a wrong one that nobody named is
/// only told about: a broken file must not be what keeps the data away.
fn config(cx: &Context, args: &Args) -> Result<Option<Config>, CliError> {
    let complete = args.stack.is_some() && !args.signer.is_empty() && args.identity.is_some();
    match cx.config_if_any() {
        Err(error) if complete && !cx.names_config() => {
            let text = format!("the configuration is not used: {}", error.message());
            cx.printer.warn(&text, "the restore goes on without it; name one with `--config FILE`");
            Ok(None)
        }
        found => found,
    }
}

/// The vault that the configuration has at this address.
fn known<'a>(config: &'a Config, address: &Address) -> Option<&'a config::Vault> {
    config.vaults.iter().find(|vault| Address::of(&vault.place).same_place(address))
}

/// What a vault at an address is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To copy from it.
    Read,
    /// To restore from it: older versions are read too.
    Restore,
    /// To put into it.
    Write,
}

/// The vault at an address, which must be the pinned one where the configuration knows the address. What is put there is put
/// as into the configured one, under its name, with its `lock`, `keep` and credentials. Who only reads uses the address as
/// it is given, with the keys of the environment.
pub(crate) async fn at_address(
    cx: &Context,
    address: &Address,
    config: Option<&Config>,
    purpose: Purpose,
) -> Result<Vault, CliError> {
    let monitor = session::monitor(cx);
    let known = config.and_then(|config| Some((config, known(config, address)?)));
    if let (Some((config, vault)), Purpose::Write) = (known, purpose) {
        return Session { cx, config: config.clone(), monitor }.vault(vault, true).await;
    }
    let store = store(address, monitor, purpose == Purpose::Write).await?;
    let (name, pinned) = (address.to_string(), known.and_then(|(_, vault)| vault.id.as_ref()));
    let opened = match purpose {
        Purpose::Restore => Vault::open_for_restore(&name, store, pinned).await,
        Purpose::Read | Purpose::Write => Vault::open(&name, store, pinned).await,
    };
    opened.map_err(|error| match error {
        // Who restores must not be led to make an empty one.
        VaultError::NoVault { .. } if purpose != Purpose::Write => CliError::from(error).hint(
            "check the address, above all the folder or the bucket's prefix, against the recovery sheet, and whether it is mounted",
        ),
        VaultError::Store { source: StoreError::Failed { .. } | StoreError::Denied { .. }, .. } => {
            CliError::from(error).ends(Exit::NoVault)
        }
        other => other.into(),
    })
}

/// The store at an address; with `writing`, an endpoint is first asked what it checks. S3 keys come from the environment.
async fn store(address: &Address, monitor: Arc<dyn Monitor>, writing: bool) -> Result<Arc<dyn Store>, CliError> {
    match address {
        Address::Directory(path) => Ok(Arc::new(LocalStore::open(path, LocalOptions::default())?)),
        Address::S3 { endpoint, bucket, prefix, region, path_style, ca } => {
            let credentials = session::environment_credentials("AWS_")?;
            let mut options = S3Options::new(endpoint, bucket, region, credentials);
            options.path_style = *path_style;
            options.prefix = session::prefix(prefix)?;
            if let Some(path) = ca {
                let pem = std::fs::read(path).map_err(|error| {
                    CliError::caused(Exit::Usage, format!("cannot read `{}`", path.display()), &error)
                        .hint("name the PEM file of the authority in the address: `&ca=FILE`")
                })?;
                options.ca = Some(pem);
            }
            let store = S3Store::connect(options, monitor).await?;
            Ok(Arc::new(if writing { store.try_writing().await.map_err(session::away)? } else { store }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_configured_must_hold_the_pinned_vault() {
        let (recipient, id) = (age::x25519::Identity::generate().to_public(), "1".repeat(32));
        let text = format!(
            "schema = 1\nstack = \"s\"\nstate = \"/s\"\n[keys]\nrecipients = [\"{recipient}\"]\nsigners = \"/signers\"\n\
             [vault.local]\npath = \"/srv/backup\"\nid = \"{id}\"\nkeep = {{ within = \"7d\", min = 3 }}\n\
             [source.f]\ntype = \"files\"\npaths = [\"/f\"]\n"
        );
        let config = Config::parse(&text, std::path::Path::new("/t.toml")).unwrap();
        let at = |text: &str| {
            let vault = known(&config, &Address::parse(text).unwrap().unwrap());
            vault.and_then(|vault| vault.id.as_ref()).map(ToString::to_string)
        };
        assert_eq!(at("/srv/backup/"), Some(id));
        assert_eq!(at("/srv/other"), None);
    }
}
