//! Exclusion patterns: few rules, so that nobody has to guess what is *not* in a backup.
//!
//! A pattern that starts with `/` is compared with the whole absolute path, one without any `/` with the last
//! component at any depth; anything else is refused. `?` is one byte, `*` any run of bytes, neither crosses a `/`;
//! `**` crosses. A directory that matches is left out with all it holds.

use super::FilesError;

/// One pattern, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    text: String,
    whole: bool,
}

impl Pattern {
    /// Takes a pattern as it stands in the configuration.
    pub(super) fn parse(text: &str) -> Result<Self, FilesError> {
        let refused = |why| Err(FilesError::Pattern { pattern: text.to_owned(), why });
        let whole = text.starts_with('/');
        if text.is_empty() {
            return refused("it is empty");
        }
        if !whole && text.contains('/') {
            return refused("it holds a `/` and does not start with one: write the absolute path");
        }
        if text.len() > 1 && text.ends_with('/') {
            return refused("it ends with `/`: leave that away, a directory is left out with all it holds");
        }
        Ok(Self { text: text.to_owned(), whole })
    }

    /// As in the configuration.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it leaves out this absolute path.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        let subject = if self.whole { path } else { path.rsplit(|b| *b == b'/').next().unwrap_or(path) };
        glob(self.text.as_bytes(), subject)
    }
}

/// Linear in `pattern × text`: goes back to the last star only, and to the last double star when that is exhausted.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    let mut deep: Option<(usize, usize)> = None;
    loop {
        let rest = &pattern[p..];
        if rest.starts_with(b"**") {
            p += 2;
            deep = Some((p, t));
            star = None;
            continue;
        }
        if rest.first() == Some(&b'*') {
            p += 1;
            star = Some((p, t));
            continue;
        }
        match (rest.first(), text.get(t)) {
            (None, None) => return true,
            (Some(b'?'), Some(byte)) if *byte != b'/' => (p, t) = (p + 1, t + 1),
            (Some(want), Some(byte)) if want == byte && *want != b'?' => (p, t) = (p + 1, t + 1),
            _ => match (star, deep) {
                (Some((after, from)), _) if from < text.len() && text[from] != b'/' => {
                    star = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                (_, Some((after, from))) if from < text.len() => {
                    deep = Some((after, from + 1));
                    star = None;
                    (p, t) = (after, from + 1);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn what_matches_and_what_does_not() {
        for (pattern, path, expected) in [
            ("*.pyc", "/a/b/c.pyc", true),
            ("*.pyc", "/a/b.pyc/c", false),
            ("cache", "/a/cache", true),
            ("cache", "/a/cache2", false),
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b/b/c", false),
            ("/a/**/c", "/a/b/b/c", true),
            ("/a/**", "/a/b/b/c", true),
            ("/a/**", "/a", false),
            ("/a/**/*.log", "/a/x/y/z.log", true),
            ("/a/**/x*z/c", "/a/q/xyz/b/xz/c", true),
            ("?.c", "/a/b.c", true),
            ("?.c", "/a/.c", false),
            ("/a?b", "/a/b", false),
            ("*", "/a/b", true),
            ("a*b*c", "/aXbXbXc", true),
            ("a*b*c", "/aXbXbX", false),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(path.as_bytes()), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn patterns_that_could_be_misread_are_refused() {
        for pattern in ["", "a/b", "./a", "/a/"] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
