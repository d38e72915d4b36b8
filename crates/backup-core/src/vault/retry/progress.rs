//! How far a transfer has come, told by who moves the bytes and read by who waits for it.
//!
//! What was handed to the connection is not yet across: the kernel takes some MiB at once and says nothing while it sends
//! them. So a silence after sending is allowed the time that those bytes need at the slowest rate, and a silence after
//! receiving is not: what was read is here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::RetryPolicy;

/// What the kernel and the HTTP client may hold of a body that they took: Linux lets a socket grow to 4 MiB.
pub const BUFFERED_BYTES: u64 = 4 << 20;

/// No sum of bytes is given more time than this: a rate of 1 byte/s must not overflow an instant.
const LONGEST: Duration = Duration::from_hours(24 * 7);

/// One call's transfer; begins anew with each attempt.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Seen>);

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// What this attempt has to move, as far as it is known.
    expected_bytes: u64,
    /// The most that any attempt had to move.
    most_bytes: u64,
    /// What may have been taken and not yet sent.
    buffered_bytes: u64,
    moved_at: Option<Instant>,
}

/// When an attempt has taken too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) at: Instant,
    /// How long nothing had moved then, when that is the reason.
    pub(super) silence: Option<Duration>,
}

impl Progress {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This many more bytes are to be moved.
    pub fn expect(&self, bytes: u64) {
        let mut seen = self.seen();
        seen.expected_bytes = seen.expected_bytes.saturating_add(bytes);
        seen.most_bytes = seen.most_bytes.max(seen.expected_bytes);
    }

    /// The connection took this many bytes.
    pub fn sent(&self, bytes: u64) {
        self.sent_at(bytes, Instant::now());
    }

    fn sent_at(&self, bytes: u64, now: Instant) {
        let mut seen = self.seen();
        seen.buffered_bytes = seen.buffered_bytes.saturating_add(bytes).min(BUFFERED_BYTES);
        seen.moved_at = Some(now);
    }

    /// Bytes arrived; whatever was sent before is across.
    pub fn received(&self) {
        self.received_at(Instant::now());
    }

    fn received_at(&self, now: Instant) {
        let mut seen = self.seen();
        seen.buffered_bytes = 0;
        seen.moved_at = Some(now);
    }

    /// A new attempt.
    pub(super) fn restart(&self) {
        let mut seen = self.seen();
        *seen = Seen { most_bytes: seen.most_bytes, ..Seen::default() };
    }

    /// When the attempt that began at `started` has taken too long, if nothing moves from now on.
    pub(super) fn limit(&self, policy: &RetryPolicy, started: Instant) -> Limit {
        let seen = *self.seen();
        let whole = started + policy.attempt + policy.time_for(seen.expected_bytes);
        let silence = policy.attempt + policy.time_for(seen.buffered_bytes);
        let silent = seen.moved_at.unwrap_or(started) + silence;
        // Before anything moved, and when everything was taken at once, both say the same.
        if silent < whole && seen.moved_at.is_some() {
            Limit { at: silent, silence: Some(silence) }
        } else {
            Limit { at: whole.min(silent), silence: None }
        }
    }

    /// How much longer the call may take for its bytes.
    fn allowance(&self, policy: &RetryPolicy) -> Duration {
        policy.time_for(self.seen().most_bytes) * RetryPolicy::WHOLE_ATTEMPTS
    }

    /// When an attempt of the call that began at `begun` is cut off at the latest.
    pub(super) fn deadline(&self, policy: &RetryPolicy, begun: Instant) -> Instant {
        begun + policy.total + self.allowance(policy)
    }

    /// Until when the call that began at `begun`, and has spent so much time in its attempts, may be tried again. Attempts
    /// that fail fast get no time for bytes that they did not move.
    pub(super) fn patience(&self, policy: &RetryPolicy, begun: Instant, spent: Duration) -> Instant {
        begun + policy.total + spent.min(self.allowance(policy))
    }
}

impl RetryPolicy {
    /// For the bytes of so many attempts a call gets time beside [`RetryPolicy::total`], as far as its attempts need it.
    pub const WHOLE_ATTEMPTS: u32 = 2;

