//! The engine's errors as classes and advice: what each means for the exit code, and what to do next.

use backup_core::backup::BackupError;
use backup_core::grant::{GrantError, UnlockError};
use backup_core::pipeline::PipelineError;
use backup_core::replicate::ReplicateError;
use backup_core::seal::SealError;
use backup_core::seal::key::IdentityError;
use backup_core::signature::SignatureError;
use backup_core::snapshot::SnapshotError;
use backup_core::source::files::{FilesError, RestoreError as FilesRestoreError};
use backup_core::source::postgres::PostgresError;
use backup_core::source::postgres::import::error::ImportError;
use backup_core::source::postgres::restore::RestoreError as PostgresRestoreError;
use backup_core::source::{SourceError, StreamError};
use backup_core::state::StateError;
use backup_core::vault::VaultError;
use backup_core::vault::s3::S3OpenError;

use super::{CliError, MEND, chain};
use crate::exit::Exit;

/// What to do about what a pinned signer signed outside of the limits of its line.
pub(crate) const LINE: &str = "if the limit is wrong, mend it in the signer's line of the file that `keys.signers` names; if it is right, \
     somebody used that key after it ended";

/// What to do about an error.
type Advice = (Exit, Option<String>);

fn say(exit: Exit, hint: &str) -> Advice {
    (exit, Some(hint.to_owned()))
}

fn build(error: &dyn std::error::Error, (exit, hint): Advice) -> CliError {
    let converted = CliError::new(exit, chain(error));
    match hint {
        Some(hint) => converted.hint(hint),
        None => converted,
    }
}

fn vault(error: &VaultError) -> Advice {
    match error {
        VaultError::Store { source, .. } => super::store(source),
        VaultError::NoVault { .. } => {
            say(Exit::NoVault, "make it with `backup init`, or check the path and whether it is mounted")
        }
        VaultError::OtherVault { .. } => say(
            Exit::NoVault,
            "mount the right one; if only its `vault.json` was overwritten, move that file aside and run `backup init`; if another vault \
             was put there on purpose, take out the `id` and run `backup init --adopt NAME`",
        ),
        VaultError::Occupied { .. } => {
            say(Exit::Usage, "join it with `backup init --adopt NAME`, or choose another place")
        }
        // Nothing is damaged: this program is too old for the vault, or for one document in it.
        VaultError::Document { path, source: backup_core::json::JsonError::Newer { .. }, .. } => {
            let exit = if path == "vault.json" { Exit::NoVault } else { Exit::Failed };
            say(exit, "use the newer version of this program that wrote it")
        }
        VaultError::Document { path, .. } if path == "vault.json" => say(
            Exit::Damage,
            "use another vault meanwhile; to mend this one, move its `vault.json` aside and run `backup init`: it is written anew, with \
             the same id",
        ),
        VaultError::Signature { source: SignatureError::UnknownSigner { .. }, .. } => {
            say(Exit::WrongKey, "pin the signer if you know it: add its line to the file that `keys.signers` names")
        }
        VaultError::Signature { source: SignatureError::NotValid { .. }, .. } => say(Exit::WrongKey, LINE),
        VaultError::Sign { .. } => say(Exit::WrongKey, "check the host key with `backup key list`"),
        _ => say(Exit::Damage, MEND),
    }
}

/// What a user lacks who may not read `objects`, and how to give it. That their rows are left out would not help: `pg_dump` locks
/// every table, which needs the same right.
fn rights(user: &str, objects: &[String]) -> String {
    let secured = |object: &String| object.ends_with("(row-level security hides rows)");
    let large = |object: &String| object.contains("large object");
    let mut ways = Vec::new();
    if objects.iter().any(|object| !secured(object) && !large(object)) {
        ways.push(format!(
            "grant SELECT to `{user}` (for all: `GRANT pg_read_all_data TO {user}`), as `exclude_data` does not help"
        ));
    }
    if objects.iter().any(secured) {
        ways.push(format!("let it see all rows (`ALTER ROLE {user} BYPASSRLS`)"));
    }
    if objects.iter().any(large) {
        ways.push(format!(
            "let it read the large objects (`GRANT SELECT ON LARGE OBJECT 1, 2, 3 TO {user}`, or a superuser)"
        ));
    }
    ways.join("; ")
}

