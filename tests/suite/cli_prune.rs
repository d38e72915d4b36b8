//! `prune` and `purge` through the binary, over vaults whose history is six days old.
//!
//! The history is made by the engine with clocks of its own, and laid out as a directory vault has it, files dated as they
//! came. So the binary, which knows only the machine's clock, finds what a week of runs leaves behind.

use std::fs::{self, File};
use std::path::PathBuf;

use backup_core::id::Hash256;
use backup_core::signature::Namespace;
use backup_core::state::State;
use backup_core::vault::document::{ExpiredDoc, ReceiptDoc, SnapshotDoc};
use backup_core::vault::layout::GenerationDir;
use backup_core::vault::store::Store;
use chrono::{DateTime, TimeDelta, Utc};

use super::engine::prune::day;
use super::engine::world::{World, host_key, host_key_text};
use super::host::{Ended, Host};
use super::stack::files_below;

#[expect(clippy::disallowed_methods, reason = "the program under test reads the same clock")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

/// Text without the breaks of a table's lines.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

const WHY: &str = "customer 4711 asked for it";

/// Two vaults with the same six daily generations, the last of them a minute old.
struct Scene {
    host: Host,
    docs: Vec<SnapshotDoc>,
}

impl Scene {
    async fn new() -> Self {
        let mut world = World::new().await;
        world.request.period = "1d".parse().unwrap();
        world.pass(now() - world.host.now() - TimeDelta::days(6) - TimeDelta::minutes(7));
        let mut docs = Vec::new();
        for seed in 1..=6 {
            docs.push(day(&world, seed).await);
        }
        world.vault.put_recover("how to restore", &host_key(1)).await.unwrap();
        let host = Host::new();
        for name in ["data", "local", "offsite"] {
            fs::create_dir(host.path(name)).unwrap();
        }
        // No smaller than a day of the past: a run would call that suspect, and expiry would freeze.
        fs::write(host.path("data/a.txt"), "hello".repeat(20_000)).unwrap();
        let more = host.good(&["key", "new", "more.txt"]).out;
        let key = host_key(1);
        fs::write(host.path("host_key"), host_key_text(1)).unwrap();
        fs::write(host.path("signers"), format!("{}\n", key.allowed_signers_line())).unwrap();
        let vault = |name: &str, keep: &str| {
            let id = &Hash256::of(name.as_bytes()).to_string()[..32];
            format!("[vault.{name}]\nid = \"{id}\"\npath = \"{name}\"\nkeep = {{ within = \"{keep}\", min = 1 }}\n")
        };
        let text = format!(
            "schema = 1\nstack = \"shop\"\nstate = \"state\"\ngeneration = \"1d\"\nlimits = {{ reserve = \"0%\" }}\n[keys]\n\
             recipients = [\"{}\"]\nsigners = \"signers\"\nhost_key = \"host_key\"\n{}{}[source.db]\ntype = \"files\"\npaths = [\"data\"]\n",
            more.trim(),
            vault("local", "2d"),
            vault("offsite", "30d")
        );
        fs::write(host.path("backup.toml"), text).unwrap();
        let scene = Self { host, docs };
        for name in ["local", "offsite"] {
            scene.lay_out(&world, name).await;
        }
        scene
    }

    /// Everything of the world's vault as files, dated as they came; `vault.json` under the vault's own id.
    async fn lay_out(&self, world: &World, vault: &str) {
        for entry in world.watch.memory.list(None).await.unwrap() {
            let bytes = world.body(&entry.path).await;
            let bytes = if entry.path.as_str() == "vault.json" {
                let id = Hash256::of(vault.as_bytes()).to_string()[..32].to_owned();
                String::from_utf8(bytes).unwrap().replace(world.vault.id().as_str(), &id).into_bytes()
            } else {
                bytes
            };
            let path = self.host.path(vault).join(entry.path.as_str());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(entry.modified.into()).unwrap();
        }
    }

    /// Those whose generations are closed: the ones that `local` may let go.
    fn closed(&self) -> Vec<usize> {
        (0..6).filter(|at| self.docs[*at].dir().id.is_closed(now())).collect()
    }

    /// The others of them.
    fn open(&self) -> Vec<usize> {
        (0..6).filter(|at| !self.closed().contains(at)).collect()
    }

    fn generation(&self, at: usize) -> String {
        self.docs[at].generation.to_string()
    }

    fn folder(&self, vault: &str, at: usize) -> PathBuf {
        self.host.path(vault).join(self.docs[at].dir().dir().as_str())
    }

    /// The snapshots that are left in a vault, of the six.
    fn left(&self, vault: &str) -> Vec<usize> {
        let there = |at: &usize| self.folder(vault, *at).join(format!("snapshots/{}.json", self.docs[*at].id)).exists();
        (0..6).filter(there).collect()
    }

