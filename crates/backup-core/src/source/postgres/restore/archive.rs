//! The `pg_dump` archive, without staging it.
//!
//! `pg_restore` can read a custom-format archive from a pipe, but not with `-j`: parallel workers each open the file.
//! Pre-data and post-data have no data blocks, so for these the archive's *head*, up to the end of its table of
//! contents, is all that is ever read; it is small, and kept in a temporary file. How long it is `pg_restore` says
//! itself: the table of contents holds its own length in entries, so `pg_restore --list` of a shorter head fails. Only
//! the data section reads the archive whole, from a pipe, in order.
//!
//! `--exit-on-error` everywhere: an error that `pg_restore` would count and pass over is a difference. Everywhere but one:
//! programs of major 17 and later begin by setting `transaction_timeout`, which older servers do not know. There
//! `pg_restore` has to go on after errors, and what it says in the end must be that one and no other.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::error::RestoreError;
use super::post_data::{PostData, Steps};
use super::rows::Numbered;
use super::session::child_settings;
use crate::manifest::StreamKind;
use crate::source::Streams;
use crate::source::postgres::clients::{Clients, ClientsOption, Tool};
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::options::ConnectOptions;

/// First guess of the head's length; doubled until it suffices.
const HEAD_BYTES: usize = 256 << 10;

/// How much of a child's standard error is kept: its end.
pub(super) const STDERR_BYTES: usize = 8 << 10;

/// One snapshot's archive on its way into one database.
pub(super) struct Archive<'a> {
    clients: &'a Clients,
    /// Clients run somewhere else (a container) and do not see our files.
    wrapped: bool,
    to: &'a ConnectOptions,
    server_major: u32,
    /// Tablespaces are not taken from the archive: some are missing on this server.
    no_tablespaces: bool,
    streams: &'a dyn Streams,
    number: u32,
    head: NamedTempFile,
}

/// How the archive reaches the database.
pub(super) struct Route<'a> {
    pub(super) clients: &'a Clients,
    pub(super) option: &'a ClientsOption,
    pub(super) to: &'a ConnectOptions,
    pub(super) server_major: u32,
    pub(super) no_tablespaces: bool,
}

impl<'a> Archive<'a> {
    /// Reads the head of stream `number`.
    pub(super) async fn open(route: &Route<'a>, streams: &'a dyn Streams, number: u32) -> Result<Self, RestoreError> {
        let staging = |source| RestoreError::Staging { source };
        let mut archive = Self {
            clients: route.clients,
            wrapped: matches!(route.option, ClientsOption::Wrap(_)),
            to: route.to,
            server_major: route.server_major,
            no_tablespaces: route.no_tablespaces,
            streams,
            number,
            head: NamedTempFile::new().map_err(staging)?,
        };
        let mut stream = Numbered::open(streams, number, StreamKind::PgArchive).await?;
        let (mut length, mut wanted) = (0, HEAD_BYTES);
        loop {
            let mut whole = false;
            while length < wanted && !whole {
                match stream.next().await? {
                    Some(bytes) => {
                        archive.head.write_all(&bytes).map_err(staging)?;
                        length += bytes.len();
                    }
                    None => whole = true,
                }
            }
            archive.head.flush().map_err(staging)?;
            match archive.list(&[]).await {
                Ok(_) => return Ok(archive),
                Err(error) if whole => return Err(error),
                Err(_) => wanted = length.saturating_mul(2),
            }
        }
    }

