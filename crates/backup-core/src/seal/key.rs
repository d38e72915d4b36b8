//! Generation keys and operators' identities.
//!
//! A generation key is an X25519 identity made by the host when a generation opens, wrapped once to the operators'
//! recipients, proved by sealing and opening a test value, and dropped. So the host that makes backups cannot read them,
//! one unwrap opens everything in a generation, and recipients can be granted an old generation by re-wrapping alone.

use std::io::Write;
use std::str::FromStr;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::{OpenError, Opener, SealError, Sealer};
use crate::config::{Recipient, parse_recipient};
use crate::secret::Secret;

/// A key for a new generation: its public half, and its secret half as wrapped for the operators.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// `age1…`.
    pub public_key: String,
    /// The identity's text, age-encrypted to the operators' recipients, ASCII-armoured.
    pub wrapped: String,
}

/// Why no generation key could be made.
#[derive(Debug, thiserror::Error)]
pub enum NewKeyError {
    /// There is nobody to wrap it for.
    #[error("there are no recipients")]
    NoRecipients,
    /// An operator's recipient cannot be used.
    #[error("recipient `{recipient}` cannot be used: {reason}")]
    Recipient {
        /// The recipient's text.
        recipient: String,
        /// Why.
        reason: String,
    },
    /// age could not wrap.
    #[error("age failed to wrap the generation key: {0}")]
    Wrap(String),
    /// The fresh key did not seal and open a test value.
    #[error("the fresh generation key did not seal")]
    Seal(#[from] SealError),
    /// The fresh key did not open what it sealed.
    #[error("the fresh generation key did not open what it sealed")]
    Open(#[from] OpenError),
}

impl NewKey {
    /// Makes, proves, wraps and forgets a generation key.
    pub fn generate(recipients: &[String]) -> Result<Self, NewKeyError> {
        if recipients.is_empty() {
            return Err(NewKeyError::NoRecipients);
        }
        let parsed = recipients
            .iter()
            .map(|text| {
                parse_recipient(text).ok_or_else(|| NewKeyError::Recipient {
                    recipient: text.clone(),
                    reason: "it is not an age recipient that this program can encrypt to".to_owned(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let identity = age::x25519::Identity::generate();
        let public_key = identity.to_public().to_string();
        let probe = b"backup generation key proof";
        let sealed = Sealer::new(&public_key, 1)?.seal(probe)?;
        let opener = Opener { identity: identity.clone() };
        if opener.open(&sealed.name(), sealed.bytes())? != probe {
            return Err(OpenError::Decrypt("it gave other bytes".to_owned()).into());
        }
        let secret = identity.to_string();
        let wrapped = wrap(&parsed, secret.expose_secret()).map_err(NewKeyError::Wrap)?;
        Ok(Self { public_key, wrapped })
    }
}

fn wrap(recipients: &[Recipient], secret: &str) -> Result<String, String> {
    let encryptor = age::Encryptor::with_recipients(recipients.iter().map(|r| &**r as &dyn age::Recipient))
        .map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    let armor = ArmoredWriter::wrap_output(&mut out, Format::AsciiArmor).map_err(|e| e.to_string())?;
    let mut writer = encryptor.wrap_output(armor).map_err(|e| e.to_string())?;
    writer.write_all(secret.as_bytes()).and_then(|()| writer.write_all(b"\n")).map_err(|e| e.to_string())?;
    writer.finish().and_then(ArmoredWriter::finish).map_err(|e| e.to_string())?;
    String::from_utf8(out).map_err(|e| e.to_string())
}

impl Opener {
    /// Wraps the generation key for one more recipient, armoured: whoever opens a generation can let another open it.
    pub fn wrap_for(&self, recipient: &str) -> Result<String, NewKeyError> {
        let parsed = parse_recipient(recipient).ok_or_else(|| NewKeyError::Recipient {
            recipient: recipient.to_owned(),
            reason: "it is not an age recipient that this program can encrypt to".to_owned(),
        })?;
        wrap(&[parsed], self.identity.to_string().expose_secret()).map_err(NewKeyError::Wrap)
    }

    /// The public key of the generation that it opens.
    pub fn public_key(&self) -> String {
        self.identity.to_public().to_string()
    }
}

/// Operators' identities, as read from an identity file.
pub struct Identities {
    all: Vec<Box<dyn age::Identity + Send + Sync>>,
    recipients: Vec<String>,
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identities({})", self.all.len())
    }
}

/// Why identities or a wrapped key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The text is not an identity file.
    #[error("it is not an age identity file: {0}")]
    Malformed(String),
    /// It is encrypted with a passphrase and none was given.
    #[error("it is protected by a passphrase")]
    PassphraseNeeded,
    /// The passphrase does not open it.
    #[error("its passphrase is wrong")]
    PassphraseWrong,
    /// None of the identities opens the generation's key.
    #[error("none of the given identities opens the generation key, which is wrapped for {recipients}")]
    NoMatch {
        /// For whom it is wrapped.
        recipients: String,
    },
    /// The wrapped key is damaged.
    #[error("the wrapped generation key is damaged: {0}")]
    Damaged(String),
    /// What was unwrapped is not the key of this generation.
    #[error("the unwrapped key is for {found}, not for this generation's {expected}")]
    OtherKey {
        /// Public key of what was unwrapped.
        found: String,
        /// Public key of the generation.
        expected: String,
    },
}

impl Identities {
    /// Reads an identity file as `age-keygen` makes it, or one that `age -p` encrypted (armoured or not), which needs
    /// the passphrase.
    pub fn parse(file: &[u8], passphrase: Option<&Secret>) -> Result<Self, IdentityError> {
        let encrypted = file.starts_with(b"age-encryption.org/") || file.starts_with(b"-----BEGIN AGE ENCRYPTED FILE");
        let text = if encrypted { decrypt_identity_file(file, passphrase)? } else { Zeroizing::new(file.to_vec()) };
        let parsed = age::IdentityFile::from_buffer(&text[..]).map_err(|e| IdentityError::Malformed(e.to_string()))?;
        let mut recipients = Vec::new();
        parsed
            .write_recipients_file(&mut recipients)
            .map_err(|_| IdentityError::Malformed("it holds no identity".to_owned()))?;
        let recipients = String::from_utf8_lossy(&recipients).lines().map(str::to_owned).collect();
        let identities = parsed.into_identities().map_err(|e| IdentityError::Malformed(e.to_string()))?;
        Ok(Self { all: identities, recipients })
    }

    /// The recipients that these are the identities of.
    pub fn recipients(&self) -> &[String] {
        &self.recipients
    }

    /// Opens a generation's wrapped key and proves that it belongs to `public_key`.
    pub fn unwrap_key(&self, wrapped: &str, public_key: &str, recipients: &[String]) -> Result<Opener, IdentityError> {
        let decryptor = age::Decryptor::new_buffered(ArmoredReader::new(wrapped.as_bytes()))
            .map_err(|e| IdentityError::Damaged(e.to_string()))?;
        let identities = self.all.iter().map(|identity| &**identity as &dyn age::Identity);
        let mut reader = decryptor.decrypt(identities).map_err(|e| match e {
            age::DecryptError::NoMatchingKeys => IdentityError::NoMatch { recipients: recipients.join(", ") },
            other => IdentityError::Damaged(other.to_string()),
        })?;
        let mut text = Zeroizing::new(String::new());
        std::io::Read::read_to_string(&mut std::io::Read::take(&mut reader, 4096), &mut text)
            .map_err(|e| IdentityError::Damaged(e.to_string()))?;
        let identity = age::x25519::Identity::from_str(text.trim_end_matches('\n'))
            .map_err(|e| IdentityError::Damaged(e.to_owned()))?;
        let found = identity.to_public().to_string();
        if found != public_key {
            return Err(IdentityError::OtherKey { found, expected: public_key.to_owned() });
        }
        Ok(Opener { identity })
    }
}

fn decrypt_identity_file(file: &[u8], passphrase: Option<&Secret>) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let Some(passphrase) = passphrase else { return Err(IdentityError::PassphraseNeeded) };
    let decryptor =
        age::Decryptor::new_buffered(ArmoredReader::new(file)).map_err(|e| IdentityError::Malformed(e.to_string()))?;
    if !decryptor.is_scrypt() {
        return Err(IdentityError::Malformed("it is an age file that is not encrypted with a passphrase".to_owned()));
    }
    let identity = age::scrypt::Identity::new(SecretString::from(passphrase.reveal().to_owned()));
    let mut reader = decryptor
        .decrypt(std::iter::once(&identity as &dyn age::Identity))
        .map_err(|_| IdentityError::PassphraseWrong)?;
    let mut text = Zeroizing::new(Vec::new());
    std::io::Read::read_to_end(&mut std::io::Read::take(&mut reader, 1 << 20), &mut text)
        .map_err(|e| IdentityError::Malformed(e.to_string()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator() -> (String, Vec<u8>) {
        let identity = age::x25519::Identity::generate();
        (identity.to_public().to_string(), identity.to_string().expose_secret().as_bytes().to_vec())
    }

    #[test]
    fn wrapped_for_several_opened_by_each_and_by_nobody_else() {
        let (one, one_file) = operator();
        let (two, two_file) = operator();
        let (_, stranger) = operator();
        let recipients = vec![one, two];
        let key = NewKey::generate(&recipients).unwrap();
        let sealed = Sealer::new(&key.public_key, 1).unwrap().seal(b"x").unwrap();
        for file in [one_file.clone(), two_file] {
            let opener =
                Identities::parse(&file, None).unwrap().unwrap_key(&key.wrapped, &key.public_key, &recipients).unwrap();
            assert_eq!(opener.open(&sealed.name(), sealed.bytes()).unwrap(), b"x");
        }
        let refused =
            Identities::parse(&stranger, None).unwrap().unwrap_key(&key.wrapped, &key.public_key, &recipients);
        assert!(matches!(refused, Err(IdentityError::NoMatch { .. })));
        let other = NewKey::generate(&recipients).unwrap();
        let swapped =
            Identities::parse(&one_file, None).unwrap().unwrap_key(&other.wrapped, &key.public_key, &recipients);
        assert!(matches!(swapped, Err(IdentityError::OtherKey { .. })));
        let cut = &key.wrapped[..key.wrapped.len() / 2];
        let damaged = Identities::parse(&one_file, None).unwrap().unwrap_key(cut, &key.public_key, &recipients);
        assert!(matches!(damaged, Err(IdentityError::Damaged(_))));
        assert!(matches!(NewKey::generate(&[]), Err(NewKeyError::NoRecipients)));
        assert!(matches!(NewKey::generate(&["age1nope".into()]), Err(NewKeyError::Recipient { .. })));
    }

    #[test]
    fn a_passphrase_is_asked_for_and_checked() {
        let (_, file) = operator();
        let mut recipient = age::scrypt::Recipient::new(SecretString::from("right".to_owned()));
        recipient.set_work_factor(2);
        let locked = age::encrypt(&recipient, &file).unwrap();
        assert!(matches!(Identities::parse(&locked, None), Err(IdentityError::PassphraseNeeded)));
        let wrong = Secret::new("wrong");
        assert!(matches!(Identities::parse(&locked, Some(&wrong)), Err(IdentityError::PassphraseWrong)));
        assert!(Identities::parse(&locked, Some(&Secret::new("right"))).is_ok());
        assert!(matches!(Identities::parse(b"hello", None), Err(IdentityError::Malformed(_))));
    }
}
