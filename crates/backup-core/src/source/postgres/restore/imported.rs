//! Restore of an imported dump, by the stock tools underneath: `pg_restore` for archives, `psql` for plain SQL.
//!
//! The working database, its refusals and its last rename are those of every restore. What differs: roles are not in the
//! snapshot, so those that the dump names must be on the server; a directory or tar archive is laid out in a temporary
//! folder first, because `pg_restore` reads these from there only; and every table is read back and compared with the
//! rows that the dump was found to hold at its import.
//!
//! A plain dump is a program. It was searched at its import for commands to `psql`, and is searched again on its way: no
//! such command is ever handed on. What the server does for it, it does as the user that restores.

use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;

use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::future::try_join_all;
use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{ChildStdin, Command};

use super::archive::{STDERR_BYTES, only_unknown_setting, tail, without_command};
use super::error::RestoreError;
use super::plan::RestorePlan;
use super::proof::TableProof;
use super::rows::Numbered;
use super::sql::{ident, literal, qualified};
use super::{Restore, RestoreOptions, Selection, Snapshot, Verify, analyze, session};
use crate::fingerprint::RowSum;
use crate::manifest::{Property, StreamKind, TableEntry};
use crate::source::postgres::clients::{ClientsOption, Tool};
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::import::script::{Line, Script};
use crate::source::postgres::options::ConnectOptions;
use crate::source::postgres::rows::{RowFormat, RowSplitter};

/// Text on its way to `psql`.
const FEED_BYTES: usize = 128 << 10;

/// What the manifest says of an imported dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Imported {
    /// Number of its stream.
    pub(super) stream: u32,
    kind: StreamKind,
    /// Roles that it names.
    pub(super) roles: Vec<String>,
    /// Whether contents can be compared, or rows only counted.
    content: bool,
    file: String,
}

impl Imported {
    /// `None` for a capture's manifest.
    pub(super) fn read(snapshot: &Snapshot<'_>) -> Result<Option<Self>, RestoreError> {
        let property = |name: &str| snapshot.properties.iter().find(|property| property.name == name).map(|p| &p.value);
        let Some(import) = property("import") else { return Ok(None) };
        let bad = |why: &str| RestoreError::Manifest { why: why.to_owned() };
        let kinds = [StreamKind::PgArchive, StreamKind::PgDirectory, StreamKind::PgTar, StreamKind::PgScript];
        let [stream] = snapshot.streams else { return Err(bad("an imported dump is one stream")) };
        if !kinds.contains(&stream.kind) {
            return Err(bad("it has no imported dump"));
        }
        if snapshot.tables.iter().any(|table| table.format != RowFormat::Dump.word()) {
            return Err(bad("a table of an imported dump was not counted in it"));
        }
        let text = |name: &str| import.get(name).and_then(Value::as_str).map(str::to_owned);
        let roles = property("import.roles").and_then(Value::as_array).ok_or_else(|| bad("property `import.roles`"))?;
        Ok(Some(Self {
            stream: 1,
            kind: stream.kind,
            roles: roles.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            content: match text("compared").as_deref() {
                Some("content") => true,
                Some("counts") => false,
                _ => return Err(bad("property `import` does not say what is compared")),
            },
            file: text("file").unwrap_or_default(),
        }))
    }
}

/// The properties with what a dump does not say: its restorer owns the database, and the locale is the server's.
pub(super) async fn completed(
    properties: &[Property],
    options: &RestoreOptions,
    conn: &mut PgConnection,
) -> Result<Vec<Property>, PostgresError> {
    let during = || PostgresError::during("asking for the locale of template0");
    let has = |name: &str| properties.iter().any(|property| property.name == name && !property.value.is_null());
    let mut all = properties.to_vec();
    let mut add = |name: &str, value: Value| all.push(Property { name: name.to_owned(), value });
    if !has("database.owner") {
        add("database.owner", options.connect.user().into());
    }
    if !has("database.collate") {
        let sql = "SELECT datcollate::text, datctype::text, coalesce(to_jsonb(d) ->> 'datlocprovider', 'c'), \
                   coalesce(to_jsonb(d) ->> 'daticulocale', to_jsonb(d) ->> 'datlocale') \
                   FROM pg_catalog.pg_database d WHERE datname = 'template0'";
        let row = sqlx::query(sql).fetch_one(&mut *conn).await.map_err(during())?;
        let names = ["database.collate", "database.ctype", "database.locale_provider", "database.icu_locale"];
        for (at, name) in names.into_iter().enumerate() {
            let value: Option<String> = row.try_get(at).map_err(during())?;
            add(name, value.into());
        }
    }
    Ok(all)
}

