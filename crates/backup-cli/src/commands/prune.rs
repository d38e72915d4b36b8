//! `backup prune`.

use std::fmt::Write as _;

use backup_core::id::SourceName;
use backup_core::prune::{Action, Step, Undone, Waiver};
use backup_core::vault::document::Holder;
use backup_core::vault::layout::GenerationDir;
use serde_json::{Value, json};

use crate::commands::silent;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::pruning::{self, Pruning, policy_text, word};
use crate::session::Session;
use crate::table::Table;
use crate::words;

/// Show which generations have expired; delete them with --apply
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Mark and delete; without it nothing is changed
    #[arg(long, conflicts_with = "undo")]
    pub(crate) apply: bool,
    /// Take back the marks of generations that are not yet being deleted
    #[arg(long)]
    pub(crate) undo: bool,
    /// Only this vault
    #[arg(long, value_name = "NAME")]
    pub(crate) vault: Option<String>,
    /// Do not wait for the day between announcing and deleting where another vault holds everything: all of it is read there
    /// and hashed first. The newer snapshot is waited for all the same
    #[arg(long, conflicts_with = "undo")]
    pub(crate) now: bool,
    /// Plan as if this vault promised nothing, for one that is lost for good; give it in both calls
    #[arg(long, value_name = "VAULT", conflicts_with = "undo")]
    pub(crate) without_replica: Vec<String>,
}

/// Plans, and acts where asked. A frozen plan is no failure: it is said, and nothing expires.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    for name in args.vault.iter().chain(&args.without_replica) {
        session.check_vault(Some(name))?;
    }
    if args.undo {
        return undo(cx, &session, args.vault.as_deref()).await;
    }
    let key = if args.apply { Some(session.host_key()?) } else { None };
    // All vaults, also with `--vault`: what the others hold decides what may go here.
    let (vaults, quiet) = session.vaults(None, args.apply).await?;
    let end = silent::report(cx, &vaults, &quiet)?;
    let acts = |name: &str| args.vault.as_deref().is_none_or(|only| only == name);
    let waiver = Waiver { now: args.now, without: args.without_replica.clone() };
    let prunings = pruning::prune(&session, &vaults, &acts, &session.sources(&[])?, key.as_ref(), &waiver).await?;
    for pruning in &prunings {
        if let Some(error) = &pruning.error {
            let text = format!("vault `{}`, source `{}`: {}", pruning.vault, pruning.source, error.message());
            cx.printer.warn(&text, error.advice().unwrap_or_default());
        }
    }
    let listed: Vec<Value> = prunings.iter().map(Pruning::to_json).collect();
    let value = json!({
        "applied": args.apply, "now": args.now, "without_replica": args.without_replica, "plans": listed,
        "silent": silent::to_json(&quiet),
    });
    cx.printer.result("prune", value, || {
        let mut text: String = prunings.iter().map(pruning_text).collect();
        text.push_str(&summary(&prunings, args.apply, quiet.is_empty()));
        text
    })?;
    Ok(end.worse(pruning::exit(&prunings)))
}

/// What taking back came to, over all vaults that answer.
#[derive(Default)]
struct TakenBack {
    undone: Vec<(String, GenerationDir)>,
    late: Vec<(String, GenerationDir)>,
    purged: Vec<(String, GenerationDir)>,
    /// What failed: at a vault's source, or at one generation of it.
    failed: Vec<Value>,
}

async fn undo(cx: &Context, session: &Session<'_>, only: Option<&str>) -> Result<Exit, CliError> {
    let (vaults, quiet) = session.vaults(only, true).await?;
    let mut end = silent::report(cx, &vaults, &quiet)?;
    let signers = session.signers()?;
    let mut back = TakenBack::default();
    for vault in &vaults {
        for source in session.config.sources.iter().map(|source| &source.name) {
            match backup_core::prune::undo(vault, &signers, session.stack(), source).await {
                Ok(found) => end = end.worse(back.take(cx, vault.name(), found)),
                Err(error) => {
                    let error = CliError::from(error);
                    cx.printer.warn(error.message(), error.advice().unwrap_or_default());
                    end = end.worse(error.as_part());
                    back.fail(vault.name(), source, None, &error);
                }
            }
        }
    }
    let one =
        |(vault, dir): &(String, GenerationDir)| json!({ "vault": vault, "source": dir.source, "generation": dir.id });
    let list = |all: &[(String, GenerationDir)]| all.iter().map(one).collect::<Vec<Value>>();
    let found = json!({
        "undone": list(&back.undone), "too_late": list(&back.late), "purged": list(&back.purged), "failed": back.failed,
        "silent": silent::to_json(&quiet),
    });
    cx.printer.result("prune", found, || back.text(end))?;
    Ok(end)
}

