//! The SDK's client, with everything that it would look up by itself turned off or given.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, ConfigBag, Credentials, Intercept, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    RuntimeComponents, SharedCredentialsProvider, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::BoxError;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use url::Url;

use super::answers::Bounded;
use super::{S3Credentials, S3Options};

/// Why options cannot be used. Nothing was asked over the network.
#[derive(Debug, thiserror::Error)]
pub enum S3OpenError {
    /// The endpoint is no `http://host` or `https://host`.
    #[error("endpoint `{endpoint}` is not usable: {reason}")]
    Endpoint {
        /// As given, without user and password.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The bucket's name is empty or has other signs than letters, digits, `.` and `-`.
    #[error("`{bucket}` is no name of a bucket")]
    Bucket {
        /// As given.
        bucket: String,
    },
    /// The prefix is longer than [`S3Options::MAX_PREFIX_BYTES`].
    #[error(
        "a prefix of {prefix_bytes} bytes in bucket `{bucket}` is too long: at most {}, because a key has at most 1024",
        S3Options::MAX_PREFIX_BYTES
    )]
    Prefix {
        /// In which bucket.
        bucket: String,
        /// Length of the prefix.
        prefix_bytes: usize,
    },
    /// The certificates cannot be read.
    #[error("certificates of the authority for {endpoint} are not usable: {reason}")]
    Ca {
        /// For which endpoint.
        endpoint: String,
        /// What is wrong with them.
        reason: String,
    },
}

/// A client for `options`; each good answer is told to `answered`.
pub(super) async fn build(options: &S3Options, answered: LastAnswer) -> Result<Client, S3OpenError> {
    let url = endpoint(&options.endpoint)?;
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    if options.bucket.is_empty() || !options.bucket.bytes().all(good) {
        return Err(S3OpenError::Bucket { bucket: options.bucket.clone() });
    }
    let prefix_bytes = options.prefix.as_ref().map_or(0, |prefix| prefix.as_str().len());
    if prefix_bytes > S3Options::MAX_PREFIX_BYTES {
        return Err(S3OpenError::Prefix { bucket: options.bucket.clone(), prefix_bytes });
    }
    let region = Region::new(options.region.clone());
    let credentials = match &options.credentials {
        S3Credentials::Static { access_key_id, secret_access_key, session_token } => {
            SharedCredentialsProvider::new(Credentials::new(
                access_key_id,
                secret_access_key.reveal(),
                session_token.as_ref().map(|token| token.reveal().to_owned()),
                None,
                "backup",
            ))
        }
        // The operator chose it: this alone reads the environment and the profile files, as every AWS tool does.
        S3Credentials::AwsChain => {
            SharedCredentialsProvider::new(DefaultCredentialsChain::builder().region(region.clone()).build().await)
        }
    };
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http_client(options, &url)?)
        .endpoint_url(options.endpoint.trim_end_matches('/'))
        .region(region)
        .force_path_style(options.path_style)
        .credentials_provider(credentials)
        // One place that tries again: `vault::retry`. It also has the timeouts of attempts.
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(options.connect_timeout).build())
        // Else the next request is signed for whatever instant the last answer showed, and one wrong `Date` makes the endpoint
        // refuse what comes after it. A host whose own clock is wrong is told so.
        .disable_clock_skew_correction(true)
        .interceptor(answered)
        .interceptor(Bounded)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // We give the checksum of each body. What is read is judged by its hash or signature, where damage has a name;
        // here it would be a read that fails, tried again until the deadline.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Ok(Client::from_conf(config))
}

fn endpoint(text: &str) -> Result<Url, S3OpenError> {
    let wrong = |endpoint: &str, reason: &str| S3OpenError::Endpoint {
        endpoint: endpoint.to_owned(),
        reason: reason.to_owned(),
    };
    // What cannot be parsed may still hold a password, so only what stands before and after it is repeated.
    let shown = match text.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => text.to_owned(),
    };
    let url = Url::parse(text).map_err(|error| wrong(&shown, &error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(&shown, "credentials do not belong into it"));
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(&shown, "it must begin with `https://` or `http://`"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong(&shown, "nothing may follow host and port"));
    }
    Ok(url)
}

fn http_client(options: &S3Options, url: &Url) -> Result<SharedHttpClient, S3OpenError> {
    if url.scheme() == "http" {
        // No certificates are read from the machine for a connection that has none.
        return Ok(Builder::new().build_http());
    }
    let trust = match &options.ca {
        Some(pem) => {
            check_ca(pem).map_err(|reason| S3OpenError::Ca { endpoint: options.endpoint.clone(), reason })?;
            TrustStore::empty().with_pem_certificate(pem.clone())
        }
        None => TrustStore::default(),
    };
    let tls = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| S3OpenError::Ca { endpoint: options.endpoint.clone(), reason: error.to_string() })?;
    Ok(Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(tls).build_https())
}

/// The SDK panics over certificates that it cannot read, at the first request; so they are read here first.
fn check_ca(pem: &[u8]) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(()) }
}

