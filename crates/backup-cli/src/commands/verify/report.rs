//! What `verify` found, for people and programs.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use backup_core::id::SourceName;
use backup_core::repair::{Mend, Outcome};
use backup_core::verify::{Coverage, Depth, Fork, Fraction, Verdict, Verified};
use serde_json::{Value, json};

use super::elsewhere::{Elsewhere, Worth};
use super::mend::{self, Recover};
use crate::error::CliError;
use crate::error::LINE;
use crate::exit::Exit;
use crate::find::UNSEEN_ADVICE;
use crate::heads;
use crate::report::told;
use crate::table::Table;
use crate::words;

/// Damage lines of one snapshot that are printed; `--json` has them all.
const SHOWN: usize = 10;

/// What was found of one source in one vault.
pub(super) struct Report {
    /// The vault.
    pub(super) vault: String,
    /// The source.
    pub(super) source: SourceName,
    /// How deep it was looked: `listed`, `read` or `checked`.
    pub(super) depth: &'static str,
    /// The part of the objects that was to be read.
    pub(super) share: Option<Fraction>,
    /// What was found.
    pub(super) verified: Verified,
    /// Good copies of what is damaged.
    pub(super) elsewhere: Vec<Elsewhere>,
    /// What was to be repaired.
    pub(super) mends: Vec<Mend>,
    /// What could not be looked at, or not be written down.
    pub(super) errors: Vec<CliError>,
}

