//! `[source.NAME]`, all kinds, and `objective`.

use chrono::NaiveDate;

use super::super::error::Problem;
use super::super::raw;
use super::super::span::Span;
use super::super::types::{
    Clients, CommandSource, DvcSource, Expect, FilesSource, Globals, ModelCard, Objective, PostgresSource, RedisSource,
    Source, SourceKind, TableName, TablePattern, Waiver,
};
use super::text::{Resolved, filled, label, parse, path, refused, url, word};
use super::{Context, Refused, argv, generation, secret};
use crate::config::size::ByteSize;

const GLOBALS: [(&str, Globals); 3] =
    [("passwords", Globals::Passwords), ("no-passwords", Globals::NoPasswords), ("none", Globals::None)];

pub(super) fn source(cx: &Context, name: &raw::Text, raw: &raw::Source, stack_generation: Span) -> Resolved<Source> {
    let at = format!("source.{}", name.get_ref());
    let source_name = parse(name, &at, Some("rename it"))?;
    let kind = match raw.r#type.get_ref().as_str() {
        "postgres" => SourceKind::Postgres(postgres(cx, raw, &at)?),
        "files" => SourceKind::Files(files(cx, raw, &at)?),
        "dvc" => SourceKind::Dvc(dvc(cx, raw, &at)?),
        "redis" => {
            let text = needed(raw.url.as_ref(), raw, &at, "url")?;
            url(text.span(), text.get_ref(), &format!("{at}.url"), &["redis", "rediss"])?;
            SourceKind::Redis(RedisSource { url: text.get_ref().clone(), password: password(cx, raw, &at)? })
        }
        "command" => {
            let command = needed(raw.command.as_ref(), raw, &at, "command")?;
            let minimum = raw.minimum.as_ref();
            SourceKind::Command(CommandSource {
                command: argv(command.span(), command.get_ref(), &format!("{at}.command"))?,
                minimum: minimum.map_or(Ok(ByteSize(1)), |text| {
                    parse(text, &format!("{at}.minimum"), Some("write a size like 1KiB"))
                })?,
            })
        }
        other => {
            let why = format!("`{other}` is no kind of source");
            return Err(refused(raw.r#type.span(), &format!("{at}.type"), why, None));
        }
    };
    Ok(Source {
        name: source_name,
        generation: raw
            .generation
            .as_ref()
            .map_or(Ok(stack_generation), |text| generation(text, &format!("{at}.generation")))?,
        objective: raw.objective.as_ref().map(|raw| objective(raw, &format!("{at}.objective"))).transpose()?,
        kind,
    })
}

/// A key that this kind of source must have (already looked for by the schema's check).
fn needed<'r, T>(value: Option<&'r T>, raw: &raw::Source, at: &str, key: &str) -> Resolved<&'r T> {
    value.ok_or_else(|| Refused {
        span: raw.r#type.span(),
        problem: Problem::Missing { key: format!("{at}.{key}") },
        hint: None,
    })
}

fn password(cx: &Context, raw: &raw::Source, at: &str) -> Resolved<Option<super::SecretRef>> {
    let reference = raw.password.as_ref();
    reference.map(|r| secret(cx, r.span(), r.get_ref(), &format!("{at}.password"))).transpose()
}

