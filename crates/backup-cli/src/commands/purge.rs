//! `backup purge`: a generation with leaked data goes, from every configured vault, whatever its age.
//!
//! All or nothing where it can be: what stands against it in one vault (a pin, the newest snapshot) stops it in all, before anything
//! is announced. A vault that does not answer still holds what has leaked, so it is named, and the end is partial.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use backup_core::id::SourceName;
use backup_core::prune::purge::{self, PurgeAction, PurgeEnd, PurgePlan, PurgeRequest, Refusal, Undone};
use backup_core::signature::Signers;
use backup_core::vault::layout::{self, GenerationDir, GenerationId};
use backup_core::vault::store::StoreError;
use backup_core::vault::{Vault, VaultError};
use serde_json::{Value, json};

use crate::commands::restore::aside;
use crate::commands::silent;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{Session, TOOL};
use crate::{terminal, words};

/// Longest reason: it stands in signed documents and on terminals.
const REASON_CHARS: usize = 300;

/// Remove a generation whatever its age, because of data that must not be there; in two calls, a day apart
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The generation, as `backup show ID` and `backup prune` print it
    #[arg(value_name = "GENERATION")]
    pub(crate) generation: GenerationId,
    /// Its source
    #[arg(long, value_name = "S")]
    pub(crate) source: SourceName,
    /// Why; it stands in the vault's receipt, where whoever keeps the vault can read it
    #[arg(long, value_name = "TEXT", required_unless_present = "undo", value_parser = reason)]
    pub(crate) reason: Option<String>,
    /// Only in this vault [default: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) vault: Option<String>,
    /// Announce it, or, a day later, delete it; without it nothing is changed
    #[arg(long, conflicts_with = "undo")]
    pub(crate) apply: bool,
    /// Also if it holds the newest snapshot; the next run opens a new generation
    #[arg(long, conflicts_with = "undo")]
    pub(crate) even_newest: bool,
    /// The generation's name once more, instead of typing it at the terminal
    #[arg(long, value_name = "GENERATION", requires = "apply")]
    pub(crate) yes: Option<GenerationId>,
    /// Take back what was announced, before it is deleted
    #[arg(long)]
    pub(crate) undo: bool,
}

/// A reason that fits on a line.
fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().any(char::is_control) || text.chars().count() > REASON_CHARS {
        return Err(format!("a reason is one line of 1 to {REASON_CHARS} characters"));
    }
    Ok(text.to_owned())
}

/// What was found out and done in one vault.
struct One {
    vault: String,
    /// Where the vault is.
    place: String,
    plan: PurgePlan,
    end: Option<PurgeEnd>,
    error: Option<CliError>,
}

/// Plans in every vault; acts where asked. Exit 3 where a vault did not answer or did not do it: the data is still there.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    session.check_vault(args.vault.as_deref())?;
    let signers = session.signers()?;
    let key = if args.apply { Some(session.host_key()?) } else { None };
    // All vaults, also with `--vault`: a pin in any of them is a person's word against it.
    let (mut vaults, mut quiet) = session.vaults(None, args.apply || args.undo).await?;
    let dir =
        GenerationDir { stack: session.stack().clone(), source: args.source.clone(), id: args.generation.clone() };
    if args.undo {
        vaults.retain(|vault| meant(args, vault.name()));
        quiet.retain(|(name, _)| meant(args, name));
        return undo(cx, &dir, &signers, &vaults, &quiet).await;
    }
    let request = PurgeRequest {
        dir: dir.clone(),
        reason: args.reason.clone().unwrap_or_default(),
        even_newest: args.even_newest,
        tool: TOOL.to_owned(),
    };
    let mut all = Vec::new();
    for vault in &vaults {
        match purge::plan(vault, &signers, &request).await {
            Ok(plan) => {
                let (name, place) = (vault.name().to_owned(), vault.describe());
                all.push((vault, One { vault: name, place, plan, end: None, error: None }));
            }
            Err(error) => quiet.push((vault.name().to_owned(), error.into())),
        }
    }
    if all.is_empty() {
        silent::report(cx, &[], &quiet)?;
    }
    refuse(args, &session, &dir, &all)?;
    all.retain(|(vault, _)| meant(args, vault.name()));
    quiet.retain(|(name, _)| meant(args, name));
    require_one(&session, &dir, &vaults, &all, &quiet).await?;
    let acts = |one: &One| matches!(one.plan.action, PurgeAction::Announce | PurgeAction::Delete | PurgeAction::Resume);
    if let Some(key) = &key
        && all.iter().any(|(_, one)| acts(one))
    {
        confirm(args).await?;
        for (vault, one) in all.iter_mut().filter(|(_, one)| acts(one)) {
            match purge::apply(vault, key, &one.plan).await {
                Ok(end) => one.end = Some(end),
                Err(error) => one.error = Some(failed(error)),
            }
        }
    }
    let ones: Vec<One> = all.into_iter().map(|(_, one)| one).collect();
    let end = warn(cx, &dir, &ones, &quiet);
    let listed: Vec<Value> = ones.iter().map(One::to_json).collect();
    let value = json!({
        "applied": args.apply, "source": dir.source, "generation": dir.id, "reason": args.reason, "vaults": listed,
        "silent": silent::to_json(&quiet),
    });
    cx.printer.result("purge", value, || {
        let lines: String = ones.iter().map(One::text).collect();
        let again = args.apply || !ones.iter().any(acts);
        let dry = if again { "" } else { "dry run: do it with the same call and `--apply`\n" };
        format!("purge of {} {}\n{lines}{dry}", dir.source, dir.id)
    })?;
    Ok(end)
}

