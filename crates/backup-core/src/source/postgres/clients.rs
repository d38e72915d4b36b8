//! The stock client programs: finding a set that fits the server, and starting them with a clean environment.
//!
//! `pg_dump` refuses a server newer than itself, and silently lacks features when it is much older than it claims, so
//! the version is asked before anything starts. A child sees nothing of our environment (a stray `PGOPTIONS`,
//! `PGSERVICE` or `PGSSLMODE` would change what is dumped); the password travels in `PGPASSWORD` only, never in an
//! argument, where every user of the machine could read it. A child is killed when its handle is dropped.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::error::PostgresError;
use super::options::ConnectOptions;

/// Where client programs are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientsOption {
    /// The usual places of packages, by major version, then `/usr/local/bin:/usr/bin:/bin`.
    Search,
    /// This directory and no other.
    Dir(PathBuf),
    /// Started by this command, such as `docker exec -i -e PGPASSWORD container`; must not be empty.
    Wrap(Vec<String>),
}

/// A client program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Tool {
    PgDump,
    PgDumpall,
    PgRestore,
    Psql,
}

impl Tool {
    /// Name of the program.
    pub fn program(self) -> &'static str {
        match self {
            Self::PgDump => "pg_dump",
            Self::PgDumpall => "pg_dumpall",
            Self::PgRestore => "pg_restore",
            Self::Psql => "psql",
        }
    }
}

/// `PATH` of children: fixed, as the rest of their environment.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Directories with the client programs of one major version, by Debian's and by PGDG's RPM layout.
const BY_MAJOR: [(&str, &str, &str); 2] = [("/usr/lib/postgresql", "", "bin"), ("/usr", "pgsql-", "bin")];

/// A set of client programs of one version.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Words before the program's arguments, ending where the program's name is appended.
    prefix: Prefix,
    version: String,
    major: u32,
}

#[derive(Debug, Clone)]
enum Prefix {
    Dir(PathBuf),
    Wrap(Vec<String>),
}

impl Clients {
    /// Finds programs of at least `server_major` (such as 15) and asks their version once.
    ///
    /// A search takes the nearest major that is not older: an archive can be read by its own `pg_restore` or a newer
    /// one only, and a newer one writes settings that an older server does not know.
    pub async fn find(option: &ClientsOption, server_major: u32) -> Result<Self, PostgresError> {
        let candidates = match option {
            ClientsOption::Dir(dir) => vec![Prefix::Dir(dir.clone())],
            ClientsOption::Wrap(words) => vec![Prefix::Wrap(words.clone())],
            ClientsOption::Search => search(server_major),
        };
        let mut newest_refused: Option<Self> = None;
        for prefix in candidates {
            let (version, major) = match version(&prefix).await {
                Ok(found) => found,
                Err(error) if *option != ClientsOption::Search => return Err(error),
                Err(_) => continue,
            };
            let found = Self { prefix, version, major };
            if major >= server_major {
                return Ok(found);
            }
            if newest_refused.as_ref().is_none_or(|old| old.major < major) {
                newest_refused = Some(found);
            }
        }
        Err(newest_refused.map_or(PostgresError::NoClients { server_major }, |old| PostgresError::ClientTooOld {
            client: old.version,
            server_major,
        }))
    }

    /// The version as the programs say it, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Major version, such as 15.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// A command without arguments: scrubbed environment, no standard input, killed when dropped.
    pub fn command(&self, tool: Tool) -> Command {
        command(&self.prefix, tool)
    }

    /// A command that connects: `--dbname` without the password, `PGPASSWORD` beside, `settings` for its sessions.
    pub fn connected(&self, tool: Tool, to: &ConnectOptions, settings: &[(&str, &str)]) -> Command {
        let mut command = self.command(tool);
        command.arg("--no-password").arg(format!("--dbname={}", to.conninfo(settings)));
        if let Some(password) = to.password() {
            command.env("PGPASSWORD", password.reveal());
        }
        command
    }
}