    /// What `bytes` take at the slowest rate that is put up with.
    pub fn time_for(&self, bytes: u64) -> Duration {
        let rate = u128::from(self.bytes_per_second.max(1));
        let nanos = u128::from(bytes) * 1_000_000_000 / rate;
        u64::try_from(nanos).map_or(LONGEST, Duration::from_nanos).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        base: Duration::ZERO,
        cap: Duration::ZERO,
        attempt: Duration::from_secs(10),
        bytes_per_second: 1 << 20,
        total: Duration::from_secs(30),
    };

    #[test]
    fn time_grows_with_the_bytes_and_silence_ends_it() {
        let (progress, started) = (Progress::default(), Instant::now());
        let seconds = |limit: Limit| (limit.at - started).as_secs();
        assert_eq!(seconds(progress.limit(&POLICY, started)), 10, "nothing is known yet");
        assert_eq!(progress.limit(&POLICY, started).silence, None, "and nothing has begun to move");
        progress.expect(64 << 20);
        let limit = progress.limit(&POLICY, started);
        assert_eq!((seconds(limit), limit.silence), (10, None), "and nothing has moved");
        let after = |seconds| started + Duration::from_secs(seconds);
        progress.sent_at(1 << 20, after(8));
        let limit = progress.limit(&POLICY, started);
        assert_eq!((seconds(limit), limit.silence), (19, Some(Duration::from_secs(11))));
        progress.sent_at(63 << 20, after(8));
        assert_eq!(seconds(progress.limit(&POLICY, started)), 8 + 10 + 4, "what is buffered gets time");
        progress.received_at(after(68));
        let limit = progress.limit(&POLICY, started);
        assert_eq!((seconds(limit), limit.silence), (74, None), "the whole may take 10 + 64 seconds");
        assert_eq!((progress.deadline(&POLICY, started) - started).as_secs(), 30 + 2 * 64);
        let patience = |spent| (progress.patience(&POLICY, started, Duration::from_secs(spent)) - started).as_secs();
        assert_eq!([0, 5, 500].map(patience), [30, 35, 30 + 2 * 64]);
        progress.restart();
        assert_eq!(seconds(progress.limit(&POLICY, started)), 10);
        assert_eq!((progress.deadline(&POLICY, started) - started).as_secs(), 30 + 2 * 64);
    }

    #[test]
    fn whoever_tells_of_bytes_tells_when() {
        let (progress, started) = (Progress::default(), Instant::now());
        progress.expect(64 << 20);
        progress.sent(1 << 20);
        assert_eq!(progress.limit(&POLICY, started).silence, Some(Duration::from_secs(11)));
        progress.received();
        assert_eq!(progress.limit(&POLICY, started).silence, Some(Duration::from_secs(10)));
    }

    #[test]
    fn what_was_taken_at_once_is_no_silence() {
        let (progress, started) = (Progress::default(), Instant::now());
        progress.expect(2 << 20);
        progress.sent_at(2 << 20, started);
        let limit = progress.limit(&POLICY, started);
        assert_eq!((limit.at - started, limit.silence), (Duration::from_secs(12), None));
        // Together with the next it is more, and each counts.
        progress.expect(1 << 20);
        progress.sent_at(1 << 20, started);
        assert_eq!((progress.limit(&POLICY, started).at - started).as_secs(), 13);
    }

    #[test]
    fn a_large_body_over_a_slow_line_has_time_enough() {
        let policy = RetryPolicy::default();
        // 64 MiB at 2 MB/s are 34 s; with eight at once on the same line, 270 s.
        assert!(policy.attempt + policy.time_for(64 << 20) > Duration::from_secs(270));
        // Two whole attempts at the slowest rate fit into a call.
        let (attempt, moving) = (policy.attempt, policy.time_for(64 << 20));
        assert!(policy.total + moving * RetryPolicy::WHOLE_ATTEMPTS >= (attempt + moving) * 2);
        let slowest = RetryPolicy { bytes_per_second: 0, ..policy };
        assert_eq!(slowest.time_for(u64::MAX), Duration::from_hours(7 * 24));
        assert_eq!((slowest.time_for(3), policy.time_for(64 << 10)), (Duration::from_secs(3), Duration::from_secs(1)));
    }
}