fn meant(args: &Args, vault: &str) -> bool {
    args.vault.as_deref().is_none_or(|only| only == vault)
}

/// What to do about a lock.
const LOCK_HINT: &str =
    "Object Lock keeps it from everybody until then: change what was leaked, and purge when the lock has ended";

/// What stands against it in any vault that is meant stops it in all; of one that is not meant only a pin, which is a person's
/// word. A lock is nobody's word: it stops its own vault, and the call only where no other vault could go on.
fn refuse(args: &Args, session: &Session<'_>, dir: &GenerationDir, all: &[(&Vault, One)]) -> Result<(), CliError> {
    let (mut pins, mut reasons, mut hints) = (BTreeSet::new(), Vec::new(), Vec::new());
    let locked = |one: &One| matches!(one.plan.action, PurgeAction::Refuse(Refusal::Locked(_)));
    let only_locked =
        all.iter().filter(|(vault, one)| meant(args, vault.name()) && holds(one)).all(|(_, one)| locked(one));
    for (vault, one) in all {
        let PurgeAction::Refuse(refusal) = &one.plan.action else { continue };
        if !stops(refusal, meant(args, vault.name()), only_locked) {
            continue;
        }
        let reason = match refusal {
            Refusal::Pinned(ids) => {
                pins.extend(ids.iter().map(|id| id.short().to_owned()));
                let names: Vec<String> = ids.iter().map(|id| format!("`{id}`")).collect();
                format!("pinned are {}", names.join(", "))
            }
            Refusal::Newest(why) => {
                hints.push(
                    "if it must go all the same, add `--even-newest`: the next run opens a new generation".to_owned(),
                );
                why.clone()
            }
            Refusal::Pruning => {
                hints.push("let the prune end: `backup prune --apply`".to_owned());
                "a prune is deleting it already".to_owned()
            }
            Refusal::Locked(why) => {
                hints.push(LOCK_HINT.to_owned());
                why.clone()
            }
            Refusal::NoSnapshot => {
                hints.push("nothing can be restored from it: remove its folder from the vault by hand".to_owned());
                "no snapshot of the source was ever committed there".to_owned()
            }
        };
        reasons.push(format!("vault `{}`: {reason}", vault.name()));
    }
    if reasons.is_empty() {
        return Ok(());
    }
    for vault in session.config.vaults.iter().filter(|vault| all.iter().all(|(open, _)| open.name() != vault.name)) {
        reasons.push(format!("vault `{}` does not answer", vault.name));
    }
    hints.extend(pins.iter().map(|id| format!("let it go with `backup unpin {id}`")));
    hints.dedup();
    let text = format!("generation `{}` is not purged, nothing was changed: {}", dir.id, reasons.join("; "));
    Err(CliError::usage(text).hint(hints.join("; ")))
}

/// Whether a refusal in one vault stops the call. `only_locked`: wherever it was to go, it is locked.
fn stops(refusal: &Refusal, meant: bool, only_locked: bool) -> bool {
    match refusal {
        Refusal::Pinned(_) => true,
        Refusal::Locked(_) => meant && only_locked,
        Refusal::Newest(_) | Refusal::Pruning | Refusal::NoSnapshot => meant,
    }
}

