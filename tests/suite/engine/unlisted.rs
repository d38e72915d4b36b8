//! A store whose listings leave out names for days, through both runs of a prune, and that gives each name to whoever asks for it:
//! nothing that somebody needs goes.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::clock::Clock;
use backup_core::mark;
use backup_core::monitor::Monitor;
use backup_core::prune::purge::{self, PurgeAction, PurgeRequest};
use backup_core::prune::{Action, Done, PruneRequest, apply, plan};
use backup_core::replicate::{Route, replicate};
use backup_core::source::{Captured, Sink, Source, SourceError};
use backup_core::vault::document::{MarkKind, SnapshotDoc};
use backup_core::vault::layout::GenerationDir;
use backup_core::vault::memory::MemoryStore;
use chrono::TimeDelta;

use super::prune::{below, day, dirs, planned, prune, read_receipts, request, six_days};
use super::watch::{Fault, Watch};
use super::withdrawn::{dies_after_receipt, pin};
use super::world::{Script, World, make_vault};

/// A dump that an operator brings: in a generation of its own, no link of the chain, and it stays whatever its age.
#[derive(Debug)]
struct Brought(Script);

#[async_trait]
impl Source for Brought {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn is_import(&self) -> bool {
        true
    }

    async fn capture(&self, sink: &dyn Sink, clock: &Clock, monitor: &dyn Monitor) -> Result<Captured, SourceError> {
        self.0.capture(sink, clock, monitor).await
    }
}

/// Six days, an import on the first of them.
async fn with_import() -> (World, SnapshotDoc) {
    let mut world = World::new().await;
    world.request.period = "1d".parse().unwrap();
    world.pass(TimeDelta::minutes(1));
    let clock = world.host.clock();
    let host = backup_core::backup::Host {
        key: &world.key,
        signers: &world.signers,
        state: &world.state,
        clock: &clock,
        monitor: &world.monitor,
    };
    let brought = Brought(Script::noise(100_000, 50));
    let doc = backup_core::backup::backup(&world.vault, host, &world.request, &brought).await.unwrap().snapshot.doc;
    for seed in 1..=6 {
        day(&world, seed).await;
    }
    (world, doc)
}

/// Listings leave out the names below a folder that end in one of `endings`.
fn hide(watch: &Watch, folder: &str, endings: &'static [&'static str]) {
    let folder = format!("{folder}/");
    watch.hide(Some(Arc::new(move |path: &str| {
        path.starts_with(&folder) && endings.iter().any(|ending| path.ends_with(ending))
    })));
}

const DOCUMENT: &[&str] = &[".json"];
const ALL: &[&str] = &[".json", ".sig", ".zst"];

async fn prune_by(world: &World, request: &PruneRequest) -> Vec<Done> {
    let plan = plan(&world.vault, &world.signers, request).await.unwrap();
    apply(&world.vault, &world.key, &plan).await.unwrap()
}

/// Both runs of a prune and a third, with a newer snapshot before each.
async fn prunes(world: &World, request: impl Fn(&World) -> PruneRequest) {
    // Three days lie between announcing and deleting what looks like a dead run's.
    for seed in 7..=12 {
        prune_by(world, &request(world)).await;
        day(world, seed).await;
        world.pass(TimeDelta::hours(1));
    }
}

#[tokio::test]
async fn a_snapshot_that_its_own_signature_betrays_keeps_its_generation() {
    let (world, import) = with_import().await;
    hide(&world.watch, import.dir().snapshots().as_str(), DOCUMENT);
    assert!(world.vault.snapshots(&import.dir()).await.unwrap().is_empty(), "it is hidden");
    // Fails without `unlisted::snapshots` in `Look::generation`: the generation looks like one of a run that died.
    assert!(!dirs(&planned(&world).await, &Action::Announce).contains(&import.dir()));
    prunes(&world, request).await;
    let told = planned(&world).await.foreign;
    assert!(told.iter().any(|text| text.contains(import.id.as_str()) && text.contains("does not show")), "{told:?}");
    world.watch.hide(None);
    world.read_doc(&import).await.unwrap();
    assert!(!read_receipts(&world).await.is_empty(), "others went");
    assert_eq!(planned(&world).await.foreign, [""; 0]);
}

#[tokio::test]
async fn a_snapshot_that_is_hidden_altogether_is_asked_for_by_name_where_somebody_knows_it() {
    for by_state in [true, false] {
        let (world, import) = with_import().await;
        hide(&world.watch, import.dir().snapshots().as_str(), ALL);
        let known = if by_state {
            world.state.commits(world.vault.id(), &world.request.source).await.unwrap()
        } else {
            // As another vault shows it.
            [(import.generation.clone(), import.id.clone())].into()
        };
        assert!(known.contains(&(import.generation.clone(), import.id.clone())));
        // Fails without `unlisted` in `plan_of`.
        prunes(&world, |world| PruneRequest { known: known.clone(), ..request(world) }).await;
        let plan = plan(&world.vault, &world.signers, &PruneRequest { known, ..request(&world) }).await.unwrap();
        let step = plan.steps.iter().find(|step| step.dir == import.dir()).unwrap();
        assert!(step.action == Action::Keep && step.reason.contains(import.id.as_str()), "{step:?}");
        assert!(plan.foreign.iter().any(|text| text.contains(import.id.as_str())));
        world.watch.hide(None);
        world.read_doc(&import).await.unwrap();
        assert!(!read_receipts(&world).await.is_empty(), "others went");
    }
}

