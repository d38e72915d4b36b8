//! Which generations have expired in which vault, and removing them. Used by `prune` and after `run`.
//!
//! A vault is never planned alone: what another configured vault's policy still promises and that vault does not hold
//! whole is kept here, and a vault that cannot be asked counts as holding nothing. So an outage of one vault makes
//! another keep more, never less.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::config::{self, Keep, Step};
use backup_core::id::SourceName;
use backup_core::prune::history::{self, Memory, Reading};
use backup_core::prune::{self, Action, Done, PrunePlan, PruneRequest, Waiver, Witness, elsewhere};
use backup_core::signature::{HostKey, Signers};
use backup_core::state::{State, StateError};
use backup_core::vault::layout::{GenerationDir, GenerationId, SnapshotId};
use backup_core::vault::{Vault, VaultError};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use retention::{Freeze, History, Policy, Span};
use serde_json::{Value, json};

use crate::commands::silent;
use crate::error::CliError;
use crate::exit::Exit;
use crate::report::{StepReport, told};
use crate::session::{Session, TOOL};
use crate::words;

/// The configuration's `keep` for a source with generations of `generation`.
///
/// `keep = { min = 3 }`, without `within`, means that only the newest three are promised. A window is needed all the
/// same, because a gap longer than it freezes expiry: a window of a second would freeze it for ever. It is one generation
/// and a day: a generation closes no earlier than that after its last day, so this window keeps nothing that would
/// otherwise have been deleted, and an outage longer than a generation still freezes.
pub(crate) fn policy(keep: &Keep, generation: config::Span) -> Policy {
    let tier = |count: u32| (count > 0).then_some(count);
    let given = keep.within.map(|within| Span::seconds(within.as_seconds())).filter(|within| *within != Span::ZERO);
    Policy {
        within: given.unwrap_or_else(|| Span::seconds(generation.as_seconds()).plus(Span::days(1))),
        weekly: tier(keep.weekly),
        monthly: tier(keep.monthly),
        yearly: tier(keep.yearly),
        min: keep.min.max(1),
    }
}

/// What `keep` says, for people: `7d, min 3`.
pub(crate) fn policy_text(keep: &Keep) -> String {
    let tiers = [("weekly", keep.weekly), ("monthly", keep.monthly), ("yearly", keep.yearly)];
    let within = keep.within.map(|within| format!("within {within}"));
    let tiers = tiers.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}"));
    within.into_iter().chain(tiers).chain([format!("min {}", keep.min)]).collect::<Vec<_>>().join(", ")
}

/// What was found out and done about one source in one vault.
#[derive(Debug)]
pub(crate) struct Pruning {
    /// The vault.
    pub(crate) vault: String,
    /// The source.
    pub(crate) source: SourceName,
    /// What the vault promises; `None`: everything, for ever, so there is no plan.
    pub(crate) keep: Option<Keep>,
    /// The plan.
    pub(crate) plan: Option<PrunePlan>,
    /// What was done; empty in a dry run.
    pub(crate) done: Vec<Done>,
    /// Why it could not be planned or done.
    pub(crate) error: Option<CliError>,
}

impl Pruning {
    /// Lines for a run's report: why it could not be planned or done, or why nothing expires.
    fn problems(&self) -> Vec<String> {
        let what = format!("vault `{}`, source `{}`", self.vault, self.source);
        let frozen = self.plan.iter().flat_map(|plan| &plan.frozen);
        let frozen = frozen.map(|freeze| format!("{what}: nothing expires: {freeze}"));
        let foreign = self.plan.iter().flat_map(|plan| &plan.foreign).map(|text| format!("{what}: {text}"));
        let held = self.plan.iter().flat_map(|plan| &plan.held).map(|why| format!("{what}: nothing is deleted: {why}"));
        frozen.chain(held).chain(foreign).chain(self.error.iter().flat_map(|error| told(&what, error))).collect()
    }

