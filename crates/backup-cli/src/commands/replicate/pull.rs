//! `backup replicate --from URL --to NAME|URL`: another machine fetches, with the right to read and nothing else.
//!
//! The host that makes backups has no way into the vault that is filled here, so nobody who has that host can harm what was
//! pulled: the strongest protection that a plain disk gives. No key is needed; only whose signatures are believed. Nothing
//! is ever deleted here because it is gone there, and a source vault that shows less than was pulled before is named
//! (exit 4): it was rolled back, or somebody removed the newest snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::config::{Config, Span};
use backup_core::id::{SourceName, StackName};
use backup_core::monitor::Monitor;
use backup_core::prune::history;
use backup_core::repair::{Repair, repair};
use backup_core::replicate::{Proof, Route, marks_of, proofs, replicate, replicate_grants, replicate_marks};
use backup_core::signature::Signers;
use backup_core::vault::layout::{GenerationDir, SnapshotId};
use backup_core::vault::{Vault, VaultError};
use backup_core::verify::{Place, chain_text, judge_recover};
use backup_core::words::plain;
use retention::{History, Stamp};
use serde_json::{Value, json};

use super::Args;
use crate::address::Address;
use crate::commands::restore;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::pruning;
use crate::replication::{self, Lane};
use crate::session::{self, Session};

/// From where, to where, believing whom.
struct Pull<'a> {
    cx: &'a Context,
    config: Option<Config>,
    monitor: Arc<dyn Monitor>,
    signers: Signers,
    from: Vault,
    to: Vault,
}

/// What was found and done for one source of one stack.
struct Pulled {
    stack: StackName,
    lane: Lane,
    /// Snapshots that are lacking (a dry run).
    lacking: Vec<SnapshotId>,
    /// Snapshots that `keep` would expire at once.
    unwanted: u64,
    /// What the source vault showed before and does not show now, a line for each signer.
    rolled_back: Vec<String>,
    /// Of whom that cannot be told, because the source vault did not give a document, a line each.
    not_provable: Vec<String>,
}

/// Pulls; exit 4 when what was to be copied is damaged or the source vault was rolled back, 3 when a part failed.
pub(super) async fn run(cx: &Context, args: &Args, from: &str, to: &str) -> Result<Exit, CliError> {
    let pull = Pull::open(cx, args, from, to).await?;
    let mut end = Exit::Done;
    let mut all = Vec::new();
    for stack in pull.stacks(args).await? {
        all.extend(pull.stack(&stack, args).await?);
    }
    if !args.dry_run
        && let Err(error) = pull.recover().await
    {
        cx.printer.warn(error.message(), error.advice().unwrap_or_default());
        end = end.worse(error.as_part());
    }
    for one in &all {
        for error in &one.lane.errors {
            cx.printer.warn(error.message(), error.advice().unwrap_or_default());
        }
        end = end.worse(one.lane.exit());
        for text in &one.not_provable {
            cx.printer.warn(text, "repeat this when that vault answers");
            end = end.worse(Exit::Partial);
        }
        for text in &one.rolled_back {
            let hint = "look at that vault before you trust it; what was pulled before is kept, restore from here";
            cx.printer.warn(text, hint);
            end = end.worse(Exit::Damage);
        }
    }
    let value = json!({
        "dry_run": args.dry_run, "from": pull.from.name(), "to": pull.to.name(),
        "sources": all.iter().map(Pulled::to_json).collect::<Vec<_>>(),
    });
    cx.printer.result("replicate", value, || text(&all, args.dry_run))?;
    Ok(end)
}

impl Pulled {
    fn to_json(&self) -> Value {
        json!({
            "stack": self.stack, "lane": self.lane.to_json(), "lacking": self.lacking, "not_wanted": self.unwanted,
            "rolled_back": self.rolled_back, "not_provable": self.not_provable,
        })
    }
}

