//! The inventory: all objects that a snapshot needs, public, so that completeness can be checked without any key.
//!
//! Lines `<sha256> <size>`, sorted by name, no duplicates, each ended by a newline; stored as one zstd frame. The text of a
//! large one is never held: a line is written and read at a time.

use std::io::{BufRead, BufReader, Read, Write as _};

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
/// Longest line that is read: a name, a space, a size of 64 bits and the newline.
const MAX_LINE_BYTES: u64 = 64 + 1 + 20 + 1;

/// Writes the stored form of `lines`, which are sorted and made unique here.
pub fn write(mut lines: Vec<InventoryLine>) -> Result<Vec<u8>, InventoryError> {
    lines.sort_unstable();
    lines.dedup();
    let failed = |error: std::io::Error| InventoryError(error.to_string());
    let digits = |bytes: u64| u64::from(bytes.checked_ilog10().unwrap_or(0)) + 1;
    let text_bytes = lines.iter().map(|line| 64 + 1 + digits(line.bytes) + 1).sum();
    let mut frame = zstd::Encoder::new(Vec::new(), 3).map_err(failed)?;
    frame.set_pledged_src_size(Some(text_bytes)).map_err(failed)?;
    for line in &lines {
        frame.write_all(format!("{} {}\n", line.name, line.bytes).as_bytes()).map_err(failed)?;
    }
    frame.finish().map_err(failed)
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
    let mut text = BufReader::with_capacity(64 << 10, decoder.take(MAX_TEXT_BYTES));
    let mut lines: Vec<InventoryLine> = Vec::new();
    let (mut line, mut text_bytes) = (Vec::new(), 0);
    loop {
        line.clear();
        let read = (&mut text).take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        text_bytes += read.map_err(|e| InventoryError(e.to_string()))? as u64;
        if text_bytes == MAX_TEXT_BYTES {
            return Err(refused("it is over the limit"));
        }
        let line = match line.split_last() {
            None => return Ok(lines),
            Some((b'\n', line)) => std::str::from_utf8(line).map_err(|_| refused("a line that is no text"))?,
            Some(_) => return Err(refused("a line has no end, or is too long")),
        };
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
        assert!(read(&raw(&format!("{} {:0>21}\n", line(1).name, 1))).is_err(), "longer than any line");
        assert!(read(&raw(&format!("{one}\n"))).is_err());
        let longest = [0, 9, 10, u64::MAX - 1, u64::MAX].map(|bytes| InventoryLine { bytes, ..line(1) });
        for line in longest {
            assert_eq!(read(&write(vec![line]).unwrap()).unwrap(), [line]);
        }
        assert!(read(&[stored.clone(), vec![0]].concat()).is_err());
        assert!(read(&stored[..stored.len() - 1]).is_err());
    }
}
