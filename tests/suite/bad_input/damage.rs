//! What lies in a vault, damaged: each place × each way, by `verify` and by `restore`. Both must name it and end with 4,
//! and nothing may have come back. The stack has one vault, so that no good copy hides the damage.

use std::fs;
use std::path::{Path, PathBuf};

use backup_core::signature::{HostKey, Namespace};
use serde_json::Value;

use super::{Stack, assert_said, databases, files_below};
use crate::suite::stack::noise;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Document,
    /// The document together with its signature.
    Both,
    Signature,
    Inventory,
    Manifest,
    Object,
    Generation,
    GenerationSignature,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Action {
    Missing,
    Truncated,
    Flipped,
    /// By another one of its kind that is valid in its own place.
    Swapped,
}

/// How `restore` of the snapshot ends; `verify` always ends with 4.
const RESTORED: i32 = 0;
const UNKNOWN: i32 = 2;
const DAMAGED: i32 = 4;

const MATRIX: &[(Place, Action, i32)] = &[
    // Its document is its presence: without it there is no such snapshot, and `verify` misses this host's newest one.
    (Place::Document, Action::Missing, UNKNOWN),
    (Place::Document, Action::Truncated, DAMAGED),
    (Place::Document, Action::Flipped, DAMAGED),
    (Place::Document, Action::Swapped, DAMAGED),
    (Place::Both, Action::Swapped, DAMAGED),
    (Place::Signature, Action::Missing, DAMAGED),
    (Place::Signature, Action::Truncated, DAMAGED),
    (Place::Signature, Action::Flipped, DAMAGED),
    (Place::Signature, Action::Swapped, DAMAGED),
    // A restore reads the manifest, not the inventory: what it needs is there.
    (Place::Inventory, Action::Missing, RESTORED),
    (Place::Inventory, Action::Truncated, RESTORED),
    (Place::Inventory, Action::Flipped, RESTORED),
    (Place::Inventory, Action::Swapped, RESTORED),
    (Place::Manifest, Action::Missing, DAMAGED),
    (Place::Manifest, Action::Truncated, DAMAGED),
    (Place::Manifest, Action::Flipped, DAMAGED),
    (Place::Manifest, Action::Swapped, DAMAGED),
    (Place::Object, Action::Missing, DAMAGED),
    (Place::Object, Action::Truncated, DAMAGED),
    (Place::Object, Action::Flipped, DAMAGED),
    (Place::Object, Action::Swapped, DAMAGED),
    // The wrapped key is in every snapshot's document again: that is why a restore goes on.
    (Place::Generation, Action::Missing, RESTORED),
    (Place::Generation, Action::Truncated, RESTORED),
    (Place::Generation, Action::Flipped, RESTORED),
    (Place::Generation, Action::Swapped, RESTORED),
    (Place::GenerationSignature, Action::Missing, RESTORED),
    (Place::GenerationSignature, Action::Flipped, RESTORED),
];

/// A stack with one vault and three snapshots of each source, and a copy of that vault.
struct Scene {
    stack: Stack,
    docs: Vec<String>,
    db: Vec<String>,
    ops: String,
}

impl Scene {
    fn new() -> Self {
        let stack = Stack::new();
        stack.drop_offsite();
        stack.init();
        for key in 1..=3_u8 {
            // Other bytes each time, so that each snapshot has an object of its own.
            let model: Vec<u8> = noise(300_000).into_iter().map(|byte| byte ^ key).collect();
            fs::write(stack.path("data/sub/model.bin"), model).unwrap();
            stack.pg.psql("app", &format!("UPDATE orders SET amount = amount + {key}"));
            stack.run().expect(0);
        }
        copy_tree(&stack.path("local"), &stack.path("pristine"));
        let ops = stack.text("operator/ops.txt");
        let (docs, db) = (stack.ids("docs"), stack.ids("db"));
        assert_eq!((docs.len(), db.len()), (3, 3));
        let mut scene = Self { stack, docs: Vec::new(), db: Vec::new(), ops };
        // By their commit: runs may be so fast that several names begin with the same second.
        let ordered = |source: &str, mut ids: Vec<String>| {
            ids.sort_by_key(|id| scene.document(source, id)["finished"].as_str().unwrap().to_owned());
            ids
        };
        (scene.docs, scene.db) = (ordered("docs", docs), ordered("db", db));
        scene
    }

