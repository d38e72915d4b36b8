//! The recovery sheet's command, typed as it is printed: it must restore everything that the vaults hold, whoever signed it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use backup_core::signature::{HostKey, Namespace, Signers};

use super::host::{DOCS, Ended, Host};

/// The command for the first vault, as `key sheet` prints it.
fn printed(host: &Host) -> String {
    let sheet = host.good(&["key", "sheet", "--json"]).json();
    let command = sheet["vaults"][0]["command"].as_str().unwrap().to_owned();
    // What is on paper is the same, on several lines.
    let paper = host.good(&["key", "sheet"]).out.replace(" \\\n   ", "");
    assert!(paper.contains(&command), "{command}\n{paper}");
    command
}

/// Types it on a bare machine; what comes back goes to `out` there.
fn typed(command: &str, identity: &Path, bare: &Path) -> Ended {
    let command = command.replace("FILE", identity.to_str().unwrap());
    let folder = Path::new(env!("CARGO_BIN_EXE_backup")).parent().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{command} --into-dir out")]).current_dir(bare).env_clear().stdin(Stdio::null());
    shell.env("PATH", format!("{}:/usr/bin:/bin", folder.to_str().unwrap()));
    Ended::of(shell.output().unwrap())
}

fn restored(bare: &Path) -> Vec<String> {
    let all = super::stack::files_below(&bare.join("out"));
    let mut names: Vec<String> =
        all.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn line(host: &Host, name: &str) -> String {
    let public = fs::read_to_string(host.path(&format!("{name}.pub"))).unwrap();
    public.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_machine_that_pulls_prints_a_command_that_restores_what_it_pulled() {
    let (producer, puller) = (Host::with_two_vaults(), Host::new());
    let own = fs::read_to_string(puller.path("signers")).unwrap();
    fs::write(puller.path("signers"), own + &fs::read_to_string(producer.path("signers")).unwrap()).unwrap();
    fs::create_dir(puller.path("pulled")).unwrap();
    puller.configure(&format!("{}{DOCS}", Host::local("pulled")));
    puller.good(&["init"]);
    puller.good(&["replicate", "--from", producer.path("local").to_str().unwrap(), "--to", "pulled"]);
    let bare = tempfile::tempdir().unwrap();
    // Fails (12) where the sheet names this host's key alone.
    let ended = typed(&printed(&puller), &producer.path("ops.txt"), bare.path());
    assert!(ended.code == 0 && restored(bare.path()) == ["a.txt"], "{ended:?}");
    // Both are on the paper with their lines, this host's first.
    let sheet = puller.good(&["key", "sheet", "--json"]).json();
    let signers = sheet["signers"].as_array().unwrap();
    assert_eq!((signers.len(), &signers[0]["signer"]), (2, &sheet["signer"]), "{sheet:#}");
    assert!(puller.good(&["key", "sheet"]).out.contains(&line(&producer, "host_key")));
}

#[test]
fn another_host_key_leaves_a_sheet_that_restores_what_both_signed() {
    let host = Host::with_two_vaults();
    let text = fs::read_to_string(host.path("backup.toml")).unwrap();
    fs::create_dir(host.path("other")).unwrap();
    fs::write(host.path("other/b.txt"), "b").unwrap();
    fs::write(host.path("backup.toml"), format!("{text}[source.notes]\ntype = \"files\"\npaths = [\"other\"]\n"))
        .unwrap();
    host.good(&["run"]);
    // As in README, "Another host key".
    host.good(&["key", "new", "--host", "host_key.2027"]);
    let lines = format!(
        "backup valid-before=\"29990101Z\",namespaces=\"backup.*\" {}\nbackup namespaces=\"backup.*\" {}\n",
        line(&host, "host_key"),
        line(&host, "host_key.2027")
    );
    fs::write(host.path("signers"), lines).unwrap();
    host.change("host_key = \"host_key\"", "host_key = \"host_key.2027\"");
    host.good(&["init"]);
    // One source has not run yet: its newest is by the old key.
    host.good(&["run", "--source", "notes"]);
    let command = printed(&host);
    let bare = tempfile::tempdir().unwrap();
    let ended = typed(&command, &host.path("ops.txt"), bare.path());
    assert!(ended.code == 0 && restored(bare.path()) == ["a.txt", "b.txt"], "{ended:?}");
    // The end of the old key goes with it: what it signed later is not believed on a bare machine either.
    assert!(command.contains(",valid-before=29990101Z"), "{command}");
    let bare = tempfile::tempdir().unwrap();
    let ended = typed(&command.replace("29990101Z", "20200101Z"), &host.path("ops.txt"), bare.path());
    assert!(ended.code != 0 && !bare.path().join("out").exists(), "{ended:?}");
    let ended = typed(&command.replace("valid-before", "valid-until"), &host.path("ops.txt"), bare.path());
    assert!(ended.code == 2 && ended.err.contains("`valid-until=29990101Z`"), "{ended:?}");
}

#[test]
fn what_the_sheet_pins_is_what_the_lines_pin() {
    let host = Host::new();
    let key = line(&host, "host_key");
    let own = HostKey::from_openssh(&fs::read_to_string(host.path("host_key")).unwrap()).unwrap();
    let text = format!(
        "backup valid-after=\"20250101Z\",valid-before=\"20260101123000Z\",namespaces=\"backup.*\" {key}\n\
         backup namespaces=\"backup.mark.v1\" {key}\nother {key}\n"
    );
    let signers = Signers::parse(&text).unwrap();
    // Whoever signs no snapshots is not on it.
    let pins = signers.pins();
    let pin = format!("{},valid-after=20250101Z,valid-before=20260101123000Z", own.fingerprint());
    assert_eq!(pins.iter().map(|(pin, _)| pin).collect::<Vec<_>>(), [&pin]);
    // The line on paper says the same when it is read.
    assert_eq!(Signers::parse(pins[0].1.as_ref().unwrap()).unwrap().pins(), pins);
    let signature = own.sign(Namespace::Snapshot, b"x").unwrap();
    let believed = |at: &str| {
        let at = at.parse().unwrap();
        [&signers, &Signers::pin(&[&pin]).unwrap()]
            .map(|signers| signers.check(Namespace::Snapshot, b"x", signature.as_bytes(), at).is_ok())
    };
    assert_eq!(believed("2024-12-31T23:59:59Z"), [false; 2]);
    assert_eq!(believed("2026-01-01T12:29:59Z"), [true; 2]);
    assert_eq!(believed("2026-01-01T12:30:00Z"), [false; 2]);
    for wrong in ["SHA256:x", "", &format!("{pin},"), &format!("{},valid-before=soon", own.fingerprint())] {
        assert!(Signers::pin(&[wrong]).is_err(), "{wrong}");
    }
}
