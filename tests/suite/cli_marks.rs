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
    assert!(host.good(&["accept", &id]).out.contains("accepted: it freezes nothing any more"));
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