impl RestorePlan {
    /// What is special about an imported dump, for the operator.
    pub(super) fn look_at_imported(&mut self, options: &RestoreOptions) {
        let Some(imported) = &self.imported else { return };
        self.notes.push(format!("imported from `{}`", imported.file.escape_debug()));
        if !imported.content {
            let old = "the dump is from before PostgreSQL 12, which wrote numbers with other digits";
            self.notes.push(format!("{old}: rows are counted, their contents are not compared"));
        }
        let staged = matches!(imported.kind, StreamKind::PgDirectory | StreamKind::PgTar);
        if staged {
            self.notes.push("the dump is laid out in the temporary folder while it is restored".to_owned());
            if matches!(options.clients, ClientsOption::Wrap(_)) {
                self.refusals.push("such a dump needs client programs on this machine, not wrapped ones".to_owned());
            }
        }
        if options.only != Selection::All && imported.kind != StreamKind::PgArchive {
            let why = "single tables come back from captures and imported custom-format archives only";
            self.refusals.push(why.to_owned());
        }
    }
}

impl Restore<'_> {
    /// Fills the working database `to` from the dump, and compares.
    pub(super) async fn fill_imported(&self, to: &ConnectOptions) -> Result<Vec<TableProof>, RestoreError> {
        let (plan, options) = (self.plan, self.options);
        let Some(imported) = &plan.imported else {
            return Err(RestoreError::Manifest { why: "it has no imported dump".to_owned() });
        };
        match imported.kind {
            StreamKind::PgScript => self.psql(to, imported).await?,
            StreamKind::PgArchive => self.custom(to).await?,
            kind => self.staged(to, kind).await?,
        }
        self.phase("analyze");
        analyze::all(to, options.jobs, self.monitor).await?;
        self.phase("comparing");
        self.compare_imported(to, imported.content && options.verify == Verify::Content).await
    }

    /// A custom-format archive goes the way of a capture's, with all rows in it.
    async fn custom(&self, to: &ConnectOptions) -> Result<(), RestoreError> {
        let (archive, lists) = self.begin_archive(to).await?;
        self.phase("post-data");
        archive.post_data(lists.post_data()).await?.finish(self.options.jobs).await
    }

    /// Lays the archive out in a temporary folder, which goes with it.
    async fn staged(&self, to: &ConnectOptions, kind: StreamKind) -> Result<(), RestoreError> {
        let staging = |source| RestoreError::Staging { source };
        let folder = tempfile::tempdir().map_err(staging)?;
        self.phase("laying out");
        let stream = Numbered::open(self.streams, self.plan.archive, kind).await?;
        let path = if kind == StreamKind::PgDirectory {
            unpack(stream, folder.path(), self.plan.archive).await?;
            folder.path().to_owned()
        } else {
            let path = folder.path().join("dump.tar");
            write(stream, &path).await?;
            path
        };
        let jobs = if kind == StreamKind::PgDirectory { self.options.jobs.max(1) } else { 1 };
        for (section, jobs) in [("pre-data", 1), ("data", jobs), ("post-data", 1)] {
            self.phase(section);
            let settings = session::child_settings(self.plan.server_major);
            let mut command = self.plan.clients.connected(Tool::PgRestore, to, &settings);
            command.args([&format!("--section={section}"), &format!("--jobs={jobs}")]);
            // Newer programs set something that an older server does not know; nothing else may fail.
            let lenient = self.plan.clients.major() >= 17 && self.plan.server_major < 17;
            if !lenient {
                command.arg("--exit-on-error");
            }
            if !self.plan.missing_tablespaces.is_empty() {
                command.arg("--no-tablespaces");
            }
            command.arg(&path);
            run(command, Tool::PgRestore, lenient, async |_| Ok(())).await?;
        }
        Ok(())
    }

    /// Hands a plain dump to `psql`, statement for statement, but for what speaks to `psql` itself.
    async fn psql(&self, to: &ConnectOptions, imported: &Imported) -> Result<(), RestoreError> {
        self.phase("psql");
        let settings = session::child_settings(self.plan.server_major);
        let mut command = self.plan.clients.connected(Tool::Psql, to, &settings);
        command.args(["-X", "-q", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=terse", "--output=/dev/null", "--file=-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        // New in 17, and no part of the data: `pg_dump` sets it once, at the start.
        let mut unknown = self.plan.server_major < 17 && self.plan.facts.client_major >= 17;
        let mut stream = Numbered::open(self.streams, imported.stream, imported.kind).await?;
        let feed = async |stdin: Option<ChildStdin>| {
            let mut stdin = stdin;
            let mut script = Script::default();
            let mut batch = Vec::with_capacity(FEED_BYTES);
            // Read to its end even when the child wants no more: only then is it known to be whole.
            while let Some(bytes) = stream.next().await? {
                script.feed(&bytes, |line, kind| {
                    if unknown && kind == Line::Sql && line == b"SET transaction_timeout = 0;\n" {
                        unknown = false;
                    } else if kind != Line::Command {
                        batch.extend_from_slice(line);
                    }
                });
                if script.found().command.is_some() {
                    let why = "it has a command to psql that was not there when it was imported".to_owned();
                    return Err(RestoreError::Damaged { number: imported.stream, why });
                }
                if batch.len() >= FEED_BYTES {
                    if let Some(pipe) = &mut stdin
                        && pipe.write_all(&batch).await.is_err()
                    {
                        stdin = None;
                    }
                    batch.clear();
                }
            }
            if let Some(mut pipe) = stdin
                && pipe.write_all(&batch).await.is_ok()
            {
                let _ = pipe.shutdown().await;
            }
            Ok(())
        };
        run(command, Tool::Psql, false, feed).await
    }

    /// Reads every selected table back, several at a time.
    async fn compare_imported(&self, to: &ConnectOptions, content: bool) -> Result<Vec<TableProof>, RestoreError> {
        let (next, proofs) = (Mutex::new(self.plan.selected.iter()), Mutex::new(Vec::new()));
        let worker = || async {
            let mut conn = session::open(to).await?;
            while let Some(&index) = next.lock().ok().and_then(|mut next| next.next()) {
                let entry = &self.snapshot.tables[index];
                let mut found = read_back(&mut conn, entry).await?;
                if !content {
                    // Their number is what is compared.
                    found.fingerprint = entry.fingerprint;
                }
                let proof = TableProof {
                    schema: entry.schema.clone(),
                    name: entry.name.clone(),
                    expected: RowSum { rows: entry.rows, fingerprint: entry.fingerprint },
                    found,
                    read_back: true,
                    differing: None,
                };
                if let Ok(mut proofs) = proofs.lock() {
                    proofs.push((index, proof));
                }
            }
            let _ = conn.close().await;
            Ok::<_, RestoreError>(())
        };
        let workers = self.options.jobs.clamp(1, self.plan.selected.len().max(1));
        try_join_all((0..workers).map(|_| worker())).await?;
        let mut proofs = proofs.into_inner().unwrap_or_default();
        proofs.sort_by_key(|(index, _)| *index);
        Ok(proofs.into_iter().map(|(_, proof)| proof).collect())
    }
}

/// Reads a table back as a dump has it. One that is partitioned was loaded through its root, and has no rows of its own.
async fn read_back(conn: &mut PgConnection, entry: &TableEntry) -> Result<RowSum, RestoreError> {
    let table = qualified(&entry.schema, &entry.name);
    let failed = |e| PostgresError::during(format!("reading {table} back"))(e);
    let sql = "SELECT CASE c.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END, (SELECT e.extcondition[u.position::int] \
               FROM pg_catalog.pg_extension e, pg_catalog.unnest(e.extconfig) WITH ORDINALITY u (oid, position) \
               WHERE u.oid = c.oid) FROM pg_catalog.pg_class c WHERE c.oid = $1::pg_catalog.regclass";
    let row = sqlx::query(sql).bind(&table).fetch_one(&mut *conn).await.map_err(failed)?;
    let only: String = row.try_get(0).map_err(failed)?;
    // Of an extension's table a dump has what the extension wants dumped.
    let condition: Option<String> = row.try_get(1).map_err(failed)?;
    let columns: Vec<String> = entry.columns.iter().map(|name| ident(name)).collect();
    let (columns, condition) = (columns.join(", "), condition.unwrap_or_default());
    let sql = format!(
        "COPY (SELECT {columns} FROM {only}{table} {condition}) TO STDOUT WITH (ENCODING {})",
        literal(&entry.encoding)
    );
    let mut rows = conn.copy_out_raw(&sql).await.map_err(failed)?;
    let mut splitter = RowSplitter::new(RowFormat::Dump, entry.columns.len());
    while let Some(bytes) = rows.try_next().await.map_err(failed)? {
        splitter.feed(&bytes);
    }
    splitter.finish().ok_or_else(|| RestoreError::Manifest { why: format!("the server sent half a row of {table}") })
}

/// Writes a stream into a new file.
async fn write(mut stream: Numbered, path: &Path) -> Result<(), RestoreError> {
    let staging = |source| RestoreError::Staging { source };
    let mut file = tokio::fs::File::create_new(path).await.map_err(staging)?;
    while let Some(bytes) = stream.next().await? {
        file.write_all(&bytes).await.map_err(staging)?;
    }
    file.flush().await.map_err(staging)
}

/// Writes the files of a tar into a folder: plain names only, as the import made them.
async fn unpack(mut stream: Numbered, folder: &Path, number: u32) -> Result<(), RestoreError> {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(4);
    let folder = folder.to_owned();
    let writing = tokio::task::spawn_blocking(move || {
        let mut archive = tar::Archive::new(Pieces { receiver, current: Bytes::new() });
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = entry.path()?.into_owned();
            let plain = name.components().count() == 1 && name.file_name().is_some_and(|file| file == name.as_os_str());
            if !plain || !entry.header().entry_type().is_file() {
                return Err(std::io::Error::other("it holds something that is no file of a dump"));
            }
            let mut file = std::fs::File::create_new(folder.join(name))?;
            std::io::copy(&mut entry, &mut file)?;
        }
        // What is behind the last file belongs to the stream too.
        std::io::copy(&mut archive.into_inner(), &mut std::io::sink())?;
        Ok(())
    });
    let mut open = true;
    while let Some(bytes) = stream.next().await? {
        open = open && sender.send(bytes).await.is_ok();
    }
    drop(sender);
    let ended = writing.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    ended.map_err(|error| match error.kind() {
        std::io::ErrorKind::Other => RestoreError::Damaged { number, why: error.to_string() },
        _ => RestoreError::Staging { source: error },
    })
}

/// Bytes that come from elsewhere, for a reader that blocks.
struct Pieces {
    receiver: tokio::sync::mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl std::io::Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(bytes) => self.current = bytes,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

/// Runs a program to its end, feeding it. Its own words tell more than a broken pipe; a stream that fails is the error
/// whatever the program says.
async fn run<F>(mut command: Command, tool: Tool, lenient: bool, feed: F) -> Result<(), RestoreError>
where
    F: AsyncFnOnce(Option<ChildStdin>) -> Result<(), RestoreError>,
{
    let program = || tool.program().to_owned();
    let broken = |source| RestoreError::from(PostgresError::ClientStart { program: program(), source });
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(broken)?;
    let stdin = child.stdin.take();
    let (fed, stderr) = futures::join!(feed(stdin), tail(child.stderr.take(), STDERR_BYTES));
    fed?;
    let status = child.wait().await.map_err(broken)?;
    if status.success() || (lenient && only_unknown_setting(&stderr)) {
        return Ok(());
    }
    let stderr = without_command(&stderr);
    Err(PostgresError::ClientFailed { program: program(), status: status.to_string(), stderr }.into())
}
