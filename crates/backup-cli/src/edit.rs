//! The few lines that this program writes into a configuration, and every other byte left alone.
//!
//! The operator's file is edited as text, with its comments and its order; what was meant is then read back, and a result
//! that says anything else than the file did but for that change is not written. Where the text has a form that is not
//! understood here, the operator is told the line to write by hand.

use std::path::Path;

use backup_core::config::Config;
use rustix::fs::{Gid, Uid};

/// Inserts `line` below the heading `[table]`. `None`: there is no such heading on a line of its own.
pub(crate) fn below(text: &str, table: &str, line: &str) -> Option<String> {
    let quoted = table.split_once('.').map(|(kind, name)| format!("[{kind}.\"{name}\"]"));
    let mut out = String::new();
    let mut found = false;
    for existing in text.split_inclusive('\n') {
        out.push_str(existing);
        if !found && (bare(existing) == format!("[{table}]") || Some(bare(existing)) == quoted) {
            found = true;
            if !existing.ends_with('\n') {
                out.push('\n');
            }
            out.push_str(line);
            out.push('\n');
        }
    }
    found.then_some(out)
}

/// A line without its comment and blanks.
fn bare(line: &str) -> String {
    line.split('#').next().unwrap_or("").chars().filter(|c| !c.is_whitespace()).collect()
}

/// Takes a recipient out of `keys.recipients` where it stands there, and names it in `keys.revoked`. `None`: the text has a
/// form that is not understood, or no other recipient would be left.
pub(crate) fn revoke(text: &str, file: &Path, recipient: &str) -> Option<String> {
    let before = Config::parse(text, file).ok()?;
    let mut wanted = before.clone();
    wanted.keys.recipients.retain(|one| one != recipient);
    if wanted.keys.recipients.is_empty() {
        return None;
    }
    let mut edited = text.to_owned();
    if wanted.keys.recipients != before.keys.recipients {
        edited = without(&edited, recipient)?;
    }
    if !wanted.keys.revoked.iter().any(|one| one == recipient) {
        wanted.keys.revoked.insert(0, recipient.to_owned());
        edited = with_revoked(&edited, recipient)?;
    }
    let mut after = Config::parse(&edited, file).ok()?;
    // Warnings follow from the rest.
    after.warnings.clone_from(&wanted.warnings);
    (after == wanted).then_some(edited)
}

/// Where an array's text begins in the table `[keys]`: behind `name = [`.
fn array(text: &str, name: &str) -> Option<usize> {
    let mut at = 0;
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        let shown = bare(line);
        if shown.starts_with('[') {
            inside = shown == "[keys]";
        } else if inside && shown.starts_with(&format!("{name}=[")) {
            return Some(at + line.find('[')? + 1);
        }
        at += line.len();
    }
    None
}

fn without(text: &str, recipient: &str) -> Option<String> {
    let start = array(text, "recipients")?;
    let quoted = ['"', '\''].map(|quote| format!("{quote}{recipient}{quote}"));
    let (at, length) = quoted.iter().find_map(|one| Some((start + text[start..].find(one)?, one.len())))?;
    let rest = &text[at + length..];
    let rest = rest.strip_prefix(',').map_or(rest, |rest| rest.strip_prefix(' ').unwrap_or(rest));
    Some(format!("{}{rest}", &text[..at]))
}

fn with_revoked(text: &str, recipient: &str) -> Option<String> {
    match array(text, "revoked") {
        Some(at) => {
            let comma = if text[at..].trim_start().starts_with(']') { "" } else { ", " };
            Some(format!("{}\"{recipient}\"{comma}{}", &text[..at], &text[at..]))
        }
        None => below(text, "keys", &format!("revoked = [\"{recipient}\"]")),
    }
}

