//! `backup verify`.

mod elsewhere;
mod mend;
mod reading;
pub(crate) mod report;

use std::collections::BTreeSet;
use std::path::PathBuf;

use backup_core::catalogue;
use backup_core::config::{self, Share, Source, Span, Step};
use backup_core::id::{Hash256, SourceName};
use backup_core::seal::key::Identities;
use backup_core::signature::{HostKey, Signers};
use backup_core::vault::Vault;
use backup_core::vault::document::{FORMAT, MarkDoc, MarkKind, PublicDocument};
use backup_core::vault::layout::SnapshotId;
use backup_core::verify::{Depth, Fraction, Verdict, Verified, remember};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::commands::silent;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::heads::{self, Head};
use crate::report::{StepReport, told};
use crate::session::{self, Session, TOOL};
use elsewhere::Search;
use mend::Recover;
use reading::{Reading, Time};
use report::Report;

/// Check signatures, chains and inventories; with --read-data also the data itself
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this snapshot: its name, or the six characters near its end
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Read and hash this share of the objects, another one each day that asks: thirty days with 1/30 read all
    #[arg(long, value_name = "n/m")]
    pub(crate) read_data: Option<Share>,
    /// Stop reading after this time (`30m`); the next call of the day goes on there. Alone: of all objects
    #[arg(long, value_name = "DURATION", conflicts_with_all = ["full", "identity"])]
    pub(crate) max_time: Option<Span>,
    /// Decrypt and hash everything, with the identity that `keys.identity` names
    #[arg(long)]
    pub(crate) full: bool,
    /// Decrypt and hash everything, with the identity in this file (`-`: standard input)
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// The passphrase that protects the identity
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Only this vault
    #[arg(long, value_name = "NAME")]
    pub(crate) vault: Option<String>,
    /// Only these sources
    #[arg(long, value_name = "S")]
    pub(crate) source: Vec<SourceName>,
    /// Replace what is damaged or missing by another vault's good copy; damaged files are kept in `_damaged`
    #[arg(long)]
    pub(crate) repair: bool,
    /// With --repair: only show what would be repaired, and from where
    #[arg(long, requires = "repair")]
    pub(crate) dry_run: bool,
}

/// Looks, as deep as asked, and repairs where asked. Exit 4 on damage that is (still) there, 12 where only the signer is
/// unknown (as `restore` ends), 3 when a vault did not answer.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    let found = look(&session, args, None).await?;
    cx.printer.result("verify", found.to_json(), || report::text(&found.reports, &found.recover, &found.lost))?;
    Ok(found.end)
}

/// The same as a step of a run: of what the run captured and the vaults that it filled, and of nothing else.
pub(crate) async fn follow(
    session: &Session<'_>,
    read_data: Option<Share>,
    full: bool,
    (sources, filled): (&[&Source], &[&config::Vault]),
) -> Result<StepReport, CliError> {
    let args = Args {
        id: None,
        read_data,
        max_time: None,
        full,
        identity: None,
        passphrase_file: None,
        vault: None,
        source: sources.iter().map(|source| source.name.clone()).collect(),
        repair: false,
        dry_run: false,
    };
    let found = look(session, &args, Some(filled)).await?;
    let mut problems = report::problems(&found.reports, &found.lost);
    problems.extend(
        found.recover.iter().filter_map(|one| Some(format!("vault `{}`: {}", one.vault, one.wrong.as_ref()?.0))),
    );
    problems.extend(found.locked.iter().flat_map(|error| told("not all was checked", error)));
    problems.extend(silent::lines(&found.quiet));
    // A key that is missing ends the verb; of a run it is a part that was not proved.
    let exit = if found.end == Exit::WrongKey { Exit::Partial } else { found.end };
    Ok(StepReport { step: Step::Verify { read_data, full }, exit, found: found.to_json(), problems })
}

/// Everything that was found.
struct Found {
    reports: Vec<Report>,
    /// Recovery documents that are not good, or were not.
    recover: Vec<Recover>,
    lost: Vec<String>,
    /// Vaults that did not answer.
    quiet: Vec<(String, CliError)>,
    /// Why some snapshots were not decrypted.
    locked: Option<CliError>,
    end: Exit,
}

impl Found {
    /// The part that was read, where it is the same everywhere.
    fn share(&self) -> Option<String> {
        let first = self.reports.first()?.share;
        first.filter(|_| self.reports.iter().all(|report| report.share == first)).map(report::part_text)
    }