fn command(prefix: &Prefix, tool: Tool) -> Command {
    let mut command = match prefix {
        Prefix::Dir(dir) => Command::new(dir.join(tool.program())),
        Prefix::Wrap(words) => {
            let mut command = Command::new(words.first().map_or("", String::as_str));
            command.args(words.get(1..).unwrap_or_default()).arg(tool.program());
            command
        }
    };
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn version(prefix: &Prefix) -> Result<(String, u32), PostgresError> {
    let program = match prefix {
        Prefix::Dir(dir) => dir.join(Tool::PgDump.program()).display().to_string(),
        Prefix::Wrap(words) => format!("{} pg_dump", words.join(" ")),
    };
    let mut command = command(prefix, Tool::PgDump);
    let output = command.arg("--version").output().await;
    let output = output.map_err(|source| PostgresError::ClientStart { program: program.clone(), source })?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // "pg_dump (PostgreSQL) 15.18 (Debian …)", "pg_dump (PostgreSQL) 19devel"
    let version = text.split_once(") ").map(|(_, version)| version.to_owned());
    let major = version.as_deref().and_then(|text| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    match (output.status.success(), version, major) {
        (true, Some(version), Some(major)) => Ok((version, major)),
        _ => Err(PostgresError::ClientFailed {
            program: format!("{program} --version"),
            status: output.status.to_string(),
            stderr: format!("{text}{}", String::from_utf8_lossy(&output.stderr).trim()),
        }),
    }
}

/// Directories that could hold clients, nearest suitable major first, then the plain paths, then older ones (asked so
/// that the error can name them).
fn search(server_major: u32) -> Vec<Prefix> {
    let mut by_major: Vec<(u32, PathBuf)> = Vec::new();
    for (root, before, after) in BY_MAJOR {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            if let Some(major) = name.strip_prefix(before).and_then(|text| text.parse().ok()) {
                by_major.push((major, Path::new(root).join(&name).join(after)));
            }
        }
    }
    by_major.sort();
    let (older, fitting): (Vec<_>, Vec<_>) = by_major.into_iter().partition(|(major, _)| *major < server_major);
    let plain = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from);
    let dirs = fitting.into_iter().map(|(_, dir)| dir).chain(plain).chain(older.into_iter().map(|(_, dir)| dir));
    dirs.filter(|dir| dir.join(Tool::PgDump.program()).exists()).map(Prefix::Dir).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::secret::Secret;

    fn fake(dir: &Path, script: &str) {
        let path = dir.join("pg_dump");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn an_older_client_is_refused_naming_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        fake(dir.path(), "echo 'pg_dump (PostgreSQL) 14.3 (Fake)'");
        let option = ClientsOption::Dir(dir.path().to_owned());
        assert_eq!(Clients::find(&option, 14).await.unwrap().version(), "14.3 (Fake)");
        let error = Clients::find(&option, 15).await.unwrap_err().to_string();
        assert!(error.contains("14.3") && error.contains("15"), "{error}");
        fake(dir.path(), "echo nonsense; exit 1");
        let error = Clients::find(&option, 14).await.unwrap_err().to_string();
        assert!(error.contains("nonsense"), "{error}");
    }

    #[tokio::test]
    async fn a_child_sees_a_clean_environment_and_the_password_there_only() {
        let dir = tempfile::tempdir().unwrap();
        fake(
            dir.path(),
            r#"if [ "$1" = --version ]; then echo 'pg_dump (PostgreSQL) 15.1'; else echo "$@"; /usr/bin/env; fi"#,
        );
        let wrap = vec!["/usr/bin/env".to_owned(), format!("PATH={}", dir.path().display())];
        for option in [ClientsOption::Dir(dir.path().to_owned()), ClientsOption::Wrap(wrap)] {
            let clients = Clients::find(&option, 15).await.unwrap();
            let to = ConnectOptions::new("postgres://u@h/d", Some(Secret::new("canary"))).unwrap();
            let output = clients.connected(Tool::PgDump, &to, &[]).output().await.unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let (arguments, environment) = text.split_once('\n').unwrap();
            assert!(arguments.contains("dbname='d'") && !arguments.contains("canary"), "{arguments}");
            assert!(environment.contains("PGPASSWORD=canary"), "{environment}");
            let names = environment.lines().filter_map(|line| line.split('=').next());
            let strangers: Vec<_> = names.filter(|n| !matches!(*n, "PATH" | "LC_ALL" | "PGPASSWORD" | "PWD")).collect();
            assert!(strangers.iter().all(|name| matches!(*name, "_" | "SHLVL" | "OLDPWD")), "{strangers:?}");
        }
    }
}