/// Replaces a file by a new one beside it, with the same owner and mode: never half a configuration, and none that its
/// readers cannot read. The new one has a name of its own, so that what a killed process left is in nobody's way.
pub(crate) fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let path = std::fs::canonicalize(path)?;
    let mut random = [0; 8];
    getrandom::fill(&mut random).expect("the system gives random bytes");
    let beside = path.with_extension(format!("toml.{}.new", hex::encode(random)));
    let written = write_like(&path, &beside, text).and_then(|()| std::fs::rename(&beside, &path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// Writes a new file that belongs to whom `like` belongs to.
fn write_like(like: &Path, new: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    let old = std::fs::metadata(like)?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
        rustix::fs::fchown(&file, Some(Uid::from_raw(old.uid())), Some(Gid::from_raw(old.gid())))?;
    }
    file.set_permissions(old.permissions())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_below_its_heading_only() {
        let text = "a = 1\n[vault.b]\npath = \"x\"\n [ vault.a ] # here\npath = \"y\"\n";
        let pinned = below(text, "vault.a", "id = \"0123\"").unwrap();
        assert_eq!(pinned, text.replace("# here\n", "# here\nid = \"0123\"\n"));
        assert_eq!(below(text, "vault.c", "id = \"0123\""), None);
        assert_eq!(below("[vault.\"b\"]", "vault.b", "x = 1").as_deref(), Some("[vault.\"b\"]\nx = 1\n"));
    }

    #[test]
    fn a_revoked_recipient_leaves_the_recipients_and_nothing_else_changes() {
        let [ops, escrow, more] = [1, 2, 3].map(|_| age::x25519::Identity::generate().to_public().to_string());
        let file = Path::new("/etc/backup/backup.toml");
        let text = |recipients: &str, more: &str| {
            format!(
                "schema = 1 # one\nstack = \"s\"\n\n[keys] # who\n# \"{ops}\" is the first\nrecipients = {recipients}\n{more}[vault.v]\npath = \"/v\"\n[source.f]\ntype = \"files\"\npaths = [\"/f\"]\n"
            )
        };
        let forms = [
            (format!("[\"{ops}\", \"{escrow}\"]"), String::new()),
            (format!("[\n  '{escrow}',   # safe\n  '{ops}' # desk\n]"), "signers = \"x\"\n".to_owned()),
            (format!("[\"{escrow}\", \"{ops}\"]"), format!("revoked = [ \"{more}\" ]\n")),
            (format!("[\"{escrow}\", \"{ops}\"]"), "revoked = []\n".to_owned()),
        ];
        for (recipients, rest) in forms {
            let before = text(&recipients, &rest);
            let after = revoke(&before, file, &ops).unwrap_or_else(|| panic!("{before}"));
            let parsed = Config::parse(&after, file).unwrap();
            assert_eq!(parsed.keys.recipients, [escrow.as_str()], "{after}");
            assert_eq!(parsed.keys.revoked[0], ops, "{after}");
            assert!(after.contains("is the first") && after.contains("# one"), "{after}");
            // Once more, nothing changes; and the last one stays.
            assert_eq!(revoke(&after, file, &ops).as_ref(), Some(&after));
            assert_eq!(revoke(&after, file, &escrow), None);
            // One that is no recipient is refused from now on all the same.
            let stranger = age::x25519::Identity::generate().to_public().to_string();
            assert!(revoke(&after, file, &stranger).unwrap().contains(&stranger));
        }
        // A comment with the same text stands first: not understood, so nothing is written.
        let odd = text(&format!("[\n# \"{ops}\"\n\"{ops}\", \"{escrow}\"]"), "");
        assert_eq!(revoke(&odd, file, &ops), None);
        let inline = format!(
            "schema = 1\nstack = \"s\"\nkeys = {{ recipients = [\"{ops}\", \"{escrow}\"] }}\n[vault.v]\npath = \"/v\"\n\
             [source.f]\ntype = \"files\"\npaths = [\"/f\"]\n"
        );
        assert!(Config::parse(&inline, file).is_ok());
        assert_eq!(revoke(&inline, file, &ops), None);
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_owner_and_a_leftover_is_in_nobodys_way() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("backup.toml");
        std::fs::write(&file, "old").unwrap();
        std::fs::write(dir.path().join("backup.toml.new"), "left by a killed process").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        // Only root may give a file away; others keep what they have, which must not change either.
        let given = std::os::unix::fs::chown(&file, Some(4321), Some(4322)).is_ok();
        let before = std::fs::metadata(&file).unwrap();
        replace(&file, "new").unwrap();
        let after = std::fs::metadata(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!((after.uid(), after.gid(), after.mode()), (before.uid(), before.gid(), before.mode()));
        assert!(!given || after.uid() == 4321);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing of its own is left");
        assert!(replace(&dir.path().join("none.toml"), "new").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
