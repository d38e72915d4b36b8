//! Checks of single values, shared by all tables.

use std::fmt::Display;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use chrono_tz::{TZ_VARIANTS, Tz};
use toml::Spanned;
use url::Url;

use super::super::check::near;
use super::super::error::Problem;
use super::super::raw::Text;
use super::{Context, Refused};

pub(super) type Resolved<T> = Result<T, Refused>;

/// A refused value. `why` must not hold a secret.
pub(super) fn refused(span: Range<usize>, key: &str, why: String, hint: Option<&str>) -> Refused {
    Refused { span, problem: Problem::Value { key: key.to_owned(), why }, hint: hint.map(str::to_owned) }
}

/// Parses a text whose value may be echoed.
pub(super) fn parse<T>(text: &Text, key: &str, hint: Option<&str>) -> Resolved<T>
where
    T: FromStr,
    T::Err: Display,
{
    text.get_ref().parse().map_err(|error: T::Err| refused(text.span(), key, error.to_string(), hint))
}

/// A text that must hold something.
pub(super) fn filled(text: &Text, key: &str) -> Resolved<String> {
    if text.get_ref().trim().is_empty() {
        return Err(refused(text.span(), key, "is empty".to_owned(), None));
    }
    Ok(text.get_ref().clone())
}

/// The label rule of sources and stacks, for names that are no paths of a vault.
pub(super) fn label(text: &Text, key: &str) -> Resolved<String> {
    let name = text.get_ref();
    let good = (1..=40).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-');
    if good {
        return Ok(name.clone());
    }
    let why = "not a name of 1 to 40 of `a-z`, `0-9`, `-`, not starting with `-`".to_owned();
    Err(refused(text.span(), key, why, Some("rename it")))
}

/// One word of a closed set.
pub(super) fn word<T: Copy>(text: &Text, key: &str, words: &[(&str, T)]) -> Resolved<T> {
    if let Some((_, value)) = words.iter().find(|(name, _)| name == text.get_ref()) {
        return Ok(*value);
    }
    let all: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    let hint = near(text.get_ref(), all.iter().copied())
        .map_or_else(|| format!("use one of {}", all.join(", ")), |name| format!("did you mean `{name}`?"));
    Err(refused(text.span(), key, format!("`{}` is not one of {}", text.get_ref(), all.join(", ")), Some(&hint)))
}

/// A time zone of the IANA database.
pub(super) fn timezone(text: &Text, key: &str) -> Resolved<Tz> {
    text.get_ref().parse().map_err(|_| {
        let hint = near(text.get_ref(), TZ_VARIANTS.iter().map(|tz| tz.name()))
            .map_or_else(|| "use a name like `America/Bogota`".to_owned(), |name| format!("did you mean `{name}`?"));
        refused(text.span(), key, format!("`{}` is not an IANA time zone", text.get_ref()), Some(&hint))
    })
}

/// A path, joined to the file's folder.
pub(super) fn path(cx: &Context, span: Range<usize>, text: &str, key: &str) -> Resolved<PathBuf> {
    if text.is_empty() || text.contains('\0') {
        return Err(refused(span, key, "is not a path".to_owned(), None));
    }
    if text == "~" || text.starts_with("~/") {
        let why = "`~` stands for nobody's home here".to_owned();
        return Err(refused(span, key, why, Some("write the whole path")));
    }
    // Through `components`, so that `./a` and `a/` read like `a`.
    Ok(cx.folder.join(text).components().collect())
}

/// A count of at least `least`.
pub(super) fn sized(raw: Option<&Spanned<i64>>, key: &str, least: u32, default: u32) -> Resolved<u32> {
    let Some(raw) = raw else { return Ok(default) };
    u32::try_from(*raw.get_ref())
        .ok()
        .filter(|count| (least..=10_000).contains(count))
        .ok_or_else(|| refused(raw.span(), key, format!("{} is not between {least} and 10000", raw.get_ref()), None))
}

const URL_HINT: &str =
    "take the password out, change it, and write `password = { file = \"…\" }` with a file of mode 0600";

/// Checks a URL; its text is never echoed, because it may hold a password.
pub(super) fn url(span: Range<usize>, text: &str, key: &str, schemes: &[&str]) -> Resolved<Url> {
    let form = format!("write {}://user@host:port/…, special characters as %XX", schemes[0]);
    let fail = |why: &str| Err(refused(span.clone(), key, why.to_owned(), Some(&form)));
    let Ok(url) = Url::parse(text) else { return fail("is not a URL") };
    if !schemes.contains(&url.scheme()) {
        return fail(&format!("is not a URL of {}", schemes.join(" or ")));
    }
    let secret_parameter = |name: &str| name.to_ascii_lowercase().contains("password");
    if url.password().is_some() || url.query_pairs().any(|(name, _)| secret_parameter(&name)) {
        return Err(refused(span, key, "holds a password".to_owned(), Some(URL_HINT)));
    }
    // A password with `/`, `?` or `#` that was not escaped ends up behind the host: it must not get through either.
    if url.fragment().is_some() || url.path().contains('@') {
        return fail("has an `@` or `#` behind its host");
    }
    Ok(url)
}
