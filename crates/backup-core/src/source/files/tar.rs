//! The tar of a `files` snapshot: POSIX.1-2017 `pax` interchange format, in one exact spelling.
//!
//! Written so that any tar reads it (`write.rs`), read so that only what was written passes (`read.rs`): the reader
//! knows seven kinds of header and nothing else, so there is no dialect in which a hostile archive could say
//! something that the index does not. Neither half touches a file system.

mod read;
mod write;

pub(super) use read::{Item, Reader};
pub(super) use write::{END, encode, padding};

use crate::manifest::PathKind;

/// Size of a tar record's block, bytes.
pub(super) const BLOCK: usize = 512;

/// Most bytes of extended attributes and long names that one entry may carry. Linux allows 64 KiB per attribute.
pub(super) const PAX_BYTES: u64 = 16 << 20;

/// A point in time as file systems keep it: whole seconds since 1970 (rounded down) and nanoseconds after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mtime {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

impl Mtime {
    const NANOS: u32 = 1_000_000_000;

    /// Decimal seconds with nine digits after the point: the one spelling in index and tar.
    pub(super) fn text(self) -> String {
        if self.seconds < 0 && self.nanos > 0 {
            // -2 s and 0.5 s after it is -1.5 s.
            format!("-{}.{:09}", -(self.seconds + 1), Self::NANOS - self.nanos)
        } else {
            format!("{}.{:09}", self.seconds, self.nanos)
        }
    }

    /// Reads [`Mtime::text`]; `None` for any other spelling.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.')?;
        let (seconds, nanos): (i64, u32) = (whole.parse().ok()?, fraction.parse().ok()?);
        let mtime = match (text.starts_with('-'), nanos) {
            (true, 1..) => Self { seconds: seconds.checked_sub(1)?, nanos: Self::NANOS.checked_sub(nanos)? },
            _ => Self { seconds, nanos },
        };
        (nanos < Self::NANOS && mtime.text() == text).then_some(mtime)
    }
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Relative path, no `/` at either end.
    pub(super) path: Vec<u8>,
    pub(super) kind: PathKind,
    /// Length of the content that follows; 0 unless a file.
    pub(super) bytes: u64,
    /// Permission bits with set-id and sticky, at most `0o7777`.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Mtime,
    /// Content of a symlink, or the path of the entry that a hard link names; else empty.
    pub(super) link: Vec<u8>,
    /// Extended attributes, name and value, sorted by name.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A tar was refused, or an entry cannot be written as one.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes are not the tar that a capture writes.
    #[error("not a tar as a capture writes it: {0}")]
    Refused(&'static str),
    /// The archive holds an entry of a kind that is never captured, such as a device.
    #[error("the archive holds an entry of type `{}`, which is never captured", .0.escape_ascii())]
    Type(u8),
    /// The bytes end in the middle.
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    /// The bytes could not be read.
    #[error("cannot read the archive")]
    Read(#[source] std::io::Error),
    /// Extended attributes are larger than an entry may carry.
    #[error("the extended attributes have {0} bytes, more than an archive entry may carry")]
    Attributes(u64),
}

#[cfg(test)]
mod tests {

    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let part = || proptest::collection::vec(any::<u8>().prop_filter("", |b| *b != 0 && *b != b'/'), 1..120);
        let path = || {
            let parts = proptest::collection::vec(part(), 1..6).prop_map(|parts| parts.join(&b'/'));
            parts.prop_filter("a path that is checked before", |p| super::super::name::check(p).is_ok())
        };
        let kind = prop_oneof![
            Just(PathKind::File),
            Just(PathKind::Dir),
            Just(PathKind::Symlink),
            Just(PathKind::Hardlink),
            Just(PathKind::Fifo)
        ];
        let key = "[a-z]{1,8}[.][ -~]{1,12}".prop_map(String::into_bytes);
        let xattrs = proptest::collection::btree_map(key, proptest::collection::vec(any::<u8>(), 0..300), 0..3);
        let mtime = (any::<i64>(), 0_u32..1_000_000_000);
        let numbers = (any::<u64>(), 0_u32..=0o7777, any::<u32>(), any::<u32>());
        (path(), kind, numbers, mtime, path(), xattrs).prop_map(
            |(path, kind, (bytes, mode, uid, gid), mtime, link, x)| {
                let linked = matches!(kind, PathKind::Symlink | PathKind::Hardlink);
                let mtime = Mtime { seconds: mtime.0.max(i64::MIN + 1), nanos: mtime.1 };
                let bytes = if kind == PathKind::File { bytes } else { 0 };
                let link = if linked { link } else { Vec::new() };
                Entry { path, kind, bytes, mode, uid, gid, mtime, link, xattrs: x.into_iter().collect() }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entry in entry()) {
            let bytes = encode(&entry).unwrap();
            prop_assert_eq!(bytes.len() % BLOCK, 0);
            let Item::Entry(read) = Reader::new(&bytes[..]).next_item().unwrap() else { panic!("no entry") };
            prop_assert_eq!(*read, entry);
        }

        #[test]
        fn a_flipped_header_bit_is_seen(entry in entry(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = encode(&entry).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            // Either refused, or (a bit inside an attribute or a long name) read as something else.
            if let Ok(Item::Entry(read)) = Reader::new(&bytes[..]).next_item() {
                prop_assert_ne!(*read, entry);
            }
        }
    }

    #[test]
    fn times_have_one_spelling() {
        for (seconds, nanos, text) in [
            (0, 0, "0.000000000"),
            (1, 5, "1.000000005"),
            (-1, 0, "-1.000000000"),
            (-1, 500_000_000, "-0.500000000"),
            (-2, 500_000_000, "-1.500000000"),
        ] {
            assert_eq!(Mtime { seconds, nanos }.text(), text);
            assert_eq!(Mtime::parse(text), Some(Mtime { seconds, nanos }));
        }
        for text in ["1", "1.5", "+1.000000000", "1.0000000000", "-0.000000000", "1.1000000000", ""] {
            assert_eq!(Mtime::parse(text), None, "{text}");
        }
    }
}