    /// The vault as it was.
    fn mend(&self) {
        fs::remove_dir_all(self.stack.path("local")).unwrap();
        copy_tree(&self.stack.path("pristine"), &self.stack.path("local"));
    }

    fn generation(&self, source: &str) -> PathBuf {
        let folders = fs::read_dir(self.stack.path("local/s").join(source)).unwrap().map(|entry| entry.unwrap().path());
        folders.into_iter().find(|path| path.join("generation.json").exists()).unwrap()
    }

    fn file(&self, source: &str, id: &str, suffix: &str) -> PathBuf {
        self.generation(source).join("snapshots").join(format!("{id}{suffix}"))
    }

    fn document(&self, source: &str, id: &str) -> Value {
        serde_json::from_slice(&fs::read(self.file(source, id, ".json")).unwrap()).unwrap()
    }

    /// The object of the manifest, or the largest one that only this snapshot needs.
    fn object(&self, source: &str, id: &str, manifest: bool) -> PathBuf {
        let objects = self.generation(source).join("objects");
        let named = self.document(source, id)["manifest"]["objects"][0].as_str().unwrap().to_owned();
        let manifest_object = objects.join(&named[..2]).join(&named);
        if manifest {
            return manifest_object;
        }
        // Written for this snapshot: not older than its predecessor's commit, not younger than its own.
        let ids = if source == "docs" { &self.docs } else { &self.db };
        let at = ids.iter().position(|one| one == id).unwrap();
        let needs = |id: &String| inventory(&self.file(source, id, ".inventory.zst"));
        let before = if at == 0 { String::new() } else { needs(&ids[at - 1]) };
        let own = needs(&ids[at]);
        let fresh = own.lines().filter(|line| !before.contains(line) && !line.contains(&named));
        let largest = fresh.max_by_key(|line| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap()).unwrap();
        let name = largest.split(' ').next().unwrap();
        objects.join(&name[..2]).join(name)
    }

    /// The file of a place, and another valid one of its kind.
    fn pair(&self, place: Place) -> (PathBuf, PathBuf) {
        let (one, other) = (&self.docs[2], &self.docs[1]);
        let both = |suffix| (self.file("docs", one, suffix), self.file("docs", other, suffix));
        match place {
            Place::Document | Place::Both => both(".json"),
            Place::Signature => both(".json.sig"),
            Place::Inventory => both(".inventory.zst"),
            Place::Manifest => (self.object("docs", one, true), self.object("docs", other, true)),
            Place::Object => (self.object("docs", one, false), self.object("docs", other, false)),
            Place::Generation => ["docs", "db"].map(|source| self.generation(source).join("generation.json")).into(),
            Place::GenerationSignature => {
                ["docs", "db"].map(|source| self.generation(source).join("generation.json.sig")).into()
            }
        }
    }

    fn spoil(&self, place: Place, action: Action) -> PathBuf {
        let (file, other) = self.pair(place);
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        match action {
            Action::Missing => fs::remove_file(&file).unwrap(),
            Action::Truncated => fs::write(&file, &bytes[..bytes.len() - 7]).unwrap(),
            Action::Flipped => {
                bytes[middle] ^= 1;
                fs::write(&file, bytes).unwrap();
            }
            Action::Swapped => {
                let (swapped, signature) = (fs::read(&other).unwrap(), |path: &Path| path.with_extension("json.sig"));
                assert_ne!(bytes, swapped);
                fs::write(&file, swapped).unwrap();
                if place == Place::Both {
                    fs::copy(signature(&other), signature(&file)).unwrap();
                }
            }
        }
        file
    }

