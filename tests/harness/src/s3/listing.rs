//! `ListObjectsV2` over the folder of a bucket, one page at a time.
//!
//! s3s-fs walks the whole bucket for each page, a task per file: with 50,000 files a page takes a second, and what is
//! measured is the test server. This walks in the order of keys, into the folders that can hold the page, and stops when
//! the page is full. Answers are those of s3s-fs: no `ETag`, no owner, no encoding of keys.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use s3s::S3Result;
use s3s::dto::{CommonPrefix, ListObjectsV2Input, ListObjectsV2Output, Object, Timestamp};
use s3s::s3_error;

/// The only delimiter that is asked for.
pub(super) const DELIMITER: &str = "/";
/// Keys of a page when the request names no number.
const PAGE: i32 = 1000;

/// What stands in a page.
enum Found {
    File { key: String, size: u64, modified: SystemTime },
    Folder(String),
}

impl Found {
    fn name(&self) -> &str {
        match self {
            Self::File { key, .. } => key,
            Self::Folder(prefix) => prefix,
        }
    }
}

/// The page that `input` asks of the files below `bucket`; its delimiter is [`DELIMITER`] or none.
pub(super) fn page(bucket: &Path, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
    if !bucket.exists() {
        return Err(s3_error!(NoSuchBucket));
    }
    let most = input.max_keys.unwrap_or(PAGE);
    let mut walk = Walk {
        prefix: input.prefix.as_deref().unwrap_or("").trim_start_matches('/'),
        by_folder: input.delimiter.is_some(),
        after: input.continuation_token.as_deref().max(input.start_after.as_deref()).unwrap_or(""),
        wanted: usize::try_from(most).unwrap_or(0) + 1,
        found: Vec::new(),
    };
    walk.folder(bucket, "").map_err(|error| s3_error!(InternalError, "{error}"))?;
    let is_truncated = most > 0 && walk.found.len() == walk.wanted;
    let mut found = walk.found;
    found.truncate(usize::try_from(most).unwrap_or(0));
    let next_continuation_token = found.last().filter(|_| is_truncated).map(|last| last.name().to_owned());
    let key_count = i32::try_from(found.len()).ok();
    let (mut contents, mut prefixes) = (Vec::new(), Vec::new());
    for one in found {
        match one {
            Found::Folder(prefix) => prefixes.push(CommonPrefix { prefix: Some(prefix) }),
            Found::File { key, size, modified } => contents.push(Object {
                key: Some(key),
                size: i64::try_from(size).ok(),
                last_modified: Some(Timestamp::from(modified)),
                ..Object::default()
            }),
        }
    }
    Ok(ListObjectsV2Output {
        key_count,
        max_keys: Some(most),
        is_truncated: Some(is_truncated),
        contents: (!contents.is_empty()).then_some(contents),
        common_prefixes: (!prefixes.is_empty()).then_some(prefixes),
        continuation_token: input.continuation_token,
        next_continuation_token,
        delimiter: input.delimiter,
        encoding_type: input.encoding_type,
        name: Some(input.bucket),
        prefix: input.prefix,
        start_after: input.start_after,
        ..ListObjectsV2Output::default()
    })
}

struct Walk<'a> {
    prefix: &'a str,
    by_folder: bool,
    after: &'a str,
    /// One more than the page holds: whether there is more.
    wanted: usize,
    found: Vec<Found>,
}

impl Walk<'_> {
    /// Looks below `folder`, whose keys begin with `above` (empty, or ending in the delimiter).
    fn folder(&mut self, folder: &Path, above: &str) -> io::Result<()> {
        for (key, entry, is_folder) in sorted(folder, above)? {
            if self.found.len() == self.wanted {
                return Ok(());
            }
            if is_folder {
                self.below(&key, &entry)?;
            } else if key.starts_with(self.prefix) && key.as_str() > self.after {
                // A file that went meanwhile is not listed.
                if let Some(meta) = unless_gone(entry.metadata())? {
                    self.found.push(Found::File { key, size: meta.len(), modified: meta.modified()? });
                }
            }
        }
        Ok(())
    }

    fn below(&mut self, key: &str, entry: &DirEntry) -> io::Result<()> {
        let asked = key.starts_with(self.prefix);
        let passed = key < self.after && !self.after.starts_with(key);
        if passed || !(asked || self.prefix.starts_with(key)) {
            return Ok(());
        }
        if !(self.by_folder && asked && key.len() > self.prefix.len()) {
            return self.folder(&entry.path(), key);
        }
        if key > self.after && holds_a_file(&entry.path())? {
            self.found.push(Found::Folder(key.to_owned()));
        }
        Ok(())
    }
}

