//! Which relation's rows are kept how: every one is in exactly one class, decided before a byte is copied.
//!
//! `reconcile` later holds this plan against what `pg_dump` really did.

use super::catalog::{FIRST_NORMAL_OID, Relation};
use super::error::PostgresError;
use super::names::parse_shown;
use super::rows::RowFormat;
use crate::manifest::Kept;

/// A table whose rows are kept, or left out by configuration.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) relation: Relation,
    pub(super) kept: Kept,
    /// Columns of the COPY, in order.
    pub(super) columns: Vec<String>,
    /// Of a binary COPY, the object ids of their types; of domains, of the types beneath.
    pub(super) types: Vec<i64>,
    /// How COPY writes them.
    pub(super) format: RowFormat,
    /// Size now, main fork and TOAST; decides order and packing only.
    pub(super) disk_bytes: u64,
    /// What of it is TOAST.
    pub(super) toast_bytes: u64,
    /// Blocks of the main fork now; decides where it is cut only.
    pub(super) blocks: u64,
}

impl Table {
    /// Nothing is known about its columns and its size yet.
    pub(super) fn new(relation: Relation, kept: Kept) -> Self {
        Self {
            relation,
            kept,
            columns: Vec::new(),
            types: Vec::new(),
            format: RowFormat::Text,
            disk_bytes: 0,
            toast_bytes: 0,
            blocks: 0,
        }
    }

    /// Blocks of the main fork in one part, when a part of a table without TOAST has `most`.
    ///
    /// The rows of a block bring their TOAST along, so where that is several times the main fork, a part has so many
    /// times fewer blocks, and about as many bytes. By halves only, rounded down: the boundaries depend on how much
    /// of a table is TOAST, which stands still while it grows, and not on its size. Where the share does cross a power of
    /// two one night, every boundary of the coarser cut is one of the finer cut as well, and at each of the others
    /// a chunk or two are stored again, because chunks are cut by content.
    pub(super) fn part_blocks(&self, most: u64) -> u64 {
        let main_bytes = self.disk_bytes.saturating_sub(self.toast_bytes).max(1);
        let halvings = (self.disk_bytes / main_bytes).checked_ilog2().unwrap_or(0);
        most.checked_shr(halvings).unwrap_or(0).max(1)
    }
}

/// Relations by class.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Streamed, archived and excluded tables, in catalog order.
    pub(super) tables: Vec<Table>,
    /// Members of an extension that does not have them dumped: a loss only if they hold rows.
    pub(super) members: Vec<Relation>,
    /// Tables whose rows the server cannot give (unlogged, on a standby): `pg_dump` must not try.
    pub(super) unreadable: Vec<Relation>,
    /// Oids of relations whose definition is in the archive and that have no rows of their own to capture: partitioned
    /// parents, and tables left out below.
    pub(super) without_rows: Vec<i64>,
    /// Not captured, with the reason, for people.
    pub(super) left_out: Vec<String>,
    /// Foreign tables, schema and name: their definitions are in the archive, their rows are another server's.
    pub(super) foreign: Vec<(String, String)>,
    /// What does no harm but should be known: names to exclude that are no table.
    pub(super) remarks: Vec<String>,
}

/// Sorts `relations` (in catalog order) into classes. `standby`: the server is in recovery, where unlogged tables
/// cannot be read.
pub(super) fn plan(relations: &[Relation], exclude: &[String], standby: bool) -> Result<Plan, PostgresError> {
    let mut excluded = Vec::new();
    for text in exclude {
        let name = parse_shown(text).ok_or_else(|| PostgresError::BadExclude { text: text.clone() })?;
        excluded.push((text, name, false));
    }
    let mut plan = Plan::default();
    for relation in relations.iter().filter(|r| r.oid >= FIRST_NORMAL_OID) {
        let shown = relation.shown();
        match relation.kind {
            'f' => plan.foreign.push((relation.schema.clone(), relation.name.clone())),
            'r' if relation.persistence == 't' => {}
            'r' if is_system(&relation.schema) && relation.config.is_none() => {
                plan.left_out.push(format!("table `{shown}`: it is in a schema of the system, which is never dumped"));
            }
            'r' if relation.extension.is_some() && relation.config.is_none() => plan.members.push(relation.clone()),
            'r' if relation.persistence == 'u' && standby => {
                plan.without_rows.push(relation.oid);
                plan.unreadable.push(relation.clone());
                plan.left_out.push(format!("unlogged table `{shown}`: it cannot be read on a standby"));
            }
            'r' => {
                let named = excluded.iter_mut().find(|(_, (s, n), _)| *s == relation.schema && *n == relation.name);
                let kept = match named {
                    Some((_, _, seen)) => {
                        *seen = true;
                        Kept::Excluded
                    }
                    None if relation.extension.is_some() || relation.method != "heap" => Kept::Archive,
                    // No statement of the manifest, which is UTF-8, could load it.
                    None if relation.nameless => Kept::Archive,
                    None => Kept::Streamed,
                };
                plan.tables.push(Table::new(relation.clone(), kept));
            }
            'p' => plan.without_rows.push(relation.oid),
            _ => {}
        }
    }
    for (text, (schema, name), _) in excluded.iter().filter(|(_, _, seen)| !seen) {
        let parent = relations.iter().any(|r| r.kind == 'p' && r.schema == *schema && r.name == *name);
        plan.remarks.push(if parent {
            format!("`{text}` in exclude_data is partitioned and has no rows itself: name its partitions")
        } else {
            format!("`{text}` in exclude_data names no table whose rows could be left out")
        });
    }
    Ok(plan)
}

