//! What a failed request means, and whether asking again can help.
//!
//! Worth another try: no answer, a broken connection, 5xx, 429, and bodies that were damaged on the way. Not worth it:
//! everything that says who may do what, what does not exist, and certificates that are not trusted. For refusals only
//! the code is kept, because messages of some servers repeat parts of the request. Worth exactly one more try: a clock that is
//! said to be wrong, and a HEAD that is denied, which has no room for the reason (`S3Store` counts them).

use std::error::Error;
use std::fmt;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::vault::retry::{Failure, TimeUp};

/// Longest text of a server that is repeated.
const MESSAGE_CHARS: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NoKey,
    NoBucket,
    Denied {
        code_known: bool,
    },
    /// The endpoint's clock and the request's are said to be too far apart. Worth one more try, and no third.
    Skewed,
    /// Denied, and nobody says why: an answer to HEAD has no body. Worth one more try: it may be what has a name elsewhere.
    Unsaid,
    Full,
    TooLarge {
        limit_bytes: u64,
    },
    /// The name was taken although the request asked for a free one.
    Taken,
    /// The body that arrived is not the body that was sent.
    Digest,
    /// Answered for good, and about this request.
    Refused,
    Other,
}

#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) kind: Kind,
    pub(super) reason: String,
}

impl Refusal {
    pub(super) fn other(reason: impl Into<String>) -> Self {
        Self { kind: Kind::Other, reason: reason.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl From<TimeUp> for Refusal {
    fn from(value: TimeUp) -> Self {
        Self::other(value.to_string())
    }
}

/// [`judge`] for a HEAD whose refusal nobody explains otherwise.
pub(super) fn judge_head<E>(error: SdkError<E, HttpResponse>) -> Failure<Refusal>
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match judge(error) {
        Failure::Final(refusal) => unsaid(refusal),
        again @ Failure::Again(_) => again,
    }
}

/// What a refusal means that was not looked into.
pub(super) fn unsaid(refusal: Refusal) -> Failure<Refusal> {
    match refusal.kind {
        Kind::Denied { code_known: false } => Failure::Again(Refusal { kind: Kind::Unsaid, ..refusal }),
        _ => Failure::Final(refusal),
    }
}

/// Judges a failed request.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
pub(super) fn judge<E>(error: SdkError<E, HttpResponse>) -> Failure<Refusal>
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match &error {
        SdkError::ServiceError(service) => {
            let (code, message) = (service.err().code(), service.err().message());
            judge_answer(service.raw().status().as_u16(), code, message)
        }
        SdkError::ResponseError(_) | SdkError::TimeoutError(_) => Failure::Again(Refusal::other(chain(&error))),
        SdkError::DispatchFailure(failure) if !failure.is_user() => {
            let reason = chain(&error);
            if let Some(why) = never(&reason) {
                return Failure::Final(Refusal::other(why));
            }
            without_credentials(&reason).unwrap_or_else(|| Failure::Again(Refusal::other(reason)))
        }
        _ => Failure::Final(Refusal::other(chain(&error))),
    }
}

/// What asking again does not change, in words: a certificate that is not trusted, an endpoint that does not speak TLS.
fn never(reason: &str) -> Option<String> {
    if reason.contains("invalid peer certificate") {
        return Some(reason.to_owned());
    }
    // The first bytes of an answer in plain HTTP are no record of TLS.
    let plain = reason.contains("received corrupt message of type InvalidContentType");
    plain.then(|| {
        format!("the endpoint does not speak TLS: write `http://` (or `s3+http://`) if it is meant so: {reason}")
    })
}

/// Judges a request that was never sent, because nobody knew whom to send it for. The text that names each place where
/// was looked is left out: it is long, and it is not ours. A place that did not answer (a role's server) may answer later.
fn without_credentials(reason: &str) -> Option<Failure<Refusal>> {
    let reason = if reason.contains("the credentials provider was not properly configured") {
        "the credentials of AWS's tools on this machine are configured in a way that they cannot read"
    } else if reason.contains("the credential provider was not enabled") {
        "no credentials were found where AWS's tools look: variables `AWS_…`, a profile, a role of this machine"
    } else {
        return None;
    };
    Some(Failure::Final(Refusal { kind: Kind::Denied { code_known: true }, reason: reason.to_owned() }))
}

/// Judges a body that stopped on its way.
pub(super) fn judge_body(error: &(dyn Error + 'static)) -> Failure<Refusal> {
    Failure::Again(Refusal::other(format!("body broke off: {}", chain(error))))
}

/// Judges an answer by its status and S3's code and message.
fn judge_answer(status: u16, code: Option<&str>, message: Option<&str>) -> Failure<Refusal> {
    let known = code.filter(|code| !code.is_empty());
    let shown = known.map_or_else(|| format!("HTTP {status}"), str::to_owned);
    let with_message = match message.filter(|message| !message.is_empty()) {
        Some(message) => {
            let message: String = message.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS).collect();
            format!("{shown}: {message}")
        }
        None => shown.clone(),
    };
    let refusal = |kind, reason| Refusal { kind, reason };
    match (status, known.unwrap_or_default()) {
        (_, "NoSuchBucket") => Failure::Final(refusal(Kind::NoBucket, "no such bucket".to_owned())),
        (404, _) => Failure::Final(refusal(Kind::NoKey, shown)),
        (_, "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage" | "StorageFull") | (507, _) => {
            Failure::Final(refusal(Kind::Full, shown))
        }
        // One such answer may be that of one machine of many, or of a request that waited; it is no proof.
        (_, "RequestTimeTooSkewed") => Failure::Again(refusal(Kind::Skewed, shown)),
        (401 | 403, _)
        | (
            _,
            "AccessDenied"
            | "AuthorizationHeaderMalformed"
            | "ExpiredToken"
            | "InvalidAccessKeyId"
            | "InvalidSecurity"
            | "InvalidToken"
            | "SignatureDoesNotMatch",
        ) => Failure::Final(refusal(Kind::Denied { code_known: known.is_some() }, shown)),
        (412, _) => Failure::Final(refusal(Kind::Taken, with_message)),
        (_, "BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch") => {
            Failure::Again(refusal(Kind::Digest, with_message))
        }
        (501, _) => Failure::Final(refusal(Kind::Other, with_message)),
        (408 | 409 | 429 | 500.., _) | (_, "SlowDown" | "Throttling" | "RequestTimeout" | "IncompleteBody") => {
            Failure::Again(refusal(Kind::Other, with_message))
        }
        (400..500, _) => Failure::Final(refusal(Kind::Refused, with_message)),
        _ => Failure::Final(refusal(Kind::Other, with_message)),
    }
}

/// An error and its causes, `a: b: c`, each text once.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, code: &str) -> (bool, Kind) {
        match judge_answer(status, Some(code), Some("said so")) {
            Failure::Again(refusal) => (true, refusal.kind),
            Failure::Final(refusal) => (false, refusal.kind),
        }
    }

    #[test]
    fn answers_get_their_meaning() {
        let denied = Kind::Denied { code_known: true };
        for (status, code, expected) in [
            (404, "NoSuchKey", (false, Kind::NoKey)),
            (404, "NoSuchBucket", (false, Kind::NoBucket)),
            (403, "SignatureDoesNotMatch", (false, denied)),
            (403, "InvalidAccessKeyId", (false, denied)),
            (400, "ExpiredToken", (false, denied)),
            (403, "", (false, Kind::Denied { code_known: false })),
            (403, "RequestTimeTooSkewed", (true, Kind::Skewed)),
            (412, "PreconditionFailed", (false, Kind::Taken)),
            (400, "BadDigest", (true, Kind::Digest)),
            (400, "RequestTimeout", (true, Kind::Other)),
            (503, "SlowDown", (true, Kind::Other)),
            (429, "", (true, Kind::Other)),
            (500, "InternalError", (true, Kind::Other)),
            (501, "NotImplemented", (false, Kind::Other)),
            (507, "XMinioStorageFull", (false, Kind::Full)),
            (400, "InvalidRequest", (false, Kind::Refused)),
            (301, "PermanentRedirect", (false, Kind::Other)),
        ] {
            assert_eq!(judged(status, code), expected, "{status} {code}");
        }
    }

    #[test]
    fn an_endpoint_without_tls_is_asked_once() {
        let reason = "dispatch failure: io error: received corrupt message of type InvalidContentType";
        assert!(never(reason).unwrap().contains("does not speak TLS"));
        assert!(never("io error: invalid peer certificate: UnknownIssuer").is_some());
        for again in ["connection refused", "received corrupt message of type Handshake", "unexpected end of file"] {
            assert_eq!(never(again), None, "{again}");
        }
    }

    #[test]
    fn a_refusal_repeats_the_code_and_not_the_message() {
        let Failure::Final(refusal) = judge_answer(403, Some("InvalidToken"), Some("token abc is bad")) else {
            panic!("worth another try");
        };
        assert_eq!(refusal.reason, "InvalidToken");
    }
}
