//! Signatures of public documents: SSHSIG (openssh `PROTOCOL.sshsig`) by the host key, checked against pinned signers only.
//!
//! Any of them can be checked with stock `ssh-keygen -Y verify -f allowed_signers -I backup -n NAMESPACE -s FILE.sig < FILE`.
//! There is one namespace per kind of document, so that a signature of one kind can never serve for another. A key
//! that is found in a vault is never believed: [`Signers`] come from the configuration or the recovery sheet.

use std::fmt::Write as _;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, TimeZone, Utc};
use chrono_tz::Tz;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

use crate::id::Hash256;

/// The principal under which host keys stand in `allowed_signers`.
pub const PRINCIPAL: &str = "backup";

/// What kind of document a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Namespace {
    Generation,
    Snapshot,
    Mark,
    Receipt,
    Expired,
    Grant,
    Recover,
}

impl Namespace {
    /// The namespace's text, as given to `ssh-keygen -n`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generation => "backup.generation.v1",
            Self::Snapshot => "backup.snapshot.v1",
            Self::Mark => "backup.mark.v1",
            Self::Receipt => "backup.receipt.v1",
            Self::Expired => "backup.expired.v1",
            Self::Grant => "backup.grant.v1",
            Self::Recover => "backup.recover.v1",
        }
    }
}

/// Why a key or a signature was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The host key cannot be used.
    #[error("the host key cannot be used")]
    HostKey(#[source] ssh_key::Error),
    /// The host key is not an unencrypted ed25519 key.
    #[error("the host key is {found}, not an unencrypted ed25519 key")]
    HostKeyKind {
        /// What it is.
        found: String,
    },
    /// A line of `allowed_signers` cannot be understood.
    #[error("line {line} of the signers cannot be understood: {reason}")]
    Signers {
        /// Line number, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// The signature is not an SSHSIG.
    #[error("the signature is not well-formed")]
    Malformed(#[source] ssh_key::Error),
    /// The signature is by a key that is not pinned.
    #[error("it is signed by {fingerprint}, which is not among the pinned signers")]
    UnknownSigner {
        /// SHA-256 fingerprint of the signing key.
        fingerprint: String,
    },
    /// The signer was pinned for another time or another kind of document.
    #[error("its signer {fingerprint} is not valid for this: {reason}")]
    NotValid {
        /// SHA-256 fingerprint of the signing key.
        fingerprint: String,
        /// Which limit of the pinned line was hit.
        reason: String,
    },
    /// The signature does not belong to these bytes.
    #[error("its signature does not match its content")]
    Mismatch,
}

/// The key with which this host signs. Its secret part never leaves this value.
pub struct HostKey(PrivateKey);

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostKey({})", self.fingerprint())
    }
}

impl HostKey {
    /// Reads an OpenSSH private key (`ssh-keygen -t ed25519 -N ''`).
    pub fn from_openssh(pem: &str) -> Result<Self, SignatureError> {
        let key = PrivateKey::from_openssh(pem).map_err(SignatureError::HostKey)?;
        if key.is_encrypted() || key.algorithm() != Algorithm::Ed25519 {
            let found = if key.is_encrypted() { "encrypted".to_owned() } else { key.algorithm().to_string() };
            return Err(SignatureError::HostKeyKind { found });
        }
        Ok(Self(key))
    }

    /// `SHA256:…` as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }

    /// The line that pins this key in an `allowed_signers` file.
    pub fn allowed_signers_line(&self) -> String {
        let public = self.0.public_key();
        let bare = PublicKey::new(public.key_data().clone(), "");
        let text = bare.to_openssh().expect("an ed25519 key can be written");
        format!("{PRINCIPAL} namespaces=\"backup.*\" {}", text.trim_end())
    }

    /// Signs `document`, giving the armoured signature with a final newline.
    pub fn sign(&self, namespace: Namespace, document: &[u8]) -> Result<String, SignatureError> {
        let signature = self.0.sign(namespace.as_str(), HashAlg::Sha512, document).map_err(SignatureError::HostKey)?;
        let mut pem = signature.to_pem(LineEnding::LF).map_err(SignatureError::HostKey)?;
        if !pem.ends_with('\n') {
            pem.push('\n');
        }
        Ok(pem)
    }