    fn receipts(&self, vault: &str) -> Vec<ReceiptDoc> {
        let files = files_below(&self.host.path(vault).join("shop/db/receipts"));
        let documents = files.iter().filter(|path| path.extension().unwrap() == "json");
        documents.map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect()
    }

    fn announcement(&self, vault: &str, at: usize) -> ExpiredDoc {
        serde_json::from_slice(&fs::read(self.folder(vault, at).join("expired.json")).unwrap()).unwrap()
    }

    /// An announcement becomes a day and an hour older, as a run of yesterday would have written it.
    fn age(&self, vault: &str, at: usize) {
        let mut doc = self.announcement(vault, at);
        doc.at -= TimeDelta::hours(25);
        let bytes = serde_json::to_vec(&doc).unwrap();
        let signature = host_key(1).sign(Namespace::Expired, &bytes).unwrap();
        for (name, body) in [("expired.json", bytes), ("expired.json.sig", signature.into_bytes())] {
            let path = self.folder(vault, at).join(name);
            fs::write(&path, body).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(doc.at.into()).unwrap();
        }
    }

    fn away(&self, vault: &str, away: bool) {
        let (here, there) = (self.host.path(vault), self.host.path(&format!("{vault}-away")));
        let (from, to) = if away { (here, there) } else { (there, here) };
        fs::rename(from, to).unwrap();
    }

    /// Calls `purge` on one of the six.
    fn purge(&self, at: usize, more: &[&str]) -> Ended {
        let generation = self.generation(at);
        let args = [&["purge", &generation, "--source", "db", "--reason", WHY], more].concat();
        self.host.run(&args)
    }

    fn purge_now(&self, at: usize, more: &[&str]) -> Ended {
        let generation = self.generation(at);
        self.purge(at, &[&["--apply", "--yes", &generation], more].concat())
    }
}

#[tokio::test]
async fn what_an_unreachable_vault_promises_stays_unless_it_is_passed_over_by_name() {
    let scene = Scene::new().await;
    scene.away("offsite", true);
    let dry = scene.host.run(&["prune"]);
    // Fails where a vault that does not answer counts as holding what it promises.
    assert!(
        dry.code == 3 && flat(&dry.out).contains("promised by another vault") && dry.out.contains("nothing to do"),
        "{dry:?}"
    );
    let wrong = scene.host.run(&["prune", "--without-replica", "nowhere"]);
    assert!(wrong.code == 2 && wrong.err.contains("there is no vault `nowhere`"), "{wrong:?}");
    // Passing over this vault itself changes nothing.
    let own = scene.host.run(&["prune", "--without-replica", "local"]);
    assert!(own.out.contains("nothing to do"), "{own:?}");
    let args = ["prune", "--without-replica", "offsite", "--apply"];
    let told = scene.host.run(&args);
    assert!(told.code == 3 && told.out.contains("planned as if vault `offsite` promised nothing"), "{told:?}");
    let closed = scene.closed();
    assert_eq!(told.out.matches("announced: may be deleted").count(), closed.len(), "{told:?}");
    assert_eq!(scene.announcement("local", 0).grounds.without, ["offsite"]);
    scene.host.run(&["run"]);
    for at in &closed {
        scene.age("local", *at);
    }
    // In the second call it must be said again: fails where the first one's word is enough, and where the nightly call takes
    // it back.
    let json = scene.host.run(&["prune", "--apply", "--json"]).json();
    let step = &json["plans"][0]["generations"][0];
    assert_eq!(step["action"], "wait", "{json:#}");
    assert!(step["wait"].as_str().unwrap().contains("announced with --without-replica offsite: repeat"), "{step:#}");
    assert_eq!(scene.left("local").len(), 6);
    let json = scene.host.run(&[&args[..], &["--json"]].concat()).json();
    assert_eq!(json["plans"][0]["without"], serde_json::json!(["offsite"]), "{json:#}");
    assert_eq!(scene.left("local"), scene.open());
    let receipts = scene.receipts("local");
    assert!(receipts.len() == closed.len() && receipts.iter().all(|receipt| receipt.grounds.without == ["offsite"]));
}

