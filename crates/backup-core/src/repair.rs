//! Mending what is damaged or gone in one vault with what another one holds.
//!
//! Needs no key: an object is good when its bytes have the SHA-256 that is its name, a document when a pinned signer signed
//! it for its place. A copy is another vault's; where none has one, it is an older version that the vault's own bucket
//! kept. For each file, in this order: is it good already? Then nothing is done. The good copy is read and checked
//! in memory; what lies in its place is kept in `_damaged/`; the copy is put; it is read back and checked. Stopped after any
//! step, the next call begins again and nothing is lost: the copy is another vault's, the bad file is kept.
//!
//! What it never does:
//! - delete or overwrite a bad file that was not kept first;
//! - touch a document that is believed here, however old or new another vault's is;
//! - put a document where vaults disagree about it, or other than marks and this host's memory say that it is;
//! - put a snapshot's document before everything that it names is in this vault (the rule of every commit);
//! - act in a generation that was purged, here or in a vault that could help: that is leaked data;
//! - act in a generation that a prune announced or deletes. One that a prune took away meanwhile gets nothing either: what
//!   was put is withdrawn.

mod document;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};

use crate::id::{Hash256, ObjectName};
use crate::mark::hold;
use crate::prune::{notice, purge};
use crate::signature::Signers;
use crate::vault::document::PruneStage;
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::store::{StoreError, StorePath};
use crate::vault::{Vault, VaultError};
use crate::verify::{Place, chain_text, damage_or};
use crate::words::plain;

/// Objects mended at once: 4 MiB each.
const MENDS: usize = 4;

/// Why a file was not mended.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// No other vault that answers has a good copy, and no older version is one.
    #[error("no other vault that answers holds a good copy of `{path}`")]
    NoCopy {
        /// The file.
        path: String,
    },
    /// Two vaults hold different documents for one place, each believed.
    #[error("`{path}` is believed in vault `{one}` and in vault `{other}`, and differs")]
    Disputed {
        /// The document.
        path: String,
        /// A vault.
        one: String,
        /// Another.
        other: String,
    },
    /// The copy is signed, and is not the document that a mark or this host's memory speaks of.
    #[error(
        "the copy of `{path}` in vault `{vault}` has the SHA-256 {found}, and {expected} is what was marked or remembered"
    )]
    Other {
        /// The document.
        path: String,
        /// The vault that has the copy.
        vault: String,
        /// SHA-256 of the copy.
        found: Hash256,
        /// SHA-256 of the document that was there.
        expected: Hash256,
    },
    /// The mark is signed, and is about another document than the one that is believed in the vault.
    #[error("the mark `{path}` in vault `{vault}` is about another document than the one that is believed here")]
    Unrelated {
        /// The mark.
        path: String,
        /// The vault that has it.
        vault: String,
    },
    /// A snapshot's document is not put before all of its objects are there.
    #[error("snapshot `{snapshot}` misses {missing} objects that no vault could give, so its document was not put")]
    NotWhole {
        /// The snapshot.
        snapshot: SnapshotId,
        /// How many.
        missing: usize,
    },
    /// A prune is removing the generation.
    #[error("generation `{generation}` is being removed from vault `{vault}`: nothing is put there")]
    Pruned {
        /// The generation.
        generation: String,
        /// The vault.
        vault: String,
    },
    /// The generation was purged, or that is announced.
    #[error("generation `{generation}` was purged in vault `{vault}` ({reason}): nothing of it is brought back")]
    Purged {
        /// The generation.
        generation: String,
        /// The vault in which it was.
        vault: String,
        /// The operator's reason.
        reason: String,
    },
    /// The vault failed.
    #[error("`{path}` could not be mended")]
    Vault {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: VaultError,
    },
    /// What was put cannot be read back, or is not what was put.
    #[error("`{path}` was put into vault `{vault}` and is not good there")]
    NotThere {
        /// The file.
        path: String,
        /// The vault.
        vault: String,
        /// What was read.
        #[source]
        source: VaultError,
    },
    /// It was put, and a pinned snapshot needs it, but the store did not put it under a legal hold.
    #[error(
        "`{path}` is good in vault `{vault}`, and is not held as a pinned snapshot's files are ({reason}): repeat `backup pin`"
    )]
    NotHeld {
        /// The file.
        path: String,
        /// The vault.
        vault: String,
        /// Why, in words.
        reason: String,
    },
    /// The vault had failed before.
    #[error("`{path}` was not tried: vault `{vault}` had failed before")]
    NotTried {
        /// The file.
        path: String,
        /// The vault.
        vault: String,
    },
}

