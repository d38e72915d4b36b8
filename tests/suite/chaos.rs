//! Real processes on one vault, two at a time, killed at any moment: what the policy promises restores, always.
//!
//! Two runs, run and prune, replicate and prune, two prunes, run and verify, on directory vaults and on S3 vaults; after each
//! round nobody lives, and everything is judged by what was captured, which is kept here in plain. Days pass in the vault
//! ([`super::past`]), so that generations really expire and are deleted between the kills.
//!
//! A short form runs always; `scripts/chaos.sh` is the campaign: `BACKUP_CHAOS_SECONDS`, and `BACKUP_CHAOS_SEED` makes the
//! same dice roll again, as far as moments of a real machine can.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use backup_core::vault::layout::SnapshotId;
use chrono::{DateTime, TimeDelta, Utc};
use harness::s3::S3Server;

use super::host::{Ended, Host};
use super::past::{Files, Past, STACK, contents, host_key, let_a_day_pass, now, set_time};
use super::recover::noise;
use super::stack::files_below;

/// Days of captures before the first round, on directories and on S3, where each request takes its time.
const DAYS: [i64; 2] = [14, 8];
/// The vaults, and how many days each keeps.
const VAULTS: [(&str, i64); 2] = [("local", 4), ("offsite", 8)];
/// The replica lacks the newest days at the beginning.
const BEHIND: i64 = 5;
/// A process that takes longer hangs.
const PATIENCE: Duration = Duration::from_mins(2);

const RUN: &[&str] = &["run"];
const PRUNE: &[&str] = &["prune", "--apply"];
const REPLICATE: &[&str] = &["replicate"];
const VERIFY: &[&str] = &["verify", "--read-data", "1/1"];
/// Who meets whom.
const PAIRS: [[&[&str]; 2]; 5] = [[RUN, RUN], [RUN, PRUNE], [REPLICATE, PRUNE], [PRUNE, PRUNE], [RUN, VERIFY]];

/// Numbers that look random, the same ones for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.below(from.len() as u64)).unwrap())
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

/// What happened, for the last line.
#[derive(Debug, Default)]
struct Count {
    rounds: u32,
    processes: u32,
    kills: u32,
    snapshots: usize,
    restores: u32,
    deleted: usize,
    drafts: usize,
}

/// A host with two vaults, and everything that it ever captured.
struct World {
    host: Host,
    server: Option<S3Server>,
    /// What was captured, by the mark in it.
    plain: BTreeMap<String, Files>,
    /// What each vault listed after the last round.
    listed: [BTreeSet<String>; 2],
    /// How long a run takes.
    span: Duration,
    count: Count,
}

/// Writes the files to be captured: a mark, small files of which one changed, a larger one that changed in its middle.
fn write_data(dir: &Path, mark: &str, seed: u64) -> Files {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("mark.txt"), format!("{mark:<24}")).unwrap();
    for n in 0..5 {
        fs::write(dir.join(format!("small-{n}.txt")), noise(2000, if seed % 5 == n { seed } else { n })).unwrap();
    }
    let mut large = noise(600_000, 1);
    large[300_000..301_000].copy_from_slice(&noise(1000, seed));
    fs::write(dir.join("large.bin"), large).unwrap();
    contents(dir)
}

fn mark_of(files: &Files) -> String {
    String::from_utf8(files["mark.txt"].clone()).unwrap().trim_end().to_owned()
}