#[tokio::test]
async fn what_is_hidden_after_it_was_announced_stops_the_deletion() {
    // It comes to nobody's eyes between the two runs; it was announced without it.
    let (world, import) = with_import().await;
    let known = world.state.commits(world.vault.id(), &world.request.source).await.unwrap();
    hide(&world.watch, import.dir().snapshots().as_str(), ALL);
    prune_by(&world, &request(&world)).await;
    assert!(world.vault.exists(&import.dir().file("expired.json")).await.unwrap(), "nobody who plans knows it");
    day(&world, 7).await;
    world.pass(TimeDelta::hours(1));
    prune_by(&world, &PruneRequest { known, ..request(&world) }).await;
    assert!(!world.vault.exists(&import.dir().file("expired.json")).await.unwrap(), "taken back");
    world.read_doc(&import).await.unwrap();
    // And where only the last look could see it.
    let (world, import) = with_import().await;
    hide(&world.watch, import.dir().snapshots().as_str(), ALL);
    prune_by(&world, &request(&world)).await;
    for seed in 7..=9 {
        day(&world, seed).await;
        world.pass(TimeDelta::hours(1));
    }
    let last = planned(&world).await;
    assert!(dirs(&last, &Action::Delete).contains(&import.dir()), "{last:?}");
    hide(&world.watch, import.dir().snapshots().as_str(), DOCUMENT);
    // Fails without `unlisted::every` in `Work::remove`.
    apply(&world.vault, &world.key, &last).await.unwrap();
    world.read_doc(&import).await.unwrap();
}

#[tokio::test]
async fn a_deletion_is_not_taken_up_where_what_it_named_is_hidden_and_lies_there() {
    let (world, docs) = six_days().await;
    dies_after_receipt(&world, &docs[0]).await;
    pin(&world, &docs[0]).await;
    hide(&world.watch, docs[0].dir().snapshots().as_str(), ALL);
    // Nobody knows of it but the document of the deletion: fails where `plan_of` does not ask for what that names.
    let plan = planned(&world).await;
    assert!(dirs(&plan, &Action::Withdraw).contains(&docs[0].dir()), "{:?}", plan.steps);
    assert!(plan.foreign.iter().any(|text| text.contains(docs[0].id.as_str())), "{:?}", plan.foreign);
    apply(&world.vault, &world.key, &plan).await.unwrap();
    world.watch.hide(None);
    world.read_doc(&docs[0]).await.unwrap();
}

#[tokio::test]
async fn a_mark_that_its_signature_betrays_counts() {
    for kind in [MarkKind::Pin, MarkKind::Checked] {
        let (world, docs) = six_days().await;
        let marked = &docs[1];
        let path = marked.dir().snapshot(&marked.id, ".json");
        let signed = world.vault.get_signed::<SnapshotDoc>(&path, &world.signers).await.unwrap();
        let keys = (&world.key, &world.signers);
        mark::set(&world.vault, keys, &signed, kind, (world.host.now(), "backup 0")).await.unwrap();
        hide(&world.watch, "shop/db/marks", DOCUMENT);
        // Fails without `unlisted::documents` in `marks::read`.
        assert!(!dirs(&planned(&world).await, &Action::Announce).contains(&marked.dir()), "{kind:?}");
        prunes(&world, request).await;
        world.watch.hide(None);
        world.read_doc(marked).await.unwrap();
        // Taken back, its signature left behind: it is no mark, and nothing that is told.
        world.set(&backup_core::vault::layout::mark(&marked.stack, &marked.source, &marked.id, kind), None).await;
        let plan = planned(&world).await;
        assert!(plan.foreign.is_empty() && dirs(&plan, &Action::Announce).contains(&marked.dir()), "{plan:?}");
    }
}