/// Schemas that `pg_dump` never dumps.
fn is_system(schema: &str) -> bool {
    schema == "information_schema" || schema.starts_with("pg_")
}

/// Relations that `pg_dump` and we must be able to read, and are not, each with the reason; all of them at once, with the
/// large objects, so that one round of GRANTs is enough.
pub(super) fn refusals(relations: &[Relation]) -> Vec<String> {
    let wanted = relations.iter().filter(|r| {
        matches!(r.kind, 'r' | 'p' | 'S')
            && r.persistence != 't'
            && !is_system(&r.schema)
            && (r.extension.is_none() || r.config.is_some())
    });
    let mut out = Vec::new();
    for relation in wanted {
        let kind = if relation.kind == 'S' { "sequence" } else { "table" };
        if !relation.readable {
            out.push(format!("{kind} `{}`", relation.shown()));
        } else if relation.secured {
            out.push(format!("{kind} `{}` (row-level security hides rows)", relation.shown()));
        }
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn relation(oid: i64, kind: char, schema: &str, name: &str) -> Relation {
        Relation {
            oid,
            schema: schema.into(),
            name: name.into(),
            kind,
            persistence: 'p',
            method: "heap".into(),
            extension: None,
            config: None,
            file_node: oid,
            readable: true,
            secured: false,
            nameless: false,
        }
    }

    #[test]
    fn every_relation_is_in_one_class() {
        let table = |oid, name: &str| relation(oid, 'r', "public", name);
        let relations = [
            table(20_000, "plain"),
            table(20_001, "left"),
            Relation { method: "columnar".into(), ..table(20_002, "other") },
            Relation { extension: Some("e".into()), config: Some("WHERE x".into()), ..table(20_003, "config") },
            Relation { extension: Some("e".into()), ..table(20_004, "member") },
            Relation { persistence: 't', ..relation(20_005, 'r', "pg_temp_3", "temp") },
            Relation { persistence: 'u', ..table(20_006, "unlogged") },
            relation(20_007, 'f', "public", "foreign"),
            relation(20_008, 'p', "public", "parent"),
            relation(20_009, 'S', "public", "serial"),
            Relation { nameless: true, ..table(20_011, "h\u{efe9}") },
            relation(20_010, 'r', "pg_catalog", "odd"),
        ];
        let exclude = ["public.left".to_owned(), "public.parent".to_owned(), "public.typo".to_owned()];
        let plan = plan(&relations, &exclude, true).unwrap();
        let kept: Vec<_> = plan.tables.iter().map(|t| (t.relation.name.as_str(), t.kept)).collect();
        let archived = ["other", "config", "h\u{efe9}"].map(|name| (name, Kept::Archive));
        assert_eq!(kept, [&[("plain", Kept::Streamed), ("left", Kept::Excluded)], &archived[..]].concat());
        assert_eq!(plan.members.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["member"]);
        assert_eq!(plan.left_out.len(), 2, "{:?}", plan.left_out);
        assert_eq!(plan.foreign, [("public".to_owned(), "foreign".to_owned())]);
        assert!(
            plan.remarks.iter().any(|r| r.contains("typo")) && plan.remarks.iter().any(|r| r.contains("partitioned"))
        );
        assert!(super::plan(&relations, &["typo".to_owned()], false).is_err());
    }

    #[test]
    fn parts_are_made_by_toast_too_and_stand_still_while_a_table_grows() {
        const MOST: u64 = 32 * 1024;
        const MIB: u64 = 1 << 20;
        let blocks = |main_bytes: u64, toast_bytes: u64| {
            let table = Table::new(relation(20_000, 'r', "public", "t"), Kept::Streamed);
            Table { disk_bytes: main_bytes + toast_bytes, toast_bytes, ..table }.part_blocks(MOST)
        };
        assert_eq!((blocks(10_000 * MIB, 0), blocks(10_000 * MIB, 9_999 * MIB)), (MOST, MOST));
        // 10 GiB of TOAST behind 20 MiB of rows: 40 parts of 256 MiB.
        assert_eq!(blocks(20 * MIB, 10 * 1024 * MIB), MOST / 512);
        assert_eq!(blocks(8192, 1 << 40), 1);
        for (main, toast) in [(20, 10_240), (100, 333), (1, 70), (300, 299)] {
            let before = blocks(main * MIB, toast * MIB);
            assert_eq!(before, blocks(main * MIB * 2, toast * MIB * 2), "twice the rows");
            assert_eq!(
                before,
                blocks(main * MIB * 101 / 100 + 8192, toast * MIB * 101 / 100 + 4096),
                "a hundredth more"
            );
        }
        // Over a power of two: each boundary of the coarser cut is one of the finer cut.
        assert_eq!(blocks(100 * MIB, 299 * MIB), 2 * blocks(100 * MIB, 300 * MIB));
        for toast in 0..2000 {
            let part_bytes = blocks(MIB, toast * MIB) * 8192 * (1 + toast);
            assert!((256 * MIB..512 * MIB).contains(&part_bytes), "{toast}: {part_bytes}");
        }
    }

    #[test]
    fn all_refusals_are_listed() {
        let relations = [
            Relation { readable: false, ..relation(20_000, 'r', "a", "t") },
            Relation { readable: false, ..relation(20_001, 'S', "a", "s") },
            Relation { secured: true, ..relation(20_002, 'r', "a", "rls") },
            Relation { readable: false, extension: Some("e".into()), ..relation(20_003, 'r', "a", "member") },
            relation(20_004, 'r', "a", "fine"),
        ];
        assert_eq!(
            refusals(&relations),
            ["table `a.t`", "sequence `a.s`", "table `a.rls` (row-level security hides rows)"]
        );
    }
}
