//! Mending documents: what is believed elsewhere, where nothing that is believed speaks against it.

use std::collections::{BTreeSet, HashMap};

use super::{Bench, Mend, Outcome, RepairError};
use crate::id::{Hash256, ObjectName};
use crate::vault::document::{GenerationDoc, MarkDoc, MarkKind, PublicDocument, SnapshotDoc};
use crate::vault::inventory::InventoryLine;
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::store::StorePath;
use crate::vault::{Signed, Vault, VaultError};
use crate::verify::Place;

impl Bench<'_> {
    /// A document that another vault has and this one has not; `None`: it is believed here. Vaults that hold different ones
    /// are all believed, so none of them is: which is the newer one cannot be told from a signature.
    async fn candidate<T: PublicDocument>(&self, path: &StorePath) -> Result<Option<(String, Signed<T>)>, RepairError> {
        if self.is_good(path, self.ask.vault.get_signed::<T>(path, self.ask.signers).await).await? {
            return Ok(None);
        }
        let mut found: Option<(String, Signed<T>)> = None;
        for other in self.others() {
            let Ok(signed) = other.get_signed::<T>(path, self.ask.signers).await else { continue };
            match &found {
                None => found = Some((other.name().to_owned(), signed)),
                Some((_, first)) if first.bytes == signed.bytes => {}
                Some((one, _)) => {
                    let (one, other) = (one.clone(), other.name().to_owned());
                    return Err(RepairError::Disputed { path: path.to_string(), one, other });
                }
            }
        }
        if found.is_none() {
            // In place of what was deleted or written over here.
            let older = self.ask.vault.reading_older().get_signed::<T>(path, self.ask.signers).await;
            found = older.ok().map(|signed| (self.itself(), signed));
        }
        found.map(Some).ok_or_else(|| RepairError::NoCopy { path: path.to_string() })
    }

    async fn put_document<T: PublicDocument>(
        &self,
        path: &StorePath,
        (from, signed): (String, Signed<T>),
    ) -> Result<Outcome, RepairError> {
        let (vault, signers) = (self.ask.vault, self.ask.signers);
        let hash = signed.hash();
        let put = async |signed: Signed<T>| vault.put_verbatim(&signed).await;
        let check = async || {
            let there = vault.get_signed::<T>(path, signers).await?;
            if there.hash() == hash {
                return Ok(());
            }
            let reason = format!("its bytes have the SHA-256 {}, not {hash}", there.hash());
            Err(VaultError::Damaged { path: path.to_string(), vault: vault.name().to_owned(), reason })
        };
        self.put(from, &[path.clone(), layout::signature_of(path)], signed, put, check).await
    }

    pub(super) async fn generation_document(&self, place: &Place) -> Result<Outcome, RepairError> {
        let path = place.path();
        match self.candidate::<GenerationDoc>(&path).await? {
            None => Ok(Outcome::Good),
            Some(found) => self.put_document(&path, found).await,
        }
    }

    /// A mark is each vault's own: of several that are believed the first serves that is not about another document than
    /// the one that is believed here.
    pub(super) async fn mark(&self, path: &StorePath) -> Result<Outcome, RepairError> {
        let (vault, signers) = (self.ask.vault, self.ask.signers);
        if self.is_good(path, vault.get_signed::<MarkDoc>(path, signers).await).await? {
            return Ok(Outcome::Good);
        }
        let mut unrelated = None;
        for other in self.others() {
            let Ok(signed) = other.get_signed::<MarkDoc>(path, signers).await else { continue };
            if self.is_unrelated(&signed.doc).await.map_err(|e| self.failed(path, e))? {
                unrelated.get_or_insert_with(|| other.name().to_owned());
                continue;
            }
            return self.put_document(path, (other.name().to_owned(), signed)).await;
        }
        let path = path.to_string();
        Err(unrelated
            .map_or(RepairError::NoCopy { path: path.clone() }, |vault| RepairError::Unrelated { path, vault }))
    }

    /// Whether a document is believed here under the name that the mark is about, and it is another one.
    async fn is_unrelated(&self, mark: &MarkDoc) -> Result<bool, VaultError> {
        let (vault, signers) = (self.ask.vault, self.ask.signers);
        let mut other = false;
        for (dir, id) in vault.history(&mark.stack, &mark.source).await? {
            if id != mark.snapshot {
                continue;
            }
            match vault.get_signed::<SnapshotDoc>(&dir.snapshot(&id, ".json"), signers).await {
                Ok(signed) if signed.hash() == mark.document => return Ok(false),
                Ok(_) => other = true,
                // What is not believed here speaks against nothing.
                Err(_) => {}
            }
        }
        Ok(other)
    }

    pub(super) async fn recover(&self) -> Result<Outcome, RepairError> {
        let (vault, signers, at) = (self.ask.vault, self.ask.signers, self.ask.at);
        let path = layout::recover();
        if self.is_good(&path, vault.get_recover(signers, at).await).await? {
            return Ok(Outcome::Good);
        }
        for other in self.others() {
            let Ok(found) = other.get_recover(signers, at).await else { continue };
            let paths = [path.clone(), layout::signature_of(&path)];
            let put = async |found| vault.put_recover_verbatim(found).await;
            let check = async || vault.get_recover(signers, at).await.map(drop);
            return self.put(other.name().to_owned(), &paths, found, put, check).await;
        }
        Err(RepairError::NoCopy { path: path.to_string() })
    }

    /// The inventory of a snapshot whose document is believed here: that document says which bytes it has.
    pub(super) async fn inventory(&self, dir: &GenerationDir, id: &SnapshotId) -> Result<Outcome, RepairError> {
        let path = dir.snapshot(id, ".json");
        let read = self.ask.vault.get_signed::<SnapshotDoc>(&path, self.ask.signers).await;
        match read {
            Ok(signed) => self.inventory_of(&signed.doc).await,
            // The document goes first, and takes its inventory with it.
            Err(source) => Err(self.failed(&path, source)),
        }
    }

    async fn inventory_of(&self, doc: &SnapshotDoc) -> Result<Outcome, RepairError> {
        let vault = self.ask.vault;
        let path = doc.dir().snapshot(&doc.id, ".inventory.zst");
        if self.is_good(&path, vault.get_inventory(doc).await).await? {
            return Ok(Outcome::Good);
        }
        let older = self.ask.vault.reading_older();
        let copies = self.others().map(|other| (other.name().to_owned(), other));
        for (from, other) in copies.chain([(self.itself(), &older)]) {
            let Ok((_, stored)) = other.get_inventory(doc).await else { continue };
            let put = async |stored| {
                vault.put_inventory_verbatim(doc, stored).await?;
                vault.sync().await
            };
            let check = async || vault.get_inventory(doc).await.map(drop);
            return self.put(from, &[path], stored, put, check).await;
        }
        Err(RepairError::NoCopy { path: path.to_string() })
    }

    /// A snapshot's document, behind everything that it names.
    pub(super) async fn snapshot(&self, dir: &GenerationDir, id: &SnapshotId, mends: &mut Vec<Mend>) {
        let place = Place::Snapshot(dir.clone(), id.clone());
        let path = place.path();
        let done = async {
            let Some((from, signed)) = self.candidate::<SnapshotDoc>(&path).await? else { return Ok(Outcome::Good) };
            let found = signed.hash();
            if let Some(expected) = self.facts(dir, id).await.into_iter().find(|fact| *fact != found) {
                return Err(RepairError::Other { path: path.to_string(), vault: from, found, expected });
            }
            let lines = self.objects_of(&signed.doc, mends).await?;
            let inventory = self.inventory_of(&signed.doc).await?;
            let put = matches!(inventory, Outcome::Mended { .. });
            if !matches!(inventory, Outcome::Good) {
                let place = Place::Inventory(dir.clone(), id.clone());
                mends.push(Mend { place, outcome: inventory });
            }
            let outcome = self.put_document(&path, (from, signed)).await?;
            if matches!(outcome, Outcome::Mended { .. }) && !self.holds(dir, &lines).await? {
                let inventory = dir.snapshot(id, ".inventory.zst");
                for gone in [Some(path.clone()), Some(layout::signature_of(&path)), put.then_some(inventory)] {
                    let Some(gone) = gone else { continue };
                    self.ask.vault.delete(&gone).await.map_err(|e| self.failed(&gone, e))?;
                    // For good: a power cut must not bring the document back without what belongs to it.
                    self.ask.vault.sync().await.map_err(|e| self.failed(&gone, e))?;
                }
                return Err(self.pruned(dir));
            }
            Ok(outcome)
        };
        let outcome = done.await.unwrap_or_else(Outcome::Not);
        mends.push(Mend { place, outcome });
    }

    /// Whether everything that a snapshot needs is still there, just after its document was put: a prune that began and
    /// ended while its objects were looked at leaves no document behind, only holes.
    async fn holds(&self, dir: &GenerationDir, lines: &[InventoryLine]) -> Result<bool, RepairError> {
        let listed = self.ask.vault.list_objects(dir).await.map_err(|e| self.failed(&dir.dir(), e))?;
        let there: HashMap<ObjectName, u64> = listed.into_iter().map(|line| (line.name, line.bytes)).collect();
        Ok(lines.iter().all(|line| there.get(&line.name) == Some(&line.bytes)))
    }

    /// Mends the objects that a snapshot needs and this vault lists not or with another size; gives all that it needs.
    async fn objects_of(&self, doc: &SnapshotDoc, mends: &mut Vec<Mend>) -> Result<Vec<InventoryLine>, RepairError> {
        let dir = doc.dir();
        let path = dir.snapshot(&doc.id, ".inventory.zst");
        let mut inventory = None;
        let older = self.ask.vault.reading_older();
        for vault in std::iter::once(self.ask.vault).chain(self.others()).chain([&older]) {
            if let Ok((lines, _)) = vault.get_inventory(doc).await {
                inventory = Some(lines);
                break;
            }
        }
        let lines = inventory.ok_or_else(|| RepairError::NoCopy { path: path.to_string() })?;
        let listed = self.ask.vault.list_objects(&dir).await.map_err(|e| self.failed(&path, e))?;
        let there: HashMap<ObjectName, u64> = listed.into_iter().map(|line| (line.name, line.bytes)).collect();
        let mut missing = 0;
        for line in lines.iter().filter(|line| there.get(&line.name) != Some(&line.bytes)) {
            let mend = self.alone(&Place::Object(dir.clone(), line.name)).await;
            missing += usize::from(matches!(mend.outcome, Outcome::Not(_)));
            // Tried already where it was named as damaged itself.
            if !mends.iter().any(|made| made.place == mend.place) {
                mends.push(mend);
            }
        }
        if missing > 0 {
            return Err(RepairError::NotWhole { snapshot: doc.id.clone(), missing });
        }
        Ok(lines)
    }

    /// SHA-256 of the document that was there, by whoever is believed: marks in any vault, and this host's memory.
    async fn facts(&self, dir: &GenerationDir, id: &SnapshotId) -> BTreeSet<Hash256> {
        let heads = self.ask.heads.iter().filter(|(name, _)| name == id.as_str());
        let mut facts: BTreeSet<Hash256> = heads.map(|(_, hash)| *hash).collect();
        for vault in std::iter::once(self.ask.vault).chain(self.others()) {
            for kind in [MarkKind::Pin, MarkKind::Accept, MarkKind::Checked, MarkKind::Restored] {
                facts.extend(self.marked(vault, dir, id, kind).await);
            }
        }
        facts
    }

    async fn marked(&self, vault: &Vault, dir: &GenerationDir, id: &SnapshotId, kind: MarkKind) -> Option<Hash256> {
        let path = layout::mark(&dir.stack, &dir.source, id, kind);
        let mark = vault.get_signed::<MarkDoc>(&path, self.ask.signers).await.ok()?;
        Some(mark.doc.document)
    }
}
