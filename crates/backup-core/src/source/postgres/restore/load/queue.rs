//! What the sessions of a load do next. Rows come before indexes, since a waiting index holds nothing up and a waiting table does;
//! a session without work sleeps until a job under way ends, because that may bring an index to build.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Notify;

use super::super::post_data::EarlyIndex;
use super::lock;

/// A piece of work for one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Job {
    /// The parts of a table that are streams of their own.
    Table(usize),
    /// A tar of small parts.
    Tar(u32),
    /// One member of a tar, again.
    Member(u32, u32),
}

/// What a session does next.
pub(super) enum Work {
    Load(Job),
    Build(EarlyIndex),
}

/// Work of one round: tables first, the largest before all others, then what can be built for those that have their rows.
pub(super) struct Queue {
    state: Mutex<Waiting>,
    changed: Notify,
}

struct Waiting {
    jobs: VecDeque<Job>,
    indexes: VecDeque<EarlyIndex>,
    /// Jobs under way: each may bring indexes.
    loading: usize,
}

impl Queue {
    pub(super) fn new(jobs: VecDeque<Job>) -> Self {
        let state = Mutex::new(Waiting { jobs, indexes: VecDeque::new(), loading: 0 });
        Self { state, changed: Notify::new() }
    }

    /// The next piece of work, as soon as there is one; `None` when there will be none.
    pub(super) async fn next(&self) -> Option<Work> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = lock(&self.state);
                if let Some(job) = state.jobs.pop_front() {
                    state.loading += 1;
                    return Some(Work::Load(job));
                }
                if let Some(index) = state.indexes.pop_front() {
                    return Some(Work::Build(index));
                }
                if state.loading == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// A job has ended; `early` can be built now.
    pub(super) fn loaded(&self, early: Vec<EarlyIndex>) {
        let mut state = lock(&self.state);
        state.loading -= 1;
        state.indexes.extend(early);
        drop(state);
        self.changed.notify_waiters();
    }
}