/// Keeps the `Date` of an answer.
#[derive(Debug, Clone, Default)]
pub(super) struct DateHeader(Arc<Mutex<Option<String>>>);

impl DateHeader {
    /// The instant, to the second, and that of now by ours.
    pub(super) fn dated(&self) -> Option<Dated> {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some((DateTime::parse_from_rfc2822(text.as_deref()?).ok()?.to_utc(), Instant::now()))
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for DateHeader {
    fn name(&self) -> &'static str {
        "DateHeader"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").map(str::to_owned);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date;
        Ok(())
    }
}

/// An answer older than this says nothing of the endpoint's clock any more.
const RECENT: Duration = Duration::from_secs(5);

/// When the endpoint gave its last good answer, by its own clock: what time it is there, without asking. Every answer has a
/// `Date`, and what follows on an answer within seconds knows the time as well as if it had asked once more.
///
/// Refusals do not count, they may come from a machine in between; nor does what says that it was kept by one (`Age`).
///
/// No answer is believed alone: deletions and deadlines hang on this clock, and one machine of many may have a wrong one. The
/// answer before it, whatever it was, must have shown the same clock; else the endpoint is asked.
#[derive(Debug, Clone, Default)]
pub(super) struct LastAnswer(Arc<Mutex<Answers>>);

/// What is kept of the answers.
#[derive(Debug, Default)]
struct Answers {
    /// The newest good one, and whether another one showed the same clock.
    last: Option<(Dated, bool)>,
    /// The newest one, whatever it said.
    heard: Option<Dated>,
    /// The latest instant that was told.
    told: Option<DateTime<Utc>>,
    /// When the newest request was signed, by this host's clock.
    signed: Option<DateTime<Utc>>,
    /// The newest refusal: this host's clock, and the endpoint's if it had one.
    refused: Option<(DateTime<Utc>, Option<DateTime<Utc>>)>,
}

/// Clocks that are no further apart are the same one: seconds are cut off, and machines of one endpoint differ a little.
const SAME: TimeDelta = TimeDelta::seconds(60);

/// Whether two answers show the same clock.
pub(super) fn agree(one: Dated, other: Dated) -> bool {
    let passed = if other.1 >= one.1 { other.1 - one.1 } else { one.1 - other.1 };
    let (early, late) = if other.1 >= one.1 { (one.0, other.0) } else { (other.0, one.0) };
    TimeDelta::from_std(passed).is_ok_and(|passed| (late - early - passed).abs() <= SAME)
}

/// A `Date` has whole seconds and answers overtake each other: of two instants told in turn the later one would often be the
/// earlier by less than this. A clock that goes back further was put back, and is believed.
const JITTER: TimeDelta = TimeDelta::seconds(5);

/// The endpoint's clock in an answer, and when that answer came, by ours.
pub(super) type Dated = (DateTime<Utc>, Instant);

impl LastAnswer {
    /// The endpoint's clock; `None` where it has to be asked.
    pub(super) fn now(&self) -> Option<DateTime<Utc>> {
        let ((date, at), _) = self.lock().last.filter(|(_, seconded)| *seconded)?;
        Self::after(date, at.elapsed()).map(|now| self.told(now))
    }

    /// The clock of the newest answer, whatever it said.
    pub(super) fn heard(&self) -> Option<Dated> {
        self.lock().heard
    }

    /// What the two clocks said at the newest refusal.
    pub(super) fn refused(&self) -> Option<String> {
        let (ours, theirs) = self.lock().refused?;
        Some(match theirs {
            Some(theirs) => format!("this host's clock said {ours}, the endpoint's {theirs}"),
            None => format!("this host's clock said {ours}"),
        })
    }

    /// This instant, or the one that was told before it if that was a little later: who asks twice counts on an order.
    pub(super) fn told(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let mut answers = self.lock();
        let told = answers.told.filter(|told| *told > now && *told - now <= JITTER).unwrap_or(now);
        answers.told = Some(told);
        told
    }

    /// The clock so long after an answer. A machine that slept in between shows no less than what it was then.
    fn after(date: DateTime<Utc>, passed: Duration) -> Option<DateTime<Utc>> {
        (passed <= RECENT).then_some(date + passed)
    }

    fn take(&self, status: u16, header: impl Fn(&str) -> Option<String>) {
        if header("age").is_some() {
            return;
        }
        let is_good = (200..300).contains(&status);
        let mut answers = self.lock();
        let Some(date) = header("date").and_then(|text| DateTime::parse_from_rfc2822(&text).ok()) else {
            answers.last = answers.last.filter(|_| !is_good);
            return;
        };
        let dated = (date.to_utc(), Instant::now());
        let seconded = answers.heard.is_some_and(|before| agree(before, dated));
        answers.heard = Some(dated);
        if is_good {
            answers.last = Some((dated, seconded));
        } else if let Some((last, is_sure)) = &mut answers.last {
            *is_sure |= agree(*last, dated);
        }
    }