#[tokio::test]
async fn now_reads_the_other_vault_and_deletes_only_what_is_whole_there() {
    let scene = Scene::new().await;
    assert!(scene.host.good(&["prune", "--now", "--apply"]).out.contains("announced"), "the first call announces");
    let waits = scene.host.good(&["prune", "--now"]);
    assert!(
        flat(&waits.out).contains("waits for a snapshot newer than") && waits.out.contains("nothing to do"),
        "{waits:?}"
    );
    scene.host.good(&["run"]);
    let plain = scene.host.good(&["prune"]);
    assert!(flat(&plain.out).contains("may be deleted from") && plain.out.contains("nothing to do"), "{plain:?}");
    // A copy that a listing shows and whose bytes are others.
    let object = files_below(&scene.folder("offsite", 0).join("objects")).remove(0);
    let good = fs::read(&object).unwrap();
    let mut bad = good.clone();
    bad[40] ^= 1;
    fs::write(&object, bad).unwrap();
    let dry = scene.host.good(&["prune", "--now"]);
    assert!(dry.out.contains("delete-now") && flat(&dry.out).contains("KiB to read there"), "{dry:?}");
    assert_eq!(scene.left("local").len(), 6, "a plan reads only");
    let told = scene.host.good(&["prune", "--now", "--apply"]);
    assert!(told.out.contains("not deleted yet") && told.out.contains("vault `offsite` holds it"), "{told:?}");
    // Fails where what is listed is enough.
    assert_eq!(scene.left("local"), [&[0][..], &scene.open()].concat());
    fs::write(&object, good).unwrap();
    let json = scene.host.good(&["prune", "--now", "--apply", "--json"]).json();
    let done = &json["plans"][0]["done"][0];
    assert_eq!((&done["action"], &done["held_by"]["name"]), (&"delete-now".into(), &"offsite".into()), "{json:#}");
    assert_eq!((scene.left("local"), scene.left("offsite").len()), (scene.open(), 6));
    assert!(
        scene.receipts("local").iter().all(|receipt| receipt.grounds.now.as_ref().is_some_and(|now| now.bytes > 9_000))
    );
    scene.host.good(&["verify"]);
}

#[tokio::test]
async fn what_stands_against_a_purge_in_a_vault_that_is_not_meant_does_not_stop_it() {
    let scene = Scene::new().await;
    // It is the newest over there.
    fs::remove_dir_all(scene.folder("offsite", 5)).unwrap();
    let both = scene.purge(4, &[]);
    assert!(both.code == 2 && both.err.contains("vault `offsite`: it holds the newest"), "{both:?}");
    // Fails where `refuse` asks all vaults alike.
    let one = scene.purge(4, &["--vault", "local"]);
    assert!(one.code == 0 && one.out.contains("vault local: would be announced"), "{one:?}");
}

#[tokio::test]
async fn an_accept_names_the_hole_that_it_closes_also_in_a_dry_run() {
    let scene = Scene::new().await;
    for vault in ["local", "offsite"] {
        fs::remove_dir_all(scene.folder(vault, 3)).unwrap();
    }
    let documents = files_below(&scene.folder("local", 4).join("snapshots"));
    let document = documents.iter().find(|path| path.extension().unwrap() == "json").unwrap();
    let id = document.file_stem().unwrap().to_str().unwrap();
    // Fails where only what is left is said.
    let dry = scene.host.good(&["accept", id, "--dry-run"]);
    assert!(dry.out.contains("this also closes, vault local: "), "{dry:?}");
    let json = scene.host.good(&["accept", id, "--json"]).json();
    let closed: Vec<_> = json["also_closes"].as_array().unwrap().iter().map(|one| one["cause"].to_string()).collect();
    // The hole in each of the two vaults, and the gap that it makes where the window is shorter.
    assert_eq!(closed.iter().filter(|cause| cause.contains("is missing")).count(), 2, "{json:#}");
    assert!(closed.iter().any(|cause| cause.contains("no snapshot for more than")), "{json:#}");
    let again = scene.host.good(&["accept", id]);
    assert!(!again.out.contains("this also closes"), "{again:?}");
}

