//! Grants: whoever is granted an old generation reads it and what comes later in it; what is planted, altered, moved or for
//! another key opens nothing and is told; no signed document changes.

use std::sync::Arc;

use age::secrecy::ExposeSecret;
use backup_core::grant::{self, Judged, Put, Standing, UnlockError};
use backup_core::monitor::Monitor;
use backup_core::prune::apply;
use backup_core::replicate::{Route, replicate, replicate_grants};
use backup_core::seal::key::{Identities, IdentityError, NewKey};
use backup_core::signature::{HostKey, Namespace};
use backup_core::vault::document::{GrantDoc, PruneStage, PublicDocument, SnapshotDoc};
use backup_core::vault::layout::{GenerationDir, signature_of};
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::store::{PutMode, Store};
use backup_core::vault::{Vault, VaultError};
use chrono::TimeDelta;

use super::prune::planned;
use super::watch::{Fault, Watch};
use super::world::{Script, Told, World, announcement, host_key, make_vault};

/// A new operator: recipient and identity.
fn operator() -> (String, Identities) {
    let identity = age::x25519::Identity::generate();
    let file = identity.to_string();
    (identity.to_public().to_string(), Identities::parse(file.expose_secret().as_bytes(), None).unwrap())
}

/// The document that grants a generation of `vault` to a recipient.
async fn made(world: &World, vault: &Vault, dir: &GenerationDir, recipient: &str, key: Option<&HostKey>) -> GrantDoc {
    let locked = grant::locked(vault, &world.signers, dir).await.unwrap();
    let opener = grant::unlock(vault, &locked, &world.identities).await.unwrap();
    grant::document(&opener, &locked, recipient, (world.host.now(), "backup 0"), key).unwrap()
}

async fn granted(
    world: &World,
    dir: &GenerationDir,
    recipient: &str,
    key: Option<&HostKey>,
) -> Result<Put, VaultError> {
    let doc = made(world, &world.vault, dir, recipient, key).await;
    grant::put(&world.vault, &world.signers, key, &doc).await
}

/// A snapshot, and a new operator beside the world's.
async fn scene() -> (World, SnapshotDoc, String, Identities) {
    let world = World::new().await;
    let doc = world.run(&Script::noise(600_000, 1)).await.unwrap().snapshot.doc;
    let (recipient, identities) = operator();
    (world, doc, recipient, identities)
}

#[tokio::test]
async fn a_granted_recipient_reads_what_was_stored_and_what_comes_later_in_the_generation() {
    for signed in [true, false] {
        let (mut world, doc, recipient, theirs) = scene().await;
        let ours = std::mem::replace(&mut world.identities, theirs);
        let refused = world.read_doc(&doc).await.unwrap_err();
        assert!(refused.contains("none of the given identities"), "{refused}");
        let theirs = std::mem::replace(&mut world.identities, ours);
        let before = world.watch.content("shop/db").await;
        let key = host_key(1);
        assert_eq!(granted(&world, &doc.dir(), &recipient, signed.then_some(&key)).await.unwrap(), Put::Made);
        // Nothing that was there is another; a signature comes with a signed one only.
        let after = world.watch.content("shop/db").await;
        assert!(before.iter().all(|file| after.contains(file)));
        assert_eq!(after.len() - before.len(), if signed { 2 } else { 1 });

        let later = world.run(&Script::noise(600_000, 2)).await.unwrap().snapshot.doc;
        assert_eq!(later.generation, doc.generation);
        // A grant found in a vault makes nobody a recipient.
        assert!(!later.recipients.contains(&recipient));
        let locked = grant::locked(&world.vault, &world.signers, &doc.dir()).await.unwrap();
        let standing = grant::standing(&world.vault, &world.signers, &locked, &recipient).await.unwrap();
        assert_eq!(standing, if signed { Standing::Granted } else { Standing::Unsigned });
        let (opens, unknown) =
            grant::opens(&world.vault, &world.signers, (&doc.stack, &doc.source), &recipient).await.unwrap();
        assert_eq!((opens.len(), opens[0].snapshots, unknown.len()), (1, 2, 0));

        let expected = [world.read_doc(&doc).await.unwrap(), world.read_doc(&later).await.unwrap()];
        let (_, stranger) = operator();
        let unlocked = grant::unlock(&world.vault, &locked, &stranger).await.map(drop);
        assert!(matches!(unlocked, Err(UnlockError::Key(IdentityError::NoMatch { .. }))), "{unlocked:?}");
        // Fails without the grants in `grant::unlock`.
        world.identities = theirs;
        assert_eq!([world.read_doc(&doc).await.unwrap(), world.read_doc(&later).await.unwrap()], expected);
        let verified = world.verify(true).await;
        assert!(!verified.is_damaged() && !verified.is_foreign(), "{verified:?}");
        assert!(verified.snapshots.iter().all(|verdict| verdict.checked), "{verified:?}");
        assert_eq!((verified.documents, verified.unsigned.len()), if signed { (1, 0) } else { (0, 1) });

        // Another set of recipients is another generation, to which nothing was granted.
        world.request.recipients.push(operator().0);
        let next = world.run(&Script::noise(600_000, 3)).await.unwrap().snapshot.doc;
        assert!(next.generation != doc.generation && world.read_doc(&next).await.is_err());
    }
}

