//! `backup replicate`.

mod pull;

use backup_core::id::SourceName;
use serde_json::{Value, json};

use crate::commands::silent;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::replication::{self, Lack, Lane};
use crate::session::Session;
use crate::table::Table;
use crate::words;

/// Copy snapshots into the vaults that lack them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only into this vault
    #[arg(long, value_name = "NAME")]
    pub(crate) vault: Option<String>,
    /// Pull from this vault, which is only read: a name or an address
    #[arg(long, value_name = "NAME|URL", requires = "to", conflicts_with = "vault")]
    pub(crate) from: Option<String>,
    /// Pull into this vault of this machine: a name or an address
    #[arg(long, value_name = "NAME|URL", requires = "from")]
    pub(crate) to: Option<String>,
    /// With --from: only this stack; otherwise the configuration's, or all
    #[arg(long, value_name = "STACK", requires = "from")]
    pub(crate) stack: Option<backup_core::id::StackName>,
    /// With --from: whose signatures are believed, instead of `keys.signers`; again for each further one
    #[arg(long, value_name = "SHA256:…", requires = "from", value_parser = super::restore::signer)]
    pub(crate) signer: Vec<String>,
    /// Only these sources
    #[arg(long, value_name = "S")]
    pub(crate) source: Vec<SourceName>,
    /// Show what would be copied
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Copies; exit 3 when a vault did not answer, 4 when something to be copied was damaged.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    if let (Some(from), Some(to)) = (&args.from, &args.to) {
        return pull::run(cx, args, from, to).await;
    }
    let session = Session::open(cx)?;
    let sources = replication::names(&session.sources(&args.source)?);
    let signers = session.signers()?;
    // Refuses a name that is not configured; snapshots come from all vaults, whatever the destination.
    session.check_vault(args.vault.as_deref())?;
    let (vaults, quiet) = session.vaults(None, !args.dry_run).await?;
    let end = silent::report(cx, &vaults, &quiet)?;
    let work = replication::survey(&session, &vaults, &signers, &sources, args.vault.as_deref()).await;
    let unwanted = work.expiring;
    let listed_quiet = silent::to_json(&quiet);
    if args.dry_run {
        let end = work.errors().fold(end, |end, (.., error)| end.worse(error.as_part()));
        for (vault, source, error) in work.errors() {
            let text = format!("vault `{vault}`, source `{source}`: {}", error.message());
            cx.printer.warn(&text, error.advice().unwrap_or_default());
        }
        let lacks: Vec<&Lack> = work.lacks.iter().filter(|lack| lack.wanted).collect();
        let listed: Vec<Value> = lacks.iter().map(|lack| lack_json(lack)).collect();
        let value = json!({ "dry_run": true, "lacking": listed, "not_wanted": unwanted, "silent": listed_quiet });
        cx.printer.result("replicate", value, || lacks_text(&lacks, unwanted, quiet.is_empty()))?;
        return Ok(end);
    }
    let lanes = replication::copy(&session, &vaults, &signers, work).await;
    for error in lanes.iter().flat_map(|lane| &lane.errors) {
        cx.printer.warn(error.message(), error.advice().unwrap_or_default());
    }
    let listed: Vec<Value> = lanes.iter().map(Lane::to_json).collect();
    let value = json!({ "dry_run": false, "lanes": listed, "not_wanted": unwanted, "silent": listed_quiet });
    let all = quiet.is_empty();
    cx.printer.result("replicate", value, || lanes_text(&lanes, unwanted, all))?;
    Ok(end.worse(replication::exit(&lanes)))
}

fn lack_json(lack: &Lack) -> Value {
    let from: Vec<&str> = lack.listed.vaults.iter().map(backup_core::vault::Vault::name).collect();
    json!({ "to": lack.to.name(), "from": from, "source": lack.source, "snapshot": lack.listed.id })
}

fn lacks_text(lacks: &[&Lack], unwanted: usize, all: bool) -> String {
    if lacks.is_empty() {
        return nothing(unwanted, all);
    }
    let mut table = Table::new(&["SNAPSHOT", "SOURCE", "INTO", "FROM"]);
    for lack in lacks {
        let from: Vec<&str> = lack.listed.vaults.iter().map(backup_core::vault::Vault::name).collect();
        let cells = [lack.listed.id.to_string(), lack.source.to_string(), lack.to.name().to_owned(), from.join(", ")];
        table.row(cells.to_vec());
    }
    format!("{}\nwould copy {} snapshots{}\n", table.render(), lacks.len(), unwanted_text(unwanted))
}

/// `all`: every vault answered. What is listed at its destination was not read: `verify` tells whether it is good.
fn lanes_text(lanes: &[Lane], unwanted: usize, all: bool) -> String {
    let copied: usize = lanes.iter().map(|lane| lane.snapshots.len()).sum();
    let failed = lanes.iter().any(|lane| !lane.errors.is_empty());
    if lanes.iter().all(|lane| lane.snapshots.is_empty() && lane.errors.is_empty()) {
        return nothing(unwanted, all);
    }
    let mut table = Table::new(&["SOURCE", "FROM", "INTO", "COPIED", "SIZE", "RESULT"]);
    for lane in lanes {
        let result = match lane.errors.len() {
            0 => "replicated".to_owned(),
            number => format!("{number} failed, named above"),
        };
        table.row(vec![
            lane.source.to_string(),
            lane.from.clone(),
            // What a vault shows by itself is on the way to none.
            if lane.to == lane.from { "-".to_owned() } else { lane.to.clone() },
            lane.snapshots.len().to_string(),
            words::bytes(lane.bytes),
            result,
        ]);
    }
    let end = match (failed, all) {
        (true, _) => "not everything was copied",
        (false, true) => "every vault lists what its policy keeps",
        (false, false) => "every vault that answered lists what its policy keeps",
    };
    format!("{}\ncopied {copied} snapshots{}; {end}\n", table.render(), unwanted_text(unwanted))
}

/// `all`: every vault answered. What one that did not answer lacks, nobody knows.
fn nothing(unwanted: usize, all: bool) -> String {
    let among = if all { "" } else { " between the vaults that answer; what the others lack is not known" };
    format!("nothing to copy{among}{}\n", unwanted_text(unwanted))
}

fn unwanted_text(unwanted: usize) -> String {
    if unwanted == 0 { String::new() } else { format!("; left out {unwanted} that `keep` would expire at once") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_failed_and_fits_the_line() {
        let lane = |errors| Lane {
            from: "local".into(),
            to: "offsite".into(),
            source: "trading-db".parse().unwrap(),
            snapshots: vec!["20260101T000000Z-1r-abcdef".parse().unwrap()],
            objects: 3,
            bytes: 2048,
            errors,
        };
        let good = lanes_text(&[lane(vec![])], 0, true);
        assert!(good.contains("copied 1 snapshots; every vault lists") && good.contains("2.0 KiB"), "{good}");
        let bad = lanes_text(&[lane(vec![CliError::new(Exit::Damage, "x")])], 2, true);
        assert!(bad.contains("1 failed") && bad.contains("left out 2") && bad.contains("not everything"), "{bad}");
        assert!(bad.lines().all(|line| line.chars().count() <= 100), "{bad}");
        assert!(lanes_text(&[lane(vec![])], 0, false).contains("; every vault that answered lists"));
        assert_eq!(lanes_text(&[], 0, true), "nothing to copy\n");
        for text in [lanes_text(&[], 0, false), lacks_text(&[], 0, false)] {
            assert!(text.starts_with("nothing to copy between the vaults that answer; "), "{text}");
        }
    }
}
