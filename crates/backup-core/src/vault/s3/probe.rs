//! What an endpoint really does, found out by trying, because many answer 200 to what they ignore.
//!
//! The probe writes small bodies under one fixed name below `_probe/` (no stack can have that name). What a run must know
//! ([`S3Store::try_writing`]) costs it two requests, because the body stays there for the next run: with
//! `If-None-Match: *` that name is taken, and a body that does not match its checksum must not take its place. `init` and
//! `doctor` also look whether the refused body is there, ask for versions, and remove the name again if they may. Neither a body
//! left there nor another host's probe at the same time is taken for this probe's own. The policy of a bucket may demand
//! the condition; then the body that must be refused goes to a name of its own, which leaves nothing on an endpoint that
//! does refuse it.

use std::sync::Arc;

use super::error::{Kind, Refusal, judge};
use super::{S3Store, sha256_base64};
use crate::vault::retry::{Failure, Progress};
use crate::vault::store::StoreError;
use bytes::Bytes;

/// The one name that is written.
const PATH: &str = "_probe/body";

/// How often a pair of conditional PUTs is tried: another host's probe may have removed the body just before.
const CONDITIONAL_TRIES: usize = 3;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// A body that does not match its `x-amz-checksum-sha256` is refused. If not: [`S3Store::with_readback`].
    pub checksums_verified: bool,
    /// The refused body is in the bucket nevertheless (seen on small servers; then a host that dies between a damaged
    /// upload and its repetition leaves a wrong body under a good name, which `verify --read-data` finds).
    pub refused_body_kept: bool,
    /// `If-None-Match: *` protects an existing body. If so: [`S3Store::with_if_none_match`].
    pub if_none_match: bool,
    /// What the bucket says about versioning. Version ids in answers to PUT prove nothing.
    pub versioning: Versioning,
}

/// Versioning of a bucket, as `GetBucketVersioning` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versioning {
    /// Never turned on.
    Off,
    /// Old versions are kept.
    Enabled,
    /// No longer.
    Suspended,
    /// It is told to others, and not to these credentials; why.
    Denied(String),
    /// The endpoint does not tell; why.
    Unknown(String),
}

impl Versioning {
    fn of(status: Option<&str>) -> Self {
        match status {
            None | Some("") => Self::Off,
            Some("Enabled") => Self::Enabled,
            Some("Suspended") => Self::Suspended,
            Some(other) => Self::Unknown(other.to_owned()),
        }
    }
}

/// The status in an answer whose root has another name than S3's.
fn status_of(xml: &str) -> Option<&str> {
    let (root, rest) = xml.split_once("Versioning")?;
    let named = root.rsplit('<').next().is_some_and(|name| name.bytes().all(|b| b.is_ascii_alphanumeric()));
    let (status, _) = rest.split_once("<Status>")?.1.split_once("</Status>")?;
    named.then_some(status)
}

/// What an endpoint said to a PUT of the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Stored,
    /// There is a body, and the condition was honoured.
    Taken,
    /// The body does not match its checksum.
    Digest,
    /// A request with a condition is no request.
    NotUnderstood,
}

impl S3Store {
    /// Tries the endpoint, for people. Costs some seven small requests, and three more where `If-None-Match` is ignored; needs
    /// the right to write under the prefix; to delete is tried and not needed.
    pub async fn probe(&self) -> Result<Probe, StoreError> {
        let seen = Box::pin(self.probe_all()).await;
        // Best effort: the next probe writes over what is left.
        let key = self.key(PATH);
        let _ = self.call("delete", PATH, |_| self.delete_once(&key)).await;
        seen
    }

    async fn probe_all(&self) -> Result<Probe, StoreError> {
        let if_none_match = self.try_condition().await?;
        let (checksums_verified, kept) = self.try_checksum(if_none_match, true).await?;
        let versioning = self.versioning().await?;
        Ok(Probe { checksums_verified, refused_body_kept: checksums_verified && kept, if_none_match, versioning })
    }

    /// This store, told how its endpoint is written to: [`S3Store::with_if_none_match`] and [`S3Store::with_readback`] by
    /// what it was seen to do. Two small requests where a run was here before, four otherwise.
    pub async fn try_writing(self) -> Result<Self, StoreError> {
        let if_none_match = self.try_condition().await?;
        let (checksums_verified, _) = self.try_checksum(if_none_match, false).await?;
        Ok(self.with_readback(!checksums_verified).with_if_none_match(if_none_match))
    }

