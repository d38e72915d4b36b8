//! `backup list`: the snapshots in the vaults, by names. Only what was done with them (`checked`, `restored`, `pinned`) is
//! read, from marks that a pinned signer signed for the very document that is listed, and who signed the newest snapshot of each
//! source; whether the others are believed is what `show` and `verify` tell. Where nobody is pinned, no mark is shown.
//! What is announced to go is read likewise.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use backup_core::catalogue::Listed;
use backup_core::id::SourceName;
use backup_core::replicate::{Proof, marks_of, proofs};
use backup_core::vault::document::{MarkDoc, MarkKind};
use backup_core::vault::layout::{SnapshotId, Volume};
use backup_core::vault::{Signed, Vault};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::find::{self, Found};
use crate::pending::{self, Pending};
use crate::session::Session;
use crate::table::Table;
use crate::words;

/// List the snapshots in the vaults
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these sources
    #[arg(long, value_name = "S")]
    pub(crate) source: Vec<SourceName>,
    /// Only this vault
    #[arg(long, value_name = "NAME")]
    pub(crate) vault: Option<String>,
}

/// Which marks each snapshot has, by source and id.
type Marks = BTreeMap<(SourceName, String), Vec<MarkKind>>;

/// Prints them; exit 3 if a vault does not answer, 12 where the newest of a source is by nobody who is pinned.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    let mut found = find::snapshots(&session, &args.source, args.vault.as_deref()).await?;
    found.require_one()?;
    let marks = marks(&session, &mut found).await;
    let pending = pending(&session, &mut found).await;
    let deleted = match session.signers() {
        Ok(signers) => find::deleted(&found, &signers, session.stack(), &cx.printer).await,
        // Whose documents they are, nobody could tell.
        Err(_) => Vec::new(),
    };
    let exit = found.warn(&session).worse(believed(&session, &found).await);
    let hidden = deleted.iter().map(|one| {
        json!({ "vault": one.vault.name(), "source": one.source, "id": one.hidden.id, "generation": one.hidden.dir.id })
    });
    let configured = session.config.vaults.len();
    let (now, timezone) = (cx.clock.now(), session.config.timezone);
    let snapshots: Vec<Value> =
        found.listed.iter().map(|(source, one)| row_json(source, one, &marks, configured, now)).collect();
    let value = json!({
        "stack": session.stack(),
        "at": words::utc(now),
        "snapshots": snapshots,
        "pending": pending.iter().map(Pending::to_json).collect::<Vec<_>>(),
        "deleted": hidden.collect::<Vec<_>>(),
        "silent": found.silent_json(),
    });
    cx.printer.result("list", value, || text(&found, (&marks, &pending), configured, now, timezone))?;
    Ok(exit)
}

/// Whether the newest snapshot of each source is by a signer that is believed: all that this verb reads of a document. Names, and the
/// words about them, would look the same where nobody is pinned, or somebody else.
async fn believed(session: &Session<'_>, found: &Found) -> Exit {
    let printer = &session.cx.printer;
    let signers = match session.signers() {
        Ok(signers) => signers,
        Err(error) => {
            printer.warn(&format!("nobody is believed: {}", error.message()), error.advice().unwrap_or_default());
            return error.exit();
        }
    };
    let mut end = Exit::Done;
    for source in &found.sources {
        let Some(one) = found.of(source).into_iter().rfind(|one| !one.id.is_imported()) else { continue };
        let mut refused = None;
        for vault in &one.vaults {
            match proofs(vault, &signers, &[(one.dir.clone(), one.id.clone())]).await.pop() {
                // What is damaged there, and what does not answer, is for `verify` and `status` to say.
                Some(Proof::Foreign(error)) => refused = refused.or(Some(CliError::from(error))),
                Some(Proof::Signed(_) | Proof::Unknown(_)) | None => {
                    refused = None;
                    break;
                }
            }
        }
        if let Some(error) = refused.filter(|error| error.exit() == Exit::WrongKey) {
            let text = format!("the newest snapshot of `{source}` is not believed: {}", error.message());
            printer.warn(&text, error.advice().unwrap_or_default());
            end = end.worse(error.exit());
        }
    }
    end
}

/// The signed marks of all listed snapshots. A vault that cannot be asked becomes silent.
async fn marks(session: &Session<'_>, found: &mut Found) -> Marks {
    let mut marks = Marks::new();
    let signers = match session.signers() {
        Ok(signers) => signers,
        Err(error) => {
            session.cx.printer.detail(&format!("no marks are shown: {}", error.message()));
            return marks;
        }
    };
    let mut signed: BTreeMap<(SourceName, SnapshotId), Vec<Signed<MarkDoc>>> = BTreeMap::new();
    let mut failed = Vec::new();
    for vault in &found.vaults {
        for source in &found.sources {
            let listed: BTreeSet<SnapshotId> = found.of(source).into_iter().map(|one| one.id.clone()).collect();
            match marks_of(vault, &signers, session.stack(), source, &listed).await {
                Ok(read) => {
                    for mark in read.signed.into_values() {
                        signed.entry((source.clone(), mark.doc.snapshot.clone())).or_default().push(mark);
                    }
                }
                Err(error) => {
                    failed.push((vault.name().to_owned(), CliError::from(error)));
                    break;
                }
            }
        }
    }
    let mut wanted: Vec<&(SourceName, Listed)> =
        found.listed.iter().filter(|(source, one)| signed.contains_key(&(source.clone(), one.id.clone()))).collect();
    for vault in &found.vaults {
        let here = |(_, one): &&(SourceName, Listed)| one.vaults.iter().any(|other| other.name() == vault.name());
        let (held, rest): (Vec<_>, Vec<_>) = wanted.into_iter().partition(here);
        let named: Vec<_> = held.iter().map(|(_, one)| (one.dir.clone(), one.id.clone())).collect();
        wanted = rest;
        for (listed, proof) in held.into_iter().zip(proofs(vault, &signers, &named).await) {
            // What cannot be read or is not believed has no mark, unless another vault proves it; `verify` names it.
            let Proof::Signed(document) = proof else {
                wanted.push(listed);
                continue;
            };
            let (hash, (source, one)) = (document.hash(), listed);
            let kinds = marks.entry((source.clone(), one.id.to_string())).or_default();
            for mark in signed[&(source.clone(), one.id.clone())].iter().filter(|mark| mark.doc.document == hash) {
                if !kinds.contains(&mark.doc.mark) {
                    kinds.push(mark.doc.mark);
                }
            }
        }
    }
    found.silent.extend(failed);
    marks
}

