//! Capture of PostgreSQL databases against real servers, into a sink in memory.
//!
//! `sink` keeps what was captured and can stop in the middle of a stream, so that a test can do something to the
//! database at that very moment.

pub(super) mod altered;
pub(super) mod concurrency;
mod content;
mod failure;
mod hostile;
mod large_objects;
mod sink;
mod standby;
mod storms;
mod tls;

use backup_core::clock::Clock;
use backup_core::monitor::{Event, Monitor};
use backup_core::secret::Secret;
use backup_core::source::Captured;
use backup_core::source::postgres::{
    ClientsOption, ConnectOptions, CountCheck, Globals, PostgresError, PostgresOptions, capture,
};
use harness::pg::{Cluster, SUPERUSER};
use sink::MemorySink;
use std::sync::Mutex;

/// Remembers what the engine told.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<Event>>);

impl Monitor for Recorder {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Recorder {
    /// Reasons for which the capture started over.
    fn retries(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let why = |event: &Event| if let Event::Retry { why, .. } = event { Some(why.clone()) } else { None };
        events.iter().filter_map(why).collect()
    }

    /// Warnings, in order.
    fn warnings(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let text = |event: &Event| if let Event::Warning { text } = event { Some(text.clone()) } else { None };
        events.iter().filter_map(text).collect()
    }
}

/// Options for tests: every table counted twice.
fn options(cluster: &Cluster, user: &str, database: &str) -> PostgresOptions {
    let password = cluster.password().map(Secret::new);
    let connect = ConnectOptions::new(&cluster.url_as(user, database), password).unwrap();
    PostgresOptions {
        clients: ClientsOption::Dir(cluster.clients().to_owned()),
        globals: Globals::None,
        count_check: CountCheck::All,
        ..PostgresOptions::new("db", connect)
    }
}

#[expect(clippy::disallowed_methods, reason = "a test is the edge")]
fn clock() -> Clock {
    Clock::new(chrono::Utc::now)
}

async fn run(options: &PostgresOptions, sink: &MemorySink) -> Result<(Captured, Recorder), PostgresError> {
    let recorder = Recorder::default();
    let captured = capture(options, sink, &clock(), &recorder).await?;
    Ok((captured, recorder))
}

/// Captures a database as superuser, which must work.
async fn captured(cluster: &Cluster, database: &str) -> Captured {
    run(&options(cluster, SUPERUSER, database), &MemorySink::default()).await.unwrap().0
}

/// An error with its causes, as the command line prints it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
