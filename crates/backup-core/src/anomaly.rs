//! What is unusual about a capture beside the last good one: a table that lost most of its rows, one that is gone, much less
//! data than before.
//!
//! Pure: two descriptions in, reasons out. A reason never keeps a snapshot from being committed; it makes it `suspect`, and what
//! is older stays until somebody has looked. A backup that turns a deleted table into a small, green, newest snapshot is how the
//! last good copy expires unseen.
//!
//! A table is known by schema and name, so that a renamed one reads as gone. What the configuration leaves out, or names as
//! dropped on schedule, is no loss. Of a foreign table only the definition is ours: that its rows are not captured is no anomaly, that
//! its definition is gone is one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::manifest::Kept;
use crate::source::Captured;
use crate::source::postgres::names::shown;
use crate::source::postgres::properties;

/// Of smaller tables a loss of rows is everyday business.
const LEAST_ROWS: u64 = 1000;

/// So many tables are named for each kind of reason; the others are counted.
const NAMED: usize = 20;

/// Schema and name.
pub type TableName = (String, String);

/// The size of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Rows in the snapshot.
    pub rows: u64,
    /// Plaintext bytes of its COPY files; 0 where the rows lie in the archive.
    pub bytes: u64,
}

/// What a capture held, as far as it is compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Every table whose rows were captured.
    pub tables: BTreeMap<TableName, Size>,
    /// Those whose rows the configuration left out.
    pub excluded: BTreeSet<TableName>,
    /// Foreign tables, of which only the definition is captured; no total counts them.
    pub foreign: BTreeSet<TableName>,
    /// All plaintext bytes of its streams.
    pub plain_bytes: u64,
}

/// The same without tables, as a signed snapshot document says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Tables, also those whose rows were left out.
    pub tables: u64,
    /// Rows of all of them.
    pub rows: u64,
    /// All plaintext bytes.
    pub plain_bytes: u64,
}

/// What a capture is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    /// The snapshot, by the six characters that people type.
    pub snapshot: String,
    /// What it held.
    pub totals: Totals,
    /// Its tables, or those of an earlier one where this host does not remember its own: snapshot and sizes. `None` where
    /// this host's state was lost; then only totals are compared.
    pub tables: Option<(String, BTreeMap<TableName, Size>)>,
    /// The foreign tables of the same snapshot as those.
    pub foreign: BTreeSet<TableName>,
}

impl Facts {
    /// The facts of a capture.
    pub fn of(captured: &Captured) -> Self {
        let mut facts =
            Self { plain_bytes: sum(captured.streams.iter().map(|captured| captured.stream.bytes)), ..Self::default() };
        for table in &captured.tables {
            let name = (table.schema.clone(), table.name.clone());
            if table.kept == Kept::Excluded {
                facts.excluded.insert(name);
            } else {
                facts.tables.insert(name, Size { rows: table.rows, bytes: table.bytes });
            }
        }
        let foreign = captured.properties.iter().find(|property| property.name == properties::FOREIGN);
        facts.foreign =
            foreign.and_then(|property| serde_json::from_value(property.value.clone()).ok()).unwrap_or_default();
        facts
    }

    /// Their sums, as a snapshot document says them.
    pub fn totals(&self) -> Totals {
        Totals {
            tables: (self.tables.len() + self.excluded.len()) as u64,
            rows: sum(self.tables.values().map(|size| size.rows)),
            plain_bytes: self.plain_bytes,
        }
    }
}

/// Why a capture should be looked at: each reason a text for people that names what was lost and both counts. None: nothing is
/// unusual. `may_go` says which tables are dropped on schedule.
pub fn compare(before: &Baseline, now: &Facts, may_go: &dyn Fn(&TableName) -> bool) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut excused_bytes = 0;
    if let Some((snapshot, tables)) = &before.tables {
        let excused =
            |name: &TableName| now.excluded.contains(name) || (may_go(name) && !now.tables.contains_key(name));
        let compared = || tables.iter().filter(|(name, _)| !excused(name));
        // Of an earlier snapshot they may not have been in the totals any more.
        if *snapshot == before.snapshot {
            excused_bytes = sum(tables.iter().filter(|(name, _)| excused(name)).map(|(_, size)| size.bytes));
        }
        let gone = compared().filter(|(name, _)| !now.tables.contains_key(*name));
        let gone = gone.map(|((schema, name), size)| {
            let shown = shown(schema, name);
            format!(
                "table `{shown}` is gone: {} rows in snapshot {snapshot} (a renamed table looks the same)",
                size.rows
            )
        });
        limited(gone, "tables are gone", &mut reasons);
        // One that became a table of ours has its rows here now.
        let gone = before.foreign.iter().filter(|name| !now.foreign.contains(*name) && !now.tables.contains_key(*name));
        let gone = gone.filter(|name| !excused(name)).map(|(schema, name)| {
            format!("the definition of foreign table `{}` is gone: it was in snapshot {snapshot}", shown(schema, name))
        });
        limited(gone, "definitions of foreign tables are gone", &mut reasons);
        let shrunk = compared().filter_map(|(name, size)| {
            let rows = now.tables.get(name)?.rows;
            let shown = shown(&name.0, &name.1);
            lost_half(size.rows, rows).then(|| {
                format!("table `{shown}` lost over half its rows: {} in snapshot {snapshot}, {rows} now", size.rows)
            })
        });
        limited(shrunk, "tables lost over half their rows", &mut reasons);
    } else {
        reasons.extend(by_totals(before, &now.totals()));
    }
    let then_bytes = before.totals.plain_bytes.saturating_sub(excused_bytes);
    // A fall of exactly 30 % is not over 30 %.
    if u128::from(now.plain_bytes) * 10 < u128::from(then_bytes) * 7 {
        let (snapshot, bytes) = (&before.snapshot, now.plain_bytes);
        reasons.push(format!("plaintext fell by over 30 %: {then_bytes} bytes in snapshot {snapshot}, {bytes} now"));
    }
    reasons
}