/// Whether the vault has anything of it.
fn holds(one: &One) -> bool {
    !matches!(one.plan.action, PurgeAction::Absent | PurgeAction::Gone { .. })
}

/// An error if no vault has, or had, anything of it: then the name is wrong, or those that have it do not answer.
async fn require_one(
    session: &Session<'_>,
    dir: &GenerationDir,
    vaults: &[Vault],
    all: &[(&Vault, One)],
    quiet: &[(String, CliError)],
) -> Result<(), CliError> {
    if all.iter().any(|(_, one)| one.plan.action != PurgeAction::Absent) {
        return Ok(());
    }
    let text = format!("no vault that answers has a generation `{}` of source `{}`", dir.id, dir.source);
    if let Some((name, error)) = quiet.first() {
        return Err(CliError::new(Exit::Partial, format!("{text}; vault `{name}` does not: {}", error.message()))
            .hint("repeat this when it answers: what it holds is still there"));
    }
    let mut known = BTreeSet::new();
    for vault in vaults {
        known.extend(vault.generations(session.stack(), &dir.source).await?.into_iter().map(|dir| dir.id));
    }
    let known: Vec<String> = known.iter().map(|id| format!("`{id}`")).collect();
    let hint = if known.is_empty() {
        "see what there is with `backup list`".to_owned()
    } else {
        format!("choose one of {}", known.join(", "))
    };
    Err(CliError::usage(text).hint(hint))
}

async fn confirm(args: &Args) -> Result<(), CliError> {
    let name = args.generation.to_string();
    let typed = if let Some(yes) = &args.yes {
        yes.to_string()
    } else {
        let prompt = format!("type `{name}` to purge it: ");
        aside(move || terminal::ask_line(&prompt)).await?.ok_or_else(|| {
            CliError::usage("`purge --apply` asks for the generation's name, and there is no terminal to ask at")
                .hint(format!("add `--yes {}`", args.generation))
        })?
    };
    if typed.trim() == name {
        return Ok(());
    }
    Err(CliError::usage(format!("`{name}` was not confirmed; nothing was changed"))
        .hint("give exactly the name of the generation that is to go"))
}

/// A store that does not let files go is what keeps leaked data: that is worth words of its own.
fn failed(error: VaultError) -> CliError {
    let denied = matches!(&error, VaultError::Store { source: StoreError::Denied { action: "delete", .. }, .. });
    let error = CliError::from(error);
    if !denied {
        return error;
    }
    CliError::new(error.exit(), format!("the data is still there: {}", error.message())).hint(
        "its files are locked (Object Lock), or these credentials may not delete: wait until the lock has ended, or use rights \
         that may; then repeat this call, which goes on where it stopped",
    )
}

/// Names what is still there; gives how the verb ends.
fn warn(cx: &Context, dir: &GenerationDir, ones: &[One], quiet: &[(String, CliError)]) -> Exit {
    let mut end = Exit::Done;
    for (name, error) in quiet {
        let text =
            format!("vault `{name}` cannot be used: {}: what it holds of {} is still there", error.message(), dir.id);
        cx.printer.warn(&text, "repeat this call when it answers");
        end = end.worse(error.as_part());
    }
    for one in ones {
        for foreign in &one.plan.foreign {
            cx.printer.warn(&format!("vault `{}`: {foreign}", one.vault), "");
        }
        if let PurgeAction::Refuse(Refusal::Locked(why)) = &one.plan.action {
            let text = format!("vault `{}`: {why}: what it holds of {} is still there", one.vault, dir.id);
            cx.printer.warn(&text, LOCK_HINT);
            end = end.worse(Exit::Partial);
        }
        if let Some(error) = &one.error {
            cx.printer.warn(&format!("vault `{}`: {}", one.vault, error.message()), error.advice().unwrap_or_default());
            end = end.worse(error.as_part());
        }
        if one.leaves_older() {
            let text = format!("vault `{}`: older versions of what was deleted are still there", one.vault);
            let below = format!("`{}` in {}, and below `{}`", dir.dir(), one.place, layout::DAMAGED);
            cx.printer
                .warn(&text, &format!("have the bucket's owner delete the older versions of what lay below {below}"));
            end = end.worse(Exit::Partial);
        }
        if one.end == Some(PurgeEnd::Changed) {
            let text = format!(
                "vault `{}`: a snapshot or a pin came in the last moment, or it was taken back, and nothing was deleted",
                one.vault
            );
            cx.printer.warn(&text, "see what it is, and repeat this call");
            end = end.worse(Exit::Partial);
        }
    }
    end
}

