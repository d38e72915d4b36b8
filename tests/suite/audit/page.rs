//! `docs/audit.md` as an auditor would follow it: its script, cut out as it says, with the programs that it names and
//! nothing else, on vaults that the real binary made.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup_core::signature::Namespace;
use chrono::{DateTime, TimeDelta, Utc};
use harness::tools::tool;

use super::super::engine::world::host_key;
use super::super::host::Host;
use super::super::stack::files_below;
use super::scene::now;

const PAGE: &str = include_str!("../../../docs/audit.md");
const TOOLS: [&str; 9] = ["bash", "ssh-keygen", "zstd", "awk", "find", "sha256sum", "sort", "date", "cat"];

/// A host whose binary made `runs` snapshots, and the page's script with its tools. `None` where a tool is missing.
fn host(runs: usize) -> Option<Host> {
    let missing: Vec<&str> = TOOLS.into_iter().filter(|name| tool(name).is_none()).collect();
    if !missing.is_empty() {
        harness::skip("stock-tools", &format!("not installed: {}", missing.join(", ")));
        return None;
    }
    let host = Host::new();
    for name in ["data", "local", "tools"] {
        fs::create_dir(host.path(name)).unwrap();
    }
    for name in TOOLS {
        assert!(PAGE.contains(&format!("`{name}`")), "the page does not name `{name}`");
        symlink(tool(name).unwrap(), host.path("tools").join(name)).unwrap();
    }
    host.configure(&format!("{}[source.docs]\ntype = \"files\"\npaths = [\"data\"]\n", Host::local("local")));
    host.good(&["init"]);
    for run in 0..runs {
        fs::write(host.path(&format!("data/{run}")), vec![u8::try_from(run).unwrap(); 50_000]).unwrap();
        host.good(&["run"]);
        // Names have whole seconds, and the chain's order is theirs.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/audit.md"), host.path("audit.md")).unwrap();
    let cut = PAGE.lines().find_map(|line| line.strip_prefix("    awk ")).unwrap();
    let (code, told) = shell(&host, &["-c", &format!("awk {cut}")]);
    assert_eq!(code, 0, "{told}");
    Some(host)
}

fn shell(host: &Host, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(host.path("tools/bash"));
    command.args(args).current_dir(host.dir()).env_clear().env("PATH", host.path("tools")).stdin(Stdio::null());
    let output = command.output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(told).unwrap())
}

fn page(host: &Host, vault: &str, more: &[&str]) -> (i32, String) {
    shell(host, &[&["audit.sh", vault, "s", "docs", "signers"], more].concat())
}

/// Files of a vault with this in their path, sorted.
fn files(vault: &Path, part: &str, end: &str) -> Vec<PathBuf> {
    let mut found = files_below(vault);
    found.retain(|path| path.to_str().unwrap().contains(part) && path.to_str().unwrap().ends_with(end));
    found
}

