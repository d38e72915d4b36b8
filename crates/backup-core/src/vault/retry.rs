//! The one place that tries again.
//!
//! Exponential backoff with full jitter: the pause before attempt *n* + 1 is drawn evenly from zero to
//! `base` · 2ⁿ⁻¹, at most `cap`, so that many clients that failed together do not come back together. Two clocks bound
//! it: `attempt` for one try, `total` for the whole call, each longer by the time that the call's bytes take at the slowest
//! rate that is put up with. So a large body on a slow line arrives, and one whose bytes stop moving is still found
//! ([`Progress`]). What is not worth another try comes out at once
//! ([`Failure::Final`]): a refused credential does not become valid by repetition, and repeating it can lock an account.
//! Each failure that is tried again is told to the monitor. Time here is the monotonic clock, never the wall clock.

mod progress;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

pub use self::progress::{BUFFERED_BYTES, Progress};
use crate::monitor::{Event, Monitor};

/// How long and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Upper bound of the first pause; doubled after each failure.
    pub base: Duration,
    /// Upper bound of every pause.
    pub cap: Duration,
    /// How long one attempt may take beside its bytes, and how long nothing may move in it.
    pub attempt: Duration,
    /// The slowest rate that is put up with: `bytes / bytes_per_second` is added to the time of an attempt.
    pub bytes_per_second: u64,
    /// How long the call may take with all its attempts and pauses. Time that attempts take is added, up to
    /// [`RetryPolicy::WHOLE_ATTEMPTS`] times what the call's bytes take at the slowest rate.
    pub total: Duration,
}

impl RetryPolicy {
    /// 64 KiB/s a connection: 5 GiB a day, under which no backup of use gets done.
    pub const BYTES_PER_SECOND: u64 = 64 << 10;

    /// The usual times for a call that may take `total`: an attempt gets half of that and at most a minute, so that one
    /// that hangs leaves time for another.
    pub fn within(total: Duration) -> Self {
        let usual = Self::default();
        Self { attempt: usual.attempt.min(total / 2), total, ..usual }
    }
}

impl Default for RetryPolicy {
    /// 200 ms doubling to 10 s; a minute for an attempt, three for the call, and the bytes at 64 KiB/s.
    fn default() -> Self {
        Self {
            base: Duration::from_millis(200),
            cap: Duration::from_secs(10),
            attempt: Duration::from_mins(1),
            bytes_per_second: Self::BYTES_PER_SECOND,
            total: Duration::from_mins(3),
        }
    }
}

/// A failed attempt.
#[derive(Debug)]
pub enum Failure<E> {
    /// Worth another try.
    Again(E),
    /// Not worth it.
    Final(E),
}

/// An attempt had no end within its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeUp {
    /// It took longer than its bytes should.
    #[error("no answer within {:.1} s", .0.as_secs_f64())]
    NoAnswer(Duration),
    /// It had begun to move bytes, and moved none for so long.
    #[error("nothing moved for {:.1} s", .0.as_secs_f64())]
    Stalled(Duration),
}

/// An attempt that was given no more time than this was not given any.
const HARDLY: Duration = Duration::from_secs(1);

/// The call failed for good.
#[derive(Debug)]
pub struct GaveUp<E> {
    /// How often it was tried, at least 1.
    pub attempts: u32,
    /// The last failure.
    pub error: E,
}

/// Where pauses get their randomness from. Not for secrets.
pub struct Jitter(AtomicU64);

impl Jitter {
    /// The same pauses for the same seed: for tests.
    pub fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A seed from the system.
    pub fn random() -> Self {
        // Without a random source the pauses are merely predictable, so an error here is no reason to fail.
        Self::seeded(getrandom::u64().unwrap_or(0x5eed))
    }

    /// A number from 0 to `upper`, both included: one step of splitmix64.
    fn up_to(&self, upper: u64) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        upper.checked_add(1).map_or(z, |span| z % span)
    }
}