impl One {
    /// Whether the store still has, or may have, older versions of what was deleted now or by an earlier call.
    fn leaves_older(&self) -> bool {
        match (&self.end, &self.plan.action) {
            (Some(PurgeEnd::Deleted(purged)), _) => purged.older,
            (_, PurgeAction::Gone { older, .. }) => *older,
            _ => false,
        }
    }

    /// The word for programs.
    fn word(&self) -> &'static str {
        match (&self.end, &self.plan.action) {
            _ if self.error.is_some() => "failed",
            (Some(PurgeEnd::Announced { .. }), _) => "announced",
            (Some(PurgeEnd::Deleted(_)), _) => "deleted",
            (Some(PurgeEnd::Changed), _) => "changed",
            (_, PurgeAction::Absent) => "absent",
            (_, PurgeAction::Gone { .. }) => "gone",
            (_, PurgeAction::Refuse(_)) => "refuse",
            (_, PurgeAction::Announce) => "announce",
            (_, PurgeAction::Wait { .. }) => "wait",
            (_, PurgeAction::Delete) => "delete",
            (_, PurgeAction::Resume) => "resume",
        }
    }

    fn to_json(&self) -> Value {
        let until = match (&self.end, &self.plan.action) {
            (Some(PurgeEnd::Announced { until }), _) | (_, PurgeAction::Wait { until }) => Some(words::utc(*until)),
            _ => None,
        };
        let deleted = match &self.end {
            Some(PurgeEnd::Deleted(purged)) => Some(json!({
                "files": purged.files, "bytes": purged.bytes, "strangers": purged.strangers, "older_versions": purged.older,
            })),
            _ => None,
        };
        json!({
            "vault": self.vault, "action": self.word(), "snapshots": self.plan.snapshots, "objects": self.plan.objects,
            "damaged_copies": self.plan.aside, "bytes": self.plan.bytes, "may_be_deleted_from": until, "announced_reason": self.plan.announced,
            "foreign": self.plan.foreign, "deleted": deleted, "older_versions": self.leaves_older(), "error": self.error.as_ref().map(CliError::to_json),
        })
    }

    fn text(&self) -> String {
        let plan = &self.plan;
        let count = |number: u64, word| words::count(usize::try_from(number).unwrap_or(usize::MAX), word);
        let aside = if plan.aside > 0 {
            format!(", {} that repairs moved aside", count(plan.aside, "damaged file"))
        } else {
            String::new()
        };
        let size = format!(
            "{}, {}{aside}, {}",
            words::count(plan.snapshots.len(), "snapshot"),
            count(plan.objects, "object"),
            words::bytes(plan.bytes)
        );
        let at = |until: &chrono::DateTime<chrono::Utc>| until.format("%F %R UTC").to_string();
        let said = match (&self.end, &plan.action) {
            _ if self.error.is_some() => format!("failed, see above; {size} are still there"),
            (Some(PurgeEnd::Announced { until }), _) => {
                format!("announced ({size}): repeat this call from {} on, and it is deleted", at(until))
            }
            (Some(PurgeEnd::Deleted(purged)), _) => {
                let mut text = format!("deleted: {} files, {}", purged.files, words::bytes(purged.bytes));
                if purged.strangers > 0 {
                    let _ = write!(text, "; {} files of others were left", purged.strangers);
                }
                text
            }
            (Some(PurgeEnd::Changed), _) => format!("not deleted, see above; {size} are still there"),
            (_, PurgeAction::Absent) => "has nothing of it".to_owned(),
            (_, PurgeAction::Gone { at: when, .. }) => format!("was purged at {}", at(when)),
            (_, PurgeAction::Refuse(_)) => "refused".to_owned(),
            (_, PurgeAction::Announce) => format!("would be announced: {size}"),
            (_, PurgeAction::Wait { until }) => format!("is announced ({size}): may be deleted from {} on", at(until)),
            (_, PurgeAction::Delete) => format!("would be deleted: {size}"),
            (_, PurgeAction::Resume) => format!("its deletion was interrupted and would be ended: {size} are left"),
        };
        format!("vault {}: {said}\n", self.vault)
    }
}

