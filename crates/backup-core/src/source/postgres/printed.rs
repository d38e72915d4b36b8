//! Names that print as they are *now*, whatever the snapshot.
//!
//! Text COPY prints the labels of enums so, and the server's functions with which `pg_dump` has types, expressions and
//! privileges written out print every other name so. One that is renamed meanwhile is the old name in one place of the
//! archive and the new one in another: nothing fails, and nothing restores. No lock that a reader can take holds such a
//! rename up, so the names are read in the snapshot and again, by a session of their own, when they have been printed.

use std::collections::BTreeMap;

use super::error::PostgresError;
use super::options::ConnectOptions;
use super::session::{Session, column};

const LABEL: &str = "enum label";

/// The names of a relation's columns, with its own.
const COLUMNS: &str = "(SELECT relname || ' (' || pg_catalog.string_agg(attname, ', ' ORDER BY attnum) || ')' \
    FROM pg_catalog.pg_attribute WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped)";

/// Kind, catalog, schema, name, which ones, and what changes with every change of a name.
const CATALOGS: [[&str; 6]; 12] = [
    // A label that is renamed there and back was another one for some rows. Nothing but a rename updates its row.
    [LABEL, "pg_enum", "0", "enumlabel", "true", "xmin::text"],
    ["schema", "pg_namespace", "0", "nspname", "nspname !~ '^pg_t'", "''"],
    ["role", "pg_roles", "0", "rolname", "true", "''"],
    // Row types go with their relations, arrays are named by the server.
    ["type", "pg_type", "typnamespace", "typname", "typrelid = 0 AND typcategory <> 'A'", "''"],
    ["relation", "pg_class", "relnamespace", "relname", "relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')", "''"],
    // Definitions print them; comments, clustering and partitions of indexes name them as the snapshot does.
    ["index", "pg_class", "relnamespace", "relname", "relkind IN ('i', 'I')", "''"],
    ["statistics object", "pg_statistic_ext", "stxnamespace", "stxname", "true", "''"],
    // Columns of tables are locked, or compared by `shape`.
    ["view or row type with columns", "pg_class", "0", COLUMNS, "relkind IN ('v', 'm', 'c', 'f')", "''"],
    ["function", "pg_proc", "pronamespace", "proname", "true", "''"],
    ["operator", "pg_operator", "oprnamespace", "oprname", "true", "''"],
    ["collation", "pg_collation", "collnamespace", "collname", "true", "''"],
    ["text search configuration", "pg_ts_config", "cfgnamespace", "cfgname", "true", "''"],
];

/// A name with its schema's oid, and the version of the row that it is in.
type Name = (String, i64, String);

/// Names by kind and oid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Printed(BTreeMap<(String, i64), Name>);

impl Printed {
    /// Reads them; in a transaction with a snapshot, as of that.
    pub(super) async fn read(session: &mut Session) -> Result<Self, PostgresError> {
        const DURING: &str = "reading the names of types, schemas and functions";
        let one = |[kind, catalog, schema, name, which, version]: [&str; 6]| {
            format!(
                "SELECT '{kind}' AS kind, oid::int8 AS oid, {schema}::int8 AS schema, coalesce({name}::text, '') AS name, {version} AS version \
                 FROM pg_catalog.{catalog} WHERE oid >= 16384 AND {which}"
            )
        };
        let mut out = BTreeMap::new();
        for row in session.run(DURING, CATALOGS.map(one).join(" UNION ALL ")).await? {
            let get = |name: &str| column::<String>(&row, name, DURING);
            let name = (get("name")?, column(&row, "schema", DURING)?, get("version")?);
            out.insert((get("kind")?, column(&row, "oid", DURING)?), name);
        }
        Ok(Self(out))
    }

    /// As they are now.
    pub(super) async fn now(to: &ConnectOptions) -> Result<Self, PostgresError> {
        let mut session = Session::open(to).await?;
        let names = Self::read(&mut session).await?;
        session.close().await;
        Ok(names)
    }

    /// Everything that `pg_dump` had printed must be `later` what it is here. What came or went is not in its snapshot, or
    /// it could not have printed it.
    pub(super) fn same(&self, later: &Self) -> Result<(), PostgresError> {
        self.compare(later, |_| true)
    }

    /// The same of enum labels only, which are in rows.
    pub(super) fn same_labels(&self, later: &Self) -> Result<(), PostgresError> {
        self.compare(later, |kind| kind == LABEL)
    }

    fn compare(&self, later: &Self, wanted: impl Fn(&str) -> bool) -> Result<(), PostgresError> {
        let kept = self.0.iter().filter(|((kind, _), _)| wanted(kind));
        let mut changed = kept.filter(|(key, name)| later.0.get(key).is_some_and(|other| other != *name));
        match changed.next() {
            Some(((kind, _), (name, ..))) => {
                Err(PostgresError::disturbed(format!("{kind} `{name}` was renamed"), None))
            }
            None => Ok(()),
        }
    }
}