/// Runs calls under a policy.
#[derive(Clone)]
pub struct Retry {
    policy: RetryPolicy,
    jitter: Arc<Jitter>,
    monitor: Arc<dyn Monitor>,
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Retry {
    /// Retries by `policy`, pauses by `jitter`, and tells `monitor`.
    pub fn new(policy: RetryPolicy, jitter: Jitter, monitor: Arc<dyn Monitor>) -> Self {
        Self { policy, jitter: Arc::new(jitter), monitor }
    }

    /// Runs `attempt` (given its number, from 1) until it succeeds, fails for good, or time is up. `what` names the
    /// call and its object for the monitor. An attempt that runs out of time is dropped, then counted as a failure.
    pub async fn run<T, E, F, Fut>(&self, what: &str, attempt: F) -> Result<T, GaveUp<E>>
    where
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<T, Failure<E>>>,
        E: fmt::Display + From<TimeUp>,
    {
        self.run_moving(what, &Progress::default(), attempt).await
    }

    /// [`Retry::run`] for a call that moves many bytes, and tells `progress` of them.
    pub async fn run_moving<T, E, F, Fut>(
        &self,
        what: &str,
        progress: &Progress,
        mut attempt: F,
    ) -> Result<T, GaveUp<E>>
    where
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<T, Failure<E>>>,
        E: fmt::Display + From<TimeUp>,
    {
        let begun = Instant::now();
        let (mut attempts, mut spent) = (0, Duration::ZERO);
        let mut before = None;
        loop {
            attempts += 1;
            progress.restart();
            let started = Instant::now();
            let error = match self.in_time(progress, begun, attempt(attempts)).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(Failure::Final(error))) => return Err(GaveUp { attempts, error }),
                Ok(Err(Failure::Again(error))) => error,
                // The call's time was up when this attempt had hardly begun: what failed before tells more.
                Err(TimeUp::NoAnswer(waited)) if waited < HARDLY && waited < self.policy.attempt => {
                    before.take().unwrap_or_else(|| TimeUp::NoAnswer(waited).into())
                }
                Err(up) => up.into(),
            };
            spent += started.elapsed();
            let pause = self.pause(attempts);
            if Instant::now() + pause >= progress.patience(&self.policy, begun, spent) {
                return Err(GaveUp { attempts, error });
            }
            self.monitor.event(Event::Retry { what: what.to_owned(), why: error.to_string(), attempt: attempts });
            before = Some(error);
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt of a call that began at `begun`. Its time grows while bytes move, so it is looked at again whenever
    /// it would have been up.
    async fn in_time<T>(
        &self,
        progress: &Progress,
        begun: Instant,
        work: impl Future<Output = T>,
    ) -> Result<T, TimeUp> {
        let started = Instant::now();
        let mut work = pin!(work);
        let limit = || {
            let limit = progress.limit(&self.policy, started);
            let deadline = progress.deadline(&self.policy, begun);
            if deadline < limit.at { (deadline, None) } else { (limit.at, limit.silence) }
        };
        loop {
            if let Ok(done) = tokio::time::timeout_at(limit().0, &mut work).await {
                return Ok(done);
            }
            match limit() {
                (at, _) if at > Instant::now() => {}
                (_, Some(silence)) => return Err(TimeUp::Stalled(silence)),
                (_, None) => return Err(TimeUp::NoAnswer(started.elapsed())),
            }
        }
    }

    /// The pause after attempt number `attempts`.
    fn pause(&self, attempts: u32) -> Duration {
        let doubled = self.policy.base.saturating_mul(1_u32.checked_shl(attempts - 1).unwrap_or(u32::MAX));
        let upper = u64::try_from(doubled.min(self.policy.cap).as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.jitter.up_to(upper))
    }
}

#[cfg(test)]
mod tests {

    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug)]
    struct Said(String);
    impl fmt::Display for Said {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0)
        }
    }
    impl From<TimeUp> for Said {
        fn from(value: TimeUp) -> Self {
            Self(value.to_string())
        }
    }

    #[derive(Default)]
    struct Heard(Mutex<Vec<Event>>);
    impl Monitor for Heard {
        fn event(&self, event: Event) {
            self.0.lock().unwrap().push(event);
        }
    }

    fn quick(total_ms: u64) -> (Retry, Arc<Heard>) {
        let heard = Arc::new(Heard::default());
        let policy = RetryPolicy {
            base: Duration::from_millis(1),
            cap: Duration::from_millis(4),
            attempt: Duration::from_millis(50),
            bytes_per_second: 1000,
            total: Duration::from_millis(total_ms),
        };
        (Retry::new(policy, Jitter::seeded(7), heard.clone()), heard)
    }

    #[tokio::test]
    async fn tries_again_and_tells_each_failure() {
        let (retry, heard) = quick(10_000);
        let answer = retry
            .run(
                "write `a`",
                |n| async move { if n < 3 { Err(Failure::Again(Said(format!("busy {n}")))) } else { Ok(n) } },
            )
            .await
            .unwrap();
        assert_eq!(answer, 3);
        let expected = |n: u32| Event::Retry { what: "write `a`".into(), why: format!("busy {n}"), attempt: n };
        assert_eq!(*heard.0.lock().unwrap(), [expected(1), expected(2)]);
    }

    #[test]
    fn an_attempt_leaves_time_for_another() {
        let of = |seconds| RetryPolicy::within(Duration::from_secs(seconds));
        assert_eq!(of(180), RetryPolicy::default());
        assert_eq!(of(3600), RetryPolicy { total: Duration::from_hours(1), ..RetryPolicy::default() });
        assert_eq!((of(10).attempt, of(10).total), (Duration::from_secs(5), Duration::from_secs(10)));
    }

    #[tokio::test]
    async fn a_final_failure_is_not_repeated() {
        let (retry, heard) = quick(10_000);
        let gave_up =
            retry.run::<(), _, _, _>("x", |_| async { Err(Failure::Final(Said("denied".into()))) }).await.unwrap_err();
        assert_eq!((gave_up.attempts, gave_up.error.0.as_str()), (1, "denied"));
        assert!(heard.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_total_deadline_ends_it() {
        let (retry, _) = quick(60);
        let begun = Instant::now();
        let gave_up =
            retry.run::<(), _, _, _>("x", |_| async { Err(Failure::Again(Said("busy".into()))) }).await.unwrap_err();
        assert!(gave_up.attempts > 2, "{}", gave_up.attempts);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn no_pause_goes_beyond_the_total() {
        let (mut retry, _) = quick(100);
        (retry.policy.base, retry.policy.cap) = (Duration::from_hours(1), Duration::from_hours(1));
        let begun = Instant::now();
        let gave_up =
            retry.run::<(), _, _, _>("x", |_| async { Err(Failure::Again(Said("busy".into()))) }).await.unwrap_err();
        assert_eq!(gave_up.attempts, 1);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn the_total_deadline_cuts_an_attempt_short() {
        let (mut retry, _) = quick(100);
        retry.policy.attempt = Duration::from_hours(1);
        let run = retry.run::<(), Said, _, _>("x", |_| std::future::pending());
        let gave_up = tokio::time::timeout(Duration::from_secs(20), run).await.unwrap().unwrap_err();
        assert_eq!(gave_up.attempts, 1);
        assert!(gave_up.error.0.starts_with("no answer within"), "{}", gave_up.error);
    }

    #[tokio::test]
    async fn an_attempt_that_had_no_time_does_not_hide_why_the_others_failed() {
        let (mut retry, _) = quick(300);
        (retry.policy.base, retry.policy.attempt) = (Duration::ZERO, Duration::from_hours(1));
        let run = retry.run::<(), Said, _, _>("x", |number| async move {
            tokio::time::sleep(Duration::from_millis(if number == 1 { 200 } else { 60_000 })).await;
            Err(Failure::Again(Said("refused".into())))
        });
        let gave_up = run.await.unwrap_err();
        assert_eq!((gave_up.attempts, gave_up.error.0.as_str()), (2, "refused"));
    }

    #[tokio::test]
    async fn an_attempt_without_end_is_cut_off_and_counted() {
        let (retry, _) = quick(120);
        let gave_up = retry.run::<(), Said, _, _>("x", |_| std::future::pending()).await.unwrap_err();
        assert!(gave_up.attempts >= 2, "{}", gave_up.attempts);
        assert!(gave_up.error.0.starts_with("no answer within"), "{}", gave_up.error);
    }

    #[tokio::test]
    async fn an_attempt_that_moves_may_take_longer_and_one_that_stops_is_cut_off() {
        let (mut retry, heard) = quick(1000);
        (retry.policy.attempt, retry.policy.bytes_per_second) = (Duration::from_millis(600), 100);
        let progress = Progress::default();
        let (progress, ended) = (&progress, Instant::now());
        let answer = retry
            .run_moving("x", progress, async |n| {
                progress.expect(1000);
                progress.received();
                if n == 1 {
                    std::future::pending::<()>().await;
                }
                // Twice the time of an attempt, and never silent for long.
                for _ in 0..60 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    progress.received();
                }
                Ok::<_, Failure<Said>>(n)
            })
            .await
            .unwrap();
        assert_eq!(answer, 2);
        assert!(ended.elapsed() > Duration::from_millis(600 + 1200));
        let why = "nothing moved for 0.6 s".to_owned();
        assert_eq!(*heard.0.lock().unwrap(), [Event::Retry { what: "x".to_owned(), why, attempt: 1 }]);
    }

    #[tokio::test]
    async fn attempts_that_fail_fast_get_no_time_for_their_bytes() {
        let (retry, _) = quick(60);
        let (progress, begun) = (Progress::default(), Instant::now());
        let attempt = async |_| {
            progress.expect(100_000);
            Err(Failure::Again(Said("busy".into())))
        };
        let gave_up = retry.run_moving::<(), _, _, _>("x", &progress, attempt).await.unwrap_err();
        assert!(gave_up.attempts > 2, "{}", gave_up.attempts);
        // Twice 100 s otherwise.
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn an_attempt_that_drips_for_ever_is_cut_off() {
        let (retry, _) = quick(200);
        let progress = Progress::default();
        let gave_up = retry
            .run_moving::<(), Said, _, _>("x", &progress, async |_| {
                progress.expect(50);
                loop {
                    progress.received();
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await
            .unwrap_err();
        assert!(gave_up.attempts >= 2, "{gave_up:?}");
    }

    #[test]
    fn jitter_is_splitmix64_within_its_bound() {
        // The reference implementation's first numbers for this seed.
        let jitter = Jitter::seeded(1_234_567);
        let numbers: Vec<u64> = (0..3).map(|_| jitter.up_to(u64::MAX)).collect();
        assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        let seen: BTreeSet<u64> = (0..200).map(|_| jitter.up_to(4)).collect();
        assert_eq!(seen, (0..=4).collect());
        assert_eq!(jitter.up_to(0), 0);
    }

    #[test]
    fn pauses_grow_to_the_cap_and_are_spread() {
        let (retry, _) = quick(1);
        let late: Vec<_> = (0..200).map(|_| retry.pause(40)).collect();
        assert!(late.iter().all(|p| *p <= Duration::from_millis(4)));
        assert!(late.iter().any(|p| *p < Duration::from_millis(1)));
        assert!(late.iter().any(|p| *p > Duration::from_millis(3)));
        assert!((0..200).all(|_| retry.pause(1) <= Duration::from_millis(1)));
    }
}
