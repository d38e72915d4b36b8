//! Where a restore looks: with a configuration or with nothing but an address, a stack's name and a signer.

use std::sync::Arc;

use backup_core::config::Config;
use backup_core::id::StackName;
use backup_core::monitor::Monitor;
use backup_core::signature::Signers;
use backup_core::vault::Vault;
use backup_core::vault::local::{LocalOptions, LocalStore};
use backup_core::vault::s3::{S3Options, S3Store};
use backup_core::vault::store::Store;
use chrono_tz::Tz;

use super::Args;
use crate::address::Address;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{self, Session};

/// The vaults to read from, and whom to believe.
pub(super) struct Scene<'a> {
    pub(super) cx: &'a Context,
    pub(super) monitor: Arc<dyn Monitor>,
    pub(super) config: Option<Config>,
    pub(super) stack: StackName,
    pub(super) vaults: Vec<Vault>,
    pub(super) signers: Signers,
    pub(super) timezone: Tz,
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
        let signers = match &args.signer {
            Some(fingerprint) => Signers::pin_fingerprint(fingerprint),
            None => session.signers()?,
        };
        let (vaults, silent) = session.vaults(args.vault.as_deref(), false).await?;
        if vaults.is_empty() {
            return Err(silent.into_iter().next().map_or_else(
                || CliError::new(Exit::NoVault, "no vault is configured").hint("name one with `--vault ADDRESS`"),
                |(_, error)| error,
            ));
        }
        for (name, error) in &silent {
            cx.printer
                .warn(&format!("vault `{name}` does not answer: {}", error.message()), "newer snapshots may lie there");
        }
        Ok(Self {
            cx,
            monitor: session.monitor.clone(),
            stack: session.stack().clone(),
            timezone: session.config.timezone,
            config: Some(session.config),
            vaults,
            signers,
        })
    }

    async fn at_address(cx: &'a Context, args: &Args, address: &Address) -> Result<Self, CliError> {
        let config = cx.config_if_any()?;
        let Some(stack) = args.stack.clone().or_else(|| config.as_ref().map(|config| config.stack.clone())) else {
            return Err(CliError::usage("a vault's address needs the stack's name as well")
                .hint("add `--stack NAME`, as on the recovery sheet"));
        };
        // A configuration of another stack that happens to lie here is not this restore's business.
        let config = config.filter(|config| config.stack == stack);
        let signers = match (&args.signer, &config) {
            (Some(fingerprint), _) => Signers::pin_fingerprint(fingerprint),
            (None, Some(_)) => Session::open(cx)?.signers()?,
            (None, None) => {
                return Err(CliError::new(Exit::WrongKey, "nobody is pinned: whose snapshots shall be believed?")
                    .hint("add `--signer SHA256:…`, as on the recovery sheet"));
            }
        };
        let monitor = session::monitor(cx);
        let store = store(address, monitor.clone()).await?;
        let vault = Vault::open(&address.to_string(), store, None).await?;
        let timezone = config.as_ref().map_or(chrono_tz::UTC, |config| config.timezone);
        Ok(Self { cx, monitor, config, stack, vaults: vec![vault], signers, timezone })
    }
}

/// The store at an address. S3 keys come from the environment.
async fn store(address: &Address, monitor: Arc<dyn Monitor>) -> Result<Arc<dyn Store>, CliError> {
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
            Ok(Arc::new(S3Store::connect(options, monitor).await?))
        }
    }
}
