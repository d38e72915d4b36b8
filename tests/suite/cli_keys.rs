//! Keys through the real binary: granting and revoking a recipient, a host key that is rotated, a host that is cloned, a host
//! that joins the vault of another.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::host::{DOCS, Ended, Host};
use super::stack::files_below;

fn config(host: &Host) -> String {
    fs::read_to_string(host.path("backup.toml")).unwrap()
}

/// All files below a folder, with their bytes.
fn content(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    files_below(dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[track_caller]
fn refused(ended: &Ended, code: i32, part: &str) {
    assert_eq!(ended.code, code, "{}{}", ended.out, ended.err);
    assert!(ended.err.contains(part) && ended.err.contains("hint: "), "{}", ended.err);
}

/// Ids of the snapshots, oldest first.
fn ids(host: &Host) -> Vec<String> {
    let listed = host.run(&["list", "--json"]).json();
    let all = listed["snapshots"].as_array().unwrap();
    all.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

fn restore(host: &Host, identity: &str, into: &str, more: &[&str]) -> Ended {
    let of: &[&str] = if more.first().is_some_and(|more| !more.starts_with('-')) { &[] } else { &["--source", "docs"] };
    host.run(&[&["restore", "--identity", identity, "--into-dir", into], of, more].concat())
}

fn generations(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = report["generations"].as_array().unwrap();
    all.iter().map(|one| (text(&one["vault"]), text(&one["done"]))).collect()
}

fn both(done: &str) -> Vec<(String, String)> {
    ["local", "offsite"].map(|vault| (vault.to_owned(), done.to_owned())).to_vec()
}

#[test]
fn a_new_operator_is_granted_what_was_stored() {
    let host = Host::with_two_vaults();
    for name in ["new.txt", "stranger.txt"] {
        host.good(&["key", "new", name]);
    }
    let new = host.recipient("new.txt");
    refused(&restore(&host, "new.txt", "no", &[]), 12, "none of the given identities");
    let before = (content(&host.path("local")), content(&host.path("offsite")));
    let grant = |identity: &str, more: &[&str]| {
        host.run(&[&["key", "grant", &new, "--identity", identity, "--json"], more].concat())
    };
    refused(&grant("stranger.txt", &[]), 12, "none of the given identities");
    let dry = grant("ops.txt", &["--dry-run"]);
    assert_eq!((dry.code, generations(&dry.json())), (0, both("made")), "{}", dry.err);
    assert!(before == (content(&host.path("local")), content(&host.path("offsite"))), "a dry run wrote");
    let made = grant("ops.txt", &[]);
    assert_eq!((made.code, generations(&made.json())), (0, both("made")), "{}", made.err);
    assert_eq!(generations(&grant("ops.txt", &[]).json()), both("already"));
    // Nothing but the grants came, and nothing changed.
    for (vault, before) in [("local", &before.0), ("offsite", &before.1)] {
        let after = content(&host.path(vault));
        assert!(before.iter().all(|file| after.contains(file)) && after.len() == before.len() + 2, "{vault}");
        let into = format!("back-{vault}");
        let back = restore(&host, "new.txt", &into, &["--vault", vault]);
        assert_eq!(back.code, 0, "{}{}", back.out, back.err);
        assert!(files_below(&host.path(&into)).iter().any(|path| path.ends_with("a.txt")));
    }
    let verified = host.good(&["verify", "--identity", "new.txt", "--json"]).json();
    assert_eq!(verified["vaults"][0]["documents"], 1, "{verified:#}");
    // Those who could read go on reading; a grant can be granted on.
    assert_eq!(restore(&host, "escrow.txt", "escrow", &[]).code, 0);
    let third = host.recipient("stranger.txt");
    host.good(&["key", "grant", &third, "--identity", "new.txt", "--vault", "local"]);
    assert_eq!(restore(&host, "stranger.txt", "third", &["--vault", "local"]).code, 0);
    refused(&restore(&host, "stranger.txt", "no", &["--vault", "offsite"]), 12, "none of the given identities");
    // Signed, it is replicated.
    host.good(&["replicate"]);
    assert_eq!(restore(&host, "stranger.txt", "third-off", &["--vault", "offsite"]).code, 0);
    // One of the recipients is one already.
    let already = host.good(&["key", "grant", &host.recipient("escrow.txt"), "--identity", "ops.txt", "--json"]);
    assert_eq!(generations(&already.json()), both("recipient"));
}

#[test]
fn what_is_pasted_instead_of_a_recipient_is_not_repeated() {
    let host = Host::with_two_vaults();
    let secret = fs::read_to_string(host.path("ops.txt")).unwrap();
    let secret = secret.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap().to_owned();
    for verb in ["grant", "revoke"] {
        let ended = host.run(&["key", verb, &secret]);
        refused(&ended, 2, "secret identity");
        assert!(!ended.err.contains(&secret[20..]), "{}", ended.err);
        refused(&host.run(&["key", verb, "age1nonsense"]), 2, "not an age recipient");
    }
}

#[test]
fn an_operators_machine_without_a_host_key_grants_unsigned() {
    let host = Host::with_two_vaults();
    host.good(&["key", "new", "new.txt"]);
    let new = host.recipient("new.txt");
    let without = config(&host).replace("host_key = \"host_key\"\n", "");
    fs::write(host.path("operator.toml"), without).unwrap();
    let call = |args: &[&str]| host.run(&[args, &["--config", "operator.toml"]].concat());
    let made = call(&["key", "grant", &new, "--identity", "ops.txt", "--vault", "local"]);
    assert!(made.code == 0 && made.err.contains("unsigned"), "{}{}", made.out, made.err);
    assert_eq!(restore(&host, "new.txt", "back", &["--vault", "local"]).code, 0);
    let verified = host.good(&["verify"]);
    assert!(verified.out.contains("nobody signed the grant") && verified.out.contains(&new), "{}", verified.out);
    // It stays where it is, and gives way to one that the host signs.
    host.good(&["replicate"]);
    refused(&restore(&host, "new.txt", "no", &["--vault", "offsite"]), 12, "none of the given identities");
    host.good(&["key", "grant", &new, "--identity", "ops.txt"]);
    assert!(!host.good(&["verify"]).out.contains("nobody signed"));
    assert_eq!(restore(&host, "new.txt", "back-off", &["--vault", "offsite"]).code, 0);
}

#[test]
fn a_revoked_recipient_is_listed_and_refused_from_then_on() {
    let host = Host::with_two_vaults();
    let (ops, escrow) = (host.recipient("ops.txt"), host.recipient("escrow.txt"));
    host.good(&["key", "new", "new.txt"]);
    let new = host.recipient("new.txt");
    host.good(&["key", "grant", &new, "--identity", "ops.txt"]);
    let before = config(&host);
    let opened = |recipient: &str, more: &[&str]| {
        let report = host.good(&[&["key", "revoke", recipient, "--json"], more].concat()).json();
        let all = report["opens"].as_array().unwrap().clone();
        (report, all)
    };
    let (dry, all) = opened(&escrow, &["--dry-run"]);
    assert_eq!((&dry["configuration"], all.len()), (&"would-be-written".into(), 2), "{dry:#}");
    assert_eq!(
        (&all[0]["by"], &all[0]["snapshots"], &all[1]["vault"]),
        (&"recipient".into(), &1.into(), &"offsite".into())
    );
    assert_eq!(config(&host), before);
    // A grant is taken away, which leaves the others' own keys alone.
    let (report, all) = opened(&new, &[]);
    assert_eq!((&all[0]["by"], &all[0]["grant_removed"], all.len()), (&"grant".into(), &true.into(), 2), "{report:#}");
    refused(&restore(&host, "new.txt", "no", &[]), 12, "none of the given identities");
    assert_eq!(restore(&host, "ops.txt", "ops", &[]).code, 0);
    let (_, all) = opened(&new, &[]);
    assert!(all.is_empty());
    refused(&host.run(&["key", "grant", &new, "--identity", "ops.txt"]), 2, "is revoked");

    let told = host.good(&["key", "revoke", &escrow]);
    assert!(told.err.contains("stays readable") && told.err.contains("backup purge"), "{}", told.err);
    let after = config(&host);
    assert!(
        after.contains(&format!("recipients = [\"{ops}\"")) && after.contains(&format!("revoked = [\"{escrow}\"")),
        "{after}"
    );
    assert!(told.out.contains("its own key"), "{}", told.out);
    let listed = host.good(&["key", "list"]).out;
    let (_, revoked) = listed.split_once("revoked: nothing is encrypted to them any more").unwrap();
    assert!(revoked.contains(&format!("  {escrow}\n")) && revoked.contains("stays readable"), "{listed}");
    let listed = host.good(&["key", "list", "--json"]).json();
    let revoked: Vec<&Value> = listed["revoked"].as_array().unwrap().iter().map(|one| &one["recipient"]).collect();
    assert!(revoked.len() == 2 && revoked.contains(&&escrow.clone().into()), "{listed:#}");
    // What is stored from now on is not for it: fails where the generation is not opened anew.
    host.good(&["run"]);
    let newest = ids(&host).pop().unwrap();
    assert_eq!(restore(&host, "ops.txt", "newest", &[&newest]).code, 0);
    refused(&restore(&host, "escrow.txt", "no", &[&newest]), 12, "none of the given identities");
    assert_eq!(restore(&host, "escrow.txt", "old", &[&ids(&host)[0]]).code, 0, "what was stored stays readable");
    let still = opened(&escrow, &[]).1;
    assert!(still.len() == 2 && still.iter().all(|one| one["snapshots"] == 1), "{still:#?}");

    // Somebody puts it back: nothing that encrypts begins, and everything that reads goes on.
    host.change(&format!("recipients = [\"{ops}\""), &format!("recipients = [\"{ops}\", \"{escrow}\""));
    for args in [
        &["config", "check"][..],
        &["run"],
        &["run", "--dry-run"],
        &["init"],
        &["key", "grant", &new, "--identity", "ops.txt"],
    ] {
        refused(&host.run(args), 2, "is revoked");
    }
    assert!(host.good(&["key", "list"]).out.contains(&format!("{escrow} (still in `keys.recipients`: no run starts)")));
    assert_eq!(restore(&host, "ops.txt", "still", &[]).code, 0);
    host.good(&["verify"]);
    host.good(&["replicate"]);
    // The only one is not revoked before there is another.
    host.change(&format!(", \"{escrow}\""), "");
    refused(&host.run(&["key", "revoke", &ops]), 2, "the only recipient");
}

/// Seconds of now, as `valid-before` has them.
#[expect(clippy::disallowed_methods, reason = "the program's clock is the machine's")]
fn stamp() -> String {
    chrono::Utc::now().format("%Y%m%d%H%M%SZ").to_string()
}

/// Text without the breaks of a table's lines.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn next_second() {
    std::thread::sleep(std::time::Duration::from_millis(1100));
}

#[test]
fn a_rotated_host_key_vouches_for_the_past_and_for_nothing_new() {
    let host = Host::with_two_vaults();
    let old_line = fs::read_to_string(host.path("signers")).unwrap();
    host.good(&["key", "new", "--host", "host_key_2"]);
    let public = fs::read_to_string(host.path("host_key_2.pub")).unwrap();
    let public: Vec<&str> = public.split_whitespace().take(2).collect();
    next_second();
    let ended = stamp();
    let old_ended = old_line.replace("namespaces=", &format!("valid-before=\"{ended}\",namespaces="));
    let lines = format!("{old_ended}backup namespaces=\"backup.*\" {}\n", public.join(" "));
    fs::write(host.path("signers"), &lines).unwrap();
    // The old key signs nothing any more: fails without `Signers::ended` in `Session::host_key`.
    refused(&host.run(&["run"]), 12, "would not be believed");
    host.change("host_key = \"host_key\"", "host_key = \"host_key_2\"");
    // The page that says how to restore is signed by a key that has ended: told, and `init` signs it anew.
    let told = host.run(&["verify"]);
    let says = told.out.contains("`backup init`, which signs it") && !told.out.contains("pin the signer");
    assert!(told.code == 12 && says, "{}{}", told.out, told.err);
    host.good(&["init"]);
    fs::write(host.path("data/b.txt"), "more").unwrap();
    host.good(&["run"]);
    host.good(&["run"]);
    let all = ids(&host);
    assert_eq!(all.len(), 3);
    for id in &all {
        let (back, shown) = (restore(&host, "ops.txt", id, &[id]), host.good(&["show", id, "--json"]));
        assert_eq!(back.code, 0, "{}{}", back.out, back.err);
        assert!(shown.out.contains("\"chain\""));
    }
    let verified = host.good(&["verify", "--identity", "ops.txt", "--json"]).json();
    let chains = verified["vaults"].as_array().unwrap();
    assert!(chains.iter().all(|one| one["chain"] == serde_json::json!([]) && one["forks"] == serde_json::json!([])));
    host.good(&["status"]);
    host.good(&["prune"]);

    // Whoever kept the old key signs a snapshot now: it is put beside the others, and believed by nobody.
    fs::write(host.path("thief_signers"), &old_line).unwrap();
    let text = config(&host).replace("host_key_2", "host_key").replace("\"signers\"", "\"thief_signers\"");
    fs::write(host.path("thief.toml"), text.replace("state = \"state\"", "state = \"thief\"")).unwrap();
    next_second();
    host.run(&["run", "--config", "thief.toml"]);
    let newest = ids(&host).pop().unwrap();
    assert!(!all.contains(&newest));
    let told = host.run(&["verify"]);
    assert!(
        told.code == 12 && told.out.contains("newer than the line's `valid-before` (`"),
        "{}{}",
        told.out,
        told.err
    );
    let says = |what: &str| told.out.contains(what);
    assert!(says("NOT BELIEVED: see below") && says("if the limit is wrong, mend it"), "{}", told.out);
    assert!(!says("DAMAGED") && !says("pin the signer"), "{}", told.out);
    let forged = restore(&host, "ops.txt", "forged", &[&newest]);
    assert!(forged.code == 12 && forged.err.contains("valid-before"), "{}", forged.err);
    assert!(!host.path("forged").exists());
    assert_eq!(restore(&host, "ops.txt", "good", &[&all[2]]).code, 0);
}

#[test]
fn a_cloned_host_is_told_as_a_fork_and_settled() {
    let host = Host::new();
    let shared = tempfile::tempdir().unwrap();
    for name in ["data", "local"] {
        fs::create_dir(host.path(name)).unwrap();
    }
    fs::write(host.path("data/a.txt"), "hello").unwrap();
    let far =
        format!("[vault.shared]\npath = \"{}\"\nkeep = {{ within = \"7d\", min = 2 }}\n", shared.path().display());
    host.configure(&format!("{}{far}{DOCS}", Host::local("local")));
    host.good(&["init"]);
    host.good(&["run"]);
    let clone = host.cloned();
    next_second();
    host.good(&["run"]);
    next_second();
    clone.run(&["run"]);
    let all = ids(&host);
    assert_eq!(all.len(), 3, "{all:?}");
    for here in [&host, &clone] {
        for verb in ["verify", "status"] {
            let told = here.run(&[verb]);
            let text = format!("{}{}", told.out, told.err);
            assert!(told.code == 4 && text.contains("fork: ") && text.contains("a key of its own"), "{verb}: {text}");
            assert!(text.contains(&all[1]) && text.contains(&all[2]), "{verb}: {text}");
        }
        let frozen = here.run(&["prune"]);
        assert!(frozen.out.contains("fork: "), "{}{}", frozen.out, frozen.err);
    }
    // What the vaults that answer show of a fork is told while another one is silent. Fails where a silent vault ends the look.
    fs::rename(host.path("local"), host.path("away")).unwrap();
    for verb in ["verify", "status"] {
        let told = host.run(&[verb]);
        let text = format!("{}{}", told.out, told.err);
        assert!(told.code == 4 && text.contains("fork: ") && text.contains("vault `local`"), "{verb}: {text}");
    }
    fs::rename(host.path("away"), host.path("local")).unwrap();
    // Fails without the forks in `audit::judge`.
    let audited = host.run(&["audit"]);
    assert!(audited.code == 4 && flat(&audited.out).contains("fork: "), "{}{}", audited.out, audited.err);
    let forks = host.run(&["status", "--json"]).json();
    assert_eq!(forks["sources"][0]["forks"][0]["snapshots"], serde_json::json!([all[1], all[2]]), "{forks:#}");
    for id in &all {
        assert_eq!(restore(&host, "ops.txt", id, &[id]).code, 0);
    }
    // The clone gets its own key, which both pin; one branch is accepted.
    clone.good(&["key", "new", "--host", "own_key"]);
    let public = fs::read_to_string(clone.path("own_key.pub")).unwrap();
    let public: Vec<&str> = public.split_whitespace().take(2).collect();
    for here in [&host, &clone] {
        let lines = fs::read_to_string(here.path("signers")).unwrap();
        fs::write(here.path("signers"), format!("{lines}backup namespaces=\"backup.*\" {}\n", public.join(" ")))
            .unwrap();
    }
    clone.change("host_key = \"host_key\"", "host_key = \"own_key\"");
    clone.good(&["accept", &all[2]]);
    host.good(&["replicate"]);
    next_second();
    host.good(&["run"]);
    next_second();
    clone.good(&["run"]);
    host.good(&["replicate"]);
    for here in [&host, &clone] {
        here.good(&["verify", "--identity", "ops.txt"]);
        here.good(&["status"]);
        assert!(!here.good(&["prune"]).out.contains("fork"));
        let audited = here.run(&["audit"]);
        assert!(audited.code != 4 && !audited.out.contains("fork"), "{}{}", audited.out, audited.err);
    }
}

/// A new host beside the one that made a vault at `place`, with the other's operators and nothing configured but `rest`.
fn newcomer(first: &Host, rest: &str) -> Host {
    let host = Host::new().of_operators(first);
    fs::create_dir(host.path("data")).unwrap();
    fs::write(host.path("data/a.txt"), "hello again").unwrap();
    host.configure(&format!("{DOCS}{rest}"));
    host
}

#[test]
fn a_new_host_joins_the_vault_of_one_that_is_gone() {
    for by_url in [true, false] {
        let first = Host::with_two_vaults();
        let place = first.path("offsite");
        let url = place.to_str().unwrap();
        let table = format!("[vault.shared]\npath = \"{url}\"\nkeep = {{ within = \"7d\", min = 2 }}\n");
        let adopt = if by_url { url } else { "shared" };
        let before = content(&place);
        let rest = if adopt == "shared" { table.as_str() } else { "" };
        let host = newcomer(&first, rest);
        if adopt == "shared" {
            refused(&host.run(&["init"]), 2, "already holds the vault");
            assert!(host.run(&["init"]).err.contains("backup init --adopt shared"));
        }
        let text = config(&host);
        let dry = host.good(&["init", "--adopt", adopt, "--dry-run"]);
        assert!(dry.err.contains("would be adopted"), "{}", dry.err);
        assert_eq!(config(&host), text);
        let joined = host.good(&["init", "--adopt", adopt]);
        assert!(joined.err.contains("adopted") && joined.out.contains("RECOVERY SHEET"), "{}", joined.err);
        // Whose snapshots lie there is told, and nobody is pinned.
        assert!(joined.err.contains("who is not pinned here"), "{}", joined.err);
        let pinned = config(&host);
        assert!(pinned.starts_with(text.lines().next().unwrap()) && pinned.matches("id = \"").count() == 1, "{pinned}");
        host.good(&["init", "--adopt", adopt]);
        assert_eq!(config(&host), pinned);
        assert!(content(&place) == before, "adopting changed the vault");
        // The other host's line comes from its sheet; then everything is believed, and the first run goes its own way.
        let lines = fs::read_to_string(host.path("signers")).unwrap();
        fs::write(host.path("signers"), lines + &fs::read_to_string(first.path("signers")).unwrap()).unwrap();
        host.good(&["init"]);
        assert!(content(&place) == before, "a page that is believed is written anew");
        host.good(&["run"]);
        let shown = |id: &String| {
            let shown = host.good(&["show", id, "--json"]).json();
            (shown["snapshot"]["generation"].clone(), shown["signed_by"].clone(), shown["snapshot"]["previous"].clone())
        };
        let all = ids(&host);
        let (old, new) = (shown(&all[0]), shown(all.last().unwrap()));
        assert!(old.0 != new.0 && old.1 != new.1 && new.2.is_null(), "{old:?} {new:?}");
        host.good(&["verify", "--identity", "ops.txt"]);
        for id in [&all[0], all.last().unwrap()] {
            assert_eq!(restore(&host, "ops.txt", id, &[id]).code, 0);
        }
        let after = content(&place);
        assert!(before.iter().all(|file| after.contains(file)), "what was there is as it was");
    }
}

#[test]
fn only_a_vault_of_a_known_format_is_joined() {
    let first = Host::with_two_vaults();
    let place = first.path("offsite");
    let host = newcomer(&first, "");
    let text = config(&host);
    let document = fs::read_to_string(place.join("vault.json")).unwrap();
    let adopt = |url: &str| host.run(&["init", "--adopt", url]);
    let nowhere = host.path("nowhere");
    refused(&adopt(nowhere.to_str().unwrap()), 10, "nowhere");
    assert!(!nowhere.exists(), "a place was made");
    fs::create_dir(&nowhere).unwrap();
    refused(&adopt(nowhere.to_str().unwrap()), 10, "there is no vault in");
    assert!(files_below(&nowhere).is_empty());
    refused(&adopt("shared"), 2, "`vault` is missing");
    refused(&host.run(&["init", "--as", "x"]), 2, "--adopt");
    fs::write(place.join("vault.json"), document.replace("\"format\": 1", "\"format\": 2")).unwrap();
    refused(&adopt(place.to_str().unwrap()), 10, "format 2");
    fs::write(place.join("vault.json"), "{}").unwrap();
    refused(&adopt(place.to_str().unwrap()), 4, "vault.json");
    assert_eq!(config(&host), text);
    fs::write(place.join("vault.json"), &document).unwrap();
    // A key of its own that is not pinned: its line is told.
    fs::write(host.path("signers"), fs::read_to_string(first.path("signers")).unwrap()).unwrap();
    let unpinned = adopt(place.to_str().unwrap());
    refused(&unpinned, 12, "not among the pinned signers");
    assert!(unpinned.err.contains("backup namespaces=\"backup.*\" ssh-ed25519 "), "{}", unpinned.err);
    assert_eq!(config(&host), text);
}