fn postgres(error: &PostgresError) -> Advice {
    match error {
        PostgresError::Url { .. } => {
            say(Exit::Usage, "write `postgres://user@host:port/database`, the password in `password`")
        }
        PostgresError::ServerDown { .. } => say(Exit::Failed, "start the server, or check `url`; then run again"),
        PostgresError::Refused { .. } => say(Exit::Failed, "check `password` and the server's pg_hba.conf"),
        PostgresError::NoDatabase { .. } => say(Exit::Failed, "check the database in `url`"),
        PostgresError::NoClients { .. } | PostgresError::ClientStart { .. } => {
            say(Exit::Failed, "install the server's client package, or name its folder in `clients = { dir = \"…\" }`")
        }
        PostgresError::ClientTooOld { server_major, .. } => (
            Exit::Failed,
            Some(format!(
                "install the clients of PostgreSQL {server_major} or newer, or name their folder in `clients`"
            )),
        ),
        PostgresError::NotReadable { user, objects } => (Exit::Failed, Some(rights(user, objects))),
        PostgresError::Pooler { .. } => say(
            Exit::Failed,
            "name the server's own host and port in `url`: a capture needs sessions of its own, for its snapshot, its locks and \
             its settings",
        ),
        error if error.is_recovery_conflict() => say(
            Exit::Failed,
            "nothing was committed; set `hot_standby_feedback = on` on the standby, or its `max_standby_streaming_delay` to \
             more than a capture takes; or capture the primary",
        ),
        PostgresError::GaveUp { .. } => say(
            Exit::Failed,
            "nothing was committed; let what is named above end, or run when no tables are changed, then run again",
        ),
        PostgresError::ClientFailed { .. } => {
            say(Exit::Failed, "read the program's last lines above; nothing was committed, run again")
        }
        PostgresError::TooLarge { format: "text", .. } => say(
            Exit::Failed,
            "a row may have 1 GB, and bytea as text is twice as long: cut the value into several rows; or keep it in a table \
             whose columns are all of built-in types and no arrays, which goes in binary where the database is UTF8; or leave \
             the table's rows out with `exclude_data`",
        ),
        PostgresError::TooLarge { .. } => say(
            Exit::Failed,
            "a row may have 1 GB: cut it into several rows, or leave the table's rows out with `exclude_data`",
        ),
        PostgresError::NoText { .. } => say(
            Exit::Failed,
            "write that role's name, comment or setting in UTF-8; names of tables and everything in them may be any bytes",
        ),
        PostgresError::Lost { .. } => say(Exit::Failed, "see the server's log; nothing was committed, run again"),
        PostgresError::Unreconciled { .. }
        | PostgresError::CountDiffers { .. }
        | PostgresError::TagDiffers { .. }
        | PostgresError::NotARow { .. } => say(
            Exit::Damage,
            "nothing was committed; server and client programs disagree on what is there: check `clients` and the server's log",
        ),
        _ => say(Exit::Failed, "nothing was committed; mend the cause and run again"),
    }
}

fn files(error: &FilesError) -> Advice {
    match error {
        FilesError::Missing { .. } => say(Exit::Failed, "check `paths`, or list the path in `optional`"),
        FilesError::Read { .. } => say(Exit::Failed, "give this user the right to read it, or list it in `optional`"),
        FilesError::Changed { .. } => {
            say(Exit::Failed, "stop its writer for the moment of the backup, or leave the file out")
        }
        _ => say(Exit::Failed, "check `paths` with `backup config check`"),
    }
}

fn import(error: &ImportError) -> Advice {
    match error {
        ImportError::Read { .. } => say(Exit::Usage, "check the path and the rights of this user"),
        ImportError::NotADump { hint, .. } => say(Exit::Usage, hint),
        ImportError::Damaged { .. } => say(Exit::Damage, "nothing was committed; look for another copy of the dump"),
        ImportError::Newer { .. } => {
            say(Exit::Failed, "install the clients of that version or newer, or name their folder in `clients`")
        }
        ImportError::Future { .. } => say(Exit::Usage, "say of when its data is with `--at TIME`"),
        ImportError::Command { .. } => say(
            Exit::Usage,
            "a dump made with `pg_dump --create` or `pg_dumpall` cannot be imported as plain SQL: take out what is there up to \
             its `\\connect`, or restore it into a server and capture that",
        ),
        ImportError::AboutDatabase { .. } => {
            say(Exit::Usage, "take that statement out: privileges and settings of the database are given by hand")
        }
        ImportError::Changed { .. } => say(Exit::Failed, "wait for its writer to end, then import again"),
        ImportError::Postgres(error) => postgres(error),
        _ => say(Exit::Failed, "nothing was committed; mend the cause and import again"),
    }
}

