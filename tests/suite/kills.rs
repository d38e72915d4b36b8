//! Whatever is killed at whatever moment: what the vault lists afterwards restores, and the next good run succeeds.
//!
//! A short form runs always; `BACKUP_KILL_ROUNDS=50` is the campaign. `BACKUP_KILL_SEED` makes a round happen again, as
//! far as moments of a real machine can.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use harness::pg::{Cluster, Options};

use super::host::Host;

/// Each transaction adds to both tables, so that no instant shows different numbers of rows in them.
const SCHEMA: &str = "CREATE TABLE left_side (id int8, t text); CREATE TABLE right_side (id int8, n numeric);
    CREATE PROCEDURE add(rows int8) LANGUAGE sql AS $$
        INSERT INTO left_side SELECT i, md5(i::text) FROM generate_series(1, rows) i;
        INSERT INTO right_side SELECT i, i / 7.0 FROM generate_series(1, rows) i $$;
    CALL add(150000);";

/// What is killed in a round.
#[derive(Debug, Clone, Copy)]
enum Victim {
    /// Our process, by SIGKILL.
    Program,
    /// `pg_dump`, by SIGKILL.
    Dump,
    /// A worker's backend in the middle of its COPY, by the server's administrator.
    Worker,
    /// The session that holds locks and snapshot, by the server's administrator.
    Coordinator,
    /// The server, by SIGKILL; it recovers.
    Server,
}

const VICTIMS: [Victim; 5] = [Victim::Program, Victim::Dump, Victim::Worker, Victim::Coordinator, Victim::Server];

/// How often a round is tried whose kill met nobody, each time earlier in the run.
const TRIES: u32 = 6;

/// Numbers that look random, the same ones for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

/// Process ids of the `pg_dump` that `parent` has dump with a snapshot: not the ones that it asks for their version.
fn dumps(parent: u32) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().into_string().ok()).filter(|id| id.parse::<u32>().is_ok());
    let read = |id: &str, file: &str| {
        let bytes = std::fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let child = |id: &String| {
        let stat = read(id, "stat");
        let (program, rest) = stat.rsplit_once(')').unwrap_or_default();
        program.ends_with("(pg_dump")
            && rest.split_whitespace().nth(1) == Some(&parent.to_string())
            && read(id, "cmdline").contains("--snapshot=")
    };
    ids.filter(child).collect()
}

/// Ends the first session of a capture that fits, as soon as there is one. Whether there was one while captures had sessions.
fn ended(cluster: &Cluster, condition: &str) -> bool {
    let sql = format!(
        "DO $$ BEGIN FOR i IN 1..1000 LOOP PERFORM pg_stat_clear_snapshot();
            PERFORM pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity
                WHERE application_name ~ '^backup/' AND {condition} ORDER BY backend_start LIMIT 1) one;
            IF FOUND THEN RETURN; END IF;
            PERFORM pg_sleep(0.002); END LOOP; RAISE 'nobody was there'; END $$"
    );
    cluster.try_psql("template1", &sql).is_ok()
}

/// Whether the kill met anybody.
fn kill(victim: Victim, run: &mut Child, cluster: &Cluster) -> bool {
    if run.try_wait().unwrap().is_some() {
        return false;
    }
    match victim {
        Victim::Program => {
            run.kill().unwrap();
            true
        }
        Victim::Dump => loop {
            let ids = dumps(run.id());
            if !ids.is_empty() {
                // It may end by itself in this moment.
                let killed = std::process::Command::new("kill").arg("-9").args(&ids).stderr(Stdio::null()).status();
                return killed.unwrap().success();
            }
            if run.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        },
        Victim::Worker => ended(cluster, "state = 'active' AND query ~ '^COPY' AND query ~ '_side'"),
        // Between two statements: the first session of an attempt that has a transaction.
        Victim::Coordinator => ended(cluster, "state = 'idle in transaction'"),
        Victim::Server => {
            cluster.kill9();
            cluster.start_again();
            true
        }
    }
}

