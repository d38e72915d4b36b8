//! Two machines with one host key: both chains are whole, the fork is told by name, expiry freezes, nothing is lost; and two
//! hosts with keys of their own, or one after the other, are no fork.

use backup_core::mark;
use backup_core::replicate::{Route, replicate};
use backup_core::signature::Signers;
use backup_core::state::State;
use backup_core::vault::document::MarkKind;
use backup_core::vault::memory::MemoryStore;
use chrono::TimeDelta;
use retention::Freeze;

use super::prune::planned;
use super::watch::Watch;
use super::world::{Script, World, host_key, make_vault};

#[tokio::test]
async fn a_cloned_host_is_told_as_a_fork_and_settled_by_an_accept() {
    let mut world = World::new().await;
    let root = world.run(&Script::noise(200_000, 1)).await.unwrap().snapshot;
    // The clone has a vault of its own, which knows the past.
    let there = Watch::new(MemoryStore::new(world.store.clock()));
    let own = make_vault("clone", &there, world.store.now()).await;
    let copy = async |world: &World, from: &_, to: &_| {
        let route = Route { from, to, signers: &world.signers, monitor: &world.monitor };
        let done = replicate(route, &world.request.stack, &world.request.source, &|_| true, false).await;
        assert!(done.errors.is_empty(), "{done:?}");
    };
    copy(&world, &world.vault, &own).await;
    let first = world.run(&Script::noise(200_000, 2)).await.unwrap().snapshot;
    let shared = std::mem::replace(&mut world.vault, own);
    world.lose_state().await;
    let second = world.run(&Script::noise(200_000, 3)).await.unwrap().snapshot;
    assert_eq!((first.doc.previous, second.doc.previous), (Some(root.hash()), Some(root.hash())));
    assert!(world.verify(true).await.forks.is_empty(), "each alone sees none");
    copy(&world, &world.vault, &shared).await;
    // Both go on, each in its own vault, and copy.
    let third = world.run(&Script::noise(200_000, 4)).await.unwrap().snapshot;
    assert_eq!(third.doc.previous, Some(second.hash()));
    copy(&world, &world.vault, &shared).await;
    world.vault = shared;

    let verified = world.verify(true).await;
    // Fails without `forks` in `chains`.
    assert_eq!(verified.forks.len(), 1, "{verified:?}");
    let fork = &verified.forks[0];
    assert_eq!(fork.snapshots, [first.doc.id.clone(), second.doc.id.clone()]);
    assert_eq!((fork.on.clone(), fork.signer.clone()), (Some(root.doc.id.clone()), world.key.fingerprint()));
    assert!(verified.is_damaged() && verified.chain.is_empty());
    // Nothing is lost: each of the four is whole.
    assert!(verified.snapshots.iter().all(|verdict| verdict.checked) && verified.snapshots.len() == 4);
    world.pass(TimeDelta::days(40));
    let frozen = |plan: &backup_core::prune::PrunePlan| {
        plan.frozen.iter().any(|freeze| matches!(freeze, Freeze::OpenChain { place } if place.contains("fork: ")))
    };
    let plan = planned(&world).await;
    assert!(frozen(&plan), "{plan:?}");

    // An accept of another snapshot settles nothing; that of a branch does.
    let accept = async |signed| {
        let change = mark::set(
            &world.vault,
            (&world.key, &world.signers),
            signed,
            MarkKind::Accept,
            (world.host.now(), "backup 0"),
        );
        assert_eq!(change.await.unwrap(), mark::Change::Made);
    };
    accept(&third).await;
    assert_eq!(world.verify(true).await.forks.len(), 1);
    accept(&second).await;
    assert!(!world.verify(true).await.is_damaged());
    let plan = planned(&world).await;
    assert!(!frozen(&plan), "{plan:?}");
}

#[tokio::test]
async fn hosts_with_keys_of_their_own_make_no_fork() {
    let mut world = World::new().await;
    let (one, two) = (host_key(1), host_key(2));
    let lines = format!("{}\n{}\n", one.allowed_signers_line(), two.allowed_signers_line());
    world.signers = Signers::parse(&lines).unwrap();
    for seed in 1..=6 {
        // In turns, each with what it remembers gone: the vault's past is enough.
        world.key = host_key(if seed % 2 == 0 { 1 } else { 2 });
        world.lose_state().await;
        world.run(&Script::noise(200_000, seed)).await.unwrap();
    }
    let verified = world.verify(true).await;
    assert!(!verified.is_damaged() && verified.snapshots.len() == 6, "{verified:?}");
    assert!(planned(&world).await.frozen.is_empty());
}

#[tokio::test]
async fn a_state_that_cannot_be_written_for_weeks_forks_nothing() {
    let mut world = World::new().await;
    world.run(&Script::noise(200_000, 1)).await.unwrap();
    let written = world.state.clone();
    let mut last = None;
    for seed in 2..=13 {
        // As a run has it that cannot write its own.
        world.state = State::of_this_process(&world.request.stack).await.unwrap();
        last = Some(world.run(&Script::noise(200_000, seed)).await.unwrap().snapshot);
    }
    // Room again: what was remembered is the first one. Fails where a head is looked for behind so many only.
    world.state = written;
    let next = world.run(&Script::noise(200_000, 14)).await.unwrap().snapshot;
    assert_eq!(next.doc.previous, last.map(|last| last.hash()));
    let verified = world.verify(true).await;
    assert!(!verified.is_damaged() && verified.snapshots.len() == 14, "{verified:?}");
}
