//! A tree of files with what is hard to bring back, and what the kernel says of a tree.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use backup_core::id::Hash256;
use rustix::fs::XattrFlags;

/// Bytes that do not compress.
pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut out: Vec<u8> = std::iter::repeat_with(step).take(bytes.div_ceil(8)).flatten().collect();
    out.truncate(bytes);
    out
}

pub(crate) fn make(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("etc/deep/er")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("large.bin"), noise(3 << 20, 1)).unwrap();
    fs::write(at("etc/.env"), "PASSWORD=canary\n").unwrap();
    fs::write(at("etc/deep/er/zero"), "").unwrap();
    fs::write(at("etc/name with spaces\nand 'quotes' \"ü\""), "odd\0bytes\n").unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"not-utf8-\xff")), "x").unwrap();
    fs::write(at("etc").join("l".repeat(200)), "long name").unwrap();
    for n in 0..20 {
        fs::write(at(&format!("etc/deep/{n}.conf")), format!("n = {n}\n").repeat(n)).unwrap();
    }
    fs::hard_link(at("large.bin"), at("etc/also-large")).unwrap();
    symlink("deep/er/zero", at("etc/link")).unwrap();
    symlink("/nowhere/at/all", at("dangling")).unwrap();
    // Where the file system keeps such attributes.
    let _ = rustix::fs::setxattr(at("etc/.env"), "user.note", b"kept\n\0", XattrFlags::empty());
    for (name, mode) in [("etc/.env", 0o600), ("large.bin", 0o640), ("empty", 0o1777), ("etc/deep/er/zero", 0o4755)] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(at("etc/deep"), fs::Permissions::from_mode(0o750)).unwrap();
}

/// Every path of the tree with type, mode, owner, time, links and content.
pub(crate) fn look(root: &Path) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let content = if meta.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            "dir".to_owned()
        } else {
            let shared = if meta.nlink() > 1 { format!(" {} links", meta.nlink()) } else { String::new() };
            format!("{} {}{shared}", meta.len(), Hash256::of(&fs::read(&path).unwrap()))
        };
        let mut note = [0; 32];
        let note = rustix::fs::lgetxattr(&path, "user.note", &mut note[..]).ok().map(|bytes| note[..bytes].to_vec());
        let mode = if meta.is_symlink() { 0 } else { meta.mode() & 0o7777 };
        let line = format!(
            "{mode:o} {}:{} {}.{:09} {content} {note:?}",
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        seen.insert(name, line);
    }
    seen
}