    /// For `--json`.
    pub(crate) fn to_json(&self) -> Value {
        let plan = self.plan.as_ref();
        let frozen: Vec<String> = plan.iter().flat_map(|plan| &plan.frozen).map(ToString::to_string).collect();
        let generations: Vec<Value> = plan
            .iter()
            .flat_map(|plan| &plan.steps)
            .map(|step| {
                let one = |(id, text): &(_, String)| json!({ "snapshot": id, "decision": text });
                let snapshots: Vec<Value> = step.snapshots.iter().map(one).collect();
                let wait = if let Action::Wait { reason } = &step.action { Some(reason) } else { None };
                let hurry = if let Action::Hurry { until, objects, bytes } = &step.action {
                    Some(json!({ "otherwise_from": words::utc(*until), "objects": objects, "bytes": bytes }))
                } else {
                    None
                };
                json!({
                    "generation": step.dir.id, "action": word(&step.action), "wait": wait, "now": hurry,
                    "reason": step.reason, "snapshots": snapshots,
                })
            })
            .collect();
        let done = |done: &Done| {
            let wait = if let Action::Wait { reason } = &done.action { Some(reason) } else { None };
            json!({
                "generation": done.dir.id, "action": word(&done.action), "files": done.files,
                "bytes": done.bytes, "strangers": done.strangers, "wait": wait, "held_by": done.holder,
            })
        };
        json!({
            "vault": self.vault, "source": self.source, "keep": self.keep.as_ref().map(policy_text), "frozen": frozen,
            "held": plan.and_then(|plan| plan.held.as_ref()),
            "without": plan.map(PrunePlan::without), "foreign": plan.map(|plan| &plan.foreign), "generations": generations, "done": self.done.iter().map(done).collect::<Vec<_>>(),
            "error": self.error.as_ref().map(CliError::to_json),
        })
    }
}

/// The word for what is done with a generation.
pub(crate) fn word(action: &Action) -> &'static str {
    match action {
        Action::Keep => "keep",
        Action::Announce => "announce",
        Action::Wait { .. } => "wait",
        Action::Withdraw => "withdraw",
        Action::Delete => "delete",
        Action::Hurry { .. } => "delete-now",
        Action::Resume => "resume",
        Action::Sweep => "sweep",
    }
}

/// How a run ends that did this.
pub(crate) fn exit(prunings: &[Pruning]) -> Exit {
    let waits = |plan: &PrunePlan| !plan.locked.is_empty() || plan.held.is_some();
    let waiting = prunings.iter().filter_map(|pruning| pruning.plan.as_ref()).any(waits);
    let end = if waiting { Exit::Partial } else { Exit::Done };
    prunings.iter().filter_map(|pruning| pruning.error.as_ref()).fold(end, |end, e| end.worse(e.as_part()))
}

/// Plans, and with a key also acts, for each of `sources` in those of `vaults` that `acts` names.
///
/// `vaults` should be all that answer, also those that are left alone: a configured vault that is not among them counts as holding nothing. Errors: only
/// what keeps everything from starting (the signers); a vault that fails on the way is named in the result.
pub(crate) async fn prune(
    session: &Session<'_>,
    vaults: &[Vault],
    acts: &(dyn Fn(&str) -> bool + Sync),
    sources: &[&config::Source],
    key: Option<&HostKey>,
    waiver: &Waiver,
) -> Result<Vec<Pruning>, CliError> {
    prune_as_if(session, vaults, acts, sources, key, (waiver, &BTreeSet::new())).await
}