#[tokio::test]
async fn a_leak_goes_from_every_vault_in_two_calls_and_stays_away() {
    let scene = Scene::new().await;
    let dry = scene.purge(4, &[]);
    assert!(dry.code == 0 && dry.out.matches("would be announced: 1 snapshot").count() == 2, "{dry:?}");
    assert!(dry.out.contains("dry run") && !scene.folder("local", 4).join("expired.json").exists());
    let generation = scene.generation(3);
    let wrong = scene.purge(4, &["--apply", "--yes", &generation]);
    assert!(wrong.code == 2 && wrong.err.contains("was not confirmed"), "{wrong:?}");
    let told = scene.purge_now(4, &[]);
    assert!(told.code == 0 && told.out.matches("announced (1 snapshot").count() == 2, "{told:?}");
    assert_eq!(scene.announcement("offsite", 4).grounds.purge.as_deref(), Some(WHY));
    let waits = scene.purge_now(4, &[]);
    assert!(waits.code == 0 && waits.out.matches("is announced").count() == 2, "{waits:?}");
    // The nightly prune leaves it alone.
    let pruned = scene.host.good(&["prune", "--apply"]);
    assert!(flat(&pruned.out).matches("being purged (customer 4711").count() == 2, "{pruned:?}");
    for vault in ["local", "offsite"] {
        scene.age(vault, 4);
    }
    scene.away("offsite", true);
    let partly = scene.purge_now(4, &["--json"]);
    // Fails where a vault that does not answer is passed over.
    assert!(partly.code == 3 && partly.err.contains("vault `offsite` cannot be used"), "{partly:?}");
    assert!(partly.err.contains("is still there"), "{partly:?}");
    assert_eq!(partly.json()["vaults"][0]["action"], "deleted");
    assert_eq!(scene.left("local"), [0, 1, 2, 3, 5]);
    scene.away("offsite", false);
    // Announced there, it does not come back; and no more so where the announcement was lost.
    for name in ["expired.json", "expired.json.sig"] {
        let refused = scene.host.run(&["replicate"]);
        assert!(refused.code == 3 && refused.err.contains("was purged in vault"), "{refused:?}");
        assert_eq!(scene.left("local"), [0, 1, 2, 3, 5]);
        fs::remove_file(scene.folder("offsite", 4).join(name)).unwrap();
    }
    assert!(scene.purge_now(4, &[]).out.contains("vault local: was purged at"));
    scene.age("offsite", 4);
    let ended = scene.purge_now(4, &[]);
    assert!(ended.code == 0 && ended.out.contains("vault offsite: deleted"), "{ended:?}");
    assert!(!scene.folder("offsite", 4).exists() || files_below(&scene.folder("offsite", 4)).is_empty());
    for vault in ["local", "offsite"] {
        let [receipt] = scene.receipts(vault).try_into().unwrap();
        assert_eq!(receipt.grounds.purge.as_deref(), Some(WHY));
    }
    scene.host.good(&["verify"]);
    scene.host.good(&["replicate"]);
    let over = scene.purge(4, &[]);
    assert!(over.code == 0 && over.out.matches("was purged at").count() == 2, "{over:?}");
}

#[tokio::test]
async fn the_newest_and_the_pinned_are_refused_in_all_vaults_at_once() {
    let scene = Scene::new().await;
    let newest = scene.purge_now(5, &[]);
    assert!(newest.code == 2 && newest.err.contains("it holds the newest snapshot"), "{newest:?}");
    assert!(newest.err.contains("add `--even-newest`"), "{newest:?}");
    let short = scene.docs[2].id.short().to_owned();
    scene.away("offsite", true);
    assert_eq!(scene.host.run(&["pin", &short]).code, 3);
    scene.away("offsite", false);
    let pinned = scene.purge_now(2, &[]);
    // Fails where each vault is judged by its own pins.
    assert!(pinned.code == 2 && pinned.err.contains(&format!("`backup unpin {short}`")), "{pinned:?}");
    assert!(!scene.folder("offsite", 2).join("expired.json").exists(), "{pinned:?}");
    assert_eq!(scene.purge_now(2, &["--vault", "offsite"]).code, 2, "a pin elsewhere is a word against it, too");
    scene.host.good(&["unpin", &short]);
    assert_eq!(scene.purge_now(2, &["--vault", "offsite"]).code, 0);
    assert!(
        !scene.folder("local", 2).join("expired.json").exists()
            && scene.folder("offsite", 2).join("expired.json").exists()
    );
    // Taken back, twice.
    let generation = scene.generation(2);
    let undo = ["purge", &generation, "--source", "db", "--undo"];
    assert!(scene.host.good(&undo).out.contains("vault offsite: db"));
    assert!(scene.host.good(&undo).out.contains("vault offsite: no purge of"));
    assert!(!scene.folder("offsite", 2).join("expired.json").exists());
    let unknown = scene.host.run(&["purge", "2026-01-01--1d--00112233", "--source", "db", "--reason", WHY]);
    assert!(unknown.code == 2 && unknown.err.contains(&scene.generation(0)), "{unknown:?}");
}

