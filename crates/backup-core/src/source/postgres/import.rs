//! Old dumps as snapshots: custom, directory and tar archives of `pg_dump`, and plain SQL.
//!
//! ```text
//! inspect (what it is, of when) -> capture: the bytes into a stream, and beside it pg_restore's script of the same
//!   bytes, read to its end: rows and fingerprints of every table, roles, the database's properties
//! ```
//!
//! What is stored is the dump as it is (of a compressed plain dump, its text), so that stock tools restore it. Why it can
//! be relied on: a dump that `pg_restore` cannot read to its end, or that has not the line that `pg_dump` writes last, is
//! refused and nothing is committed; and a restore reads every table back and compares it with what was counted here.
//! What that cannot tell: whether an uncompressed dump was altered before it came here. It has no checksums.
//!
//! It never runs anything of a dump, never writes to a server, and never changes the file.

mod archive;
pub mod error;
mod facts;
pub(super) mod script;
mod store;

use std::path::PathBuf;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::json;

use self::error::ImportError;
use self::script::Found;
use super::clients::ClientsOption;
use super::rows::RowFormat;
use crate::clock::Clock;
use crate::manifest::{Kept, StreamKind, TableEntry};
use crate::monitor::Monitor;
use crate::source::{Captured, CapturedStream, Sink, Source, SourceError};

/// What to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The file, or the folder of a directory-format dump.
    pub path: PathBuf,
    /// Where the client programs are.
    pub clients: ClientsOption,
    /// The instant of the data, where the operator says it.
    pub at: Option<DateTime<Utc>>,
    /// The zone of the clocks that the dump was made by: a dump says the time on them, and not where they were.
    pub timezone: Tz,
    /// The current instant.
    pub now: DateTime<Utc>,
    /// Name of the database, where the dump does not say it.
    pub database: String,
}

/// What kind of dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpFormat {
    /// `pg_dump -Fc`.
    Custom,
    /// `pg_dump -Fd`.
    Directory,
    /// `pg_dump -Ft`.
    Tar,
    /// `pg_dump -Fp`.
    Plain,
}

impl DumpFormat {
    /// The word for people and in the manifest.
    pub fn word(self) -> &'static str {
        match self {
            Self::Custom => "custom",
            Self::Directory => "directory",
            Self::Tar => "tar",
            Self::Plain => "plain",
        }
    }

    fn stream(self) -> StreamKind {
        match self {
            Self::Custom => StreamKind::PgArchive,
            Self::Directory => StreamKind::PgDirectory,
            Self::Tar => StreamKind::PgTar,
            Self::Plain => StreamKind::PgScript,
        }
    }
}

/// How the instant of a dump's data is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstantFrom {
    /// The operator said it.
    Operator,
    /// The archive's header, or the line that `pg_dump --verbose` writes, in the zone of [`ImportOptions::timezone`].
    Dump,
    /// The file's time of modification.
    Modified,
}

impl InstantFrom {
    /// The word in the manifest.
    pub fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Dump => "dump",
            Self::Modified => "modified",
        }
    }
}

/// A dump that was looked at and can be imported, unless it turns out to be damaged.
#[derive(Debug, Clone)]
pub struct Dump {
    options: ImportOptions,
    format: DumpFormat,
    /// How a plain dump is compressed.
    packed: store::Packed,
    instant: DateTime<Utc>,
    instant_from: InstantFrom,
    database: String,
    server_version: Option<String>,
    client_version: Option<String>,
    clients: super::clients::Clients,
}

/// What a whole reading of a dump gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Tables with rows that are counted.
    pub tables: usize,
    /// Their rows.
    pub rows: u64,
    /// Why the snapshot will be suspect.
    pub suspect: Vec<String>,
}

/// Finds out what a dump is and of when, without reading all of it.
pub async fn inspect(options: ImportOptions) -> Result<Dump, ImportError> {
    let looked = store::look(&options.path)?;
    let dump = match looked.format {
        DumpFormat::Plain => store::inspect_plain(options, looked).await?,
        _ => archive::inspect(options, looked).await?,
    };
    if dump.instant > dump.options.now {
        return Err(ImportError::Future { path: dump.options.path, at: dump.instant });
    }
    Ok(dump)
}

impl Dump {
    /// What kind it is.
    pub fn format(&self) -> DumpFormat {
        self.format
    }

    /// The instant of its data.
    pub fn instant(&self) -> DateTime<Utc> {
        self.instant
    }

    /// How that is known.
    pub fn instant_from(&self) -> InstantFrom {
        self.instant_from
    }