/// What sums can tell where single tables are not remembered: new tables can hide lost ones.
fn by_totals(before: &Baseline, now: &Totals) -> impl Iterator<Item = String> {
    let (then, snapshot) = (before.totals, &before.snapshot);
    let unknown = "which ones is not known, because this host does not remember them";
    let gone = (now.tables < then.tables)
        .then(|| format!("tables are gone: {} in snapshot {snapshot}, {} now; {unknown}", then.tables, now.tables));
    let rows = lost_half(then.rows, now.rows)
        .then(|| format!("over half of all rows are gone: {} in snapshot {snapshot}, {} now", then.rows, now.rows));
    gone.into_iter().chain(rows)
}

/// Whether of `then` rows, enough to be compared, more than half are gone.
fn lost_half(then: u64, now: u64) -> bool {
    then >= LEAST_ROWS && u128::from(now) * 2 < u128::from(then)
}

/// The first reasons of a kind, and the number of the others.
fn limited(found: impl Iterator<Item = String>, what: &str, reasons: &mut Vec<String>) {
    let mut found = found.fuse();
    reasons.extend(found.by_ref().take(NAMED));
    let more = found.count();
    if more > 0 {
        reasons.push(format!("{more} more {what}"));
    }
}

fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(table: &str) -> TableName {
        ("public".to_owned(), table.to_owned())
    }

    fn facts(tables: &[(&str, u64, u64)], plain_bytes: u64) -> Facts {
        let tables = tables.iter().map(|(table, rows, bytes)| (name(table), Size { rows: *rows, bytes: *bytes }));
        Facts { tables: tables.collect(), plain_bytes, ..Facts::default() }
    }

    fn baseline(facts: &Facts) -> Baseline {
        let tables = Some(("abc234".to_owned(), facts.tables.clone()));
        Baseline { snapshot: "abc234".to_owned(), totals: facts.totals(), tables, foreign: facts.foreign.clone() }
    }

    fn none(_: &TableName) -> bool {
        false
    }

    /// One table with these rows before and now.
    fn rows(then: u64, now: u64) -> Vec<String> {
        compare(&baseline(&facts(&[("t", then, 0)], 0)), &facts(&[("t", now, 0)], 0), &none)
    }

    fn bytes(then: u64, now: u64) -> Vec<String> {
        compare(&baseline(&facts(&[], then)), &facts(&[], now), &none)
    }

    #[test]
    fn a_table_of_a_thousand_rows_may_lose_half_and_not_more() {
        for (then, now) in
            [(1000, 500), (1001, 501), (999, 0), (0, 0), (1000, 1000), (1000, u64::MAX), (u64::MAX, u64::MAX / 2 + 1)]
        {
            assert_eq!(rows(then, now), Vec::<String>::new(), "{then} {now}");
        }
        for (then, now) in [(1000, 499), (1000, 0), (1001, 500), (u64::MAX, u64::MAX / 2)] {
            let text = format!("table `public.t` lost over half its rows: {then} in snapshot abc234, {now} now");
            assert_eq!(rows(then, now), [text], "{then} {now}");
        }
    }

    #[test]
    fn plaintext_may_fall_by_thirty_percent_and_not_more() {
        for (then, now) in [(0, 0), (10, 7), (100, 70), (7, 5), (1, 1), (u64::MAX, u64::MAX), (0, u64::MAX)] {
            assert_eq!(bytes(then, now), Vec::<String>::new(), "{then} {now}");
        }
        for (then, now) in [(10, 6), (100, 69), (7, 4), (1, 0), (u64::MAX, u64::MAX / 2)] {
            let text = format!("plaintext fell by over 30 %: {then} bytes in snapshot abc234, {now} now");
            assert_eq!(bytes(then, now), [text], "{then} {now}");
        }
    }

    #[test]
    fn a_table_that_is_gone_is_named_whatever_its_size() {
        let before = baseline(&facts(&[("big", 5000, 0), ("empty", 0, 0), ("odd.name", 3, 0)], 0));
        let found = compare(&before, &facts(&[("big2", 5000, 0)], 0), &none);
        let gone = |table: &str, rows: u64| {
            format!("table `public.{table}` is gone: {rows} rows in snapshot abc234 (a renamed table looks the same)")
        };
        assert_eq!(found, [gone("big", 5000), gone("empty", 0), gone("\"odd.name\"", 3)]);
    }

    #[test]
    fn of_a_foreign_table_only_its_definition_is_missed() {
        let foreign = |names: &[&str]| Facts {
            foreign: names.iter().map(|table| name(table)).collect(),
            ..facts(&[("t", 5, 0)], 10)
        };
        let before = baseline(&foreign(&["a", "b"]));
        assert_eq!(compare(&before, &foreign(&["a", "b", "c"]), &none), Vec::<String>::new());
        let said = "the definition of foreign table `public.b` is gone: it was in snapshot abc234";
        assert_eq!(compare(&before, &foreign(&["a"]), &none), [said]);
        assert_eq!(compare(&before, &foreign(&["a"]), &|(_, table)| table == "b"), Vec::<String>::new(), "on schedule");
        // It is a table of ours now, and the other way round its rows are not captured any more.
        let mut ours = foreign(&["a"]);
        ours.tables.insert(name("b"), Size { rows: 1, bytes: 1 });
        assert_eq!(compare(&before, &ours, &none), Vec::<String>::new());
        assert_eq!(compare(&baseline(&ours), &foreign(&["a", "b"]), &none).len(), 1);
        // Nothing that is counted elsewhere counts them.
        assert_eq!(before.totals.tables, 1);
    }

    #[test]
    fn what_the_configuration_says_is_no_loss() {
        let before = baseline(&facts(&[("scratch", 5000, 600), ("log_1", 9, 100), ("kept", 10, 300)], 1000));
        let mut now = facts(&[("kept", 10, 300)], 300);
        now.excluded.insert(name("scratch"));
        let dropped = |(_, table): &TableName| table.starts_with("log_");
        assert_eq!(compare(&before, &now, &dropped), Vec::<String>::new());
        assert_eq!(compare(&before, &now, &none).len(), 1, "the log is gone");
        // What may be dropped may not be emptied, and excuses no more bytes than it had.
        let before = baseline(&facts(&[("log_1", 5000, 100), ("kept", 10, 300)], 1000));
        now.tables.insert(name("log_1"), Size { rows: 1, bytes: 1 });
        assert_eq!(compare(&before, &now, &dropped).len(), 2);
        now.tables.remove(&name("log_1"));
        assert_eq!(
            compare(&before, &now, &dropped),
            ["plaintext fell by over 30 %: 900 bytes in snapshot abc234, 300 now"]
        );
        // Tables that were left out then are not missed now.
        let mut before = facts(&[], 10);
        before.excluded.insert(name("scratch"));
        assert_eq!(compare(&baseline(&before), &facts(&[], 10), &none), Vec::<String>::new());
    }

    #[test]
    fn without_a_memory_of_tables_sums_are_compared() {
        let blind = |facts: &Facts| Baseline { tables: None, ..baseline(facts) };
        let before = blind(&facts(&[("a", 900, 0), ("b", 900, 0)], 100));
        assert_eq!(compare(&before, &facts(&[("a", 900, 0), ("c", 0, 0)], 100), &none), Vec::<String>::new());
        let found = compare(&before, &facts(&[("a", 899, 0)], 69), &none);
        assert!(found[0].starts_with("tables are gone: 2 in snapshot abc234, 1 now; which ones"), "{found:?}");
        assert_eq!(found[1], "over half of all rows are gone: 1800 in snapshot abc234, 899 now");
        assert_eq!(found[2], "plaintext fell by over 30 %: 100 bytes in snapshot abc234, 69 now");
        assert_eq!(compare(&blind(&Facts::default()), &Facts::default(), &none), Vec::<String>::new());
        let huge = facts(&[("a", u64::MAX, u64::MAX), ("b", u64::MAX, u64::MAX)], u64::MAX);
        assert_eq!(compare(&blind(&huge), &huge, &none), Vec::<String>::new());
    }

    #[test]
    fn an_earlier_memory_of_tables_names_its_own_snapshot() {
        let mut before = baseline(&facts(&[("a", 2000, 900)], 1000));
        before.snapshot = "new234".to_owned();
        before.totals = Totals { tables: 1, rows: 1, plain_bytes: 1000 };
        let mut now = facts(&[("a", 10, 1)], 100);
        let found = compare(&before, &now, &none);
        assert!(found[0].contains("2000 in snapshot abc234, 10 now"), "{found:?}");
        assert!(found[1].contains("1000 bytes in snapshot new234, 100 now"), "{found:?}");
        now = facts(&[], 100);
        now.excluded.insert(name("a"));
        assert_eq!(compare(&before, &now, &none).len(), 1, "what was left out since may have been so then");
    }

    #[test]
    fn thousands_of_lost_tables_are_counted() {
        let many: Vec<String> = (0..500).map(|n| format!("t{n:03}")).collect();
        let then: Vec<(&str, u64, u64)> = many.iter().map(|table| (table.as_str(), 1, 0)).collect();
        let found = compare(&baseline(&facts(&then, 0)), &facts(&[], 0), &none);
        assert_eq!((found.len(), found[20].as_str()), (21, "480 more tables are gone"));
    }
}