    /// A secret for purposes other than signing, derived from the key and bound to `purpose`: the chunker's seed comes
    /// from here, so that cut points tell nobody else which known file a chunk sequence belongs to.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        use sha2::{Digest, Sha256};
        let secret = self.0.key_data().ed25519().map_or([0; 32], |pair| pair.private.to_bytes());
        Sha256::new().chain_update(b"backup-derive-v1\0").chain_update(secret).chain_update(purpose).finalize().into()
    }
}

/// How a signer is pinned.
#[derive(Debug, Clone)]
enum Who {
    Key(PublicKey),
    /// `SHA256:…`
    Fingerprint(String),
}

/// One pinned signer.
#[derive(Debug, Clone)]
struct Signer {
    who: Who,
    namespaces: Option<Vec<String>>,
    valid_after: Option<DateTime<Utc>>,
    valid_before: Option<DateTime<Utc>>,
}

/// The signers whose documents are believed.
#[derive(Debug, Clone, Default)]
pub struct Signers {
    pinned: Vec<Signer>,
}

/// A signature that was checked: who signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBy {
    /// SHA-256 fingerprint of the key.
    pub fingerprint: String,
}

impl Signers {
    /// Reads an `allowed_signers` file (ssh-keygen(1), ALLOWED SIGNERS). Lines for other principals are skipped;
    /// `cert-authority` lines are refused: certificates are not used here.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let mut pinned = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let refused = |reason: &str| SignatureError::Signers { line: index + 1, reason: reason.to_owned() };
            let fields = split_quoted(line);
            let Some((principals, rest)) = fields.split_first() else { continue };
            if !principals.split(',').any(|p| p == PRINCIPAL || p == "*") {
                continue;
            }
            pinned.push(Signer::parse(rest).map_err(|reason| refused(&reason))?);
        }
        Ok(Self { pinned })
    }

    /// Believes the key with this `SHA256:…` fingerprint, at any time.
    pub fn pin_fingerprint(fingerprint: &str) -> Self {
        let who = Who::Fingerprint(fingerprint.to_owned());
        Self { pinned: vec![Signer { who, namespaces: None, valid_after: None, valid_before: None }] }
    }

    /// Believes the keys that a recovery sheet gives, each as [`Signers::pins`] wrote it: a fingerprint, then `,valid-after=TIME`
    /// and `,valid-before=TIME` where its line has them. The error is the reason why a text is none of these.
    pub fn pin<T: AsRef<str>>(pins: &[T]) -> Result<Self, String> {
        let pinned = pins.iter().map(|text| Signer::pin(text.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { pinned })
    }

    /// Everybody whose snapshots may be believed, one text each: what [`Signers::pin`] takes, and the line for `allowed_signers`
    /// where the whole key is known. A key that has ended still vouches for what it signed before, and its end goes with it.
    pub fn pins(&self) -> Vec<(String, Option<String>)> {
        let vouching = self.pinned.iter().filter(|signer| signer.is_for(Namespace::Snapshot));
        vouching.map(|signer| (signer.as_pin(), signer.as_line())).collect()
    }

    /// Whether nobody is pinned.
    pub fn is_empty(&self) -> bool {
        self.pinned.is_empty()
    }

    /// Fingerprints of all pinned keys.
    pub fn fingerprints(&self) -> Vec<String> {
        self.pinned.iter().map(Signer::fingerprint).collect()
    }

    /// A hash of everything that decides whom [`Signers::check`] believes: two that differ in it may judge differently.
    pub fn digest(&self) -> Hash256 {
        let mut text = String::new();
        for signer in &self.pinned {
            let limits = (signer.valid_after, signer.valid_before);
            // Quoted, and so without two ways to read it.
            let _ = writeln!(text, "{:?} {:?} {limits:?}", signer.fingerprint(), signer.namespaces);
        }
        Hash256::of(text.as_bytes())
    }

    /// Why what the key with this fingerprint signs at `at` would not be believed; `None` where its line says nothing
    /// against it. Only limits in time are looked at: a key may be pinned for some kinds of documents alone.
    pub fn ended(&self, fingerprint: &str, at: DateTime<Utc>) -> Option<String> {
        let mut reason = None;
        for signer in self.pinned.iter().filter(|signer| signer.fingerprint() == fingerprint) {
            match signer.time(at) {
                Ok(()) => return None,
                Err(why) => reason = Some(why),
            }
        }
        reason
    }

    /// Checks that `signature` is by a pinned key, in `namespace`, over exactly `document`. Limits in time are compared
    /// with `at`, the instant that the document itself states (a signer's line can end in the past and still vouch for what
    /// it signed before).
    pub fn check(
        &self,
        namespace: Namespace,
        document: &[u8],
        signature: &[u8],
        at: DateTime<Utc>,
    ) -> Result<SignedBy, SignatureError> {
        let signature = SshSig::from_pem(signature).map_err(SignatureError::Malformed)?;
        let key = PublicKey::new(signature.public_key().clone(), "");
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let pinned: Vec<&Signer> = self.pinned.iter().filter(|signer| signer.is_of(&key, &fingerprint)).collect();
        if pinned.is_empty() {
            return Err(SignatureError::UnknownSigner { fingerprint });
        }
        // Before the limits: a document altered on its way must be called altered, whatever instant it claims.
        key.verify(namespace.as_str(), document, &signature).map_err(|_| SignatureError::Mismatch)?;
        let mut refused = String::new();
        for signer in &pinned {
            match signer.limits(namespace, at) {
                Ok(()) => return Ok(SignedBy { fingerprint }),
                Err(reason) => refused = reason,
            }
        }
        Err(SignatureError::NotValid { fingerprint, reason: refused })
    }
}

