//! What `audit` found, for people and programs: a line for each vault and source, then only what is wrong, then what
//! expires next.

use std::fmt::Write as _;

use backup_core::audit::{Audited, Finding, Judged, Weight};
use backup_core::id::SourceName;
use backup_core::verify::Fraction;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::commands::silent;
use crate::error::CliError;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::table::{Table, WIDTH, wrap};
use crate::words;

/// Findings of one vault and source that are printed; `--json` has them all.
const SHOWN: usize = 12;

/// A source in a vault, or what lies there beside all sources, that could not be read to the end.
pub(super) struct Unread {
    pub(super) vault: String,
    pub(super) source: Option<SourceName>,
    pub(super) error: CliError,
}

/// Everything that was found.
#[derive(Default)]
pub(super) struct Report {
    /// Each source with the judgement on it.
    pub(super) sources: Vec<(SourceName, Judged)>,
    /// What could not be read.
    pub(super) unread: Vec<Unread>,
    /// Vaults that did not answer.
    pub(super) quiet: Vec<(String, CliError)>,
    /// Names in a vault that are beside all sources.
    pub(super) beside: Vec<(String, Vec<String>)>,
    /// Rules of a vault's bucket that delete what is promised.
    pub(super) rules: Vec<(String, Vec<String>)>,
    /// What is wrong with a vault's recovery document, and whether it is only that its signer is not pinned.
    pub(super) recover: Vec<(String, String, bool)>,
    /// The share of the objects that was read.
    pub(super) read: Option<Fraction>,
    /// Objects whose bytes were hashed.
    pub(super) objects_read: u64,
    /// Their bytes.
    pub(super) bytes_read: u64,
}

/// The word for a judgement.
fn verdict(findings: &[Finding]) -> &'static str {
    match findings.iter().map(|finding| finding.kind.weight()).max() {
        Some(Weight::Damage) => "DAMAGED",
        Some(Weight::Breach) => "BREACH",
        Some(Weight::Note) | None => "ok",
    }
}

impl Report {
    /// How the verb ends: 4 on damage, 12 where nothing is believed, 3 where something could not be read, 5 on a breach.
    pub(super) fn exit(&self) -> Exit {
        let of = |finding: &Finding| match finding.kind.weight() {
            Weight::Damage => Exit::Damage,
            Weight::Breach => Exit::Breach,
            Weight::Note => Exit::Done,
        };
        let mut end = self.findings().map(of).fold(Exit::Done, Exit::worse);
        if !self.rules.is_empty() {
            end = end.worse(Exit::Breach);
        }
        end = self
            .recover
            .iter()
            .fold(end, |end, (.., foreign)| end.worse(if *foreign { Exit::Breach } else { Exit::Damage }));
        end = self.unread.iter().fold(end, |end, unread| end.worse(unread.error.as_part()));
        let any_believed = self.sources.iter().any(|(_, judged)| judged.vaults.iter().any(|one| one.snapshots > 0));
        if self.sources.iter().any(|(_, judged)| judged.is_all_foreign) && !any_believed {
            end = end.worse(Exit::WrongKey);
        }
        end
    }

    fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.sources.iter().flat_map(|(_, judged)| {
            judged.findings.iter().chain(judged.vaults.iter().flat_map(|audited| &audited.findings))
        })
    }

    /// Says on standard error what could not be read.
    pub(super) fn warn(&self, printer: &Printer) {
        for unread in &self.unread {
            let source = unread.source.as_ref().map_or_else(String::new, |source| format!(", source `{source}`"));
            let text = format!("vault `{}`{source}: {}", unread.vault, unread.error.message());
            printer.warn(&text, unread.error.advice().unwrap_or("the rest is judged without it"));
        }
    }

    /// For `--json`.
    pub(super) fn to_json(&self, now: DateTime<Utc>, end: Exit) -> Value {
        let sources: Vec<Value> = self
            .sources
            .iter()
            .map(|(source, judged)| {
                json!({
                    "source": source,
                    "findings": judged.findings.iter().map(finding_json).collect::<Vec<_>>(),
                    "vaults": judged.vaults.iter().map(audited_json).collect::<Vec<_>>(),
                })
            })
            .collect();
        let unread = |one: &Unread| json!({ "vault": one.vault, "source": one.source, "error": one.error.to_json() });
        let recover = |(vault, wrong, foreign): &(String, String, bool)| json!({ "vault": vault, "wrong": wrong, "foreign": foreign });
        let beside = |(vault, names): &(String, Vec<String>)| json!({ "vault": vault, "names": names });
        json!({
            "at": words::utc(now),
            "class": end.word(),
            "sources": sources,
            "unread": self.unread.iter().map(unread).collect::<Vec<_>>(),
            "rules": self.rules.iter().map(|(vault, lines)| json!({ "vault": vault, "breaches": lines })).collect::<Vec<_>>(),
            "recover": self.recover.iter().map(recover).collect::<Vec<_>>(),
            "beside": self.beside.iter().map(beside).collect::<Vec<_>>(),
            "silent": silent::to_json(&self.quiet),
            "read": self.read.map(|read| format!("{}/{}", read.part, read.of)),
            "objects_read": self.objects_read,
            "bytes_read": self.bytes_read,
        })
    }

    /// For people.
    pub(super) fn text(&self, now: DateTime<Utc>, timezone: Tz) -> String {
        let mut table = Table::new(&["VERDICT", "VAULT", "SOURCE", "DAYS", "SNAPSHOTS", "NEWEST"]);
        for (source, judged) in &self.sources {
            for one in &judged.vaults {
                let age = |at: DateTime<Utc>| format!("{}, {}", words::local(at, timezone), words::old(now - at));
                table.row(vec![
                    verdict(&one.findings).to_owned(),
                    one.vault.clone(),
                    source.to_string(),
                    days(one),
                    one.snapshots.to_string(),
                    one.newest.map_or_else(|| "-".to_owned(), age),
                ]);
            }
            if !judged.findings.is_empty() {
                let word = verdict(&judged.findings).to_owned();
                table.row(vec![
                    word,
                    "(all)".to_owned(),
                    source.to_string(),
                    String::new(),
                    String::new(),
                    "see below".to_owned(),
                ]);
            }
        }
        for unread in &self.unread {
            let cells =
                ["NOT READ", &unread.vault, unread.source.as_ref().map_or("", SourceName::as_str), "", "", "see above"];
            table.row(cells.map(str::to_owned).to_vec());
        }
        for (vault, _) in &self.quiet {
            table.row(["NO ANSWER", vault, "", "", "", "see above"].map(str::to_owned).to_vec());
        }
        let mut text = table.render();
        for (source, judged) in &self.sources {
            block(&mut text, &format!("source {source}, all vaults"), &judged.findings);
            for one in &judged.vaults {
                block(&mut text, &format!("vault {}, source {source}", one.vault), &one.findings);
            }
        }
        for (vault, lines) in &self.rules {
            let _ = writeln!(text, "\nvault {vault}");
            for line in lines {
                text.push_str(&bullet("breach", line));
            }
        }
        for (vault, wrong, foreign) in &self.recover {
            let _ = write!(text, "\nvault {vault}\n{}", bullet(if *foreign { "breach" } else { "damage" }, wrong));
        }
        for (vault, names) in &self.beside {
            let line = format!("beside the sources of this policy: {}", names.join(", "));
            let _ = write!(text, "\nvault {vault}\n{}", bullet("note", &line));
        }
        if self.read.is_some() {
            let _ =
                writeln!(text, "\nread and hashed: {} objects, {}", self.objects_read, words::bytes(self.bytes_read));
        }
        text.push_str("\nwhat expires next\n");
        for (source, judged) in &self.sources {
            for one in &judged.vaults {
                let _ = writeln!(text, "  vault {}, source {source}", one.vault);
                one.next.iter().for_each(|line| text.push_str(&indented("    ", "      ", line)));
            }
        }
        text
    }
}

/// `28/30`: promised days that hold something, of those that are over or hold something already.
fn days(one: &Audited) -> String {
    let counted = one.days.iter().filter(|day| day.is_over || day.found > 0);
    let (all, found) = counted.fold((0, 0), |(all, found), day| (all + 1, found + u32::from(day.found > 0)));
    if all == 0 { "-".to_owned() } else { format!("{found}/{all}") }
}

fn block(text: &mut String, head: &str, findings: &[Finding]) {
    if findings.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{head}");
    for finding in findings.iter().take(SHOWN) {
        let weight = match finding.kind.weight() {
            Weight::Damage => "damage",
            Weight::Breach => "breach",
            Weight::Note => "note",
        };
        text.push_str(&bullet(weight, &finding.text));
    }
    if findings.len() > SHOWN {
        let _ = writeln!(text, "  and {} more; `--json` has all", findings.len() - SHOWN);
    }
}

fn bullet(weight: &str, line: &str) -> String {
    indented(&format!("  {weight:<6}  "), "          ", line)
}

fn indented(first: &str, next: &str, line: &str) -> String {
    let mut text = String::new();
    for (number, part) in wrap(line, WIDTH - next.len()).iter().enumerate() {
        text.push_str(if number == 0 { first } else { next });
        text.push_str(part);
        text.push('\n');
    }
    text
}

fn finding_json(finding: &Finding) -> Value {
    let weight = match finding.kind.weight() {
        Weight::Damage => "damage",
        Weight::Breach => "breach",
        Weight::Note => "note",
    };
    json!({ "kind": finding.kind.word(), "weight": weight, "text": finding.text, "about": finding.about })
}

fn audited_json(one: &Audited) -> Value {
    let day = |day: &backup_core::audit::Day| {
        json!({
            "day": day.slot.day, "from": words::utc(day.slot.from), "to": words::utc(day.slot.to),
            "promised": day.slot.captures, "found": day.found, "over": day.is_over,
        })
    };
    json!({
        "vault": one.vault,
        "verdict": verdict(&one.findings).to_lowercase(),
        "snapshots": one.snapshots,
        "newest": one.newest.map(words::utc),
        "findings": one.findings.iter().map(finding_json).collect::<Vec<_>>(),
        "days": one.days.iter().map(day).collect::<Vec<_>>(),
        "next": one.next,
    })
}
