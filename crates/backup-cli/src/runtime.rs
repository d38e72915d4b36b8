//! The async runtime of a verb, and what becomes of it when a signal arrives.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

use backup_core::critical::settled;

use crate::error::CliError;
use crate::exit::Exit;

/// Runs a verb to its end, or until SIGINT or SIGTERM. Dropping the verb's future is safe at any point: children are killed
/// with it, and what was not committed does not exist.
///
/// One thread does all that waits, and hears itself of each connection's bytes: with more, every few kilobytes of a COPY
/// woke one thread to wake another (measured: a tenth of a first backup's processor time, a sixth of the next one's).
/// Cutting, sealing and opening are on the blocking threads; framing, TLS and the sums of what is loaded are on this one.
pub(crate) fn block_on(verb: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    let cpus = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_current_thread()
        // Each thread has an arena of the allocator: with fewer of them memory stays flat. Two per processor cut and seal;
        // a few more walk, write and wait.
        .max_blocking_threads(2 * cpus + 3)
        .enable_all()
        .build()
        .map_err(|error| CliError::caused(Exit::Failed, "cannot start", &error))?;
    let end = runtime.block_on(async {
        let failed = |error: std::io::Error| CliError::caused(Exit::Failed, "cannot listen for signals", &error);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        let end = tokio::select! {
            end = verb => end,
            _ = interrupt.recv() => Err(stopped(Exit::Interrupted, "interrupted")),
            _ = terminate.recv() => Err(stopped(Exit::Terminated, "terminated")),
            _ = hangup.recv() => Err(stopped(Exit::Terminated, "the terminal hung up")),
        };
        // The verb is dropped; what must not be cut in two ends by itself.
        settled().await;
        end
    });
    // A blocking thread that is in the middle of a read must not hold up the end.
    runtime.shutdown_background();
    end
}

/// What the verb under way leaves on a server when it is cut off, and the command that removes it. Nobody is left then to do it: a
/// connection that could has gone with the verb.
static LEFT: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on, a verb that is cut off leaves this.
pub(crate) fn leaves(what: String) {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(what);
}

/// What was left is in place, or gone.
pub(crate) fn leaves_nothing() {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

fn stopped(exit: Exit, what: &str) -> CliError {
    let left = std::mem::take(&mut *LEFT.lock().unwrap_or_else(PoisonError::into_inner));
    let hint = ["nothing half-made has a final name; run it again".to_owned()].into_iter().chain(left);
    CliError::new(exit, what).hint(hint.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_cut_off_says_what_is_left() {
        leaves("x is left: remove it with `dropdb x`".to_owned());
        let cut = stopped(Exit::Interrupted, "interrupted");
        assert_eq!(
            cut.advice(),
            Some("nothing half-made has a final name; run it again; x is left: remove it with `dropdb x`")
        );
        leaves("y".to_owned());
        leaves_nothing();
        assert_eq!(
            stopped(Exit::Interrupted, "interrupted").advice(),
            Some("nothing half-made has a final name; run it again")
        );
    }
}
