//! A vault that was damaged or meddled with: the script must say so and stop.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use backup_core::source::files::FilesOptions;
use backup_core::vault::document::SnapshotDoc;

use super::scene::{STACK, Scene, make_host_key, make_identity};
use super::tree::noise;

/// Two snapshots of one small source.
struct Two {
    scene: Scene,
    docs: [SnapshotDoc; 2],
}

impl Two {
    async fn new() -> Option<Self> {
        let scene = Scene::new().await?;
        let root = scene.path("tree");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("a"), noise(200_000, 7)).unwrap();
        let options = FilesOptions::new(vec![root.clone()]);
        let first = scene.backup("conf", &options).await.snapshot.doc;
        fs::write(root.join("b"), noise(300_000, 8)).unwrap();
        // Names hold whole seconds: the second must sort after the first.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let second = scene.backup("conf", &options).await.snapshot.doc;
        assert!(second.id > first.id);
        Some(Self { scene, docs: [first, second] })
    }

    /// A copy of the vault with `harm` done to it, and what the script makes of it.
    fn after(&self, harm: impl FnOnce(&Path)) -> super::scene::Recovered {
        let copy = self.scene.copy_of_vault();
        harm(&copy);
        self.scene.recover(&copy, "conf", &copy.join("out"), &[], &[])
    }

    fn file(&self, vault: &Path, which: usize, suffix: &str) -> PathBuf {
        let doc = &self.docs[which];
        vault.join(doc.dir().snapshot(&doc.id, suffix).as_str())
    }

    /// The newest snapshot's manifest object.
    fn manifest(&self, vault: &Path) -> PathBuf {
        let doc = &self.docs[1];
        vault.join(doc.dir().object(&doc.manifest.objects[0]).as_str())
    }

    /// An object of the newest snapshot that is no manifest: all others are data.
    fn data(&self, vault: &Path) -> Vec<PathBuf> {
        let manifests: Vec<String> =
            self.docs.iter().flat_map(|doc| &doc.manifest.objects).map(ToString::to_string).collect();
        let mut found = Vec::new();
        for folder in fs::read_dir(vault.join(self.docs[1].dir().objects().as_str())).unwrap() {
            for object in fs::read_dir(folder.unwrap().path()).unwrap() {
                let object = object.unwrap();
                if !manifests.contains(&object.file_name().into_string().unwrap()) {
                    found.push(object.path());
                }
            }
        }
        assert!(!found.is_empty());
        found
    }
}

fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn swap(one: &Path, two: &Path) {
    let (first, second) = (fs::read(one).unwrap(), fs::read(two).unwrap());
    fs::write(one, second).unwrap();
    fs::write(two, first).unwrap();
}

fn truncate(file: &Path) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
}

#[tokio::test]
async fn objects() {
    let Some(two) = Two::new().await else { return };
    two.after(|_| {}).succeeds();
    // Fails without the comparison with `$1` in the script's `object`.
    two.after(|vault| two.data(vault).iter().for_each(|object| flip(object))).fails("is damaged");
    two.after(|vault| two.data(vault).iter().for_each(|object| truncate(object))).fails("is damaged");
    two.after(|vault| truncate(&two.manifest(vault))).fails("is damaged");
    two.after(|vault| swap(&two.manifest(vault), &two.data(vault)[0])).fails("is damaged");
    // Fails without `[[ -e $path ]]` in `object`.
    two.after(|vault| two.data(vault).iter().for_each(|object| fs::remove_file(object).unwrap())).fails("is missing");
    two.after(|vault| fs::remove_file(two.manifest(vault)).unwrap()).fails("is missing");
}

