//! Rows and scripts as a fuzzer brings them: cut anywhere they are the same.

use super::import::script::Script;
use super::restore::sql::statements;
use super::rows::{RowFormat, RowSplitter};
use super::{instants, names};

pub use super::wire::fuzz::wire;

/// COPY files of each format, whole and cut in two.
pub fn rows(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else { return };
    let (columns, cut) = (usize::from(cut % 4), usize::from(*cut) * data.len() / 255);
    for format in [RowFormat::Text, RowFormat::Binary, RowFormat::Dump] {
        let mut whole = RowSplitter::new(format, columns);
        whole.feed(data);
        let mut pieces = RowSplitter::new(format, columns);
        pieces.feed(&data[..cut]);
        pieces.feed(&data[cut..]);
        assert!(whole.rows() <= data.len() as u64);
        assert_eq!(whole.rows(), pieces.rows(), "{format}");
        assert_eq!(whole.between_rows(), pieces.between_rows(), "{format}");
        assert_eq!(whole.finish(), pieces.finish(), "{format}: the cut at {cut} is seen");
    }
    for row in data.split(|b| *b == b'\n') {
        assert!(instants::normal(row).len() <= row.len() + 64 * (1 + row.len() / 19));
    }
}

/// A plain dump: every line is told once, as it came; and a statement's names.
pub fn script(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else { return };
    let cut = usize::from(*cut) * data.len() / 255;
    let read = |pieces: &[&[u8]]| {
        let (mut script, mut told) = (Script::default(), Vec::new());
        for piece in pieces {
            script.feed(piece, |line, _| told.extend_from_slice(line));
        }
        (format!("{:?}", script.finish()), told)
    };
    let (whole, told) = read(&[data]);
    assert!(data.starts_with(&told) && !data[told.len()..].contains(&b'\n'), "a line was changed or left out");
    assert_eq!(read(&[&data[..cut], &data[cut..]]), (whole, told), "the cut at {cut} is seen");

    assert_eq!(names::to_bytes(&names::from_bytes(data)), data, "a name that has no text");
    let Ok(text) = str::from_utf8(data) else { return };
    for statement in statements(text) {
        assert!(text.contains(&statement.text));
    }
    // What is shown has no control characters: those are not read back.
    if names::readable(text) == text
        && let Some((schema, name)) = names::parse_shown(text)
    {
        assert_eq!(names::parse_shown(&names::shown(&schema, &name)), Some((schema, name)));
    }
}
