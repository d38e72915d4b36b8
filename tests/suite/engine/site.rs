//! Two vaults, each with a clock of its own, and hosts that die and come back: where crash points and random histories
//! happen. A site can be copied, so that one that took long to prepare is tried at each point from the same state.
//!
//! It drives the engine as the command line does (`run` into one vault, `replicate` by the destination's policy, `prune`
//! with what the other vault promises). What must hold is judged elsewhere, by `promise`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::backup::{BackupError, BackupRequest, Committed, Host, backup};
use backup_core::clock::Clock;
use backup_core::id::Hash256;
use backup_core::mark::{self, Change};
use backup_core::monitor::{Monitor, Silent};
use backup_core::prune::{self, Done, PrunePlan, PruneRequest, history};
use backup_core::replicate::{Replicated, Route, marks, replicate, replicate_marks};
use backup_core::seal::key::Identities;
use backup_core::signature::{HostKey, Signers};
use backup_core::source::{Captured, Sink, Source, SourceError};
use backup_core::state::State;
use backup_core::vault::document::{MarkKind, SnapshotDoc};
use backup_core::vault::layout::{GenerationDir, SnapshotId};
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::store::Store;
use backup_core::vault::{Vault, VaultError};
use backup_core::verify::{Depth, Fraction, Verified, verify};
use chrono::TimeDelta;
use retention::{Clocks, History, Plan, Policy, Reason, Span, Stamp};

use super::watch::Watch;
use super::world::{Script, Time, World, host_key, make_vault, read};

/// What a vault promises: everything that is not older than `days` than the newest, and the newest `min`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    pub(crate) days: u32,
    pub(crate) min: u32,
}

/// A host: its key and what it remembers.
pub(crate) struct Side {
    pub(crate) key: HostKey,
    dir: tempfile::TempDir,
    pub(crate) state: State,
}

/// One vault and its clock.
pub(crate) struct Place {
    pub(crate) keep: Keep,
    pub(crate) clock: Time,
    pub(crate) watch: Watch,
    pub(crate) vault: Vault,
}

pub(crate) struct Site {
    /// Keys, and requests with everything that is not ours to say.
    template: Arc<World>,
    pub(crate) request: BackupRequest,
    pub(crate) signers: Signers,
    pub(crate) clock: Time,
    pub(crate) sides: Vec<Side>,
    pub(crate) places: Vec<Place>,
    /// Whether somebody without keys writes into the vaults: then nothing is taken for true that nobody pinned signed.
    pub(crate) attacked: bool,
    /// Hashes of everything that was ever given to a run: nothing else may ever be read back.
    pub(crate) tried: Arc<Mutex<BTreeSet<Hash256>>>,
}

/// A script whose capture says that it should be looked at first.
#[derive(Debug)]
pub(super) struct Odd(pub(super) Script);

#[async_trait]
impl Source for Odd {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    async fn capture(&self, sink: &dyn Sink, clock: &Clock, to: &dyn Monitor) -> Result<Captured, SourceError> {
        let mut captured = self.0.capture(sink, clock, to).await?;
        captured.suspect.push("the test says so".to_owned());
        Ok(captured)
    }
}

async fn open_state(dir: &Path) -> State {
    State::open(dir, &"shop".parse().unwrap()).await.unwrap()
}

/// Whether a vault's policy keeps a snapshot; `frozen`: also where nothing but a freeze does.
fn keeps(plan: &Plan, frozen: bool) -> BTreeSet<String> {
    let kept = plan.snapshots.iter().filter(|one| one.keep && (frozen || one.reasons != [Reason::Frozen]));
    kept.map(|one| one.id.clone()).collect()
}

