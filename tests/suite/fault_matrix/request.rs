//! What a request to a bucket is about: a kind, and what an error about it has to name.

/// A request below a vault's prefix, or about its bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// `PUT object`, `LIST names in source`, `HEAD bucket`, …
    pub(super) kind: String,
    /// Any of these in an error's text names it.
    pub(super) names: Vec<String>,
}

/// What lies at a path of a vault.
fn file(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    for (folder, what) in [("/objects/", "object"), ("/snapshots/", "snapshot"), ("/marks/", "mark")] {
        if path.contains(folder) {
            // A suffix says which of a snapshot's files it is, and which mark.
            let suffix = name.split_once('.').map_or("", |(_, suffix)| suffix);
            return if suffix.is_empty() { what.to_owned() } else { format!("{what}'s {suffix}") };
        }
    }
    let suffix = if path.ends_with(".sig") { "'s signature" } else { "" };
    match path {
        _ if path.contains("/receipts/") => format!("receipt{suffix}"),
        _ if path.contains("/grants/") => format!("grant{suffix}"),
        _ if path.starts_with("_damaged/") => "what is moved aside".to_owned(),
        _ if path.starts_with("_probe/") => format!("`_probe/{}`", name.split('-').next().unwrap_or(name)),
        _ => format!("`{name}`"),
    }
}

/// A folder of a vault, without its end.
fn folder(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [""] => "vault".to_owned(),
        ["_probe"] => "`_probe`".to_owned(),
        ["_damaged", ..] => "what is moved aside".to_owned(),
        [_] => "stack".to_owned(),
        [_, _] => "source".to_owned(),
        [_, _, known @ ("marks" | "receipts")] | [_, _, _, known, ..] => (*known).to_owned(),
        [_, _, _] => "generation".to_owned(),
        [] => String::new(),
    }
}

/// What the first line of a request asks of a vault under `prefix` in `bucket`; `None`: it is another's.
pub(super) fn asked(line: &str, bucket: &str, prefix: &str, vault: &str) -> Option<Asked> {
    let mut words = line.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let key = path.strip_prefix('/')?.strip_prefix(bucket)?.trim_start_matches('/');
    let value = |name: &str| {
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.replace("%2F", "/"))
    };
    let of_bucket = |what: &str| Asked { kind: format!("{method} {what}"), names: vec![vault.to_owned()] };
    if !key.is_empty() {
        let path = key.strip_prefix(prefix)?.strip_prefix('/')?;
        let name = path.rsplit('/').next()?;
        let what = match () {
            () if value("legal-hold").is_some() => format!("hold of {}", file(path)),
            () if value("versionId").is_some() => format!("version of {}", file(path)),
            () => file(path),
        };
        // A snapshot is named by its id, whichever of its files it is about.
        let mut names = vec![name.to_owned(), name.split('.').next()?.to_owned()];
        if path.contains("/grants/") {
            // To whom it is granted was asked for, so the generation says which grant it is.
            names.extend(path.split('/').nth(2).map(str::to_owned));
        }
        return Some(Asked { kind: format!("{method} {what}"), names });
    }
    let listed = |method: &str| {
        let below = value("prefix").unwrap_or_default();
        let below = below.strip_prefix(prefix)?.trim_matches('/').to_owned();
        let is_file = below.rsplit('/').next().is_some_and(|name| name.contains(".json") || name.len() == 64);
        let what = match (is_file, value("delimiter").is_some()) {
            (true, _) => file(&below),
            (false, true) => format!("names in {}", folder(&below)),
            (false, false) => format!("all in {}", folder(&below)),
        };
        let name = if below.is_empty() { vault.to_owned() } else { below };
        Some(Asked { kind: format!("{method} {what}"), names: vec![name] })
    };
    match query {
        _ if value("list-type").is_some() => listed("LIST"),
        _ if value("versions").is_some() => listed("LIST VERSIONS of"),
        _ if value("versioning").is_some() => Some(of_bucket("versioning")),
        _ if value("lifecycle").is_some() => Some(of_bucket("lifecycle")),
        _ => Some(of_bucket("bucket")),
    }
}

#[test]
fn requests_are_told_apart() {
    let generation = "s/docs/2026-11-01--28d--0123abcd";
    let id = "20261122T140000Z-5b-abc123";
    for (line, kind, name) in [
        (format!("GET /b/c1/near/{generation}/objects/ab/{} HTTP/1.1", "a".repeat(64)), "GET object", "a".repeat(64)),
        (
            format!("PUT /b/c1/near/{generation}/snapshots/{id}.json.sig?x-id=PutObject HTTP/1.1"),
            "PUT snapshot's json.sig",
            id.to_owned(),
        ),
        (
            "GET /b/?list-type=2&max-keys=1000&prefix=c1%2Fnear%2Fs%2Fdocs%2F&delimiter=%2F HTTP/1.1".to_owned(),
            "LIST names in source",
            "s/docs".to_owned(),
        ),
        ("GET /b/?list-type=2&prefix=c1%2Fnear%2F HTTP/1.1".to_owned(), "LIST all in vault", "near".to_owned()),
        ("HEAD /b/ HTTP/1.1".to_owned(), "HEAD bucket", "near".to_owned()),
        ("GET /b?versioning HTTP/1.1".to_owned(), "GET versioning", "near".to_owned()),
    ] {
        let asked = asked(&line, "b", "c1/near", "near").unwrap();
        assert_eq!(asked.kind, kind);
        assert!(asked.names.contains(&name), "{line}: {asked:?}");
    }
    assert_eq!(asked("GET /b/c1/far/vault.json HTTP/1.1", "b", "c1/near", "near"), None);
}