    /// Keeps when a request was signed.
    fn sign(&self, date: Option<&str>) {
        let signed = date.and_then(|text| NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%SZ").ok());
        self.lock().signed = signed.map(|signed| signed.and_utc());
    }

    fn refuse(&self, date: Option<&str>) {
        let theirs = date.and_then(|text| DateTime::parse_from_rfc2822(text).ok()).map(|date| date.to_utc());
        let mut answers = self.lock();
        answers.refused = answers.signed.map(|ours| (ours, theirs));
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for LastAnswer {
    fn name(&self) -> &'static str {
        "LastAnswer"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response();
        let status = answer.status().as_u16();
        self.take(status, |name| answer.headers().get(name).map(str::to_owned));
        if (400..500).contains(&status) {
            self.refuse(answer.headers().get("date"));
        }
        Ok(())
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.sign(context.request().headers().get("x-amz-date"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn options(endpoint: &str) -> S3Options {
        let credentials = S3Credentials::Static {
            access_key_id: "AK".to_owned(),
            secret_access_key: Secret::new("c4n4ry"),
            session_token: None,
        };
        S3Options::new(endpoint, "bucket", "us-east-1", credentials)
    }

    #[tokio::test]
    async fn endpoints_are_checked_and_never_guessed() {
        for bad in ["", "minio:9000", "ftp://h", "https://h/path", "https://h?x=1", "https://"] {
            let error = build(&options(bad), LastAnswer::default()).await.unwrap_err();
            assert!(matches!(error, S3OpenError::Endpoint { .. }), "{bad}: {error}");
        }
        build(&options("http://127.0.0.1:9000/"), LastAnswer::default()).await.unwrap();
    }

    #[tokio::test]
    async fn a_password_in_an_endpoint_is_refused_and_not_repeated() {
        for bad in ["https://user:c4n4ry@host", "https://user:c4n4ry@:x"] {
            let error = build(&options(bad), LastAnswer::default()).await.unwrap_err().to_string();
            assert!(!error.contains("c4n4ry"), "{error}");
        }
    }

    #[tokio::test]
    async fn certificates_that_cannot_be_read_are_refused() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for bad in ["", "no certificate", broken] {
            let mut options = options("https://127.0.0.1:9000");
            options.ca = Some(bad.as_bytes().to_vec());
            let error = build(&options, LastAnswer::default()).await.unwrap_err();
            assert!(matches!(error, S3OpenError::Ca { .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn the_last_good_answer_tells_the_time_for_some_seconds() {
        let answered = LastAnswer::default();
        let date: DateTime<Utc> = "2026-11-22T08:00:00Z".parse().unwrap();
        let said = |age: Option<&str>| {
            let age = age.map(str::to_owned);
            move |name: &str| match name {
                "date" => Some("Sun, 22 Nov 2026 08:00:00 GMT".to_owned()),
                "age" => age.clone(),
                _ => None,
            }
        };
        assert_eq!(answered.now(), None, "nobody answered");
        for status in [301, 403, 404, 500, 503] {
            answered.take(status, said(None));
        }
        answered.take(200, said(Some("60")));
        assert_eq!(answered.now(), None, "whose clock was that?");
        answered.take(204, said(None));
        let shown = answered.now().unwrap();
        assert!(shown >= date && shown < date + RECENT, "{shown}");
        answered.take(404, |_| None);
        assert!(answered.now().is_some());
        answered.take(200, |_| None);
        assert_eq!(answered.now(), None, "the newest answer did not say");
        assert_eq!(LastAnswer::after(date, RECENT), Some(date + RECENT));
        assert_eq!(LastAnswer::after(date, RECENT + Duration::from_millis(1)), None, "too long ago");
    }

    #[test]
    fn one_answer_alone_does_not_tell_the_time() {
        let at = |text: &str| {
            let text = format!("Sun, 22 Nov 2026 {text} GMT");
            move |name: &str| (name == "date").then(|| text.clone())
        };
        let answered = LastAnswer::default();
        answered.take(200, at("08:00:00"));
        assert_eq!(answered.now(), None, "nobody seconds it");
        answered.take(200, at("08:00:00"));
        assert!(answered.now().is_some());
        // One that is a day ahead, and the one after it, which nobody has seconded yet.
        answered.take(200, at("09:00:00"));
        assert_eq!(answered.now(), None);
        answered.take(200, at("08:00:00"));
        assert_eq!(answered.now(), None);
        // A refusal does not tell the time, and seconds who did.
        answered.take(403, at("08:00:30"));
        assert!(answered.now().is_some());
        answered.take(403, at("09:00:00"));
        assert!(answered.now().is_some(), "the good answer stands");
        // A clock that was put is believed by the second answer.
        answered.take(200, at("09:00:01"));
        assert!(answered.now().unwrap().to_string().starts_with("2026-11-22 09:00:0"));
    }

    #[test]
    fn options_do_not_show_the_secret() {
        assert!(!format!("{:?}", options("http://h")).contains("c4n4ry"));
    }
}
