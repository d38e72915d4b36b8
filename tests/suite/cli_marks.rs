//! `pin`, `unpin`, `accept`: signed, in every vault that has the snapshot, and obeyed by `prune`.

use std::fs;
use std::path::PathBuf;

use super::host::{Ended, Host};
use super::stack::files_below;

fn id(host: &Host) -> String {
    let listed: serde_json::Value = serde_json::from_str(&host.good(&["list", "--json"]).out).unwrap();
    let id = listed.pointer("/result/snapshots/0/id").or_else(|| listed.pointer("/snapshots/0/id"));
    id.unwrap_or_else(|| panic!("{listed}")).as_str().unwrap().to_owned()
}

fn marks(host: &Host, vault: &str) -> Vec<PathBuf> {
    let mut found = files_below(&host.path(vault));
    found.retain(|path| path.to_str().unwrap().contains("/marks/"));
    found
}

fn prune(host: &Host) -> Ended {
    host.good(&["prune"])
}

#[test]
fn a_pin_is_signed_obeyed_and_taken_back() {
    let host = Host::with_two_vaults();
    let id = id(&host);
    let short = id.rsplit('-').next().unwrap();
    let dry = host.good(&["pin", short, "--dry-run"]);
    assert!(dry.out.contains("would be pinned") && marks(&host, "local").is_empty(), "{}", dry.out);
    let pinned = host.good(&["pin", short]);
    assert_eq!(pinned.out.matches("pinned: it stays whatever its age").count(), 2, "{}", pinned.out);
    for vault in ["local", "offsite"] {
        assert_eq!(marks(&host, vault).len(), 2, "a mark and its signature in {vault}");
    }
    assert!(host.good(&["pin", &id]).out.contains("is pinned already"));
    assert_eq!(prune(&host).out.matches("pinned").count(), 2, "{}", prune(&host).out);

    // A pin that nobody signed keeps the snapshot too, but is replaced by one that somebody did.
    let mark = marks(&host, "local").into_iter().find(|path| path.extension().unwrap() == "sig").unwrap();
    let good = fs::read(&mark).unwrap();
    fs::write(&mark, "not a signature").unwrap();
    assert_eq!(host.good(&["pin", short]).out.matches("pinned: it stays").count(), 1);
    assert_eq!(fs::read(&mark).unwrap().len(), good.len());

    let dry = host.good(&["unpin", short, "--dry-run"]);
    assert!(dry.out.contains("would no longer be pinned") && marks(&host, "local").len() == 2, "{}", dry.out);
    host.good(&["unpin", short]);
    assert!(marks(&host, "local").is_empty() && marks(&host, "offsite").is_empty());
    assert!(!prune(&host).out.contains("pinned"), "{}", prune(&host).out);
    assert!(host.good(&["unpin", short]).out.contains("is not pinned"));
}

#[test]
fn a_vault_that_does_not_answer_makes_the_end_partial() {
    let host = Host::with_two_vaults();
    let id = id(&host);
    fs::rename(host.path("offsite"), host.path("away")).unwrap();
    let told = host.run(&["pin", &id]);
    assert_eq!(told.code, 3, "{}{}", told.out, told.err);
    assert!(told.err.contains("`offsite`") && told.out.contains("vault local: pinned"), "{}{}", told.out, told.err);
    fs::rename(host.path("away"), host.path("offsite")).unwrap();
    host.good(&["replicate"]);
    assert_eq!(marks(&host, "offsite").len(), 2, "the mark follows its snapshot");
    fs::rename(host.path("offsite"), host.path("away")).unwrap();
    let told = host.run(&["unpin", &id]);
    assert!(told.code == 3 && told.err.contains("comes back with `backup replicate`"), "{}", told.err);
}

#[test]
fn an_accept_is_a_mark_of_its_own() {
    let host = Host::with_two_vaults();
    let id = id(&host);
    // One that nobody suspects never froze anything.
    let told = host.good(&["accept", &id]).out;
    assert!(told.contains("vault local: accepted\n") && !told.contains("it freezes nothing any more"), "{told}");
    let names: Vec<_> = marks(&host, "local").iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert!(names.contains(&format!("{id}.accept.json").into()), "{names:?}");
    host.good(&["verify"]);
}

