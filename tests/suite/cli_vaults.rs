//! The binary over two vaults: what one proves decides what the other gets and what may go there.

use std::fs;
use std::path::PathBuf;

use backup_core::id::Hash256;
use backup_core::signature::{HostKey, Namespace};
use serde_json::json;

use super::host::Host;
use super::stack::files_below;

const SOURCE: &str = "[source.docs]\ntype = \"files\"\npaths = [\"data\"]\n";

/// A host with the vaults `local` and `offsite`, initialised, and a file to capture.
fn host(rest: &str) -> Host {
    let host = Host::new();
    for name in ["data", "local", "offsite"] {
        fs::create_dir(host.path(name)).unwrap();
    }
    fs::write(host.path("data/a.txt"), "hello").unwrap();
    host.configure(&format!("{}{}{rest}", Host::local("local"), Host::local("offsite")));
    host.good(&["init"]);
    host
}

/// Paths in a vault that end so.
fn ending(host: &Host, vault: &str, end: &str) -> Vec<PathBuf> {
    files_below(&host.path(vault)).into_iter().filter(|path| path.to_str().unwrap().ends_with(end)).collect()
}

/// Snapshots' documents in a vault.
fn documents(host: &Host, vault: &str) -> Vec<PathBuf> {
    let mut found = ending(host, vault, ".json");
    found.retain(|path| path.to_str().unwrap().contains("/snapshots/"));
    found
}

#[test]
fn a_planted_name_makes_nothing_too_old_to_be_copied() {
    let host = host(&format!("{SOURCE}[job.j]\ncron = \"@daily\"\nvaults = [\"local\"]\n"));
    host.good(&["run", "j"]);
    let real = documents(&host, "local").remove(0);
    let folder = real.parent().unwrap();
    for at in 1..=2 {
        fs::write(folder.join(format!("2999010{at}T000000Z-1b-aaaaaa.json")), fs::read(&real).unwrap()).unwrap();
    }
    let ended = host.run(&["replicate", "--json"]);
    // Fails if names alone make a policy's stamps: the planted ones are the newest two, and the real one is long expired.
    let copied: Vec<_> = documents(&host, "offsite").iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(copied, [real.file_name().unwrap()], "{}{}", ended.out, ended.err);
    assert!(ended.code != 0 && ended.err.contains("29990101T000000Z-1b-aaaaaa"), "it is told: {}", ended.err);
}

#[test]
fn what_lies_among_the_marks_keeps_no_snapshot_from_being_copied() {
    let host = host(&format!("{SOURCE}[job.j]\ncron = \"@daily\"\nvaults = [\"local\"]\n"));
    host.good(&["run", "j"]);
    let real = documents(&host, "local").remove(0);
    let source = real.ancestors().find(|at| at.ends_with("docs")).unwrap();
    std::os::unix::fs::symlink(host.path("data"), source.join("marks")).unwrap();
    let ended = host.run(&["replicate"]);
    // Fails where a vault whose marks cannot be read is not copied from.
    assert_eq!(documents(&host, "offsite").len(), 1, "{}{}", ended.out, ended.err);
    assert!(ended.code != 0 && ended.err.contains("marks"), "it is told: {}", ended.err);
}

#[test]
fn a_name_that_proves_nothing_is_replaced_by_a_copy() {
    let host = host(SOURCE);
    host.good(&["run"]);
    let (good, copy) = (documents(&host, "local").remove(0), documents(&host, "offsite").remove(0));
    fs::remove_file(&copy).unwrap();
    fs::write(&copy, "{\"\\u001b[2J\":1}").unwrap();
    let told = host.run(&["replicate"]);
    // Fails where a name at the destination is a held copy.
    assert_eq!(fs::read(&copy).unwrap(), fs::read(&good).unwrap(), "{}{}", told.out, told.err);
    assert!(told.code != 0 && told.err.contains(copy.file_name().unwrap().to_str().unwrap()), "{}", told.err);
    assert!(!told.err.contains('\x1b') && told.err.contains("\\u{1b}[2J"), "{}", told.err);
    assert!(host.good(&["replicate"]).out.starts_with("nothing to copy"));
}