    fn to_json(&self) -> Value {
        json!({
            "vaults": self.reports.iter().map(Report::to_json).collect::<Vec<_>>(),
            "recover": self.recover.iter().map(report::recover_json).collect::<Vec<_>>(),
            "read": self.share(),
            "lost": self.lost, "silent": silent::to_json(&self.quiet),
        })
    }
}

/// Another share each day, so that `1/30` in a nightly job reads everything in thirty nights. On one day `1/2` and `2/2`
/// together are everything. For who remembers nothing: whoever asks each Sunday for `1/7` gets the same one each time.
pub(in crate::commands) fn share_of_day(share: Share, now: DateTime<Utc>) -> Fraction {
    share_of_turn(share, day_of(now))
}

fn day_of(now: DateTime<Utc>) -> i64 {
    now.date_naive().signed_duration_since(NaiveDate::default()).num_days()
}

fn share_of_turn(share: Share, turn: i64) -> Fraction {
    let turned = (i64::from(share.part) - 1 + turn).rem_euclid(i64::from(share.parts));
    Fraction { part: u32::try_from(turned + 1).unwrap_or(share.part), of: share.parts }
}

/// `within`: only these vaults; without, those that `args` names, or all.
async fn look(session: &Session<'_>, args: &Args, within: Option<&[&config::Vault]>) -> Result<Found, CliError> {
    let sources = session.sources(&args.source)?;
    let signers = session.signers()?;
    session.check_vault(args.vault.as_deref())?;
    if args.repair && !args.dry_run {
        // Told before hours of reading, and not kept while reading: a run in its time matters more.
        for source in &sources {
            drop(mend::lock(session, source)?);
        }
    }
    let identities = identities(session, args)?;
    let key = identities.is_some().then(|| marker(session)).flatten();
    let among = |name: &str| within.is_none_or(|within| within.iter().any(|vault| vault.name == name));
    let chosen = |name: &str| args.vault.as_deref().is_none_or(|only| only == name) && among(name);
    // All vaults are opened, also with `--vault`: another one may hold a good copy of what is damaged, and that is only read.
    let writing = key.is_some() || (args.repair && !args.dry_run);
    let (vaults, quiet) = session.vaults_writing(|name| writing && chosen(name)).await;
    let (mut quiet, away): (Vec<_>, Vec<_>) = quiet.into_iter().partition(|(name, _)| chosen(name));
    let targets: Vec<Vault> = vaults.iter().filter(|vault| chosen(vault.name())).cloned().collect();
    let mut end = silent::report(session.cx, &targets, &quiet)?;
    if args.repair {
        for (name, error) in &away {
            let text = format!("vault `{name}` cannot be used, so no copy of it repairs anything: {}", error.message());
            session.cx.printer.warn(&text, error.advice().unwrap_or("the other vaults are used"));
        }
        quiet.extend(away);
    }
    let only = match &args.id {
        Some(text) => Some(find(session, &targets, &sources, text).await?),
        None => None,
    };
    let (repair, dry_run) = (args.repair, args.dry_run);
    let asked = args.read_data.or(args.max_time.map(|_| Share { part: 1, parts: 1 }));
    let look = Look { session, signers: &signers, vaults: &vaults, key: key.as_ref(), asked, repair, dry_run };
    let heads = heads::remembered(session, &sources).await;
    let share = asked.map(|share| share_of_day(share, session.cx.clock.now()));
    let depth = Depth { read: share, identities: identities.as_ref() };
    let (mut reports, mut recover) = (Vec::new(), Vec::new());
    let wanted = |source: &&&Source| only.as_ref().is_none_or(|(name, _)| *name == source.name);
    let parts = targets.len() * sources.iter().filter(wanted).count();
    let mut time = args.max_time.map(|span| Time::new(span.as_std(), parts));
    for vault in &targets {
        for source in sources.iter().filter(wanted) {
            let until = time.as_mut().map(Time::next);
            let report = look.at((vault, source), only.as_ref().map(|(_, id)| id), depth, until).await;
            end = end.worse(report.exit());
            reports.push(report);
        }
        if only.is_none() {
            match look.recover(vault).await {
                Ok(found) => {
                    end = end.worse(report::recover_exit(&found));
                    recover.extend((found.wrong.is_some() || !found.mends.is_empty()).then_some(found));
                }
                Err(error) => {
                    session.cx.printer.warn(error.message(), error.advice().unwrap_or_default());
                    end = end.worse(error.as_part());
                }
            }
        }
    }
    let snapshots = || reports.iter().flat_map(|report| &report.verified.snapshots);
    let locked = snapshots().find_map(|verdict| verdict.locked.as_deref()).map(locked_error);
    if let Some(error) = &locked {
        if end != Exit::Damage && snapshots().all(|verdict| verdict.locked.is_some()) {
            return Err(error.clone());
        }
        session.cx.printer.warn(error.message(), error.advice().unwrap_or_default());
        end = end.worse(Exit::Partial);
    }
    let whole = only.is_none() && targets.len() == session.config.vaults.len() && quiet.is_empty();
    let lost = look.lost_heads(&heads, &reports, whole).await;
    if !lost.is_empty() {
        end = end.worse(Exit::Damage);
    }
    Ok(Found { reports, recover, lost, quiet, locked, end })
}

