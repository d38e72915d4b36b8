//! JSON as this project stores it: one member a line, so that `sed`, `awk` and `diff` can work on it, and strict on reading.
//!
//! Reading refuses duplicate keys, unknown members (the types deny them) and anything after the document. A document
//! of a newer format is refused *by name* before its unknown members are complained about.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::Formatter;

use crate::words::plain;

/// A stored document could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It says that a newer program wrote it.
    #[error("it has format {found}, and this program knows up to {known}")]
    Newer {
        /// Format in the document.
        found: u64,
        /// Newest format this program reads.
        known: u64,
    },
    /// It is not the document that it should be.
    #[error("it is not well-formed")]
    Malformed(#[source] Said),
}

/// What the parser said, fit to be shown: it repeats a key that it does not know, and whoever wrote the document chose it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Said(String);

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(Said(plain(&error.to_string())))
    }
}

/// Writes `document` (a struct) with each of its members on a line of its own, members' values compact, and a final newline.
pub fn to_lines<T: Serialize>(document: &T) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, MemberPerLine { depth: 0 });
    document.serialize(&mut serializer).expect("stored documents hold only what JSON can say");
    out.push(b'\n');
    String::from_utf8(out).expect("serde_json writes UTF-8")
}

/// Reads a document whose member `format` must be `known` or older.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8], known: u64) -> Result<T, JsonError> {
    #[derive(serde::Deserialize)]
    struct Head {
        #[serde(default)]
        format: u64,
    }
    let head: Head = serde_json::from_slice(bytes)?;
    if head.format > known {
        return Err(JsonError::Newer { found: head.format, known });
    }
    Ok(serde_json::from_slice(bytes)?)
}

struct MemberPerLine {
    depth: usize,
}

impl Formatter for MemberPerLine {
    fn begin_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth += 1;
        out.write_all(b"{")
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        if self.depth == 1 { out.write_all(b"\n") } else { Ok(()) }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(if self.depth == 1 { b": " } else { b":" })
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        if self.depth == 1 {
            out.write_all(b"\n")?;
        }
        self.depth -= 1;
        out.write_all(b"}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, serde::Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Doc {
        format: u64,
        name: String,
        list: Vec<u32>,
    }

    #[test]
    fn one_member_a_line_and_strict_reading() {
        let doc = Doc { format: 1, name: "a\nb".into(), list: vec![1, 2] };
        let text = to_lines(&doc);
        assert_eq!(text, "{\n\"format\": 1,\n\"name\": \"a\\nb\",\n\"list\": [1,2]\n}\n");
        assert_eq!(from_slice::<Doc>(text.as_bytes(), 1).unwrap(), doc);
        let newer = text.replace("\"format\": 1", "\"format\": 2").replace("name", "title");
        assert!(matches!(from_slice::<Doc>(newer.as_bytes(), 1), Err(JsonError::Newer { found: 2, known: 1 })));
        for bad in [
            text.replace("\"list\"", "\"name\": \"x\", \"list\""),
            text.replace("\"list\"", "\"extra\": 1, \"list\""),
            format!("{text}x"),
        ] {
            assert!(matches!(from_slice::<Doc>(bad.as_bytes(), 1), Err(JsonError::Malformed(_))), "{bad}");
        }
    }
}
