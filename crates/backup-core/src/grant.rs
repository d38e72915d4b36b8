//! Granting an old generation: its key, wrapped once more, for a recipient that it was not wrapped for when it opened.
//!
//! ```text
//! grant    signed generation.json --check--> unwrap (an operator's identity) --> wrap for the recipient --> grants/….json
//! read     the snapshot's own wrapped key --no--> grants/<own recipient>.json --unwrap--> is it the signed public key's? --> open
//! ```
//!
//! Signed documents are never rewritten: a snapshot's wrapped key stands inside a signed link of a chain, so a grant is a
//! document of its own beside it. It is wrapped for the one recipient that the operator named, and for nobody whom a vault
//! names: those can open the generation already. So a grant that is removed takes the key from that recipient alone.
//!
//! To read with a grant nobody needs to believe it. What it holds is used only if it is the secret half of the public key
//! that the *signed* snapshot names; a planted, altered or moved one holds another, or nothing. Belief (a pinned signer)
//! decides what is shown without a warning and what is replicated. It opens nothing that is sealed later under another key:
//! whoever must not read on is taken out of the recipients, and a new generation opens.

use chrono::{DateTime, Utc};

use crate::id::{SourceName, StackName};
use crate::prune::notice::{self, Notice};
use crate::seal::Opener;
use crate::seal::key::{Identities, IdentityError, NewKeyError};
use crate::signature::{HostKey, Signers};
use crate::vault::document::{FORMAT, GenerationDoc, GrantDoc, PruneStage, PublicDocument, SnapshotDoc};
use crate::vault::layout::GenerationDir;
use crate::vault::store::StorePath;
use crate::vault::{Signed, Vault, VaultError};
use crate::verify::chain_text;
use crate::words::plain;

/// Largest grant that is read: what this program writes has about a thousand bytes.
const MAX_GRANT_BYTES: u64 = 64 << 10;

/// How a generation is locked, as a signed document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// The generation.
    pub dir: GenerationDir,
    /// `age1…`: what is unwrapped must be the secret half of this.
    pub public_key: String,
    /// The secret key, wrapped for `recipients`.
    pub wrapped_key: String,
    /// For whom.
    pub recipients: Vec<String>,
}

impl From<&SnapshotDoc> for Locked {
    fn from(doc: &SnapshotDoc) -> Self {
        Self {
            dir: doc.dir(),
            public_key: doc.public_key.clone(),
            wrapped_key: doc.wrapped_key.clone(),
            recipients: doc.recipients.clone(),
        }
    }
}

impl From<&GenerationDoc> for Locked {
    fn from(doc: &GenerationDoc) -> Self {
        Self {
            dir: doc.dir(),
            public_key: doc.public_key.clone(),
            wrapped_key: doc.wrapped_key.clone(),
            recipients: doc.recipients.clone(),
        }
    }
}

/// Why a generation could not be unlocked.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// None of the identities opens it.
    #[error(transparent)]
    Key(#[from] IdentityError),
}

/// Why a grant could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The vault failed, or what would prove the generation's public key is not believed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The generation's key could not be wrapped for the recipient.
    #[error("the key of generation `{generation}`")]
    Wrap {
        /// The generation.
        generation: String,
        /// Why.
        #[source]
        source: NewKeyError,
    },
}

/// How a generation is locked: from `generation.json`, else from a snapshot of it. Errors: neither is believed (that of
/// `generation.json` is given), or the store failed.
pub async fn locked(vault: &Vault, signers: &Signers, dir: &GenerationDir) -> Result<Locked, VaultError> {
    let first = match vault.get_signed::<GenerationDoc>(&dir.file("generation.json"), signers).await {
        Ok(signed) => return Ok(Locked::from(&signed.doc)),
        Err(error) if notice::is_foreign(vault, &error).await => error,
        Err(error) => return Err(error),
    };
    for id in vault.snapshots(dir).await?.iter().rev() {
        match vault.get_signed::<SnapshotDoc>(&dir.snapshot(id, ".json"), signers).await {
            Ok(signed) => return Ok(Locked::from(&signed.doc)),
            Err(error) if notice::is_foreign(vault, &error).await => {}
            Err(error) => return Err(error),
        }
    }
    Err(first)
}