impl Signer {
    fn parse(fields: &[String]) -> Result<Self, String> {
        let (mut namespaces, mut valid_after, mut valid_before) = (None, None, None);
        let mut rest = fields;
        if let Some((options, after)) = fields.split_first()
            && !is_key_type(options)
        {
            for option in split_commas(options) {
                let (name, value) = option.split_once('=').unwrap_or((option.as_str(), ""));
                let value = value.trim_matches('"');
                match name.to_ascii_lowercase().as_str() {
                    "namespaces" => namespaces = Some(value.split(',').map(str::to_owned).collect()),
                    "valid-after" => valid_after = Some(timestamp(value)?),
                    "valid-before" => valid_before = Some(timestamp(value)?),
                    other => return Err(format!("option `{other}` is not supported")),
                }
            }
            rest = after;
        }
        let [kind, data, ..] = rest else { return Err("no key".to_owned()) };
        let who = Who::Key(PublicKey::from_str(&format!("{kind} {data}")).map_err(|e| e.to_string())?);
        Ok(Self { who, namespaces, valid_after, valid_before })
    }

    fn pin(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let fingerprint = parts.next().unwrap_or_default();
        let is_good = fingerprint.strip_prefix("SHA256:").is_some_and(|rest| {
            rest.len() == 43 && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
        });
        if !is_good {
            return Err("not a fingerprint like `SHA256:` and 43 characters".to_owned());
        }
        let who = Who::Fingerprint(fingerprint.to_owned());
        let mut signer = Self { who, namespaces: None, valid_after: None, valid_before: None };
        for part in parts {
            match part.split_once('=') {
                Some(("valid-after", time)) => signer.valid_after = Some(timestamp(time)?),
                Some(("valid-before", time)) => signer.valid_before = Some(timestamp(time)?),
                _ => return Err(format!("`{part}` is neither `valid-after=TIME` nor `valid-before=TIME`")),
            }
        }
        Ok(signer)
    }

    fn as_pin(&self) -> String {
        let limits = self.times().into_iter().map(|(name, time)| format!(",{name}={time}"));
        [self.fingerprint()].into_iter().chain(limits).collect()
    }

