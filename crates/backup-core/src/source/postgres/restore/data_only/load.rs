//! The rows, on one session inside one transaction.
//!
//! A part that is refused because a CHECK or a domain looks at tables that are not loaded yet is taken back to its
//! savepoint and comes again after all others, as in a restore of the whole.

use std::collections::BTreeMap;

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::run;
use crate::fingerprint::RowSum;
use crate::manifest::{Part, StreamKind, TableEntry};
use crate::monitor::{Event, Monitor};
use crate::source::Streams;
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::restore::error::RestoreError;
use crate::source::postgres::restore::load::{Loader, Rows, read_back as read_table_back};
use crate::source::postgres::restore::proof::TableProof;
use crate::source::postgres::restore::rows::{Numbered, TarMembers};
use crate::source::postgres::restore::sql::qualified;
use crate::source::postgres::restore::{RestoreOptions, Snapshot, session};

/// A part of a table, by the manifest's index.
type Piece<'a> = (usize, &'a Part);

/// Tables of one database that are filled in one transaction of one session, by whoever began it.
pub(in crate::source::postgres::restore) struct Filling<'a> {
    /// The database.
    pub(in crate::source::postgres::restore) database: &'a str,
    /// The tables, by the manifest's index.
    pub(in crate::source::postgres::restore) selected: &'a [usize],
    pub(in crate::source::postgres::restore) options: &'a RestoreOptions,
    pub(in crate::source::postgres::restore) snapshot: &'a Snapshot<'a>,
    pub(in crate::source::postgres::restore) streams: &'a dyn Streams,
    pub(in crate::source::postgres::restore) monitor: &'a dyn Monitor,
}

impl Filling<'_> {
    /// Loads all parts.
    pub(in crate::source::postgres::restore) async fn load(&self, conn: &mut PgConnection) -> Result<(), RestoreError> {
        let to = self.options.connect.with_database(self.database);
        let loader = Loader {
            snapshot: self.snapshot,
            streams: self.streams,
            to: &to,
            monitor: self.monitor,
            jobs: 1,
            tables: self.selected,
            early: None,
        };
        let mut tars: BTreeMap<u32, BTreeMap<u32, Piece<'_>>> = BTreeMap::new();
        let mut refused: Vec<(Piece<'_>, RestoreError)> = Vec::new();
        for (index, entry) in self.entries() {
            for part in &entry.parts {
                if let Some(member) = part.member {
                    tars.entry(part.stream).or_default().insert(member, (index, part));
                } else {
                    let rows = loader.part_rows(part).await?;
                    self.piece(conn, &loader, (index, part), rows, &mut refused).await?;
                }
            }
        }
        for (number, mut expected) in tars {
            let mut members = TarMembers::new(Numbered::open(self.streams, number, StreamKind::PgTables).await?);
            while let Some((member, bytes)) = members.next().await? {
                if let Some(piece) = expected.remove(&member) {
                    let rows = Rows::Memory(Some(bytes));
                    self.piece(conn, &loader, piece, rows, &mut refused).await?;
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
                self.piece(conn, &loader, piece, rows, &mut still).await?;
            }
            if still.len() == before {
                return Err(still.swap_remove(0).1);
            }
            refused = still;
        }
        Ok(())
    }

    async fn piece<'p>(
        &self,
        conn: &mut PgConnection,
        loader: &Loader<'_>,
        (index, part): Piece<'p>,
        rows: Rows,
        refused: &mut Vec<(Piece<'p>, RestoreError)>,
    ) -> Result<(), RestoreError> {
        let entry = &self.snapshot.tables[index];
        run(conn, "setting a savepoint", "SAVEPOINT part").await?;
        // Never frozen: others may hold snapshots of a time when these rows were not there.
        match loader.copy(conn, entry, part, ("", &qualified(&entry.schema, &entry.name)), false, rows).await {
            Ok(_) => {
                run(conn, "leaving a savepoint", "RELEASE SAVEPOINT part").await?;
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

    /// The other rows of a table that was empty are none: what is read back is what was loaded.
    pub(in crate::source::postgres::restore) async fn compare(
        &self,
        conn: &mut PgConnection,
    ) -> Result<Vec<TableProof>, RestoreError> {
        let mut proofs = Vec::with_capacity(self.selected.len());
        for (_, entry) in self.entries() {
            // Always: a live column may take a value and keep another (a shorter scale, another type's text).
            let found = read_table_back(conn, entry, None).await?;
            proofs.push(TableProof {
                schema: entry.schema.clone(),
                name: entry.name.clone(),
                expected: RowSum { rows: entry.rows, fingerprint: entry.fingerprint },
                found,
                read_back: true,
                differing: None,
            });
        }
        Ok(proofs)
    }

    /// Statistics are no reason to call it failed.
    pub(in crate::source::postgres::restore) async fn analyze(&self) {
        self.phase("analyze");
        let names: Vec<String> = self.entries().map(|(_, entry)| qualified(&entry.schema, &entry.name)).collect();
        let analyzed = async {
            let mut conn = session::open(&self.options.connect.with_database(self.database)).await?;
            run(&mut conn, "ANALYZE", &format!("ANALYZE {}", names.join(", "))).await?;
            let _ = conn.close().await;
            Ok::<_, PostgresError>(())
        };
        if let Err(error) = analyzed.await {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            let text = format!("the rows are there, but have no statistics: {error}: {cause}");
            self.monitor.event(Event::Warning { text });
        }
    }

    /// The tables.
    pub(in crate::source::postgres::restore) fn entries(&self) -> impl Iterator<Item = (usize, &TableEntry)> {
        self.selected.iter().map(|index| (*index, &self.snapshot.tables[*index]))
    }

    /// Says what begins.
    pub(in crate::source::postgres::restore) fn phase(&self, phase: &str) {
        self.monitor.event(Event::Phase { source: self.options.source.clone(), phase: phase.to_owned() });
    }
}