    fn verify(&self) -> super::Out {
        self.stack.backup(&["verify", "--source", "docs", "--identity", &self.ops])
    }

    fn restore(&self, id: &str, into: &str) -> super::Out {
        self.stack.backup(&["restore", id, "--into-dir", &self.stack.text(into), "--identity", &self.ops])
    }
}

/// The text of an inventory, by the stock program.
fn inventory(path: &Path) -> String {
    let output = std::process::Command::new("zstd").arg("-dcq").arg(path).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn each_place_and_each_way_is_found_and_named() {
    let scene = Scene::new();
    scene.verify().expect(0);
    for (at, (place, action, restored)) in MATRIX.iter().enumerate() {
        let name = format!("{place:?} {action:?}");
        let file = scene.spoil(*place, *action);
        let looked = scene.verify();
        assert_eq!(looked.code, 4, "{name}, verify:\n{}", looked.all());
        let named = match (place, action) {
            (Place::Document, Action::Missing) => "is in no vault".to_owned(),
            // By the snapshot's name, which is the file's without its ends; objects by their own.
            _ => file.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned(),
        };
        assert!(looked.stdout.contains(&named), "{name}, verify does not name `{named}`:\n{}", looked.all());

        let into = format!("back{at}");
        let back = scene.restore(&scene.docs[2], &into);
        if *restored == RESTORED {
            assert_eq!(back.code, 0, "{name}, restore:\n{}", back.all());
            assert!(!files_below(&scene.stack.path(&into)).is_empty());
        } else {
            let named = if *restored == UNKNOWN { "no such snapshot".to_owned() } else { named };
            let hint = if *restored == UNKNOWN { "`backup list`" } else { "backup" };
            assert_said(&scene.stack, &name, &back, *restored, &[&named], hint);
            let left = scene.stack.path(&into);
            assert!(!left.exists(), "{name}, restore left {:?}", files_below(&left));
        }
        // What is good beside it comes back.
        if !matches!(place, Place::Generation | Place::GenerationSignature) {
            scene.restore(&scene.docs[0], &format!("old{at}")).expect(0);
        }
        scene.mend();
    }
    scene.verify().expect(0);
    scene.stack.run().expect(0);
    scene.verify().expect(0);
}

#[test]
fn a_damaged_database_leaves_no_database() {
    let scene = Scene::new();
    let before = databases(&scene.stack);
    for action in [Action::Missing, Action::Truncated, Action::Flipped] {
        let object = scene.object("db", &scene.db[0], false);
        match action {
            Action::Missing => fs::remove_file(&object).unwrap(),
            Action::Truncated => fs::write(&object, &fs::read(&object).unwrap()[1..]).unwrap(),
            _ => {
                let mut bytes = fs::read(&object).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(&object, bytes).unwrap();
            }
        }
        let name = object.file_name().unwrap().to_str().unwrap().to_owned();
        let back = scene.stack.backup(&["restore", &scene.db[0], "--into", "again", "--identity", &scene.ops]);
        assert_said(&scene.stack, &format!("{action:?}"), &back, 4, &[&name], "another vault");
        assert_eq!(databases(&scene.stack), before, "{action:?}: {}", back.all());
        scene.mend();
    }
    scene.stack.backup(&["restore", &scene.db[0], "--into", "again", "--identity", &scene.ops]).expect(0);
}

#[test]
fn what_is_damaged_in_one_vault_comes_from_the_other() {
    let stack = Stack::ready();
    stack.run().expect(0);
    let (id, ops) = (stack.ids("docs")[0].clone(), stack.text("operator/ops.txt"));
    let restore = |into: &str, more: &[&str]| {
        let into = stack.text(into);
        stack.backup(&[&["restore", &id, "--into-dir", &into, "--identity", &ops], more].concat())
    };
    let files = stack.vault_files("local", "docs");
    let largest = files.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let good = fs::read(largest).unwrap();
    fs::write(largest, &good[..good.len() - 1]).unwrap();
    let name = largest.file_name().unwrap().to_str().unwrap();
    // What is not good there is taken from the next vault, and the damage is named.
    let mended = restore("back", &[]).expect(0);
    assert!(mended.stderr.contains("vault `local` is damaged") && mended.stderr.contains(name), "{}", mended.stderr);
    let looked = stack.backup(&["verify", "--source", "docs"]).expect(4);
    let advice = format!("`backup restore {id} --vault offsite --identity FILE`");
    assert!(looked.stdout.contains(&advice) && looked.stdout.contains(name), "{}", looked.stdout);
    super::assert_commands_parse(&stack, "verify", &advice);
    restore("back1", &["--vault", "offsite"]).expect(0);
    assert_said(&stack, "object", &restore("back3", &["--vault", "local"]), 4, &[name], "another vault");
    assert!(!stack.path("back3").exists());
    fs::write(largest, good).unwrap();
    // A document that cannot be believed is passed over without being asked, and named.
    let signature = files.iter().find(|path| path.ends_with(format!("{id}.json.sig"))).unwrap();
    fs::write(signature, "damaged").unwrap();
    let passed = restore("back2", &[]).expect(0);
    assert!(passed.stderr.contains(&id) && passed.stderr.contains("trying the next vault"), "{}", passed.stderr);
}

#[test]
fn a_chain_with_a_gap_is_told() {
    let scene = Scene::new();
    for suffix in [".json", ".json.sig", ".inventory.zst"] {
        fs::remove_file(scene.file("docs", &scene.docs[1], suffix)).unwrap();
    }
    let looked = scene.verify().expect(4);
    let told = format!("between `{}` and `{}` is missing", scene.docs[0], scene.docs[2]);
    assert!(looked.stdout.contains(&told), "{}", looked.stdout);
    // The newest one itself is whole.
    scene.restore(&scene.docs[2], "back").expect(0);
}

#[test]
fn a_snapshot_of_a_newer_format_is_refused_by_name() {
    let scene = Scene::new();
    let path = scene.file("docs", &scene.docs[2], ".json");
    let text = fs::read_to_string(&path).unwrap();
    let newer = text.replacen("\"format\": 1", "\"format\": 2", 1).replacen("\"format\":1", "\"format\":2", 1);
    assert_ne!(text, newer);
    let key = HostKey::from_openssh(&fs::read_to_string(scene.stack.path("etc/host_key")).unwrap()).unwrap();
    fs::write(path.with_extension("json.sig"), key.sign(Namespace::Snapshot, newer.as_bytes()).unwrap()).unwrap();
    fs::write(&path, newer).unwrap();
    let back = scene.restore(&scene.docs[2], "back");
    let says = [scene.docs[2].as_str(), "format 2", "up to 1"];
    assert_said(&scene.stack, "newer", &back, 1, &says, "newer version of this program");
    assert!(files_below(&scene.stack.path("back")).is_empty());
    let looked = scene.verify();
    assert!(looked.code != 0 && looked.stdout.contains("format 2"), "{}", looked.all());
    scene.mend();
    scene.restore(&scene.docs[2], "back").expect(0);
}

#[test]
fn an_unknown_signer_is_told_by_verify() {
    let scene = Scene::new();
    let other = scene.stack.backup(&["key", "new", "--host", &scene.stack.text("operator/other_host")]).expect(0);
    fs::write(scene.stack.path("etc/allowed_signers"), other.stdout).unwrap();
    let looked = scene.verify();
    assert_eq!(looked.code, 12, "{}", looked.all());
    assert!(looked.stdout.contains("not among the pinned signers"), "{}", looked.stdout);
}
