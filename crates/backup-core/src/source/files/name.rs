//! Paths as bytes, as text, and as something that may be trusted.
//!
//! A path of a Unix file system is bytes; an index is text. [`encode`] and [`decode`] are exact inverses, so that a
//! name in Latin-1 comes back as the bytes it was. [`check`] is the only gate between a path that was *read* and a
//! path that is *used*: it refuses whatever could mean a place outside the directory it is joined to.

use std::cmp::Ordering;
use std::fmt::Write as _;

/// The path as text: UTF-8 stays, any other byte and `%` become `%` and two upper-case hex digits.
pub(super) fn encode(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for (at, part) in chunk.valid().split('%').enumerate() {
            text.push_str(if at == 0 { "" } else { "%25" });
            text.push_str(part);
        }
        for byte in chunk.invalid() {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// The bytes that [`encode`] made `text` of; `None` if it made no such text (each path has one text only).
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        if *byte == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            let mut out = [0];
            hex::decode_to_slice(digits, &mut out).ok()?;
            path.push(out[0]);
            rest = after;
        } else {
            path.push(*byte);
            rest = after;
        }
    }
    (encode(&path) == text).then_some(path)
}

/// Whether `path` names something strictly inside the directory it is joined to, in exactly one way.
pub(super) fn check(path: &[u8]) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("the path is empty");
    }
    if path.contains(&0) {
        return Err("the path holds a zero byte");
    }
    if path.starts_with(b"/") {
        return Err("the path is absolute");
    }
    for part in path.split(|b| *b == b'/') {
        match part {
            b".." => return Err("the path holds `..`"),
            b"" | b"." => return Err("the path holds an empty or `.` component"),
            _ if part.len() > 255 => return Err("a component of the path is longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

/// Order of a depth-first walk: components compared as bytes, a directory before what is in it.
///
/// Not the order of the whole path's bytes: that would put `a-b` between `a` and `a/x`, and a stock `tar` that leaves
/// `a` sets its times and mode for good.
pub(super) fn order(a: &[u8], b: &[u8]) -> Ordering {
    a.split(|b| *b == b'/').cmp(b.split(|b| *b == b'/'))
}

/// Whether `path` is `prefix` or lies beneath it. The empty prefix holds everything.
pub(super) fn within(path: &[u8], prefix: &[u8]) -> bool {
    prefix.is_empty() || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The path of the directory that holds `path`; empty at the top.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|b| *b == b'/').map_or(b"", |at| &path[..at])
}

#[cfg(test)]
mod tests {

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_bytes_are_inverses(path in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(decode(&encode(&path)).unwrap(), path);
        }
    }

    #[test]
    fn only_what_must_be_is_escaped() {
        assert_eq!(encode("año/100%".as_bytes()), "año/100%25");
        assert_eq!(encode(b"a\xf1o"), "a%F1o");
    }

    #[test]
    fn a_second_spelling_is_refused() {
        for text in ["%41", "%f1", "%", "%2", "%zz", "%25%2"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    #[test]
    fn paths_that_leave_are_refused() {
        for path in ["", "/abs", "..", "a/../b", "../x", "a/..", "./a", "a//b", "a/", "a\0b"] {
            assert!(check(path.as_bytes()).is_err(), "{path}");
        }
        for path in ["a", "a/b", "..a/b..", "a/...", ".env"] {
            assert!(check(path.as_bytes()).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_directory_comes_right_before_what_it_holds() {
        let mut paths: Vec<&[u8]> = vec![b"a-b", b"a/x", b"a", b"a/x/y", b"a.c"];
        paths.sort_by(|a, b| order(a, b));
        assert_eq!(paths, [&b"a"[..], b"a/x", b"a/x/y", b"a-b", b"a.c"]);
    }

    #[test]
    fn within_ends_at_a_component() {
        assert!(within(b"a/b", b"a") && within(b"a", b"a") && within(b"a", b""));
        assert!(!within(b"ab", b"a") && !within(b"a", b"a/b"));
        assert_eq!((parent(b"a/b/c"), parent(b"a")), (&b"a/b"[..], &b""[..]));
    }
}