impl TakenBack {
    /// Notes what was found in one vault, and warns of what was not taken back. How the verb ends by that.
    fn take(&mut self, cx: &Context, vault: &str, found: Undone) -> Exit {
        let mut end = Exit::Done;
        let named = |dir: &GenerationDir| format!("vault `{vault}`: generation {} of `{}`", dir.id, dir.source);
        for dir in &found.purged {
            let hint = format!("take it back with `backup purge {} --source {} --undo`", dir.id, dir.source);
            cx.printer.warn(&format!("{} is being purged, which this does not take back", named(dir)), &hint);
        }
        for (dir, error) in found.failed {
            let error = CliError::from(error);
            let again = format!("repeat `backup prune --undo --vault {vault}` before the next prune");
            let hint = error.advice().map_or_else(|| again.clone(), |advice| format!("{advice}; then {again}"));
            cx.printer.warn(&format!("{} may still be announced: {}", named(&dir), error.message()), &hint);
            end = end.worse(error.as_part());
            self.fail(vault, &dir.source, Some(&dir), &error);
        }
        for dir in &found.too_late {
            let hint = format!(
                "what is left of it goes with the next `backup prune --apply --vault {vault}`; see with `backup list` \
                 whether another vault holds it"
            );
            cx.printer.warn(&format!("{}: too late, its deletion has begun", named(dir)), &hint);
            end = end.worse(Exit::Partial);
        }
        let all = |dirs: Vec<GenerationDir>| dirs.into_iter().map(|dir| (vault.to_owned(), dir));
        self.undone.extend(all(found.made));
        self.late.extend(all(found.too_late));
        self.purged.extend(all(found.purged));
        end
    }

    fn fail(&mut self, vault: &str, source: &SourceName, dir: Option<&GenerationDir>, error: &CliError) {
        self.failed.push(json!({
            "vault": vault, "source": source, "generation": dir.map(|dir| &dir.id), "error": error.to_json(),
        }));
    }

    fn text(&self, end: Exit) -> String {
        let lines = self.undone.iter().map(|(vault, dir)| format!("{vault}: {} {} stays\n", dir.source, dir.id));
        let mut text: String = lines.collect();
        if self.undone.is_empty() && self.late.is_empty() && end != Exit::Done {
            text.push_str("nothing was taken back: not everything could be asked\n");
        } else if self.undone.is_empty() && self.late.is_empty() {
            let none = self.purged.is_empty();
            let what = if none { "nothing is announced" } else { "no prune announced anything" };
            let _ = writeln!(text, "{what}; nothing to take back");
        }
        if !self.undone.is_empty() {
            text.push_str(
                "the next `backup prune --apply` announces what has expired again: keep it with `backup pin ID`, or by a longer `keep`\n",
            );
        }
        text
    }
}

