//! `backup pin`, `backup unpin`, `backup accept`: what an operator says of one snapshot, signed, in every vault that has it.

mod still;

use std::collections::BTreeSet;

use backup_core::mark::{self, Change};
use backup_core::prune::history::Fact;
use backup_core::vault::document::{MarkKind, SnapshotDoc};
use backup_core::vault::{Vault, VaultError};
use serde_json::json;

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::find;
use crate::session::{Session, TOOL};
use still::Still;

/// What is asked of a snapshot's marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Keep it whatever its age.
    Pin,
    /// No longer.
    Unpin,
    /// Somebody looked at what is unusual about it.
    Accept,
}

impl Wish {
    fn kind(self) -> MarkKind {
        match self {
            Self::Pin | Self::Unpin => MarkKind::Pin,
            Self::Accept => MarkKind::Accept,
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Unpin => "unpin",
            Self::Accept => "accept",
        }
    }

    fn done(self, change: Change, dry: bool) -> &'static str {
        match (self, change, dry) {
            (Self::Pin, Change::Made, false) => "pinned: it stays whatever its age",
            (Self::Pin, Change::Made, true) => "would be pinned",
            (Self::Pin, Change::None, _) => "is pinned already",
            (Self::Unpin, Change::Made, false) => "no longer pinned: it expires as others do",
            (Self::Unpin, Change::Made, true) => "would no longer be pinned",
            (Self::Unpin, Change::None, _) => "is not pinned",
            (Self::Accept, Change::Made, false) => "accepted",
            (Self::Accept, Change::Made, true) => "would be accepted",
            (Self::Accept, Change::None, _) => "is accepted already",
            (_, Change::TooLate, _) => "too late: a prune is deleting it",
            (_, Change::NotBelieved, _) => "was signed, and the signature is not believed",
        }
    }
}

