//! Names in SQL and in `pg_dump` patterns: the one place that quotes.
//!
//! A name can hold quotes, dots, line ends and letters outside ASCII. Statements that go into a manifest must stay one
//! line and must mean the same whatever `client_encoding` the reader has set for the data that follows; hence the
//! `U&"…"` form for what is not plain.

use std::fmt::Write as _;

use super::alternatives::alternatives;

/// The first of 128 characters for private use that stand for the bytes 0x80 to 0xFF where these are no UTF-8.
const STAND_IN: u32 = 0xef80;

fn stand_in(byte: u8) -> char {
    char::from_u32(STAND_IN + u32::from(byte & 0x7f)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character stands for.
fn stood_for(c: char) -> Option<u8> {
    let offset = u32::from(c).checked_sub(STAND_IN).filter(|offset| *offset < 0x80)?;
    u8::try_from(0x80 + offset).ok()
}

/// Text of a database without an encoding (`SQL_ASCII`), where a name may be any bytes: UTF-8 as it is, each other byte as
/// the character that stands for it. UTF-8 of those very characters is taken for such bytes, so that [`to_bytes`]
/// gives back what it was, and no two names become one.
pub(super) fn from_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if stood_for(c).is_some() {
                out.extend(c.encode_utf8(&mut [0; 4]).bytes().map(stand_in));
            } else {
                out.push(c);
            }
        }
        out.extend(chunk.invalid().iter().copied().map(stand_in));
    }
    out
}

/// The bytes that [`from_bytes`] made a text of.
pub(super) fn to_bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for c in text.chars() {
        match stood_for(c) {
            Some(byte) => out.push(byte),
            None => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    out
}

/// Whether a text of [`from_bytes`] was no UTF-8.
pub(super) fn has_stand_ins(text: &str) -> bool {
    text.chars().any(|c| stood_for(c).is_some())
}

/// How statements are written for a database: the encoding of its COPY data decides what is safe in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Encoding {
    /// PostgreSQL's name, such as `UTF8`, `LATIN1`, `SQL_ASCII`.
    pub(super) name: String,
}

impl Encoding {
    /// Our statements are UTF-8.
    pub(super) fn is_utf8(&self) -> bool {
        self.name == "UTF8"
    }

    /// Any bytes are text, and nothing is converted.
    pub(super) fn is_none(&self) -> bool {
        self.name == "SQL_ASCII"
    }

    /// The server converts between its encoding and UTF-8: sessions switch around each COPY.
    pub(super) fn is_converted(&self) -> bool {
        !self.is_utf8() && !self.is_none()
    }

    /// A quoted identifier on one line.
    ///
    /// In a UTF8 database our UTF-8 is right; in `SQL_ASCII` bytes pass as they are, and escapes above 127 are refused.
    /// Everywhere else letters outside ASCII are escaped and the server converts them.
    pub(super) fn identifier(&self, name: &str) -> String {
        let escaped = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        let escaped = |c: char| escaped(c) && (c.is_ascii() || !self.is_none());
        let escaped = |c: char| escaped(c) || (!c.is_ascii() && self.is_converted());
        if !name.chars().any(escaped) {
            return format!("\"{}\"", name.replace('"', "\"\""));
        }
        let mut out = String::from("U&\"");
        for c in name.chars() {
            match c {
                '"' => out.push_str("\"\""),
                '\\' => out.push_str("\\\\"),
                c if escaped(c) && u32::from(c) > 0xffff => drop(write!(out, "\\+{:06X}", u32::from(c))),
                c if escaped(c) => drop(write!(out, "\\{:04X}", u32::from(c))),
                c => out.push(c),
            }
        }
        out.push('"');
        out
    }

    /// `"schema"."name"`.
    pub(super) fn qualified(&self, schema: &str, name: &str) -> String {
        format!("{}.{}", self.identifier(schema), self.identifier(name))
    }

    /// `"schema"."name" ("a", "b")`, what stands between `COPY` and `FROM` or `TO`. Without columns (a table without
    /// any, or with generated ones only) the list is left out: each row is an empty line then.
    pub(super) fn copied(&self, schema: &str, name: &str, columns: &[String]) -> String {
        let table = self.qualified(schema, name);
        if columns.is_empty() {
            return table;
        }
        let columns: Vec<String> = columns.iter().map(|column| self.identifier(column)).collect();
        format!("{table} ({})", columns.join(", "))
    }
}

/// A string literal; sessions have `standard_conforming_strings` on.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A text for people: on one line, bytes that are no text as `\xE9`.
pub(super) fn readable(text: &str) -> String {
    let letter = |c: char| match stood_for(c) {
        Some(byte) => format!("\\x{byte:02X}"),
        None if c.is_control() => "?".to_owned(),
        None => c.to_string(),
    };
    text.chars().map(letter).collect()
}

/// `schema.name` for people, and the form that `exclude_data` is written in: a part with a dot or a quote in it stands
/// in double quotes.
pub(crate) fn shown(schema: &str, name: &str) -> String {
    let part = |text: &str| {
        let plain = readable(text);
        if plain.contains(['.', '"']) { format!("\"{}\"", plain.replace('"', "\"\"")) } else { plain }
    };
    format!("{}.{}", part(schema), part(name))
}

