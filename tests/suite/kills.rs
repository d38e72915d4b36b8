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
    /// One of our sessions, by the server's administrator.
    Session,
    /// The server, by SIGKILL; it recovers.
    Server,
}

const VICTIMS: [Victim; 4] = [Victim::Program, Victim::Dump, Victim::Session, Victim::Server];

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

/// Process ids of the children of `parent` whose program is `name`.
fn children(parent: u32, name: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().into_string().ok()).filter(|id| id.parse::<u32>().is_ok());
    let child = |id: &String| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let (program, rest) = stat.rsplit_once(')').unwrap_or_default();
        program.ends_with(&format!("({name}")) && rest.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    ids.filter(child).collect()
}

fn kill(victim: Victim, run: &mut Child, cluster: &Cluster, dice: &mut Dice) {
    match victim {
        Victim::Program => run.kill().unwrap(),
        Victim::Dump => {
            for id in children(run.id(), "pg_dump") {
                // It may have ended by itself.
                let _ = std::process::Command::new("kill").args(["-9", &id]).stderr(Stdio::null()).status();
            }
        }
        Victim::Session => {
            let sql = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name IN ('backup', 'pg_dump') \
                 ORDER BY pid OFFSET {} LIMIT 1",
                dice.below(4)
            );
            cluster.psql("postgres", &sql);
        }
        Victim::Server => {
            cluster.kill9();
            cluster.start_again();
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

    let (rounds, seed) = (number("BACKUP_KILL_ROUNDS", 8), number("BACKUP_KILL_SEED", 1));
    let mut dice = Dice(seed);
    let (mut known, mut died) = (listed(&host), 0);
    for round in 0..rounds {
        let victim = VICTIMS[usize::try_from(round % 4).unwrap()];
        cluster.psql("postgres", "BEGIN; CALL add(500); COMMIT");
        let mut run = host.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (began, after) = (Instant::now(), Duration::from_millis(dice.below(span)));
        while began.elapsed() < after {
            if run.try_wait().unwrap().is_some() {
                // It outran the kill. The first run may have been slow for reasons of its own, and all kills would miss.
                span = span.min(millis(began) * 11 / 10);
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        kill(victim, &mut run, &cluster, &mut dice);
        let ended = run.wait().unwrap();
        died += u32::from(!ended.success());
        println!("round {round}: {victim:?} after {} ms: {ended}", after.as_millis());
        let now = listed(&host);
        for id in now.difference(&known) {
            restores(&host, &cluster, id);
        }
        known = now;
    }
    assert!(died > 0, "no kill met a run: the test proves nothing");
    let report = host.backup();
    restores(&host, &cluster, super::host::of_source(&report, "db")["snapshot"].as_str().unwrap());
    let verify = host.good(&["verify", "--json"]).json();
    println!(
        "{rounds} rounds with seed {seed}, {died} runs died, {} snapshots, verify {}",
        known.len(),
        verify["outcome"]
    );
}
