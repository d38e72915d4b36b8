//! Age identities from files: plain ones as `age-keygen` writes them, and passphrase-protected ones (`age -p`).
//!
//! Decrypted identities live in memory only and are never printed; an error names the file, never a line of it.

use std::io::Read;
use std::path::Path;

use age::secrecy::{ExposeSecret as _, SecretString};
use age::x25519;
use backup_core::secret::Secret;
use zeroize::Zeroizing;

use crate::error::CliError;
use crate::exit::Exit;
use crate::{secrets, session};

/// `age -p` chooses 18; more than this would take minutes and gigabytes.
const MAX_WORK_FACTOR: u8 = 22;

/// Reads the identities of a file; `-` is standard input. `passphrase` is asked only if the file is protected, and
/// gives `None` when nobody can be asked.
pub(crate) fn read(
    path: &Path,
    passphrase: impl FnOnce() -> Result<Option<Secret>, CliError>,
) -> Result<Vec<x25519::Identity>, CliError> {
    let bytes = if path.as_os_str() == "-" {
        secrets::limited(std::io::stdin(), "standard input")?
    } else {
        secrets::read_private(path).map_err(|error| session::piped(path, error, "backup key check -"))?
    };
    let name = path.display().to_string();
    let plain = if is_protected(&bytes) { open(&bytes, &name, passphrase)? } else { bytes };
    parse(&plain, &name)
}

fn is_protected(bytes: &[u8]) -> bool {
    let text = bytes.trim_ascii_start();
    text.starts_with(b"age-encryption.org/") || text.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----")
}

fn open(
    bytes: &[u8],
    name: &str,
    passphrase: impl FnOnce() -> Result<Option<Secret>, CliError>,
) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let refused = |why: &str| CliError::new(Exit::WrongKey, format!("identity `{name}`: {why}"));
    let decryptor = age::Decryptor::new_buffered(age::armor::ArmoredReader::new(bytes))
        .map_err(|error| CliError::caused(Exit::WrongKey, format!("identity `{name}`"), &error))?;
    if !decryptor.is_scrypt() {
        return Err(refused("is encrypted to another key, not with a passphrase")
            .hint("decrypt it with `age -d` first, into memory or a private folder"));
    }
    let Some(passphrase) = passphrase()? else {
        return Err(refused("is protected by a passphrase, and there is no terminal to ask at")
            .hint("give the passphrase with `--passphrase-file FILE`, or run this at a terminal"));
    };
    let mut key = age::scrypt::Identity::new(SecretString::from(passphrase.reveal().to_owned()));
    key.set_max_work_factor(MAX_WORK_FACTOR);
    let mut reader = decryptor.decrypt(std::iter::once(&key as &dyn age::Identity)).map_err(|error| match error {
        age::DecryptError::ExcessiveWork { .. } => refused("its passphrase protection asks for too much work"),
        _ => refused("wrong passphrase").hint("try again; the passphrase is the one that protected this file"),
    })?;
    let mut plain = Zeroizing::new(Vec::new());
    reader
        .read_to_end(&mut plain)
        .map_err(|error| CliError::caused(Exit::WrongKey, format!("identity `{name}`"), &error))?;
    Ok(plain)
}

fn parse(bytes: &[u8], name: &str) -> Result<Vec<x25519::Identity>, CliError> {
    let wrong = |why: String| {
        CliError::new(Exit::WrongKey, format!("identity `{name}`: {why}"))
            .hint("use the file that `backup key new` or `age-keygen` wrote")
    };
    let Ok(text) = std::str::from_utf8(bytes) else { return Err(wrong("is not text".to_owned())) };
    let mut identities = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        identities.push(line.parse().map_err(|_| wrong(format!("line {} is no age identity", at + 1)))?);
    }
    if identities.is_empty() { Err(wrong("holds no identity".to_owned())) } else { Ok(identities) }
}

/// The text of an identity's file, as `age-keygen` writes it.
pub(crate) fn file_text(identity: &x25519::Identity, created: chrono::DateTime<chrono::Utc>) -> Zeroizing<String> {
    let created = created.format("%Y-%m-%dT%H:%M:%SZ");
    let secret = identity.to_string();
    Zeroizing::new(format!(
        "# created: {created}\n# public key: {}\n{}\n",
        identity.to_public(),
        secret.expose_secret()
    ))
}