fn pipeline(error: &PipelineError) -> Advice {
    match error {
        PipelineError::Vault(error) => vault(error),
        PipelineError::Seal(_) => say(Exit::Failed, "test this machine's memory; nothing was committed"),
        PipelineError::Worker(_) => say(Exit::Failed, "run again; if it repeats, report it with this message"),
    }
}

fn backup(error: &BackupError) -> Advice {
    match error {
        BackupError::Source { source: SourceError::Postgres(error), .. } => postgres(error),
        BackupError::Source { source: SourceError::Files(error), .. } => files(error),
        BackupError::Source { source: SourceError::Import(error), .. } => import(error),
        BackupError::Source { .. } | BackupError::Inconsistent { .. } => {
            say(Exit::Failed, "run again; if it repeats, report it with this message")
        }
        BackupError::Pipeline { source, .. } => pipeline(source),
        BackupError::Vault(error) => vault(error),
        BackupError::State(error) => state(error),
        BackupError::Generation { .. } => say(Exit::Usage, "check `keys.recipients`"),
        BackupError::Seal(SealError::Recipient { .. }) => {
            say(Exit::Failed, "the remembered generation is damaged: delete the state, and a new one is opened")
        }
        BackupError::Seal(_) => say(Exit::Failed, "test this machine's memory; nothing was committed"),
        BackupError::Clocks { .. } => say(Exit::Failed, "set the clock that is wrong, then run again"),
        BackupError::Ended { .. } => {
            say(Exit::WrongKey, "name the key that took its place in `keys.host_key`, then run again")
        }
        BackupError::PastDeadline { clocks_agree: true, .. } => say(
            Exit::Failed,
            "the capture outlasted its generation, which takes snapshots for one more `generation` after its end: make \
             `generation` longer than a first upload takes (up to 28d), then run again",
        ),
        BackupError::PastDeadline { .. } => {
            say(Exit::Failed, "check the clocks of this host and of the vault, then run again")
        }
        BackupError::Pruned { .. } => say(
            Exit::Failed,
            "take the deletion back with `backup prune --undo`, then run again; if that says that it has begun, end it first with `backup prune --apply`",
        ),
        BackupError::Purged { .. } => say(Exit::Failed, "run again: the next run opens a new generation"),
    }
}

fn identity(error: &IdentityError) -> Advice {
    match error {
        IdentityError::Damaged(_) => say(Exit::Damage, MEND),
        IdentityError::PassphraseNeeded => say(Exit::WrongKey, "give its passphrase with `--passphrase-file FILE`"),
        _ => say(
            Exit::WrongKey,
            "use the identity of one of these recipients; `backup key check FILE` tells whose a file is",
        ),
    }
}

fn snapshot(error: &SnapshotError) -> Advice {
    match error {
        SnapshotError::Vault(error) => vault(error),
        SnapshotError::Key { source, .. } => identity(source),
        SnapshotError::Worker(_) => say(Exit::Failed, "run again; if it repeats, report it with this message"),
        _ => say(Exit::Damage, "restore an older snapshot, or from another vault: `backup restore --vault NAME`"),
    }
}

/// What a stream's failure means: damage, unless the store merely failed.
fn stream(error: &StreamError) -> Advice {
    match error.0.downcast_ref::<SnapshotError>() {
        Some(error) => snapshot(error),
        None => say(Exit::Damage, "restore an older snapshot, or from another vault: `backup restore --vault NAME`"),
    }
}