#[test]
fn a_jobs_prune_acts_on_its_own_sources_in_the_vaults_that_it_fills() {
    let two = format!(
        "{SOURCE}[source.notes]\ntype = \"files\"\npaths = [\"data\"]\n[job.own]\ncron = \"@daily\"\nsources = [\"docs\"]\n\
         vaults = [\"local\"]\nthen = [\"prune\"]\n[job.fills]\ncron = \"@daily\"\nsources = [\"docs\"]\nvaults = [\"local\"]\n\
         then = [\"replicate\", \"prune\"]\n"
    );
    let host = host(&two);
    let pruned = |job: &str| -> Vec<(String, String)> {
        let report = host.good(&["run", job, "--json"]).json();
        let steps = report["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 1, "{report:#}");
        let text = |one: &serde_json::Value| one.as_str().unwrap().to_owned();
        let found = steps[0]["found"].as_array().unwrap_or_else(|| panic!("{report:#}"));
        found.iter().map(|one| (text(&one["vault"]), text(&one["source"]))).collect()
    };
    let at = |vault: &str| (vault.to_owned(), "docs".to_owned());
    // Fails where the step takes the whole configuration.
    assert_eq!(pruned("own"), [at("local")]);
    assert_eq!(pruned("fills"), [at("local"), at("offsite")]);
}

#[test]
fn verify_ends_like_restore_where_the_signer_is_unknown() {
    let host = host(SOURCE);
    host.good(&["run"]);
    let other = Host::new();
    fs::copy(other.path("signers"), host.path("signers")).unwrap();
    for verb in ["verify", "status"] {
        assert_eq!(host.run(&[verb]).code, 12, "{verb}");
    }
    assert_eq!(host.run(&["restore", "--latest", "--into-dir", "out", "--identity", "ops.txt"]).code, 12);
}

#[test]
fn what_verify_found_damaged_is_not_held() {
    let host = host(SOURCE);
    host.good(&["run"]);
    let marks = ending(&host, "offsite", "vault.json");
    assert_eq!(marks.len(), 1);
    let held = || host.good(&["prune", "--json"]).json()["plans"].to_string().matches("promised").count();
    let before = held();
    let object =
        files_below(&host.path("offsite")).into_iter().find(|path| path.to_str().unwrap().contains("/objects/"));
    let object = object.unwrap();
    let good = fs::read(&object).unwrap();
    let mut bad = good.clone();
    bad[30] ^= 1;
    fs::remove_file(&object).unwrap();
    fs::write(&object, bad).unwrap();
    assert_eq!(held(), before, "the listing shows nothing");
    assert_eq!(host.run(&["verify", "--read-data", "1/1"]).code, 4);
    // Fails if `verify` remembers nothing, or `prune` does not ask.
    assert_eq!(held(), before + 1, "{}", host.run(&["prune", "--json"]).out);
    fs::remove_file(&object).unwrap();
    fs::write(&object, good).unwrap();
    host.good(&["verify"]);
    assert_eq!(held(), before, "good again");
}

fn host_key(host: &Host) -> HostKey {
    HostKey::from_openssh(&fs::read_to_string(host.path("host_key")).unwrap()).unwrap()
}

#[test]
fn a_newest_snapshot_that_a_stranger_signed_anew_is_damage() {
    let host = host(SOURCE);
    host.good(&["run"]);
    let document = documents(&host, "offsite").remove(0);
    let signature = document.with_extension("json.sig");
    let text = fs::read_to_string(&document).unwrap();
    for changed in [text.clone(), text.replacen("\"rows\"", " \"rows\"", 1)] {
        for path in [&document, &signature] {
            fs::remove_file(path).unwrap();
        }
        let stranger = host_key(&Host::new()).sign(Namespace::Snapshot, changed.as_bytes()).unwrap();
        fs::write(&signature, stranger).unwrap();
        fs::write(&document, changed).unwrap();
        // Fails (12) where a signer that is not pinned excuses the newest one, also in the first vault only.
        for args in [&["verify"][..], &["verify", "--vault", "offsite"]] {
            let found = host.run(args);
            assert!(found.code == 4 && found.out.contains("was replaced in vault `offsite`"), "{found:?}");
        }
    }
}

#[test]
fn a_check_that_finds_its_mark_writes_none() {
    let host = host(SOURCE);
    host.good(&["run"]);
    let check = || host.good(&["verify", "--identity", "ops.txt"]);
    let marks = || -> Vec<Vec<u8>> {
        ["local", "offsite"]
            .iter()
            .flat_map(|vault| ending(&host, vault, ".checked.json"))
            .map(|path| fs::read(path).unwrap())
            .collect()
    };
    check();
    let first = marks();
    assert_eq!(first.len(), 2);
    check();
    // Fails without the look at `there` in `Look::mark`: each has the instant of its check.
    assert_eq!(marks(), first);
    // One that is not believed is none.
    let path = ending(&host, "local", ".checked.json").remove(0);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "{}").unwrap();
    host.run(&["verify", "--identity", "ops.txt"]);
    assert!(marks()[0].len() > 2);
}

#[test]
fn a_pin_that_did_not_reach_the_other_vault_protects_there() {
    let host = host(SOURCE);
    host.good(&["run"]);
    let document = documents(&host, "local").remove(0);
    let snapshot = document.file_stem().unwrap().to_str().unwrap();
    let key = host_key(&host);
    let pin = json!({
        "format": 1, "stack": "s", "source": "docs", "snapshot": snapshot, "mark": "pin", "at": "2026-01-01T00:00:00Z",
        "document": Hash256::of(&fs::read(&document).unwrap()), "signer": key.fingerprint(), "tool": "backup 0",
    })
    .to_string();
    let folder = host.path("local/s/docs/marks");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{snapshot}.pin.json.sig")), key.sign(Namespace::Mark, pin.as_bytes()).unwrap())
        .unwrap();
    fs::write(folder.join(format!("{snapshot}.pin.json")), pin).unwrap();
    let plans = host.good(&["prune", "--json"]).json();
    // Fails where a plan knows its own vault's marks only.
    for plan in plans["plans"].as_array().unwrap() {
        let decision = plan["generations"][0]["snapshots"][0]["decision"].as_str().unwrap();
        assert!(decision.contains("pinned"), "{plan:#}");
    }
    assert!(ending(&host, "offsite", ".pin.json").is_empty());
}

/// Takes the pinned id of a vault out of the configuration.
fn unpin(host: &Host, vault: &str) {
    let text = fs::read_to_string(host.path("backup.toml")).unwrap();
    let heading = format!("[vault.{vault}]\nid = \"");
    let (before, after) = text.split_once(&heading).unwrap();
    let rest = after.split_once('\n').unwrap().1;
    fs::write(host.path("backup.toml"), format!("{before}[vault.{vault}]\n{rest}")).unwrap();
}

#[test]
fn a_vault_json_that_is_gone_is_written_anew_as_the_hints_say() {
    let host = host(SOURCE);
    host.good(&["run"]);
    let before = fs::read(host.path("local/vault.json")).unwrap();
    fs::remove_file(host.path("local/vault.json")).unwrap();
    for args in [&["list", "--vault", "local"][..], &["init", "--adopt", "local"], &["verify"], &["run"]] {
        let told = host.run(args);
        let text = format!("{}{}", told.out, told.err);
        assert!(
            told.code != 0 && text.contains("`backup init` writes that anew with the same id"),
            "{args:?}: {told:?}"
        );
        // Fails where the hint makes a vault under another id, or sends round in a circle.
        assert!(!text.contains("take the `id` out") && !text.contains("makes a new vault"), "{args:?}: {told:?}");
    }
    assert!(host.good(&["init", "--dry-run"]).err.contains("would be made anew with its id"));
    assert!(!host.path("local/vault.json").exists());
    // As told.
    let made = host.good(&["init"]);
    assert!(made.err.contains("made anew with its id: its `vault.json` was gone"), "{made:?}");
    let id = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap()["id"].clone();
    assert_eq!(id(&fs::read(host.path("local/vault.json")).unwrap()), id(&before));
    for args in [&["list"][..], &["replicate"], &["verify"], &["prune"], &["status"]] {
        host.good(args);
    }
    host.good(&["restore", "--latest", "--vault", "local", "--into-dir", "out", "--identity", "ops.txt"]);

    // Without a pinned id, and without a receipt that names one, it gets none: other hosts have the old one.
    fs::remove_file(host.path("local/vault.json")).unwrap();
    unpin(&host, "local");
    let told = host.run(&["init"]);
    assert!(told.code == 10 && told.err.contains("nothing names its id"), "{told:?}");
    assert!(!host.path("local/vault.json").exists());
    // As told.
    let heading = "[vault.local]\n";
    let line = format!("{heading}id = {}\n", id(&before));
    host.change(heading, &line);
    host.good(&["init"]);
    assert_eq!(id(&fs::read(host.path("local/vault.json")).unwrap()), id(&before));
    host.good(&["verify"]);

    // Where nothing lies that is ours, no pinned id is reason enough.
    fs::remove_file(host.path("local/vault.json")).unwrap();
    let documents = files_below(&host.path("local"));
    for path in documents.iter().filter(|path| path.to_str().unwrap().contains("/snapshots/")) {
        fs::write(path, "{}").unwrap();
    }
    let told = host.run(&["init"]);
    assert!(told.code == 3 && told.err.contains("nothing lies there that a pinned signer signed"), "{told:?}");
    assert!(told.err.contains("take the `id` out of `[vault.local]`"), "{told:?}");
    assert!(!host.path("local/vault.json").exists());
}

#[test]
fn who_mistypes_an_address_is_not_led_to_make_a_vault_there() {
    let host = host(SOURCE);
    host.good(&["run"]);
    fs::create_dir(host.path("locla")).unwrap();
    let signer = host_key(&host).fingerprint();
    let address = host.path("locla");
    let bare = Host::new();
    let identity = host.path("ops.txt");
    let told = bare.run(&[
        "restore",
        "--latest",
        "--vault",
        address.to_str().unwrap(),
        "--stack",
        "s",
        "--signer",
        &signer,
        "--identity",
        identity.to_str().unwrap(),
    ]);
    assert!(told.code == 10 && told.err.contains("against the recovery sheet"), "{told:?}");
    assert!(!told.err.contains("backup init"), "{told:?}");
}

#[test]
fn with_every_vault_away_each_is_named_and_nothing_is_made_up() {
    let host = host(SOURCE);
    host.good(&["run"]);
    let newest = host.good(&["list", "--json"]).json()["snapshots"][0]["id"].as_str().unwrap().to_owned();
    for vault in ["local", "offsite"] {
        fs::rename(host.path(vault), host.path(&format!("{vault}-away"))).unwrap();
    }
    let status = host.run(&["status"]);
    // Fails where what was seen is matched with what is listed now, which is nothing.
    let short = newest.rsplit('-').next().unwrap();
    assert_eq!(status.out.matches(&format!("ago: newest {short}\n")).count(), 2, "{status:?}");
    assert!(status.code == 3 && status.out.contains("not known: no vault answers"), "{status:?}");
    assert!(!status.out.contains("no snapshot") && !status.out.contains("empty"), "{status:?}");
    let lag = host.run(&["status", "--json"]).json()["sources"][0]["vaults"][0].clone();
    assert_eq!((&lag["newest"], &lag["missing"]), (&newest.as_str().into(), &serde_json::Value::Null), "{lag:#}");
    let restore = ["restore", "--latest", "--into-dir", "out", "--identity", "ops.txt"];
    for args in [&["list"][..], &["verify"], &["audit"], &["prune"], &["replicate"], &["run"], &restore] {
        let told = host.run(args);
        // Fails where the first one's error ends the verb.
        assert!(
            told.code == 10 && told.err.contains("`local`: ") && told.err.contains("`offsite`: "),
            "{args:?}: {told:?}"
        );
    }
}

#[test]
fn the_state_is_its_owners_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = host(SOURCE);
    fs::remove_dir(host.path("state")).unwrap();
    host.good(&["run"]);
    let mode = |name: &str| fs::metadata(host.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("state"), mode("state/state.sqlite")), (0o700, 0o600));
    // One that an earlier version made.
    fs::set_permissions(host.path("state/state.sqlite"), fs::Permissions::from_mode(0o644)).unwrap();
    host.good(&["run"]);
    assert_eq!(mode("state/state.sqlite"), 0o600);
}