#[tokio::test]
async fn after_the_newest_was_purged_a_run_opens_a_new_generation_and_nothing_counts_as_lost() {
    let scene = Scene::new().await;
    scene.host.good(&["run"]);
    let listed = |vault: &str| {
        let files = files_below(&scene.host.path(vault).join("shop/db"));
        let names = files.iter().filter(|path| path.extension().is_some_and(|end| end == "json"));
        names
            .filter(|path| path.to_str().unwrap().contains("/snapshots/"))
            .cloned()
            .max_by_key(|path| path.file_name().map(ToOwned::to_owned))
            .unwrap()
    };
    let newest = listed("local");
    let generation = newest.ancestors().nth(2).unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let purge =
        ["purge", &generation, "--source", "db", "--reason", WHY, "--even-newest", "--apply", "--yes", &generation];
    scene.host.good(&purge);
    for vault in ["local", "offsite"] {
        let folder = scene.host.path(vault).join("shop/db").join(&generation);
        let mut doc: ExpiredDoc = serde_json::from_slice(&fs::read(folder.join("expired.json")).unwrap()).unwrap();
        doc.at -= TimeDelta::hours(25);
        let bytes = serde_json::to_vec(&doc).unwrap();
        let signature = host_key(1).sign(Namespace::Expired, &bytes).unwrap();
        for (name, body) in [("expired.json", bytes), ("expired.json.sig", signature.into_bytes())] {
            fs::write(folder.join(name), body).unwrap();
            File::options().write(true).open(folder.join(name)).unwrap().set_modified(doc.at.into()).unwrap();
        }
    }
    assert!(scene.host.good(&purge).out.matches(": deleted").count() == 2);
    assert!(!newest.exists());
    // Fails where `verify` does not read the receipts: the newest that this host made is in no vault.
    scene.host.good(&["verify"]);
    scene.host.good(&["run"]);
    assert!(!listed("local").to_str().unwrap().contains(&generation));
    assert_eq!(listed("local").file_name(), listed("offsite").file_name());
    scene.host.good(&["verify"]);
}

#[tokio::test]
async fn what_was_purged_in_one_vault_goes_from_none_to_none() {
    let scene = Scene::new().await;
    let third = "[vault.third]\npath = \"third\"\n";
    let text = fs::read_to_string(scene.host.path("backup.toml")).unwrap();
    fs::write(scene.host.path("backup.toml"), text.replace("[source.db]", &format!("{third}[source.db]"))).unwrap();
    fs::create_dir(scene.host.path("third")).unwrap();
    scene.host.good(&["init"]);
    assert_eq!(scene.purge_now(4, &["--vault", "local"]).code, 0);
    scene.age("local", 4);
    assert_eq!(scene.purge_now(4, &["--vault", "local"]).code, 0);
    // From `offsite` into `third`, of which neither knows of the purge.
    let told = scene.host.run(&["replicate"]);
    assert!(told.code == 3 && told.err.contains("was purged in vault `local`"), "{told:?}");
    // Fails without `leave_purged` in the survey.
    assert_eq!(scene.left("third"), [0, 1, 2, 3, 5], "{told:?}");
}

#[tokio::test]
async fn what_goes_for_good_is_not_decided_from_memory() {
    let scene = Scene::new().await;
    scene.host.good(&["run"]);
    scene.host.good(&["prune", "--apply", "--vault", "local"]);
    for at in scene.closed() {
        scene.age("local", at);
    }
    scene.host.good(&["run"]);
    let (hole, after) = (&scene.docs[4], &scene.docs[5]);
    for suffix in ["json", "json.sig", "inventory.zst"] {
        fs::remove_file(scene.folder("local", 4).join(format!("snapshots/{}.{suffix}", hole.id))).unwrap();
    }
    let plan = |json: &serde_json::Value| {
        let plan = json["plans"].as_array().unwrap().iter().find(|plan| plan["vault"] == "local").unwrap().clone();
        (plan["frozen"].as_array().unwrap().len(), plan["generations"][0]["action"].as_str().unwrap().to_owned())
    };
    let dry = || plan(&scene.host.good(&["prune", "--json"]).json());
    assert_eq!(dry().0, 2, "the chain is open, and a day longer than the window is empty");
    // A memory that is wrong: there the chain closes over the hole, which is no longer than the window.
    let id = Hash256::of(b"local").to_string()[..32].parse().unwrap();
    let state = State::open(&scene.host.path("state"), &"shop".parse().unwrap()).await.unwrap();
    let known = state.readings(&id, &after.source).await.unwrap();
    let mut noted = known[&after.generation].clone();
    noted.snapshots[0].previous = hole.previous;
    noted.snapshots[0].instant -= TimeDelta::minutes(30);
    assert_ne!(noted, known[&after.generation]);
    let there: Vec<_> = known.keys().map(|id| GenerationDir { id: id.clone(), ..after.dir() }).collect();
    state.set_readings(&id, &after.source, &[(after.generation.clone(), noted)], &there).await.unwrap();
    drop(state);
    // Fails where nothing is remembered.
    assert_eq!(dry(), (0, "delete".to_owned()));
    // Fails where a deletion is planned as a dry run is.
    let json = scene.host.good(&["prune", "--apply", "--json"]).json();
    assert_eq!(plan(&json), (2, "withdraw".to_owned()), "{json:#}");
    assert_eq!(scene.left("local"), [0, 1, 2, 3, 5]);
}

