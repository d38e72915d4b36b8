//! What a vault answers about itself and its documents, each answer once the other way round.

use std::sync::Arc;

use backup_core::vault::Vault;
use backup_core::vault::document::{ExpiredDoc, Grounds, PruneStage};
use backup_core::vault::layout::recover;
use backup_core::vault::local::{LocalOptions, LocalStore};
use backup_core::vault::store::Store;

use super::prune::{prune, six_days};
use super::watch::Down;
use super::world::{World, host_key};

#[tokio::test]
async fn a_recovery_document_is_there_when_it_says_the_same_and_is_signed() {
    let world = World::new().await;
    let has = async |text| world.vault.has_recover(text, &world.signers, world.store.now()).await.unwrap();
    assert!(!world.vault.exists_recover().await.unwrap() && !has("how to").await);
    world.vault.put_recover("how to", &world.key).await.unwrap();
    assert!(world.vault.exists_recover().await.unwrap() && has("how to").await);
    assert!(!has("how not to").await);
    // Another's signature, and a body that is larger than what is read.
    world.vault.put_recover("how to", &host_key(9)).await.unwrap();
    assert!(!has("how to").await);
    world.vault.put_recover("how to", &world.key).await.unwrap();
    world.set(&recover(), Some(vec![b' '; 5 << 20])).await;
    assert!(!has("how to").await);
}

#[tokio::test]
async fn an_error_of_the_store_is_no_recovery_document_of_somebody_else() {
    let world = World::new().await;
    world.vault.put_recover("how to", &world.key).await.unwrap();
    for down in [Down::Away, Down::Denied] {
        world.watch.down(Some(down));
        world.vault.has_recover("how to", &world.signers, world.store.now()).await.unwrap_err();
        world.watch.down(None);
    }
}

#[tokio::test]
async fn a_link_where_the_recovery_document_belongs_is_none() {
    let world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(dir.path(), LocalOptions::default()).unwrap());
    let now = store.now().await.unwrap();
    let vault = Vault::create("first", store, world.vault.id().clone(), now, "backup 0").await.unwrap();
    vault.put_recover("how to", &world.key).await.unwrap();
    assert!(vault.has_recover("how to", &world.signers, now).await.unwrap());
    let path = dir.path().join(recover().as_str());
    std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
    assert!(!vault.has_recover("how to", &world.signers, now).await.unwrap());
}

#[tokio::test]
async fn a_vault_says_where_it_lies_and_that_it_has_no_locks() {
    let world = World::new().await;
    assert_eq!((world.vault.name(), world.vault.describe().as_str(), world.vault.locks()), ("first", "watched", false));
    assert_eq!(world.vault.children(None).await.unwrap(), ["vault.json"]);
}

#[tokio::test]
async fn documents_of_a_prune_have_grounds_only_where_an_operator_said_something() {
    let (world, docs) = six_days().await;
    prune(&world).await;
    let path = docs[0].dir().file(PruneStage::Expired.file());
    let text = String::from_utf8(world.body(&path).await).unwrap();
    assert!(!text.contains("grounds"), "{text}");
    let doc = ExpiredDoc {
        grounds: Grounds { without: vec!["lost".to_owned()], ..Grounds::default() },
        ..world.vault.get_signed(&path, &world.signers).await.unwrap().doc
    };
    world.vault.put_signed(&doc, &world.key).await.unwrap();
    let again = world.vault.get_signed::<ExpiredDoc>(&path, &world.signers).await.unwrap();
    assert_eq!(again.doc.grounds, doc.grounds);
}