    /// Whether `If-None-Match: *` protects a body that is there. One is there afterwards.
    async fn try_condition(&self) -> Result<bool, StoreError> {
        let (key, body) = (self.key(PATH), Bytes::from_static(b"probe\n"));
        let right = sha256_base64(&body);
        // Of two creations of one name the second must be refused, and the first as well where a body was left.
        for _ in 0..2 * CONDITIONAL_TRIES {
            match self.probe_put(PATH, &key, &body, &right, true).await? {
                Answer::Taken => return Ok(true),
                Answer::Stored | Answer::Digest => {}
                // It protects nothing then.
                Answer::NotUnderstood => break,
            }
        }
        Ok(false)
    }

    /// Whether a body with a wrong checksum is refused, and, with `look`, whether it is there nevertheless.
    async fn try_checksum(&self, if_none_match: bool, look: bool) -> Result<(bool, bool), StoreError> {
        let random = getrandom::u64().map_err(|error| StoreError::Failed {
            action: "write",
            path: PATH.to_owned(),
            store: self.name.clone(),
            attempts: 1,
            reason: error.to_string(),
        })?;
        // Told apart from what an earlier probe left.
        let refused = Bytes::from(format!("refused {random:016x}\n"));
        let wrong = sha256_base64(b"another body");
        let (answer, kept) = match self.probe_put(PATH, &self.key(PATH), &refused, &wrong, false).await {
            // The condition is demanded, so only a name that nobody has used will do.
            Err(StoreError::Denied { .. }) if if_none_match => {
                let path = format!("{PATH}-{random:016x}");
                let key = self.key(&path);
                let answer = self.probe_put(&path, &key, &refused, &wrong, true).await?;
                let kept = look && self.probe_kept(&path, &refused).await?;
                let _ = self.call("delete", &path, |_| self.delete_once(&key)).await;
                (answer, kept)
            }
            other => (other?, look && self.probe_kept(PATH, &refused).await?),
        };
        Ok((matches!(answer, Answer::Digest), kept))
    }

    pub(super) async fn probe_put(
        &self,
        path: &str,
        key: &str,
        body: &Bytes,
        sha256_base64: &str,
        if_none_match: bool,
    ) -> Result<Answer, StoreError> {
        let progress = Arc::new(Progress::default());
        self.call("write", path, async |_| {
            match self.put_once(key, body.clone(), sha256_base64, if_none_match, None, &progress).await {
                Ok(()) => Ok(Answer::Stored),
                Err(Failure::Final(Refusal { kind: Kind::Taken, .. })) => Ok(Answer::Taken),
                Err(Failure::Again(Refusal { kind: Kind::Digest, .. })) => Ok(Answer::Digest),
                // Refused as a whole (501, 400).
                Err(Failure::Final(Refusal { kind: Kind::Other, .. })) if if_none_match => Ok(Answer::NotUnderstood),
                Err(other) => Err(other),
            }
        })
        .await
        .map_err(|gave_up| self.error("write", path, gave_up))
    }

    async fn probe_kept(&self, path: &str, refused: &Bytes) -> Result<bool, StoreError> {
        self.call("read", path, async |_| match self.get_once(path, 1024, &Progress::default()).await {
            Ok(found) => Ok(found == *refused),
            Err(Failure::Final(Refusal { kind: Kind::NoKey, .. })) => Ok(false),
            Err(other) => Err(other),
        })
        .await
        .map_err(|gave_up| self.error("read", path, gave_up))
    }