/// Reads `schema.name`, each part plain or in double quotes; case counts. `None` when it is not of that form.
pub(super) fn parse_shown(text: &str) -> Option<(String, String)> {
    let (schema, rest) = parse_part(text)?;
    let (name, rest) = parse_part(rest.strip_prefix('.')?)?;
    (rest.is_empty() && !schema.is_empty() && !name.is_empty()).then_some((schema, name))
}

fn parse_part(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find('.').unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let (mut out, mut rest) = (String::new(), quoted);
    loop {
        let (before, after) = rest.split_once('"')?;
        out.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                out.push('"');
                rest = more;
            }
            None => return Some((out, after)),
        }
    }
}

/// Patterns for `--exclude-table-data` that match exactly these tables: `"s".("a"|"b")` (see [`alternatives`]). Inside double quotes
/// `pg_dump` takes every character literally. Each stays below the kernel's 128 KiB for one argument, with room for
/// encodings that need more bytes than UTF-8.
pub(super) fn patterns<'a>(tables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    const NAMES: usize = 2000;
    const BYTES: usize = 64 * 1024;
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut out: Vec<(&str, usize, Vec<&str>)> = Vec::new();
    for (schema, name) in tables {
        // Two quotation marks, two brackets, a bar; each quotation mark in it may be doubled.
        let bytes = 2 * name.len() + 5;
        match out.last_mut() {
            Some((of, sum, names)) if *of == schema && names.len() < NAMES && *sum + bytes < BYTES => {
                *sum += bytes;
                names.push(name);
            }
            _ => out.push((schema, bytes, vec![name])),
        }
    }
    out.into_iter().map(|(schema, _, names)| format!("{}.({})", quoted(schema), alternatives(&names))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(name: &str) -> Encoding {
        Encoding { name: name.to_owned() }
    }

    #[test]
    fn statements_stay_one_line_and_independent_of_the_encoding() {
        let (utf8, latin1, ascii) = (encoding("UTF8"), encoding("LATIN1"), encoding("SQL_ASCII"));
        assert_eq!(utf8.identifier("Ab \"c\".d"), "\"Ab \"\"c\"\".d\"");
        assert_eq!(utf8.identifier("a\n\\\"é"), "U&\"a\\000A\\\\\"\"é\"");
        assert_eq!(utf8.identifier("é\u{2028}"), "U&\"é\\2028\"");
        assert_eq!(latin1.identifier("é😀"), "U&\"\\00E9\\+01F600\"");
        assert_eq!(ascii.identifier("é\r"), "U&\"é\\000D\"");
        assert_eq!(utf8.copied("s", "t", &[]), "\"s\".\"t\"");
        assert_eq!(utf8.copied("s", "t", &["a".into(), "B".into()]), "\"s\".\"t\" (\"a\", \"B\")");
        assert_eq!(literal("it's"), "'it''s'");
    }

    #[test]
    fn bytes_that_are_no_text_come_back_and_no_two_names_become_one() {
        let names: [&[u8]; 9] = [
            b"plain",
            "h\u{e9}".as_bytes(),
            b"h\xe9",
            b"\xff\xfe\x80",
            b"\xc3",
            b"\xc3\xa9\xc3",
            // What stands for 0xE9, as a name.
            "\u{efe9}".as_bytes(),
            b"\xef\xbf",
            "\u{ef7f}\u{f000}".as_bytes(),
        ];
        for name in names {
            let text = from_bytes(name);
            assert_eq!(to_bytes(&text), name, "{text:?}");
            assert_eq!(
                has_stand_ins(&text),
                std::str::from_utf8(name).is_err() || name == "\u{efe9}".as_bytes(),
                "{text:?}"
            );
        }
        let texts: std::collections::BTreeSet<String> = names.into_iter().map(from_bytes).collect();
        assert_eq!(texts.len(), names.len());
        assert_eq!(shown("s", &from_bytes(b"h\xe9 \n")), "s.h\\xE9 ?");
        assert_eq!(to_bytes(&encoding("SQL_ASCII").identifier(&from_bytes(b"h\xe9\n\""))), b"U&\"h\xe9\\000A\"\"\"");
    }

    #[test]
    fn excluded_names_are_read_as_they_are_shown() {
        for (schema, name) in [("public", "t"), ("S x", "a.b"), ("q\"q", "Upper"), ("s", "\".\"")] {
            assert_eq!(parse_shown(&shown(schema, name)), Some((schema.to_owned(), name.to_owned())));
        }
        for bad in ["t", "a.b.c", "\"a.b", ".t", "a.", "\"a\"x.b", ""] {
            assert_eq!(parse_shown(bad), None, "{bad}");
        }
    }

    #[test]
    fn patterns_group_by_schema_and_stay_short() {
        assert_eq!(patterns([("s", "a"), ("s", "b|\""), ("t", "c")]), ["\"s\".(\"a\"|\"b|\"\"\")", "\"t\".(\"c\")"]);
        let names: Vec<String> = (0..5000).map(|n| format!("{n:060}")).collect();
        let all = patterns(names.iter().map(|name| ("s", name.as_str())));
        assert!(all.len() > 3 && all.iter().all(|pattern| pattern.len() < 100 * 1024));
        assert_eq!(all.iter().map(|pattern| pattern.matches('|').count() + 1).sum::<usize>(), 5000);
    }
}
