//! The first look at a parsed file: does every key exist in the schema, and has every value the schema's type?
//!
//! It runs before serde so that a misspelt key gets its line, its full path and the nearest name, and so that no value
//! is ever echoed because its type was wrong (serde's own message would quote a literal password).

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use super::schema::{Key, Need, ROOT, Shape, Table, secret_table};

/// A problem with the place of its text.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) span: Range<usize>,
    pub(super) problem: Problem,
    pub(super) hint: Option<String>,
}

type Checked = Result<(), Finding>;

/// Checks the whole file.
pub(super) fn check(root: &Spanned<DeTable<'_>>) -> Checked {
    check_table(root.get_ref(), &root.span(), &ROOT, "")
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn check_table(table: &DeTable<'_>, span: &Range<usize>, schema: &'static Table, path: &str) -> Checked {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in entries {
        let Some(key) = schema.key(name.get_ref()) else {
            if schema.name == "vault.NAME.keep" && FINER_TIERS.contains(&name.get_ref().as_ref()) {
                return Err(finer_tier(name.span(), join(path, name.get_ref())));
            }
            let hint = Some(nearest(name.get_ref(), schema));
            return Err(Finding {
                span: name.span(),
                problem: Problem::UnknownKey { key: join(path, name.get_ref()) },
                hint,
            });
        };
        check_value(value, key, &join(path, key.name))?;
    }
    let present = |key: &Key| table.iter().any(|(name, _)| name.get_ref() == key.name);
    match schema.keys.iter().find(|key| matches!(key.need, Need::Required) && !present(key)) {
        None => Ok(()),
        Some(key) => Err(Finding {
            span: span.clone(),
            problem: Problem::Missing { key: join(path, key.name) },
            hint: Some(format!("add `{}`: {}", key.name, key.doc)),
        }),
    }
}

/// Tiers that other tools have and that cannot be kept here.
const FINER_TIERS: [&str; 4] = ["last", "minutely", "hourly", "daily"];

fn finer_tier(span: Range<usize>, key: String) -> Finding {
    let why = "whole generations expire, so nothing finer than `weekly` can be promised".to_owned();
    let hint =
        Some("use `within = \"7d\"` for everything of the last days, and `min = 3` for the newest ones".to_owned());
    Finding { span, problem: Problem::Value { key, why }, hint }
}

fn check_value(value: &Spanned<DeValue<'_>>, key: &'static Key, path: &str) -> Checked {
    let mismatch = || {
        let (expected, found) = (key.shape.words().into(), found(value.get_ref()));
        Err(Finding {
            span: value.span(),
            problem: Problem::Type { key: path.to_owned(), expected, found },
            hint: None,
        })
    };
    match (key.shape, value.get_ref()) {
        (Shape::Text(_) | Shape::SecretOr(_) | Shape::TextOr(..), DeValue::String(_))
        | (Shape::Integer, DeValue::Integer(_))
        | (Shape::Boolean, DeValue::Boolean(_)) => Ok(()),
        (Shape::Date, DeValue::Datetime(at)) if at.date.is_some() && at.time.is_none() => Ok(()),
        (Shape::Texts(_), DeValue::Array(items)) if items.iter().all(|item| item.get_ref().is_str()) => Ok(()),
        (Shape::Secret, DeValue::String(_)) => Err(Finding {
            span: value.span(),
            problem: Problem::LiteralSecret { key: path.to_owned() },
            hint: Some(secret_hint(key.name)),
        }),
        (Shape::Secret | Shape::SecretOr(_), DeValue::Table(table)) => {
            check_table(table, &value.span(), secret_table(), path)
        }
        (Shape::Table(schema) | Shape::TextOr(_, schema), DeValue::Table(table)) => {
            check_table(table, &value.span(), schema, path)
        }
        (Shape::Tables(schema), DeValue::Array(items)) => {
            items.iter().enumerate().try_for_each(|(at, item)| match item.get_ref() {
                DeValue::Table(table) => check_table(table, &item.span(), schema, &format!("{path}[{at}]")),
                _ => mismatch(),
            })
        }
        (Shape::Named(schema), DeValue::Table(table)) => {
            each_named(table, path, &mut |inner, span, path| check_table(inner, span, schema, path))
        }
        (Shape::Kinds(kinds), DeValue::Table(table)) => each_named(table, path, &mut |inner, span, path| {
            check_table(inner, span, kind_of(inner, span, kinds, path)?, path)
        }),
        _ => mismatch(),
    }
}

/// Calls `each` with every named table below `table`, in the order of the file.
fn each_named(
    table: &DeTable<'_>,
    path: &str,
    each: &mut dyn FnMut(&DeTable<'_>, &Range<usize>, &str) -> Checked,
) -> Checked {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries.into_iter().try_for_each(|(name, value)| {
        let path = join(path, name.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => each(inner, &name.span(), &path),
            other => Err(Finding {
                span: value.span(),
                problem: Problem::Type { key: path.clone(), expected: "a table".into(), found: found(other) },
                hint: Some(format!("write `[{path}]` with its keys on the lines below")),
            }),
        }
    })
}

fn kind_of(
    table: &DeTable<'_>,
    span: &Range<usize>,
    kinds: &[(&'static str, &'static Table)],
    path: &str,
) -> Result<&'static Table, Finding> {
    let words: Vec<&str> = kinds.iter().map(|(word, _)| *word).collect();
    let all = words.join(", ");
    let key = join(path, "type");
    let Some((_, value)) = table.iter().find(|(name, _)| name.get_ref() == "type") else {
        let problem = Problem::Missing { key };
        return Err(Finding { span: span.clone(), problem, hint: Some(format!("add `type`, one of {all}")) });
    };
    let refused = |problem, hint| Err(Finding { span: value.span(), problem, hint });
    let Some(word) = value.get_ref().as_str() else {
        let expected = format!("one of {all}").into();
        return refused(Problem::Type { key, expected, found: found(value.get_ref()) }, None);
    };
    if let Some((_, schema)) = kinds.iter().find(|(name, _)| *name == word) {
        return Ok(schema);
    }
    let hint = near(word, words.iter().copied())
        .map_or_else(|| format!("use one of {all}"), |name| format!("did you mean `{name}`?"));
    refused(Problem::Value { key, why: format!("`{word}` is no kind of source") }, Some(hint))
}

/// The name among `names` that `text` was probably meant to be.
pub(super) fn near<'n>(text: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|name| (strsim::damerau_levenshtein(text, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().min(text.len()) / 4)
        .min()
        .map(|(_, name)| name)
}

fn nearest(name: &str, schema: &'static Table) -> String {
    if let Some(near) = near(name, schema.keys.iter().map(|key| key.name)) {
        return format!("did you mean `{near}`?");
    }
    let known: Vec<&str> = schema.keys.iter().map(|key| key.name).collect();
    format!("known here: {}", known.join(", "))
}

/// What is there, by type.
fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

pub(super) fn secret_hint(name: &str) -> String {
    format!(
        "put the secret into a file with mode 0600 and write `{name} = {{ file = \"…\" }}`; change it, for it may have been copied"
    )
}