    fn as_line(&self) -> Option<String> {
        let Who::Key(key) = &self.who else { return None };
        let key = PublicKey::new(key.key_data().clone(), "").to_openssh().ok()?;
        let limits = self.times().into_iter().map(|(name, time)| format!("{name}=\"{time}\""));
        let namespaces = self.namespaces.iter().map(|all| format!("namespaces=\"{}\"", all.join(",")));
        let options: Vec<String> = limits.chain(namespaces).collect();
        let options = if options.is_empty() { String::new() } else { format!("{} ", options.join(",")) };
        Some(format!("{PRINCIPAL} {options}{}", key.trim_end()))
    }

    fn times(&self) -> Vec<(&'static str, String)> {
        let both = [("valid-after", self.valid_after), ("valid-before", self.valid_before)];
        let text = |at: DateTime<Utc>| {
            let long = at.format("%Y%m%d%H%M%S").to_string();
            format!("{}Z", long.strip_suffix("000000").unwrap_or(&long))
        };
        both.into_iter().filter_map(|(name, at)| Some((name, text(at?)))).collect()
    }

    fn fingerprint(&self) -> String {
        match &self.who {
            Who::Key(key) => key.fingerprint(HashAlg::Sha256).to_string(),
            Who::Fingerprint(text) => text.clone(),
        }
    }

    fn is_of(&self, key: &PublicKey, fingerprint: &str) -> bool {
        match &self.who {
            Who::Key(pinned) => pinned.key_data() == key.key_data(),
            Who::Fingerprint(pinned) => pinned == fingerprint,
        }
    }

    fn is_for(&self, namespace: Namespace) -> bool {
        let fits = |patterns: &Vec<String>| patterns.iter().any(|one| matches_pattern(one, namespace.as_str()));
        self.namespaces.as_ref().is_none_or(fits)
    }

    fn limits(&self, namespace: Namespace, at: DateTime<Utc>) -> Result<(), String> {
        if !self.is_for(namespace) {
            return Err(format!("its line does not allow the namespace `{}`", namespace.as_str()));
        }
        self.time(at)
    }

    fn time(&self, at: DateTime<Utc>) -> Result<(), String> {
        let says = |what: &str, name: &str| {
            let limit = self.times().into_iter().find(|(limit, _)| *limit == name);
            let limit = limit.map_or_else(String::new, |(_, time)| format!(" (`{time}`)"));
            format!("the document, of {}, is {what} than the line's `{name}`{limit}", at.format("%F %T UTC"))
        };
        if self.valid_after.is_some_and(|after| at < after) {
            return Err(says("older", "valid-after"));
        }
        if self.valid_before.is_some_and(|before| at >= before) {
            return Err(says("newer", "valid-before"));
        }
        Ok(())
    }
}

fn is_key_type(text: &str) -> bool {
    text.starts_with("ssh-") || text.starts_with("ecdsa-") || text.starts_with("sk-")
}

/// Splits at white space outside of double quotes.
fn split_quoted(line: &str) -> Vec<String> {
    split_outside_quotes(line, char::is_whitespace)
}

fn split_commas(text: &str) -> Vec<String> {
    split_outside_quotes(text, |c| c == ',')
}

fn split_outside_quotes(text: &str, separator: impl Fn(char) -> bool) -> Vec<String> {
    let mut quoted = false;
    text.split(|c: char| {
        quoted ^= c == '"';
        !quoted && separator(c)
    })
    .filter(|field| !field.is_empty())
    .map(str::to_owned)
    .collect()
}

/// `*` and `?` as in `ssh_config(5)`, PATTERNS; a leading `!` is not supported and matches nothing.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => {
            (0..=text.len()).filter(|&i| text.is_char_boundary(i)).any(|i| matches_pattern(&pattern[1..], &text[i..]))
        }
        Some(c) => {
            text.chars().next().is_some_and(|t| c == '?' || c == t)
                && matches_pattern(&pattern[c.len_utf8()..], &text[text.chars().next().map_or(0, char::len_utf8)..])
        }
    }
}