impl World {
    async fn new(s3: bool) -> Self {
        let host = Host::new();
        let server = s3.then(|| S3Server::start().unwrap());
        let vaults: String = VAULTS.iter().map(|(name, days)| vault_text(name, *days, server.as_ref())).collect();
        if let Some(server) = &server {
            let (access, secret) = (&server.bucket.access_key, &server.bucket.secret_key);
            let keys = format!("AWS_ACCESS_KEY_ID={access}\nAWS_SECRET_ACCESS_KEY={secret}\n");
            fs::write(host.path("s3.env"), keys).unwrap();
            fs::set_permissions(host.path("s3.env"), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let source = "[source.docs]\ntype = \"files\"\npaths = [\"data\"]\ngeneration = \"1d\"\n";
        host.configure(&format!("{vaults}{source}"));
        let mut world = Self {
            host,
            server,
            plain: BTreeMap::new(),
            listed: Default::default(),
            span: Duration::ZERO,
            count: Count::default(),
        };
        world.write("before", 0);
        world.host.good(&["init"]);
        world.live_through().await;
        // The first one opens a generation; the second takes as long as the others will.
        for mark in ["first", "second"] {
            let begun = Instant::now();
            world.write(mark, 1);
            world.host.good(RUN);
            world.span = begun.elapsed();
        }
        for at in 0..VAULTS.len() {
            world.listed[at] = world.list(at);
            assert!(world.listed[at].len() > 5, "the past is not listed: {:?}", world.listed[at]);
        }
        world
    }

    /// The days before: all in the first vault, and all but the newest in the second.
    async fn live_through(&mut self) {
        let document: serde_json::Value =
            serde_json::from_slice(&fs::read(self.files(0).join("vault.json")).unwrap()).unwrap();
        let id = document["id"].as_str().unwrap().parse().unwrap();
        let mut past = Past::new(&self.host, &id, "docs", vec![self.host.path("data")]).await;
        let now = now();
        for day in (1..=DAYS[usize::from(self.server.is_some())]).rev() {
            self.write(&format!("day-{day}"), 1000 + day.unsigned_abs());
            past.capture(now - TimeDelta::days(day)).await;
        }
        past.write(&self.files(0), now).await;
        past.write(&self.files(1), now - TimeDelta::days(BEHIND)).await;
    }

    fn write(&mut self, mark: &str, seed: u64) {
        let files = write_data(&self.host.path("data"), mark, seed);
        self.plain.insert(mark.to_owned(), files);
    }

    /// Where a vault's files lie.
    fn files(&self, vault: usize) -> PathBuf {
        let name = VAULTS[vault].0;
        self.server.as_ref().map_or_else(|| self.host.path(name), |server| server.files().join(name))
    }

    fn list(&self, vault: usize) -> BTreeSet<String> {
        let list = self.host.run(&["list", "--json", "--vault", VAULTS[vault].0]);
        assert_eq!(list.code, 0, "{list:?}");
        let value = list.json();
        value["snapshots"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Starts two, the second a little later, and kills some of them. Gives those that ended by themselves.
    fn together(&mut self, dice: &mut Dice, pair: [&[&str]; 2]) -> Vec<(String, Ended)> {
        #[derive(Clone, Copy)]
        enum Event {
            Start(usize),
            Kill(usize),
        }
        let span = u64::try_from(self.span.as_millis()).unwrap();
        let mut events = vec![(0, Event::Start(0)), (dice.below(span / 3), Event::Start(1))];
        for at in 0..2 {
            if dice.below(3) > 0 {
                events.push((events[at].0 + 1 + dice.below(span), Event::Kill(at)));
            }
        }
        events.sort_by_key(|(at, _)| *at);
        let begun = Instant::now();
        let mut children: [Option<Child>; 2] = [None, None];
        for (at, event) in events {
            std::thread::sleep(Duration::from_millis(at).saturating_sub(begun.elapsed()));
            match event {
                Event::Start(n) => {
                    let mut command = self.host.command(pair[n]);
                    children[n] = Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
                }
                // Fails where it has ended; that is no kill.
                Event::Kill(n) => drop(children[n].as_mut().unwrap().kill()),
            }
        }
        let mut ended = Vec::new();
        for (n, child) in children.into_iter().enumerate() {
            let mut child = child.unwrap();
            while child.try_wait().unwrap().is_none() {
                assert!(begun.elapsed() < PATIENCE, "`{}` hangs", pair[n].join(" "));
                std::thread::sleep(Duration::from_millis(5));
            }
            let output = child.wait_with_output().unwrap();
            self.count.processes += 1;
            if output.status.code().is_some() {
                ended.push((pair[n].join(" "), Ended::of(output)));
            } else {
                self.count.kills += 1;
            }
        }
        ended
    }

    /// Restores a snapshot from a vault and compares it with what was captured.
    fn restores(&mut self, id: &str, vault: usize) {
        let name = VAULTS[vault].0;
        let back = self.host.path("back");
        let args = ["restore", id, "--vault", name, "--identity", "ops.txt", "--into-dir", "back"];
        let ended = self.host.run(&args);
        assert_eq!(ended.code, 0, "{id} in `{name}` is listed and does not restore: {ended:?}");
        let files = contents(&back);
        let plain = self.plain.get(&mark_of(&files));
        assert!(plain == Some(&files), "{id} in `{name}` came back as something that never was");
        fs::remove_dir_all(back).unwrap();
        self.count.restores += 1;
    }

    /// Nobody lives: what is listed and was not is whole, and what was promised is listed.
    fn judge(&mut self, dice: &mut Dice) {
        for (vault, (name, days)) in VAULTS.into_iter().enumerate() {
            let now = self.list(vault);
            let before = std::mem::replace(&mut self.listed[vault], now.clone());
            let newest = now.iter().map(|id| instant(id)).max().expect("a vault is never empty");
            for id in before.difference(&now) {
                assert!(instant(id) < newest - TimeDelta::days(days), "`{name}` promised {id}, and it is gone");
            }
            for id in now.difference(&before) {
                self.restores(id, vault);
            }
            let old: Vec<String> = now.intersection(&before).cloned().collect();
            if let Some(id) = dice.pick(&old) {
                self.restores(id, vault);
            }
            self.count.drafts = self.count.drafts.max(drafts(&self.files(vault)).len());
        }
    }

    /// Everything that an operator would do after the worst of weeks, and nothing of the past is in the way.
    fn settle(&mut self, dice: &mut Dice) {
        let key = host_key(&self.host);
        for turn in 0..2 {
            self.write(&format!("settled-{turn}"), 5000 + turn);
            for args in [RUN, REPLICATE, PRUNE] {
                let ended = self.host.run(args);
                assert_eq!(ended.code, 0, "{args:?} alone: {ended:?}");
            }
            for vault in 0..VAULTS.len() {
                let_a_day_pass(&self.files(vault), &key, usize::MAX);
                let old = now() - TimeDelta::days(3);
                for draft in drafts(&self.files(vault)) {
                    set_time(&draft, old);
                }
            }
            self.judge(dice);
        }
        let verify = self.host.run(&["verify", "--identity", "ops.txt"]);
        assert_eq!(verify.code, 0, "{verify:?}");
        for vault in 0..VAULTS.len() {
            for id in self.listed[vault].clone() {
                self.restores(&id, vault);
            }
            self.count.snapshots += self.listed[vault].len();
            self.nothing_is_left_of_the_deleted(vault);
            assert_eq!(drafts(&self.files(vault)), [] as [PathBuf; 0], "drafts of dead processes stay for ever");
        }
        let state = fs::read_dir(self.host.path("state")).unwrap().count();
        assert!(state < 12, "{state} files in the state folder");
    }

    /// Of a generation with a receipt there is no file, and no deletion is half done.
    fn nothing_is_left_of_the_deleted(&mut self, vault: usize) {
        let source = self.files(vault).join(STACK).join("docs");
        for path in files_below(&source.join("receipts")) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let Some((_, generation)) = name.strip_suffix(".json").and_then(|name| name.split_once('-')) else {
                continue;
            };
            // Of two prunes that meet, one may announce what the other has just deleted: an announcement of nothing, which a later
            // prune takes away.
            let announced = |path: &PathBuf| path.ends_with("expired.json") || path.ends_with("expired.json.sig");
            let mut left = files_below(&source.join(generation));
            left.retain(|path| !announced(path));
            assert_eq!(left, [] as [PathBuf; 0], "left of {generation}");
            self.count.deleted += 1;
        }
        let half = files_below(&source).into_iter().find(|path| path.ends_with("deleting.json"));
        assert_eq!(half, None, "a deletion was not taken up again");
    }
}

fn vault_text(name: &str, days: i64, server: Option<&S3Server>) -> String {
    let place = server.map_or_else(
        || format!("path = \"{name}\""),
        |server| {
            let bucket = &server.bucket;
            format!(
                "s3 = {{ endpoint = \"{}\", bucket = \"{}\", prefix = \"{name}\", region = \"{}\", path_style = true }}\n\
                 credentials = {{ file = \"s3.env\" }}",
                bucket.endpoint, bucket.bucket, bucket.region
            )
        },
    );
    format!("[vault.{name}]\n{place}\nkeep = {{ within = \"{days}d\", min = 2 }}\n")
}

fn instant(id: &str) -> DateTime<Utc> {
    id.parse::<SnapshotId>().unwrap().instant()
}

/// Drafts of a directory vault.
fn drafts(vault: &Path) -> Vec<PathBuf> {
    files_below(&vault.join(".tmp"))
}

/// Codes with which a process may end that met another one and was not killed itself.
fn may_end(verb: &str, code: i32) -> bool {
    match verb {
        // Another run has the lock.
        "run" => [0, 11].contains(&code),
        _ => code == 0,
    }
}

async fn epoch(s3: bool, seed: u64, rounds: u32, until: Instant) -> Count {
    let mut dice = Dice(seed);
    let mut world = World::new(s3).await;
    let key = host_key(&world.host);
    for round in 0..rounds {
        let pair = PAIRS[usize::try_from(round).unwrap() % PAIRS.len()];
        world.write(&format!("{seed}-{round}"), dice.below(1 << 30));
        for (verb, ended) in world.together(&mut dice, pair) {
            assert!(may_end(&verb, ended.code), "seed {seed}, round {round}, `{verb}` among {pair:?}: {ended:?}");
        }
        world.judge(&mut dice);
        if dice.below(2) == 0 {
            for vault in 0..VAULTS.len() {
                let limit = usize::try_from(dice.below(6)).unwrap();
                let_a_day_pass(&world.files(vault), &key, limit);
            }
        }
        world.count.rounds += 1;
        if round >= 4 && rounds > 10 && Instant::now() > until {
            break;
        }
    }
    world.settle(&mut dice);
    world.count
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_promised_survives_processes_that_meet_and_are_killed() {
    let (seconds, seed) = (number("BACKUP_CHAOS_SECONDS", 0), number("BACKUP_CHAOS_SEED", 1));
    // A campaign begins anew with another past every so many rounds: what can expire has then been deleted.
    // A campaign begins anew with another past every so many rounds: what can expire has then been deleted. The short form
    // leaves S3 to the campaign, of which `scripts/test.sh` runs a minute.
    let (rounds, least) = if seconds == 0 { ([10, 0], 1) } else { ([40, 20], 2) };
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut all = Count::default();
    for turn in 0_u64.. {
        let s3 = turn % 2 == 1;
        if turn >= least && Instant::now() > until {
            break;
        }
        println!("seed {} on {}", seed + turn, if s3 { "S3" } else { "directories" });
        let count = epoch(s3, seed + turn, rounds[usize::from(s3)], until).await;
        println!("   {count:?}");
        let Count { rounds, processes, kills, snapshots, restores, deleted, drafts } = count;
        all.rounds += rounds;
        all.processes += processes;
        all.kills += kills;
        all.snapshots += snapshots;
        all.restores += restores;
        all.deleted += deleted;
        all.drafts = all.drafts.max(drafts);
    }
    println!(
        "chaos: {} rounds, {} processes, {} killed, {} snapshots at the ends, {} restores, {} generations deleted, \
         at most {} drafts at a time",
        all.rounds, all.processes, all.kills, all.snapshots, all.restores, all.deleted, all.drafts
    );
    assert!(all.kills > 0, "no kill met a process: this proves nothing");
    assert!(all.deleted > 0, "nothing was deleted: this proves nothing");
}

#[tokio::test]
#[should_panic(expected = "promised")]
async fn a_promised_snapshot_that_is_gone_is_seen() {
    let mut world = World::new(false).await;
    // The newest stays: ages count from it.
    let before = world.listed[0].iter().rev().nth(1).unwrap().clone();
    let document = files_below(&world.files(0)).into_iter().find(|path| path.ends_with(format!("{before}.json")));
    fs::remove_file(document.unwrap()).unwrap();
    world.judge(&mut Dice(1));
}

#[tokio::test]
#[should_panic(expected = "something that never was")]
async fn a_snapshot_that_is_something_else_is_seen() {
    let mut world = World::new(false).await;
    let id = world.listed[0].iter().next_back().unwrap().clone();
    world.plain.get_mut("second").unwrap().insert("small-1.txt".to_owned(), b"other".to_vec());
    world.restores(&id, 0);
}
