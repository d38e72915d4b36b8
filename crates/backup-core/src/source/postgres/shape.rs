//! The columns of tables that nobody locked before the snapshot.
//!
//! Where the server has no room for all locks, a table is locked by the worker that copies it, only as long as it copies.
//! COPY finds columns by their names as they are then: one that was dropped and added again, or two that changed names,
//! are other columns than the snapshot's, in the same file and under the same table. So the columns are read in the
//! snapshot and again after the last COPY. What was changed in between and changed back is not seen by this.

use std::collections::BTreeMap;

use super::error::PostgresError;
use super::options::ConnectOptions;
use super::plan::Table;
use super::session::{Session, column};

/// Number, type and name of each column, by the table's oid.
#[derive(Debug, Clone, Default)]
pub(super) struct Shapes(BTreeMap<i64, Vec<String>>);

impl Shapes {
    /// Reads them; in a transaction with a snapshot, as of that.
    pub(super) async fn read(session: &mut Session) -> Result<Self, PostgresError> {
        const DURING: &str = "reading the columns of all tables";
        let sql = "SELECT a.attrelid::int8 AS oid, pg_catalog.concat_ws(' ', a.attnum, a.atttypid, a.attname) AS column \
            FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
            WHERE c.relkind = 'r' AND c.oid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped";
        let mut out: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for row in session.run(DURING, sql).await? {
            out.entry(column(&row, "oid", DURING)?).or_default().push(column(&row, "column", DURING)?);
        }
        Ok(Self(out))
    }

    /// Each column of `tables` must still be there, under its number, with its name and its type.
    pub(super) async fn compare(&self, to: &ConnectOptions, tables: &[Table]) -> Result<(), PostgresError> {
        let mut session = Session::open(to).await?;
        let now = Self::read(&mut session).await?;
        session.close().await;
        let of = |shapes: &'_ Self, table: &Table| shapes.0.get(&table.relation.oid).cloned().unwrap_or_default();
        // One that is gone by now was there, under its name, when it was copied.
        let changed = tables.iter().filter(|table| now.0.contains_key(&table.relation.oid)).find(|table| {
            let later = of(&now, table);
            !of(self, table).iter().all(|column| later.contains(column))
        });
        match changed {
            Some(table) => {
                let what = format!("table `{}` has other columns than in the snapshot", table.relation.shown());
                Err(PostgresError::disturbed(what, None))
            }
            None => Ok(()),
        }
    }
}