/// What is announced to go, or going. A vault that cannot be asked becomes silent; what is not believed is for `status` and `verify`.
async fn pending(session: &Session<'_>, found: &mut Found) -> Vec<Pending> {
    let Ok(signers) = session.signers() else { return Vec::new() };
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    for vault in &found.vaults {
        for source in &found.sources {
            match pending::of(vault, &signers, session.stack(), source).await {
                Ok(some) => all.extend(some.into_iter().flatten()),
                Err(error) => {
                    failed.push((vault.name().to_owned(), CliError::from(error)));
                    break;
                }
            }
        }
    }
    failed.retain(|(name, _)| !found.silent.iter().any(|(silent, _)| silent == name));
    found.silent.extend(failed);
    all
}

/// How well a snapshot is known to be there: `restored`, `checked`, `replicated` (in every configured vault, of which
/// there are several) or `stored`.
fn state(marks: &[MarkKind], vaults: usize, configured: usize) -> &'static str {
    if marks.contains(&MarkKind::Restored) {
        "restored"
    } else if marks.contains(&MarkKind::Checked) {
        "checked"
    } else if configured > 1 && vaults >= configured {
        "replicated"
    } else {
        "stored"
    }
}

fn of<'a>(marks: &'a Marks, source: &SourceName, one: &Listed) -> &'a [MarkKind] {
    marks.get(&(source.clone(), one.id.to_string())).map_or(&[], Vec::as_slice)
}

fn row_json(source: &SourceName, one: &Listed, marks: &Marks, configured: usize, now: DateTime<Utc>) -> Value {
    let kinds = of(marks, source, one);
    let (rows, bytes) = match one.id.volume() {
        Volume::Rows(rows) => (Some(rows), None),
        Volume::Bytes(bytes) => (None, Some(bytes)),
    };
    json!({
        "id": one.id,
        "short": one.id.short(),
        "source": source,
        "generation": one.dir.id,
        "instant": words::utc(one.id.instant()),
        "age_seconds": (now - one.id.instant()).num_seconds(),
        "rows": rows,
        "plain_bytes": bytes,
        "suspect": one.id.is_suspect(),
        "imported": one.id.is_imported(),
        "state": state(kinds, one.vaults.len(), configured),
        "marks": kinds.iter().map(|kind| kind.word()).collect::<Vec<_>>(),
        "vaults": vaults(one),
    })
}

fn vaults(one: &Listed) -> Vec<&str> {
    one.vaults.iter().map(Vault::name).collect()
}

/// A table for each source: so the lines keep to 80 columns however long a source's name is.
fn text(
    found: &Found,
    (marks, pending): (&Marks, &[Pending]),
    configured: usize,
    now: DateTime<Utc>,
    timezone: Tz,
) -> String {
    let mut sources: Vec<&SourceName> = found.listed.iter().map(|(source, _)| source).collect();
    sources.dedup();
    if sources.is_empty() {
        return "no snapshots\n".to_owned();
    }
    let mut blocks = Vec::new();
    for source in sources {
        let all = found.of(source);
        let mut table = Table::new(&["ID", "INSTANT", "AGE", "SIZE", "STATE", "IN"]);
        for one in &all {
            let kinds = of(marks, source, one);
            let mut place = vaults(one).join(", ");
            for (shown, word) in [
                (one.id.is_suspect() && !kinds.contains(&MarkKind::Accept), "suspect"),
                (kinds.contains(&MarkKind::Pin), "pinned"),
                (one.id.is_imported(), "imported"),
            ] {
                if shown {
                    place = format!("{place}; {word}");
                }
            }
            table.row(vec![
                one.id.short().to_owned(),
                words::local(one.id.instant(), timezone),
                words::age(now - one.id.instant()),
                words::volume(one.id.volume()),
                state(kinds, one.vaults.len(), configured).to_owned(),
                place,
            ]);
        }
        let mut block = format!("{source}: {}\n{}", words::count(all.len(), "snapshot"), table.render());
        for pending in pending.iter().filter(|pending| pending.doc.source == *source) {
            let _ = writeln!(block, "{}", pending.line());
        }
        blocks.push(block);
    }
    blocks.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_proof_names_the_state() {
        use MarkKind::{Accept, Checked, Pin, Restored};
        for (marks, vaults, configured, word) in [
            (&[][..], 1, 1, "stored"),
            (&[], 1, 2, "stored"),
            (&[], 2, 2, "replicated"),
            (&[Pin, Accept], 2, 3, "stored"),
            (&[Checked], 1, 2, "checked"),
            (&[Checked, Restored], 2, 2, "restored"),
        ] {
            assert_eq!(state(marks, vaults, configured), word, "{marks:?} {vaults}/{configured}");
        }
    }
}
