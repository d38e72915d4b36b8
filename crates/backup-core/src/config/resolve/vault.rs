//! `[vault.NAME]`.

use toml::Spanned;

use super::super::raw;
use super::super::span::Span;
use super::super::types::{Credentials, Keep, Lock, Place, Protects, S3, SecretRef, Vault};
use super::text::{Resolved, label, parse, path, refused, url, word};
use super::{Context, count, secret};
use crate::config::check::secret_hint;
use crate::config::error::Problem;
use crate::vault::s3::S3Options;
use crate::vault::store::StorePath;

const LOCKS: [(&str, Lock); 3] =
    [("none", Lock::None), ("governance", Lock::Governance), ("compliance", Lock::Compliance)];
const PROTECTS: [(&str, Protects); 4] = [
    ("none", Protects::None),
    ("versioning", Protects::Versioning),
    ("conditional-put", Protects::ConditionalPut),
    ("pulled", Protects::Pulled),
];

pub(super) fn vault(cx: &Context, name: &raw::Text, raw: &raw::Vault) -> Resolved<Vault> {
    let at = format!("vault.{}", name.get_ref());
    let key = |part: &str| format!("{at}.{part}");
    let label = label(name, &at)?;
    let place = match (&raw.path, &raw.s3) {
        (Some(text), None) => {
            if let Some(credentials) = &raw.credentials {
                let why = "a directory needs no credentials".to_owned();
                return Err(refused(credentials.span(), &key("credentials"), why, Some("remove the line")));
            }
            Place::Path(path(cx, text.span(), text.get_ref(), &key("path"))?)
        }
        (None, Some(s3)) => Place::S3(self::s3(cx, s3, raw, &at, name)?),
        _ => {
            let why = "needs exactly one of `path` and `s3`".to_owned();
            return Err(refused(name.span(), &at, why, Some("keep the one that says where the vault is")));
        }
    };
    let id_hint = "`init` writes it; copy it from the recovery sheet";
    let vault = Vault {
        name: label,
        id: raw.id.as_ref().map(|id| parse(id, &key("id"), Some(id_hint))).transpose()?,
        place,
        keep: raw.keep.as_ref().map(|raw| keep(raw, &key("keep"))).transpose()?,
        lock: raw.lock.as_ref().map_or(Ok(Lock::None), |text| word(text, &key("lock"), &LOCKS))?,
        protects: raw.protects.as_ref().map_or(Ok(Protects::None), |text| word(text, &key("protects"), &PROTECTS))?,
    };
    if let (Place::Path(_), Lock::Governance | Lock::Compliance, Some(text)) = (&vault.place, vault.lock, &raw.lock) {
        let why = "a directory has no Object Lock".to_owned();
        return Err(refused(
            text.span(),
            &key("lock"),
            why,
            Some("use an S3 vault with Object Lock, or remove the line"),
        ));
    }
    if let (Lock::Governance | Lock::Compliance, None, Some(text)) = (vault.lock, &vault.keep, &raw.lock) {
        let why = "a lock must end, and without `keep` nothing does".to_owned();
        return Err(refused(text.span(), &key("lock"), why, Some("add `keep = { within = \"30d\", min = 7 }`")));
    }
    Ok(vault)
}

/// Refuses two names for one vault. What both promise would lie there once, and a prune by the one's rule would delete what the
/// other one's rule keeps.
pub(super) fn refuse_twins(raw: &[(raw::Text, raw::Vault)], vaults: &[Vault]) -> Resolved<()> {
    for (at, ((name, raw), vault)) in raw.iter().zip(vaults).enumerate() {
        let before = &vaults[..at];
        let key = |part: &str| format!("vault.{}.{part}", vault.name);
        let why =
            |first: &Vault| format!("is the vault `{}` once more, and would be counted as a second copy", first.name);
        if let Some(first) = before.iter().find(|first| vault.id.is_some() && first.id == vault.id) {
            let hint = "each vault has an id of its own, in its `vault.json`; leave one table for each vault";
            let span = raw.id.as_ref().map_or(name.span(), Spanned::span);
            return Err(refused(span, &key("id"), why(first), Some(hint)));
        }
        if let Some(first) = before.iter().find(|first| same_place(&first.place, &vault.place)) {
            let (part, span) = match (&raw.path, &raw.s3) {
                (Some(path), _) => ("path", path.span()),
                (None, s3) => ("s3", s3.as_ref().map_or(name.span(), Spanned::span)),
            };
            return Err(refused(span, &key(part), why(first), Some("give it a place of its own, or remove the table")));
        }
    }
    Ok(())
}

fn same_place(one: &Place, other: &Place) -> bool {
    match (one, other) {
        (Place::Path(one), Place::Path(other)) => one == other,
        (Place::S3(one), Place::S3(other)) => {
            (&one.endpoint, &one.bucket, &one.prefix) == (&other.endpoint, &other.bucket, &other.prefix)
        }
        _ => false,
    }
}

