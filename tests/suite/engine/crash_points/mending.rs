//! A repair that dies: what is bad is kept, what was good stays, and a snapshot is believed again only when it is whole.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::recover::RECOVER;
use backup_core::repair::{Mend, Outcome, Repair, repair};
use backup_core::vault::VaultError;
use backup_core::vault::document::MarkKind;
use backup_core::vault::layout::{self, signature_of};
use backup_core::vault::store::{PutMode, Store, StorePath};
use backup_core::verify::{Depth, Fraction, Place, judge_recover, verify};
use bytes::Bytes;

use super::super::site::Site;

/// The vault that is damaged; the other one has good copies.
const HURT: usize = 0;

/// What lay in the damaged vault before the repair, and what should.
pub(super) struct Before {
    bad: BTreeMap<String, Bytes>,
    good: BTreeMap<String, Bytes>,
}

impl Before {
    pub(super) async fn of(site: &Site) -> Self {
        Self { bad: everything(site, HURT).await, good: everything(site, 1).await }
    }
}

/// Everything in a vault but its own document, also what was moved aside.
async fn everything(site: &Site, vault: usize) -> BTreeMap<String, Bytes> {
    let memory = &site.places[vault].watch.memory;
    let mut all = BTreeMap::new();
    for entry in memory.list(None).await.unwrap() {
        all.insert(entry.path.to_string(), memory.get(&entry.path, u64::MAX).await.unwrap());
    }
    all.remove("vault.json");
    all
}

async fn set(site: &Site, path: &StorePath, body: Option<Bytes>) {
    let memory = &site.places[HURT].watch.memory;
    match body {
        Some(body) => drop(memory.put(path, body, PutMode::Replace).await.unwrap()),
        None => memory.delete(path).await.unwrap(),
    }
}

/// Damages each kind of file that a repair mends, over three generations that both vaults hold.
pub(super) async fn hurt(site: &Site) {
    for place in &site.places {
        place.vault.put_recover(RECOVER, &site.sides[0].key).await.unwrap();
    }
    let listed = site.listed(HURT).await;
    assert_eq!(listed.iter().map(|(dir, _)| dir).collect::<BTreeSet<_>>().len(), 3, "{listed:?}");
    site.mark(0, HURT, &listed[0], MarkKind::Pin).await.unwrap();
    assert!(site.replicate(HURT, 1).await.errors.is_empty());
    let memory = &site.places[HURT].watch.memory;
    let flip = async |path: &StorePath| {
        let mut body = memory.get(path, u64::MAX).await.unwrap().to_vec();
        let middle = body.len() / 2;
        body[middle] ^= 1;
        set(site, path, Some(body.into())).await;
    };
    let mut objects = Vec::new();
    for (dir, _) in &listed {
        let mut lines = site.places[HURT].vault.list_objects(dir).await.unwrap();
        lines.sort_by_key(|line| line.name);
        objects.push(lines.into_iter().map(|line| dir.object(&line.name)).collect::<Vec<_>>());
    }
    let document = |nth: usize, suffix| listed[nth].0.snapshot(&listed[nth].1, suffix);
    // The first: the generation's document, an object that is gone, the pin.
    flip(&listed[0].0.file("generation.json")).await;
    set(site, &objects[0][0], None).await;
    let (dir, id) = &listed[0];
    flip(&layout::mark(&dir.stack, &dir.source, id, MarkKind::Pin)).await;
    // The second: a document that is not believed, whose inventory and one of whose objects are gone, too.
    flip(&document(1, ".json")).await;
    set(site, &document(1, ".inventory.zst"), None).await;
    set(site, &objects[1][1], None).await;
    // The third: an object with a wrong bit, and a signature.
    flip(&objects[2][0]).await;
    set(site, &signature_of(&document(2, ".json")), Some(Bytes::from_static(b"no signature"))).await;
    flip(&layout::recover()).await;
}

/// What a verification that hashes every object finds.
async fn found(site: &Site) -> Result<BTreeSet<Place>, VaultError> {
    let (vault, of) = (&site.places[HURT].vault, &site.request);
    let depth = Depth { read: Some(Fraction { part: 1, of: 1 }), identities: None };
    let verified = verify(vault, &site.signers, &of.stack, &of.source, None, depth).await?;
    let recover = judge_recover(vault, &site.signers, site.clock.now()).await?;
    Ok(verified.places.into_keys().chain(recover.map(|_| Place::Recover)).collect())
}

/// `verify --repair`: looks and mends until nothing is found.
pub(super) async fn mend(site: &Site) -> Result<(), String> {
    let text = |error: &dyn std::error::Error| backup_core::verify::chain_text(error);
    for _ in 0..4 {
        let places = found(site).await.map_err(|e| text(&e))?;
        if places.is_empty() {
            return Ok(());
        }
        let others = [site.places[1].vault.clone()];
        let (vault, signers, at) = (&site.places[HURT].vault, &site.signers, site.clock.now());
        let made = repair(Repair { vault, others: &others, signers, heads: &[], at, dry_run: false }, &places).await;
        // Dead on the way: what is left is for the next call.
        if let Some(Mend { outcome: Outcome::Not(error), .. }) = made.iter().find(|mend| !mend.is_made()) {
            return Err(text(error));
        }
    }
    Err("mended four times, and still something is found".to_owned())
}

/// What holds at any instant of a repair.
pub(super) async fn musts(site: &Site, before: &Before) {
    let now = everything(site, HURT).await;
    let aside: Vec<&Bytes> =
        now.iter().filter(|(path, _)| path.starts_with(layout::DAMAGED)).map(|(_, body)| body).collect();
    for (path, bad) in &before.bad {
        let good = before.good.get(path);
        let there = now.get(path).unwrap_or_else(|| panic!("{path} is gone"));
        assert!(there == bad || Some(there) == good, "{path} is neither what it was nor what it should be");
        // Nothing bad is lost: it may be all that there is.
        assert!(Some(bad) == good || there == bad || aside.contains(&bad), "{path} was bad, and was not kept");
    }
    for (path, body) in now.iter().filter(|(path, _)| !path.starts_with(layout::DAMAGED)) {
        assert!(before.bad.contains_key(path) || before.good.get(path) == Some(body), "{path} came from nowhere");
    }
    // Rule 1: a document is believed again behind everything that it names. One that was believed all the time is not the repair's.
    for at in site.listed(HURT).await {
        let path = at.0.snapshot(&at.1, ".json").to_string();
        let files = [path.clone(), format!("{path}.sig")];
        let mended = files.iter().any(|file| before.bad.get(file) != before.good.get(file))
            && files.iter().all(|file| now.get(file) == before.good.get(file));
        if mended {
            let (dir, id) = (&at.0, &at.1);
            let vault = &site.places[HURT].vault;
            let signed = vault.get_signed(&dir.snapshot(id, ".json"), &site.signers).await.unwrap();
            let (lines, _) = vault.get_inventory(&signed.doc).await.unwrap();
            let listed = vault.list_objects(dir).await.unwrap();
            assert!(lines.iter().all(|line| listed.contains(line)), "{id} is believed again, and not whole");
        }
    }
}

/// The next call ended it: byte for byte what the other vault has.
pub(super) async fn ended(site: &Site, before: &Before) {
    let mut now = everything(site, HURT).await;
    now.retain(|path, _| !path.starts_with(layout::DAMAGED));
    assert!(now == before.good, "something is not what it should be");
    for at in site.listed(HURT).await {
        site.read(HURT, &at).await.unwrap();
    }
}
