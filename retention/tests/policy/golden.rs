//! Every file of `fixtures/retention` is one history and the decisions that it must get, reason by reason.
//!
//! `snapshots` has the columns id, generation, data instant, store instant (`-`: the same), flags (`-`: none) and the
//! decision; `generations` has id, start (`-`: not in the listing), period, snapshots listed (`-`: as many as are above) and
//! the decision.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use retention::{Clocks, Generation, History, Policy, Stamp, plan};
use serde::Deserialize;

/// The files that are run. One that lies there and is not named here is a test that nobody runs.
const TABLES: &[&str] = &[
    "anomaly-accepted",
    "anomaly",
    "clock-behind",
    "clock-future-snapshot",
    "clock-future-snapshot-accepted",
    "clock-host",
    "closing",
    "damaged",
    "duplicate",
    "empty",
    "gap",
    "gap-accepted",
    "gap-long-window",
    "gap-removed",
    "imported",
    "leap-and-year-end",
    "nightly",
    "open-chain",
    "outage-now",
    "standing",
    "tiers",
    "time-zone-bogota",
    "time-zone-utc",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[expect(dead_code, reason = "for the reader of the file")]
    about: String,
    now: String,
    host: Option<String>,
    timezone: String,
    keep: Policy,
    #[serde(default)]
    promised_elsewhere: BTreeSet<String>,
    #[serde(default)]
    removed: Vec<String>,
    open_chain: Option<String>,
    #[serde(default)]
    frozen: Vec<String>,
    snapshots: String,
    generations: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/retention")
}

fn instant(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap_or_else(|error| panic!("`{text}`: {error}")).to_utc()
}

fn rows<const N: usize>(table: &str) -> Vec<[&str; N]> {
    let lines = table.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>().try_into().unwrap()).collect()
}

fn stamp(row: &[&str; 6]) -> Stamp {
    let [id, generation, data, stored, flags, _] = *row;
    let flags: BTreeSet<_> = flags.split(' ').filter(|flag| *flag != "-").collect();
    let known = ["pinned", "suspect", "accepted", "checked", "restored", "damaged", "imported"];
    assert!(flags.iter().all(|flag| known.contains(flag)), "unknown flag in {row:?}");
    Stamp {
        id: id.to_owned(),
        generation: generation.to_owned(),
        data: instant(data),
        stored: instant(if stored == "-" { data } else { stored }),
        pinned: flags.contains("pinned"),
        suspect: flags.contains("suspect"),
        accepted: flags.contains("accepted"),
        checked: flags.contains("checked"),
        restored: flags.contains("restored"),
        complete: !flags.contains("damaged"),
        imported: flags.contains("imported"),
    }
}

/// What is wrong with a table: empty if its decisions are those of the plan.
fn differences(text: &str) -> String {
    let table: Table = toml::from_str(text).unwrap();
    let snapshots = rows::<6>(&table.snapshots);
    let generations = rows::<5>(&table.generations);
    let listed = |id: &str| snapshots.iter().filter(|row| row[1] == id).count();
    let history = History {
        stamps: snapshots.iter().map(stamp).collect(),
        generations: generations
            .iter()
            .filter(|row| row[1] != "-")
            .map(|[id, start, period, shown, _]| Generation {
                id: (*id).to_owned(),
                start: instant(start),
                period: period.parse().unwrap(),
                listed: if *shown == "-" { listed(id) } else { shown.parse().unwrap() },
            })
            .collect(),
        removed: table.removed.iter().map(|text| instant(text)).collect(),
        promised_elsewhere: table.promised_elsewhere,
        open_chain: table.open_chain,
    };
    let store = instant(&table.now);
    let clocks = Clocks { store, host: table.host.map_or(store, |host| instant(&host)) };
    let plan = plan(&table.keep, &history, clocks, table.timezone.parse().unwrap());

    let mut found = String::new();
    let frozen: Vec<_> = plan.frozen.iter().chain(&plan.frozen_also).map(ToString::to_string).collect();
    if frozen != table.frozen {
        writeln!(found, "frozen = {frozen:#?}").unwrap();
    }
    let expected: Vec<_> = snapshots.iter().map(|row| (row[0], row[5].to_owned())).collect();
    let decided: Vec<_> = plan.snapshots.iter().map(|decision| (decision.id.as_str(), decision.text())).collect();
    found += &compare(&expected, &decided);
    let expected: Vec<_> = generations.iter().map(|row| (row[0], row[4].to_owned())).collect();
    let decided: Vec<_> = plan.generations.iter().map(|decision| (decision.id.as_str(), decision.text())).collect();
    found += &compare(&expected, &decided);
    found
}

/// Row by row in the order of the plan, which the table has to have as well.
fn compare(expected: &[(&str, String)], decided: &[(&str, String)]) -> String {
    let mut found = String::new();
    for index in 0..expected.len().max(decided.len()) {
        let (expected, decided) = (expected.get(index), decided.get(index));
        if expected != decided {
            writeln!(found, "expected {expected:?}\n decided {decided:?}").unwrap();
        }
    }
    found
}

#[test]
fn tables_get_the_decisions_written_in_them() {
    let mut found = String::new();
    for name in TABLES {
        let text = fs::read_to_string(folder().join(format!("{name}.toml"))).unwrap();
        let differences = differences(&text);
        if !differences.is_empty() {
            write!(found, "--- {name}\n{differences}").unwrap();
        }
    }
    assert!(found.is_empty(), "\n{found}");
}

#[test]
fn no_table_is_forgotten() {
    let lying: BTreeSet<_> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let run: BTreeSet<_> = TABLES.iter().map(|name| format!("{name}.toml")).collect();
    assert_eq!(lying, run);
}

#[test]
fn a_wrong_table_is_noticed() {
    let text = fs::read_to_string(folder().join("nightly.toml")).unwrap();
    let breaks = [
        ("| expire: 8d old", "| keep: 8d old"),
        ("delete: closed", "keep: closed"),
        ("min = 3", "min = 30"),
        ("within = \"7d\"", "within = \"8d\""),
        ("about = ", "frozen = [\"x\"]\nabout = "),
    ];
    assert_eq!(differences(&text), "");
    for (good, bad) in breaks {
        let broken = text.replacen(good, bad, 1);
        assert_ne!(broken, text, "`{good}` is not in the table");
        assert_ne!(differences(&broken), "", "`{bad}` went unnoticed");
    }
}