/// `YYYYMMDD[Z]` or `YYYYMMDDHHMM[SS][Z]` (ssh-keygen(1)). Without `Z` OpenSSH reads local time; here it is read as UTC.
fn timestamp(text: &str) -> Result<DateTime<Utc>, String> {
    let digits = text.strip_suffix('Z').unwrap_or(text);
    let padded = format!("{digits:0<14}");
    let naive = NaiveDateTime::parse_from_str(&padded, "%Y%m%d%H%M%S");
    match (digits.len(), naive) {
        (8 | 12 | 14, Ok(naive)) => {
            Tz::UTC.from_local_datetime(&naive).single().map(|t| t.with_timezone(&Utc)).ok_or_else(|| text.to_owned())
        }
        _ => Err(format!("`{text}` is not a time of the form YYYYMMDD[HHMM[SS]][Z]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> HostKey {
        let pair = ssh_key::private::Ed25519Keypair::from_seed(&[seed; 32]);
        let key = PrivateKey::new(pair.into(), "test").unwrap();
        HostKey::from_openssh(&key.to_openssh(LineEnding::LF).unwrap()).unwrap()
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn only_a_pinned_key_in_the_right_namespace_over_the_same_bytes_is_believed() {
        let (mine, other) = (key(1), key(2));
        let signers = Signers::parse(&format!("# ours\n{}\n", mine.allowed_signers_line())).unwrap();
        let now = at("2026-11-21T02:00:00Z");
        let sig = mine.sign(Namespace::Snapshot, b"doc").unwrap();
        let check = |ns, doc: &[u8], sig: &str| signers.check(ns, doc, sig.as_bytes(), now);
        assert_eq!(check(Namespace::Snapshot, b"doc", &sig).unwrap().fingerprint, mine.fingerprint());
        assert!(matches!(check(Namespace::Snapshot, b"doc2", &sig), Err(SignatureError::Mismatch)));
        assert!(matches!(check(Namespace::Generation, b"doc", &sig), Err(SignatureError::Mismatch)));
        let foreign = other.sign(Namespace::Snapshot, b"doc").unwrap();
        assert!(matches!(check(Namespace::Snapshot, b"doc", &foreign), Err(SignatureError::UnknownSigner { .. })));
        assert!(matches!(check(Namespace::Snapshot, b"doc", "junk"), Err(SignatureError::Malformed(_))));
        let by_print = Signers::pin_fingerprint(&mine.fingerprint());
        assert!(by_print.check(Namespace::Snapshot, b"doc", sig.as_bytes(), now).is_ok());
        assert!(Signers::default().check(Namespace::Snapshot, b"doc", sig.as_bytes(), now).is_err());
    }

    #[test]
    fn a_rotated_key_vouches_for_the_past_only() {
        let mine = key(1);
        let line = mine.allowed_signers_line().replace("namespaces=", "valid-before=\"20261121Z\",namespaces=");
        let signers = Signers::parse(&line).unwrap();
        let sig = mine.sign(Namespace::Mark, b"doc").unwrap();
        assert!(signers.check(Namespace::Mark, b"doc", sig.as_bytes(), at("2026-11-20T23:59:59Z")).is_ok());
        let late = signers.check(Namespace::Mark, b"doc", sig.as_bytes(), at("2026-11-21T00:00:00Z"));
        assert!(matches!(late, Err(SignatureError::NotValid { .. })), "{late:?}");
        let narrow = Signers::parse(&mine.allowed_signers_line().replace("backup.*", "backup.snapshot.*")).unwrap();
        let sig = narrow.check(Namespace::Mark, b"doc", sig.as_bytes(), at("2026-11-20T00:00:00Z"));
        assert!(matches!(sig, Err(SignatureError::NotValid { .. })));
    }

    #[test]
    fn lines_that_cannot_be_understood_are_named() {
        let error = Signers::parse("\nbackup ssh-ed25519 nonsense\n").unwrap_err().to_string();
        assert!(error.starts_with("line 2 of the signers"), "{error}");
        assert!(Signers::parse("backup cert-authority ssh-ed25519 AAAA").is_err());
        assert!(Signers::parse("alice ssh-ed25519 nonsense").unwrap().is_empty());
    }
}