/// [`prune()`], as if the marks `also` were in the vaults as well.
pub(crate) async fn prune_as_if(
    session: &Session<'_>,
    vaults: &[Vault],
    acts: &(dyn Fn(&str) -> bool + Sync),
    sources: &[&config::Source],
    key: Option<&HostKey>,
    (waiver, also): (&Waiver, &BTreeSet<history::Fact>),
) -> Result<Vec<Pruning>, CliError> {
    let signers = session.signers()?;
    let mut known: BTreeMap<&str, BTreeSet<(GenerationDir, String)>> = BTreeMap::new();
    let (mut state, mut is_broken) = (None, false);
    if session.state_dir().is_ok_and(|dir| dir.join("state.sqlite").exists()) {
        // A broken state is one that was lost. Who only plans moves nothing.
        state = if key.is_some() { Some(session.state_or_new().await??) } else { session.state_if_whole().await? };
        is_broken = state.is_none();
        for (vault, open) in vaults.iter().flat_map(|vault| state.iter().map(move |open| (vault, open))) {
            known.insert(vault.name(), open.damaged(vault.id()).await?);
        }
    }
    let none = BTreeSet::new();
    let damaged = |vault: &Vault| known.get(vault.name()).unwrap_or(&none);
    let eyes = Eyes { session, vaults, signers: &signers, damaged: &damaged, also, state: state.as_ref() };
    let mut all = Vec::new();
    for source in sources {
        let forgotten = eyes.forgotten(source, waiver, is_broken).await?;
        let mut round = eyes.look(source, state.as_ref(), None).await;
        let mut is_remembered = state.is_some();
        for vault in vaults.iter().filter(|vault| acts(vault.name())) {
            let keep = session.config.vault(vault.name()).and_then(|vault| vault.keep);
            let mut pruning = Pruning {
                vault: vault.name().to_owned(),
                source: source.name.clone(),
                keep,
                plan: None,
                done: Vec::new(),
                error: None,
            };
            if let Some(keep) = keep {
                // Pruning the vault before may have taken hours: whatever is done next, somebody may have decided otherwise.
                if key.is_some() && round.is_old {
                    (round, is_remembered) = (eyes.look(source, state.as_ref(), Some(vault)).await, state.is_some());
                }
                let mut plan = eyes.plan(&round, vault, source, &keep, waiver).await;
                if let (Ok(plan), Some(reason)) = (&mut plan, &forgotten) {
                    plan.hold(reason);
                }
                // What is deleted for good is decided by what lies there now, not by what was remembered, and the vault itself is read
                // last: reading the others may take long.
                let is_last = vaults.last().is_some_and(|last| last.id() == vault.id());
                if key.is_some() && plan.as_ref().is_ok_and(PrunePlan::deletes) && (is_remembered || !is_last) {
                    (round, is_remembered) = (eyes.look(source, None, Some(vault)).await, false);
                    plan = eyes.plan(&round, vault, source, &keep, waiver).await;
                }
                let beside = vaults.iter().filter(|other| other.id() != vault.id());
                let witnesses: Vec<Witness<'_>> =
                    beside.map(|other| Witness { vault: other, damaged: damaged(other) }).collect();
                match plan {
                    Ok(plan) => {
                        if also.is_empty() {
                            eyes.note_frozen(vault, source, &plan, key.is_some()).await;
                        }
                        if let Some(key) = key {
                            match prune::apply_beside(vault, key, &plan, &witnesses).await {
                                Ok(done) => {
                                    eyes.forget(vault, &done).await;
                                    pruning.done = done;
                                }
                                Err(error) => pruning.error = Some(error.into()),
                            }
                            round.is_old = true;
                        }
                        pruning.plan = Some(plan);
                    }
                    Err(error) => pruning.error = Some(error.into()),
                }
            }
            all.push(pruning);
        }
    }
    Ok(all)
}

/// Whoever plans: what it asks, and by whose word.
struct Eyes<'a> {
    session: &'a Session<'a>,
    vaults: &'a [Vault],
    signers: &'a Signers,
    damaged: &'a (dyn Fn(&Vault) -> &'a BTreeSet<(GenerationDir, String)> + Sync),
    also: &'a BTreeSet<history::Fact>,
    /// What this host committed, and what it was told.
    state: Option<&'a State>,
}

/// When a vault was read: by the store's clock and by this host's. A plan compares the two, so both are of one instant.
#[derive(Clone, Copy)]
struct Instants {
    store: DateTime<Utc>,
    host: DateTime<Utc>,
}

/// What all vaults that answered show of one source.
struct Round<'a> {
    readings: BTreeMap<&'a str, (Instants, Reading)>,
    /// Each as it stands alone.
    seen: BTreeMap<&'a str, History>,
    /// A pin in one vault protects in all, also before it was replicated.
    marks: BTreeSet<history::Fact>,
    /// Something was done since.
    is_old: bool,
}

