//! Tables whose names are no UTF-8, in databases without an encoding: read back for comparison.
//!
//! The driver speaks UTF-8 only; so these few are read over the connection of our own, in the session and by the statement
//! that captured them. Their rows came with the archive: nothing is loaded here.

use std::convert::Infallible;

use super::error::RestoreError;
use crate::fingerprint::RowSum;
use crate::manifest::TableEntry;
use crate::source::postgres::catalog::Relation;
use crate::source::postgres::copy_out::copy_statement;
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::names::{self, Encoding, literal};
use crate::source::postgres::options::ConnectOptions;
use crate::source::postgres::plan::Table;
use crate::source::postgres::rows::{RowFormat, RowSplitter};
use crate::source::postgres::session::{Session, column};
use crate::source::postgres::wire::{CopyError, CopySink};

/// Whether the driver cannot speak of this table.
pub(super) fn is_one(entry: &TableEntry) -> bool {
    let names = entry.columns.iter().chain([&entry.schema, &entry.name]);
    entry.encoding == "SQL_ASCII" && names.into_iter().any(|name| names::has_stand_ins(name))
}

/// Reads such a table back and sums its rows: of an extension's table those that the extension has dumped.
pub(super) async fn read_back(to: &ConnectOptions, entry: &TableEntry) -> Result<RowSum, RestoreError> {
    let shown = names::shown(&entry.schema, &entry.name);
    let during = format!("reading `{shown}` back");
    let mut session = Session::open(to).await?;
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let name = literal(&format!("{}.{}", quoted(&entry.schema), quoted(&entry.name)));
    let sql = format!(
        "SELECT (SELECT e.extcondition[u.position::int] FROM pg_catalog.pg_extension e, \
         pg_catalog.unnest(e.extconfig) WITH ORDINALITY u (oid, position) \
         WHERE u.oid = pg_catalog.to_regclass({name})) AS config"
    );
    let config = column(&session.one(&during, sql).await?, "config", &during)?;
    let relation = Relation::named(&entry.schema, &entry.name, config);
    let table = Table { columns: entry.columns.clone(), ..Table::new(relation, entry.kept) };
    let sql = copy_statement(&table, None, &Encoding { name: entry.encoding.clone() });
    let mut sum = Sum(RowSplitter::new(RowFormat::Text, entry.columns.len()));
    let counted = match session.wire().copy_out(&sql, &mut sum).await {
        Ok(counted) => counted,
        Err(CopyError::Driver(error)) => return Err(PostgresError::during(during)(error).into()),
        Err(CopyError::Sink(never)) => match never {},
    };
    session.close().await;
    let half = || RestoreError::Manifest { why: format!("the server sent half a row of `{shown}`") };
    let found = sum.0.finish().ok_or_else(half)?;
    if found.rows == counted { Ok(found) } else { Err(half()) }
}

struct Sum(RowSplitter);

impl CopySink for Sum {
    type Error = Infallible;

    fn piece(&mut self, bytes: &[u8]) {
        self.0.feed(bytes);
    }

    fn message_ends(&mut self) {}

    async fn drain(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
