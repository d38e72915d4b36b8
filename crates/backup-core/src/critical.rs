//! Short sections that must not be cut in two: a signal ends a verb by dropping its future, and between two renames that would
//! leave something half named.
//!
//! Such a section runs as a task of its own ([`finish`]) or holds a [`Guard`] on a blocking thread; whoever ends the process
//! waits for [`settled`] first.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

static OPEN: AtomicUsize = AtomicUsize::new(0);
static CLOSED: Notify = Notify::const_new();

/// While it lives, the process must not end.
#[derive(Debug)]
pub struct Guard(());

impl Guard {
    /// Enters a section.
    pub fn enter() -> Self {
        OPEN.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::SeqCst);
        CLOSED.notify_waiters();
    }
}

/// Runs `work` to its end, also when the caller is dropped. `None` when it panicked.
pub async fn finish<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let guard = Guard::enter();
    let task = tokio::spawn(async move {
        let done = work.await;
        drop(guard);
        done
    });
    task.await.ok()
}

/// Waits until no section is open.
pub async fn settled() {
    loop {
        let closed = CLOSED.notified();
        if OPEN.load(Ordering::SeqCst) == 0 {
            return;
        }
        closed.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    #[tokio::test]
    async fn a_section_ends_although_its_caller_is_dropped() {
        let done = Arc::new(AtomicBool::new(false));
        let mark = done.clone();
        let section = finish(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            mark.store(true, Ordering::SeqCst);
        });
        // Dropped in the middle, as a signal does it.
        assert!(tokio::time::timeout(Duration::from_millis(5), section).await.is_err());
        settled().await;
        assert!(done.load(Ordering::SeqCst));
    }
}
