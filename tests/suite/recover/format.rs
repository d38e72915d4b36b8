//! The commands that `FORMAT.md` gives, run on a real vault, and signatures between this program and `ssh-keygen`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use backup_core::id::Hash256;
use backup_core::signature::{Namespace, SignatureError, Signers};
use backup_core::source::files::FilesOptions;
use chrono::{DateTime, Utc};
use harness::tools::tool;

use super::scene::Scene;
use super::tree::noise;

/// The line of `FORMAT.md`'s examples that holds `part`.
fn example(part: &str) -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../FORMAT.md")).unwrap();
    let mut inside = false;
    let examples = text.lines().filter(|line| {
        if line.starts_with("```") {
            inside = *line == "```sh";
        }
        inside && line.contains(part)
    });
    let found: Vec<&str> = examples.collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].to_owned()
}

#[tokio::test]
async fn the_commands_of_the_format_do_what_it_says() {
    let Some(scene) = Scene::new().await else { return };
    for name in ["stat", "grep"] {
        let Some(file) = tool(name) else { return harness::skip("stock-tools", &format!("not installed: {name}")) };
        symlink(file, scene.path("tools").join(name)).unwrap();
    }
    let root = scene.path("tree");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), noise(5 << 20, 3)).unwrap();
    fs::write(root.join("b"), "small").unwrap();
    let doc = scene.backup("conf", &FilesOptions::new(vec![root])).await.snapshot.doc;
    let copy = scene.copy_of_vault();
    let generation = copy.join(doc.dir().dir().as_str());
    let run = |line: &str| {
        let output = scene.shell(&line.replace("SNAPSHOT", &format!("snapshots/{}", doc.id)), &generation);
        let text = [output.stdout.clone(), output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned(), output.stdout)
    };

    // Objects by age and zstd, with the generation's key as unwrapped by an operator.
    let json: serde_json::Value =
        serde_json::from_slice(&read(&generation, &format!("snapshots/{}.json", doc.id))).unwrap();
    fs::write(generation.join("wrapped"), json["wrapped_key"].as_str().unwrap()).unwrap();
    let unwrap = format!("age -d -i {} -o generation.key wrapped", scene.path("identity").display());
    assert!(run(&unwrap).0);
    let open = example("| zstd -d");
    let mut manifest = Vec::new();
    for name in &doc.manifest.objects {
        let name = name.to_string();
        let (good, text, plain) = run(&open.replace("ab/ab34…", &format!("{}/{name}", &name[..2])));
        assert!(good, "{text}");
        manifest.extend(plain);
    }
    assert_eq!(Hash256::of(&manifest), doc.manifest.sha256);
    assert!(manifest.starts_with(b"backup-manifest 1\nsource files\nstream 1 tar "));

    // Completeness and hashes by the inventory; broken, both say so.
    let (sizes, hashes) = (example("stat -c"), example("sha256sum -c"));
    assert_eq!(run(&sizes).1, "");
    assert!(run(&hashes).0);
    let inventory = run("zstd -dc SNAPSHOT.inventory.zst").2;
    let names: Vec<String> = String::from_utf8(inventory).unwrap().lines().map(|line| line[..64].to_owned()).collect();
    assert!(names.len() >= 3, "{names:?}");
    assert_eq!(names.len() as u64, doc.inventory.objects);
    let victim = generation.join(format!("objects/{}/{}", &names[1][..2], names[1]));
    let mut bytes = fs::read(&victim).unwrap();
    bytes[100] ^= 1;
    fs::write(&victim, &bytes).unwrap();
    assert_eq!(run(&sizes).1, "");
    let (good, text, _) = run(&hashes);
    assert!(!good && text.contains(&names[1]), "{text}");
    fs::write(&victim, &bytes[1..]).unwrap();
    assert_eq!(run(&sizes).1, format!("bad {}\n", names[1]));

    // Documents by the command for signatures.
    fs::copy(scene.path("allowed_signers"), generation.join("allowed_signers")).unwrap();
    let verify = example("ssh-keygen -Y verify");
    let snapshot = verify.replace("S.json", &format!("snapshots/{}.json", doc.id));
    assert!(run(&snapshot).0);
    assert!(run(&verify.replace("S.json", "generation.json").replace("snapshot.v1", "generation.v1")).0);
    assert!(!run(&verify.replace("S.json", "generation.json")).0, "the namespace tells the kind of document");
    let mut bytes = read(&generation, &format!("snapshots/{}.json", doc.id));
    bytes[30] ^= 1;
    fs::write(generation.join(format!("snapshots/{}.json", doc.id)), bytes).unwrap();
    assert!(!run(&snapshot).0, "an altered document is believed");
}

#[tokio::test]
async fn what_ssh_keygen_signs_is_believed_like_our_own() {
    let Some(scene) = Scene::new().await else { return };
    let document = scene.path("document");
    fs::write(&document, "any bytes\n").unwrap();
    let line = format!("ssh-keygen -q -Y sign -n backup.mark.v1 -f {} document", scene.path("host_key").display());
    let signed = scene.shell(&line, document.parent().unwrap());
    assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    let signature = fs::read(scene.path("document.sig")).unwrap();
    let signers = Signers::parse(&fs::read_to_string(scene.path("allowed_signers")).unwrap()).unwrap();
    let at: DateTime<Utc> = "2026-11-21T02:00:00Z".parse().unwrap();
    let by = signers.check(Namespace::Mark, b"any bytes\n", &signature, at).unwrap();
    assert_eq!(by.fingerprint, scene.key.fingerprint());
    // Fail without `key.verify` in `Signers::check`.
    let other = signers.check(Namespace::Snapshot, b"any bytes\n", &signature, at);
    assert!(matches!(other, Err(SignatureError::Mismatch)), "{other:?}");
    let altered = signers.check(Namespace::Mark, b"any byteS\n", &signature, at);
    assert!(matches!(altered, Err(SignatureError::Mismatch)), "{altered:?}");
}

fn read(dir: &Path, name: &str) -> Vec<u8> {
    fs::read(dir.join(name)).unwrap()
}