    /// The table of contents as `pg_restore --list` prints it, narrowed by `arguments`.
    pub(super) async fn list(&self, arguments: &[&str]) -> Result<String, RestoreError> {
        let mut command = self.clients.command(Tool::PgRestore);
        command.arg("--list").args(arguments).stdin(self.head_file()?).stdout(Stdio::piped());
        let output = finished(command, None).await?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// The statements of entries without data blocks, those in `list`.
    pub(super) async fn script(&self, list: &Path) -> Result<Vec<u8>, RestoreError> {
        let mut command = self.clients.command(Tool::PgRestore);
        command.arg("--use-list").arg(list).arg("--file=-").stdin(self.head_file()?).stdout(Stdio::piped());
        finished(command, None).await
    }

    /// Everything that comes before rows: types, functions, tables, sequences.
    pub(super) async fn pre_data(&self) -> Result<(), RestoreError> {
        let mut command = self.restoring("pre-data");
        command.stdin(self.head_file()?);
        self.restored(command, None).await
    }

    /// What rows the archive has: large objects, sequence values, tables that were not streamed. `list` narrows it.
    pub(super) async fn data(&self, list: Option<&Path>) -> Result<(), RestoreError> {
        let mut command = self.restoring("data");
        if let Some(list) = list {
            command.arg("--use-list").arg(list);
        }
        let stream = Numbered::open(self.streams, self.number, StreamKind::PgArchive).await?;
        self.restored(command, Some(stream)).await
    }

    /// Everything that comes after rows, and what `pg_restore` would run for it. `wanted` narrows it, as a list of the table
    /// of contents.
    pub(super) async fn post_data(&self, wanted: Option<&str>) -> Result<PostData<'_>, RestoreError> {
        let steps = if self.wrapped {
            None
        } else {
            let whole = self.list(&["--section=post-data"]).await?;
            let mut command = self.clients.command(Tool::PgRestore);
            command.args(["--section=post-data", "--verbose", "--file=-"]);
            command.stdin(self.head_file()?).stdout(Stdio::piped());
            let script = finished(command, None).await?;
            Some(Steps::of(wanted.unwrap_or(&whole), &script))
        };
        Ok(PostData::new(self, steps))
    }

    /// Restores entries after the rows, those of `list`, with so many sessions; without a list all of them, one by one.
    pub(super) async fn restore_post_data(&self, list: Option<&str>, jobs: usize) -> Result<(), RestoreError> {
        let mut command = self.restoring("post-data");
        let Some(list) = list else {
            command.stdin(self.head_file()?);
            return self.restored(command, None).await;
        };
        let list = super::select::file(list)?;
        command.arg("--use-list").arg(list.path()).arg(format!("--jobs={}", jobs.max(1))).arg(self.head.path());
        self.restored(command, None).await
    }

    fn restoring(&self, section: &str) -> Command {
        let settings = child_settings(self.server_major);
        let mut command = self.clients.connected(Tool::PgRestore, self.to, &settings);
        command.arg(format!("--section={section}"));
        if !self.sets_unknown() {
            command.arg("--exit-on-error");
        }
        if self.no_tablespaces {
            command.arg("--no-tablespaces");
        }
        command
    }

    /// The client programs set something that the server does not know.
    fn sets_unknown(&self) -> bool {
        self.clients.major() >= 17 && self.server_major < 17
    }

    /// Runs a command of [`Archive::restoring`].
    async fn restored(&self, command: Command, input: Option<Numbered>) -> Result<(), RestoreError> {
        let ended = run(command, input).await?;
        if ended.status.success() || (self.sets_unknown() && only_unknown_setting(&ended.stderr)) {
            return Ok(());
        }
        Err(ended.failure())
    }

    fn head_file(&self) -> Result<File, RestoreError> {
        self.head.reopen().map_err(|source| RestoreError::Staging { source })
    }
}

/// Whether all that `pg_restore` complains about is the setting that this server does not know. The server's own words
/// may be in any language; the command and the count are `pg_restore`'s.
///
/// Parallel workers write in pieces into the same pipe (program, kind and text of a message are three), so that a line may
/// begin with another's: pieces are counted, wherever they stand.
pub(super) fn only_unknown_setting(stderr: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stderr);
    let count = |piece: &str| text.matches(piece).count();
    let told = text.rsplit_once("errors ignored on restore: ").map(|(_, told)| told.lines().next().unwrap_or_default());
    let told = told.and_then(|told| told.trim().parse::<usize>().ok());
    let settings = count("Command was: SET transaction_timeout = 0;");
    settings > 0
        // Those of parallel workers are told and not counted.
        && told.is_some_and(|told| told <= settings)
        && count("Command was: ") == settings
        && count("error: ") == settings
}

/// How a child ended.
struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Ended {
    /// Its words as an error, without the command that failed: it may hold a password (user mappings, subscriptions).
    fn failure(&self) -> RestoreError {
        let stderr = without_command(&self.stderr);
        PostgresError::ClientFailed { program: program(), status: self.status.to_string(), stderr }.into()
    }
}

/// What `pg_restore` or `psql` said, without the command that failed. Of a long text only the end was kept: what stands there
/// before the program speaks again is the middle of a command.
pub(super) fn without_command(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let mut told: Vec<&str> =
        text.split("Command was:").next().unwrap_or_default().lines().map(str::trim_end).collect();
    if stderr.len() >= STDERR_BYTES {
        let speaks = |line: &&str| line.starts_with("pg_restore: ") || line.starts_with("psql:");
        told = told.into_iter().skip_while(|line| !speaks(line)).collect();
    }
    if told.is_empty() {
        "what it said is too long to be shown".to_owned()
    } else {
        told.join("; ").trim_end_matches("; ").to_owned()
    }
}