/// Ids that the vault lists.
fn listed(host: &Host) -> BTreeSet<String> {
    let list = host.good(&["list", "--json"]).json();
    let snapshots = list["snapshots"].as_array().unwrap().iter();
    snapshots.map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect()
}

/// Restores a snapshot with everything compared, and looks at its instant without our tool.
fn restores(host: &Host, cluster: &Cluster, id: &str) {
    host.good(&["restore", id, "--identity", "ops.txt", "--into", "back", "--verify", "content"]);
    let sides = "SELECT count(*) FROM left_side UNION ALL SELECT count(*) FROM right_side";
    let counts = cluster.psql("back", sides);
    let (left, right) = counts.split_once('\n').unwrap();
    assert_eq!(left, right, "{id} shows two instants");
    assert!(left.parse::<u64>().unwrap() >= 150_000, "{id}: {left}");
    cluster.psql("postgres", "DROP DATABASE back WITH (FORCE)");
}

#[test]
fn no_snapshot_appears_that_does_not_restore() {
    let settings = [("autovacuum", "off"), ("max_wal_size", "4GB")].map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec();
    let cluster = Cluster::start_with(Options { settings, ..Options::default() });
    cluster.psql("postgres", SCHEMA);
    let host = Host::new();
    let source =
        format!("[source.db]\ntype = \"postgres\"\nurl = \"{}\"\nglobals = \"none\"\n", cluster.url("postgres"));
    host.configure(&format!("{}{source}", Host::local("local")));
    host.good(&["init"]);
    let began = Instant::now();
    host.backup();
    // A kill falls anywhere into the time that a whole run takes, and a little behind.
    let millis = |since: Instant| u64::try_from(since.elapsed().as_millis()).unwrap();
    let mut span = millis(began) * 11 / 10;

    let (rounds, seed) = (number("BACKUP_KILL_ROUNDS", 5), number("BACKUP_KILL_SEED", 1));
    let mut dice = Dice(seed);
    let mut known = listed(&host);
    // Of each victim: rounds, kills that met it, runs that failed of them.
    let mut counts = [[0_u32; 3]; VICTIMS.len()];
    for round in 0..rounds {
        let at = usize::try_from(round).unwrap() % VICTIMS.len();
        let victim = VICTIMS[at];
        counts[at][0] += 1;
        let mut after = Duration::from_millis(dice.below(span));
        for _ in 0..TRIES {
            cluster.psql("postgres", "BEGIN; CALL add(500); COMMIT");
            let mut run = host.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let began = Instant::now();
            while began.elapsed() < after {
                if run.try_wait().unwrap().is_some() {
                    // It outran the kill. The first run may have been slow for reasons of its own, and all kills would miss.
                    span = span.min(millis(began) * 11 / 10);
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            let hit = kill(victim, &mut run, &cluster);
            let ended = run.wait().unwrap();
            println!("round {round}: {victim:?} after {} ms, hit {hit}: {ended}", after.as_millis());
            let now = listed(&host);
            for id in now.difference(&known) {
                restores(&host, &cluster, id);
            }
            known = now;
            if hit {
                counts[at][1] += 1;
                counts[at][2] += u32::from(!ended.success());
                break;
            }
            after = after * 2 / 3;
        }
    }
    for (victim, [rounds, hits, failed]) in VICTIMS.iter().zip(counts) {
        println!("{victim:?}: {hits} hits in {rounds} rounds, {failed} runs failed");
        assert!(rounds == 0 || hits > 0, "no kill met {victim:?}: the test proves nothing of it");
    }
    assert!(counts.iter().any(|[_, _, failed]| *failed > 0), "no kill ended a run: the test proves nothing");
    let report = host.backup();
    restores(&host, &cluster, super::host::of_source(&report, "db")["snapshot"].as_str().unwrap());
    let verify = host.good(&["verify", "--json"]).json();
    println!("{rounds} rounds with seed {seed}, {} snapshots, verify {}", known.len(), verify["outcome"]);
}