#[tokio::test]
async fn documents() {
    let Some(two) = Two::new().await else { return };
    // Fail without `ssh-keygen -Y verify` in the script's step 2.
    two.after(|vault| flip(&two.file(vault, 1, ".json"))).fails("signature");
    two.after(|vault| swap(&two.file(vault, 0, ".json"), &two.file(vault, 1, ".json"))).fails("signature");
    two.after(|vault| fs::remove_file(two.file(vault, 1, ".json.sig")).unwrap()).fails("signature");
    two.after(|vault| swap(&two.file(vault, 0, ".json.sig"), &two.file(vault, 1, ".json.sig"))).fails("signature");
    // With its signature, an older snapshot under the newest name. Fails without `$(text id) == "$id"`.
    let both = |vault: &Path| {
        for suffix in [".json", ".json.sig"] {
            fs::copy(two.file(vault, 0, suffix), two.file(vault, 1, suffix)).unwrap();
        }
    };
    two.after(both).fails("does not belong where it lies");
    // Under another source. Fails without `$(text source) == "$source"`.
    let moved = |vault: &Path| fs::rename(vault.join(STACK).join("conf"), vault.join(STACK).join("other")).unwrap();
    let copy = two.scene.copy_of_vault();
    moved(&copy);
    two.scene.recover(&copy, "other", &copy.join("out"), &[], &[]).fails("does not belong where it lies");
    two.after(moved).fails("no snapshot of shop/conf");
    // A newer snapshot that nobody signed is not believed, and an older one can be named.
    let plant = |vault: &Path| {
        let newest = two.file(vault, 1, ".json");
        fs::copy(&newest, newest.with_file_name("29991231T000000Z-1b-aaaaaa.json")).unwrap();
    };
    two.after(plant).fails("to use another snapshot, name it");
    let copy = two.scene.copy_of_vault();
    plant(&copy);
    let named = two.docs[0].id.to_string();
    two.scene.recover(&copy, "conf", &copy.join("out"), &[&named], &[]).succeeds();
    assert!(!copy.join("out/files").join(two.scene.path("tree/b").strip_prefix("/").unwrap()).exists());
    two.scene.recover(&copy, "conf", &copy.join("out2"), &["20200101T000000Z-1b-aaaaaa"], &[]).fails("no snapshot");
}

#[tokio::test]
async fn signers_identities_and_tools() {
    let Some(two) = Two::new().await else { return };
    let (scene, copy) = (&two.scene, two.scene.copy_of_vault());
    let signers = scene.path("allowed_signers");
    let ours = fs::read_to_string(&signers).unwrap();

    let foreign = make_host_key(&scene.path("foreign")).allowed_signers_line() + "\n";
    fs::write(&signers, &foreign).unwrap();
    scene.recover(&copy, "conf", &copy.join("out"), &[], &[]).fails("signature");

    // A key that was ended after it signed still vouches. Fails without `-Overify-time`.
    fs::write(&signers, ours.replace("namespaces=", "valid-before=\"29990101Z\",namespaces=")).unwrap();
    scene.recover(&copy, "conf", &copy.join("out-valid"), &[], &[]).succeeds();
    let finished = two.docs[1].finished + chrono::TimeDelta::seconds(1);
    let ended = format!("valid-before=\"{}\",namespaces=", finished.format("%Y%m%d%H%M%SZ"));
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    fs::write(&signers, ours.replace("namespaces=", &ended)).unwrap();
    scene.recover(&copy, "conf", &copy.join("out-ended"), &[], &[]).succeeds();
    fs::write(&signers, ours.replace("namespaces=", "valid-before=\"20200101Z\",namespaces=")).unwrap();
    scene.recover(&copy, "conf", &copy.join("out-late"), &[], &[]).fails("signature");
    fs::write(&signers, &ours).unwrap();

    let identity = scene.path("identity");
    let right = fs::read(&identity).unwrap();
    fs::remove_file(&identity).unwrap();
    make_identity(&identity);
    scene.recover(&copy, "conf", &copy.join("out"), &[], &[]).fails("does not open the key");
    fs::write(&identity, right).unwrap();

    fs::create_dir(copy.join("out-there")).unwrap();
    scene.recover(&copy, "conf", &copy.join("out-there"), &[], &[]).fails("exists; name a new directory");

    // A full disk, here a `cat` that writes what looks like an empty archive and fails: the script goes on where `cat`
    // stands before a `&&` in `finish_stream`.
    let cat = scene.path("tools/cat");
    let real = fs::read_link(&cat).unwrap();
    fs::remove_file(&cat).unwrap();
    let script = format!(
        "#!/bin/bash\ncase $1 in */stream) printf '\\0%.0s' {{1..10240}}; echo 'cat: no space left' >&2; exit 1;; esac\n\
         exec {} \"$@\"\n",
        real.display()
    );
    fs::write(&cat, script).unwrap();
    fs::set_permissions(&cat, fs::Permissions::from_mode(0o755)).unwrap();
    scene.recover(&copy, "conf", &copy.join("out-full"), &[], &[]).fails("no space left");
}