impl<'a> Eyes<'a> {
    /// Reads every vault once. With `state`, what did not change since it was last read is not opened again. A vault that cannot be
    /// read holds nothing. `last` is read last.
    async fn look(&self, source: &config::Source, state: Option<&State>, last: Option<&Vault>) -> Round<'a> {
        let mut round =
            Round { readings: BTreeMap::new(), seen: BTreeMap::new(), marks: self.also.clone(), is_old: false };
        let is_last = |vault: &&'a Vault| last.is_some_and(|last| last.id() == vault.id());
        let (rest, last): (Vec<&Vault>, Vec<&Vault>) = self.vaults.iter().partition(|vault| !is_last(vault));
        for vault in rest.into_iter().chain(last) {
            let Ok((at, reading)) = self.read(vault, source, state).await else { continue };
            round.marks.extend(reading.facts());
            round.seen.insert(vault.name(), reading.history(&BTreeSet::new(), &BTreeSet::new()));
            round.readings.insert(vault.name(), (at, reading));
        }
        round
    }

    async fn read(
        &self,
        vault: &Vault,
        source: &config::Source,
        state: Option<&State>,
    ) -> Result<(Instants, Reading), VaultError> {
        let at = Instants { store: vault.now().await?, host: self.session.cx.clock.now() };
        // A memory that fails is one that was lost.
        let memory = match state {
            Some(state) => match state.readings(vault.id(), &source.name).await {
                Ok(generations) => Some(Memory { now: at.store, generations }),
                Err(error) => {
                    self.forgets(&error);
                    None
                }
            },
            None => None,
        };
        let whose = (self.session.stack(), &source.name);
        let reading = history::look(vault, self.signers, whose, (self.damaged)(vault), memory.as_ref()).await?;
        if let (Some(state), Some(_)) = (state, &memory) {
            let set = state.set_readings(vault.id(), &source.name, reading.noted(), &reading.dirs()).await;
            let _ = set.inspect_err(|error| self.forgets(error));
        }
        Ok((at, reading))
    }

    /// Why nothing may be deleted, where this host has forgotten what is damaged in a vault whose copies count: what rots there would
    /// count for whole, and a good copy go for it, here or elsewhere. A vault that does not answer counts for nothing, nor does one
    /// that is passed over.
    async fn forgotten(
        &self,
        source: &config::Source,
        waiver: &Waiver,
        is_broken: bool,
    ) -> Result<Option<String>, StateError> {
        let again =
            "`backup verify --read-data 1/1` finds it again (what only decryption showed, with `--identity FILE`)";
        if is_broken {
            return Ok(Some(format!(
                "the state is broken, and what it knew to be damaged is not known: `backup run` begins a new one, then {again}"
            )));
        }
        let Some(state) = self.state else { return Ok(None) };
        let now = self.session.cx.clock.now();
        let (mut names, mut until) = (Vec::new(), None);
        for vault in self.vaults.iter().filter(|vault| !waiver.without.iter().any(|name| name == vault.name())) {
            if let Some(end) = state.forgotten(vault.id(), &source.name, now).await? {
                names.push(format!("`{}`", vault.name()));
                until = until.max(Some(end));
            }
        }
        Ok(until.map(|until| {
            let (names, until) = (names.join(", "), until.format("%F %R UTC"));
            format!(
                "what was damaged in vault {names} was forgotten with a broken state: {again}, or it goes on at {until}"
            )
        }))
    }

    /// What this host committed into a vault, and what any vault shows.
    async fn known(
        &self,
        round: &Round<'_>,
        vault: &Vault,
        source: &config::Source,
    ) -> BTreeSet<(GenerationId, SnapshotId)> {
        let stamps = round.seen.values().flat_map(|history| &history.stamps);
        let mut known: BTreeSet<(GenerationId, SnapshotId)> =
            stamps.filter_map(|stamp| Some((stamp.generation.parse().ok()?, stamp.id.parse().ok()?))).collect();
        if let Some(state) = self.state {
            // A memory that fails is one that was lost.
            match state.commits(vault.id(), &source.name).await {
                Ok(commits) => known.extend(commits),
                Err(error) => self.forgets(&error),
            }
        }
        known
    }

    /// What was committed into generations that are gone need not be asked for again.
    async fn forget(&self, vault: &Vault, done: &[Done]) {
        let gone = |done: &&Done| matches!(done.action, Action::Delete | Action::Hurry { .. } | Action::Resume);
        for done in done.iter().filter(gone) {
            if let Some(state) = self.state {
                let _ = state.forget_commits(vault.id(), &done.dir).await.inspect_err(|error| self.forgets(error));
            }
        }
    }

    /// For `status`. That there is no snapshot it sees by itself. A plan that is only shown tells nobody of a freeze, and that none is
    /// left.
    async fn note_frozen(&self, vault: &Vault, source: &config::Source, plan: &PrunePlan, acts: bool) {
        let Some(state) = self.state else { return };
        let frozen = plan.frozen.iter().filter(|freeze| !matches!(freeze, Freeze::NoSnapshot));
        let reasons: Vec<String> = frozen.map(ToString::to_string).collect();
        if !acts {
            // Nothing is written but that a freeze is over.
            let before = state.frozen(vault.id(), &source.name).await;
            if !reasons.is_empty() || !matches!(before, Ok(Some((old, _))) if !old.is_empty()) {
                return;
            }
        }
        let now = self.session.cx.clock.now();
        let noted = state.set_frozen(vault.id(), &source.name, &reasons, now).await;
        let _ = noted.inspect_err(|error| self.forgets(error));
    }

    fn forgets(&self, error: &StateError) {
        let error = CliError::caused(Exit::Failed, "what was read of a vault is not remembered", error);
        self.session.cx.printer.detail(error.message());
    }

    async fn plan(
        &self,
        round: &Round<'_>,
        vault: &Vault,
        source: &config::Source,
        keep: &Keep,
        waiver: &Waiver,
    ) -> Result<PrunePlan, VaultError> {
        let config = &self.session.config;
        let now = self.session.cx.clock.now();
        let named = |other: &config::Vault| waiver.without.contains(&other.name);
        let others = config.vaults.iter().filter(|other| other.name != vault.name() && !named(other));
        let request = PruneRequest {
            stack: self.session.stack().clone(),
            source: source.name.clone(),
            policy: policy(keep, source.generation),
            timezone: config.timezone,
            host_now: round.readings.get(vault.name()).map_or(now, |(at, _)| at.host),
            promised_elsewhere: promised(others, source, &round.seen, now, config.timezone),
            marks: round.marks.clone(),
            known: self.known(round, vault, source).await,
            damaged: (self.damaged)(vault).clone(),
            tool: TOOL.to_owned(),
        };
        match round.readings.get(vault.name()) {
            Some((at, reading)) => prune::plan_of(vault, self.signers, &request, waiver, (reading, at.store)).await,
            // It failed; whoever is to prune it meets the error.
            None => prune::plan_waiving(vault, self.signers, &request, waiver).await,
        }
    }
}

