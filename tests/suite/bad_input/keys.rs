//! Keys that are wrong, missing or locked: exit 12.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;

use super::{RUN, Row, Stack, check};

#[test]
fn a_wrong_or_locked_key_opens_nothing() {
    let stack = Stack::ready();
    stack.run().expect(0);
    stack.backup(&["key", "new", &stack.text("operator/stranger.txt")]).expect(0);
    let other = stack.backup(&["key", "new", "--host", &stack.text("operator/other_host")]).expect(0);
    fs::write(stack.path("operator/other_signers"), other.stdout).unwrap();
    let plain = fs::read(stack.path("operator/ops.txt")).unwrap();
    stack.private("operator/locked.txt", "");
    fs::write(stack.path("operator/locked.txt"), locked(&plain, "open sesame")).unwrap();
    stack.private("operator/pass.txt", "open sesame\n");
    stack.private("operator/wrong-pass.txt", "open barley\n");
    check(&stack, ROWS);
    // And the right ones do.
    for (at, call) in [
        &["--identity", "{operator/locked.txt}", "--passphrase-file", "{operator/pass.txt}"][..],
        &["--identity", "{operator/escrow.txt}"],
    ]
    .into_iter()
    .enumerate()
    {
        let into = stack.text(&format!("back{at}"));
        let mut words = vec!["restore".to_owned(), "--source".into(), "docs".into(), "--into-dir".into(), into];
        words.extend(call.iter().map(|word| super::argument(&stack, word)));
        stack.backup(&words.iter().map(String::as_str).collect::<Vec<_>>()).expect(0);
        assert!(!super::files_below(&stack.path(&format!("back{at}"))).is_empty());
    }
}

/// As `age -p` writes it, with less work.
fn locked(plain: &[u8], passphrase: &str) -> Vec<u8> {
    let mut recipient = age::scrypt::Recipient::new(passphrase.to_owned().into());
    recipient.set_work_factor(6);
    let one = std::iter::once(&recipient as &dyn age::Recipient);
    let mut out = Vec::new();
    let mut writer = age::Encryptor::with_recipients(one).unwrap().wrap_output(&mut out).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap();
    out
}

fn strangers_sign(stack: &Stack) -> super::Mend {
    let before = fs::read(stack.path("etc/allowed_signers")).unwrap();
    fs::copy(stack.path("operator/other_signers"), stack.path("etc/allowed_signers")).unwrap();
    Box::new(|stack| fs::write(stack.path("etc/allowed_signers"), before).unwrap())
}

const NOTHING: fn(&Stack) -> super::Mend =
    |_| Box::new(|stack| assert!(!stack.path("back").join("docs").exists(), "something came back"));

const ROWS: &[Row] = &[
    Row {
        name: "another identity",
        breaks: NOTHING,
        call: &["restore", "--source", "docs", "--into-dir", "{back}", "--identity", "{operator/stranger.txt}"],
        exit: 12,
        says: &["none of the given identities", "age1"],
        hint: "`backup key check FILE`",
        stores: &[],
    },
    Row {
        name: "no identity",
        breaks: NOTHING,
        call: &["restore", "--source", "docs", "--into-dir", "{back}"],
        exit: 12,
        says: &["no identity was given"],
        hint: "--identity FILE",
        stores: &[],
    },
    Row {
        name: "an identity that is not there",
        breaks: NOTHING,
        call: &["restore", "--source", "docs", "--into-dir", "{back}", "--identity", "{operator/nope.txt}"],
        exit: 12,
        says: &["operator/nope.txt"],
        hint: "check the path",
        stores: &[],
    },
    Row {
        name: "a locked identity and no terminal",
        breaks: NOTHING,
        call: &["restore", "--source", "docs", "--into-dir", "{back}", "--identity", "{operator/locked.txt}"],
        exit: 12,
        says: &["operator/locked.txt", "protected by a passphrase"],
        hint: "--passphrase-file FILE",
        stores: &[],
    },
    Row {
        name: "a locked identity and a wrong passphrase",
        breaks: NOTHING,
        call: &[
            "restore",
            "--source",
            "docs",
            "--into-dir",
            "{back}",
            "--identity",
            "{operator/locked.txt}",
            "--passphrase-file",
            "{operator/wrong-pass.txt}",
        ],
        exit: 12,
        says: &["operator/locked.txt", "passphrase is wrong"],
        hint: "passphrase that protected this file",
        stores: &[],
    },
    Row {
        name: "an unknown signer, for restore",
        breaks: strangers_sign,
        call: &["restore", "--source", "docs", "--into-dir", "{back}", "--identity", "{operator/ops.txt}"],
        exit: 12,
        says: &["is not believed", "signed by SHA256:", "not among the pinned signers"],
        hint: "only if you know the key",
        stores: &[],
    },
    Row {
        name: "an unknown signer, for run",
        breaks: strangers_sign,
        call: RUN,
        exit: 12,
        says: &["host key SHA256:", "not among the pinned signers"],
        hint: "add this line to",
        stores: &[],
    },
    Row {
        name: "no signers",
        breaks: |stack| {
            fs::rename(stack.path("etc/allowed_signers"), stack.path("etc/kept")).unwrap();
            Box::new(|stack| fs::rename(stack.path("etc/kept"), stack.path("etc/allowed_signers")).unwrap())
        },
        call: RUN,
        exit: 12,
        says: &["cannot read the signers"],
        hint: "`backup key list` prints it",
        stores: &[],
    },
    Row {
        name: "a host key that everybody can read",
        breaks: |stack| {
            fs::set_permissions(stack.path("etc/host_key"), fs::Permissions::from_mode(0o644)).unwrap();
            Box::new(|stack| {
                fs::set_permissions(stack.path("etc/host_key"), fs::Permissions::from_mode(0o600)).unwrap();
            })
        },
        call: RUN,
        exit: 12,
        says: &["`keys.host_key`", "open to every user"],
        hint: "chmod 600",
        stores: &[],
    },
];