fn text(all: &[Pulled], dry_run: bool) -> String {
    if dry_run {
        let lines = all.iter().flat_map(|one| {
            one.lacking.iter().map(|id| format!("{}/{}: would copy {id}\n", one.stack, one.lane.source))
        });
        let lines: String = lines.collect();
        return if lines.is_empty() { "nothing to copy\n".to_owned() } else { lines };
    }
    let unwanted = usize::try_from(all.iter().map(|one| one.unwanted).sum::<u64>()).unwrap_or(usize::MAX);
    let lanes: Vec<Lane> = all.iter().map(|one| one.lane.clone()).collect();
    super::lanes_text(&lanes, unwanted, true)
}

impl<'a> Pull<'a> {
    async fn open(cx: &'a Context, args: &Args, from: &str, to: &str) -> Result<Self, CliError> {
        let (from_address, to_address) = (Address::parse(from)?, Address::parse(to)?);
        // A configuration that is not needed must not be what keeps the copy from being made.
        let complete = !args.signer.is_empty() && from_address.is_some() && to_address.is_some();
        let config = match cx.config_if_any() {
            Err(error) if complete && !cx.names_config() => {
                cx.printer.warn(&format!("the configuration is not used: {}", error.message()), "mend it");
                None
            }
            found => found?,
        };
        let signers = match restore::pinned(&args.signer)? {
            Some(signers) => signers,
            None if config.is_some() => Session::open(cx)?.signers()?,
            None => {
                return Err(CliError::new(Exit::WrongKey, "nobody is pinned: whose snapshots shall be copied?")
                    .hint("add `--signer SHA256:…`, as on the recovery sheet"));
            }
        };
        let monitor = session::monitor(cx);
        let open = async |text: &str, address: Option<Address>, writing: bool| match address {
            Some(address) => {
                use restore::Purpose;
                let purpose = if writing { Purpose::Write } else { Purpose::Read };
                restore::at_address(cx, &address, config.as_ref(), purpose).await
            }
            None => configured(cx, config.as_ref(), text, writing).await,
        };
        let from = open(from, from_address, false).await?;
        let to = open(to, to_address, true).await?;
        if from.id() == to.id() {
            let message = format!("`{}` and `{}` are the same vault ({})", from.name(), to.name(), from.id());
            return Err(
                CliError::usage(message).hint("pull into a vault of its own: `backup init` on this machine makes one")
            );
        }
        Ok(Self { cx, config, monitor, signers, from, to })
    }

    /// The stacks to pull: the one that is named, the configuration's, or all that the source vault holds.
    async fn stacks(&self, args: &Args) -> Result<Vec<StackName>, CliError> {
        if let Some(stack) = args.stack.clone().or_else(|| self.config.as_ref().map(|config| config.stack.clone())) {
            return Ok(vec![stack]);
        }
        let all: BTreeSet<StackName> = self.from.stacks().await?.into_iter().chain(self.to.stacks().await?).collect();
        Ok(all.into_iter().collect())
    }

    /// Everything of a stack: the newest snapshot of each source first, then the backlog of each.
    async fn stack(&self, stack: &StackName, args: &Args) -> Result<Vec<Pulled>, CliError> {
        let sources: BTreeSet<SourceName> = if args.source.is_empty() {
            // Also those that are only here: the source vault lost them.
            self.from.sources(stack).await?.into_iter().chain(self.to.sources(stack).await?).collect()
        } else {
            args.source.iter().cloned().collect()
        };
        let mut all = Vec::new();
        for source in &sources {
            let mut pulled = Pulled {
                stack: stack.clone(),
                lane: Lane::new(self.from.name(), self.to.name(), source),
                lacking: Vec::new(),
                unwanted: 0,
                rolled_back: Vec::new(),
                not_provable: Vec::new(),
            };
            if !args.dry_run
                && let Some(newest) = self.newer(stack, source).await
            {
                self.copy(stack, &|id| *id == newest, true, &mut pulled).await;
            }
            all.push(pulled);
        }
        for pulled in &mut all {
            if let Err(error) = self.backlog(stack, args.dry_run, pulled).await {
                pulled.lane.errors.push(error.into());
            }
        }
        Ok(all)
    }

