//! The inventory: all objects that a snapshot needs, public, so that completeness can be checked without any key.
//!
//! Lines `<sha256> <size>`, sorted by name, no duplicates, each ended by a newline; stored as one zstd frame.

use std::fmt::Write as _;
use std::io::Read;

use crate::id::ObjectName;

/// An inventory cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("the inventory cannot be understood: {0}")]
pub struct InventoryError(pub String);

/// One object of an inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InventoryLine {
    /// Its name.
    pub name: ObjectName,
    /// Its stored size.
    pub bytes: u64,
}

/// Largest text that is read: some four million objects.
const MAX_TEXT_BYTES: u64 = 320 << 20;

/// Writes the stored form of `lines`, which are sorted and made unique here.
pub fn write(mut lines: Vec<InventoryLine>) -> Result<Vec<u8>, InventoryError> {
    lines.sort_unstable();
    lines.dedup();
    let mut text = String::with_capacity(lines.len() * 72);
    for line in &lines {
        let _ = writeln!(text, "{} {}", line.name, line.bytes);
    }
    zstd::bulk::compress(text.as_bytes(), 3).map_err(|e| InventoryError(e.to_string()))
}

/// Reads a stored inventory, strictly.
pub fn read(stored: &[u8]) -> Result<Vec<InventoryLine>, InventoryError> {
    let refused = |reason: &str| InventoryError(reason.to_owned());
    let end = zstd::zstd_safe::find_frame_compressed_size(stored).map_err(|_| refused("it is not a zstd frame"))?;
    if end != stored.len() {
        return Err(refused("something follows its zstd frame"));
    }
    let mut decoder = zstd::Decoder::new(stored).map_err(|e| InventoryError(e.to_string()))?;
    decoder.window_log_max(27).map_err(|e| InventoryError(e.to_string()))?;
    let mut text = String::new();
    decoder.take(MAX_TEXT_BYTES).read_to_string(&mut text).map_err(|e| InventoryError(e.to_string()))?;
    if text.len() as u64 == MAX_TEXT_BYTES {
        return Err(refused("it is over the limit"));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        return Err(refused("its last line has no end"));
    }
    let mut lines: Vec<InventoryLine> = Vec::new();
    for line in text.lines() {
        let (name, bytes) = line.split_once(' ').ok_or_else(|| refused("a line without a size"))?;
        let parsed = InventoryLine {
            name: name.parse().map_err(|_| refused("a line without a SHA-256"))?,
            bytes: bytes.parse().map_err(|_| refused("a size that is no number"))?,
        };
        if lines.last().is_some_and(|last| last.name >= parsed.name) {
            return Err(refused("its lines are not sorted"));
        }
        lines.push(parsed);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Hash256;

    fn line(n: u8) -> InventoryLine {
        InventoryLine { name: Hash256([n; 32]), bytes: u64::from(n) }
    }

    #[test]
    fn sorted_unique_and_strict() {
        let stored = write(vec![line(3), line(1), line(3)]).unwrap();
        assert_eq!(read(&stored).unwrap(), [line(1), line(3)]);
        assert_eq!(read(&write(vec![]).unwrap()).unwrap(), []);
        let raw = |text: &str| zstd::bulk::compress(text.as_bytes(), 1).unwrap();
        let (one, two) = (format!("{} 1\n", line(1).name), format!("{} 2\n", line(2).name));
        assert!(read(&raw(&format!("{two}{one}"))).is_err());
        assert!(read(&raw(&format!("{one}{one}"))).is_err());
        assert!(read(&raw(one.trim_end())).is_err());
        assert!(read(&raw("x 1\n")).is_err());
        assert!(read(&[stored.clone(), vec![0]].concat()).is_err());
        assert!(read(&stored[..stored.len() - 1]).is_err());
    }
}
