//! `backup list`: the snapshots in the vaults, by names alone. Nothing is opened; `show` and `verify` do that.

use std::collections::BTreeMap;

use backup_core::catalogue::Listed;
use backup_core::id::SourceName;
use backup_core::vault::document::MarkKind;
use backup_core::vault::layout::Volume;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::find::{self, Found};
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

/// Prints them; exit 3 if a vault does not answer.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    let mut found = find::snapshots(&session, &args.source, args.vault.as_deref()).await?;
    found.require_one()?;
    let marks = marks(&session, &mut found).await;
    let exit = found.warn(&session);
    let configured = session.config.vaults.len();
    let (now, timezone) = (cx.clock.now(), session.config.timezone);
    let snapshots: Vec<Value> =
        found.listed.iter().map(|(source, one)| row_json(source, one, &marks, configured, now)).collect();
    let value = json!({
        "stack": session.stack(),
        "at": words::utc(now),
        "snapshots": snapshots,
        "silent": found.silent_json(),
    });
    cx.printer.result("list", value, || text(&found, &marks, configured, now, timezone))?;
    Ok(exit)
}

/// The marks of all listed snapshots, by name. A vault that cannot be asked becomes silent.
async fn marks(session: &Session<'_>, found: &mut Found) -> Marks {
    let mut marks = Marks::new();
    let mut sources: Vec<SourceName> = found.listed.iter().map(|(source, _)| source.clone()).collect();
    sources.dedup();
    let mut failed = Vec::new();
    for vault in &found.vaults {
        for source in &sources {
            match vault.marks(session.stack(), source).await {
                Ok(paths) => {
                    for (id, kind) in paths.iter().filter_map(|path| mark(path.as_str())) {
                        let kinds = marks.entry((source.clone(), id.to_owned())).or_default();
                        if !kinds.contains(&kind) {
                            kinds.push(kind);
                        }
                    }
                }
                Err(error) => {
                    failed.push((vault.name().to_owned(), CliError::from(error)));
                    break;
                }
            }
        }
    }
    found.silent.extend(failed);
    marks
}

/// `…/marks/<snapshot>.<mark>.json`: the snapshot and its mark.
fn mark(path: &str) -> Option<(&str, MarkKind)> {
    let (id, word) = path.rsplit('/').next()?.strip_suffix(".json")?.rsplit_once('.')?;
    let kinds = [MarkKind::Pin, MarkKind::Accept, MarkKind::Checked, MarkKind::Restored];
    kinds.into_iter().find(|kind| kind.word() == word).map(|kind| (id, kind))
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
        "state": state(kinds, one.vaults.len(), configured),
        "marks": kinds.iter().map(|kind| kind.word()).collect::<Vec<_>>(),
        "vaults": vaults(one),
    })
}

fn vaults(one: &Listed) -> Vec<&str> {
    one.vaults.iter().map(backup_core::vault::Vault::name).collect()
}

/// A table for each source: so the lines keep to 80 columns however long a source's name is.
fn text(found: &Found, marks: &Marks, configured: usize, now: DateTime<Utc>, timezone: Tz) -> String {
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
        blocks.push(format!("{source}: {}\n{}", words::count(all.len(), "snapshot"), table.render()));
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

    #[test]
    fn reads_marks_from_names_and_leaves_strangers_alone() {
        let path = "s/db/marks/20261121T020000Z-1r-abc234-suspect.restored.json";
        assert_eq!(mark(path), Some(("20261121T020000Z-1r-abc234-suspect", MarkKind::Restored)));
        for stranger in ["s/db/marks/x.odd.json", "s/db/marks/x.pin.json.sig", "s/db/marks/x.json", "x"] {
            assert_eq!(mark(stranger), None, "{stranger}");
        }
    }
}