fn s3(cx: &Context, spanned: &Spanned<raw::S3>, vault: &raw::Vault, at: &str, name: &raw::Text) -> Resolved<S3> {
    let raw = spanned.get_ref();
    let key = |part: &str| format!("{at}.s3.{part}");
    let endpoint = raw.endpoint.as_ref().map(|text| endpoint(text, &key("endpoint"))).transpose()?;
    let bucket = raw.bucket.get_ref();
    if bucket.is_empty() || !bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        let why = "is not a bucket's name of `a-z`, `0-9`, `.`, `-`".to_owned();
        return Err(refused(
            raw.bucket.span(),
            &key("bucket"),
            why,
            Some("write the bucket only; folders belong in `prefix`"),
        ));
    }
    let prefix = raw.prefix.as_ref().map_or("", |text| text.get_ref().trim_matches('/'));
    if let (true, Some(text)) = (prefix.len() > S3Options::MAX_PREFIX_BYTES, &raw.prefix) {
        let why = format!(
            "has {} bytes of at most {}: with a path of the vault after it a key would exceed S3's 1024",
            prefix.len(),
            S3Options::MAX_PREFIX_BYTES
        );
        return Err(refused(text.span(), &key("prefix"), why, Some("choose a shorter prefix")));
    }
    if let (false, None, Some(text)) = (prefix.is_empty(), StorePath::new(prefix), &raw.prefix) {
        let why = "is not a path of `A-Z`, `a-z`, `0-9`, `.`, `_`, `-` and `/`".to_owned();
        return Err(refused(text.span(), &key("prefix"), why, None));
    }
    let Some(reference) = &vault.credentials else {
        return Err(super::Refused {
            span: name.span(),
            problem: Problem::Missing { key: format!("{at}.credentials") },
            hint: Some("add `credentials = { file = \"s3.env\" }`, or `credentials = \"aws-chain\"`".to_owned()),
        });
    };
    Ok(S3 {
        path_style: raw.path_style.unwrap_or(endpoint.is_some()),
        endpoint,
        bucket: bucket.clone(),
        prefix: prefix.to_owned(),
        region: raw.region.as_ref().map_or_else(|| "us-east-1".to_owned(), |text| text.get_ref().clone()),
        ca: raw.ca.as_ref().map(|text| path(cx, text.span(), text.get_ref(), &key("ca"))).transpose()?,
        credentials: credentials(cx, reference, &format!("{at}.credentials"))?,
    })
}

fn endpoint(text: &raw::Text, key: &str) -> Resolved<String> {
    let url = url(text.span(), text.get_ref(), key, &["https", "http"])?;
    if !url.username().is_empty() || url.path() != "/" || url.query().is_some() {
        let why = "has more than scheme, host and port".to_owned();
        let hint = "write https://host:port; bucket, prefix and credentials have keys of their own";
        return Err(refused(text.span(), key, why, Some(hint)));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn credentials(cx: &Context, raw: &Spanned<raw::CredentialsValue>, key: &str) -> Resolved<Credentials> {
    match raw.get_ref() {
        raw::CredentialsValue::Word(word) if word == "aws-chain" => Ok(Credentials::AwsChain),
        // Any other text is taken for a secret and not echoed.
        raw::CredentialsValue::Word(_) => Err(super::Refused {
            span: raw.span(),
            problem: Problem::LiteralSecret { key: key.to_owned() },
            hint: Some(format!("{}; or write \"aws-chain\"", secret_hint("credentials"))),
        }),
        raw::CredentialsValue::Secret(reference) => Ok(match secret(cx, raw.span(), reference, key)? {
            SecretRef::Env(prefix) => Credentials::EnvPrefix(prefix),
            other => Credentials::Secret(other),
        }),
    }
}

fn keep(spanned: &Spanned<raw::Keep>, key: &str) -> Resolved<Keep> {
    let raw = spanned.get_ref();
    let part = |name: &str| format!("{key}.{name}");
    let within: Option<Span> =
        raw.within.as_ref().map(|text| parse(text, &part("within"), Some("write a duration like 30d"))).transpose()?;
    let keep = Keep {
        within,
        weekly: count(raw.weekly.as_ref(), &part("weekly"), 0, 0)?,
        monthly: count(raw.monthly.as_ref(), &part("monthly"), 0, 0)?,
        yearly: count(raw.yearly.as_ref(), &part("yearly"), 0, 0)?,
        min: count(raw.min.as_ref(), &part("min"), 1, 3)?,
    };
    let nothing =
        keep.within.is_none() && keep.weekly == 0 && keep.monthly == 0 && keep.yearly == 0 && raw.min.is_none();
    if nothing {
        let hint = "write `keep = { within = \"30d\", min = 7 }`, or leave `keep` out to keep everything";
        return Err(refused(spanned.span(), key, "promises nothing".to_owned(), Some(hint)));
    }
    Ok(keep)
}