fn postgres(cx: &Context, raw: &raw::Source, at: &str) -> Resolved<PostgresSource> {
    let key = |part: &str| format!("{at}.{part}");
    let text = needed(raw.url.as_ref(), raw, at, "url")?;
    let address = url(text.span(), text.get_ref(), &key("url"), &["postgres", "postgresql"])?;
    if address.path().trim_matches('/').is_empty() {
        let hint = "end it with the database's name, as in postgres://backup@127.0.0.1:5432/app";
        return Err(refused(text.span(), &key("url"), "names no database".to_owned(), Some(hint)));
    }
    let clients =
        match raw.clients.as_ref().map(|clients| (clients.span(), &clients.get_ref().dir, &clients.get_ref().wrap)) {
            None => Clients::Auto,
            Some((_, Some(dir), None)) => Clients::Dir(path(cx, dir.span(), dir.get_ref(), &key("clients.dir"))?),
            Some((_, None, Some(command))) => {
                let wrap = argv(command.span(), command.get_ref(), &key("clients.wrap"))?;
                if wrap.iter().any(|part| {
                    part.split_once('=').is_some_and(|(name, _)| name.to_ascii_uppercase().contains("PASS"))
                }) {
                    return Err(Refused {
                        span: command.span(),
                        problem: Problem::LiteralSecret { key: key("clients.wrap") },
                        hint: Some(
                            "pass the name only (`-e PGPASSWORD`): the value travels by the environment".to_owned(),
                        ),
                    });
                }
                Clients::Wrap(wrap)
            }
            Some((span, _, _)) => {
                let why = "needs exactly one of `dir` and `wrap`".to_owned();
                return Err(refused(span, &key("clients"), why, Some("keep one of them")));
            }
        };
    let exclude =
        raw.exclude_data.iter().map(|text| table_name(text, &key("exclude_data"))).collect::<Resolved<_>>()?;
    let drops =
        raw.expect_drops.iter().map(|text| table_pattern(text, &key("expect_drops"))).collect::<Resolved<_>>()?;
    Ok(PostgresSource {
        url: text.get_ref().clone(),
        password: password(cx, raw, at)?,
        clients,
        globals: raw.globals.as_ref().map_or(Ok(Globals::Passwords), |text| word(text, &key("globals"), &GLOBALS))?,
        exclude_data: exclude,
        expect_drops: drops,
        expect: expects(&raw.expect, &key("expect"))?,
    })
}

fn expects(raw: &[raw::Expect], key: &str) -> Resolved<Vec<Expect>> {
    let mut expects: Vec<Expect> = Vec::new();
    for (at, expect) in raw.iter().enumerate() {
        let key = format!("{key}[{at}]");
        let name = label(&expect.name, &format!("{key}.name"))?;
        if expects.iter().any(|known| known.name == name) {
            let why = format!("`{name}` is there twice");
            return Err(refused(
                expect.name.span(),
                &format!("{key}.name"),
                why,
                Some("give each query a name of its own"),
            ));
        }
        expects.push(Expect { name, sql: filled(&expect.sql, &format!("{key}.sql"))? });
    }
    Ok(expects)
}

/// Reads `schema.table`; a part with dots or quotes is written in double quotes, a quote inside doubled.
fn table_name(text: &raw::Text, key: &str) -> Resolved<TableName> {
    let hint = "write the exact `schema.table`; there are no patterns, and a part with a dot needs \"quotes\"";
    let [schema, table] = two_parts(text, key, (false, hint))?;
    Ok(TableName { schema, table })
}

/// The same with `*` for any run of characters, in quotes too.
fn table_pattern(text: &raw::Text, key: &str) -> Resolved<TablePattern> {
    let hint = "write `schema.table`, where `*` stands for any characters, and a part with a dot needs \"quotes\"";
    let [schema, table] = two_parts(text, key, (true, hint))?;
    Ok(TablePattern { schema, table })
}

fn two_parts(text: &raw::Text, key: &str, (stars, hint): (bool, &'static str)) -> Resolved<[String; 2]> {
    let fail = |why: &str| Err(refused(text.span(), key, format!("`{}` {why}", text.get_ref()), Some(hint)));
    let mut parts: Vec<String> = Vec::new();
    let mut rest = text.get_ref().as_str();
    loop {
        let Some((part, after)) = name_part(rest, stars) else { return fail("is not a table's name") };
        parts.push(part);
        match after.strip_prefix('.') {
            Some(more) => rest = more,
            None if after.is_empty() => break,
            None => return fail("is not a table's name"),
        }
    }
    <[String; 2]>::try_from(parts).or_else(|_| fail("has no schema or too many parts"))
}

/// The first part of a dotted name, and what follows it.
fn name_part(text: &str, stars: bool) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find('.').unwrap_or(text.len());
        let part = &text[..end];
        let star = part.contains('*') && !stars;
        let pattern = part.is_empty() || star || part.contains(['?', '"', '[', ']']) || part.trim() != part;
        return (!pattern).then(|| (part.to_owned(), &text[end..]));
    };
    let mut part = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            part.push(c);
        } else if chars.next_if(|(_, next)| *next == '"').is_some() {
            part.push('"');
        } else {
            return (!part.is_empty()).then(|| (part, &quoted[at + 1..]));
        }
    }
    None
}

