//! `[service.NAME]`, `[job.NAME]`, `[notify.NAME]`: what refers to sources and vaults by name.

use chrono_tz::Tz;

use super::super::check::near;
use super::super::raw;
use super::super::span::Span;
use super::super::types::{Job, Notify, Retry, Service, Smtp, Source, Vault};
use super::source::objective;
use super::text::{Resolved, filled, label, parse, refused, timezone, word};
use super::{count, text};
use crate::config::cron;
use crate::id::SourceName;

const THEN_HINT: &str =
    "use `replicate`, `prune` or `verify`; only `verify` takes arguments: `--read-data 1/30` and `--full`";
const EVENTS: [(&str, ()); 5] = [("failed", ()), ("partial", ()), ("missed", ()), ("suspect", ()), ("breach", ())];

/// What can be referred to.
pub(super) struct Names<'a> {
    pub(super) sources: &'a [Source],
    pub(super) vaults: &'a [Vault],
    /// The stack's time zone.
    pub(super) timezone: Tz,
}

impl Names<'_> {
    fn source(&self, text: &raw::Text, key: &str) -> Resolved<SourceName> {
        let found = self.sources.iter().find(|source| source.name.as_str() == text.get_ref());
        found
            .map(|source| source.name.clone())
            .ok_or_else(|| unknown(text, key, "source", self.sources.iter().map(|source| source.name.as_str())))
    }

    fn vault(&self, text: &raw::Text, key: &str) -> Resolved<String> {
        let found = self.vaults.iter().find(|vault| vault.name == *text.get_ref());
        found
            .map(|vault| vault.name.clone())
            .ok_or_else(|| unknown(text, key, "vault", self.vaults.iter().map(|vault| vault.name.as_str())))
    }
}

fn unknown<'n>(
    text: &raw::Text,
    key: &str,
    what: &str,
    names: impl Iterator<Item = &'n str> + Clone,
) -> super::Refused {
    let hint = near(text.get_ref(), names.clone()).map_or_else(
        || format!("configured: {}", names.collect::<Vec<_>>().join(", ")),
        |name| format!("did you mean `{name}`?"),
    );
    refused(text.span(), key, format!("there is no {what} `{}`", text.get_ref()), Some(&hint))
}

/// References, each resolved, none twice.
fn references<T: PartialEq>(
    texts: &[raw::Text],
    key: &str,
    resolve: impl Fn(&raw::Text, &str) -> Resolved<T>,
) -> Resolved<Vec<T>> {
    let mut all: Vec<T> = Vec::new();
    for text in texts {
        let one = resolve(text, key)?;
        if all.contains(&one) {
            let why = format!("`{}` is there twice", text.get_ref());
            return Err(refused(text.span(), key, why, Some("name it once")));
        }
        all.push(one);
    }
    Ok(all)
}

pub(super) fn service(names: &Names<'_>, name: &raw::Text, raw: &raw::Service) -> Resolved<Service> {
    let at = format!("service.{}", name.get_ref());
    Ok(Service {
        name: label(name, &at)?,
        needs: references(&raw.needs, &format!("{at}.needs"), |text, key| names.source(text, key))?,
        objective: raw.objective.as_ref().map(|raw| objective(raw, &format!("{at}.objective"))).transpose()?,
    })
}

pub(super) fn job(names: &Names<'_>, name: &raw::Text, raw: &raw::Job) -> Resolved<Job> {
    let at = format!("job.{}", name.get_ref());
    let key = |part: &str| format!("{at}.{part}");
    let span = |text: Option<&raw::Text>, part: &str| -> Resolved<Option<Span>> {
        text.map(|text| parse(text, &key(part), Some("write a duration like 2h"))).transpose()
    };
    let cron = raw.cron.as_ref().map(|text| match cron::longest_pause(text.get_ref()) {
        Ok(_) => Ok(text.get_ref().trim().to_owned()),
        Err(error) => {
            let hint = "write `minute hour day month weekday`, as in \"0 2 * * *\", or a word like @daily";
            Err(refused(text.span(), &key("cron"), error.to_string(), Some(hint)))
        }
    });
    let sources = match &raw.sources {
        None => names.sources.iter().map(|source| source.name.clone()).collect(),
        Some(texts) => {
            some(texts, references(texts.get_ref(), &key("sources"), |t, k| names.source(t, k))?, &key("sources"))?
        }
    };
    let vaults = match &raw.vaults {
        None => names.vaults.iter().map(|vault| vault.name.clone()).collect(),
        Some(texts) => {
            some(texts, references(texts.get_ref(), &key("vaults"), |t, k| names.vault(t, k))?, &key("vaults"))?
        }
    };
    Ok(Job {
        name: label(name, &at)?,
        cron: cron.transpose()?,
        timezone: raw.timezone.as_ref().map_or(Ok(names.timezone), |text| timezone(text, &key("timezone")))?,
        sources,
        vaults,
        deadline: span(raw.deadline.as_ref(), "deadline")?,
        catch_up: span(raw.catch_up.as_ref(), "catch_up")?,
        retry: Retry {
            times: count(raw.retry.times.as_ref(), &key("retry.times"), 0, 0)?,
            backoff: span(raw.retry.backoff.as_ref(), "retry.backoff")?.unwrap_or(Span::minutes(1)),
        },
        then: raw.then.iter().map(|text| parse(text, &key("then"), Some(THEN_HINT))).collect::<Resolved<_>>()?,
    })
}

/// A list that was given must not be empty: nobody means a job without work.
fn some<T>(texts: &toml::Spanned<Vec<raw::Text>>, list: Vec<T>, key: &str) -> Resolved<Vec<T>> {
    if list.is_empty() {
        return Err(refused(texts.span(), key, "is empty".to_owned(), Some("leave the line out to mean all")));
    }
    Ok(list)
}

pub(super) fn notify(name: &raw::Text, raw: &raw::Notify) -> Resolved<Notify> {
    let at = format!("notify.{}", name.get_ref());
    let on = references(raw.on.get_ref(), &format!("{at}.on"), |text, key| {
        word(text, key, &EVENTS)?;
        Ok(text.get_ref().clone())
    })?;
    let to = text::filled(&raw.smtp.to, &format!("{at}.smtp.to"))?;
    if !to.contains('@') {
        let why = format!("`{to}` is no address");
        return Err(refused(
            raw.smtp.to.span(),
            &format!("{at}.smtp.to"),
            why,
            Some("write it like oncall@example.com"),
        ));
    }
    Ok(Notify {
        name: label(name, &at)?,
        smtp: Smtp { host: filled(&raw.smtp.host, &format!("{at}.smtp.host"))?, to },
        on: some(&raw.on, on, &format!("{at}.on"))?,
    })
}