impl Site {
    /// Empty vaults, generations of `period`, hosts with keys of their own.
    pub(crate) async fn new(period: &str, hosts: u8, keep: [Keep; 2]) -> Self {
        let template = World::new().await;
        let clock = Time::new(template.host.now());
        let mut sides = Vec::new();
        for seed in 1..=hosts {
            let dir = tempfile::tempdir().unwrap();
            sides.push(Side { key: host_key(seed), state: open_state(dir.path()).await, dir });
        }
        let mut places = Vec::new();
        for (name, keep) in ["first", "second"].into_iter().zip(keep) {
            let time = Time::new(clock.now());
            let watch = Watch::new(MemoryStore::new(time.clock()));
            let vault = make_vault(name, &watch, time.now()).await;
            places.push(Place { keep, clock: time, watch, vault });
        }
        let lines: Vec<String> = sides.iter().map(|side| side.key.allowed_signers_line()).collect();
        let mut request = template.request.clone();
        request.period = period.parse().unwrap();
        Self {
            request,
            signers: Signers::parse(&lines.join("\n")).unwrap(),
            template: Arc::new(template),
            clock,
            sides,
            places,
            attacked: false,
            tried: Arc::default(),
        }
    }

    /// Another site in the same state, sharing nothing with this one.
    pub(crate) async fn copy(&self) -> Self {
        let mut sides = Vec::new();
        for (seed, side) in (1..).zip(&self.sides) {
            let dir = tempfile::tempdir().unwrap();
            for file in std::fs::read_dir(side.dir.path()).unwrap().map(Result::unwrap) {
                // What several processes share of SQLite's log is made anew from it.
                if !file.file_name().to_str().unwrap().ends_with("-shm") {
                    std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
                }
            }
            sides.push(Side { key: host_key(seed), state: open_state(dir.path()).await, dir });
        }
        let mut places = Vec::new();
        for place in &self.places {
            let clock = Time::new(place.clock.now());
            let watch = place.watch.copy(clock.clock());
            let vault = Vault::open(place.vault.name(), Arc::new(watch.clone()), None).await.unwrap();
            watch.fail(None);
            places.push(Place { keep: place.keep, clock, watch, vault });
        }
        Self {
            template: self.template.clone(),
            request: self.request.clone(),
            signers: self.signers.clone(),
            clock: Time::new(self.clock.now()),
            sides,
            places,
            attacked: self.attacked,
            tried: Arc::new(Mutex::new(self.tried.lock().unwrap().clone())),
        }
    }

    /// Every process dies: the next ones open vaults and states anew.
    pub(crate) async fn dies(&mut self) {
        for place in &mut self.places {
            place.watch = place.watch.next_process();
            let down = place.watch.down(None);
            place.vault = Vault::open(place.vault.name(), Arc::new(place.watch.clone()), None).await.unwrap();
            place.watch.down(down);
        }
        for side in &mut self.sides {
            side.state = open_state(side.dir.path()).await;
        }
    }

    /// A vault's machine loses its power: see [`Watch::power_cut`].
    pub(crate) async fn power_cut(&self, vault: usize, keeps: impl FnMut() -> bool) {
        let Place { clock, watch, .. } = &self.places[vault];
        let now = clock.now();
        watch.power_cut(keeps, |modified| clock.set(modified)).await;
        clock.set(now);
    }

    pub(crate) async fn lose_state(&mut self, host: usize) {
        let side = &mut self.sides[host];
        side.dir = tempfile::tempdir().unwrap();
        side.state = open_state(side.dir.path()).await;
    }

    /// Time passes everywhere.
    pub(crate) fn pass(&self, by: TimeDelta) {
        self.clock.pass(by);
        self.places.iter().for_each(|place| place.clock.pass(by));
    }

    /// A capture of `content` by a host into a vault, a minute after whatever was before.
    pub(crate) async fn run(
        &self,
        host: usize,
        vault: usize,
        content: &[u8],
        odd: bool,
    ) -> Result<Committed, BackupError> {
        self.pass(TimeDelta::minutes(1));
        self.tried.lock().unwrap().insert(Hash256::of(content));
        // Each stream has objects of its own.
        let streams = content.chunks(content.len() / 3 + 1).map(<[u8]>::to_vec).collect();
        let script = Script { streams, abandoned: Vec::new() };
        let source: Box<dyn Source> = if odd { Box::new(Odd(script)) } else { Box::new(script) };
        let (side, clock) = (&self.sides[host], self.clock.clock());
        let monitor: Arc<dyn Monitor> = Arc::new(Silent);
        let host =
            Host { key: &side.key, signers: &self.signers, state: &side.state, clock: &clock, monitor: &monitor };
        backup(&self.places[vault].vault, host, &self.request, source.as_ref()).await
    }

