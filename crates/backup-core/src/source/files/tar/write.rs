//! Headers, written. POSIX.1-2017, `pax` utility, "ustar Interchange Format" and "pax Extended Header".
//!
//! Equal entries give equal bytes: no clock, no process id, no user names, one place for each value (the ustar field
//! if it fits, else the extended record).

use super::{BLOCK, Entry, PAX_BYTES, TarError};
use crate::manifest::PathKind;

/// Two zero blocks end an archive.
pub(in super::super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Largest value of an octal field of `width` bytes, of which the last is a NUL.
const fn octal_max(width: u32) -> u64 {
    (1 << (3 * (width - 1))) - 1
}

/// How many zero bytes fill up content of this length to whole blocks.
pub(in super::super) fn padding(bytes: u64) -> usize {
    // The remainder is below 512.
    usize::try_from(bytes.wrapping_neg() % BLOCK as u64).unwrap_or(0)
}

/// The header blocks of an entry: an extended header where needed, then the ustar header.
pub(in super::super) fn encode(entry: &Entry) -> Result<Vec<u8>, TarError> {
    let mut path = entry.path.clone();
    if entry.kind == PathKind::Dir {
        path.push(b'/');
    }
    let mut records = Vec::new();
    let split = split(&path);
    if split.is_none() {
        record(&mut records, b"path", &path);
    }
    if entry.link.len() > 100 {
        record(&mut records, b"linkpath", &entry.link);
    }
    let mut number = |key: &[u8], value: u64, width: u32| {
        if value > octal_max(width) {
            record(&mut records, key, value.to_string().as_bytes());
            0
        } else {
            value
        }
    };
    let size = number(b"size", entry.bytes, 12);
    let uid = number(b"uid", entry.uid.into(), 8);
    let gid = number(b"gid", entry.gid.into(), 8);
    let seconds = u64::try_from(entry.mtime.seconds).ok().filter(|s| *s <= octal_max(12));
    if entry.mtime.nanos != 0 || seconds.is_none() {
        record(&mut records, b"mtime", entry.mtime.text().as_bytes());
    }
    for (name, value) in &entry.xattrs {
        let mut key = b"SCHILY.xattr.".to_vec();
        // As GNU tar spells it: `=` ends a keyword.
        for byte in name {
            match byte {
                b'%' => key.extend(b"%25"),
                b'=' => key.extend(b"%3D"),
                _ => key.push(*byte),
            }
        }
        record(&mut records, &key, value);
    }
    if records.len() as u64 > PAX_BYTES {
        return Err(TarError::Attributes(records.len() as u64));
    }
    let mut out = Vec::with_capacity(3 * BLOCK + records.len());
    if !records.is_empty() {
        let size = records.len() as u64;
        let name = (&b""[..], &b"././@PaxHeader"[..]);
        out.extend(header(name, 0, [0, 0, size, 0], b'x', b""));
        out.extend(&records);
        out.resize(out.len() + padding(size), 0);
    }
    let kind = match entry.kind {
        PathKind::File => b'0',
        PathKind::Hardlink => b'1',
        PathKind::Symlink => b'2',
        PathKind::Dir => b'5',
        PathKind::Fifo => b'6',
    };
    let name = split.unwrap_or_else(|| (b"", &path[..100]));
    let link = if entry.link.len() > 100 { &entry.link[..100] } else { &entry.link[..] };
    out.extend(header(name, entry.mode, [uid, gid, size, seconds.unwrap_or(0)], kind, link));
    Ok(out)
}

/// The path as ustar's prefix and name, if it fits.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    let from = path.len() - 101;
    let at = from + path[from..path.len() - 1].iter().position(|b| *b == b'/')?;
    (1..=155).contains(&at).then(|| (&path[..at], &path[at + 1..]))
}

/// Appends `<length> <key>=<value>\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend(length.to_string().as_bytes());
    out.push(b' ');
    out.extend(key);
    out.push(b'=');
    out.extend(value);
    out.push(b'\n');
}

fn header(name: (&[u8], &[u8]), mode: u32, numbers: [u64; 4], kind: u8, link: &[u8]) -> [u8; BLOCK] {
    let [uid, gid, size, seconds] = numbers;
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.1);
    put(100, format!("{mode:07o}").as_bytes());
    put(108, format!("{uid:07o}").as_bytes());
    put(116, format!("{gid:07o}").as_bytes());
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{seconds:011o}").as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link);
    put(257, b"ustar\x0000");
    put(345, name.0);
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
