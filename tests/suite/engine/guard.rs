//! The anomaly guard over many nights: what a capture is compared with, what freezes and thaws, and whom it believes.

use async_trait::async_trait;
use backup_core::backup::{Committed, Host, backup};
use backup_core::catalogue;
use backup_core::clock::Clock;
use backup_core::manifest::{Kept, StreamKind, TableEntry};
use backup_core::mark::{self, Change};
use backup_core::monitor::Monitor;
use backup_core::prune::Action;
use backup_core::prune::frozen::unaccepted;
use backup_core::signature::{HostKey, Signers};
use backup_core::snapshot::OpenSnapshot;
use backup_core::source::files::FilesError;
use backup_core::source::{Captured, CapturedStream, Sink, Source, SourceError};
use backup_core::state::State;
use backup_core::vault::document::MarkKind;
use backup_core::vault::memory::MemoryStore;
use bytes::Bytes;
use chrono::TimeDelta;

use super::super::recover::noise;
use super::prune::planned;
use super::watch::Watch;
use super::world::{World, host_key, make_vault};

/// One night's database: tables with rows, and bytes of one stream.
#[derive(Clone, Default)]
struct Night {
    tables: Vec<(&'static str, u64)>,
    bytes: usize,
    suspect: Vec<String>,
    import: bool,
}

fn night(tables: &[(&'static str, u64)]) -> Night {
    Night { tables: tables.to_vec(), bytes: 10_000, ..Night::default() }
}

#[async_trait]
impl Source for Night {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn is_import(&self) -> bool {
        self.import
    }

    fn expects_drop(&self, schema: &str, name: &str) -> bool {
        schema == "public" && name.starts_with("log_")
    }

    async fn capture(&self, sink: &dyn Sink, clock: &Clock, _: &dyn Monitor) -> Result<Captured, SourceError> {
        let failed = |error| SourceError::from(FilesError::Sink(error));
        let mut writer = sink.open(StreamKind::PgArchive).await.map_err(failed)?;
        writer.write(Bytes::from(noise(self.bytes, 1))).await.map_err(failed)?;
        let stream = writer.finish().await.map_err(failed)?;
        let table = |(name, rows): &(&str, u64)| TableEntry {
            schema: "public".to_owned(),
            name: (*name).to_owned(),
            kept: Kept::Archive,
            rows: *rows,
            bytes: 0,
            fingerprint: "0".repeat(32).parse().unwrap(),
            format: "text".to_owned(),
            columns: vec!["a".to_owned()],
            types: Vec::new(),
            encoding: "UTF8".to_owned(),
            parts: Vec::new(),
        };
        Ok(Captured {
            instant: clock.now(),
            streams: vec![CapturedStream { stream, copy: None, members: Vec::new(), paths: Vec::new() }],
            tables: self.tables.iter().map(table).collect(),
            properties: Vec::new(),
            suspect: self.suspect.clone(),
        })
    }
}

async fn run(world: &World, night: &Night) -> Committed {
    world.pass(TimeDelta::days(1));
    let clock = world.host.clock();
    let (key, signers, state, monitor) = (&world.key, &world.signers, &world.state, &world.monitor);
    backup(&world.vault, Host { key, signers, state, clock: &clock, monitor }, &world.request, night).await.unwrap()
}

async fn accept_by(world: &World, key: &HostKey, night: &Committed) -> Change {
    let by = (key, &world.signers);
    mark::set(&world.vault, by, &night.snapshot, MarkKind::Accept, (world.host.now(), "backup 0")).await.unwrap()
}

async fn accept(world: &World, night: &Committed) {
    assert_eq!(accept_by(world, &world.key, night).await, Change::Made);
}

fn lost(table: &str, then: u64, of: &Committed, now: u64) -> String {
    let snapshot = of.snapshot.doc.id.short();
    format!("table `public.{table}` lost over half its rows: {then} in snapshot {snapshot}, {now} now")
}

const GOOD: Vec<String> = Vec::new();

#[tokio::test]
async fn a_loss_is_suspect_each_night_until_somebody_accepts_it() {
    let world = World::new().await;
    let first = run(&world, &night(&[("t", 5000), ("u", 10)])).await;
    assert_eq!((first.suspect, first.snapshot.doc.suspect), (GOOD, 0), "nothing to compare with");
    let second = run(&world, &night(&[("t", 2550), ("u", 0)])).await;
    assert_eq!(second.suspect, GOOD, "49 % are everyday business");
    let third = run(&world, &night(&[("t", 1000), ("u", 0)])).await;
    let reason = [lost("t", 2550, &second, 1000)];
    assert_eq!(third.suspect, reason);
    let doc = &third.snapshot.doc;
    assert!(doc.suspect == 1 && doc.id.is_suspect(), "committed, and it says so: {doc:?}");
    let opened = OpenSnapshot::open(&world.vault, &third.snapshot, &world.identities).await.unwrap();
    assert_eq!(opened.manifest().suspect, reason);

    // Fails where a suspect snapshot becomes the baseline.
    let fourth = run(&world, &night(&[("t", 1000), ("u", 0)])).await;
    assert_eq!(fourth.suspect, reason);
    // Whoever can write into the vault but has no pinned key accepts nothing.
    assert_eq!(accept_by(&world, &host_key(9), &third).await, Change::NotBelieved);
    assert_eq!(run(&world, &night(&[("t", 1000), ("u", 0)])).await.suspect, reason);
    accept(&world, &third).await;
    // Fails where an acceptance is not looked for.
    let after = run(&world, &night(&[("t", 1000), ("u", 0)])).await;
    assert_eq!(after.suspect, GOOD);
    let worse = run(&world, &night(&[("t", 499)])).await;
    assert_eq!(
        worse.suspect[0],
        format!(
            "table `public.u` is gone: 0 rows in snapshot {} (a renamed table looks the same)",
            after.snapshot.doc.id.short()
        )
    );
    assert_eq!(worse.suspect[1..], [lost("t", 1000, &after, 499)]);
    assert!(!world.verify(true).await.is_damaged());
}

#[tokio::test]
async fn what_the_configuration_drops_is_not_missed() {
    let world = World::new().await;
    run(&world, &night(&[("t", 5000), ("log_1", 5000)])).await;
    assert_eq!(run(&world, &night(&[("t", 5000), ("log_2", 1)])).await.suspect, GOOD);
}

#[tokio::test]
async fn total_bytes_are_compared_without_any_table() {
    let world = World::new().await;
    let bytes = |bytes| Night { bytes, ..Night::default() };
    run(&world, &bytes(100_000)).await;
    assert_eq!(run(&world, &bytes(70_000)).await.suspect, GOOD);
    let found = run(&world, &bytes(48_999)).await;
    assert_eq!(found.suspect.len(), 1, "{:?}", found.suspect);
    assert!(found.suspect[0].starts_with("plaintext fell by over 30 %: 70000 bytes in"), "{:?}", found.suspect);
}

#[tokio::test]
async fn a_turn_of_the_generation_is_no_new_beginning_and_an_import_takes_no_part() {
    let mut world = World::new().await;
    world.request.period = "1d".parse().unwrap();
    let first = run(&world, &night(&[("t", 5000)])).await;
    let import = Night { import: true, bytes: 10, ..night(&[("t", 1)]) };
    assert_eq!(run(&world, &import).await.suspect, GOOD);
    let second = run(&world, &Night { bytes: 1000, ..night(&[("t", 2000)]) }).await;
    assert_ne!(first.snapshot.doc.generation, second.snapshot.doc.generation);
    // Fails where the import is compared with: it has fewer rows and fewer bytes.
    let bytes =
        format!("plaintext fell by over 30 %: 10000 bytes in snapshot {}, 1000 now", first.snapshot.doc.id.short());
    assert_eq!(second.suspect, [lost("t", 5000, &first, 2000), bytes]);
}

#[tokio::test]
async fn other_reasons_to_be_suspect_keep_nothing_from_being_the_baseline() {
    let world = World::new().await;
    let odd = |rows| Night { suspect: vec!["not captured: x".to_owned()], ..night(&[("t", rows)]) };
    for rows in [5000, 3000, 2000] {
        // Fails where the newest that is not suspect at all is looked for.
        assert_eq!(run(&world, &odd(rows)).await.suspect, ["not captured: x"], "{rows}");
    }
    assert_eq!(run(&world, &odd(900)).await.suspect.len(), 2);
}

#[tokio::test]
async fn without_the_state_totals_of_signed_documents_are_compared() {
    let mut world = World::new().await;
    run(&world, &night(&[("t", 5000), ("u", 5000)])).await;
    world.lose_state().await;
    // One table is emptied, another grew: sums do not show it, and nothing else is known of that night.
    assert_eq!(run(&world, &night(&[("t", 0), ("u", 10_000)])).await.suspect, GOOD);
    let third = run(&world, &night(&[("t", 0), ("u", 4000)])).await;
    assert_eq!(third.suspect.len(), 1, "the next night tables are compared again: {:?}", third.suspect);
    world.lose_state().await;
    // The suspect one is no baseline, though nobody remembers why it is suspect: fails without the look at `doc.suspect`.
    let fourth = run(&world, &night(&[("t", 4000)])).await;
    let text = fourth.suspect.join("\n");
    assert!(text.contains("tables are gone: 2 in snapshot") && text.contains("10000 in snapshot"), "{text}");
    accept(&world, &fourth).await;
    world.lose_state().await;
    assert_eq!(run(&world, &night(&[("t", 4000)])).await.suspect, GOOD, "accepted, and remembered by nobody");
}

#[tokio::test]
async fn a_lost_state_where_every_snapshot_is_suspect_compares_with_the_oldest() {
    let mut world = World::new().await;
    let odd = |rows| Night { suspect: vec!["not captured: x".to_owned()], ..night(&[("t", rows)]) };
    run(&world, &odd(5000)).await;
    assert_eq!(run(&world, &odd(1000)).await.suspect.len(), 2);
    world.lose_state().await;
    // Fails where the newest of them is taken: nobody knows whether it is the one with the loss.
    assert_eq!(run(&world, &odd(1000)).await.suspect.len(), 2);
}

#[tokio::test]
async fn a_run_that_ended_before_it_remembered_hides_nothing() {
    for second in [5000, 1000] {
        let mut world = World::new().await;
        let first = run(&world, &night(&[("t", 5000)])).await;
        let known = world.state.clone();
        let dir = tempfile::tempdir().unwrap();
        world.state = State::open(dir.path(), &world.request.stack).await.unwrap();
        let forgotten = run(&world, &night(&[("t", second)])).await;
        assert_eq!(forgotten.suspect.is_empty(), second == 5000);
        world.state = known;
        // The tables are those of the night before.
        assert_eq!(run(&world, &night(&[("t", 1000)])).await.suspect, [lost("t", 5000, &first, 1000)]);
        if second == 1000 {
            accept(&world, &forgotten).await;
            assert_eq!(run(&world, &night(&[("t", 1000)])).await.suspect, GOOD);
        }
    }
}

#[tokio::test]
async fn an_empty_vault_is_compared_with_what_this_host_remembers() {
    let mut world = World::new().await;
    let first = run(&world, &night(&[("t", 5000)])).await;
    world.vault = make_vault("other", &Watch::new(MemoryStore::new(world.store.clock())), world.store.now()).await;
    assert_eq!(run(&world, &night(&[("t", 1000)])).await.suspect, [lost("t", 5000, &first, 1000)]);
}

#[tokio::test]
async fn what_another_host_captured_is_no_baseline() {
    let mut world = World::new().await;
    let other = host_key(2);
    let lines = format!("{}\n{}\n", world.key.allowed_signers_line(), other.allowed_signers_line());
    world.signers = Signers::parse(&lines).unwrap();
    run(&world, &night(&[("t", 5000)])).await;
    let own = std::mem::replace(&mut world.key, other);
    world.lose_state().await;
    assert_eq!(run(&world, &night(&[("t", 10)])).await.suspect, GOOD, "its first");
    world.key = own;
    world.lose_state().await;
    // Fails where a listed document is taken whichever host signed it.
    assert_eq!(run(&world, &night(&[("t", 10)])).await.suspect.len(), 1);
}

#[tokio::test]
async fn a_planted_name_freezes_nothing_and_hides_nothing() {
    let mut world = World::new().await;
    let first = run(&world, &night(&[("t", 5000)])).await;
    for (name, suspects) in [("20990101T000000Z-9r-zzzzzz-suspect", 1), ("20990102T000000Z-9r-zzzzzz", 2)] {
        let path = first.snapshot.doc.dir().snapshot(&name.parse().unwrap(), ".json");
        world.set(&path, Some(b"{}".to_vec())).await;
        assert_eq!(waiting(&world).await, suspects - 1, "{name}");
        assert_eq!(run(&world, &night(&[("t", 1000)])).await.suspect.len(), 1, "{name}");
        assert_eq!(waiting(&world).await, suspects, "{name}");
        world.lose_state().await;
    }
}

async fn announced(world: &World) -> usize {
    planned(world).await.steps.iter().filter(|step| step.action == Action::Announce).count()
}

async fn waiting(world: &World) -> usize {
    let vaults = std::slice::from_ref(&world.vault);
    let (listed, silent) = catalogue::snapshots(vaults, &world.request.stack, &world.request.source).await;
    assert!(silent.is_empty());
    let found = unaccepted(vaults, &world.signers, &listed.iter().collect::<Vec<_>>()).await;
    assert!(found.failed.is_empty(), "{:?}", found.failed);
    found.found.len()
}

#[tokio::test]
async fn nothing_from_before_an_anomaly_expires_until_each_is_accepted() {
    let mut world = World::new().await;
    world.request.period = "1d".parse().unwrap();
    for _ in 0..3 {
        run(&world, &night(&[("t", 5000)])).await;
    }
    let mut suspects = Vec::new();
    for _ in 0..7 {
        suspects.push(run(&world, &night(&[("t", 100)])).await);
    }
    assert_eq!(waiting(&world).await, 7);
    // The first ones are a week past the window. Fails without `keep_anomalies` in the plan.
    let frozen = planned(&world).await;
    assert!(frozen.steps.iter().all(|step| step.action == Action::Keep), "{:?}", frozen.steps);
    let text = &frozen.steps[0].snapshots[0].1;
    assert!(text.starts_with("keep: anomaly `") && text.ends_with("-suspect` not accepted"), "{text}");
    // The newest is right; of the others nobody has said so, and each freezes what is before it.
    accept(&world, &suspects[6]).await;
    assert_eq!(run(&world, &night(&[("t", 100)])).await.suspect, GOOD, "it is the baseline now");
    assert_eq!((waiting(&world).await, announced(&world).await), (6, 0));
    for suspect in &suspects[..6] {
        accept(&world, suspect).await;
    }
    assert_eq!(waiting(&world).await, 0);
    assert!(announced(&world).await >= 6, "expiry goes on");
}