    pub(super) async fn versioning(&self) -> Result<Versioning, StoreError> {
        let attempt = async |_| {
            let asked = self.client.get_bucket_versioning().bucket(&self.bucket).send();
            let answer = Box::pin(asked).await;
            // Some call the answer's root otherwise than S3; the SDK then refuses it, with the body at hand.
            if let Err(error) = &answer
                && let Some(raw) = error.raw_response().filter(|raw| raw.status().is_success())
                && let Some(body) = raw.body().bytes()
                && let Some(status) = status_of(&String::from_utf8_lossy(body))
            {
                return Ok(Versioning::of(Some(status)));
            }
            match answer.map_err(judge) {
                Err(Failure::Final(Refusal { kind: Kind::Denied { .. }, reason })) => Ok(Versioning::Denied(reason)),
                Ok(answer) => {
                    Ok(Versioning::of(answer.status().map(aws_sdk_s3::types::BucketVersioningStatus::as_str)))
                }
                Err(Failure::Final(refusal)) => Ok(Versioning::Unknown(refusal.reason)),
                Err(again) => Err(again),
            }
        };
        let action = "read";
        self.call(action, "the versioning", attempt)
            .await
            .map_err(|gave_up| self.error(action, "the versioning", gave_up))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Mutex;

    use super::*;
    use crate::monitor::Silent;
    use crate::secret::Secret;
    use crate::vault::s3::{S3Credentials, S3Options};

    /// What the server holds, and the lines that asked.
    #[derive(Default)]
    struct Held {
        bodies: BTreeMap<String, Vec<u8>>,
        asked: Vec<String>,
        ways: Ways,
    }

    /// In what servers differ.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    enum Ways {
        /// Checks the body, then the condition.
        #[default]
        Usual,
        /// Its policy denies a PUT without the condition; checks the condition, then the body.
        Demanding,
        /// The same, and believes every checksum.
        DemandingBlind,
        /// Answers 501 to the condition.
        Old,
    }

