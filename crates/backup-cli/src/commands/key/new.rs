//! `backup key new`: an operator's identity, or a host's signing key.
//!
//! A key is written once, into a file that did not exist, readable by its owner only; it is never overwritten and
//! never printed. What is printed is its public half.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use backup_core::id::StackName;
use backup_core::signature::PRINCIPAL;
use serde_json::json;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey};

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::identity;

/// Make a key: an operator's identity, or with --host the key that signs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File to make; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Make the OpenSSH key with which this host signs, and its public half beside it
    #[arg(long)]
    host: bool,
    /// Stack that the host key signs for [default: the configuration's, else any]
    #[arg(long, requires = "host", value_name = "NAME")]
    stack: Option<StackName>,
}

/// Makes it, and prints its public half.
pub(crate) fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    if args.host { host(cx, args) } else { operator(cx, args) }
}

fn operator(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let made = age::x25519::Identity::generate();
    let recipient = made.to_public().to_string();
    create(&args.file, identity::file_text(&made, cx.clock.now()).as_bytes(), 0o600)?;
    cx.printer.talk(&format!(
        "wrote `{}`; keep it off the machine that makes backups, and a copy elsewhere\nits recipient, for `keys.recipients`:",
        args.file.display()
    ));
    cx.printer.result("key new", json!({ "file": args.file, "recipient": recipient }), || format!("{recipient}\n"))?;
    Ok(Exit::Done)
}

fn host(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    // Not from the configuration: keys are made before it is written.
    let stack = args.stack.as_ref().map_or("host", StackName::as_str);
    let failed = |error: &ssh_key::Error| CliError::caused(Exit::Failed, "cannot make a host key", error);
    let mut key =
        PrivateKey::random(&mut ssh_key::rand_core::OsRng, Algorithm::Ed25519).map_err(|error| failed(&error))?;
    key.set_comment(format!("backup@{stack}"));
    let private = key.to_openssh(LineEnding::LF).map_err(|error| failed(&error))?;
    let public = key.public_key().to_openssh().map_err(|error| failed(&error))?;
    let bare: Vec<&str> = public.split(' ').take(2).collect();
    let signer = format!("{PRINCIPAL} namespaces=\"backup.*\" {}", bare.join(" "));
    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();

    let mut beside = args.file.clone().into_os_string();
    beside.push(".pub");
    let beside = PathBuf::from(beside);
    // The public half first: when the second fails, what is left over is no secret.
    create(&beside, format!("{public}\n").as_bytes(), 0o644)?;
    if let Err(error) = create(&args.file, private.as_bytes(), 0o600) {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    cx.printer.talk(&format!(
        "wrote `{}` and `{}`, fingerprint {fingerprint}\nits line for the file of `keys.signers`:",
        args.file.display(),
        beside.display()
    ));
    let value =
        json!({ "file": args.file, "public_file": beside, "fingerprint": fingerprint, "allowed_signers": signer });
    cx.printer.result("key new", value, || format!("{signer}\n"))?;
    Ok(Exit::Done)
}

/// Writes a new file and makes it durable; what was there is never touched, and a half-written file is removed.
fn create(path: &Path, content: &[u8], mode: u32) -> Result<(), CliError> {
    let what = format!("cannot make `{}`", path.display());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|error| {
        let hint = if error.kind() == std::io::ErrorKind::AlreadyExists {
            "choose another name: a key is never overwritten"
        } else {
            "choose a folder that exists and that this user may write to"
        };
        CliError::caused(Exit::Usage, &what, &error).hint(hint)
    })?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| File::open(folder)?.sync_all());
    written.map_err(|error| {
        let _ = fs::remove_file(path);
        CliError::caused(Exit::Failed, &what, &error).hint("make room, or choose another folder")
    })
}
