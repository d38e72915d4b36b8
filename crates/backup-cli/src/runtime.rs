//! The async runtime of a verb, and what becomes of it when a signal arrives.

use std::future::Future;

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

fn stopped(exit: Exit, what: &str) -> CliError {
    CliError::new(exit, what).hint("nothing half-made has a final name; run it again")
}
