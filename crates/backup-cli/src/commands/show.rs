//! `backup show`: one snapshot. What everybody may know is read from its signed document; what only its operators may
//! know, from its manifest, and only with an identity.

use std::path::PathBuf;

use backup_core::catalogue::Listed;
use backup_core::id::{Hash256, SourceName};
use backup_core::manifest::{Kept, Manifest};
use backup_core::signature::Signers;
use backup_core::snapshot::OpenSnapshot;
use backup_core::vault::document::SnapshotDoc;
use backup_core::vault::layout::SnapshotId;
use backup_core::vault::{Signed, Vault};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::find::{self, Found};
use crate::session::{self, Session};
use crate::words;

/// So many older snapshots are read in search of the one before.
const CHAIN_READS: usize = 16;

/// Show one snapshot
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The snapshot's id, as `backup list` prints it, or the start of it
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// File with an identity, `-` for standard input: shows tables or paths as well
    #[arg(long, value_name = "FILE|-")]
    pub(crate) identity: Option<PathBuf>,
    /// File with the passphrase of a protected identity [default: asked at the terminal]
    #[arg(long, value_name = "FILE", requires = "identity")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// The snapshot before this one of the same source and signer.
#[derive(Debug, PartialEq, Eq)]
enum Chain {
    /// It is there and has the promised hash.
    Follows(SnapshotId),
    /// There is none, and none is older here.
    First,
    /// It is not in this vault (any more).
    Absent,
    /// It was imported: imports are no links.
    Imported,
    /// The snapshot claims to be the first, and an older one by its signer is there.
    Broken(SnapshotId),
}

impl Chain {
    fn word(&self) -> &'static str {
        match self {
            Self::Follows(_) => "follows",
            Self::First => "first",
            Self::Absent => "absent",
            Self::Imported => "imported",
            Self::Broken(_) => "broken",
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Follows(id) => format!("good, follows on {id}"),
            Self::First => "good, the first of its signer".to_owned(),
            Self::Absent => "its predecessor is not in this vault (pruned, or never copied)".to_owned(),
            Self::Imported => "no link of it: imported".to_owned(),
            Self::Broken(id) => format!("broken: does not follow on {id}"),
        }
    }
}

/// What a vault's inventory of the snapshot says.
struct Inventory {
    objects: u64,
    bytes: u64,
}

/// Prints it; exit 4 if a copy of it is damaged or its chain does not close.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    let signers = session.signers()?;
    let found = find::snapshots(&session, &[], None).await?;
    found.require_one()?;
    let mut exit = found.warn(&session);
    let (source, listed) = find::by_id(&found.listed, &args.id)?;

    let (vault, signed, inventory, worse) = read(&session, listed, &signers).await?;
    exit = exit.worse(worse);
    let chain = chain(&found, source, vault, &signed, &signers).await?;
    if matches!(chain, Chain::Broken(_)) {
        cx.printer.warn(
            &format!("the chain of `{source}` in vault `{}` is {}", vault.name(), chain.text()),
            "see what is damaged with `backup verify`",
        );
        exit = exit.worse(Exit::Damage);
    }
    let manifest = match &args.identity {
        Some(file) => {
            let identities = session::identities(Some(file), None, args.passphrase_file.as_deref())?;
            Some(OpenSnapshot::open(vault, &signed, &identities).await?.manifest().clone())
        }
        None => None,
    };
    let vaults: Vec<&str> = listed.vaults.iter().map(Vault::name).collect();
    let doc = &signed.doc;
    let mut value = json!({
        "snapshot": doc,
        "short": doc.id.short(),
        "document_sha256": signed.hash(),
        "signed_by": signed.by.fingerprint,
        "chain": chain.word(),
        "read_from": vault.name(),
        "vaults": vaults,
        "inventory": { "objects": inventory.objects, "stored_bytes": inventory.bytes },
        "age_seconds": (cx.clock.now() - doc.instant).num_seconds(),
    });
    if let Some(manifest) = &manifest {
        value["manifest"] = manifest_json(manifest);
    }
    cx.printer.result("show", value, || {
        let age = words::age(cx.clock.now() - doc.instant);
        let mut text = public(&signed, &chain, &inventory, vault.name(), &vaults, &age, session.config.timezone);
        if let Some(manifest) = &manifest {
            text.push_str(&private(manifest));
        }
        text
    })?;
    Ok(exit)
}