/// What is planted where a grant belongs, with its signature; how `verify` calls it: unbelieved, foreign, unsigned.
struct Planted {
    name: &'static str,
    doc: Vec<u8>,
    signature: Option<Vec<u8>>,
    told: [usize; 3],
}

fn lines(doc: &GrantDoc) -> Vec<u8> {
    serde_json::to_vec(doc).unwrap()
}

#[tokio::test]
async fn what_is_no_grant_opens_nothing_and_is_told() {
    let (mut world, doc, recipient, theirs) = scene().await;
    let other = {
        world.pass(TimeDelta::days(8));
        world.run(&Script::noise(600_000, 2)).await.unwrap().snapshot.doc
    };
    assert_ne!(other.generation, doc.generation);
    let (key, stranger) = (host_key(1), host_key(9));
    let good = made(&world, &world.vault, &doc.dir(), &recipient, Some(&key)).await;
    let moved = made(&world, &world.vault, &other.dir(), &recipient, Some(&key)).await;
    // A key of the attacker's own, wrapped for the recipient: their objects would open with it, ours must not be asked to.
    let own = NewKey::generate(std::slice::from_ref(&recipient)).unwrap();
    let foreign = GrantDoc { public_key: own.public_key.clone(), wrapped_key: own.wrapped.clone(), ..good.clone() };
    let lying = GrantDoc { wrapped_key: own.wrapped.clone(), ..good.clone() };
    let unsigned = |doc: &GrantDoc| GrantDoc { signer: None, ..doc.clone() };
    let sign = |doc: &GrantDoc, key: &HostKey| Some(key.sign(Namespace::Grant, &lines(doc)).unwrap().into_bytes());
    let mut flipped = lines(&good);
    let at = flipped.len() / 2;
    flipped[at] ^= 1;
    let renamed = GrantDoc { generation: doc.generation.clone(), ..moved.clone() };
    let all = [
        Planted { name: "altered", doc: flipped, signature: sign(&good, &key), told: [1, 0, 0] },
        Planted { name: "not a document", doc: b"{}".to_vec(), signature: None, told: [1, 0, 0] },
        Planted { name: "moved", doc: lines(&moved), signature: sign(&moved, &key), told: [1, 0, 0] },
        Planted { name: "moved and renamed", doc: lines(&unsigned(&renamed)), signature: None, told: [1, 0, 0] },
        Planted { name: "another key", doc: lines(&unsigned(&foreign)), signature: None, told: [1, 0, 0] },
        Planted { name: "another key, signed", doc: lines(&foreign), signature: sign(&foreign, &key), told: [1, 0, 0] },
        // Only whoever has the identity sees that it does not hold what it says.
        Planted { name: "another key inside", doc: lines(&unsigned(&lying)), signature: None, told: [1, 0, 1] },
        Planted { name: "a stranger's", doc: lines(&lying), signature: sign(&lying, &stranger), told: [0, 1, 0] },
        Planted { name: "too large", doc: vec![b' '; 70 << 10], signature: None, told: [1, 0, 0] },
    ];
    world.identities = theirs;
    for Planted { name, doc: body, signature, told } in all {
        let path = doc.dir().grant(&recipient);
        world.set(&path, Some(body)).await;
        world.set(&signature_of(&path), signature).await;
        // Fails without the comparison with the signed public key in `Identities::unwrap_key`, or the path in `get_unproved`.
        let refused = world.read_doc(&doc).await.expect_err(name);
        assert!(refused.contains("none of the given identities"), "{name}: {refused}");
        let verified = world.verify(true).await;
        let found = [verified.unbelieved.len(), verified.foreign.len(), verified.unsigned.len()];
        // Fails without `grants::look` in `verify`.
        assert_eq!(found, told, "{name}: {verified:?}");
        assert_eq!(verified.documents, 0, "{name}");
        assert!(verified.snapshots.iter().all(|verdict| verdict.damage.is_empty()), "{name}: {verified:?}");
    }
    // The right one, with a signature that nobody pinned: it opens, for it proves itself, and is told.
    let path = doc.dir().grant(&recipient);
    world.set(&path, Some(lines(&good))).await;
    world.set(&signature_of(&path), sign(&good, &stranger)).await;
    world.read_doc(&doc).await.unwrap();
    assert_eq!(world.verify(true).await.foreign.len(), 1);
    // Without the signature that it says it has, it is not called unsigned.
    world.set(&signature_of(&path), None).await;
    assert_eq!(world.verify(false).await.unbelieved.len(), 1);
    // What is not named as a grant is nobody's.
    for name in [
        "grants/x.json",
        "grants/0123456789abcdef.txt",
        "grants/0123456789abcdeF.json",
        "grants/a/0123456789abcdef.json",
    ] {
        assert!(!doc.dir().is_grant(&doc.dir().file(name)), "{name}");
    }
    world.set(&path, None).await;
    world.set(&doc.dir().file("grants/x.json"), Some(b"{}".to_vec())).await;
    assert!(!world.verify(true).await.is_damaged());
}