fn files(cx: &Context, raw: &raw::Source, at: &str) -> Resolved<FilesSource> {
    let listed = needed(raw.paths.as_ref(), raw, at, "paths")?;
    let join = |text: &raw::Text, key: &str| path(cx, text.span(), text.get_ref(), &format!("{at}.{key}"));
    let paths = listed.get_ref().iter().map(|text| join(text, "paths")).collect::<Resolved<Vec<_>>>()?;
    if paths.is_empty() {
        let why = "names no path".to_owned();
        return Err(refused(listed.span(), &format!("{at}.paths"), why, Some("name the files and folders to capture")));
    }
    for (number, (one, text)) in paths.iter().zip(listed.get_ref()).enumerate() {
        let inside = paths.iter().enumerate().find(|(other, outer)| *other != number && one.starts_with(outer));
        if let Some((_, outer)) = inside {
            let why = format!("`{}` is inside `{}`", one.display(), outer.display());
            return Err(refused(text.span(), &format!("{at}.paths"), why, Some("name it once")));
        }
    }
    let optional = raw.optional.iter().map(|text| join(text, "optional")).collect::<Resolved<Vec<_>>>()?;
    if let Some((one, text)) =
        optional.iter().zip(&raw.optional).find(|(one, _)| !paths.iter().any(|outer| one.starts_with(outer)))
    {
        let why = format!("`{}` is not below any of `paths`", one.display());
        return Err(refused(text.span(), &format!("{at}.optional"), why, Some("add it to `paths` as well")));
    }
    Ok(FilesSource { paths, optional, secret: raw.secret.unwrap_or(false) })
}

fn dvc(cx: &Context, raw: &raw::Source, at: &str) -> Resolved<DvcSource> {
    let repo = needed(raw.repo.as_ref(), raw, at, "repo")?;
    let card = raw.model_card.as_ref().map(|card| {
        let pointer = card.pointer.get_ref();
        if !pointer.starts_with('/') {
            let why = "is not a JSON pointer".to_owned();
            return Err(refused(
                card.pointer.span(),
                &format!("{at}.model_card.pointer"),
                why,
                Some("write it like `/md5`"),
            ));
        }
        let file = filled(&card.file, &format!("{at}.model_card.file"))?;
        Ok(ModelCard { file, pointer: pointer.clone() })
    });
    Ok(DvcSource {
        repo: path(cx, repo.span(), repo.get_ref(), &format!("{at}.repo"))?,
        model_card: card.transpose()?,
        push: raw.push.unwrap_or(false),
    })
}

/// `objective` of a source or service.
pub(super) fn objective(raw: &raw::Objective, key: &str) -> Resolved<Objective> {
    let length = |text: &raw::Text, name: &str| -> Resolved<Span> {
        let key = format!("{key}.{name}");
        let span: Span = parse(text, &key, Some("write a duration like 30m or 24h"))?;
        if span.as_seconds() == 0 {
            return Err(refused(text.span(), &key, "no time at all cannot be promised".to_owned(), None));
        }
        Ok(span)
    };
    let waiver = raw.waiver.as_ref().map(|waiver| {
        let date = waiver.until.get_ref().date;
        let until = date.and_then(|d| NaiveDate::from_ymd_opt(d.year.into(), d.month.into(), d.day.into()));
        let key = format!("{key}.waiver");
        Ok(Waiver {
            until: until
                .ok_or_else(|| refused(waiver.until.span(), &format!("{key}.until"), "is no date".to_owned(), None))?,
            reason: filled(&waiver.reason, &format!("{key}.reason"))?,
        })
    });
    Ok(Objective { rpo: length(&raw.rpo, "rpo")?, rto: length(&raw.rto, "rto")?, waiver: waiver.transpose()? })
}
