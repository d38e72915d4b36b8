//! Variables that the database driver would take from the environment.
//!
//! A restore must not depend on what an operator's shell has set for `psql`. The driver's options can be set over most
//! variables of libpq, but what `PGOPTIONS` and the three names of certificates bring cannot be taken away again, and a
//! process cannot change its environment safely. So it starts itself anew, once, without them: the same process, program
//! and arguments, before anything was read or done. The programs that it runs do not see them either.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::error::CliError;
use crate::exit::Exit;

/// What the driver reads and cannot be told to forget.
const VARIABLES: [&str; 4] = ["PGOPTIONS", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"];

/// The process that has done it already, so that it is never done twice: what sets them again is a wrapper that we cannot
/// see behind. Processes started from this one have other numbers.
const DONE: &str = "BACKUP_STARTED_ANEW";

/// Goes on in an environment without them. It returns where there are none, or with why that cannot be had.
pub(crate) fn clear(args: &[OsString]) -> Result<(), CliError> {
    let set: Vec<&str> = VARIABLES.into_iter().filter(|name| std::env::var_os(name).is_some()).collect();
    if set.is_empty() {
        return Ok(());
    }
    let hint = format!("run it without them: `env -u {} backup …`", set.join(" -u "));
    let what = format!("cannot start anew without {} in the environment", set.join(", "));
    let process = std::process::id().to_string();
    if std::env::var_os(DONE).is_some_and(|done| *done == *process) {
        return Err(CliError::usage(format!("{what}: something sets them again")).hint(hint));
    }
    let program = std::env::current_exe().map_err(|error| CliError::caused(Exit::Failed, &what, &error).hint(&hint))?;
    let mut anew = Command::new(program);
    if let [name, rest @ ..] = args {
        anew.arg0(name).args(rest);
    }
    for name in set {
        anew.env_remove(name);
    }
    let error = anew.env(DONE, process).exec();
    Err(CliError::caused(Exit::Failed, what, &error).hint(hint))
}