fn postgres_restore(error: &PostgresRestoreError) -> Advice {
    match error {
        PostgresRestoreError::Postgres(error) => postgres(error),
        PostgresRestoreError::Refused { .. } => {
            say(Exit::Usage, "restore into a database that does not exist yet: `--into NAME`")
        }
        PostgresRestoreError::Stream { source, .. } => stream(source),
        PostgresRestoreError::Unexpected { .. } => say(
            Exit::Damage,
            "restore an older snapshot with `--at TIME`; or mend the check in `expect`, if it is the check that is wrong",
        ),
        PostgresRestoreError::Orphans { .. } => {
            say(Exit::Failed, "load the tables that they refer to as well, or the rows that are missing there first")
        }
        PostgresRestoreError::CommitLost { .. } => {
            say(Exit::Failed, "look whether the tables have rows: all of them have theirs, or none")
        }
        PostgresRestoreError::Closed { .. } => say(Exit::Failed, "run the statement above with `psql` as a superuser"),
        PostgresRestoreError::Staging { .. } => {
            say(Exit::Failed, "make room in the folder for temporary files, then try again")
        }
        error if error.is_malformed() => {
            say(Exit::Damage, "restore an older snapshot, or from another vault: `backup restore --vault NAME`")
        }
        PostgresRestoreError::Load { .. } | PostgresRestoreError::Busy { .. } => {
            say(Exit::Failed, "read the server's words above and its log; no database was replaced")
        }
        _ => say(Exit::Damage, "restore an older snapshot, or from another vault: `backup restore --vault NAME`"),
    }
}

fn files_restore(error: &FilesRestoreError) -> Advice {
    match error {
        FilesRestoreError::Stream { source, .. } => stream(source),
        FilesRestoreError::Exists { .. } => {
            say(Exit::Usage, "restore beside it with `--into-dir DIR`, or replace it with `--replace`")
        }
        FilesRestoreError::Mounted { .. } => say(Exit::Usage, "restore beside it with `--into-dir DIR`"),
        FilesRestoreError::NotInSnapshot { .. } | FilesRestoreError::Path { .. } => {
            say(Exit::Usage, "see the paths of the snapshot with `backup show ID --identity FILE`")
        }
        FilesRestoreError::Nothing => say(Exit::Failed, "choose another snapshot by its ID or with `--at TIME`"),
        FilesRestoreError::Io { .. } | FilesRestoreError::Interrupted => {
            say(Exit::Failed, "check room and rights of the target, then try again")
        }
        FilesRestoreError::Partly { .. } => {
            say(Exit::Failed, "move the complete stages named above to their targets by hand")
        }
        _ => say(Exit::Damage, "restore an older snapshot, or from another vault: `backup restore --vault NAME`"),
    }
}

fn replicate(error: &ReplicateError) -> Advice {
    match error {
        ReplicateError::Snapshot { source, .. }
        | ReplicateError::Mark { source, .. }
        | ReplicateError::Grant { source, .. }
        | ReplicateError::Hold { source, .. }
        | ReplicateError::Vault(source) => vault(source),
        ReplicateError::Incomplete { .. } => say(Exit::Damage, MEND),
        ReplicateError::Purged { .. } => say(
            Exit::Failed,
            "purge it in every vault that still has it: `backup purge GENERATION --source S --reason TEXT --apply`",
        ),
        ReplicateError::Pruned { .. } => say(Exit::Failed, "take the deletion back with `backup prune --undo`"),
    }
}

fn unlock(error: &UnlockError) -> Advice {
    match error {
        UnlockError::Vault(error) => vault(error),
        UnlockError::Key(error) => identity(error),
    }
}

fn grant(error: &GrantError) -> Advice {
    match error {
        GrantError::Vault(error) => vault(error),
        GrantError::Wrap { .. } => say(Exit::Usage, "name a recipient as `backup key new` prints it: `age1…`"),
    }
}

macro_rules! convert {
    ($($error:ty => $advice:path),* $(,)?) => {$(
        impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                build(&error, $advice(&error))
            }
        }
    )*};
}

fn state(error: &StateError) -> Advice {
    let hint = match error {
        StateError::Newer { .. } => "use the newer version of this program, or delete that file; all of it can be lost",
        error if error.is_unusable() => {
            "make room on the disk that holds the folder of `state`, or give this user the right to write there"
        }
        error if error.is_broken() => {
            "the next `backup run` moves it aside and begins a new one: all of it can be lost"
        }
        _ => "check the folder of `state` and the rights of this user there",
    };
    say(Exit::Failed, hint)
}

fn s3_open(_: &S3OpenError) -> Advice {
    say(Exit::Usage, "see `backup config schema` for the keys of `s3`")
}

convert! {
    VaultError => vault,
    PostgresError => postgres,
    BackupError => backup,
    ImportError => import,
    SnapshotError => snapshot,
    UnlockError => unlock,
    GrantError => grant,
    StreamError => stream,
    PostgresRestoreError => postgres_restore,
    FilesRestoreError => files_restore,
    ReplicateError => replicate,
    StateError => state,
    S3OpenError => s3_open,
}