/// The identities for the full check, if one is wanted.
fn identities(session: &Session<'_>, args: &Args) -> Result<Option<Identities>, CliError> {
    if !args.full && args.identity.is_none() && args.passphrase_file.is_none() {
        return Ok(None);
    }
    let configured = session.config.keys.identity.as_ref();
    session::identities(args.identity.as_deref(), configured, args.passphrase_file.as_deref()).map(Some)
}

fn locked_error(why: &str) -> CliError {
    CliError::new(Exit::WrongKey, format!("not decrypted: {why}"))
        .hint("use the identity of one of its recipients; `backup key check FILE` tells")
}

/// The key that signs marks. Without one the check is as good, and leaves no trace.
fn marker(session: &Session<'_>) -> Option<HostKey> {
    match session.host_key() {
        Ok(key) => Some(key),
        Err(error) => {
            let text = format!("what is checked is not marked `checked` in the vault: {}", error.message());
            session.cx.printer.talk(&text);
            None
        }
    }
}

/// The one snapshot that `text` names, over all vaults.
async fn find(
    session: &Session<'_>,
    vaults: &[Vault],
    sources: &[&Source],
    text: &str,
) -> Result<(SourceName, SnapshotId), CliError> {
    let mut found = BTreeSet::new();
    for source in sources {
        let (listed, _) = catalogue::snapshots(vaults, session.stack(), &source.name).await;
        let named = listed.into_iter().filter(|listed| listed.id.as_str() == text || listed.id.short() == text);
        found.extend(named.map(|listed| (source.name.clone(), listed.id)));
    }
    let several = found.len() > 1;
    match found.pop_first() {
        Some(one) if !several => Ok(one),
        Some(_) => Err(CliError::usage(format!("`{text}` names several snapshots"))
            .hint("give the whole name, as `backup list` shows it")),
        None => {
            Err(CliError::usage(format!("no vault lists a snapshot `{text}`"))
                .hint("see the snapshots with `backup list`"))
        }
    }
}

/// What stays the same while all vaults are looked at.
struct Look<'a> {
    session: &'a Session<'a>,
    signers: &'a Signers,
    vaults: &'a [Vault],
    key: Option<&'a HostKey>,
    /// The share that is to be read.
    asked: Option<Share>,
    repair: bool,
    dry_run: bool,
}