#[test]
fn nothing_captured_is_never_and_not_up_to_date() {
    let host = host(SOURCE);
    let status = host.run(&["status", "--json"]).json();
    for vault in status["sources"][0]["vaults"].as_array().unwrap() {
        // Fails where nothing is behind nothing by no seconds.
        assert!(vault["behind_seconds"].is_null() && vault["newest"].is_null(), "{vault:#}");
    }
    assert!(host.run(&["status"]).out.contains("never: no capture that is believed"));
    host.good(&["run"]);
    let status = host.good(&["status", "--json"]).json();
    assert_eq!(status["sources"][0]["vaults"][0]["behind_seconds"], 0);
}

#[test]
fn one_vault_under_two_names_is_no_second_copy() {
    let host = Host::new();
    for name in ["data", "local"] {
        fs::create_dir(host.path(name)).unwrap();
    }
    std::os::unix::fs::symlink(host.path("local"), host.path("offsite")).unwrap();
    let docs = "[source.docs]\ntype = \"files\"\npaths = [\"data\"]\n";
    host.configure(&format!("{}{}{docs}", Host::local("local"), Host::local("offsite")));
    for args in [&["init"][..], &["init", "--adopt", "offsite"]] {
        let ended = host.run(args);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.err.contains("is the vault `local`: it would count as a second copy"), "{ended:?}");
        assert!(ended.err.contains("give `[vault.offsite]` a place of its own"), "{ended:?}");
    }
    // Pinned by hand it would let a prune of one name delete what the other one keeps: nothing starts.
    let config = fs::read_to_string(host.path("backup.toml")).unwrap();
    let id = config.lines().find(|line| line.starts_with("id = ")).unwrap().to_owned();
    fs::write(host.path("backup.toml"), config.replace("[vault.offsite]\n", &format!("[vault.offsite]\n{id}\n")))
        .unwrap();
    for args in [&["run"][..], &["prune", "--apply"], &["status"]] {
        let ended = host.run(args);
        assert!(ended.code == 2 && ended.err.contains("is the vault `local` once more"), "{ended:?}");
    }
}
