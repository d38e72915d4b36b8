//! One run per stack and source at a time: an OS lock in the state folder, gone with the process. Advisory: safety never
//! depends on it, but two runs at once would do the work twice.

use std::fs::File;
use std::path::Path;

use backup_core::id::SourceName;
use rustix::fs::{FlockOperation, flock};

use crate::error::CliError;
use crate::exit::Exit;

/// Held while it lives.
pub(crate) struct RunLock(#[expect(dead_code, reason = "held, not read")] File);

impl RunLock {
    /// Takes the lock of a source, or says that another run has it.
    pub(crate) fn take(state: &Path, source: &SourceName) -> Result<Self, CliError> {
        let path = state.join(format!("{source}.lock"));
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(|error| {
            CliError::caused(Exit::Failed, format!("cannot open the lock `{}`", path.display()), &error)
                .hint("check the folder of `state` and the rights of this user")
        })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(_) => Err(CliError::new(Exit::Running, format!("another run of source `{source}` is under way"))
                .hint("wait for it; `backup runs` shows it")),
        }
    }
}