impl Look<'_> {
    async fn at(
        &self,
        (vault, source): (&Vault, &Source),
        only: Option<&SnapshotId>,
        mut depth: Depth<'_>,
        until: Option<std::time::Instant>,
    ) -> Report {
        let mut report = Report::new(vault.name(), &source.name, depth);
        // A call that is to go on where another stopped needs a memory, another one uses it where it is.
        let state = if self.has_state() || until.is_some() { self.session.state().await } else { Err(none()) };
        let state = match state {
            Ok(state) => Some(state),
            Err(error) => {
                report.errors.extend((until.is_some()).then_some(error));
                None
            }
        };
        let now = self.session.cx.clock.now();
        // Who remembers goes on with the next part, however often it is asked; a single snapshot turns nothing.
        let (mut turned, mut since) = (None, now.date_naive());
        if let (Some(state), Some(share), None) = (&state, self.asked, only) {
            match state.read_turn(vault.id(), &source.name, share.parts, day_of(now)).await {
                Ok((turn, day)) => {
                    depth.read = Some(share_of_turn(share, turn));
                    turned = Some((state, share.parts, turn));
                    // What was read of a part since its turn began need not be read again before its end. All, in one part, has no turns.
                    let began = TimeDelta::try_days(day).and_then(|days| NaiveDate::default().checked_add_signed(days));
                    since = began.filter(|_| share.parts > 1).unwrap_or(since);
                }
                Err(error) => report.errors.push(error.into()),
            }
        }
        report.share = depth.read;
        let found = async {
            let mut reading = Reading::new((vault, source), (only, depth), (until, since), state.as_ref(), now).await?;
            let verified = reading.look(self, vault, source).await?;
            let (verified, mends, error) = self.mended(vault, source, verified, &mut reading).await;
            let mut errors: Vec<CliError> = error.into_iter().collect();
            if let Some(state) = &state {
                errors.extend(reading.remember(state, vault, &verified).await.err());
            }
            Ok::<_, CliError>((verified, mends, errors))
        };
        match found.await {
            Ok((verified, mends, errors)) => {
                // Only now, and only where all of the part was read: what a call that died or ran out of time has not read is read
                // by the next one.
                if let Some((state, parts, turn)) = turned {
                    let (at, day) = ((vault.id(), &source.name), day_of(now));
                    let set = if verified.coverage.left_bytes == 0 {
                        state.set_read_turn(at.0, at.1, parts, (day, turn)).await
                    } else {
                        state.begin_read_turn(at.0, at.1, parts, (day, turn)).await
                    };
                    report.errors.extend(set.err().map(CliError::from));
                }
                report.mends = mends;
                report.errors.extend(errors);
                let mut search = Search::new(vault, self.vaults, self.signers);
                for verdict in &verified.snapshots {
                    if !verdict.damage.is_empty() {
                        report.elsewhere.push(search.copies(&verified, verdict).await);
                    }
                    if let Err(error) = self.mark(vault, verdict).await {
                        report.errors.push(error);
                    }
                }
                let remembered = self.remember(vault, source, &verified, depth, only.is_none()).await;
                remembered.unwrap_or_else(|error| report.errors.push(error));
                report.verified = verified;
            }
            Err(error) => report.errors.push(error),
        }
        for error in &report.errors {
            let text = format!("vault `{}`, source `{}`: {}", report.vault, report.source, error.message());
            self.session.cx.printer.warn(&text, error.advice().unwrap_or_default());
        }
        report
    }

    /// `checked` is a fact that must survive the loss of this host: it is signed and put beside the snapshot.
    async fn mark(&self, vault: &Vault, verdict: &Verdict) -> Result<(), CliError> {
        let (Some(key), Some(document), true) = (self.key, verdict.document, verdict.checked) else { return Ok(()) };
        let mark = MarkDoc {
            format: FORMAT,
            stack: verdict.dir.stack.clone(),
            source: verdict.dir.source.clone(),
            snapshot: verdict.id.clone(),
            mark: MarkKind::Checked,
            at: self.session.cx.clock.now(),
            document,
            closes: None,
            signer: key.fingerprint(),
            tool: TOOL.to_owned(),
        };
        // A mark that says so is there: another one would say no more, and where objects are locked fill the vault.
        let there = vault.get_signed::<MarkDoc>(&mark.path(), self.signers).await;
        if !there.is_ok_and(|there| there.doc.document == document) {
            vault.put_signed(&mark, key).await?;
        }
        Ok(())
    }

    async fn remember(
        &self,
        vault: &Vault,
        source: &Source,
        verified: &Verified,
        depth: Depth<'_>,
        whole: bool,
    ) -> Result<(), CliError> {
        if self.has_state() {
            let state = self.session.state().await?;
            if let Ok(there) = vault.generations(self.session.stack(), &source.name).await {
                state.keep_reads(vault.id(), &source.name, &there).await?;
            }
            remember(&state, vault, (self.session.stack(), &source.name), verified, depth, whole).await?;
        }
        Ok(())
    }

    fn has_state(&self) -> bool {
        self.session.state_dir().is_ok_and(|dir| dir.join("state.sqlite").exists())
    }

    /// What is wrong with the newest snapshots. Nothing inside a vault alone could show that. `whole`: every vault was looked
    /// at, so that one that is nowhere is lost.
    async fn lost_heads(&self, heads: &[Head], reports: &[Report], whole: bool) -> Vec<String> {
        let mut lost = Vec::new();
        for (source, newest) in heads {
            let mine: Vec<&Report> = reports.iter().filter(|report| report.source == *source).collect();
            let mut found = lost_head(newest, &mine, whole);
            // Absent on purpose: but a document that took its place is not excused by that.
            if !found.is_empty()
                && heads::was_removed(self.session, self.vaults, self.signers, (source, &newest.0)).await
            {
                found = lost_head(newest, &mine, false);
            }
            lost.extend(found);
        }
        lost
    }
}

