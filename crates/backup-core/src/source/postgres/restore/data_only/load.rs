//! The rows, on one session inside one transaction.
//!
//! A part that is refused because a CHECK or a domain looks at tables that are not loaded yet is taken back to its
//! savepoint and comes again after all others, as in a restore of the whole.

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;

use super::{Work, run};
use crate::fingerprint::RowSum;
use crate::manifest::{Part, StreamKind};
use crate::source::postgres::restore::error::RestoreError;
use crate::source::postgres::restore::load::{Loader, Rows};
use crate::source::postgres::restore::rows::{Numbered, TarMembers};
use crate::source::postgres::restore::sql::qualified;

/// A part of a table, by the manifest's index.
type Piece<'a> = (usize, &'a Part);

impl Work<'_> {
    /// Loads all parts; gives what each table took.
    pub(super) async fn load(&self, conn: &mut PgConnection) -> Result<BTreeMap<usize, RowSum>, RestoreError> {
        let to = self.options.connect.with_database(&self.plan.database);
        let loader = Loader {
            snapshot: self.snapshot,
            streams: self.streams,
            to: &to,
            monitor: self.monitor,
            jobs: 1,
            tables: &self.plan.selected,
            early: None,
        };
        let mut sums = BTreeMap::new();
        let mut tars: BTreeMap<u32, BTreeMap<u32, Piece<'_>>> = BTreeMap::new();
        let mut refused: Vec<(Piece<'_>, RestoreError)> = Vec::new();
        for (index, entry) in self.entries() {
            sums.insert(index, RowSum::default());
            for part in &entry.parts {
                if let Some(member) = part.member {
                    tars.entry(part.stream).or_default().insert(member, (index, part));
                } else {
                    let rows = loader.part_rows(part).await?;
                    self.piece(conn, &loader, (index, part), rows, &mut sums, &mut refused).await?;
                }
            }
        }
        for (number, mut expected) in tars {
            let mut members = TarMembers::new(Numbered::open(self.streams, number, StreamKind::PgTables).await?);
            while let Some((member, bytes)) = members.next().await? {
                if let Some(piece) = expected.remove(&member) {
                    let rows = Rows::Memory(Some(bytes));
                    self.piece(conn, &loader, piece, rows, &mut sums, &mut refused).await?;
                }
            }
            if let Some(member) = expected.keys().next() {
                return Err(RestoreError::Damaged { number, why: format!("it has no member {member}") });
            }
        }
        while !refused.is_empty() {
            let before = refused.len();
            let mut still = Vec::new();
            for (piece, _) in refused {
                let rows = loader.part_rows(piece.1).await?;
                self.piece(conn, &loader, piece, rows, &mut sums, &mut still).await?;
            }
            if still.len() == before {
                return Err(still.swap_remove(0).1);
            }
            refused = still;
        }
        Ok(sums)
    }

    async fn piece<'p>(
        &self,
        conn: &mut PgConnection,
        loader: &Loader<'_>,
        (index, part): Piece<'p>,
        rows: Rows,
        sums: &mut BTreeMap<usize, RowSum>,
        refused: &mut Vec<(Piece<'p>, RestoreError)>,
    ) -> Result<(), RestoreError> {
        let entry = &self.snapshot.tables[index];
        run(conn, "setting a savepoint", "SAVEPOINT part").await?;
        // Never frozen: others may hold snapshots of a time when these rows were not there.
        match loader.copy(conn, entry, part, ("", &qualified(&entry.schema, &entry.name)), false, rows).await {
            Ok(sum) => {
                run(conn, "leaving a savepoint", "RELEASE SAVEPOINT part").await?;
                sums.entry(index).or_default().merge(&sum);
                Ok(())
            }
            Err(error) if error.is_check_violation() => {
                run(conn, "going back to a savepoint", "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part").await?;
                refused.push(((index, part), error));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