#[test]
fn what_cannot_be_marked_is_refused() {
    let host = Host::with_two_vaults();
    let id = id(&host);
    for verb in ["pin", "unpin", "accept"] {
        let told = host.run(&[verb, "zzzzzz"]);
        assert!(told.code == 2 && told.err.contains("hint: see the snapshots with `backup list`"), "{}", told.err);
    }
    // A document that is not what was signed is not marked: the mark would be for other bytes.
    for vault in ["local", "offsite"] {
        let documents = files_below(&host.path(vault));
        let document = documents.iter().find(|path| path.ends_with(format!("{id}.json"))).unwrap();
        let mut bytes = fs::read(document).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs::write(document, bytes).unwrap();
    }
    let told = host.run(&["pin", &id]);
    assert!(told.code == 4 || told.code == 12, "{}{}", told.code, told.err);
    assert!(told.err.contains("no vault took it"), "{}", told.err);
    assert!(marks(&host, "local").is_empty() && marks(&host, "offsite").is_empty());
}

#[test]
fn a_newest_snapshot_that_is_gone_is_told_by_every_verb_until_it_is_accepted() {
    let host = Host::with_two_vaults();
    next_second();
    host.good(&["run"]);
    let mut documents: Vec<PathBuf> =
        ["local", "offsite"].iter().flat_map(|vault| files_below(&host.path(vault))).collect();
    documents.retain(|path| path.to_str().unwrap().contains("/snapshots/"));
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned();
    let newest = documents.iter().map(name).max().unwrap();
    for path in documents.iter().filter(|path| name(path) == newest) {
        fs::remove_file(path).unwrap();
    }
    // Fails (0) without `gone` in `status`.
    for verb in ["verify", "status"] {
        let told = host.run(&[verb]);
        let text = format!("{}{}", told.out, told.err);
        assert!(told.code == 4 && text.contains(&newest) && text.contains("`backup accept`"), "{verb}: {told:?}");
    }
    let value = host.run(&["status", "--json"]).json();
    assert!(value["sources"][0]["gone"][0]["message"].as_str().unwrap().contains("in no vault"), "{value:#}");
    // While one does not answer nobody knows.
    fs::rename(host.path("offsite"), host.path("away")).unwrap();
    assert_eq!(host.run(&["status"]).code, 3);
    fs::rename(host.path("away"), host.path("offsite")).unwrap();

    // Fails (0, silent) without `unlisted` in the engine. What was captured is there.
    next_second();
    let told = host.run(&["run"]);
    assert!(told.code == 4 && told.out.contains(&newest) && told.out.contains(": partial"), "{told:?}");
    // The hole stays told, with what closes it: fails (0) without `holes` in `status`.
    let after = host.run(&["list", "--json"]).json()["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap().to_owned())
        .max();
    let after = after.unwrap();
    let accept = format!("`backup accept {}`", after.rsplit('-').next().unwrap());
    for verb in ["verify", "status"] {
        let told = host.run(&[verb]);
        let text = format!("{}{}", told.out, told.err);
        assert!(told.code == 4 && text.contains("is missing") && text.contains(&accept), "{verb}: {told:?}");
    }
    assert_eq!(host.run(&["audit"]).code, 4);
    next_second();
    host.good(&["run"]);

    // Fails where the dry run plans without the mark.
    let dry = host.good(&["accept", &after, "--dry-run"]).out;
    assert!(dry.contains("this also closes") && !dry.contains("still frozen"), "{dry}");
    host.good(&["accept", &after]);
    let told = host.good(&["verify"]).out;
    assert!(told.contains("looked at and accepted: no damage") && !told.contains("DAMAGED"), "{told}");
    host.good(&["status"]);
    let audited = host.run(&["audit"]);
    assert!(audited.code != 4 && !audited.out.contains("DAMAGED"), "{audited:?}");
}

/// Names of snapshots have a second's grain.
fn next_second() {
    std::thread::sleep(std::time::Duration::from_millis(1100));
}