fn pruning_text(pruning: &Pruning) -> String {
    let head = format!("vault {}, source {}", pruning.vault, pruning.source);
    let Some(keep) = &pruning.keep else {
        return format!("{head}: no `keep`, so nothing expires\n\n");
    };
    let mut text = format!("{head}: keep {}\n", policy_text(keep));
    let Some(plan) = &pruning.plan else {
        text.push_str("  not planned, see above\n\n");
        return text;
    };
    for without in plan.without() {
        let _ = writeln!(text, "  planned as if vault `{without}` promised nothing");
    }
    for foreign in &plan.foreign {
        let _ = writeln!(text, "  {foreign}");
    }
    for freeze in &plan.frozen {
        let _ = writeln!(text, "  nothing expires: {freeze}");
    }
    if let Some(held) = &plan.held {
        let _ = writeln!(text, "  nothing is deleted: {held}");
    }
    if plan.steps.is_empty() {
        text.push_str("  holds nothing yet\n\n");
        return text;
    }
    let mut table = Table::new(&["GENERATION, SNAPSHOTS", "", "WHY"]);
    for step in &plan.steps {
        table.row(vec![step.dir.id.to_string(), word(&step.action).to_owned(), why(step)]);
        for (id, decision) in &step.snapshots {
            let (decision, reason) = decision.split_once(": ").unwrap_or((decision, ""));
            table.row(vec![format!("  {id}"), decision.to_owned(), reason.to_owned()]);
        }
    }
    text.push_str(&table.render());
    for done in &pruning.done {
        let action = match &done.action {
            Action::Announce => "announced: may be deleted by a run after 24 hours and a newer snapshot".to_owned(),
            Action::Withdraw => "announcement taken back: it stays".to_owned(),
            Action::Sweep => "swept: a signature that an interrupted deletion had left".to_owned(),
            Action::Wait { reason } => format!("not deleted yet: {reason}"),
            _ => format!("deleted: {} files, {}{}", done.files, words::bytes(done.bytes), held(done.holder.as_ref())),
        };
        let _ = writeln!(text, "{}: {action}", done.dir.id);
        if done.strangers > 0 {
            let _ = writeln!(text, "{}: {} files of others were left", done.dir.id, done.strangers);
        }
    }
    text.push('\n');
    text
}

/// Who was seen to hold what was deleted before its day was over.
fn held(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| {
        format!(
            "; vault `{}` holds it: {} objects, {} read there",
            holder.name,
            holder.objects,
            words::bytes(holder.bytes)
        )
    })
}

fn why(step: &Step) -> String {
    // The action's word is beside it.
    let reason = step.reason.split_once(": ").map_or(step.reason.as_str(), |(_, reason)| reason);
    match &step.action {
        Action::Wait { reason: wait } => format!("{reason}; {wait}"),
        Action::Withdraw => format!("{reason}; its announcement is taken back"),
        Action::Hurry { until, objects, bytes } => format!(
            "{reason}; before {} only if another vault holds it: about {objects} objects, {} to read there",
            until.format("%F %R UTC"),
            words::bytes(*bytes)
        ),
        _ => reason.to_owned(),
    }
}

/// `all`: every vault that was meant answered.
fn summary(prunings: &[Pruning], applied: bool, all: bool) -> String {
    let steps = || prunings.iter().filter_map(|pruning| pruning.plan.as_ref()).flat_map(|plan| &plan.steps);
    let count = |wanted: &[&str]| steps().filter(|step| wanted.contains(&word(&step.action))).count();
    let due = count(&["announce", "delete", "delete-now", "resume", "withdraw", "sweep"]);
    match (applied, due) {
        (_, 0) if prunings.is_empty() && !all => "nothing was planned: the vault does not answer\n".to_owned(),
        (false, 0) if !all => "nothing to do in the vaults that answer\n".to_owned(),
        (false, 0) => "nothing to do\n".to_owned(),
        (false, _) => format!("dry run: {due} generations would be changed; do it with `backup prune --apply`\n"),
        (true, _) => {
            let done = prunings.iter().flat_map(|pruning| &pruning.done);
            let done = done.filter(|done| !matches!(done.action, Action::Wait { .. })).count();
            format!("{done} generations changed\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::restore::tests::parse;

    #[test]
    fn is_dry_unless_told_and_never_both() {
        let args: Args = parse(&[]).unwrap();
        assert!(!args.apply && !args.undo);
        assert!(parse::<Args>(&["--apply", "--undo"]).is_err());
    }

    #[test]
    fn a_vault_without_keep_says_that_nothing_expires() {
        let pruning = Pruning {
            vault: "local".into(),
            source: "db".parse().unwrap(),
            keep: None,
            plan: None,
            done: Vec::new(),
            error: None,
        };
        assert_eq!(pruning_text(&pruning), "vault local, source db: no `keep`, so nothing expires\n\n");
        assert_eq!(summary(std::slice::from_ref(&pruning), false, true), "nothing to do\n");
        assert_eq!(summary(&[pruning], false, false), "nothing to do in the vaults that answer\n");
        for applied in [false, true] {
            assert!(summary(&[], applied, false).starts_with("nothing was planned"), "{applied}");
        }
    }
}
