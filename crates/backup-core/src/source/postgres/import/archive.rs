//! Archives, by `pg_restore`: their header, and the script that they stand for.

use std::process::Stdio;

use bytes::BytesMut;
use chrono::{DateTime, NaiveDateTime, TimeZone as _, Utc};
use chrono_tz::Tz;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::error::ImportError;
use super::script::{Found, Script};
use super::store::{self, Looked};
use super::{Dump, DumpFormat, ImportOptions, InstantFrom};
use crate::source::postgres::child;
use crate::source::postgres::clients::{Clients, ClientsOption, Tool};
use crate::source::postgres::error::PostgresError;

const READ_BYTES: usize = 128 << 10;

/// Reads the header by the oldest client programs that can.
pub(super) async fn inspect(options: ImportOptions, looked: Looked) -> Result<Dump, ImportError> {
    if looked.format == DumpFormat::Directory && matches!(options.clients, ClientsOption::Wrap(_)) {
        let what = "a folder, which wrapped client programs do not see".to_owned();
        let hint = "name a folder with the programs: `clients = { dir = \"…\" }`";
        return Err(ImportError::NotADump { path: options.path, what, hint });
    }
    let mut at_least = 0;
    let (clients, list) = loop {
        let clients = match Clients::find(&options.clients, at_least).await {
            Ok(clients) => clients,
            Err(PostgresError::ClientTooOld { .. }) if at_least > 0 => {
                return Err(ImportError::Newer { path: options.path, made_by: None });
            }
            Err(error) => return Err(error.into()),
        };
        match list(&clients, &options, looked.format).await? {
            Ok(list) => break (clients, list),
            Err(stderr) if stderr.contains("unsupported version") => at_least = clients.major() + 1,
            Err(why) => return Err(ImportError::Damaged { path: options.path, why }),
        }
    };
    let header = |name: &str| {
        let line = list.lines().find_map(|line| line.strip_prefix(';')?.trim_start().strip_prefix(name));
        line.map(|value| value.trim().to_owned())
    };
    let version = |name: &str| header(name).and_then(|text| text.split(' ').next().map(str::to_owned));
    let client_version = version("Dumped by pg_dump version:");
    // Of an archive's own version or a newer one: an older one may leave out what it does not know.
    let major = client_version.as_deref().map_or(0, |version| super::facts::version_num(version) / 10_000);
    let clients = if clients.major() >= major {
        clients
    } else {
        match Clients::find(&options.clients, major).await {
            Ok(clients) => clients,
            Err(PostgresError::ClientTooOld { .. }) => {
                return Err(ImportError::Newer { path: options.path, made_by: client_version });
            }
            Err(error) => return Err(error.into()),
        }
    };
    let created = header("Archive created at").and_then(|text| instant(&text, options.timezone));
    let (instant, instant_from) = match (options.at, created) {
        (Some(at), _) => (at, InstantFrom::Operator),
        (None, Some(at)) => (at, InstantFrom::Dump),
        (None, None) => (store::modified(&options.path)?, InstantFrom::Modified),
    };
    Ok(Dump {
        format: looked.format,
        packed: looked.packed,
        instant,
        instant_from,
        database: header("dbname:").filter(|name| !name.is_empty()).unwrap_or_else(|| options.database.clone()),
        server_version: version("Dumped from database version:"),
        client_version,
        clients,
        options,
    })
}

/// The header has the digits that clocks showed where the dump was made, and not where that was. `pg_restore` was told
/// to be in UTC, hence prints these digits.
pub(super) fn instant(text: &str, timezone: Tz) -> Option<DateTime<Utc>> {
    let digits = text.get(..19)?;
    let local = NaiveDateTime::parse_from_str(digits, "%Y-%m-%d %H:%M:%S").ok()?;
    let mapped = timezone.from_local_datetime(&local);
    // Clocks never showed a time that they skipped: then they were elsewhere.
    Some(mapped.earliest().map_or_else(|| local.and_utc(), |at| at.with_timezone(&Utc)))
}

/// The table of contents, or what `pg_restore` says instead.
async fn list(
    clients: &Clients,
    options: &ImportOptions,
    format: DumpFormat,
) -> Result<Result<String, String>, ImportError> {
    let mut command = clients.command(Tool::PgRestore);
    command.arg("--list").env("TZ", "UTC").stdout(Stdio::piped()).stderr(Stdio::piped());
    input(&mut command, options, format)?;
    let output = command.output().await.map_err(start)?;
    if output.status.success() {
        return Ok(Ok(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Ok(Err(lines.join("; ")))
}

/// A file as standard input: also wrapped programs read it then. A folder only by its name.
fn input(command: &mut Command, options: &ImportOptions, format: DumpFormat) -> Result<(), ImportError> {
    if format == DumpFormat::Directory {
        let path = std::path::absolute(&options.path);
        command.arg(path.map_err(|source| ImportError::Read { path: options.path.clone(), source })?);
    } else {
        command.stdin(store::open(&options.path)?);
    }
    Ok(())
}

fn start(source: std::io::Error) -> ImportError {
    PostgresError::ClientStart { program: "pg_restore".to_owned(), source }.into()
}

/// Reads the whole archive as its script. One that `pg_restore` cannot read to its end is damaged.
pub(super) async fn script(dump: &Dump) -> Result<Found, ImportError> {
    let mut command = dump.clients.command(Tool::PgRestore);
    command.args(["--create", "--file=-"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    input(&mut command, &dump.options, dump.format)?;
    let mut child = command.spawn().map_err(start)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = async {
        let mut script = Script::default();
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        if let Some(mut pipe) = stdout {
            while pipe.read_buf(&mut buffer).await.map_err(start)? > 0 {
                script.feed(&buffer, |_, _| {});
                buffer.clear();
            }
        }
        Ok::<_, ImportError>(script.finish())
    };
    let (found, stderr) = futures::join!(reading, child::tail(stderr));
    let found = found?;
    let status = child.wait().await.map_err(start)?;
    if !status.success() {
        let why = if stderr.is_empty() { format!("pg_restore ended with {status}") } else { stderr };
        return Err(ImportError::Damaged { path: dump.options.path.clone(), why });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_of_a_header_are_those_of_the_stacks_clocks() {
        let at = |text: &str, timezone| instant(text, timezone).map(|at| at.to_string());
        let bogota = at("2024-05-01 02:00:00 UTC", chrono_tz::America::Bogota);
        assert_eq!(bogota.as_deref(), Some("2024-05-01 07:00:00 UTC"));
        assert_eq!(at("2024-05-01 02:00:00 UTC", Tz::UTC).as_deref(), Some("2024-05-01 02:00:00 UTC"));
        // In the night in which clocks skip this hour.
        let skipped = at("2024-03-31 02:30:00 UTC", chrono_tz::Europe::Berlin);
        assert_eq!(skipped.as_deref(), Some("2024-03-31 02:30:00 UTC"));
        assert_eq!(at("yesterday", Tz::UTC), None);
    }
}
