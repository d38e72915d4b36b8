//! Addresses of vaults on the command line and on the recovery sheet: a directory, or `s3+https://host/bucket/prefix?region=R`.
//!
//! An address holds no secret: S3 keys come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use backup_core::config::{Place, S3};

use crate::error::CliError;

/// Where a vault is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A directory.
    Directory(PathBuf),
    /// An S3 prefix.
    S3 {
        /// `http(s)://host[:port]`.
        endpoint: String,
        /// Bucket.
        bucket: String,
        /// Prefix, maybe empty.
        prefix: String,
        /// Region.
        region: String,
        /// `endpoint/bucket/key`.
        path_style: bool,
        /// PEM file of the authority.
        ca: Option<PathBuf>,
    },
}

impl Address {
    /// Reads an address; `None` when the text is none, but may be a configured name.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, CliError> {
        if text.starts_with('/') || text.starts_with("./") || text.starts_with("../") {
            return Ok(Some(Self::Directory(PathBuf::from(text))));
        }
        let Some(rest) = text.strip_prefix("s3+") else {
            return if text.contains("://") { Err(wrong(text, "its scheme is not known")) } else { Ok(None) };
        };
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (scheme, location) = location.split_once("://").ok_or_else(|| wrong(text, "it has no host"))?;
        if !matches!(scheme, "http" | "https") {
            return Err(wrong(text, "its scheme is neither `s3+http` nor `s3+https`"));
        }
        let (host, path) = location.split_once('/').ok_or_else(|| wrong(text, "it names no bucket"))?;
        if host.is_empty() || host.contains('@') {
            return Err(wrong(text, "it needs a host, and no user or password"));
        }
        let (bucket, prefix) = path.trim_end_matches('/').split_once('/').unwrap_or((path.trim_end_matches('/'), ""));
        if bucket.is_empty() {
            return Err(wrong(text, "it names no bucket"));
        }
        let (mut region, mut path_style, mut ca) = ("us-east-1".to_owned(), true, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("region", value)) => value.clone_into(&mut region),
                Some(("style", "path")) => path_style = true,
                Some(("style", "host")) => path_style = false,
                Some(("ca", value)) => {
                    ca = Some(decode(value).ok_or_else(|| wrong(text, "its `ca` has a `%` without two hex digits"))?);
                }
                _ => return Err(wrong(text, "it has a parameter other than `region`, `style` and `ca`")),
            }
        }
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        Ok(Some(Self::S3 { endpoint: format!("{scheme}://{host}"), bucket, prefix, region, path_style, ca }))
    }

    /// Whether both are one place, however it is reached.
    pub(crate) fn same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Directory(one), Self::Directory(other)) => real(one) == real(other),
            (
                Self::S3 { endpoint, bucket, prefix, .. },
                Self::S3 { endpoint: other_endpoint, bucket: other_bucket, prefix: other_prefix, .. },
            ) => {
                endpoint.trim_end_matches('/') == other_endpoint.trim_end_matches('/')
                    && bucket == other_bucket
                    && prefix.trim_matches('/') == other_prefix.trim_matches('/')
            }
            _ => false,
        }
    }

    /// The address of a configured place.
    pub(crate) fn of(place: &Place) -> Self {
        match place {
            Place::Path(path) => Self::Directory(path.clone()),
            Place::S3(S3 { endpoint, bucket, prefix, region, path_style, ca, .. }) => Self::S3 {
                endpoint: endpoint.clone().unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com")),
                bucket: bucket.clone(),
                prefix: prefix.clone(),
                region: region.clone(),
                path_style: *path_style,
                ca: ca.clone(),
            },
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::S3 { endpoint, bucket, prefix, region, path_style, ca } => {
                write!(f, "s3+{}/{bucket}", endpoint.trim_end_matches('/'))?;
                if !prefix.is_empty() {
                    write!(f, "/{prefix}")?;
                }
                write!(f, "?region={region}")?;
                if !*path_style {
                    f.write_str("&style=host")?;
                }
                ca.as_ref().map_or(Ok(()), |path| write!(f, "&ca={}", encode(path)))
            }
        }
    }
}

/// A path as a parameter's value: all but plain characters as `%` and two hex digits, so that it survives `&` and a shell.
fn encode(path: &Path) -> String {
    let mut out = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' | b'~' => out.push(char::from(*byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn decode(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let mut byte = [0];
            hex::decode_to_slice(rest.get(..2)?, &mut byte).ok()?;
            bytes.push(byte[0]);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

/// The path without links and `..` where it can be followed.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

fn wrong(text: &str, why: &str) -> CliError {
    // The text is not repeated whole: somebody may have put a password into it.
    let shown: String = text.chars().take_while(|c| !matches!(c, '@' | '?')).collect();
    let shown = if text.contains('@') { "…".to_owned() } else { shown };
    CliError::usage(format!("`{shown}` is not a vault's address: {why}"))
        .hint("write a directory, or `s3+https://host/bucket/prefix?region=REGION`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_and_hold_no_secret() {
        for text in [
            "/srv/backup",
            "s3+http://127.0.0.1:9000/b/v?region=us-east-1",
            "s3+https://minio.example/b?region=garage",
            "s3+https://s3.example/b/v/w?region=eu-west-1&style=host",
            "s3+https://minio.dr.example:9000/b/v?region=us-east-1&ca=/etc/backup/minio-ca.pem",
            "s3+https://s3.example/b?region=r&style=host&ca=/etc/a%20%26%27%25%FFb.pem",
        ] {
            assert_eq!(Address::parse(text).unwrap().unwrap().to_string(), text);
        }
        assert_eq!(Address::parse("offsite"), Ok(None), "a configured name");
        for bad in [
            "ftp://x/y",
            "s3+ftp://x/y",
            "s3+http://x",
            "s3+http:///b",
            "s3+http://x/",
            "s3+http://x/b?secret=1",
            "s3+http://x/b?ca=%g0",
            "s3+http://x/b?ca=a%2",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
        let parsed = Address::parse("s3+https://s3.example/b?region=r&ca=a%26b%25").unwrap().unwrap();
        assert!(matches!(&parsed, Address::S3 { ca: Some(path), .. } if path == Path::new("a&b%")), "{parsed:?}");
        let leak = Address::parse("s3+http://user:hunter2@x/b").unwrap_err();
        assert!(!leak.message().contains("hunter2"), "{}", leak.message());
    }

    #[test]
    fn one_place_may_be_written_in_several_ways() {
        let at = |text: &str| Address::parse(text).unwrap().unwrap();
        assert!(at("/srv/backup").same_place(&at("/srv/backup/")));
        assert!(at("s3+https://h/b/v?region=a&ca=x.pem").same_place(&at("s3+https://h/b/v/?region=a&style=host")));
        for other in ["/srv/other", "s3+https://h/b/w", "s3+https://h/c/v", "s3+http://h/b/v", "s3+https://i/b/v"] {
            assert!(!at("s3+https://h/b/v").same_place(&at(other)), "{other}");
        }
    }
}