/// The document and inventory from the first vault whose copy is good; a bad copy is named.
async fn read<'a>(
    session: &Session<'_>,
    listed: &'a Listed,
    signers: &Signers,
) -> Result<(&'a Vault, Signed<SnapshotDoc>, Inventory, Exit), CliError> {
    let path = listed.dir.snapshot(&listed.id, ".json");
    let mut failed: Vec<CliError> = Vec::new();
    for vault in &listed.vaults {
        let attempt = async {
            let signed = vault.get_signed::<SnapshotDoc>(&path, signers).await?;
            let (lines, _) = vault.get_inventory(&signed.doc).await?;
            let bytes = lines.iter().map(|line| line.bytes).sum();
            Ok::<_, backup_core::vault::VaultError>((signed, Inventory { objects: lines.len() as u64, bytes }))
        };
        match attempt.await {
            Ok((signed, inventory)) => {
                let mut exit = Exit::Done;
                for error in &failed {
                    session.cx.printer.warn(error.message(), error.advice().unwrap_or("see `backup verify`"));
                    exit = exit.worse(if error.exit() == Exit::Damage { Exit::Damage } else { Exit::Partial });
                }
                return Ok((vault, signed, inventory, exit));
            }
            Err(error) => failed.push(error.into()),
        }
    }
    // Every copy is bad: the last is the error, the others are told.
    let last = failed.pop();
    for error in &failed {
        session.cx.printer.warn(error.message(), error.advice().unwrap_or("see `backup verify`"));
    }
    Err(last.unwrap_or_else(|| CliError::new(Exit::NoVault, format!("no vault has snapshot `{}`", listed.id))))
}

/// Looks for the snapshot before this one in the same vault.
async fn chain(
    found: &Found,
    source: &SourceName,
    vault: &Vault,
    signed: &Signed<SnapshotDoc>,
    signers: &Signers,
) -> Result<Chain, CliError> {
    if signed.doc.id.is_imported() {
        return Ok(Chain::Imported);
    }
    let here = |one: &&Listed| !one.id.is_imported() && one.vaults.iter().any(|other| other.name() == vault.name());
    let older = found.of(source).into_iter().filter(here).filter(|one| one.id < signed.doc.id).rev();
    let mut read: Vec<(SnapshotId, Hash256)> = Vec::new();
    for one in older.take(CHAIN_READS) {
        // One that cannot be believed is for `verify` to name; here it is merely not the one before.
        let path = one.dir.snapshot(&one.id, ".json");
        let Ok(other) = vault.get_signed::<SnapshotDoc>(&path, signers).await else { continue };
        if other.by != signed.by {
            continue;
        }
        read.push((one.id.clone(), other.hash()));
        if signed.doc.previous.is_none_or(|previous| previous == other.hash()) {
            break;
        }
    }
    Ok(link(signed.doc.previous, &read))
}

/// What `previous` means beside the older snapshots of the same signer, newest first.
fn link(previous: Option<Hash256>, older: &[(SnapshotId, Hash256)]) -> Chain {
    match (previous, older.first()) {
        (None, None) => Chain::First,
        (None, Some((id, _))) => Chain::Broken(id.clone()),
        (Some(previous), _) => match older.iter().find(|(_, hash)| *hash == previous) {
            Some((id, _)) => Chain::Follows(id.clone()),
            None => Chain::Absent,
        },
    }
}

fn public(
    signed: &Signed<SnapshotDoc>,
    chain: &Chain,
    inventory: &Inventory,
    read_from: &str,
    vaults: &[&str],
    age: &str,
    timezone: Tz,
) -> String {
    let doc = &signed.doc;
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("{name:<11} {value}"));
    line("snapshot", doc.id.to_string());
    line("source", format!("{} ({}) of stack {}", doc.source, doc.source_type, doc.stack));
    line("instant", format!("{}, {age} ago", words::local(doc.instant, timezone)));
    let took = words::age(doc.finished - doc.started);
    let made = if doc.id.is_imported() { "imported" } else { "captured" };
    line(made, format!("{}, took {took}, by run {}", words::local(doc.started, timezone), doc.run));
    if let Some(due) = doc.next_due {
        line("next due", words::local(due, timezone));
    }
    if doc.tables > 0 || doc.rows > 0 {
        line("tables", format!("{} with {} rows", doc.tables, doc.rows));
    }
    if doc.files > 0 {
        line("files", doc.files.to_string());
    }
    line("plain", words::bytes(doc.plain_bytes));
    line("stored", format!("{}, {} of it new", words::bytes(doc.stored_bytes), words::bytes(doc.added_bytes)));
    line("inventory", format!("good: {} objects, {}", inventory.objects, words::bytes(inventory.bytes)));
    if doc.secret {
        line("secret", "yes: restored readable for its owner only".to_owned());
    }
    if doc.suspect > 0 {
        let reasons = usize::try_from(doc.suspect).unwrap_or(usize::MAX);
        line("suspect", format!("{}; see them with `--identity`", words::count(reasons, "reason")));
    }
    line("generation", doc.generation.to_string());
    line("signature", format!("good, by {}", signed.by.fingerprint));
    line("chain", chain.text());
    line("document", format!("SHA-256 {}", signed.hash()));
    line("vaults", format!("{} (read from {read_from})", vaults.join(", ")));
    for (at, recipient) in doc.recipients.iter().enumerate() {
        line(if at == 0 { "recipients" } else { "" }, recipient.clone());
    }
    line("made by", doc.tool.clone());
    lines.join("\n") + "\n"
}