/// Nothing is remembered here.
fn none() -> CliError {
    CliError::new(Exit::Failed, "there is no state")
}

/// Compares the newest snapshot of a source that this host made, name and head, with what the vaults have: another document
/// under its name was put there; where none has it, a vault was rolled back or it was removed. Damage under its name is
/// said already; whatever else is damaged or foreign there excuses nothing.
fn lost_head((snapshot, head): &(String, Hash256), reports: &[&Report], whole: bool) -> Vec<String> {
    let (mut lost, mut said) = (Vec::new(), false);
    for report in reports {
        for verdict in &report.verified.snapshots {
            let named = verdict.id.as_str() == snapshot;
            said |= verdict.document == Some(*head) || verdict.unproved == Some(*head);
            said |= named && !verdict.damage.is_empty();
            if named && verdict.foreign.is_some() && verdict.unproved != Some(*head) {
                said = true;
                lost.push(format!(
                    "source `{}`: the newest snapshot that this host made (`{snapshot}`) was replaced in vault `{}` by one of a \
                     signer that is not pinned",
                    report.source, report.vault
                ));
            }
        }
    }
    let looked = whole && reports.iter().all(|report| report.errors.is_empty());
    if let (true, false, Some(report)) = (looked, said, reports.first()) {
        lost.push(format!(
            "source `{}`: the newest snapshot that this host made (`{snapshot}`, {head}) is in no vault: rolled back or removed",
            report.source
        ));
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::restore::tests::parse;

    #[test]
    fn only_damage_under_its_name_excuses_a_lost_head() {
        use report::tests::report;
        let (head, other) = (Hash256([1; 32]), Hash256([2; 32]));
        let name = "20260101T000000Z-1r-abcdef".to_owned();
        let newest = (name.clone(), head);
        let lost = |newest: &(String, Hash256), change: &dyn Fn(&mut Verdict), whole: bool| {
            let mut report = report(Vec::new());
            change(&mut report.verified.snapshots[0]);
            lost_head(newest, &[&report], whole).concat()
        };
        assert_eq!(lost(&newest, &|verdict| verdict.document = Some(head), true), "");
        assert!(lost(&newest, &|verdict| verdict.document = Some(other), true).contains("in no vault"));
        assert_eq!(lost(&newest, &|verdict| verdict.document = Some(other), false), "", "not all was looked at");
        assert_eq!(lost(&newest, &|verdict| verdict.damage.push("x".into()), true), "");
        // Anything else that cannot be believed hides nothing.
        let elsewhere = ("20260102T000000Z-1r-abcdef".to_owned(), head);
        assert!(lost(&elsewhere, &|verdict| verdict.damage.push("x".into()), true).contains("in no vault"));
        assert!(lost(&elsewhere, &|verdict| verdict.foreign = Some("x".into()), true).contains("in no vault"));
        // A stranger's document in its place is one that was put there; its own is not, whoever is pinned.
        assert!(lost(&newest, &|verdict| verdict.foreign = Some("x".into()), false).contains("was replaced"));
        let own = |verdict: &mut Verdict| (verdict.foreign, verdict.unproved) = (Some("x".into()), Some(head));
        assert_eq!(lost(&newest, &own, true), "");
    }

    #[test]
    fn reads_a_share() {
        let args: Args = parse(&["--read-data", "2/30"]).unwrap();
        assert_eq!(args.read_data, Some(Share { part: 2, parts: 30 }));
        assert!(parse::<Args>(&["--read-data", "4/3"]).is_err());
    }

    #[test]
    fn each_day_reads_another_share_until_all_were_read() {
        let first: DateTime<Utc> = "2026-02-20T02:00:00Z".parse().unwrap();
        let share = Share { part: 1, parts: 7 };
        let parts: BTreeSet<u32> =
            (0..7).map(|day| share_of_day(share, first + chrono::TimeDelta::days(day)).part).collect();
        assert_eq!(parts, (1..=7).collect());
        let halves: BTreeSet<u32> = [1, 2].map(|part| share_of_day(Share { part, parts: 2 }, first).part).into();
        assert_eq!(halves, [1, 2].into());
        assert_eq!(share_of_day(Share { part: 1, parts: 1 }, first), Fraction { part: 1, of: 1 });
    }

    #[test]
    fn takes_a_snapshot_and_an_identity() {
        let args: Args = parse(&["k3f9xa", "--identity", "-", "--vault", "local"]).unwrap();
        assert_eq!((args.id.as_deref(), args.identity), (Some("k3f9xa"), Some("-".into())));
    }
}
