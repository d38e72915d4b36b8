//! `backup audit`: is everything there that the policy promises? For somebody without any key.
//!
//! It opens no identity, reads no host key and no state, and writes nothing: a policy file (`config show --public`) and
//! credentials that may list and read are enough, on any machine.

mod promises;
mod report;

use std::collections::BTreeSet;

use backup_core::audit::{self, Expected, Promise};
use backup_core::config::{Place, Share, Source};
use backup_core::id::SourceName;
use backup_core::signature::Signers;
use backup_core::vault::Vault;
use backup_core::vault::store::Store as _;
use backup_core::verify::{Fraction, judge_recover};
use retention::Span;

use crate::commands::doctor::protection;
use crate::commands::silent;
use crate::commands::verify::share_of_day;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::locks;
use crate::pruning;
use crate::session::Session;
use report::{Report, Unread};

/// Check the vaults against the policy: every promised day, copies, chains, ages; needs no key
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Judge this vault only; the others are still compared with it
    #[arg(long, value_name = "NAME")]
    pub(crate) vault: Option<String>,
    /// Only these sources
    #[arg(long, value_name = "S")]
    pub(crate) source: Vec<SourceName>,
    /// Read and hash this share of the objects, another one each day: 1/30 reads all in a month of daily audits
    #[arg(long, value_name = "n/m")]
    pub(crate) read_data: Option<Share>,
}

/// Audits. Exit 4 on damage, 5 on a breach, 3 when a vault did not answer, 12 where nothing is by a pinned signer.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    let sources = session.sources(&args.source)?;
    let signers = session.signers()?;
    session.check_vault(args.vault.as_deref())?;
    let (vaults, mut quiet) = session.vaults(None, false).await?;
    let is_chosen = |name: &str| args.vault.as_deref().is_none_or(|only| only == name);
    quiet.retain(|(name, _)| is_chosen(name));
    let targets: Vec<Vault> = vaults.iter().filter(|vault| is_chosen(vault.name())).cloned().collect();
    let end = silent::report(cx, &targets, &quiet)?;
    let now = cx.clock.now();
    let look = Look {
        session: &session,
        signers: &signers,
        vaults: &vaults,
        is_chosen: &is_chosen,
        read: args.read_data.map(|share| share_of_day(share, now)),
    };
    let mut report = Report { quiet, read: look.read, ..Report::default() };
    for source in &sources {
        look.at(source, &mut report).await;
    }
    look.beside(&mut report).await;
    look.rules(&mut report).await;
    look.recover(&mut report).await;
    let end = end.worse(report.exit());
    report.warn(&cx.printer);
    let timezone = session.config.timezone;
    cx.printer.result("audit", report.to_json(now, end), || report.text(now, timezone))?;
    Ok(end)
}

/// What stays the same for all sources.
struct Look<'a> {
    session: &'a Session<'a>,
    signers: &'a Signers,
    vaults: &'a [Vault],
    is_chosen: &'a (dyn Fn(&str) -> bool + Sync),
    read: Option<Fraction>,
}

impl Look<'_> {
    /// Reads a source in every vault that answers and judges it where that was asked for.
    async fn at(&self, source: &Source, report: &mut Report) {
        let config = &self.session.config;
        let mut promises = Vec::new();
        for configured in &config.vaults {
            let mut promise = Promise {
                vault: configured.name.clone(),
                policy: configured.keep.as_ref().map(|keep| pruning::policy(keep, source.generation)),
                window: configured.keep.and_then(|keep| keep.within).map(|within| Span::seconds(within.as_seconds())),
                lock: locks::rule(config, configured, &self.session.cx.clock),
                evidence: None,
            };
            if let Some(vault) = self.vaults.iter().find(|vault| vault.name() == configured.name) {
                let judged = (self.is_chosen)(vault.name());
                let names = (self.session.stack(), &source.name);
                let lock = promise.lock.as_ref().map(|rule| (rule, self.session.cx.clock.now()));
                match audit::read(vault, self.signers, names, self.read, judged, lock).await {
                    Ok(evidence) => promise.evidence = Some(evidence),
                    Err(error) if judged => report.unread.push(Unread {
                        vault: vault.name().to_owned(),
                        source: Some(source.name.clone()),
                        error: error.into(),
                    }),
                    // It counts as holding nothing.
                    Err(_) => {}
                }
            }
            promises.push(promise);
        }
        let now = self.session.cx.clock.now();
        let schedule = promises::Schedule::of(config, source, now);
        let slots = |from| schedule.slots(from);
        let expected = Expected {
            now,
            timezone: config.timezone,
            slots: &slots,
            copied_within: schedule.copied_within(),
            rpo: promises::rpo(source, now, config.timezone),
        };
        let judged = audit::judge(&expected, &promises);
        for promise in &promises {
            let verified = promise.evidence.as_ref().and_then(|evidence| evidence.verified.as_ref());
            report.objects_read += verified.map_or(0, |verified| verified.objects_read);
            report.bytes_read += verified.map_or(0, |verified| verified.bytes_read);
        }
        report.sources.push((source.name.clone(), judged));
    }

    /// Names beside the sources: of the vaults as a whole.
    async fn beside(&self, report: &mut Report) {
        let known: BTreeSet<SourceName> =
            self.session.config.sources.iter().map(|source| source.name.clone()).collect();
        for vault in self.vaults.iter().filter(|vault| (self.is_chosen)(vault.name())) {
            // A vault that cannot be listed was told of already.
            if let Ok(names) = audit::beside(vault, self.session.stack(), &known).await
                && !names.is_empty()
            {
                report.beside.push((vault.name().to_owned(), names));
            }
        }
    }

    /// The recovery documents: who alters that page has the next restore on a bare machine run a script of theirs.
    async fn recover(&self, report: &mut Report) {
        for vault in self.vaults.iter().filter(|vault| (self.is_chosen)(vault.name())) {
            let name = vault.name().to_owned();
            match judge_recover(vault, self.signers, self.session.cx.clock.now()).await {
                Ok(None) => {}
                Ok(Some((wrong, foreign))) => report.recover.push((name, wrong, foreign)),
                Err(error) => report.unread.push(Unread { vault: name, source: None, error: error.into() }),
            }
        }
    }

    /// The buckets' own rules that delete what is still promised. Where they cannot be seen, that is no breach: an auditor's key
    /// often may not, and `doctor` says so.
    async fn rules(&self, report: &mut Report) {
        for configured in self.session.config.vaults.iter().filter(|vault| (self.is_chosen)(&vault.name)) {
            let answers = self.vaults.iter().any(|vault| vault.name() == configured.name);
            let (Place::S3(s3), true) = (&configured.place, answers) else { continue };
            let Ok(store) = self.session.s3(&configured.name, s3).await else { continue };
            let Ok(rules) = store.lifecycle().await else { continue };
            let needed = protection::needed(self.session, configured);
            let lines = protection::too_short(&rules, (store.key_prefix(), self.session.stack()), needed);
            if !lines.is_empty() {
                report.rules.push((configured.name.clone(), lines));
            }
        }
    }
}