    /// The source vault's newest believed capture, if it is newer than every one that is here: no `keep` would expire it.
    /// What is older waits for the backlog, which asks `keep`: it may have been here and gone. What fails is met there too.
    async fn newer(&self, stack: &StackName, source: &SourceName) -> Option<SnapshotId> {
        let theirs = self.newest_in(&self.from, stack, source).await?;
        let ours = self.newest_in(&self.to, stack, source).await;
        ours.is_none_or(|ours| ours < theirs).then_some(theirs)
    }

    /// Names that anybody may have written are passed over, some at once.
    async fn newest_in(&self, vault: &Vault, stack: &StackName, source: &SourceName) -> Option<SnapshotId> {
        const AT_ONCE: usize = 4;
        let mut listed = vault.history(stack, source).await.ok()?;
        listed.retain(|(_, id)| !id.is_imported());
        listed.reverse();
        for some in listed.chunks(AT_ONCE) {
            let proofs = proofs(vault, &self.signers, some).await;
            let believed = some.iter().zip(proofs).find(|(_, proof)| matches!(proof, Proof::Signed(_)));
            if let Some(((_, id), _)) = believed {
                return Some(id.clone());
            }
        }
        None
    }

    async fn copy(
        &self,
        stack: &StackName,
        wanted: &(dyn Fn(&SnapshotId) -> bool + Sync),
        newest_only: bool,
        pulled: &mut Pulled,
    ) {
        let route = Route { from: &self.from, to: &self.to, signers: &self.signers, monitor: &self.monitor };
        let done = replicate(route, stack, &pulled.lane.source, wanted, newest_only).await;
        pulled.lane.snapshots.extend(done.snapshots);
        pulled.lane.objects += done.objects;
        pulled.lane.bytes += done.bytes;
        // What fails of the newest is met again with the backlog.
        if !newest_only {
            pulled.unwanted += done.not_wanted;
            pulled.lane.errors.extend(done.errors.into_iter().map(CliError::from));
        }
    }

    async fn backlog(&self, stack: &StackName, dry_run: bool, pulled: &mut Pulled) -> Result<(), VaultError> {
        let source = pulled.lane.source.clone();
        let there = self.from.history(stack, &source).await?;
        let here = self.to.history(stack, &source).await?;
        let listed: BTreeSet<SnapshotId> = there.iter().chain(&here).map(|(_, id)| id.clone()).collect();
        let given = marks_of(&self.from, &self.signers, stack, &source, &listed).await?;
        let had = marks_of(&self.to, &self.signers, stack, &source, &listed).await?;
        let (theirs, ours) =
            (proofs(&self.from, &self.signers, &there).await, proofs(&self.to, &self.signers, &here).await);
        let receipts = history::receipts(&self.from, &self.signers, stack, &source).await?;
        let removed = receipts.iter().flat_map(|receipt| &receipt.snapshots).map(|(id, _)| id.clone()).collect();
        for told in lost(&unknown(&there, &theirs), &heads(&theirs, &BTreeSet::new()), &heads(&ours, &removed)) {
            let line = |text| format!("source `{source}`: vault `{}` {text}", self.from.name());
            match told {
                Lost::RolledBack(text) => pulled.rolled_back.push(line(text)),
                Lost::NotProvable(text) => pulled.not_provable.push(line(text)),
            }
        }
        let marked = given.signed.values().chain(had.signed.values());
        let marked = marked.map(|mark| (mark.doc.document, mark.doc.mark.word())).collect();
        let mut stamps: BTreeMap<SnapshotId, Stamp> = BTreeMap::new();
        for proof in theirs.iter().chain(&ours) {
            if let Proof::Signed(signed) = proof {
                stamps.entry(signed.doc.id.clone()).or_insert_with(|| replication::stamp(signed, &marked));
            }
        }
        let wanted = self.wanted(&there, stamps);
        let is_wanted = |id: &SnapshotId| wanted.as_ref().is_none_or(|wanted| wanted.contains(id.as_str()));
        if dry_run {
            let lacking = there.iter().rev().filter(|at| !here.contains(at) && is_wanted(&at.1));
            pulled.lacking = lacking.map(|(_, id)| id.clone()).collect();
            return Ok(());
        }
        self.copy(stack, &is_wanted, false, pulled).await;
        let way = (&self.from, &self.to);
        let revoked = self.config.as_ref().map_or(&[][..], |config| &config.keys.revoked);
        let (_, errors) = replicate_grants(way, &self.signers, (stack, &source), revoked, &self.monitor).await;
        pulled.lane.errors.extend(errors.into_iter().map(CliError::from));
        let (_, errors) = replicate_marks(&given, &self.to, &had, &self.signers, &self.monitor).await;
        pulled.lane.errors.extend(errors.into_iter().map(CliError::from));
        Ok(())
    }