fn program() -> String {
    Tool::PgRestore.program().to_owned()
}

/// Runs a child that must end well, and gives its standard output if that is a pipe.
async fn finished(command: Command, input: Option<Numbered>) -> Result<Vec<u8>, RestoreError> {
    let ended = run(command, input).await?;
    if ended.status.success() { Ok(ended.stdout) } else { Err(ended.failure()) }
}

/// Runs a child to its end, feeding it a stream.
///
/// A child that ends early closes the pipe: its own words tell more than ours, so these are returned. A stream that
/// fails is the error whatever the child says: it may well be content with half of it.
async fn run(mut command: Command, input: Option<Numbered>) -> Result<Ended, RestoreError> {
    let broken = |source| RestoreError::from(PostgresError::ClientStart { program: program(), source });
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(broken)?;
    let stdin = child.stdin.take();
    let feed = async {
        let (Some(mut stdin), Some(mut stream)) = (stdin, input) else { return Ok(()) };
        let mut open = true;
        while let Some(bytes) = stream.next().await? {
            // Read to its end even when the child wants no more: only then is it known to be whole.
            open = open && stdin.write_all(&bytes).await.is_ok();
        }
        if open {
            let _ = stdin.shutdown().await;
        }
        Ok::<_, RestoreError>(())
    };
    let stdout = tail(child.stdout.take(), usize::MAX);
    let stderr = tail(child.stderr.take(), STDERR_BYTES);
    let (outcome, stdout, stderr) = futures::join!(feed, stdout, stderr);
    outcome?;
    let status = child.wait().await.map_err(broken)?;
    Ok(Ended { status, stdout, stderr })
}

/// The last `keep` bytes of a pipe, read to its end.
pub(super) async fn tail(pipe: Option<impl AsyncRead + Unpin>, keep: usize) -> Vec<u8> {
    let Some(mut pipe) = pipe else { return Vec::new() };
    let (mut out, mut buffer) = (Vec::new(), vec![0; 8 << 10]);
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        out.extend_from_slice(&buffer[..length]);
        if out.len() > keep {
            out.drain(..out.len() - keep);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_failed_is_never_shown() {
        let told =
            b"pg_restore: error: could not execute query: ERROR:  no\nCommand was: CREATE USER MAPPING 's3cret';\n";
        assert_eq!(without_command(told), "pg_restore: error: could not execute query: ERROR:  no");
        // Its beginning, and with it the mark, is cut off.
        let mut long = vec![b'x'; STDERR_BYTES];
        long.extend_from_slice(b" 's3cret'\n");
        assert!(!without_command(&long).contains("s3cret"), "{}", without_command(&long));
        long.extend_from_slice(b"pg_restore: hint\n");
        assert_eq!(without_command(&long), "pg_restore: hint");
    }

    #[test]
    fn one_unknown_setting_is_passed_over_and_nothing_else() {
        let setting = "pg_restore: error: could not execute query: ERROR:  unrecognized configuration parameter\n\
            Command was: SET transaction_timeout = 0;\n";
        let ignored = |count: usize| format!("pg_restore: warning: errors ignored on restore: {count}\n");
        let of = |text: String| only_unknown_setting(text.as_bytes());
        assert!(of(format!("{setting}{}", ignored(1))));
        assert!(of(format!("{setting}{setting}{}", ignored(2))));
        let other = "pg_restore: error: could not execute query: ERROR:  no\nCommand was: CREATE TABLE t ();\n";
        assert!(!of(format!("{setting}{other}{}", ignored(2))));
        assert!(of(format!("{setting}{setting}{}", ignored(1))));
        assert!(!of(format!("{setting}{}", ignored(2))));
        assert!(!of(format!("{setting}pg_restore: error: could not read\n")));
        assert!(!of(setting.to_owned()) && !of(ignored(0)) && !of(String::new()));
        // Two workers at once.
        let mixed = "pg_restore: pg_restore: error: error: could not execute query: ERROR:  no\n\
            could not execute query: ERROR:  no\nCommand was: SET transaction_timeout = 0;\npg_restore: \
            Command was: SET transaction_timeout = 0;\n";
        assert!(of(format!("{mixed}{}", ignored(1))));
        assert!(!of(format!("{mixed}error: could not read\n{}", ignored(1))));
    }
}
