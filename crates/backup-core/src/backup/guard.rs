//! The anomaly guard: which snapshot a capture is compared with, and remembering what it held.
//!
//! The baseline is this host's newest snapshot without an anomaly, or with one that somebody accepted. So a loss stays suspect
//! each night until a person has looked, and a new generation, an import or a lost state is no new beginning. What single tables
//! held is in this host's memory only ([`crate::state::held`]): it cannot read manifests. Totals come from signed documents, and
//! acceptances from signed marks; nothing else that lies in the vault has a say.

use std::collections::{BTreeMap, BTreeSet};

use super::chain::believed;
use super::{BackupError, BackupRequest, Committed, Host};
use crate::anomaly::{self, Baseline, Facts, Totals};
use crate::id::Hash256;
use crate::mark;
use crate::signature::Signers;
use crate::source::{Captured, Source};
use crate::state::held::Held;
use crate::vault::Vault;
use crate::vault::document::{MarkKind, SnapshotDoc};
use crate::vault::layout::{GenerationDir, SnapshotId};

/// A capture, compared.
pub(super) struct Judged {
    facts: Facts,
    /// Why it is suspect.
    pub(super) reasons: Vec<String>,
}

/// The oldest snapshot that the baseline can be looked for at: the newest that this host remembers without an anomaly.
pub(super) async fn remembers(host: Host<'_>, request: &BackupRequest) -> Result<Option<SnapshotId>, BackupError> {
    let remembered = host.state.remembered(&request.source).await?;
    let Some((id, _)) = remembered.into_iter().rev().find(|(_, held)| !held.anomalous) else { return Ok(None) };
    // A memory that cannot be read is none.
    Ok(host.state.facts(&request.source, &id).await?.map(|_| id))
}

/// Compares a capture with the baseline; `history` is what the vault lists. Without a baseline nothing is unusual, nor is
/// anything about a dump that somebody brings.
pub(super) async fn judge(
    vault: &Vault,
    host: Host<'_>,
    request: &BackupRequest,
    source: &dyn Source,
    (history, captured): (&[(GenerationDir, SnapshotId)], &Captured),
) -> Result<Judged, BackupError> {
    let facts = Facts::of(captured);
    if source.is_import() {
        return Ok(Judged { facts, reasons: Vec::new() });
    }
    let may_go = |(schema, name): &anomaly::TableName| source.expects_drop(schema, name);
    let before = baseline(vault, host, request, history).await?;
    let reasons = before.map_or_else(Vec::new, |before| anomaly::compare(&before, &facts, &may_go));
    Ok(Judged { facts, reasons })
}

/// Remembers what a committed snapshot held.
pub(super) async fn remember(
    host: Host<'_>,
    request: &BackupRequest,
    committed: &Committed,
    judged: &Judged,
) -> Result<(), BackupError> {
    let snapshot = &committed.snapshot;
    let anomalous = !judged.reasons.is_empty();
    let held = Held { snapshot: snapshot.doc.id.clone(), sha256: snapshot.hash(), anomalous };
    Ok(host.state.remember(&request.source, &held, &judged.facts).await?)
}

/// What to compare with: the newest of what is remembered or listed that is good.
///
/// A snapshot that is listed and not remembered (the state was lost, or the run ended between commit and memory) gives totals;
/// tables are then those of the newest good one that is remembered. Of one that is suspect and not remembered nobody knows
/// why: it counts if it was accepted. Where there are only such, the oldest is compared with, which hides least.
async fn baseline(
    vault: &Vault,
    host: Host<'_>,
    request: &BackupRequest,
    history: &[(GenerationDir, SnapshotId)],
) -> Result<Option<Baseline>, BackupError> {
    let own = Signers::pin_fingerprint(&host.key.fingerprint());
    let remembered = host.state.remembered(&request.source).await?;
    let listed = history.iter().filter(|(_, id)| !id.is_imported()).map(|at| (&at.1, Some(at)));
    let all: BTreeMap<&SnapshotId, _> = remembered.keys().map(|id| (id, None)).chain(listed).collect();
    let (mut newest, mut doubtful): (Option<Baseline>, Option<Baseline>) = (None, None);
    for (id, at) in all.into_iter().rev() {
        if let Some(held) = remembered.get(id) {
            if held.anomalous && !is_accepted(vault, host, request, id, held.sha256).await? {
                continue;
            }
            if let Some(facts) = host.state.facts(&request.source, id).await? {
                let (snapshot, totals) = (id.short().to_owned(), facts.totals());
                let mut found = newest.unwrap_or_else(|| Baseline {
                    snapshot: snapshot.clone(),
                    totals,
                    tables: None,
                    foreign: BTreeSet::new(),
                });
                (found.tables, found.foreign) = (Some((snapshot, facts.tables)), facts.foreign);
                return Ok(Some(found));
            }
        }
        if newest.is_some() {
            continue;
        }
        let Some(at) = at else { continue };
        let Some(signed) = believed(vault, &own, at).await? else { continue };
        let found = by_totals(&signed.doc);
        if signed.doc.suspect == 0 {
            newest = Some(found);
        } else if is_accepted(vault, host, request, id, signed.hash()).await? {
            // What came before it is not what was accepted.
            return Ok(Some(found));
        } else {
            doubtful = Some(found);
        }
    }
    Ok(newest.or(doubtful))
}

fn by_totals(doc: &SnapshotDoc) -> Baseline {
    let totals = Totals { tables: doc.tables, rows: doc.rows, plain_bytes: doc.plain_bytes };
    Baseline { snapshot: doc.id.short().to_owned(), totals, tables: None, foreign: BTreeSet::new() }
}

async fn is_accepted(
    vault: &Vault,
    host: Host<'_>,
    request: &BackupRequest,
    id: &SnapshotId,
    document: Hash256,
) -> Result<bool, BackupError> {
    let place = (&request.stack, &request.source, id);
    Ok(mark::is_set(vault, host.signers, place, document, MarkKind::Accept).await?)
}