    /// What each of `vaults` that can be read holds.
    async fn histories(&self, vaults: &[usize]) -> (BTreeMap<usize, History>, BTreeSet<history::Fact>) {
        let (mut seen, mut marks) = (BTreeMap::new(), BTreeSet::new());
        for at in vaults {
            let (vault, elsewhere, marked, damaged) =
                (&self.places[*at].vault, BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
            let of = (&self.request.stack, &self.request.source);
            let read = history::read(vault, &self.signers, of, &elsewhere, &marked, &damaged);
            if let Ok(read) = read.await {
                marks.extend(read.marks);
                seen.insert(*at, read.history);
            }
        }
        (seen, marks)
    }

    fn policy(&self, vault: usize) -> Policy {
        let Keep { days, min } = self.places[vault].keep;
        Policy { within: Span::days(days.into()), weekly: None, monthly: None, yearly: None, min }
    }

    /// What a vault's policy keeps of everything that any vault has.
    fn wanted(&self, vault: usize, seen: &BTreeMap<usize, History>, frozen: bool) -> BTreeSet<String> {
        let mut stamps: BTreeMap<String, Stamp> = BTreeMap::new();
        for stamp in seen.values().flat_map(|history| &history.stamps) {
            let all = stamps.entry(stamp.id.clone()).or_insert_with(|| stamp.clone());
            all.stored = all.stored.min(stamp.stored);
            all.pinned |= stamp.pinned;
            all.accepted |= stamp.accepted;
            all.checked |= stamp.checked;
            all.complete |= stamp.complete;
        }
        if !frozen {
            // What to copy goes by the documents alone.
            for stamp in stamps.values_mut() {
                stamp.stored = stamp.data;
            }
        }
        let removed = seen.values().flat_map(|history| history.removed.clone()).collect();
        let history = History { stamps: stamps.into_values().collect(), removed, ..History::default() };
        let clocks = Clocks { store: self.clock.now(), host: self.clock.now() };
        keeps(&retention::plan(&self.policy(vault), &history, clocks, chrono_tz::UTC), frozen)
    }

    /// Plans a prune of a vault, with those of `vaults` that answer.
    pub(crate) async fn plan(&self, vault: usize, vaults: &[usize]) -> Result<PrunePlan, VaultError> {
        let (seen, marks) = self.histories(vaults).await;
        let mut promised_elsewhere = BTreeSet::new();
        for other in (0..self.places.len()).filter(|other| *other != vault) {
            let held = seen.get(&other).into_iter().flat_map(|history| &history.stamps).filter(|stamp| stamp.complete);
            let held: BTreeSet<String> = held.map(|stamp| stamp.id.clone()).collect();
            promised_elsewhere.extend(self.wanted(other, &seen, true).difference(&held).cloned());
        }
        let request = PruneRequest {
            policy: self.policy(vault),
            host_now: self.clock.now(),
            promised_elsewhere,
            marks,
            ..super::prune::request(&self.template)
        };
        prune::plan(&self.places[vault].vault, &self.signers, &request).await
    }

    pub(crate) async fn prune(&self, host: usize, vault: usize, vaults: &[usize]) -> Result<Vec<Done>, VaultError> {
        let plan = self.plan(vault, vaults).await?;
        prune::apply(&self.places[vault].vault, &self.sides[host].key, &plan).await
    }

    pub(crate) async fn undo(&self, vault: usize) -> Result<Vec<GenerationDir>, VaultError> {
        let place = &self.places[vault];
        let mut undone = prune::undo(&place.vault, &self.signers, &self.request.stack, &self.request.source).await?;
        undone.failed.pop().map_or(Ok(undone.made), |(_, error)| Err(error))
    }

    /// Fills `to` from `from` with what its policy would keep; then the marks.
    pub(crate) async fn replicate(&self, from: usize, to: usize) -> Replicated {
        let (seen, _) = self.histories(&[from, to]).await;
        let wanted = self.wanted(to, &seen, false);
        let monitor: Arc<dyn Monitor> = Arc::new(Silent);
        let (from, to) = (&self.places[from].vault, &self.places[to].vault);
        let route = Route { from, to, signers: &self.signers, monitor: &monitor };
        let (stack, source) = (&self.request.stack, &self.request.source);
        let mut done = replicate(route, stack, source, &|id| wanted.contains(id.as_str()), false).await;
        let given = marks(from, &self.signers, stack, source).await;
        match (given, marks(to, &self.signers, stack, source).await) {
            (Ok(given), Ok(there)) => {
                done.errors.extend(replicate_marks(&given, to, &there, &self.signers, &monitor).await.1);
            }
            (Err(error), _) | (_, Err(error)) => done.errors.push(error.into()),
        }
        done
    }

    pub(crate) async fn mark(
        &self,
        host: usize,
        vault: usize,
        at: &(GenerationDir, SnapshotId),
        kind: MarkKind,
    ) -> Result<Change, VaultError> {
        let vault = &self.places[vault].vault;
        let signed = vault.get_signed::<SnapshotDoc>(&at.0.snapshot(&at.1, ".json"), &self.signers).await?;
        let keys = (&self.sides[host].key, &self.signers);
        mark::set(vault, keys, &signed, kind, (self.clock.now(), "backup 0")).await
    }

    pub(crate) async fn unmark(
        &self,
        vault: usize,
        (dir, id): &(GenerationDir, SnapshotId),
        kind: MarkKind,
    ) -> Result<Change, VaultError> {
        mark::remove(&self.places[vault].vault, dir, id, kind).await
    }

    pub(crate) async fn listed(&self, vault: usize) -> Vec<(GenerationDir, SnapshotId)> {
        self.places[vault].vault.history(&self.request.stack, &self.request.source).await.unwrap()
    }

    /// Reads a snapshot from a vault to its end: the hash of what was captured. An error too where it reads well and is
    /// nothing that a run was ever given.
    pub(crate) async fn read(&self, vault: usize, at: &(GenerationDir, SnapshotId)) -> Result<Hash256, String> {
        let streams = read(&self.places[vault].vault, &self.signers, &self.template.identities, at).await?;
        let found = Hash256::of(&streams.concat());
        let known = self.tried.lock().unwrap().contains(&found);
        if known { Ok(found) } else { Err(format!("{} reads well, and nobody ever captured that", at.1)) }
    }

    /// Whether `identities` open a snapshot and read it to its end.
    pub(crate) async fn read_by(
        &self,
        vault: usize,
        at: &(GenerationDir, SnapshotId),
        identities: &Identities,
    ) -> Result<(), String> {
        read(&self.places[vault].vault, &self.signers, identities, at).await.map(drop)
    }

    /// The operators' identities.
    pub(crate) fn identities(&self) -> &Identities {
        &self.template.identities
    }

    pub(crate) fn monitor() -> Arc<dyn Monitor> {
        Arc::new(Silent)
    }

    /// Verifies, hashing every object; `open`: decrypting every stream too.
    pub(crate) async fn verify(&self, vault: usize, open: bool) -> Verified {
        let identities = open.then_some(&self.template.identities);
        let depth = Depth { read: Some(Fraction { part: 1, of: 1 }), identities };
        let vault = &self.places[vault].vault;
        verify(vault, &self.signers, &self.request.stack, &self.request.source, None, depth).await.unwrap()
    }

    /// Every path below the stack and its bytes, as they lie in a vault.
    pub(crate) async fn content(&self, vault: usize) -> BTreeMap<String, bytes::Bytes> {
        self.places[vault].watch.content(self.request.stack.as_str()).await.into_iter().collect()
    }

    /// When the store got what lies at a path.
    pub(crate) async fn modified(&self, vault: usize) -> BTreeMap<String, chrono::DateTime<chrono::Utc>> {
        let entries = self.places[vault].watch.memory.list(None).await.unwrap();
        entries.into_iter().map(|entry| (entry.path.to_string(), entry.modified)).collect()
    }
}
