//! Directory vaults that are away, full, exchanged, or too new.

use std::fs;
use std::process::Command;

use super::{Mend, RUN, Row, Stack, assert_said, check, snapshots};

#[test]
fn a_vault_that_is_not_the_right_one_gets_nothing() {
    let stack = Stack::new();
    stack.drop_offsite();
    stack.init();
    stack.run().expect(0);
    check(&stack, ROWS);
    // `init` over a mount point without its disk goes on past it and makes no second vault there.
    fs::rename(stack.path("local"), stack.path("away")).unwrap();
    fs::create_dir(stack.path("local")).unwrap();
    let out = stack.backup(&["init"]).expect(3);
    assert!(out.stderr.contains("there is no vault in") && out.stderr.contains("mounted"), "{}", out.stderr);
    assert!(super::files_below(&stack.path("local")).is_empty(), "a second vault was made");
}

#[test]
fn the_next_vault_takes_over_and_the_first_gets_all_later() {
    let stack = Stack::ready();
    let row = Row {
        exit: 3,
        says: &["local is not there", "no such directory"],
        stores: &["offsite/db", "offsite/docs"],
        ..away()
    };
    check(&stack, &[row]);
    let (local, offsite): (Vec<_>, Vec<_>) =
        snapshots(&stack).into_iter().partition(|path| path.starts_with(stack.vault("local")));
    assert_eq!((local.len(), offsite.len()), (4, 4), "both runs are in both vaults");
}

/// Named for the test runner: nobody else may need the machine's room meanwhile.
#[test]
fn disk_full_ends_the_run_and_leaves_nothing_half_made() {
    let stack = Stack::new();
    stack.drop_offsite();
    let Some(disk) = Tmpfs::mount(stack.path("local")) else {
        return skipped("disk full", "mounting a tmpfs needs root");
    };
    stack.init();
    let out = stack.run();
    assert_said(&stack, "disk full", &out, 1, &["no space left in", "local"], "make room");
    assert!(snapshots(&stack).is_empty(), "{}", out.all());
    assert!(stack.ids("db").is_empty() && stack.ids("docs").is_empty());
    let drafts = super::files_below(&stack.path("local/.tmp"));
    assert!(drafts.is_empty(), "drafts were left behind: {drafts:?}");
    // The reserve is met before the disk is full: what `init` put there is more than a hundredth of it.
    stack.configure("reserve = \"0%\"", "reserve = \"99%\"");
    assert_said(&stack, "reserve", &stack.run(), 1, &["vault `local`", "`limits.reserve`"], "make room");
    stack.configure("reserve = \"99%\"", "reserve = \"0%\"");
    disk.resize("64m");
    stack.run().expect(0);
    assert_eq!(snapshots(&stack).len(), 2);
    stack.backup(&["verify", "--identity", &stack.text("operator/ops.txt")]).expect(0);
}

struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(path: std::path::PathBuf) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"]).arg(&path).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(path))
    }

    fn resize(&self, size: &str) {
        let status = Command::new("mount").arg("-o").arg(format!("remount,size={size}")).arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Says a skip aloud, where the test script counts it.
fn skipped(what: &str, why: &str) {
    use std::io::Write as _;
    let line = format!("SKIPPED: {what}: {why}");
    let _ = writeln!(std::io::stderr(), "{line}");
    if let Some(path) = std::env::var_os("BACKUP_SKIPS_FILE") {
        let _ = fs::File::options().append(true).create(true).open(path).and_then(|mut file| writeln!(file, "{line}"));
    }
}

/// Rewrites `vault.json` until it is mended.
fn vault_json(stack: &Stack, change: fn(String) -> String) -> Mend {
    let path = stack.path("local/vault.json");
    let before = fs::read_to_string(&path).unwrap();
    let after = change(before.clone());
    assert_ne!(before, after);
    fs::write(&path, after).unwrap();
    Box::new(move |_| fs::write(path, before).unwrap())
}

fn away() -> Row {
    Row {
        name: "not there",
        breaks: |stack| {
            fs::rename(stack.path("local"), stack.path("away")).unwrap();
            Box::new(|stack| fs::rename(stack.path("away"), stack.path("local")).unwrap())
        },
        call: RUN,
        exit: 10,
        says: &["no such directory"],
        hint: "mount the directory",
        stores: &[],
    }
}

const ROWS: &[Row] = &[
    Row {
        name: "not there",
        breaks: |stack| {
            fs::rename(stack.path("local"), stack.path("away")).unwrap();
            Box::new(|stack| fs::rename(stack.path("away"), stack.path("local")).unwrap())
        },
        call: RUN,
        exit: 10,
        says: &["no such directory"],
        hint: "mount the directory",
        stores: &[],
    },
    Row {
        name: "not mounted: an empty directory",
        breaks: |stack| {
            fs::rename(stack.path("local"), stack.path("away")).unwrap();
            fs::create_dir(stack.path("local")).unwrap();
            Box::new(|stack| {
                let left = super::files_below(&stack.path("local"));
                assert!(left.is_empty(), "written below a mount point: {left:?}");
                fs::remove_dir_all(stack.path("local")).unwrap();
                fs::rename(stack.path("away"), stack.path("local")).unwrap();
            })
        },
        call: RUN,
        exit: 10,
        says: &["there is no vault in", "local"],
        hint: "mounted",
        stores: &[],
    },
    Row {
        name: "replaced by another vault",
        breaks: |stack| {
            vault_json(stack, |text| {
                let at = text.find("\"id\"").unwrap() + 6;
                let start = at + text[at..].find(|c: char| c.is_ascii_hexdigit()).unwrap();
                format!("{}{}{}", &text[..start], "0".repeat(32), &text[start + 32..])
            })
        },
        call: RUN,
        exit: 10,
        says: &["holds the vault 00000000", "pins"],
        hint: "mount the right one",
        stores: &[],
    },
    Row {
        name: "a newer format",
        breaks: |stack| {
            vault_json(stack, |text| {
                text.replacen("\"format\":1", "\"format\":2", 1).replacen("\"format\": 1", "\"format\": 2", 1)
            })
        },
        call: RUN,
        exit: 10,
        says: &["`vault.json`", "format 2", "up to 1"],
        hint: "newer version of this program",
        stores: &[],
    },
    Row {
        name: "a damaged vault.json",
        breaks: |stack| vault_json(stack, |text| text[..text.len() / 2].to_owned()),
        call: RUN,
        exit: 4,
        says: &["`vault.json`"],
        hint: "another vault",
        stores: &[],
    },
];