    /// The snapshots that the destination's `keep` would keep; `None`: it has none, and takes everything that is signed.
    fn wanted(
        &self,
        there: &[(GenerationDir, SnapshotId)],
        stamps: BTreeMap<SnapshotId, Stamp>,
    ) -> Option<BTreeSet<String>> {
        let config = self.config.as_ref()?;
        let keep = config.vault(self.to.name())?.keep?;
        // The sources need not be configured here: how long a generation is says its name.
        let days = there.iter().map(|(dir, _)| dir.id.period().days()).max().unwrap_or(7);
        let policy = pruning::policy(&keep, Span::days(u64::from(days)));
        let history = History { stamps: stamps.into_values().collect(), ..History::default() };
        Some(replication::wanted(Some(&policy), &history, self.cx.clock.now(), config.timezone))
    }

    /// The recovery document, so that what was pulled restores on a bare machine; the one that is believed here stays.
    async fn recover(&self) -> Result<(), CliError> {
        let now = self.cx.clock.now();
        if judge_recover(&self.to, &self.signers, now).await?.is_none() {
            return Ok(());
        }
        let ask = Repair {
            vault: &self.to,
            others: std::slice::from_ref(&self.from),
            signers: &self.signers,
            heads: &[],
            at: now,
            dry_run: false,
        };
        for mend in repair(ask, &BTreeSet::from([Place::Recover])).await {
            if !mend.is_made() {
                let text = format!("the recovery document of vault `{}`: {}", self.to.name(), mend.outcome);
                return Err(CliError::new(Exit::Failed, text)
                    .hint("write it with `backup init` on the host that makes backups"));
            }
        }
        Ok(())
    }
}

/// Newest snapshot of each signer.
type Heads = BTreeMap<String, SnapshotId>;

/// What a source vault does not show any more, or what nobody knows.
#[derive(Debug, PartialEq, Eq)]
enum Lost {
    RolledBack(String),
    NotProvable(String),
}

/// The signers whose newest snapshot in the source vault is older than the one that was pulled before, with what to say of each.
/// `unknown`: what the vault lists and did not give, and why.
fn lost(unknown: &BTreeMap<SnapshotId, String>, theirs: &Heads, ours: &Heads) -> Vec<Lost> {
    let behind = ours.iter().filter(|(signer, head)| theirs.get(*signer).is_none_or(|their| their < *head));
    let told = behind.map(|(signer, ours)| {
        if let Some(why) = unknown.get(ours) {
            return Lost::NotProvable(format!(
                "lists `{ours}`, the newest snapshot of {signer} that was pulled, and does not give its document: whether \
                 anything was removed there is not provable: {why}"
            ));
        }
        let shows = theirs.get(signer).map_or_else(|| "none".to_owned(), |id| format!("`{id}`"));
        Lost::RolledBack(format!(
            "shows {shows} as the newest snapshot of {signer}, and `{ours}` was pulled before: it was rolled back, or \
             snapshots were removed there"
        ))
    });
    told.collect()
}