#[tokio::test]
async fn taking_back_says_what_comes_again_and_what_it_does_not_take_back() {
    let scene = Scene::new().await;
    scene.host.good(&["run"]);
    scene.host.good(&["prune", "--apply", "--vault", "local"]);
    let generation = scene.generation(4);
    let purge = ["purge", &generation, "--source", "db", "--reason", WHY, "--apply", "--yes", &generation];
    scene.host.good(&[&purge[..], &["--vault", "offsite"]].concat());
    let undone = scene.host.good(&["prune", "--undo"]);
    assert!(undone.out.contains("db ") && undone.out.contains("keep it with `backup pin ID`"), "{undone:?}");
    // Fails where a purge is passed over without a word.
    let hint = format!("backup purge {generation} --source db --undo");
    assert!(undone.err.contains("is being purged") && undone.err.contains(&hint), "{undone:?}");
    // What cannot be taken back at one generation keeps no other from it, and is named.
    scene.host.good(&["prune", "--apply", "--vault", "local"]);
    let stuck = scene.folder("local", scene.closed()[0]).join("expired.json");
    fs::remove_file(&stuck).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &stuck).unwrap();
    let undone = scene.host.run(&["prune", "--undo", "--vault", "local"]);
    let first = scene.generation(scene.closed()[0]);
    let told = format!("vault `local`: generation {first} of `db` may still be announced");
    // Fails where what fails at one generation is taken for done.
    assert!(undone.code == 3 && undone.err.contains(&told), "{undone:?}");
    assert!(undone.err.contains("repeat `backup prune --undo --vault local` before the next prune"), "{undone:?}");
    assert_eq!(undone.out.matches(" stays\n").count(), scene.closed().len() - 1, "{undone:?}");
    for at in &scene.closed()[1..] {
        assert!(!scene.folder("local", *at).join("expired.json").exists(), "{at}: {undone:?}");
    }
    // With nothing else to take back that is no "nothing is announced"; and JSON says all of it.
    let undone = scene.host.run(&["prune", "--undo", "--vault", "local"]);
    assert!(undone.code == 3 && undone.out.contains("not everything could be asked"), "{undone:?}");
    let undone = scene.host.run(&["prune", "--undo", "--json"]);
    let json = undone.json();
    assert_eq!((undone.code, &json["undone"]), (3, &serde_json::json!([])), "{json:#}");
    let failed = &json["failed"][0];
    assert_eq!((failed["vault"].as_str(), failed["generation"].as_str()), (Some("local"), Some(&*first)), "{json:#}");
    assert!(failed["error"]["message"].as_str().is_some_and(|text| text.contains("expired.json")), "{json:#}");
    let purged = serde_json::json!([{ "vault": "offsite", "source": "db", "generation": generation }]);
    assert_eq!(json["purged"], purged, "{json:#}");
    // A vault that does not answer: partial, and named.
    fs::remove_file(&stuck).unwrap();
    scene.away("local", true);
    let undone = scene.host.run(&["prune", "--undo"]);
    assert!(undone.code == 3 && undone.out.contains("nothing was taken back"), "{undone:?}");
    assert!(undone.err.contains("vault `local` cannot be used"), "{undone:?}");
}

#[tokio::test]
async fn a_pin_that_only_another_vault_has_holds_what_is_announced_here() {
    let scene = Scene::new().await;
    scene.host.good(&["run"]);
    scene.host.good(&["prune", "--apply", "--vault", "local"]);
    let closed = scene.closed();
    for at in &closed {
        scene.age("local", *at);
    }
    scene.away("local", true);
    let pinned = scene.host.run(&["pin", scene.docs[closed[0]].id.as_str()]);
    assert!(pinned.code == 3 && pinned.out.contains("vault offsite: pinned"), "{pinned:?}");
    scene.away("local", false);
    assert!(!scene.host.path("local/shop/db/marks").exists(), "only there");
    scene.host.good(&["run"]);
    // Fails where a plan asks for marks in its own vault alone.
    let json = scene.host.good(&["prune", "--apply", "--vault", "local", "--json"]).json();
    let step = &json["plans"][0]["generations"][closed[0]];
    assert_eq!(
        (step["action"].as_str(), step["generation"].as_str()),
        (Some("withdraw"), Some(&*scene.generation(closed[0]))),
        "{json:#}"
    );
    let mut left = vec![closed[0]];
    left.extend(scene.open());
    assert_eq!(scene.left("local"), left);
    assert!(!scene.folder("local", closed[0]).join("expired.json").exists());
}

