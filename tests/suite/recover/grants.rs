//! A granted identity recovers by the page, with stock `age`; what is planted among the grants neither opens nor hides one.

use std::fs;

use backup_core::grant;
use backup_core::seal::key::{Identities, NewKey};
use backup_core::signature::Signers;
use backup_core::source::files::FilesOptions;
use backup_core::vault::document::{GrantDoc, PublicDocument};

use super::scene::{Scene, clock, make_identity};
use super::tree::noise;

#[tokio::test]
async fn a_granted_identity_recovers_by_the_vaults_own_page() {
    let Some(scene) = Scene::new().await else { return };
    let root = scene.path("tree");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), noise(300_000, 5)).unwrap();
    let doc = scene.backup("conf", &FilesOptions::new(vec![root.clone()])).await.snapshot.doc;
    let recipient = make_identity(&scene.path("granted"));
    let attempt = || {
        let copy = scene.copy_of_vault();
        let out = copy.join("out");
        (scene.recover_as("granted", &copy, "conf", &out, &[], &[]), out)
    };
    attempt().0.fails("does not open the key of");

    // What an attacker can wrap for the recipient is a key of the attacker's own.
    let own = NewKey::generate(std::slice::from_ref(&recipient)).unwrap();
    let signers = Signers::pin_fingerprint(&scene.key.fingerprint());
    let locked = grant::locked(&scene.vault, &signers, &doc.dir()).await.unwrap();
    let identities = Identities::parse(&fs::read(scene.path("identity")).unwrap(), None).unwrap();
    let opener = grant::unlock(&scene.vault, &locked, &identities).await.unwrap();
    let good = grant::document(&opener, &locked, &recipient, (clock().now(), "backup 0"), None).unwrap();
    let planted = GrantDoc { wrapped_key: own.wrapped, ..good.clone() };
    let folder = scene.path("vault").join(doc.dir().grants().as_str());
    fs::create_dir_all(&folder).unwrap();
    let lines = |doc: &GrantDoc| backup_core::json::to_lines(doc);
    fs::write(folder.join("0000000000000000.json"), lines(&planted)).unwrap();
    fs::write(folder.join("0000000000000001.json"), "{}").unwrap();
    // Fails where what opens is believed without asking the snapshot's objects.
    attempt().0.fails("does not open the key of");
    fs::write(scene.path("vault").join(good.path().as_str()), lines(&good)).unwrap();
    let (recovered, out) = attempt();
    recovered.succeeds();
    let file = out.join("files").join(root.strip_prefix("/").unwrap()).join("a");
    assert_eq!(fs::read(file).unwrap(), noise(300_000, 5));
    assert!(!out.join("work").exists(), "the generation's key stays behind");
    // The page's words by hand: the key, then an object.
    let wrapped = good.wrapped_key.clone();
    fs::write(scene.path("WRAPPED"), wrapped).unwrap();
    let object = doc.dir().object(&doc.manifest.objects[0]);
    let by_hand = "age -d -i granted WRAPPED > KEY; age -d -i KEY \"vault/$OBJECT\" | zstd -d";
    let mut bash = scene.stock("bash");
    bash.args(["-euo", "pipefail", "-c", by_hand]).env("OBJECT", object.as_str()).current_dir(scene.path(""));
    let output = bash.output().unwrap();
    assert!(output.stdout.starts_with(b"backup-manifest 1\n"), "{}", String::from_utf8_lossy(&output.stderr));
}
