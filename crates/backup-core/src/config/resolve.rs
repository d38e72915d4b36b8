//! From the raw file to the resolved [`Config`]: defaults filled in, paths joined, names and values checked.
//!
//! Pure: it reads no file and no environment; whether a file exists is asked where it is used.

mod advice;
mod clock_words;
mod plan;
mod source;
mod text;
mod vault;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::ConfigWarning;
use super::recipient::{explain, parse_recipient};
use super::size::{ByteSize, Reserve};
use super::span::Span;
use super::types::{Keys, Limits, SecretRef, State};
use super::{Config, check::Finding, raw};
use crate::id::StackName;
use text::{Resolved, parse, refused, sized, timezone};

/// What resolving needs to know besides the raw values.
pub(super) struct Context {
    /// Folder of the file: relative paths start here.
    pub(super) folder: PathBuf,
}

/// Resolves a whole file.
pub(super) fn resolve(raw: raw::Root, file: &Path, schema_version: i64) -> Resolved<Config> {
    let cx = Context { folder: file.parent().unwrap_or(Path::new("")).to_owned() };
    if *raw.schema.get_ref() != schema_version {
        let why =
            format!("version {} is not known to this program, which reads {schema_version}", raw.schema.get_ref());
        return Err(refused(raw.schema.span(), "schema", why, Some("use the program's version that wrote this file")));
    }
    let stack: StackName = parse(&raw.stack, "stack", None)?;
    let timezone = raw.timezone.as_ref().map_or(Ok(chrono_tz::UTC), |tz| self::timezone(tz, "timezone"))?;
    let generation = raw.generation.as_ref().map_or(Ok(Span::days(7)), |text| generation(text, "generation"))?;
    let state = state(&cx, raw.state.as_ref(), &stack)?;
    let limits = limits(&raw.limits)?;
    let keys = keys(&cx, &raw.keys)?;
    let raw_vaults = in_order(raw.vault);
    let vaults = raw_vaults.iter().map(|(name, vault)| vault::vault(&cx, name, vault)).collect::<Resolved<Vec<_>>>()?;
    vault::refuse_twins(&raw_vaults, &vaults)?;
    let sources = in_order(raw.source)
        .into_iter()
        .map(|(name, source)| source::source(&cx, &name, &source, generation))
        .collect::<Resolved<Vec<_>>>()?;
    let names = plan::Names { sources: &sources, vaults: &vaults, timezone };
    let services = in_order(raw.service)
        .into_iter()
        .map(|(name, service)| plan::service(&names, &name, &service))
        .collect::<Resolved<Vec<_>>>()?;
    let jobs = in_order(raw.job)
        .into_iter()
        .map(|(name, job)| plan::job(&names, &name, &job))
        .collect::<Resolved<Vec<_>>>()?;
    let notify = in_order(raw.notify)
        .into_iter()
        .map(|(name, notify)| plan::notify(&name, &notify))
        .collect::<Resolved<Vec<_>>>()?;
    let file = file.to_owned();
    let warnings: Vec<ConfigWarning> = Vec::new();
    let mut config = Config {
        file,
        stack,
        timezone,
        generation,
        state,
        limits,
        keys,
        vaults,
        sources,
        services,
        jobs,
        notify,
        warnings,
    };
    config.warnings = advice::warnings(&config);
    Ok(config)
}