/// How a table's rows are kept, as the manifest says it.
fn kept(kept: Kept) -> &'static str {
    match kept {
        Kept::Streamed => "streamed",
        Kept::Archive => "archive",
        Kept::Excluded => "excluded",
    }
}

fn manifest_json(manifest: &Manifest) -> Value {
    let tables = manifest.tables.iter().map(|table| {
        json!({ "schema": table.schema, "name": table.name, "kept": kept(table.kept), "rows": table.rows, "plain_bytes": table.bytes })
    });
    let paths = manifest.streams.iter().flat_map(|stream| &stream.paths);
    json!({
        "imported": import(manifest).map(|(file, format)| json!({ "file": file, "format": format })),
        "suspect": manifest.suspect,
        "tables": tables.collect::<Vec<_>>(),
        "paths": paths.collect::<Vec<_>>(),
    })
}

/// File and format of an imported dump.
fn import(manifest: &Manifest) -> Option<(&str, &str)> {
    let import = manifest.property("import")?;
    Some((import.get("file")?.as_str()?, import.get("format")?.as_str()?))
}

/// For people what only the operators may know: reasons for suspicion, tables with rows, paths.
fn private(manifest: &Manifest) -> String {
    // No tables of ours: a name may hold blanks, and one that was wrapped or squeezed is another name.
    let imported =
        import(manifest).map(|(file, format)| format!("imported    from {}, a {format} dump", printable(file)));
    let suspect = manifest.suspect.iter().map(|reason| format!("suspect     {}", printable(reason)));
    let mut lines: Vec<String> = imported.into_iter().chain(suspect).collect();
    if !manifest.tables.is_empty() {
        lines.push("\nROWS          SIZE        KEPT      TABLE".to_owned());
        lines.extend(manifest.tables.iter().map(|entry| {
            let (size, name) = (words::bytes(entry.bytes), printable(&format!("{}.{}", entry.schema, entry.name)));
            format!("{:<12}  {size:<10}  {:<8}  {name}", entry.rows, kept(entry.kept))
        }));
    }
    let mut paths = manifest.streams.iter().flat_map(|stream| &stream.paths).peekable();
    if paths.peek().is_some() {
        lines.push("\nMODE  SIZE        PATH".to_owned());
        lines.extend(
            paths.map(|entry| {
                format!("{:<4}  {:<10}  {}", entry.mode, words::bytes(entry.bytes), printable(&entry.path))
            }),
        );
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

/// A name without control characters: a file's name must not move the terminal's cursor.
fn printable(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_closes_only_on_the_very_document() {
        let id = |n: u8| format!("2026112{n}T020000Z-1r-abc234").parse::<SnapshotId>().unwrap();
        let hash = |n: u8| Hash256([n; 32]);
        let older = [(id(3), hash(3)), (id(2), hash(2))];
        assert_eq!(link(Some(hash(3)), &older), Chain::Follows(id(3)));
        assert_eq!(link(Some(hash(2)), &older), Chain::Follows(id(2)));
        assert_eq!(link(Some(hash(9)), &older), Chain::Absent);
        assert_eq!(link(Some(hash(9)), &[]), Chain::Absent);
        assert_eq!(link(None, &[]), Chain::First);
        assert_eq!(link(None, &older), Chain::Broken(id(3)));
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(printable("a b/größe\u{1b}[2J\n"), "a b/größe\\u{1b}[2J\\n");
    }
}