/// What became of a file.
#[derive(Debug)]
pub enum Outcome {
    /// It is good as it is: nothing was done.
    Good,
    /// Another vault's good copy is there now and was read back.
    Mended {
        /// The vault that gave it.
        from: String,
        /// Where the damaged files are kept; none where nothing lay.
        aside: Vec<StorePath>,
    },
    /// It would be mended (a dry run): the copy was read and is good.
    Mendable {
        /// The vault that has it.
        from: String,
    },
    /// It is as it was.
    Not(RepairError),
}

/// A file with what became of it.
#[derive(Debug)]
pub struct Mend {
    /// The file.
    pub place: Place,
    /// What became of it.
    pub outcome: Outcome,
}

impl Mend {
    /// Whether a good copy was put.
    pub fn is_made(&self) -> bool {
        matches!(self.outcome, Outcome::Mended { .. })
    }
}

/// One vault to be mended, and everything that helps.
#[derive(Clone, Copy)]
pub struct Repair<'a> {
    /// The vault with the damage.
    pub vault: &'a Vault,
    /// Others that may have good copies, in the order in which they are asked; the vault itself is passed over.
    pub others: &'a [Vault],
    /// Whose documents are believed.
    pub signers: &'a Signers,
    /// Newest snapshots that this host remembers, with the SHA-256 of their documents.
    pub heads: &'a [(String, Hash256)],
    /// The instant of the repair: what is moved aside is kept under it.
    pub at: DateTime<Utc>,
    /// Only look.
    pub dry_run: bool,
}

/// What every file of one call shares.
struct Bench<'a> {
    ask: Repair<'a>,
    /// The vault failed: nothing more is tried.
    over: &'a AtomicBool,
}

/// Mends `places`, generation by generation; what a snapshot's document needs is mended with it. Nothing is thrown: each
/// file says what became of it, in no order that means anything.
pub async fn repair(ask: Repair<'_>, places: &BTreeSet<Place>) -> Vec<Mend> {
    let over = AtomicBool::new(false);
    let bench = Bench { ask, over: &over };
    let mut by_generation: BTreeMap<Option<&GenerationDir>, Vec<&Place>> = BTreeMap::new();
    for place in places {
        by_generation.entry(place.dir()).or_default().push(place);
    }
    let mut mends = Vec::new();
    for (dir, places) in by_generation {
        match dir {
            Some(dir) => bench.generation(dir, places, &mut mends).await,
            None => {
                for place in places {
                    mends.push(bench.alone(place).await);
                }
            }
        }
    }
    mends
}