    /// An endpoint that lets nobody delete. One request a connection.
    fn answer(stream: &TcpStream, held: &Mutex<Held>) {
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let header = |name: &str| {
            let mut parted = head.iter().filter_map(|line| line.split_once(": "));
            parted.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.to_owned()))
        };
        let bytes = header("content-length").map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; bytes];
        reader.read_exact(&mut body).unwrap();
        let error = |code: &str| format!("<Error><Code>{code}</Code></Error>").into_bytes();
        let mut held = held.lock().unwrap();
        let name = head[0].split([' ', '?']).nth(1).unwrap().to_owned();
        let (ways, conditional) = (held.ways, header("if-none-match").is_some());
        let demanding = matches!(ways, Ways::Demanding | Ways::DemandingBlind);
        let wrong = ways != Ways::DemandingBlind && header("x-amz-checksum-sha256") != Some(sha256_base64(&body));
        let taken = conditional && held.bodies.contains_key(&name);
        let (status, answer) = match head[0].split(' ').next().unwrap() {
            "PUT" if demanding && !conditional => (403, error("AccessDenied")),
            "PUT" if conditional && ways == Ways::Old => (501, error("NotImplemented")),
            "PUT" if demanding && taken => (412, error("PreconditionFailed")),
            "PUT" if wrong => (400, error("BadDigest")),
            "PUT" if taken => (412, error("PreconditionFailed")),
            "PUT" => {
                held.bodies.insert(name, body);
                (200, Vec::new())
            }
            "GET" if head[0].contains("?versioning") => (200, b"<VersioningConfiguration/>".to_vec()),
            "GET" => held.bodies.get(&name).map_or_else(|| (404, error("NoSuchKey")), |body| (200, body.clone())),
            _ => (403, error("AccessDenied")),
        };
        held.asked.push(head[0].clone());
        let length = answer.len();
        let mut stream = stream;
        write!(stream, "HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n").unwrap();
        stream.write_all(&answer).unwrap();
    }

    /// A store before such a server.
    async fn before(ways: Ways) -> (S3Store, Arc<Mutex<Held>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let held = Arc::new(Mutex::new(Held { ways, ..Held::default() }));
        let server = held.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(&stream.unwrap(), &server);
            }
        });
        let secret_access_key = Secret::new("secret".to_owned());
        let credentials =
            S3Credentials::Static { access_key_id: "key".to_owned(), secret_access_key, session_token: None };
        let options = S3Options::new(endpoint, "b", "us-east-1", credentials);
        (S3Store::connect(options, Arc::new(Silent)).await.unwrap(), held)
    }

    #[test]
    fn a_status_is_found_below_a_root_of_another_name_and_nowhere_else() {
        let of = |root: &str| format!("<?xml version=\"1.0\"?>\n<{root} xmlns=\"x\"><Status>Enabled</Status></{root}>");
        assert_eq!(status_of(&of("GetBucketVersioningResponse")), Some("Enabled"));
        assert_eq!(status_of(&of("Health")), None);
        assert_eq!(status_of("<VersioningConfiguration/>"), None);
    }

    const EXPECTED: Probe =
        Probe { checksums_verified: true, refused_body_kept: false, if_none_match: true, versioning: Versioning::Off };

    #[tokio::test]
    async fn a_denied_deletion_fails_nothing_and_what_is_left_misleads_no_later_probe() {
        let (store, held) = before(Ways::Usual).await;
        for _ in 0..2 {
            assert_eq!(store.probe().await.unwrap(), EXPECTED);
            assert_eq!(held.lock().unwrap().bodies.len(), 1, "nobody could delete it");
        }
        let asked = &held.lock().unwrap().asked;
        assert_eq!(asked.iter().filter(|line| line.starts_with("DELETE ")).count(), 2, "{asked:?}");
        let written = asked.iter().filter(|line| line.starts_with("PUT "));
        assert!(
            written.clone().count() == 5 && written.clone().all(|line| line.contains("/b/_probe/body?")),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn a_run_asks_twice_and_learns_as_much() {
        for (ways, readback, if_none_match, then) in [
            (Ways::Usual, false, true, 2),
            // The condition is demanded: the body that must be refused has a name of its own, asked for and taken away again.
            (Ways::Demanding, false, true, 4),
            (Ways::DemandingBlind, true, true, 4),
            (Ways::Old, false, false, 2),
        ] {
            let (store, held) = before(ways).await;
            let mut store = store.try_writing().await.unwrap();
            for _ in 0..2 {
                // Fails where the body is taken away again, or where a body that was left is taken for the one just sent.
                held.lock().unwrap().asked.clear();
                store = store.try_writing().await.unwrap();
                assert_eq!((store.readback, store.if_none_match), (readback, if_none_match), "{ways:?}");
                let asked = held.lock().unwrap().asked.clone();
                assert_eq!(asked.len(), then, "{ways:?} {asked:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_policy_that_demands_the_condition_is_no_obstacle() {
        let (store, held) = before(Ways::Demanding).await;
        for _ in 0..3 {
            assert_eq!(store.probe().await.unwrap(), EXPECTED);
        }
        assert_eq!(held.lock().unwrap().bodies.len(), 1, "a refused body leaves nothing");
        let (blind, held) = before(Ways::DemandingBlind).await;
        for _ in 0..2 {
            assert_eq!(blind.probe().await.unwrap(), Probe { checksums_verified: false, ..EXPECTED });
        }
        assert_eq!(held.lock().unwrap().bodies.len(), 3, "here each probe could not but leave its body");
    }

    #[tokio::test]
    async fn an_endpoint_that_does_not_know_the_condition_is_asked_without() {
        let (store, _) = before(Ways::Old).await;
        for _ in 0..2 {
            assert_eq!(store.probe().await.unwrap(), Probe { if_none_match: false, ..EXPECTED });
        }
    }

    #[tokio::test]
    async fn bodies_are_written_under_a_policy_that_demands_the_condition() {
        use crate::vault::store::{PutMode, PutOutcome, Store, StorePath};
        let (store, held) = before(Ways::Demanding).await;
        let (at, body) = (StorePath::new("s/a").unwrap(), Bytes::from_static(b"body"));
        let plain = store.put(&at, body.clone(), PutMode::Replace).await.unwrap_err();
        assert!(matches!(plain, StoreError::Denied { .. }), "{plain}");
        let store = store.with_if_none_match(true);
        assert_eq!(store.put(&at, body.clone(), PutMode::Replace).await.unwrap(), PutOutcome::Created);
        // The same again, as after an answer that was lost; and what the policy is there for.
        assert_eq!(store.put(&at, body.clone(), PutMode::Replace).await.unwrap(), PutOutcome::Created);
        let other = store.put(&at, Bytes::from_static(b"BODY"), PutMode::Replace).await.unwrap_err();
        assert!(matches!(other, StoreError::Denied { action: "write", .. }), "{other}");
        assert_eq!(held.lock().unwrap().bodies["/b/s/a"], *body);
    }
}