#[tokio::test]
async fn a_list_tells_what_is_announced_to_go() {
    let scene = Scene::new().await;
    scene.host.good(&["run"]);
    let before = scene.host.good(&["list"]);
    assert!(!before.out.contains("going from"), "{before:?}");
    scene.host.good(&["prune", "--apply", "--vault", "local"]);
    scene.purge_now(4, &["--vault", "offsite"]);
    let told = scene.host.good(&["list"]);
    let line = |vault: &str, at: usize, what: &str| {
        format!("going from {vault}: {}, 1 snapshot, {what}\n", scene.generation(at))
    };
    for at in scene.closed() {
        assert!(told.out.contains(&line("local", at, "expiry announced")), "{told:?}");
    }
    assert!(told.out.contains(&line("offsite", 4, "purge announced")), "{told:?}");
    assert!(told.out.lines().all(|line| line.chars().count() <= 80), "{}", told.out);
    let json = scene.host.good(&["list", "--json"]).json();
    let pending = json["pending"].as_array().unwrap();
    assert_eq!(pending.len(), scene.closed().len() + 1, "{json:#}");
    let purge = pending.iter().find(|one| !one["purge"].is_null()).unwrap();
    assert_eq!((purge["generation"].as_str(), purge["purge"].as_str()), (Some(&*scene.generation(4)), Some(WHY)));
    assert_eq!((purge["vault"].as_str(), purge["stage"].as_str()), (Some("offsite"), Some("expired")));
    // One that nobody signed is no announcement.
    for at in scene.closed() {
        fs::write(scene.folder("local", at).join("expired.json"), "{}").unwrap();
    }
    assert!(!scene.host.good(&["list"]).out.contains("going from local"));
}

#[tokio::test]
async fn a_freeze_is_told_until_a_plan_says_otherwise() {
    let scene = Scene::new().await;
    scene.host.good(&["run"]);
    let hole = &scene.docs[4];
    for suffix in ["json", "json.sig", "inventory.zst"] {
        fs::remove_file(scene.folder("local", 4).join(format!("snapshots/{}.{suffix}", hole.id))).unwrap();
    }
    let status = || scene.host.run(&["status", "--json"]).json()["sources"][0]["frozen_when_pruned"].clone();
    assert!(status().is_null());
    // Who only looks leaves no word.
    scene.host.good(&["prune"]);
    assert!(status().is_null());
    scene.host.good(&["prune", "--apply"]);
    let told = status();
    assert!(told["freezes"].as_array().unwrap().iter().any(|freeze| freeze["vault"] == "local"), "{told:#}");
    // A prune that fails knows nothing better: fails where the newest report decides.
    fs::rename(scene.host.path("local"), scene.host.path("aside")).unwrap();
    assert_ne!(scene.host.run(&["prune", "--apply"]).code, 0);
    assert_eq!(status(), told);
    fs::rename(scene.host.path("aside"), scene.host.path("local")).unwrap();
    scene.host.good(&["accept", scene.docs[5].id.as_str()]);
    assert_eq!(scene.host.good(&["prune", "--json"]).json()["plans"][0]["frozen"].as_array().unwrap().len(), 0);
    assert!(status().is_null(), "{:#}", status());
}

#[tokio::test]
async fn after_a_broken_state_nothing_is_deleted_before_everything_was_read_again() {
    let scene = Scene::new().await;
    scene.host.good(&["run"]);
    scene.host.good(&["prune", "--apply", "--vault", "local"]);
    let closed = scene.closed();
    for at in &closed {
        scene.age("local", *at);
    }
    scene.host.good(&["run"]);
    let state = scene.host.path("state/state.sqlite");
    let broken = || {
        for log in ["state/state.sqlite-wal", "state/state.sqlite-shm"] {
            let _ = fs::remove_file(scene.host.path(log));
        }
        fs::write(&state, "this is no database").unwrap();
    };
    broken();
    let plans = |ended: &Ended| flat(&format!("{}{}", ended.out, ended.err));
    // Who only looks is told the same.
    let dry = scene.host.run(&["prune", "--vault", "local"]);
    assert!(dry.code == 3 && plans(&dry).contains("nothing is deleted: the state is broken"), "{dry:?}");
    // In the same call that renews it, and in the next ones. Fails without `PrunePlan::hold`.
    for round in 0..2 {
        let told = scene.host.run(&["prune", "--apply", "--vault", "local"]);
        assert!(told.code == 3 && plans(&told).contains("was forgotten with a broken state"), "{round} {told:?}");
        assert!(plans(&told).contains("`backup verify --read-data 1/1`"), "{round} {told:?}");
        assert_eq!(scene.left("local").len(), 6, "{round}");
        assert!(scene.folder("local", closed[0]).join("expired.json").exists(), "it stays announced");
    }
    // A listing reads nothing, and one vault is not the other, whose copies count as well.
    scene.host.good(&["verify"]);
    scene.host.good(&["verify", "--read-data", "1/1", "--vault", "local"]);
    let told = scene.host.run(&["prune", "--apply", "--vault", "local", "--json"]);
    assert!(
        told.code == 3 && told.json()["plans"].to_string().contains("in vault `offsite` was forgotten"),
        "{told:?}"
    );
    scene.host.good(&["verify", "--read-data", "1/1"]);
    let done = scene.host.good(&["prune", "--apply", "--vault", "local"]);
    assert_eq!(scene.left("local"), scene.open(), "{done:?}");
    // Where nothing is due nothing waits.
    broken();
    scene.host.good(&["prune", "--apply"]);
}