impl Report {
    pub(super) fn new(vault: &str, source: &SourceName, depth: Depth<'_>) -> Self {
        let depth = match (depth.identities, depth.read) {
            (Some(_), _) => "checked",
            (None, Some(_)) => "read",
            (None, None) => "listed",
        };
        Self {
            vault: vault.to_owned(),
            source: source.clone(),
            depth,
            share: None,
            verified: Verified::default(),
            elsewhere: Vec::new(),
            mends: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// How a verb ends that found this.
    pub(super) fn exit(&self) -> Exit {
        let damaged = self.verified.is_damaged() || mend::is_left(&self.mends);
        let end = match (damaged, self.verified.is_foreign()) {
            (true, _) => Exit::Damage,
            (false, true) => Exit::WrongKey,
            (false, false) => Exit::Done,
        };
        self.errors.iter().fold(end, |end, error| end.worse(error.as_part()))
    }

    /// Damaged objects that no snapshot names, in words: a run that died left them, or one that works now.
    fn lone(&self) -> Vec<String> {
        let named: BTreeSet<_> =
            self.damaged().flat_map(|one| one.objects.iter().map(|name| (&one.dir, name))).collect();
        let lone = self.verified.objects.iter().filter(|((dir, name), _)| !named.contains(&(dir, name)));
        lone.map(|((dir, name), text)| format!("{}/objects/{name}: {text}", dir.id)).collect()
    }

    fn damaged(&self) -> impl Iterator<Item = &Verdict> {
        self.verified.snapshots.iter().filter(|verdict| !verdict.damage.is_empty())
    }

    pub(super) fn to_json(&self) -> Value {
        let damaged: Vec<Value> = self
            .damaged()
            .map(|verdict| {
                let copies = self.elsewhere.iter().find(|elsewhere| elsewhere.snapshot == verdict.id);
                json!({
                    "snapshot": verdict.id, "generation": verdict.dir.id, "damage": verdict.damage,
                    "objects": verdict.objects,
                    "costs": self.verified.costs.get(&verdict.id),
                    "good_copies": copies.map(|copies| named(copies, Worth::Whole)),
                    "likely_good": copies.map(|copies| named(copies, Worth::Likely)),
                    "partly_good": copies.map(|copies| named(copies, Worth::Partly)),
                    "stored_so": copies.map(|copies| copies.inside),
                })
            })
            .collect();
        let snapshots: Vec<Value> = self
            .verified
            .snapshots
            .iter()
            .map(|verdict| json!({ "snapshot": verdict.id, "good": verdict.damage.is_empty() && verdict.foreign.is_none(), "foreign": verdict.foreign, "checked": verdict.checked, "locked": verdict.locked }))
            .collect();
        json!({
            "vault": self.vault, "source": self.source, "depth": self.depth, "snapshots": snapshots,
            "read": self.share.map(part_text),
            "damaged": damaged, "damaged_unused": self.lone(), "chain": self.verified.chain,
            "chain_accepted": self.verified.accepted.iter().map(|open| &open.text).collect::<Vec<_>>(),
            "forks": self.verified.forks.iter().map(fork_json).collect::<Vec<_>>(),
            "unsigned": self.verified.unsigned, "alone": self.verified.alone, "documents": self.verified.documents, "good_in_older_versions": self.verified.older, "unbelieved": self.verified.unbelieved, "foreign": self.verified.foreign, "objects_listed": self.verified.objects_listed,
            "objects_read": self.verified.objects_read, "bytes_read": self.verified.bytes_read,
            "coverage": coverage_json(&self.verified.coverage),
            "unseen": self.verified.unseen,
            "deleted_meanwhile": self.verified.deleted.iter().map(|dir| &dir.id).collect::<Vec<_>>(),
            "repairs": self.mends.iter().map(mend::to_json).collect::<Vec<_>>(),
            "errors": self.errors.iter().map(CliError::to_json).collect::<Vec<_>>(),
        })
    }

    /// What is signed by nobody who is pinned for it.
    fn foreign(&self) -> impl Iterator<Item = &String> {
        self.verified.snapshots.iter().filter_map(|verdict| verdict.foreign.as_ref()).chain(&self.verified.foreign)
    }

    fn result(&self) -> String {
        let damaged = self.damaged().count();
        if !self.errors.is_empty() && self.verified.snapshots.is_empty() {
            "not verified".to_owned()
        } else if damaged > 0 {
            format!("DAMAGED: {damaged} of {}", self.verified.snapshots.len())
        } else if !self.verified.forks.is_empty() && self.verified.chain.is_empty() {
            "FORKED: see below".to_owned()
        } else if !self.verified.chain.is_empty()
            || !self.verified.unbelieved.is_empty()
            || !self.verified.objects.is_empty()
        {
            "DAMAGED: see below".to_owned()
        } else if self.verified.is_foreign() {
            let ended = self.foreign().all(|text| is_of_a_line(text));
            let why = if ended { "see below" } else { "unknown signer" };
            format!("NOT BELIEVED: {why}")
        } else if self.verified.snapshots.is_empty() {
            "empty".to_owned()
        } else {
            "good".to_owned()
        }
    }
}

/// `3/7`.
pub(super) fn part_text(part: Fraction) -> String {
    format!("{}/{}", part.part, part.of)
}

/// The vaults whose copies are worth so much.
fn named(copies: &Elsewhere, worth: Worth) -> Vec<&str> {
    copies.of(worth).map(|other| other.vault.as_str()).collect()
}

/// How a verb ends that found a recovery document so.
pub(super) fn recover_exit(recover: &Recover) -> Exit {
    match &recover.wrong {
        Some((_, true)) => Exit::WrongKey,
        Some((_, false)) => Exit::Damage,
        None => Exit::Done,
    }
}

pub(super) fn recover_json(recover: &Recover) -> Value {
    let wrong = recover.wrong.as_ref();
    json!({
        "vault": recover.vault, "wrong": wrong.map(|(text, _)| text), "foreign": wrong.is_some_and(|(_, foreign)| *foreign),
        "repairs": recover.mends.iter().map(mend::to_json).collect::<Vec<_>>(),
    })
}

fn coverage_json(coverage: &Coverage) -> Value {
    json!({
        "listed_bytes": coverage.listed_bytes, "covered_bytes": coverage.covered_bytes,
        "left_bytes": coverage.left_bytes, "since": coverage.since.map(words::utc),
    })
}

/// A line for each vault of which something was read: how much, and how much ever.
fn coverage_text(reports: &[Report]) -> String {
    let mut vaults: Vec<(&str, u64, Coverage)> = Vec::new();
    for report in reports.iter().filter(|report| report.depth != "listed") {
        let (read, coverage) = (report.verified.bytes_read, report.verified.coverage);
        match vaults.iter_mut().find(|(vault, ..)| *vault == report.vault) {
            Some((_, sum, all)) => (*sum, *all) = (*sum + read, all.and(coverage)),
            None => vaults.push((&report.vault, read, coverage)),
        }
    }
    let percent = |part: u64, whole: u64| u128::from(part) * 100 / u128::from(whole.max(1));
    let mut text = String::new();
    for (vault, read, coverage) in vaults.iter().filter(|(.., coverage)| coverage.listed_bytes > 0) {
        let whole = coverage.listed_bytes;
        let _ = write!(text, "\n{vault}: read {} % of {}", percent(*read, whole), words::bytes(whole));
        let day = coverage.since.map(|since| since.format("%Y-%m-%d").to_string());
        let _ = match day {
            Some(day) if coverage.is_whole() => write!(text, "; everything once since {day}"),
            Some(day) => write!(text, "; {} % once since {day}", percent(coverage.covered_bytes, whole)),
            None => Ok(()),
        };
        if coverage.left_bytes > 0 {
            let left = words::bytes(coverage.left_bytes);
            let _ = write!(text, "; time was up with {left} left: the next call goes on there");
        }
        text.push('\n');
    }
    text
}

/// What was repaired, what was not, and how many of each. A vault that lost one object may have lost a thousand: what could not
/// be repaired comes first, and of each the first few are named.
fn mends_text(mends: &[(&str, &Mend)]) -> String {
    let mut text = String::new();
    let end = |mend: &Mend| match mend.outcome {
        Outcome::Not(_) => "NOT repaired",
        Outcome::Mendable { .. } => "that would be repaired",
        Outcome::Good | Outcome::Mended { .. } => "repaired",
    };
    for word in ["NOT repaired", "that would be repaired", "repaired"] {
        let some: Vec<_> = mends.iter().filter(|(_, mend)| end(mend) == word).collect();
        for (vault, mend) in some.iter().take(SHOWN) {
            let _ = writeln!(text, "\nvault {vault}: {}", mend::line(mend));
        }
        if some.len() > SHOWN {
            let _ = writeln!(text, "\nand {} more {word}; `--json` has all", some.len() - SHOWN);
        }
    }
    let made = mends.iter().filter(|(_, mend)| mend.is_made()).count();
    let left = mends.len() - made;
    if made > 0 {
        let rest = if left > 0 { format!("; {left} could not be") } else { String::new() };
        let _ = writeln!(text, "\nrepaired {}{rest}", words::count(made, "file"));
    }
    text
}

/// The table, then what is wrong, then what to do.
pub(super) fn text(reports: &[Report], recover: &[Recover], lost: &[String]) -> String {
    let mut table = Table::new(&["VAULT", "SOURCE", "SNAPSHOTS", "CHECKED", "OBJECTS", "READ", "RESULT"]);
    for report in reports {
        let found = &report.verified;
        let read = if found.objects_read == 0 {
            "-".to_owned()
        } else {
            format!("{} ({})", found.objects_read, words::bytes(found.bytes_read))
        };
        table.row(vec![
            report.vault.clone(),
            report.source.to_string(),
            found.snapshots.len().to_string(),
            found.snapshots.iter().filter(|verdict| verdict.checked).count().to_string(),
            found.objects_listed.to_string(),
            read,
            report.result(),
        ]);
    }
    let mut text = table.render();
    text.push_str(&coverage_text(reports));
    for report in reports {
        text.push_str(&damage_text(report));
        for dir in &report.verified.deleted {
            let _ = writeln!(
                text,
                "\nvault {}, source {}: a prune deleted snapshots of {} meanwhile: no damage",
                report.vault, report.source, dir.id
            );
        }
        for unsigned in &report.verified.unsigned {
            let _ =
                writeln!(text, "\nnobody signed the grant {unsigned}: whether it holds the key shows when it is used");
        }
    }
    for alone in reports.iter().flat_map(|report| &report.verified.alone) {
        let _ = writeln!(text, "\n{alone}");
    }
    for (recover, (wrong, foreign)) in recover.iter().filter_map(|one| Some((one, one.wrong.as_ref()?))) {
        let what = if is_of_a_line(wrong) {
            "write it anew with `backup init`, which signs it with the host key of today"
        } else if *foreign {
            "pin the signer if you know it, or write it anew with `backup init`"
        } else {
            "write it anew with `backup init`, or bring it from another vault with `--repair`"
        };
        let _ = writeln!(text, "\n{wrong} (vault {})\n  {what}", recover.vault);
    }
    let of_reports = reports.iter().flat_map(|one| one.mends.iter().map(|mend| (one.vault.as_str(), mend)));
    let of_vaults = recover.iter().flat_map(|one| one.mends.iter().map(|mend| (one.vault.as_str(), mend)));
    text.push_str(&mends_text(&of_reports.chain(of_vaults).collect::<Vec<_>>()));
    for line in unseen(reports) {
        let _ = writeln!(text, "\n{line}\n  {UNSEEN_ADVICE}");
    }
    for line in lost {
        let _ = writeln!(text, "\n{line}\n  {}", heads::ADVICE);
    }
    for report in reports {
        for open in &report.verified.accepted {
            let _ = writeln!(
                text,
                "\n{} (vault {}, source {})\n  looked at and accepted: no damage",
                open.text, report.vault, report.source
            );
        }
    }
    text
}

/// What could not be looked at, each thing once for each vault.
fn unseen(reports: &[Report]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for report in reports {
        for text in &report.verified.unseen {
            let line = format!("vault {}: {text}", report.vault);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

/// The same as lines for a run's report: what is wrong, and nothing where all is good.
pub(super) fn problems(reports: &[Report], lost: &[String]) -> Vec<String> {
    let damage: String = reports.iter().map(damage_text).collect();
    let damage = damage.lines().filter(|line| !line.is_empty()).map(str::to_owned);
    let errors = reports.iter().flat_map(|report| {
        let what = format!("vault `{}`, source `{}`", report.vault, report.source);
        report.errors.iter().flat_map(|error| told(&what, error)).collect::<Vec<_>>()
    });
    let lost = lost.iter().flat_map(|line| [line.clone(), format!("  {}", heads::ADVICE)]);
    damage.chain(errors).chain(lost).collect()
}

fn damage_text(report: &Report) -> String {
    let mut text = String::new();
    for verdict in report.damaged() {
        let _ = writeln!(text, "\n{} in vault {}, source {}", verdict.id, report.vault, report.source);
        for damage in verdict.damage.iter().take(SHOWN) {
            let _ = writeln!(text, "  {damage}");
        }
        if verdict.damage.len() > SHOWN {
            let _ = writeln!(text, "  and {} more; `--json` has all", verdict.damage.len() - SHOWN);
        }
        let costs = report.verified.costs.get(&verdict.id).map(Vec::as_slice).unwrap_or_default();
        for cost in costs.iter().take(SHOWN) {
            let _ = writeln!(text, "  costs {cost}");
        }
        if costs.len() > SHOWN {
            let _ = writeln!(text, "  and {} more; `--json` has all", costs.len() - SHOWN);
        }
        if costs.is_empty() && report.depth != "checked" {
            text.push_str("  which tables or files that costs: `backup verify --identity FILE` tells\n");
        }
        let Some(copies) = report.elsewhere.iter().find(|copies| copies.snapshot == verdict.id) else { continue };
        copies_text(&mut text, copies);
    }
    let lone = report.lone();
    if !lone.is_empty() {
        let (number, vault, source) = (words::count(lone.len(), "object"), &report.vault, &report.source);
        let _ = writeln!(text, "\n{number} in vault {vault}, source {source}, that no snapshot needs: nothing is lost");
        for object in lone.iter().take(SHOWN) {
            let _ = writeln!(text, "  {object}");
        }
        if lone.len() > SHOWN {
            let _ = writeln!(text, "  and {} more; `--json` has all", lone.len() - SHOWN);
        }
    }
    if report.verified.older > 0 {
        let _ = writeln!(
            text,
            "\nvault `{}`: of {} damaged files an older version is good: somebody deleted them or wrote over them\n  \
             `backup restore` reads the older versions, `backup verify --repair` puts them back",
            report.vault, report.verified.older
        );
    }
    for unbelieved in &report.verified.unbelieved {
        let _ = writeln!(text, "\nforeign or unsigned mark: {unbelieved}");
    }
    // One key that is not pinned is met in every document of its host: it is said once.
    let foreign = words::once_for_each_reason(report.foreign().map(String::as_str));
    for one in foreign.iter().take(SHOWN) {
        let _ = writeln!(text, "\n{one}");
    }
    if foreign.len() > SHOWN {
        let _ = writeln!(text, "\nand {} more; `--json` has all", foreign.len() - SHOWN);
    }
    if foreign.iter().any(|text| !is_of_a_line(text)) {
        text.push_str("  pin the signer if you know it: add its line to the file that `keys.signers` names\n");
    }
    if foreign.iter().any(|text| is_of_a_line(text)) {
        let _ = writeln!(text, "  {LINE}");
    }
    for fork in &report.verified.forks {
        let _ = writeln!(text, "\n{fork} (vault {}, source {})\n  {FORK_ADVICE}", report.vault, report.source);
    }
    for broken in &report.verified.chain {
        let _ = writeln!(text, "\n{broken} (vault {}, source {})", report.vault, report.source);
        if let Some(open) = report.verified.holes.iter().find(|open| open.text == *broken) {
            let _ = writeln!(text, "  {}", heads::hole_advice(open.id.short()));
        }
    }
    text
}

fn objects(number: usize) -> String {
    words::count(number, "object")
}

/// Where a good copy is, and how good.
fn copies_text(text: &mut String, copies: &Elsewhere) {
    if copies.inside {
        text.push_str("  it was stored so: a copy in another vault has the same bytes; restore an older snapshot\n");
        return;
    }
    for other in &copies.others {
        let (vault, of, good, there) = (&other.vault, other.of, other.good, other.good + other.listed);
        let restore = format!("`backup restore {} --vault {vault} --identity FILE`", copies.snapshot);
        let _ = match other.worth() {
            Worth::Whole if of == other.objects => {
                writeln!(text, "  vault `{vault}` holds a good copy, all of it read there: {restore}")
            }
            Worth::Whole => writeln!(
                text,
                "  vault `{vault}` holds a good copy: what is damaged here was read there and is good, the other {} \
                 listed: {restore}",
                objects(other.objects - of)
            ),
            Worth::Likely if of == 0 => writeln!(
                text,
                "  vault `{vault}` holds its document and its inventory, and lists all {} with their sizes; none was read: \
                 {restore}",
                objects(other.objects)
            ),
            Worth::Partly if of == 0 => writeln!(
                text,
                "  vault `{vault}` holds its document and its inventory, and lacks {} of {}",
                other.lacking,
                objects(other.objects)
            ),
            Worth::Partly if other.lacking > 0 && good == of => writeln!(
                text,
                "  vault `{vault}` holds good copies of what is damaged here, and lacks {} of {}",
                other.lacking,
                objects(other.objects)
            ),
            Worth::Likely => {
                writeln!(
                    text,
                    "  vault `{vault}` lists all {of} damaged objects, {good} were read and are good: {restore}"
                )
            }
            Worth::Partly if other.listed == 0 => {
                writeln!(text, "  vault `{vault}` holds good copies of {good} of {of} damaged objects")
            }
            Worth::Partly => {
                writeln!(text, "  vault `{vault}` lists {there} of {of} damaged objects, {good} were read and are good")
            }
            Worth::None => Ok(()),
        };
    }
    if copies.others.iter().all(|other| other.worth() == Worth::None) {
        text.push_str("  no other vault that answers holds a good copy\n");
    } else {
        text.push_str("  bring good copies here with `backup verify --read-data 1/1 --repair`\n");
    }
}

/// What to do about a fork.
pub(crate) const FORK_ADVICE: &str = "nothing is lost, and nothing expires meanwhile: give one of the machines a key of its own \
     (`backup key new --host FILE`), look at both snapshots, then `backup accept` one of them";

/// A fork, for programs.
pub(crate) fn fork_json(fork: &Fork) -> Value {
    json!({ "signer": fork.signer, "on": fork.on, "snapshots": fork.snapshots })
}

/// Whether it was a line that is there which refused it.
fn is_of_a_line(text: &str) -> bool {
    text.contains("is not valid for this")
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::super::elsewhere::Other;
    use super::*;
    use backup_core::vault::layout::{GenerationDir, SnapshotId};

    pub(crate) fn report(damage: Vec<String>) -> Report {
        let source: SourceName = "db".parse().unwrap();
        let mut report = Report::new("local", &source, Depth { read: None, identities: None });
        let id: SnapshotId = "20260101T000000Z-1r-abcdef".parse().unwrap();
        let dir =
            GenerationDir { stack: "s".parse().unwrap(), source, id: "2026-01-01--7d--00000000".parse().unwrap() };
        if !damage.is_empty() {
            let whole =
                Other { vault: "offsite".into(), documents: true, objects: 1, lacking: 0, of: 1, good: 1, listed: 0 };
            report.elsewhere.push(Elsewhere { snapshot: id.clone(), inside: false, others: vec![whole] });
        }
        let verdict = Verdict {
            id,
            dir,
            checked: false,
            document: None,
            damage,
            foreign: None,
            objects: BTreeSet::default(),
            unproved: None,
            locked: None,
        };
        report.verified.snapshots.push(verdict);
        report
    }

    #[test]
    fn damage_is_named_with_where_a_good_copy_is() {
        let good = report(vec![]);
        assert_eq!(good.exit(), Exit::Done);
        assert_eq!(problems(std::slice::from_ref(&good), &[]), [""; 0]);
        assert!(text(&[good], &[], &[]).contains("good\n"));
        let bad = report(vec!["object `aa` is missing".into()]);
        assert_eq!(bad.exit(), Exit::Damage);
        let mut lines = problems(std::slice::from_ref(&bad), &["lost".into()]);
        assert!(lines.pop().unwrap().contains("`backup accept`"), "what to do about the chain comes last");
        assert_eq!(lines.pop().as_deref(), Some("lost"));
        assert_eq!(lines[..2], ["20260101T000000Z-1r-abcdef in vault local, source db", "  object `aa` is missing"]);
        let shown = text(&[bad], &[], &[]);
        for part in ["DAMAGED: 1 of 1", "object `aa` is missing", "vault `offsite` holds a good copy"] {
            assert!(shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn a_copy_that_was_not_read_is_called_listed_and_one_with_the_same_bytes_is_not_offered() {
        let mut bad = report(vec!["object `aa` is missing".into()]);
        (bad.elsewhere[0].others[0].of, bad.elsewhere[0].others[0].good) = (300, 64);
        bad.elsewhere[0].others[0].listed = 236;
        let shown = text(std::slice::from_ref(&bad), &[], &[]);
        assert!(shown.contains("lists all 300 damaged objects, 64 were read and are good: `backup restore"), "{shown}");
        let told = bad.to_json();
        let damaged = &told["damaged"][0];
        assert_eq!(
            (&damaged["good_copies"], &damaged["likely_good"]),
            (&json!([]), &json!(["offsite"])),
            "{damaged:#}"
        );
        bad.elsewhere[0].inside = true;
        let shown = text(&[bad], &[], &[]);
        assert!(shown.contains("it was stored so") && !shown.contains("--vault offsite"), "{shown}");
    }

    #[test]
    fn an_unknown_signer_is_a_missing_key_and_a_broken_mark_is_damage() {
        let mut found = report(vec![]);
        found.verified.snapshots[0].foreign = Some("it is signed by SHA256:x".into());
        assert_eq!((found.exit(), found.result().as_str()), (Exit::WrongKey, "NOT BELIEVED: unknown signer"));
        assert_eq!(found.to_json()["snapshots"][0]["good"], false);
        assert!(text(std::slice::from_ref(&found), &[], &[]).contains("pin the signer"));
        found.verified.foreign = (0..36).map(|number| format!("`{number}` is signed by SHA256:x")).collect();
        let shown = text(std::slice::from_ref(&found), &[], &[]);
        assert!(shown.matches("pin the signer").count() == 1 && shown.contains("and 27 more"), "{shown}");
        found.verified.unbelieved.push("`m` is not believed".into());
        assert_eq!(found.exit(), Exit::Damage);
    }

    #[test]
    fn a_failure_to_look_is_partial_and_damage_outranks_it() {
        let mut both = report(vec![]);
        both.errors.push(CliError::new(Exit::Failed, "x"));
        assert_eq!(both.exit(), Exit::Partial);
        assert_eq!(problems(std::slice::from_ref(&both), &[]), ["vault `local`, source `db`: x"]);
        both.verified.chain.push("broken".into());
        assert_eq!(both.exit(), Exit::Damage);
    }
}