#[tokio::test]
async fn a_deletion_leaves_no_document_behind_that_a_listing_hid() {
    let gone = async |world: &World, dir: &GenerationDir| {
        world.watch.hide(None);
        let left = below(world, dir).await;
        assert!(!left.iter().any(|path| path.ends_with(".json")), "{left:?}");
        assert!(world.history().await.iter().all(|(at, _)| at != dir));
    };
    let (world, docs) = six_days().await;
    let dir = docs[0].dir();
    hide(&world.watch, dir.snapshots().as_str(), DOCUMENT);
    // Fails without `hidden` in `delete`: a snapshot would come to light that has lost its objects.
    prunes(&world, request).await;
    assert!(read_receipts(&world).await.iter().any(|receipt| receipt.snapshots[0].0 == docs[0].id));
    gone(&world, &dir).await;
    // Interrupted after its receipt, and taken up again; then nothing of the snapshot is shown any more.
    let (world, docs) = six_days().await;
    let dir = docs[0].dir();
    prune(&world).await;
    day(&world, 7).await;
    world.pass(TimeDelta::hours(1));
    let last = planned(&world).await;
    for at in 0.. {
        world.watch.fail(Some((at, Fault::Refused)));
        assert!(apply(&world.vault, &world.key, &last).await.is_err());
        if !read_receipts_now(&world).await.is_empty() {
            break;
        }
    }
    world.watch.fail(None);
    world.read_doc(&docs[0]).await.unwrap();
    let resumed = planned(&world).await;
    assert!(dirs(&resumed, &Action::Resume).contains(&dir));
    hide(&world.watch, dir.snapshots().as_str(), ALL);
    apply(&world.vault, &world.key, &resumed).await.unwrap();
    world.watch.hide(None);
    // Fails without `named` in `delete`.
    gone(&world, &dir).await;
}

async fn read_receipts_now(world: &World) -> Vec<backup_core::vault::document::ReceiptDoc> {
    world.watch.fail(None);
    read_receipts(world).await
}

#[tokio::test]
async fn a_purge_names_and_takes_what_a_listing_hides() {
    let (world, docs) = six_days().await;
    let wanted =
        PurgeRequest { dir: docs[1].dir(), reason: "leaked".into(), even_newest: false, tool: "backup 0".into() };
    let path = docs[1].dir().snapshot(&docs[1].id, ".json");
    let signed = world.vault.get_signed::<SnapshotDoc>(&path, &world.signers).await.unwrap();
    let keys = (&world.key, &world.signers);
    mark::set(&world.vault, keys, &signed, MarkKind::Pin, (world.host.now(), "backup 0")).await.unwrap();
    world.watch.hide(Some(Arc::new(|path: &str| path.starts_with("shop/db/") && path.ends_with(".json"))));
    let plan = async || purge::plan(&world.vault, &world.signers, &wanted).await.unwrap();
    // Fails where a purge goes by the listing alone: the pin is nobody's, and the snapshot is not named.
    let refused = plan().await;
    assert!(
        matches!(&refused.action, PurgeAction::Refuse(purge::Refusal::Pinned(ids)) if *ids == [docs[1].id.clone()])
    );
    mark::remove(&world.vault, &docs[1].dir(), &docs[1].id, MarkKind::Pin).await.unwrap();
    // What is newest a listing that hides every name cannot say.
    hide(&world.watch, docs[1].dir().snapshots().as_str(), DOCUMENT);
    let announced = plan().await;
    assert_eq!(
        (announced.action.clone(), announced.snapshots.clone()),
        (PurgeAction::Announce, vec![docs[1].id.clone()])
    );
    purge::apply(&world.vault, &world.key, &announced).await.unwrap();
    world.pass(TimeDelta::hours(25));
    purge::apply(&world.vault, &world.key, &plan().await).await.unwrap();
    world.watch.hide(None);
    assert_eq!(below(&world, &docs[1].dir()).await, Vec::<String>::new());
}

#[tokio::test]
async fn runs_and_replications_lose_nothing_to_a_listing_that_hides_names() {
    let (mut world, docs) = six_days().await;
    let there = Watch::new(MemoryStore::new(world.store.clock()));
    let other = make_vault("second", &there, world.store.now()).await;
    let copy = async |world: &World| {
        let route = Route { from: &world.vault, to: &other, signers: &world.signers, monitor: &world.monitor };
        replicate(route, &world.request.stack, &world.request.source, &|_| true, false).await
    };
    // Every document of both vaults.
    let all = |path: &str| path.starts_with("shop/db/") && path.ends_with(".json");
    copy(&world).await;
    world.watch.hide(Some(Arc::new(all)));
    there.hide(Some(Arc::new(all)));
    day(&world, 7).await;
    let copied = copy(&world).await;
    assert!(copied.errors.is_empty(), "{copied:?}");
    prunes(&world, request).await;
    world.watch.hide(None);
    // Each is whole or named by a receipt, and what is promised is there.
    let verified = world.verify(true).await;
    assert!(verified.chain.is_empty() && !verified.is_damaged(), "{verified:?}");
    assert!(verified.snapshots.len() >= 3 && !read_receipts(&world).await.is_empty());
    // The state is lost as well: the next run knows no head.
    world.watch.hide(Some(Arc::new(all)));
    world.lose_state().await;
    let last = day(&world, 10).await;
    prunes(&world, request).await;
    world.watch.hide(None);
    there.hide(None);
    world.read_doc(&last).await.unwrap();
    assert!(world.verify(true).await.snapshots.iter().all(|verdict| verdict.damage.is_empty()));
    let copied = copy(&world).await;
    assert!(copied.errors.is_empty(), "{copied:?}");
    let history = other.history(&world.request.stack, &world.request.source).await.unwrap();
    assert!(docs.iter().all(|doc| history.iter().any(|(_, id)| *id == doc.id)));
}