#[tokio::test]
async fn a_newest_snapshot_that_expired_by_rule_is_not_told_as_removed() {
    let scene = Scene::new().await;
    scene.host.good(&["run"]);
    let policy =
        fs::read_to_string(scene.host.path("backup.toml")).unwrap().replace("within = \"30d\"", "within = \"2d\"");
    fs::write(scene.host.path("backup.toml"), policy).unwrap();
    scene.host.good(&["prune", "--apply"]);
    for vault in ["local", "offsite"] {
        scene.closed().iter().for_each(|at| scene.age(vault, *at));
    }
    scene.host.good(&["run"]);
    scene.host.good(&["replicate"]);
    scene.host.good(&["prune", "--apply"]);
    let gone = &scene.docs[scene.closed()[0]];
    for vault in ["local", "offsite"] {
        assert_eq!(scene.left(vault), scene.open());
    }
    // As on a host that made its newest long ago, while another one went on.
    let state = State::open(&scene.host.path("state"), &"shop".parse().unwrap()).await.unwrap();
    state.set_head(&gone.source, gone.id.as_str(), Hash256([7; 32])).await.unwrap();
    for verb in ["verify", "status"] {
        // Fails where only a purge excuses it.
        scene.host.good(&[verb]);
    }
    // What no receipt names is told, as ever.
    let removed = gone.id.as_str().replace(gone.id.short(), "zzzzzz");
    state.set_head(&gone.source, &removed, Hash256([7; 32])).await.unwrap();
    for verb in ["verify", "status"] {
        let told = scene.host.run(&[verb]);
        assert!(told.code == 4 && format!("{}{}", told.out, told.err).contains("is in no vault"), "{verb} {told:?}");
    }
}

#[tokio::test]
async fn a_vault_json_that_is_gone_gets_the_id_that_receipts_name_and_no_other() {
    let scene = Scene::new().await;
    scene.host.good(&["run"]);
    scene.host.good(&["prune", "--apply", "--vault", "local"]);
    scene.closed().iter().for_each(|at| scene.age("local", *at));
    scene.host.good(&["run"]);
    scene.host.good(&["prune", "--apply", "--vault", "local"]);
    assert!(!scene.receipts("local").is_empty());
    let (file, config) = (scene.host.path("local/vault.json"), scene.host.path("backup.toml"));
    let all =
        || [&["list"][..], &["verify"], &["status"], &["prune"], &["audit"]].map(|args| scene.host.run(args).code);
    let (before, good) = (all(), fs::read_to_string(&config).unwrap());
    let ids = ["local", "offsite"].map(|name| Hash256::of(name.as_bytes()).to_string()[..32].to_owned());
    let pinned = format!("id = \"{}\"\n", ids[0]);
    assert!(good.contains(&pinned) && before[..4] == [0; 4], "{before:?}");
    // By what is pinned, and by what the receipts name.
    for unpinned in [false, true] {
        fs::remove_file(&file).unwrap();
        fs::write(&config, if unpinned { good.replace(&pinned, "") } else { good.clone() }).unwrap();
        let made = scene.host.good(&["init"]);
        assert!(made.err.contains("its `vault.json` was gone"), "{unpinned} {made:?}");
        // Fails where it gets a new id: the receipts would count for nothing.
        assert_eq!(all(), before, "{unpinned} {made:?}");
        assert!(fs::read_to_string(&config).unwrap().contains(&pinned), "{unpinned}");
    }
    // Another vault's path: nothing is written.
    fs::remove_file(&file).unwrap();
    fs::write(&config, good.replace(&ids[0], &"f".repeat(32))).unwrap();
    let told = scene.host.run(&["init"]);
    assert!(told.code == 3 && told.err.contains(&format!("its receipts are of vault `{}`", ids[0])), "{told:?}");
    assert!(told.err.contains(&format!("write `id = \"{}\"`", ids[0])) && !file.exists(), "{told:?}");
    // As told.
    fs::write(&config, &good).unwrap();
    scene.host.good(&["init"]);
    assert_eq!(all(), before);
}