/// What is in `folder`, in the order of keys: a folder's name counts with its delimiter. Names that are no UTF-8 are no keys.
fn sorted(folder: &Path, above: &str) -> io::Result<Vec<(String, DirEntry, bool)>> {
    let Some(entries) = unless_gone(fs::read_dir(folder))? else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry?;
        let is_folder = entry.file_type()?.is_dir();
        if let Some(name) = entry.file_name().to_str() {
            all.push((format!("{above}{name}{}", if is_folder { DELIMITER } else { "" }), entry, is_folder));
        }
    }
    all.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    Ok(all)
}

fn holds_a_file(folder: &Path) -> io::Result<bool> {
    let Some(entries) = unless_gone(fs::read_dir(folder))? else { return Ok(false) };
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || holds_a_file(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn unless_gone<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys whose order is not that of a walk by names: `a-b` comes before `a/x`, and `a.b` too.
    const KEYS: [&str; 11] = [
        "a/x",
        "a-b",
        "a.b",
        "a/y/1",
        "a/y/2",
        "a/y-1",
        "b",
        "v/many/s/g/objects/aa/1",
        "v/many/s/g/x.json",
        "v/many/t",
        "v/vault.json",
    ];

    /// What S3 says of the keys: groups of the first delimiter after the prefix, in order, after `after`.
    fn expected(prefix: &str, by_folder: bool, after: &str) -> Vec<String> {
        let mut all: Vec<String> = KEYS
            .iter()
            .filter_map(|key| key.strip_prefix(prefix))
            .map(|rest| match rest.find(DELIMITER) {
                Some(at) if by_folder => format!("{prefix}{}", &rest[..=at]),
                _ => format!("{prefix}{rest}"),
            })
            .filter(|name| name.as_str() > after)
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn asked(
        bucket: &Path,
        prefix: &str,
        by_folder: bool,
        token: Option<String>,
        most: i32,
    ) -> (Vec<String>, Option<String>) {
        let input = ListObjectsV2Input {
            prefix: Some(prefix.to_owned()),
            delimiter: by_folder.then(|| DELIMITER.to_owned()),
            continuation_token: token,
            max_keys: Some(most),
            ..ListObjectsV2Input::builder().bucket("b".to_owned()).build().unwrap()
        };
        let page = page(bucket, input).unwrap();
        let files = page.contents.unwrap_or_default().into_iter().filter_map(|object| object.key);
        let folders = page.common_prefixes.unwrap_or_default().into_iter().filter_map(|folder| folder.prefix);
        let mut names: Vec<String> = files.chain(folders).collect();
        names.sort_unstable();
        assert!(names.len() <= usize::try_from(most).unwrap());
        (names, page.next_continuation_token)
    }

    #[test]
    fn pages_together_are_what_the_keys_say() {
        let bucket = tempfile::tempdir().unwrap();
        for key in KEYS {
            let place = bucket.path().join(key);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, key).unwrap();
        }
        fs::create_dir_all(bucket.path().join("a/empty/below")).unwrap();
        for prefix in ["", "a", "a/", "a/y", "a/y/", "v/", "v/many/", "v/many/s/g/", "nothing"] {
            for (by_folder, most) in [(false, 1), (false, 3), (false, 100), (true, 1), (true, 2), (true, 100)] {
                let (mut all, mut token) = (Vec::new(), None);
                loop {
                    let (names, next) = asked(bucket.path(), prefix, by_folder, token, most);
                    all.extend(names);
                    token = next;
                    if token.is_none() {
                        break;
                    }
                }
                assert_eq!(all, expected(prefix, by_folder, ""), "`{prefix}`, by folder: {by_folder}, {most} a page");
            }
        }
        assert!(
            page(&bucket.path().join("no"), ListObjectsV2Input::builder().bucket("no".to_owned()).build().unwrap())
                .is_err()
        );
    }
}
