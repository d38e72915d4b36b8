//! Memory does not grow with the source: peak resident size of `backup run`, by the kernel's own high-water mark.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::pg::Cluster;

use super::host::{Ended, Host, of_source};

pub(super) const MIB: u64 = 1 << 20;
/// What is promised at default settings.
pub(super) const MOST: u64 = 256 * MIB;
/// How much a source ten times as large may add.
const GROWTH: u64 = 16 * MIB;

/// `bytes` that do not compress and hold no chunk twice.
fn noise(path: &Path, seed: u64, bytes: u64) {
    let mut out = BufWriter::with_capacity(1 << 20, fs::File::create(path).unwrap());
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..bytes / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.write_all(&state.to_le_bytes()).unwrap();
    }
    out.flush().unwrap();
}

/// Peak resident bytes of a process so far; `None` once it is gone (a zombie has no memory).
fn peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024)
}

/// Runs a verb, which must end well, and gives its peak.
fn measured(host: &Host, args: &[&str]) -> u64 {
    let (ended, most) = watched(host, args);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    most
}

/// Runs a verb; how it ended, and its peak. The mark only rises, so the last reading is the peak but for what the last
/// milliseconds added. One that takes far too much is killed, and has the code -1.
pub(super) fn watched(host: &Host, args: &[&str]) -> (Ended, u64) {
    let (out, err) = (host.path("out"), host.path("err"));
    let mut command = host.command(args);
    command.stdout(Stdio::from(fs::File::create(&out).unwrap())).stderr(Stdio::from(fs::File::create(&err).unwrap()));
    let mut child = command.spawn().unwrap();
    let mut most = 0;
    let status = loop {
        most = peak(child.id()).unwrap_or(0).max(most);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if most > 8 * MOST {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(most > MIB, "nothing was measured");
    let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    (Ended { code: status.code().unwrap_or(-1), out: text(out), err: text(err) }, most)
}

#[expect(clippy::print_stdout, reason = "the figures are worth a look")]
fn judge(what: &str, small: u64, large: u64) {
    println!("{what}: peak {} MiB, then {} MiB", small / MIB, large / MIB);
    assert!(small.max(large) <= MOST, "{what}: {} MiB and {} MiB", small / MIB, large / MIB);
    assert!(large <= small + GROWTH, "{what}: {} MiB became {} MiB", small / MIB, large / MIB);
}

#[test]
fn too_much_and_growth_are_noticed() {
    let fails = |small, large| std::panic::catch_unwind(|| judge("example", small, large)).is_err();
    assert!(!fails(100 * MIB, 116 * MIB) && !fails(120 * MIB, 100 * MIB));
    assert!(fails(100 * MIB, 117 * MIB) && fails(250 * MIB, 257 * MIB) && fails(257 * MIB, 100 * MIB));
    // What a process holds is seen, and what it let go of is not forgotten.
    let script = "a=$(head -c 50000000 /dev/zero | tr '\\0' x); a=; sleep 0.2";
    let mut child = std::process::Command::new("bash").args(["-c", script]).spawn().unwrap();
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        most = peak(child.id()).unwrap_or(0).max(most);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(most > 48_000_000, "{most}");
}

#[test]
fn peak_memory_of_files_is_flat_from_100_mb_to_1_gb() {
    let measure = |files: u64, each: u64| {
        let host = Host::new();
        fs::create_dir(host.path("data")).unwrap();
        for n in 0..files {
            noise(&host.path(&format!("data/{n}")), n + 1, each);
        }
        // Small ones as well: they share segments.
        for n in 0..200 {
            noise(&host.path(&format!("data/small-{n}")), 1000 + n, 20_000);
        }
        host.configure(&format!("{}[source.data]\ntype = \"files\"\npaths = [\"data\"]\n", Host::local("local")));
        host.good(&["init"]);
        let run = measured(&host, &["run", "--json"]);
        let report = serde_json::from_str(&fs::read_to_string(host.path("out")).unwrap()).unwrap();
        let plain = of_source(&report, "data")["plain_bytes"].as_u64().unwrap();
        assert!(plain >= files * each, "{plain} bytes of {}", files * each);
        let again = measured(&host, &["run"]);
        let restore = measured(&host, &["restore", "--identity", "ops.txt", "--into-dir", "back"]);
        [run, again, restore]
    };
    let small = measure(5, 20_000_000);
    let large = measure(8, 125_000_000);
    for (at, what) in ["run", "run again"].into_iter().enumerate() {
        judge(&format!("files: {what}"), small[at], large[at]);
    }
    // The way back is bounded as well; how far it reads ahead depends on the disk.
    println!("files: restore: {} MiB, then {} MiB", small[2] / MIB, large[2] / MIB);
    assert!(large[2] <= MOST, "restore: {} MiB", large[2] / MIB);
}

#[test]
fn peak_memory_of_a_database_is_flat_from_100_mb_to_400_mb() {
    let cluster = Cluster::start();
    // Text of 1,600 random hexadecimal digits a row: kept out of TOAST, made by the server in seconds.
    let fill = |database: &str, rows: u64| {
        cluster.psql("postgres", &format!("CREATE DATABASE {database}"));
        let row = "(SELECT string_agg(md5(random()::text || j), '') FROM generate_series(1, 50) j WHERE i > 0)";
        let sql = format!(
            "CREATE TABLE a (i int, t text); CREATE TABLE b (i int, t text);
             INSERT INTO a SELECT i, {row} FROM generate_series(1, {rows}) i;
             INSERT INTO b SELECT i, {row} FROM generate_series(1, {rows}) i;"
        );
        cluster.psql(database, &sql);
    };
    let measure = |database: &str, rows: u64| {
        fill(database, rows);
        let host = Host::new();
        let url = cluster.url(database);
        host.configure(&format!("{}[source.db]\ntype = \"postgres\"\nurl = \"{url}\"\n", Host::local("local")));
        host.good(&["init"]);
        let run = measured(&host, &["run", "--json"]);
        let report = serde_json::from_str(&fs::read_to_string(host.path("out")).unwrap()).unwrap();
        let plain = of_source(&report, "db")["plain_bytes"].as_u64().unwrap();
        assert!(plain >= rows * 2 * 1600, "{plain} bytes of {rows} rows, twice");
        let restore = measured(&host, &["restore", "--identity", "ops.txt", "--into", &format!("{database}_back")]);
        [run, restore]
    };
    let small = measure("small", 31_250);
    let large = measure("large", 125_000);
    judge("database: run", small[0], large[0]);
    println!("database: restore: {} MiB, then {} MiB", small[1] / MIB, large[1] / MIB);
    assert!(large[1] <= MOST, "restore: {} MiB", large[1] / MIB);
}

/// One value of `BACKUP_LARGE_VALUE_MB` (80, because a restore reads back when it has let go of some 40 MB that loading
/// takes): 600 is more than stock programs can dump. What passes here in pieces takes no
/// more than as many bytes in rows of 64 kB do; the server holds the value whole, a few times over.
#[test]
fn peak_memory_of_one_large_value_is_that_of_many_small_ones() {
    let megabytes: u64 = std::env::var("BACKUP_LARGE_VALUE_MB").map_or(80, |text| text.parse().unwrap());
    let cluster = Cluster::start();
    let measure = |database: &str, rows: u64| {
        cluster.psql("postgres", &format!("CREATE DATABASE {database}"));
        let hashes = megabytes * 1_000_000 / 64 / rows;
        cluster.psql(
            database,
            &format!(
                "CREATE TABLE held (id int PRIMARY KEY, body bytea); ALTER TABLE held ALTER body SET STORAGE EXTERNAL;
                 INSERT INTO held SELECT r, (SELECT string_agg(sha512((r || '/' || i)::bytea), '') FROM generate_series(1, {hashes}) i)
                     FROM generate_series(1, {rows}) r;"
            ),
        );
        let host = Host::new();
        let url = cluster.url(database);
        host.configure(&format!("{}[source.db]\ntype = \"postgres\"\nurl = \"{url}\"\n", Host::local("local")));
        host.good(&["init"]);
        let started = Instant::now();
        let run = measured(&host, &["run", "--json"]);
        let captured = started.elapsed();
        let report = serde_json::from_str(&fs::read_to_string(host.path("out")).unwrap()).unwrap();
        let plain = of_source(&report, "db")["plain_bytes"].as_u64().unwrap();
        assert!(plain >= rows * hashes * 64, "{plain} bytes of {megabytes} MB");
        let back = format!("{database}_back");
        let started = Instant::now();
        let restore = measured(&host, &["restore", "--identity", "ops.txt", "--into", &back]);
        println!("{megabytes} MB in {rows} rows: run {captured:.1?}, restore {:.1?}", started.elapsed());
        let said =
            |database: &str| cluster.psql(database, "SELECT id, length(body), sha256(body) FROM held ORDER BY id");
        assert_eq!(said(&back), said(database));
        assert_eq!(said(database).lines().count() as u64, rows);
        [run, restore]
    };
    let small = measure("small", megabytes * 1_000_000 / 64_000);
    let large = measure("large", 1);
    judge("one value: run", small[0], large[0]);
    println!("one value: restore: {} MiB, then {} MiB", small[1] / MIB, large[1] / MIB);
    assert!(large[1] <= MOST.min(small[1] + megabytes * MIB / 4), "restore: {} MiB", large[1] / MIB);
}

/// As text, bytea is twice as long, and no server makes a text of more than 1 GB.
#[test]
fn a_row_that_is_too_large_for_its_format_is_told_with_its_table_and_a_way_out() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE DATABASE app");
    // Of one byte repeated, it is quickly made and stored in little room.
    cluster.psql(
        "app",
        "CREATE TABLE held (tags int[], body bytea);
         INSERT INTO held SELECT '{1}', convert_to(repeat('x', 540000000), 'UTF8')",
    );
    let host = Host::new();
    let url = cluster.url("app");
    host.configure(&format!("{}[source.db]\ntype = \"postgres\"\nurl = \"{url}\"\n", Host::local("local")));
    host.good(&["init"]);
    let failed = host.run(&["run"]);
    let all = format!("{}{}", failed.out, failed.err);
    assert_eq!(failed.code, 1, "{all}");
    assert!(all.contains("a row of table `public.held` is too large for the server to send as text"), "{all}");
    assert!(all.contains("invalid memory alloc request size"), "{all}");
    assert!(all.contains("hint: a row may have 1 GB") && all.contains("`exclude_data`"), "{all}");
    cluster.psql("app", "ALTER TABLE held DROP COLUMN tags");
    host.good(&["run"]);
}