/// Named tables in the order of the file.
fn in_order<T>(named: BTreeMap<raw::Text, T>) -> Vec<(raw::Text, T)> {
    let mut entries: Vec<_> = named.into_iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// Length of a generation.
fn generation(text: &raw::Text, key: &str) -> Resolved<Span> {
    let span: Span = parse(text, key, Some("use 1d, 7d, 14d or 28d"))?;
    if [1, 7, 14, 28].map(Span::days).contains(&span) {
        Ok(span)
    } else {
        Err(refused(text.span(), key, format!("`{span}` is no length of a generation"), Some("use 1d, 7d, 14d or 28d")))
    }
}

fn state(cx: &Context, raw: Option<&toml::Spanned<raw::StateValue>>, stack: &StackName) -> Resolved<State> {
    let Some(raw) = raw else { return Ok(State::Folder(PathBuf::from(format!("/var/lib/backup/{stack}")))) };
    match raw.get_ref() {
        raw::StateValue::Folder(folder) => Ok(State::Folder(text::path(cx, raw.span(), folder, "state")?)),
        raw::StateValue::Server(server) => {
            let key = "state.postgres";
            text::url(raw.span(), &server.postgres, key, &["postgres", "postgresql"])?;
            let password = server.password.as_ref();
            Ok(State::Postgres {
                url: server.postgres.clone(),
                password: password.map(|raw_ref| secret(cx, raw.span(), raw_ref, "state.password")).transpose()?,
            })
        }
    }
}

fn limits(raw: &raw::Limits) -> Resolved<Limits> {
    const LEAST: ByteSize = ByteSize(64 << 20);
    let memory = raw.memory.as_ref().map_or(Ok(ByteSize(256 << 20)), |text| {
        let size: ByteSize = parse(text, "limits.memory", Some("write a size like 256MiB"))?;
        if size < LEAST {
            let why = format!("`{size}` is under the least that works, {LEAST}");
            return Err(refused(text.span(), "limits.memory", why, Some("use 256MiB")));
        }
        Ok(size)
    })?;
    Ok(Limits {
        memory,
        upload: raw
            .upload
            .as_ref()
            .map(|text| parse(text, "limits.upload", Some("write a rate like 20MiB/s")))
            .transpose()?,
        reserve: raw.reserve.as_ref().map_or(Ok(Reserve::Percent(5)), |text| {
            parse(text, "limits.reserve", Some("write a share like 5% or a size like 10GiB"))
        })?,
        patience: raw
            .patience
            .as_ref()
            .map_or(Ok(Span::minutes(3)), |text| parse(text, "limits.patience", Some("write a duration like 3m")))?,
    })
}

fn keys(cx: &Context, raw: &raw::Keys) -> Resolved<Keys> {
    let signers = raw.signers.as_ref().map_or_else(
        || Ok(cx.folder.join("allowed_signers")),
        |path| text::path(cx, path.span(), path.get_ref(), "keys.signers"),
    )?;
    if let (Some(path), [_, ..]) = (&raw.signers, raw.signer_lines.as_slice()) {
        let why = "stands beside `signer_lines`: only one of them can say who is believed".to_owned();
        return Err(refused(path.span(), "keys.signers", why, Some("keep one of them")));
    }
    let host_key = raw.host_key.as_ref();
    let identity = raw.identity.as_ref();
    Ok(Keys {
        recipients: named(&raw.recipients)?,
        revoked: raw.revoked.as_ref().map_or_else(|| Ok(Vec::new()), |list| recipients(list, "keys.revoked"))?,
        signers,
        signer_lines: raw.signer_lines.iter().map(|line| line.get_ref().clone()).collect(),
        host_key: host_key.map(|path| text::path(cx, path.span(), path.get_ref(), "keys.host_key")).transpose()?,
        identity: identity.map(|r| secret(cx, r.span(), r.get_ref(), "keys.identity")).transpose()?,
    })
}

/// At least one recipient.
fn named(raw: &toml::Spanned<Vec<raw::Text>>) -> Resolved<Vec<String>> {
    const KEY: &str = "keys.recipients";
    if raw.get_ref().is_empty() {
        let why = "no recipients: nobody could read the backups".to_owned();
        let hint = "make an identity with `backup key new operator.txt` and add the line that it prints";
        return Err(refused(raw.span(), KEY, why, Some(hint)));
    }
    recipients(raw, KEY)
}

fn recipients(raw: &toml::Spanned<Vec<raw::Text>>, key: &str) -> Resolved<Vec<String>> {
    let mut recipients: Vec<String> = Vec::new();
    for (at, text) in raw.get_ref().iter().enumerate() {
        let number = at + 1;
        // The text is not echoed: what was pasted here by mistake may be a secret.
        if parse_recipient(text.get_ref()).is_none() {
            let (why, hint) = explain(text.get_ref());
            return Err(refused(text.span(), key, format!("number {number} {why}"), Some(hint)));
        }
        if let Some(first) = recipients.iter().position(|known| known == text.get_ref()) {
            let why = format!("number {number} is the same as number {}", first + 1);
            return Err(refused(text.span(), key, why, Some("name each recipient once")));
        }
        recipients.push(text.get_ref().clone());
    }
    Ok(recipients)
}

/// Resolves a reference to a secret: exactly one of its three forms.
fn secret(cx: &Context, span: std::ops::Range<usize>, raw: &raw::Secret, key: &str) -> Resolved<SecretRef> {
    match (&raw.file, &raw.env, &raw.command) {
        (Some(file), None, None) => Ok(SecretRef::File(text::path(cx, span, file, &format!("{key}.file"))?)),
        (None, Some(name), None) => {
            let head = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            if head && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Ok(SecretRef::Env(name.clone()));
            }
            // Not echoed: a secret may have been written where its variable's name belongs.
            let why = "not a name of an environment variable (`A-Z`, `a-z`, `0-9`, `_`)".to_owned();
            Err(refused(span, &format!("{key}.env"), why, Some("name the variable that holds the secret")))
        }
        (None, None, Some(command)) => Ok(SecretRef::Command(argv(span, command, &format!("{key}.command"))?)),
        _ => Err(refused(
            span,
            key,
            "needs exactly one of `file`, `env`, `command`".to_owned(),
            Some("keep one of them"),
        )),
    }
}

/// A program and its arguments.
fn argv(span: std::ops::Range<usize>, command: &[String], key: &str) -> Resolved<Vec<String>> {
    if command.first().is_none_or(String::is_empty) {
        return Err(refused(span, key, "has no program".to_owned(), Some("write [\"program\", \"argument\"]")));
    }
    if command.iter().any(|part| part.contains('\0')) {
        return Err(refused(span, key, "has a zero byte in an argument".to_owned(), None));
    }
    Ok(command.to_vec())
}

/// A count of at least `least`.
fn count(raw: Option<&toml::Spanned<i64>>, key: &str, least: u32, default: u32) -> Resolved<u32> {
    sized(raw, key, least, default)
}

/// A finding, for the modules below.
type Refused = Finding;