/// Opens a generation's key: as it was wrapped when the generation opened, else by a grant to one of the identities. Only
/// at the places where such a grant belongs is looked: whoever fills the folder makes nobody slow.
pub async fn unlock(vault: &Vault, locked: &Locked, identities: &Identities) -> Result<Opener, UnlockError> {
    let own = match identities.unwrap_key(&locked.wrapped_key, &locked.public_key, &locked.recipients) {
        Ok(opener) => return Ok(opener),
        Err(error) => error,
    };
    for recipient in identities.recipients() {
        let path = locked.dir.grant(recipient);
        match vault.get_unproved::<GrantDoc>(&path, MAX_GRANT_BYTES).await {
            Ok(grant) => {
                if let Ok(opener) = identities.unwrap_key(&grant.wrapped_key, &locked.public_key, &[]) {
                    return Ok(opener);
                }
            }
            Err(error) if notice::is_foreign(vault, &error).await => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(own.into())
}

/// What lies where a grant belongs.
#[derive(Debug)]
pub enum Judged {
    /// Nothing.
    None,
    /// A pinned signer signed it, for this generation's key.
    Signed(Box<Signed<GrantDoc>>),
    /// Nobody signed it, and it says so; it is for this generation's key, as far as can be seen without an identity.
    Unsigned(Box<GrantDoc>),
    /// It is not believed, and why.
    Refused(VaultError),
}

/// Reads what lies at `path`, where a grant belongs. With `public_key`, one for another is refused. Errors: only a store
/// that fails.
pub async fn judge(
    vault: &Vault,
    signers: &Signers,
    path: &StorePath,
    public_key: Option<&str>,
) -> Result<Judged, VaultError> {
    let other_key = |doc: &GrantDoc| {
        let expected = public_key.filter(|expected| *expected != doc.public_key)?;
        Some(VaultError::Damaged {
            path: path.to_string(),
            vault: vault.name().to_owned(),
            reason: format!("it is for the key {}, and the generation's is {expected}", plain(&doc.public_key)),
        })
    };
    let refused = match vault.get_signed_within::<GrantDoc>(path, signers, MAX_GRANT_BYTES).await {
        Ok(signed) => {
            return Ok(other_key(&signed.doc).map_or_else(|| Judged::Signed(Box::new(signed)), Judged::Refused));
        }
        Err(VaultError::MissingDocument { path: missing, .. }) if missing == path.as_str() => return Ok(Judged::None),
        Err(error @ VaultError::MissingDocument { .. }) => error,
        Err(error) if notice::is_foreign(vault, &error).await => return Ok(Judged::Refused(error)),
        Err(error) => return Err(error),
    };
    // It has no signature. That is as it should be only where it names nobody who signed.
    match vault.get_unproved::<GrantDoc>(path, MAX_GRANT_BYTES).await {
        Ok(doc) if doc.signer.is_none() => {
            Ok(other_key(&doc).map_or_else(|| Judged::Unsigned(Box::new(doc)), Judged::Refused))
        }
        Ok(_) => Ok(Judged::Refused(refused)),
        Err(error) if notice::is_foreign(vault, &error).await => Ok(Judged::Refused(error)),
        Err(error) => Err(error),
    }
}

/// Where the grants of a generation lie; what is not named as one belongs to somebody else. Errors: only a store that fails.
pub async fn paths(vault: &Vault, dir: &GenerationDir) -> Result<Vec<StorePath>, VaultError> {
    match vault.list(&dir.grants()).await {
        Ok(entries) => Ok(entries.into_iter().map(|entry| entry.path).filter(|path| dir.is_grant(path)).collect()),
        Err(error) if notice::is_foreign(vault, &error).await => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// How a generation stands towards a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Its key was wrapped for the recipient when it opened.
    Recipient,
    /// A pinned signer's grant is there.
    Granted,
    /// A grant is there that nobody signed.
    Unsigned,
    /// It does not open it; with what lies in the grant's place and is not believed, in words.
    Closed {
        /// Why it is not believed.
        foreign: Option<String>,
    },
}

/// How a generation stands towards a recipient. Errors: only a store that fails.
pub async fn standing(
    vault: &Vault,
    signers: &Signers,
    locked: &Locked,
    recipient: &str,
) -> Result<Standing, VaultError> {
    if locked.recipients.iter().any(|known| known == recipient) {
        return Ok(Standing::Recipient);
    }
    Ok(match judge(vault, signers, &locked.dir.grant(recipient), Some(&locked.public_key)).await? {
        Judged::Signed(_) => Standing::Granted,
        Judged::Unsigned(_) => Standing::Unsigned,
        Judged::None => Standing::Closed { foreign: None },
        Judged::Refused(error) => Standing::Closed { foreign: Some(plain(&chain_text(&error))) },
    })
}

/// Makes the document: the key that `opener` holds, for `recipient`, which must come from the operator and never from a
/// vault. `signer` is whoever will sign it.
pub fn document(
    opener: &Opener,
    locked: &Locked,
    recipient: &str,
    (at, tool): (DateTime<Utc>, &str),
    signer: Option<&HostKey>,
) -> Result<GrantDoc, GrantError> {
    let wrapped_key = opener
        .wrap_for(recipient)
        .map_err(|source| GrantError::Wrap { generation: locked.dir.id.to_string(), source })?;
    Ok(GrantDoc {
        format: FORMAT,
        stack: locked.dir.stack.clone(),
        source: locked.dir.source.clone(),
        generation: locked.dir.id.clone(),
        public_key: opener.public_key(),
        recipient: recipient.to_owned(),
        wrapped_key,
        at,
        signer: signer.map(HostKey::fingerprint),
        tool: tool.to_owned(),
    })
}

/// What became of a grant that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there.
    Made,
    /// A prune is deleting the generation; nothing was put.
    TooLate,
    /// It was put, and is not believed: the key may not sign grants (any more).
    NotBelieved,
}

/// Puts it into a vault, in place of what lies there, and reads it back.
pub async fn put(vault: &Vault, signers: &Signers, key: Option<&HostKey>, grant: &GrantDoc) -> Result<Put, VaultError> {
    if matches!(notice::read(vault, signers, &grant.dir(), PruneStage::Deleting).await?, Notice::Signed(_)) {
        return Ok(Put::TooLate);
    }
    match key {
        Some(key) => drop(vault.put_signed(grant, key).await?),
        None => vault.put_unsigned(grant).await?,
    }
    Ok(match judge(vault, signers, &grant.path(), Some(&grant.public_key)).await? {
        Judged::Signed(signed) if key.is_some() && signed.doc == *grant => Put::Made,
        Judged::Unsigned(doc) if key.is_none() && *doc == *grant => Put::Made,
        _ => Put::NotBelieved,
    })
}

/// A generation that a recipient's identity opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opens {
    /// The generation.
    pub dir: GenerationDir,
    /// Why: [`Standing::Recipient`], [`Standing::Granted`], [`Standing::Unsigned`], or [`Standing::Closed`] where what lies in its
    /// grant's place is not believed and may open it.
    pub by: Standing,
    /// Snapshots that are listed there.
    pub snapshots: usize,
}

/// Which generations of a source a recipient's identity opens in a vault; and those of which that cannot be told, in
/// words. Errors: only a store that fails.
pub async fn opens(
    vault: &Vault,
    signers: &Signers,
    (stack, source): (&StackName, &SourceName),
    recipient: &str,
) -> Result<(Vec<Opens>, Vec<String>), VaultError> {
    let (mut opens, mut unknown) = (Vec::new(), Vec::new());
    for dir in vault.generations(stack, source).await? {
        let locked = match locked(vault, signers, &dir).await {
            Ok(locked) => locked,
            Err(error) if notice::is_foreign(vault, &error).await => {
                unknown.push(format!("generation `{}`: {}", dir.id, plain(&chain_text(&error))));
                continue;
            }
            Err(error) => return Err(error),
        };
        let by = standing(vault, signers, &locked, recipient).await?;
        if let Standing::Closed { foreign } = &by {
            unknown.extend(foreign.iter().map(|why| format!("generation `{}`: {why}", dir.id)));
            // What lies in the recipient's place may open it all the same: opening needs nobody's belief.
            if foreign.is_none() {
                continue;
            }
        }
        let snapshots = vault.snapshots(&dir).await?.len();
        opens.push(Opens { dir, by, snapshots });
    }
    Ok((opens, unknown))
}

/// Removes what lies where a recipient's grant belongs, believed or not. The signature last: a document without one would
/// be told as a stranger's. Gives whether there was one.
pub async fn remove(vault: &Vault, dir: &GenerationDir, recipient: &str) -> Result<bool, VaultError> {
    let path = dir.grant(recipient);
    let signature = crate::vault::layout::signature_of(&path);
    let there = vault.exists(&path).await?;
    if there || vault.exists(&signature).await? {
        vault.delete(&path).await?;
        // For good: a power cut must not bring the document back without its signature.
        vault.sync().await?;
        vault.delete(&signature).await?;
        vault.sync().await?;
    }
    Ok(there)
}
