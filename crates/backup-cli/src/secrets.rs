//! Reading secrets from where the configuration says they are: the edge of the program, in one file.
//!
//! A secret in a file that everybody can read is none: such a file is refused. Nothing read here is ever part of an
//! error, not even its length.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use backup_core::config::SecretRef;
use backup_core::secret::Secret;
use zeroize::Zeroizing;

use crate::error::CliError;
use crate::exit::Exit;

/// Longest secret, in bytes.
const LIMIT: u64 = 64 * 1024;

/// Reads a secret; `key` is the configuration's key that refers to it, for errors. One final line end is taken off.
pub(crate) fn read(reference: &SecretRef, key: &str) -> Result<Secret, CliError> {
    match reference {
        SecretRef::File(path) => {
            let bytes = read_private(path).map_err(|error| named(error, key))?;
            finish(bytes, &format!("`{key}`: `{}`", path.display()))
        }
        SecretRef::Env(name) => match std::env::var(name) {
            Ok(text) => finish(Zeroizing::new(text.into_bytes()), &format!("`{key}`: the variable `{name}`")),
            Err(_) => Err(CliError::usage(format!("`{key}`: the environment variable `{name}` is not set"))
                .hint(format!("set `{name}` in the environment that starts this program"))),
        },
        SecretRef::Command(command) => run(command, key),
    }
}

fn named(error: CliError, key: &str) -> CliError {
    let converted = CliError::new(error.exit(), format!("`{key}`: {}", error.message()));
    match error.advice() {
        Some(hint) => converted.hint(hint),
        None => converted,
    }
}

/// Why a file must not hold a secret; `None`: it may. Pipes and devices have no permissions to speak of.
pub(crate) fn exposed(path: &Path, metadata: &std::fs::Metadata) -> Option<CliError> {
    let mode = metadata.permissions().mode() & 0o777;
    (metadata.is_file() && mode & 0o007 != 0).then(|| {
        CliError::usage(format!("`{}` is open to every user (mode {mode:04o})", path.display()))
            .hint(format!("run `chmod 600 {}`", path.display()))
    })
}

/// Reads a file that must not be readable by everybody, at most 64 KiB.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let failed = |error: &std::io::Error| {
        CliError::caused(Exit::Usage, format!("cannot read `{}`", path.display()), error)
            .hint("check the path, and that this user may read the file")
    };
    let file = File::open(path).map_err(|error| failed(&error))?;
    // Asked of the open file, so that what is checked is what is read.
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    if let Some(error) = exposed(path, &metadata) {
        return Err(error);
    }
    limited(file, &format!("`{}`", path.display()))
}

/// Reads at most 64 KiB.
pub(crate) fn limited(input: impl Read, what: &str) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let mut bytes = Zeroizing::new(Vec::new());
    input
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::caused(Exit::Usage, format!("cannot read {what}"), &error))?;
    if bytes.len() as u64 > LIMIT {
        return Err(CliError::usage(format!("{what} is too large to be a secret")));
    }
    Ok(bytes)
}

fn finish(bytes: Zeroizing<Vec<u8>>, what: &str) -> Result<Secret, CliError> {
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Err(CliError::usage(format!("{what} is not UTF-8")));
    };
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(CliError::usage(format!("{what} is empty")));
    }
    Ok(Secret::new(text))
}

/// Runs a program and takes its standard output; its talk goes to ours.
fn run(command: &[String], key: &str) -> Result<Secret, CliError> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(CliError::usage(format!("`{key}`: has no program")));
    };
    let what = format!("`{key}`: `{program}`");
    let failed = |error: &std::io::Error| CliError::caused(Exit::Usage, &what, error);
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error).hint("give the program's whole path, and check that it can be run"))?;
    let output = child.stdout.take().map_or_else(|| Ok(Zeroizing::default()), |pipe| limited(pipe, &what));
    let status = child.wait().map_err(|error| failed(&error))?;
    if !status.success() {
        return Err(CliError::usage(format!("{what} failed: {status}")).hint("run it by hand to see why"));
    }
    finish(output?, &what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file(mode: u32, text: &[u8]) -> (tempfile::TempDir, SecretRef) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, SecretRef::File(path))
    }

    #[test]
    fn takes_one_line_end_off_a_file() {
        for (text, secret) in [("s3cret\n", "s3cret"), ("s3cret", "s3cret"), ("a\n\n", "a\n"), ("a\r\n", "a")] {
            let (_folder, reference) = file(0o640, text.as_bytes());
            assert_eq!(read(&reference, "k").unwrap().reveal(), secret);
        }
    }

    #[test]
    fn refuses_files_for_everybody_and_never_echoes() {
        let rows: [(u32, &[u8], &str); 5] = [
            (0o604, b"hunter2", "is open to every user (mode 0604)"),
            (0o602, b"hunter2", "is open to every user (mode 0602)"),
            (0o600, b"", "is empty"),
            (0o600, b"hunter2\xff", "is not UTF-8"),
            (0o600, &[b'h'; 70_000], "is too large to be a secret"),
        ];
        for (mode, text, why) in rows {
            let (_folder, reference) = file(mode, text);
            let error = read(&reference, "source.db.password").unwrap_err();
            assert!(error.message().starts_with("`source.db.password`: `"), "{}", error.message());
            assert!(error.message().ends_with(why), "{}", error.message());
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        let gone = read(&SecretRef::File("/nonexistent/x".into()), "k").unwrap_err();
        assert!(gone.message().starts_with("`k`: cannot read `/nonexistent/x`: "));
    }

    #[test]
    fn runs_a_program_without_a_shell() {
        let command = |parts: &[&str]| SecretRef::Command(parts.iter().map(|part| (*part).to_owned()).collect());
        assert_eq!(read(&command(&["printf", "%s\n", "$HOME; x"]), "k").unwrap().reveal(), "$HOME; x");
        let failed = read(&command(&["sh", "-c", "echo hunter2; exit 3"]), "k").unwrap_err();
        assert!(failed.message().contains("`k`: `sh` failed"), "{failed:?}");
        assert!(!format!("{failed:?}").contains("hunter2"));
        assert!(read(&command(&["/nonexistent/x"]), "k").is_err());
        assert!(read(&command(&["true"]), "k").unwrap_err().message().ends_with("is empty"));
        assert!(read(&SecretRef::Env("BACKUP_TEST_NO_SUCH_VARIABLE".into()), "k").is_err());
    }
}