    /// Name of the database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Version of the server that it was made from.
    pub fn server_version(&self) -> Option<&str> {
        self.server_version.as_deref()
    }

    /// The file's own name.
    pub fn file_name(&self) -> String {
        let path = &self.options.path;
        path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy()).into_owned()
    }

    /// Reads all of it, and keeps nothing.
    pub async fn count(&self) -> Result<Counted, ImportError> {
        let found = self.read().await?;
        let suspect = Self::suspect(&found);
        let rows = found.tables.iter().map(|table| table.sum.rows).sum();
        Ok(Counted { tables: found.tables.len(), rows, suspect })
    }

    async fn read(&self) -> Result<Found, ImportError> {
        let found = match self.format {
            DumpFormat::Plain => store::script(&self.options.path, self.packed, None).await?.0,
            _ => archive::script(self).await?,
        };
        self.checked(found)
    }

    fn checked(&self, mut found: Found) -> Result<Found, ImportError> {
        let path = || self.options.path.clone();
        if let (DumpFormat::Plain, Some(command)) = (self.format, found.command.take()) {
            return Err(ImportError::Command { path: path(), command });
        }
        if let (DumpFormat::Plain, Some(statement)) = (self.format, found.database.first()) {
            let words = statement.tokens.iter().take(3).map(|token| token.text.as_str()).collect::<Vec<_>>();
            return Err(ImportError::AboutDatabase { path: path(), statement: words.join(" ") });
        }
        if !found.complete {
            let why = "the line `-- PostgreSQL database dump complete` is not its last".to_owned();
            return Err(ImportError::Damaged { path: path(), why });
        }
        // Of an archive, pg_restore's script says its own version.
        found.server_version = self.server_version.clone().or(found.server_version);
        found.client_version = self.client_version.clone().or(found.client_version);
        Ok(found)
    }

    fn suspect(found: &Found) -> Vec<String> {
        let told = |why: &String| format!("not counted, so a restore cannot compare it: {why}");
        let mut suspect: Vec<String> = found.uncounted.iter().map(told).collect();
        if found.server_version.is_none() {
            suspect.push("the dump does not say which version of PostgreSQL it is from".to_owned());
        }
        suspect
    }

    /// Before PostgreSQL 12 a `float` was written with digits that newer servers do not write.
    fn compared(found: &Found) -> &'static str {
        let version = facts::version_num(found.server_version.as_deref().unwrap_or_default());
        if version >= 120_000 { "content" } else { "counts" }
    }
}

#[async_trait]
impl Source for Dump {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn is_import(&self) -> bool {
        true
    }

    async fn capture(&self, sink: &dyn Sink, _: &Clock, _: &dyn Monitor) -> Result<Captured, SourceError> {
        Ok(self.import(sink).await?)
    }
}

impl Dump {
    async fn import(&self, sink: &dyn Sink) -> Result<Captured, ImportError> {
        let before = store::marks(&self.options.path)?;
        let (written, found) = if self.format == DumpFormat::Plain {
            let writer = sink.open(self.format.stream()).await?;
            let (found, stream) = store::script(&self.options.path, self.packed, Some(writer)).await?;
            (stream, found)
        } else {
            let (stream, found) = futures::try_join!(store::archive(self, sink), archive::script(self))?;
            (Some(stream), found)
        };
        if store::marks(&self.options.path)? != before {
            return Err(ImportError::Changed { path: self.options.path.clone() });
        }
        let found = self.checked(found)?;
        let import = json!({
            "file": self.file_name(), "format": self.format.word(), "instant_from": self.instant_from.word(),
            "compared": Self::compared(&found),
        });
        let suspect = Self::suspect(&found);
        let properties = facts::properties(&found, &self.database, import);
        let encoding = found.encoding.clone().unwrap_or_else(|| "UTF8".to_owned());
        let tables = found.tables.into_iter().map(|table| TableEntry {
            schema: table.schema,
            name: table.name,
            kept: Kept::Archive,
            rows: table.sum.rows,
            bytes: table.bytes,
            fingerprint: table.sum.fingerprint,
            format: RowFormat::Dump.word().to_owned(),
            columns: table.columns,
            types: Vec::new(),
            encoding: encoding.clone(),
            parts: Vec::new(),
        });
        let stream = |stream| CapturedStream { stream, copy: None, members: Vec::new(), paths: Vec::new() };
        Ok(Captured {
            instant: self.instant,
            streams: written.into_iter().map(stream).collect(),
            tables: tables.collect(),
            properties,
            suspect,
        })
    }
}
