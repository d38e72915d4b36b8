//! What a restore proves: per table what was captured and what is there now.

use super::differing::Differing;
use super::expect::ExpectProof;
use crate::fingerprint::RowSum;

/// One table, compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableProof {
    /// Schema.
    pub schema: String,
    /// Table; the root of a partition tree when rows had to be loaded through it.
    pub name: String,
    /// Rows and fingerprint of the capture.
    pub expected: RowSum,
    /// Rows and fingerprint of the restore.
    pub found: RowSum,
    /// `found` was read back from the restored table. Otherwise it is the server's own count of loaded rows and the
    /// fingerprint of the bytes that it took.
    pub read_back: bool,
    /// How many rows differ, where they were read back, are not those of the capture, and the captured ones are in streams
    /// of ours.
    pub differing: Option<Differing>,
}

impl TableProof {
    /// Both rows and fingerprint agree.
    pub fn ok(&self) -> bool {
        self.expected == self.found
    }
}

/// Large objects, compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LargeObjectsProof {
    /// How many.
    pub count: u64,
    /// Their bytes were read back and are those of the capture. Otherwise their number, owners, privileges and comments are.
    pub read_back: bool,
}

/// A restored database. There is no such value for one that differs: that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreProof {
    /// The database, under its final name.
    pub database: String,
    /// Where the replaced database is kept, when one was.
    pub replaced: Option<String>,
    /// Every table with rows to compare, in the manifest's order.
    pub tables: Vec<TableProof>,
    /// How many large objects came back, equal to what was captured; `None` where the manifest says nothing of them or only a
    /// part came back.
    pub large_objects: Option<LargeObjectsProof>,
    /// Tables that came back without rows because the capture or the selection left these out, as `schema.name`.
    pub without_rows: Vec<String>,
    /// Roles that were created.
    pub created_roles: Vec<String>,
    /// What the checks of the configuration said: true, each of them.
    pub expected: Vec<ExpectProof>,
    /// Names of checks that were not asked, because only a part came back.
    pub not_asked: Vec<String>,
    /// For a restore of single tables: what brings the rows into the live tables. Shell commands from one database to another,
    /// SQL statements within one.
    pub bring_back: Vec<String>,
    /// What else was done or left undone, each a sentence.
    pub notes: Vec<String>,
}