#[tokio::test]
async fn every_call_of_a_grant_may_fail_and_the_next_grant_mends_it() {
    for signed in [true, false] {
        let calls = {
            let (world, doc, recipient, _) = scene().await;
            let key = host_key(1);
            let key = signed.then_some(&key);
            let grant = made(&world, &world.vault, &doc.dir(), &recipient, key).await;
            world.watch.fail(None);
            assert_eq!(grant::put(&world.vault, &world.signers, key, &grant).await.unwrap(), Put::Made);
            world.watch.calls()
        };
        assert!(calls >= 5, "{calls}");
        for at in 0..calls {
            for fault in [Fault::Refused, Fault::AnswerLost] {
                let (mut world, doc, recipient, theirs) = scene().await;
                let key = host_key(1);
                let before = world.watch.content("shop/db").await;
                let grant = made(&world, &world.vault, &doc.dir(), &recipient, signed.then_some(&key)).await;
                world.watch.fail(Some((at, fault)));
                let put = async || grant::put(&world.vault, &world.signers, signed.then_some(&key), &grant).await;
                let ended = put().await;
                world.watch.fail(None);
                // A lost answer that said "not there" says the same as the next look.
                let noticed = ended.is_err() || ended.is_ok_and(|put| put != Put::Made);
                assert!(noticed || fault == Fault::AnswerLost, "call {at} was not noticed");
                let after = world.watch.content("shop/db").await;
                assert!(before.iter().all(|file| after.contains(file)), "call {at} {fault:?}");
                let verified = world.verify(true).await;
                assert!(!verified.is_damaged() && !verified.is_foreign(), "call {at} {fault:?}: {verified:?}");
                world.run(&Script::noise(600_000, 2)).await.unwrap();
                assert_eq!(put().await.unwrap(), Put::Made);
                world.identities = theirs;
                world.read_doc(&doc).await.unwrap();
                assert!(!world.verify(true).await.is_damaged());
            }
        }
    }
}

#[tokio::test]
async fn signed_grants_are_replicated_and_no_others() {
    let (mut world, doc, recipient, theirs) = scene().await;
    let there = Watch::new(MemoryStore::new(world.store.clock()));
    let to = make_vault("second", &there, world.store.now()).await;
    let route = Route { from: &world.vault, to: &to, signers: &world.signers, monitor: &world.monitor };
    let place = (&world.request.stack, &world.request.source);
    assert_eq!(replicate(route, place.0, place.1, &|_| true, false).await.errors.len(), 0);
    let told = Arc::new(Told::default());
    let monitor: Arc<dyn Monitor> = told.clone();
    let copy_but = async |revoked: &[String]| {
        let (put, errors) = replicate_grants((&world.vault, &to), &world.signers, place, revoked, &monitor).await;
        assert!(errors.is_empty(), "{errors:?}");
        put
    };
    let copy = async || copy_but(&[]).await;
    let key = host_key(1);
    let path = doc.dir().grant(&recipient);
    granted(&world, &doc.dir(), &recipient, None).await.unwrap();
    // Fails where what nobody signed is spread.
    assert_eq!((copy().await, to.exists(&path).await.unwrap()), (0, false));
    granted(&world, &doc.dir(), &recipient, Some(&key)).await.unwrap();
    // Fails where a vault that was away when a recipient was revoked brings its grant back.
    assert_eq!((copy_but(std::slice::from_ref(&recipient)).await, told.count("which is revoked")), (0, 1));
    assert_eq!((copy().await, copy().await), (1, 0));
    let judged = grant::judge(&to, &world.signers, &path, Some(&doc.public_key)).await.unwrap();
    assert!(matches!(judged, Judged::Signed(_)), "{judged:?}");
    // A stranger's in its place gives way.
    let stored = there.content(path.as_str().rsplit_once('/').unwrap().0).await;
    there.memory.put(&path, "{}".into(), PutMode::Replace).await.unwrap();
    assert_eq!(copy().await, 1);
    assert_eq!(there.content(path.as_str().rsplit_once('/').unwrap().0).await, stored);
    // Of a generation that is not there nothing is begun, nor of one that is being deleted.
    world.vault = to;
    world.identities = theirs;
    world.read_doc(&doc).await.unwrap();
}

