//! One run or repair per stack and source at a time: an OS lock in the state folder, gone with the process. Advisory: safety
//! never depends on it, but two runs at once would do the work twice, and two repairs keep the same bad file twice.

use std::fs::File;
use std::path::Path;

use backup_core::id::{SourceName, StackName};
use rustix::fs::{FlockOperation, flock};

use crate::error::CliError;
use crate::exit::Exit;

/// Held while it lives.
pub(crate) struct RunLock(#[expect(dead_code, reason = "held, not read")] File);

impl RunLock {
    /// Takes the lock of a stack's source, or says that another run or a repair has it.
    pub(crate) fn take(state: &Path, stack: &StackName, source: &SourceName) -> Result<Self, CliError> {
        Self::at(&state.join(format!("{stack}.{source}.lock")), source)
    }

    /// The lock of an import, which shares nothing with a run and must not hold one up.
    pub(crate) fn take_import(state: &Path, stack: &StackName, source: &SourceName) -> Result<Self, CliError> {
        Self::at(&state.join(format!("{stack}.{source}.import.lock")), source)
    }

    fn at(path: &Path, source: &SourceName) -> Result<Self, CliError> {
        let file = File::options().create(true).truncate(false).write(true).open(path).map_err(|error| {
            CliError::caused(Exit::Failed, format!("cannot open the lock `{}`", path.display()), &error)
                .hint("check the folder of `state` and the rights of this user")
        })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(_) => {
                Err(CliError::new(Exit::Running, format!("another run or repair of source `{source}` is under way"))
                    .hint("wait for it; `backup runs` shows a run"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_per_stack_and_source() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| name.parse::<StackName>().unwrap());
        let source: SourceName = "db".parse().unwrap();
        let held = RunLock::take(dir.path(), &one, &source).unwrap();
        assert_eq!(RunLock::take(dir.path(), &one, &source).err().map(|error| error.exit()), Some(Exit::Running));
        assert!(RunLock::take(dir.path(), &two, &source).is_ok(), "another stack in the same folder");
        drop(held);
        assert!(RunLock::take(dir.path(), &one, &source).is_ok());
    }
}