/// Prunes as a step of a run: the job's `sources`, in the vaults that it fills (`own`). The others are read only: what they
/// hold decides what may go, and one that does not answer makes more stay.
pub(crate) async fn follow(
    session: &Session<'_>,
    sources: &[&config::Source],
    own: &[&config::Vault],
) -> Result<StepReport, CliError> {
    let key = session.host_key()?;
    let acts = |name: &str| own.iter().any(|vault| vault.name == name);
    let (mut vaults, mut silent) = (Vec::new(), Vec::new());
    for vault in &session.config.vaults {
        match session.vault(vault, acts(&vault.name)).await {
            Ok(open) => vaults.push(open),
            Err(error) if acts(&vault.name) => silent.push((vault.name.clone(), error)),
            Err(_) => {}
        }
    }
    let prunings = prune(session, &vaults, &acts, sources, Some(&key), &Waiver::default()).await?;
    let end = silent.iter().fold(exit(&prunings), |end, (_, error)| end.worse(error.as_part()));
    let problems = prunings.iter().flat_map(Pruning::problems).chain(silent::lines(&silent)).collect();
    Ok(StepReport { step: Step::Prune, exit: end, found: prunings.iter().map(Pruning::to_json).collect(), problems })
}

/// What the policies of `others` promise over everything that any vault has, and they do not hold whole.
fn promised<'a>(
    others: impl Iterator<Item = &'a config::Vault>,
    source: &config::Source,
    seen: &BTreeMap<&str, History>,
    now: DateTime<Utc>,
    timezone: Tz,
) -> BTreeSet<String> {
    let others = others.map(|other| {
        let policy = other.keep.as_ref().map(|keep| policy(keep, source.generation));
        (policy, seen.get(other.name.as_str()))
    });
    elsewhere::promised(others, &history::union(seen.values()), now, timezone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::config::Config;
    use backup_core::prune::history::union;
    use chrono::TimeDelta;
    use retention::Stamp;

    fn keep(within: Option<config::Span>, min: u32) -> Keep {
        Keep { within, weekly: 0, monthly: 0, yearly: 0, min }
    }

    fn now() -> DateTime<Utc> {
        "2026-06-01T03:00:00Z".parse().unwrap()
    }

    fn stamp(age_days: i64) -> Stamp {
        Stamp::whole(format!("{age_days}d"), "g".to_owned(), now() - TimeDelta::days(age_days))
    }

    fn history(ages_days: impl IntoIterator<Item = i64>) -> History {
        History { stamps: ages_days.into_iter().map(stamp).collect(), ..History::default() }
    }

    #[test]
    fn without_a_window_only_the_newest_are_promised_and_nothing_freezes() {
        for days in [1, 7, 28] {
            let generation = config::Span::days(days);
            for within in [None, Some(config::Span::seconds(0))] {
                let policy = policy(&keep(within, 3), generation);
                assert_eq!(policy.check(), Ok(()));
                assert_eq!(policy.within, Span::days(days + 1));
                let clocks = retention::Clocks { store: now(), host: now() };
                // Nightly snapshots, the newest a day old: no gap, and everything past the window is expired.
                let plan = retention::plan(&policy, &history(1..60), clocks, Tz::UTC);
                assert_eq!(plan.frozen, None);
                let kept = plan.snapshots.iter().filter(|decision| decision.keep).count();
                assert_eq!(kept, usize::try_from(days + 2).unwrap().max(3));
            }
        }
        let full = Keep { within: Some(config::Span::days(30)), weekly: 4, monthly: 0, yearly: 2, min: 7 };
        let read = policy(&full, config::Span::days(7));
        assert_eq!((read.within, read.weekly, read.monthly, read.yearly), (Span::days(30), Some(4), None, Some(2)));
        assert_eq!(policy_text(&full), "within 30d, weekly 4, yearly 2, min 7");
    }

    fn config(keep: &str) -> Config {
        let text = format!(
            "schema = 1\nstack = \"s\"\n[keys]\nrecipients = [\"{}\"]\nsigners = \"/s\"\n\
             [vault.a]\npath = \"/a\"\nkeep = {{ within = \"7d\", min = 1 }}\n[vault.b]\npath = \"/b\"\n{keep}\n\
             [source.f]\ntype = \"files\"\npaths = [\"/f\"]\n",
            age::x25519::Identity::generate().to_public()
        );
        Config::parse(&text, std::path::Path::new("/t.toml")).unwrap()
    }

    #[test]
    fn an_anomaly_that_only_one_vault_has_keeps_elsewhere_what_it_lacks() {
        let config = config("keep = { within = \"2d\", min = 1 }");
        let promised = |accepted: bool| {
            let mut newest = history(0..4);
            (newest.stamps[0].suspect, newest.stamps[0].accepted) = (true, accepted);
            let seen = BTreeMap::from([("a", history(1..20)), ("b", newest)]);
            let others = config.vaults.iter().filter(|vault| vault.name == "b");
            promised(others, &config.sources[0], &seen, now(), Tz::UTC).len()
        };
        assert_eq!(promised(true), 0);
        assert_eq!(promised(false), 16, "all that is older than the anomaly and not in its vault");
    }

    #[test]
    fn what_another_vault_promises_and_lacks_is_promised_elsewhere() {
        let ask = |keep: &str, b: Option<History>| {
            let config = config(keep);
            let mut seen = BTreeMap::from([("a", history(0..20))]);
            seen.extend(b.map(|history| ("b", history)));
            let others = config.vaults.iter().filter(|vault| vault.name == "b");
            promised(others, &config.sources[0], &seen, now(), Tz::UTC).len()
        };
        let ten = "keep = { within = \"10d\", min = 1 }";
        assert_eq!(ask(ten, Some(history(0..20))), 0, "it holds everything");
        assert_eq!(ask(ten, Some(history(0..5))), 6, "ages 5 to 10 are promised and absent");
        assert_eq!(ask(ten, None), 11, "a vault that does not answer holds nothing");
        let mut damaged = history(0..20);
        damaged.stamps[3].complete = false;
        assert_eq!(ask(ten, Some(damaged)), 1, "what it does not hold whole it does not hold");
        assert_eq!(ask("", Some(history(0..5))), 15, "no `keep` promises everything");
        assert_eq!(ask("", None), 20);
    }

    #[test]
    fn a_pruning_that_failed_says_why_in_a_runs_report() {
        let pruning = |error: Option<CliError>| Pruning {
            vault: "local".into(),
            source: "db".parse().unwrap(),
            keep: None,
            plan: None,
            done: Vec::new(),
            error,
        };
        assert_eq!(pruning(None).problems(), [""; 0]);
        let refused = pruning(Some(CliError::new(Exit::Failed, "no right to delete").hint("grant it")));
        assert_eq!(refused.problems(), ["vault `local`, source `db`: no right to delete", "  hint: grant it"]);
    }

    #[test]
    fn a_later_copy_makes_nothing_younger() {
        let mut copied = history([9]);
        copied.stamps[0].stored = now();
        let union = union([&copied, &history([9])].into_iter());
        assert_eq!(union.stamps, [stamp(9)]);
    }
}