impl<'a> Bench<'a> {
    fn others(&self) -> impl Iterator<Item = &'a Vault> {
        let id = self.ask.vault.id();
        self.ask.others.iter().filter(move |other| other.id() != id)
    }

    /// What an older version in the vault itself is called as the place that a copy came from.
    fn itself(&self) -> String {
        format!("{} (an older version)", self.ask.vault.name())
    }

    /// Vaults that say of a generation that it was not purged there, so that they may help; a purge that any vault tells of
    /// stands against all. One that does not answer has no say and gives nothing.
    async fn helpers(&self, dir: &GenerationDir) -> Result<Vec<Vault>, RepairError> {
        let purged = |vault: &Vault, reason: &str| RepairError::Purged {
            generation: dir.id.to_string(),
            vault: vault.name().to_owned(),
            reason: plain(reason),
        };
        let (vault, signers) = (self.ask.vault, self.ask.signers);
        // One that is only announced here is met by `standing`.
        match purge::done(vault, signers, dir).await {
            Ok(None) => {}
            Ok(Some(reason)) => return Err(purged(vault, &reason)),
            Err(source) => return Err(self.failed(&dir.dir(), source)),
        }
        let mut helpers = Vec::new();
        for other in self.others() {
            match purge::reason(other, signers, dir).await {
                Ok(None) => helpers.push(other.clone()),
                Ok(Some(reason)) => return Err(purged(other, &reason)),
                Err(_) => {}
            }
        }
        Ok(helpers)
    }

    /// Everything of one generation, with a look for a purge before, and for a prune before and after.
    async fn generation(&self, dir: &GenerationDir, places: Vec<&Place>, mends: &mut Vec<Mend>) {
        let first = places.first().map(|place| place.path().to_string()).unwrap_or_default();
        let standing = match notice::standing(self.ask.vault, self.ask.signers, dir).await {
            Ok(standing) => standing,
            Err(source) => {
                self.over.store(true, Ordering::Relaxed);
                let error = RepairError::Vault { path: first, source };
                let mut places = places.into_iter();
                mends.extend(places.next().map(|place| Mend { place: place.clone(), outcome: Outcome::Not(error) }));
                mends.extend(places.map(|place| self.not_tried(place)));
                return;
            }
        };
        if standing.pruned {
            let outcome = || Outcome::Not(self.pruned(dir));
            mends.extend(places.into_iter().map(|place| Mend { place: place.clone(), outcome: outcome() }));
            return;
        }
        let helpers = match self.helpers(dir).await {
            Ok(helpers) => helpers,
            Err(error) => {
                let mut places = places.into_iter();
                mends.extend(places.next().map(|place| Mend { place: place.clone(), outcome: Outcome::Not(error) }));
                for place in places {
                    // Each file is named with the same.
                    let outcome = match mends.last().map(|mend| &mend.outcome) {
                        Some(Outcome::Not(RepairError::Purged { generation, vault, reason })) => {
                            let (generation, vault, reason) = (generation.clone(), vault.clone(), reason.clone());
                            Outcome::Not(RepairError::Purged { generation, vault, reason })
                        }
                        _ => self.not_tried(place).outcome,
                    };
                    mends.push(Mend { place: place.clone(), outcome });
                }
                return;
            }
        };
        let bench = Bench { ask: Repair { others: &helpers, ..self.ask }, over: self.over };
        bench.fill(dir, places, mends).await;
    }

    /// [`Bench::generation`], after the looks.
    async fn fill(&self, dir: &GenerationDir, places: Vec<&Place>, mends: &mut Vec<Mend>) {
        let mut made = Vec::new();
        let (objects, documents): (Vec<&Place>, Vec<&Place>) =
            places.into_iter().partition(|place| matches!(place, Place::Object(..)));
        // The generation's own document before its objects, snapshots' documents behind them.
        let (before, behind): (Vec<&Place>, Vec<&Place>) =
            documents.into_iter().partition(|place| matches!(place, Place::Generation(_)));
        for place in before {
            made.push(self.alone(place).await);
        }
        made.extend(
            stream::iter(objects).map(|place| self.alone(place)).buffer_unordered(MENDS).collect::<Vec<_>>().await,
        );
        for place in behind {
            match place {
                Place::Snapshot(dir, id) => self.snapshot(dir, id, &mut made).await,
                other => made.push(self.alone(other).await),
            }
        }
        if made.iter().any(Mend::is_made) && self.was_pruned(dir).await {
            self.withdraw(dir, &mut made).await;
        }
        self.hold(dir, &mut made).await;
        mends.append(&mut made);
    }

    /// What was put has no legal hold yet, and a pinned snapshot may need it.
    async fn hold(&self, dir: &GenerationDir, made: &mut [Mend]) {
        let mut put = BTreeSet::new();
        for path in made.iter().filter(|mend| mend.is_made()).map(|mend| mend.place.path()) {
            put.insert(layout::signature_of(&path));
            put.insert(path);
        }
        let vault = self.ask.vault;
        if let Err(error) = hold::again(vault, self.ask.signers, dir, &put).await {
            let reason = chain_text(&error);
            for mend in made.iter_mut().filter(|mend| mend.is_made()) {
                let (path, vault, reason) = (mend.place.path().to_string(), vault.name().to_owned(), reason.clone());
                mend.outcome = Outcome::Not(RepairError::NotHeld { path, vault, reason });
            }
        }
    }

    /// Whether a prune began (or began and ended) to delete the generation while it was mended.
    async fn was_pruned(&self, dir: &GenerationDir) -> bool {
        let (vault, signers) = (self.ask.vault, self.ask.signers);
        let deleting = notice::read(vault, signers, dir, PruneStage::Deleting).await;
        let gone = async { Ok::<_, VaultError>(vault.snapshots(dir).await?.is_empty()) };
        matches!(deleting, Ok(notice::Notice::Signed(_))) || matches!(gone.await, Ok(true))
    }

    /// Takes away what was put into a generation that is gone: nobody would ever remove it again.
    async fn withdraw(&self, dir: &GenerationDir, made: &mut [Mend]) {
        for mend in made.iter_mut().filter(|mend| mend.is_made()) {
            let path = mend.place.path();
            let signature = layout::signature_of(&path);
            let signed = matches!(mend.place, Place::Generation(_) | Place::Snapshot(..));
            for path in [Some(path), signed.then_some(signature)].into_iter().flatten() {
                // The prune lists again before it ends; what stays after a failure here is swept by the next one.
                let _ = self.ask.vault.delete(&path).await;
            }
            mend.outcome = Outcome::Not(self.pruned(dir));
        }
    }

    fn pruned(&self, dir: &GenerationDir) -> RepairError {
        RepairError::Pruned { generation: dir.id.to_string(), vault: self.ask.vault.name().to_owned() }
    }

    fn not_tried(&self, place: &Place) -> Mend {
        let (path, vault) = (place.path().to_string(), self.ask.vault.name().to_owned());
        Mend { place: place.clone(), outcome: Outcome::Not(RepairError::NotTried { path, vault }) }
    }

    /// One file that needs no other.
    async fn alone(&self, place: &Place) -> Mend {
        if self.over.load(Ordering::Relaxed) {
            return self.not_tried(place);
        }
        let done = match place {
            Place::Object(dir, name) => self.object(dir, name).await,
            Place::Generation(_) => self.generation_document(place).await,
            Place::Inventory(dir, id) => self.inventory(dir, id).await,
            Place::Mark(path) => self.mark(path).await,
            Place::Recover => self.recover().await,
            Place::Snapshot(dir, id) => {
                let mut mends = Vec::new();
                Box::pin(self.snapshot(dir, id, &mut mends)).await;
                return mends.pop().unwrap_or_else(|| self.not_tried(place));
            }
        };
        Mend { place: place.clone(), outcome: done.unwrap_or_else(Outcome::Not) }
    }

    async fn object(&self, dir: &GenerationDir, name: &ObjectName) -> Result<Outcome, RepairError> {
        let path = dir.object(name);
        if self.is_good(&path, self.ask.vault.get_object(dir, name).await).await? {
            return Ok(Outcome::Good);
        }
        let older = self.ask.vault.reading_older();
        let copies = self.others().map(|other| (other.name().to_owned(), other));
        let mut found = None;
        for (from, other) in copies.chain([(self.itself(), &older)]) {
            if let Ok(bytes) = other.get_object(dir, name).await {
                found = Some((from, bytes));
                break;
            }
        }
        let Some((from, bytes)) = found else { return Err(RepairError::NoCopy { path: path.to_string() }) };
        let put = async |bytes: Bytes| self.ask.vault.replace_object(dir, name, bytes).await;
        self.put(from, &[path], bytes, put, async || self.ask.vault.get_object(dir, name).await.map(drop)).await
    }

    /// Whether a read succeeded; `false`: what is there is damaged or gone. A vault that fails ends everything.
    async fn is_good<T>(&self, path: &StorePath, read: Result<T, VaultError>) -> Result<bool, RepairError> {
        match read {
            Ok(_) => Ok(true),
            Err(error) => match damage_or(self.ask.vault, error).await {
                Ok(_) => Ok(false),
                Err(source) => Err(self.failed(path, source)),
            },
        }
    }

    /// A vault that failed; the next file would meet the same.
    fn failed(&self, path: &StorePath, source: VaultError) -> RepairError {
        use StoreError::{Denied, Failed, Full, Missing};
        let store = match &source {
            VaultError::Store { source, .. } => Some(source),
            _ => None,
        };
        if matches!(store, Some(Failed { .. } | Full { .. } | Missing { .. } | Denied { .. })) {
            self.over.store(true, Ordering::Relaxed);
        }
        RepairError::Vault { path: path.to_string(), source }
    }

    /// Keeps what lies at `paths`, puts a copy that was checked, reads it back.
    async fn put<T>(
        &self,
        from: String,
        paths: &[StorePath],
        copy: T,
        put: impl AsyncFnOnce(T) -> Result<(), VaultError>,
        check: impl AsyncFnOnce() -> Result<(), VaultError>,
    ) -> Result<Outcome, RepairError> {
        if self.ask.dry_run {
            return Ok(Outcome::Mendable { from });
        }
        let mut aside = Vec::new();
        for path in paths {
            aside.extend(self.ask.vault.set_aside(path, self.ask.at).await.map_err(|e| self.failed(path, e))?);
        }
        let path = &paths[0];
        put(copy).await.map_err(|e| self.failed(path, e))?;
        match check().await {
            Ok(()) => Ok(Outcome::Mended { from, aside }),
            Err(source) => {
                let vault = self.ask.vault.name().to_owned();
                Err(RepairError::NotThere { path: path.to_string(), vault, source })
            }
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Good => f.write_str("is good"),
            Self::Mended { from, aside } => {
                write!(f, "repaired from vault `{from}`")?;
                for path in aside {
                    write!(f, ", the damaged file is kept as `{path}`")?;
                }
                Ok(())
            }
            Self::Mendable { from } => write!(f, "would be repaired from vault `{from}`"),
            Self::Not(error) => write!(f, "NOT repaired: {}", chain_text(error)),
        }
    }
}