/// Listed snapshots whose documents the store did not give; `proofs` are theirs, in their order.
fn unknown(listed: &[(GenerationDir, SnapshotId)], proofs: &[Proof]) -> BTreeMap<SnapshotId, String> {
    let failed = listed.iter().zip(proofs).filter_map(|((_, id), proof)| match proof {
        Proof::Unknown(error) => Some((id.clone(), plain(&chain_text(error)))),
        Proof::Signed(_) | Proof::Foreign(_) => None,
    });
    failed.collect()
}

/// The newest believed capture of each signer, but for what receipts say was `removed`: a prune of the source vault takes the last
/// snapshot of a retired key away while a longer `keep` here still holds it.
fn heads(proofs: &[Proof], removed: &BTreeSet<SnapshotId>) -> Heads {
    let mut heads = Heads::new();
    for proof in proofs {
        let Proof::Signed(signed) = proof else { continue };
        let id = &signed.doc.id;
        if removed.contains(id) {
            continue;
        }
        let head = heads.entry(signed.by.fingerprint.clone()).or_insert_with(|| id.clone());
        if !id.is_imported() && (*id > *head || head.is_imported()) {
            head.clone_from(id);
        }
    }
    heads
}

/// A vault by its name in the configuration.
async fn configured(cx: &Context, config: Option<&Config>, name: &str, writing: bool) -> Result<Vault, CliError> {
    let Some(config) = config else {
        return Err(CliError::usage(format!(
            "`{name}` is no address, and there is no configuration that names a vault so"
        ))
        .hint("write a directory with `/` or `./`, or `s3+https://host/bucket/prefix?region=REGION`"));
    };
    let session = Session { cx, config: config.clone(), monitor: session::monitor(cx) };
    session.check_vault(Some(name))?;
    let vault = session.config.vault(name).ok_or_else(|| CliError::usage(format!("there is no vault `{name}`")))?;
    session.vault(vault, writing).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signer_is_reckoned_by_itself_and_what_nobody_knows_is_no_loss() {
        let id = |day: u32| format!("202611{day:02}T020000Z-1r-abcdef").parse::<SnapshotId>().unwrap();
        let heads = |all: &[(&str, u32)]| -> Heads {
            all.iter().map(|(signer, day)| ((*signer).to_owned(), id(*day))).collect()
        };
        let ours = heads(&[("a", 5), ("b", 9), ("c", 7)]);
        let none = BTreeMap::new();
        assert_eq!(lost(&none, &ours, &ours), []);
        assert_eq!(lost(&none, &heads(&[("a", 6), ("b", 9), ("c", 8), ("d", 1)]), &ours), []);
        let told = lost(&none, &heads(&[("b", 8), ("c", 7)]), &ours);
        let said = |told: &Lost, parts: [&str; 2]| {
            let Lost::RolledBack(text) = told else { panic!("{told:?}") };
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        };
        assert_eq!(told.len(), 2);
        said(&told[0], ["shows none as the newest snapshot of a", id(5).as_str()]);
        said(&told[1], [&format!("shows `{}` as the newest snapshot of b", id(8)), id(9).as_str()]);
        // Fails where a document that the store did not give counts as one that is gone.
        let unknown = BTreeMap::from([(id(9), "no answer".to_owned()), (id(1), "no answer".to_owned())]);
        let told = lost(&unknown, &heads(&[("b", 8), ("c", 7)]), &ours);
        assert!(matches!(&told[0], Lost::RolledBack(_)), "{told:?}");
        assert!(matches!(&told[1], Lost::NotProvable(text) if text.contains("not provable: no answer")), "{told:?}");
    }
}