async fn undo(
    cx: &Context,
    dir: &GenerationDir,
    signers: &Signers,
    vaults: &[Vault],
    quiet: &[(String, CliError)],
) -> Result<Exit, CliError> {
    let mut end = silent::report(cx, vaults, quiet)?;
    let mut undone = Vec::new();
    for vault in vaults {
        match purge::undo(vault, signers, dir).await {
            Ok(Undone::TooLate) => {
                let text = format!("vault `{}`: too late, its deletion has begun", vault.name());
                cx.printer.warn(&text, "another vault may still hold it: see `backup list`");
                end = end.worse(Exit::Partial);
                undone.push((vault.name(), "too-late"));
            }
            Ok(Undone::Made) => undone.push((vault.name(), "undone")),
            Ok(Undone::None) => undone.push((vault.name(), "none")),
            Err(error) => {
                let error = CliError::from(error);
                cx.printer.warn(error.message(), error.advice().unwrap_or_default());
                end = end.worse(error.as_part());
            }
        }
    }
    let listed = undone.iter().map(|(vault, word)| json!({ "vault": vault, "undone": word }));
    let value = json!({
        "source": dir.source, "generation": dir.id, "undone": listed.collect::<Vec<_>>(), "silent": silent::to_json(quiet),
    });
    cx.printer.result("purge", value, || {
        let line = |(vault, word): &(&str, &str)| match *word {
            "undone" => format!("vault {vault}: {} {} stays\n", dir.source, dir.id),
            "none" => format!("vault {vault}: no purge of {} was announced\n", dir.id),
            _ => format!("vault {vault}: {} is being deleted\n", dir.id),
        };
        undone.iter().map(line).collect()
    })?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::restore::tests::parse;

    const GENERATION: &str = "2026-11-21--7d--00112233";

    #[test]
    fn wants_a_source_and_a_reason_and_is_dry() {
        let args: Args = parse(&[GENERATION, "--source", "db", "--reason", " a leak "]).unwrap();
        assert!(!args.apply && !args.undo && !args.even_newest);
        assert_eq!(args.reason.as_deref(), Some("a leak"));
        assert!(parse::<Args>(&[GENERATION, "--source", "db", "--undo"]).is_ok());
        let long = "x".repeat(REASON_CHARS + 1);
        for bad in [
            &[GENERATION, "--source", "db"][..],
            &[GENERATION, "--reason", "x"],
            &["x", "--source", "db", "--reason", "x"],
            &[GENERATION, "--source", "db", "--reason", " "],
            &[GENERATION, "--source", "db", "--reason", "a\nb"],
            &[GENERATION, "--source", "db", "--reason", &long],
            &[GENERATION, "--source", "db", "--reason", "x", "--apply", "--undo"],
            &[GENERATION, "--source", "db", "--reason", "x", "--yes", GENERATION],
        ] {
            assert!(parse::<Args>(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn of_another_vault_only_a_pin_counts_and_a_lock_stops_its_own_vault() {
        let (pin, lock) = (Refusal::Pinned(Vec::new()), Refusal::Locked("until then".into()));
        assert!(stops(&pin, false, false) && stops(&pin, true, false));
        assert!(!stops(&lock, false, true) && !stops(&lock, true, false) && stops(&lock, true, true));
        for other in [Refusal::Newest("x".into()), Refusal::Pruning, Refusal::NoSnapshot] {
            assert!(!stops(&other, false, false) && stops(&other, true, false), "{other:?}");
        }
    }

    #[test]
    fn a_store_that_refuses_to_delete_is_named_with_what_to_do() {
        let denied = |action| VaultError::Store {
            vault: "offsite".into(),
            source: StoreError::Denied {
                action,
                path: "s/db/x".into(),
                store: "s3://b".into(),
                reason: "AccessDenied: locked".into(),
            },
        };
        let said = failed(denied("delete"));
        assert!(said.message().starts_with("the data is still there: vault `offsite`"), "{}", said.message());
        assert!(said.message().contains("locked") && said.advice().is_some_and(|hint| hint.contains("Object Lock")));
        assert_eq!(said.as_part(), Exit::Partial);
        assert!(!failed(denied("write")).message().contains("still there"));
    }
}
