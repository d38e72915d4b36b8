//! The private description of a snapshot: what its streams are and where their bytes lie.
//!
//! Types here; the text form is in `manifest/text.rs` and, byte by byte, in `FORMAT.md`.

pub mod text;

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;
use crate::id::{Hash256, IdError, ObjectName};

/// A whole manifest.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// Type of the source: `postgres`, `files`, …
    pub source_type: String,
    /// Streams; number *n* is element *n - 1*.
    pub streams: Vec<Stream>,
    /// Tables with their rows; databases only.
    pub tables: Vec<TableEntry>,
    /// What a restore compares and needs besides.
    pub properties: Vec<Property>,
    /// Why the snapshot should be looked at before it is relied on.
    pub suspect: Vec<String>,
    /// The resolved configuration that was in force, without secrets.
    pub config: serde_json::Value,
}

impl Manifest {
    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&serde_json::Value> {
        self.properties.iter().find(|property| property.name == name).map(|property| &property.value)
    }
}

/// What a stream's bytes are. The word is what stands in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// Plain SQL of `pg_dumpall --globals-only`.
    PgGlobals,
    /// A `pg_dump` custom-format archive: a capture's is without the rows of streamed tables, an imported one has all.
    PgArchive,
    /// One part of one table: a complete COPY file.
    PgTable,
    /// A tar of small COPY files, members named by number.
    PgTables,
    /// A tar segment: `cat` of all segments in order is one valid tar.
    Tar,
    /// Standard output of a command.
    Output,
    /// Imported: a tar of the files of a `pg_dump` directory-format dump.
    PgDirectory,
    /// Imported: a `pg_dump` tar-format archive.
    PgTar,
    /// Imported: a plain SQL dump.
    PgScript,
}

impl StreamKind {
    const WORDS: [(Self, &'static str); 9] = [
        (Self::PgGlobals, "pg-globals"),
        (Self::PgArchive, "pg-archive"),
        (Self::PgTable, "pg-table"),
        (Self::PgTables, "pg-tables"),
        (Self::Tar, "tar"),
        (Self::Output, "output"),
        (Self::PgDirectory, "pg-directory"),
        (Self::PgTar, "pg-tar"),
        (Self::PgScript, "pg-script"),
    ];

    /// The word in the manifest.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }

    /// The kind that a word of a manifest names.
    pub fn from_word(text: &str) -> Result<Self, IdError> {
        let found = Self::WORDS.iter().find(|(_, word)| *word == text);
        found.map(|(kind, _)| *kind).ok_or_else(|| IdError { text: text.to_owned(), expected: "a kind of stream" })
    }
}

/// A run of plaintext bytes inside an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The object.
    pub object: ObjectName,
    /// First byte, counted from 0 in the object's plaintext.
    pub offset: u32,
    /// How many bytes; never 0.
    pub bytes: u32,
}

/// One stream as the manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// What its bytes are.
    pub kind: StreamKind,
    /// Plaintext length.
    pub bytes: u64,
    /// SHA-256 of the plaintext.
    pub sha256: Hash256,
    /// Where the bytes lie, in order; neighbours merged.
    pub extents: Vec<Extent>,
    /// The statement that loads it (`pg-table`).
    pub copy: Option<String>,
    /// Members of the tar (`pg-tables`).
    pub members: Vec<Member>,
    /// Paths of the segment (`tar`).
    pub paths: Vec<PathEntry>,
}

/// A small COPY file inside a `pg-tables` tar. Its name in the tar is the number, eight digits, and `.copy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Number of the member, counted from 1 within its stream.
    pub number: u32,
    /// Plaintext length.
    pub bytes: u64,
    /// The literal, single-line `COPY … FROM STDIN` statement that loads it.
    pub copy: String,
}

/// One path of a `files` snapshot, as in the index of the tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathEntry {
    /// The path as stored in the tar, relative, `/` as separator; bytes that are not UTF-8 are percent-encoded, as is `%`.
    pub path: String,
    /// `file`, `dir`, `symlink`, `hardlink`, `fifo`.
    pub kind: PathKind,
    /// Content length; 0 unless a file.
    pub bytes: u64,
    /// SHA-256 of the content; files only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<Hash256>,
    /// Permission bits, octal text such as `0640`.
    pub mode: String,
    /// Owner's numeric id.
    pub uid: u32,
    /// Group's numeric id.
    pub gid: u32,
    /// Modification time, seconds and nanoseconds since 1970, as `seconds.nanoseconds`.
    pub mtime: String,
    /// The file had holes: a restore may punch them again.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub sparse: bool,
}

/// Kind of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum PathKind {
    File,
    Dir,
    Symlink,
    Hardlink,
    Fifo,
}

/// One table with what must come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableEntry {
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// How its rows are kept.
    pub kept: Kept,
    /// Rows in the snapshot.
    pub rows: u64,
    /// Plaintext bytes of its COPY files; 0 when the rows lie in the archive.
    pub bytes: u64,
    /// Sum of the rows' hashes, over the COPY format below.
    pub fingerprint: Fingerprint,
    /// COPY format: `text` or `binary`.
    pub format: String,
    /// Columns in the order of the COPY.
    pub columns: Vec<String>,
    /// Of a binary COPY, the object ids of the columns' types (of a domain, of the type beneath): bytes that are loaded
    /// as another type are another value, without an error.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub types: Vec<i64>,
    /// Client encoding of the COPY, a PostgreSQL name such as `UTF8`.
    pub encoding: String,
    /// Where the rows are; empty when they lie in the archive.
    pub parts: Vec<Part>,
}

impl TableEntry {
    /// Whether the parts hold the whole table once: one part without a range, or ranges that cover `[0, ∞)`. A table
    /// without parts has its rows elsewhere, or none.
    pub fn is_covered(&self) -> bool {
        let Some(first) = self.parts.first() else { return true };
        if first.blocks.is_none() {
            return self.parts.len() == 1;
        }
        let mut ranges: Vec<_> = self.parts.iter().map(|part| part.blocks).collect();
        ranges.sort_unstable_by_key(|range| range.map(|(from, _)| from));
        let mut expected = Some(0);
        for range in ranges {
            match (range, expected) {
                (Some((from, to)), Some(at)) if from == at && to.is_none_or(|to| to > from) => expected = to,
                _ => return false,
            }
        }
        expected.is_none()
    }
}

/// How a table's rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// In streams of our own.
    Streamed,
    /// In the `pg_dump` archive; counted and fingerprinted beside.
    Archive,
    /// Left out by configuration.
    Excluded,
}

/// One part of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Number of the stream.
    pub stream: u32,
    /// Number of the member, when the stream is a `pg-tables` tar.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub member: Option<u32>,
    /// First block of the ctid range, and the block after its last (open-ended when absent). Absent: the whole table.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub blocks: Option<(u64, Option<u64>)>,
    /// Rows of this part.
    pub rows: u64,
    /// Fingerprint of this part's rows.
    pub fingerprint: Fingerprint,
}

/// A named fact about what was captured, compared or used by the restore (`server.major`, `database.owner`, …).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Property {
    /// Name, dotted, lower case.
    pub name: String,
    /// Value.
    pub value: serde_json::Value,
}