#[test]
fn the_page_passes_a_good_vault_and_catches_each_harm() {
    let Some(host) = host(3) else { return };
    let (code, told) = page(&host, "local", &[]);
    assert_eq!((code, told.lines().count()), (0, 1), "{told}");
    assert!(
        told.starts_with("head: ")
            && told
                .contains(files(&host.path("local"), "/snapshots/", ".json")[2].file_stem().unwrap().to_str().unwrap()),
        "{told}"
    );
    let day = |ago: i64| -> DateTime<Utc> { now() - TimeDelta::days(ago) };

    let mut copies = 0;
    let mut harmed = |harm: &dyn Fn(&Path), say: &str| {
        copies += 1;
        let name = format!("copy-{copies}");
        assert!(Command::new("cp").args(["-a", "local", &name]).current_dir(host.dir()).status().unwrap().success());
        harm(&host.path(&name));
        let (code, told) = page(&host, &name, &[]);
        assert!(code == 1 && told.contains(say), "{say}: {code}\n{told}");
    };
    let object = |vault: &Path| files(vault, "/objects/", "").remove(0);
    let document = |vault: &Path, at: usize| files(vault, "/snapshots/", ".json").remove(at);
    let beside = |document: &Path, end: &str| PathBuf::from(document.to_str().unwrap().replace(".json", end));
    // Fails without block 4.
    harmed(&|vault| fs::remove_file(object(vault)).unwrap(), " is missing");
    harmed(&|vault| fs::write(object(vault), "short").unwrap(), " has 5 bytes, not ");
    harmed(&|vault| fs::write(beside(&document(vault, 1), ".inventory.zst"), "x").unwrap(), "the inventory of ");
    // Fails without block 5.
    let flip = |file: &Path| {
        let mut bytes = fs::read(file).unwrap();
        bytes[40] ^= 1;
        fs::remove_file(file).unwrap();
        fs::write(file, bytes).unwrap();
    };
    harmed(&|vault| flip(&object(vault)), "has not the bytes of its name");
    // Fail without block 2.
    harmed(&|vault| flip(&document(vault, 1)), "the signature of ");
    let forged = |vault: &Path| {
        let file = document(vault, 2);
        let signature = host_key(9).sign(Namespace::Snapshot, &fs::read(&file).unwrap()).unwrap();
        fs::remove_file(beside(&file, ".json.sig")).unwrap();
        fs::write(beside(&file, ".json.sig"), signature).unwrap();
    };
    harmed(&forged, "the signature of ");
    let planted = |vault: &Path| {
        let file = document(vault, 1);
        for end in [".json", ".json.sig"] {
            fs::copy(beside(&file, end), file.with_file_name(format!("29990101T000000Z-1b-aaaaaa{end}"))).unwrap();
        }
    };
    harmed(&planted, "29990101T000000Z-1b-aaaaaa does not belong where it lies");
    let unsigned = |vault: &Path| {
        fs::create_dir_all(vault.join("s/docs/marks")).unwrap();
        fs::write(vault.join("s/docs/marks/x.pin.json"), "{}").unwrap();
    };
    harmed(&unsigned, "the signature of marks/x.pin.json is not good");
    // Fails without block 3.
    let hole = |vault: &Path| {
        let file = document(vault, 1);
        for end in [".json", ".json.sig", ".inventory.zst"] {
            fs::remove_file(beside(&file, end)).unwrap();
        }
    };
    harmed(&hole, "is missing");
    // Fail without block 6: a day that the policy promised and nobody captured.
    let first = day(2).format("%Y-%m-%d").to_string();
    let (code, told) = page(&host, "local", &[&first]);
    let lines: Vec<String> =
        [2, 1].iter().map(|ago| format!("audit: no snapshot of {}", day(*ago).format("%Y%m%d"))).collect();
    assert!(code == 1 && lines.iter().all(|line| told.contains(line)), "{told}");
    // What belongs to nothing is named, and is no damage.
    fs::write(host.path("local/s/docs/readme"), "x").unwrap();
    let generation = document(&host.path("local"), 0).parent().unwrap().parent().unwrap().to_owned();
    fs::create_dir(generation.join("grants")).unwrap();
    for name in ["0123456789abcdef.json", "0123456789abcdef.json.sig", "notes.json"] {
        fs::write(generation.join("grants").join(name), "x").unwrap();
    }
    let (code, told) = page(&host, "local", &[]);
    assert!(code == 0 && told.contains("note: belongs to nothing: ./readme"), "{told}");
    // Fails where a grant is a stranger's file, or anything is a grant.
    assert!(told.contains("/grants/notes.json") && !told.contains("0123456789abcdef"), "{told}");
    assert_eq!(page(&host, "local", &["2026-01-01", "more"]).0, 2);
    // A hole that somebody accepted is a note, for as long as the mark is good and about this very document.
    let after = document(&host.path("local"), 2);
    hole(&host.path("local"));
    host.good(&["accept", after.file_stem().unwrap().to_str().unwrap()]);
    let (code, told) = page(&host, "local", &[]);
    assert!(code == 0 && told.contains("says that this is known"), "{code}\n{told}");
    let mark = files(&host.path("local"), "/marks/", ".accept.json").remove(0);
    let text = fs::read_to_string(&mark).unwrap();
    let forged = text.replace("\"mark\": \"accept\"", "\"mark\": \"accept\" ");
    assert_ne!(text, forged);
    fs::write(&mark, forged).unwrap();
    let (code, told) = page(&host, "local", &[]);
    assert!(code == 1 && told.contains("audit: a snapshot between "), "{told}");
}