#[tokio::test]
async fn grants_go_with_their_generation_after_its_objects() {
    let mut world = World::new().await;
    world.request.period = "1d".parse().unwrap();
    let mut docs = Vec::new();
    for seed in 1..=7 {
        world.pass(TimeDelta::days(1));
        docs.push(world.run(&Script::noise(100_000, seed)).await.unwrap().snapshot.doc);
    }
    let dir = docs[0].dir();
    let (recipient, _) = operator();
    let key = host_key(1);
    granted(&world, &dir, &recipient, Some(&key)).await.unwrap();
    world.set(&dir.file("grants/notes.txt"), Some(b"somebody's".to_vec())).await;
    for seed in 8..=9 {
        let plan = planned(&world).await;
        world.watch.fail(None);
        apply(&world.vault, &world.key, &plan).await.unwrap();
        if seed == 8 {
            world.pass(TimeDelta::days(1));
            world.run(&Script::noise(100_000, seed)).await.unwrap();
        }
    }
    let deleted: Vec<String> =
        world.watch.paths("delete").into_iter().filter(|path| path.starts_with(dir.dir().as_str())).collect();
    let at = |part: &str| deleted.iter().position(|path| path.contains(part)).unwrap_or_else(|| panic!("{deleted:?}"));
    // Fails without the grants in `prune::rank`.
    assert!(at("/objects/") < at("/grants/") && at("/grants/") < at("/deleting.json"), "{deleted:?}");
    let left: Vec<String> = world.watch.content(dir.dir().as_str()).await.into_iter().map(|(path, _)| path).collect();
    assert_eq!(left, [dir.file("grants/notes.txt").to_string()]);
}

#[tokio::test]
async fn a_generation_that_is_being_deleted_is_not_granted() {
    let (world, doc, recipient, _) = scene().await;
    for (path, body) in announcement(&doc, PruneStage::Deleting, &world.key) {
        world.set(&path, Some(body)).await;
    }
    let key = host_key(1);
    let grant = made(&world, &world.vault, &doc.dir(), &recipient, Some(&key)).await;
    assert_eq!(grant::put(&world.vault, &world.signers, Some(&key), &grant).await.unwrap(), Put::TooLate);
    assert!(!world.vault.exists(&grant.path()).await.unwrap());
    // A key that may not sign grants is noticed.
    let (world, doc, recipient, _) = scene().await;
    let stranger = host_key(9);
    let ended = granted(&world, &doc.dir(), &recipient, Some(&stranger)).await.unwrap();
    assert_eq!(ended, Put::NotBelieved);
}

/// Two operators grant at once, or somebody puts back another one: whoever is told "made" made what lies there.
#[tokio::test]
async fn a_grant_that_another_one_replaced_is_not_called_made() {
    for (ours_signed, theirs_signed) in [(true, true), (true, false), (false, true), (false, false)] {
        let (world, doc, recipient, _) = scene().await;
        let key = host_key(1);
        let ours = made(&world, &world.vault, &doc.dir(), &recipient, ours_signed.then_some(&key)).await;
        world.pass(TimeDelta::seconds(1));
        // As good as ours in every way, and wrapped by another call.
        let theirs = made(&world, &world.vault, &doc.dir(), &recipient, theirs_signed.then_some(&key)).await;
        assert_ne!(ours, theirs);
        let (path, signature) = (theirs.path(), signature_of(&theirs.path()));
        let body = lines(&theirs);
        let signed = key.sign(Namespace::Grant, &body).unwrap();
        let (memory, at) = (world.watch.memory.clone(), path.to_string());
        world.watch.before_get_or_delete(move |asked| {
            let there = futures::executor::block_on(memory.stat(&path)).unwrap();
            if asked == at && there.is_some() {
                let put = |path, body| futures::executor::block_on(memory.put(path, body, PutMode::Replace)).unwrap();
                put(&path, body.clone().into());
                if theirs_signed {
                    put(&signature, signed.clone().into());
                } else {
                    futures::executor::block_on(memory.delete(&signature)).unwrap();
                }
            }
        });
        let ended = grant::put(&world.vault, &world.signers, ours_signed.then_some(&key), &ours).await.unwrap();
        // Fails where `put` is content with any grant that it reads back.
        assert_eq!(ended, Put::NotBelieved, "ours signed: {ours_signed}, theirs: {theirs_signed}");
    }
}