/// Which snapshot.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The snapshot's id, as `backup list` prints it, or the start of it
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Show what would be marked and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Marks it in every vault that has it. A vault that does not answer makes the end partial: `backup replicate` brings a mark
/// there later, but also brings a pin back from there.
pub(crate) async fn run(cx: &Context, wish: Wish, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    let signers = session.signers()?;
    let key = match wish {
        Wish::Unpin => None,
        Wish::Pin | Wish::Accept => Some(session.host_key()?),
    };
    // Opened as for writing: what the endpoint does with what it is sent must have been seen.
    let (vaults, silent) = session.vaults(None, !args.dry_run).await?;
    let configured = session.config.sources.iter().map(|source| source.name.clone()).collect();
    let found = find::in_vaults(vaults, silent, session.stack(), configured, &[]).await?;
    found.require_one()?;
    let mut exit = found.warn(&session);
    let (source, listed) = find::by_id(&found.listed, &args.id)?;
    let kind = wish.kind();
    let now = cx.clock.now();
    let here = |vault: &&Vault| listed.vaults.iter().any(|other| other.name() == vault.name());
    // A pin may lie where the snapshot does not (yet): from there it would come back.
    let vaults = found.vaults.iter().filter(|vault| wish == Wish::Unpin || here(vault));
    let (mut lifted, mut facts) = (Vec::new(), BTreeSet::new());
    if wish == Wish::Accept {
        for vault in found.vaults.iter().filter(here) {
            // One that is not believed is told below.
            let path = listed.dir.snapshot(&listed.id, ".json");
            let Ok(snapshot) = vault.get_signed::<SnapshotDoc>(&path, &signers).await else { continue };
            if let Ok(Some(says)) = mark::wanted(vault, &signers, &snapshot, kind).await {
                facts.extend(Fact::of(&says));
            }
        }
        lifted = still::lifts(&session, &found, source, &facts).await?;
    }
    let mut done: Vec<(&str, Change)> = Vec::new();
    for vault in vaults {
        let one = async {
            let Some(key) = &key else {
                if args.dry_run {
                    let there = mark::is_there(vault, &listed.dir, &listed.id, kind).await?;
                    return Ok(if there { Change::Made } else { Change::None });
                }
                let change = mark::remove(vault, &listed.dir, &listed.id, kind).await?;
                // Also where there was no mark: a call that died may have left the hold.
                mark::hold::lift(vault, &signers, &listed.dir, &listed.id).await?;
                return Ok(change);
            };
            let path = listed.dir.snapshot(&listed.id, ".json");
            let snapshot = vault.get_signed::<SnapshotDoc>(&path, &signers).await?;
            if args.dry_run {
                let wanted = mark::wanted(vault, &signers, &snapshot, kind).await?;
                return Ok(if wanted.is_some() { Change::Made } else { Change::None });
            }
            let change = mark::set(vault, (key, &signers), &snapshot, kind, (now, TOOL)).await?;
            if wish == Wish::Pin && matches!(change, Change::Made | Change::None) {
                mark::hold::set(vault, &snapshot).await?;
            }
            Ok(change)
        };
        let result: Result<Change, VaultError> = one.await;
        match result {
            Ok(change @ (Change::Made | Change::None)) => done.push((vault.name(), change)),
            Ok(change) => {
                let hint = match change {
                    Change::TooLate => "copy it from another vault with `backup replicate`, where one has it",
                    _ => "see in `keys.signers` whether this host's key may sign now, and repeat it",
                };
                let text = format!("vault `{}`: `{}` {}", vault.name(), listed.id, wish.done(change, args.dry_run));
                cx.printer.warn(&text, hint);
                exit = exit.worse(Exit::Failed);
            }
            Err(error) => {
                let error = CliError::from(error);
                let text = format!("vault `{}`: {}", vault.name(), error.message());
                cx.printer.warn(&text, error.advice().unwrap_or("repeat this when it is mended"));
                exit = exit.worse(error.as_part());
            }
        }
    }
    if done.is_empty() {
        return Err(CliError::new(exit.worse(Exit::Failed), format!("no vault took it: `{}` is as before", listed.id))
            .hint("see the warnings above"));
    }
    if wish == Wish::Unpin && exit != Exit::Done {
        cx.printer.warn(
            "a pin in a vault that was not reached keeps the snapshot there, and comes back with `backup replicate`",
            &format!("repeat `backup unpin {}` when all vaults answer", listed.id.short()),
        );
    }
    let facts = if args.dry_run { facts } else { BTreeSet::new() };
    let still = match wish {
        Wish::Accept => Some(Still::look(&session, &found, &signers, (source, &listed.id), &facts).await?),
        Wish::Pin | Wish::Unpin => None,
    };
    let word = |change: &Change| if *change == Change::Made { "made" } else { "none" };
    let listed_done = done.iter().map(|(vault, change)| json!({ "vault": vault, "change": word(change) }));
    let value = json!({
        "snapshot": listed.id, "source": source, "mark": kind.word(), "wish": wish.verb(),
        "dry_run": args.dry_run, "vaults": listed_done.collect::<Vec<_>>(), "silent": found.silent_json(),
        "also_closes": lifted.iter().map(|(vault, cause)| json!({ "vault": vault, "cause": cause })).collect::<Vec<_>>(),
        "still": still.as_ref().map(Still::to_json),
    });
    cx.printer.result(wish.verb(), value, || {
        let line = |(vault, change): &(&str, Change)| {
            let thaws = wish == Wish::Accept && *change == Change::Made && !args.dry_run && listed.id.is_suspect();
            let more = if thaws { ": it freezes nothing any more" } else { "" };
            format!("{source} {}, vault {vault}: {}{more}\n", listed.id, wish.done(*change, args.dry_run))
        };
        let also = |(vault, cause): &(String, String)| format!("this also closes, vault {vault}: {cause}\n");
        let closed = lifted.iter().map(also);
        done.iter()
            .map(line)
            .chain(closed)
            .chain(still.iter().map(|still| still.text(session.config.timezone)))
            .collect()
    })?;
    Ok(exit)
}
