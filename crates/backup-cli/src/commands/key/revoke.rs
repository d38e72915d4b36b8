//! `backup key revoke`: a recipient whose identity leaked gets nothing any more, and what it opens is listed.
//!
//! What was stored for it stays readable for whoever has the identity and a copy, whatever is done here: this verb cannot
//! take that back, and says so. It names the recipient in `keys.revoked`, so that nothing is encrypted to it again, takes
//! it out of `keys.recipients`, so that the next run opens new generations, and removes the grants made to it.

use std::collections::BTreeSet;

use backup_core::grant::{self, Opens, Standing};
use backup_core::id::SourceName;
use backup_core::vault::Vault;
use serde_json::json;

use crate::context::Context;
use crate::edit;
use crate::error::CliError;
use crate::exit::Exit;
use crate::find;
use crate::session::Session;
use crate::table::Table;

/// Encrypt nothing to a leaked recipient any more, and list what it opens
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The recipient, age1…
    #[arg(value_name = "RECIPIENT")]
    recipient: String,
    /// List what it opens, and show what would be changed
    #[arg(long)]
    dry_run: bool,
}

/// What became of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Configured {
    Already,
    Written,
    WouldBe,
    ByHand,
}

struct Row {
    vault: String,
    opens: Opens,
    /// Its grant was removed.
    removed: bool,
}

/// Revokes. Exit 3 where a vault did not answer, or the configuration must be changed by hand.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    let recipient = super::recipient(&args.recipient)?;
    let signers = session.signers()?;
    // The configuration first: whatever happens to the vaults, nothing is encrypted to it from here on.
    let (configured, mut end) = configure(&session, recipient, args.dry_run)?;
    let (vaults, silent) = session.vaults(None, !args.dry_run).await?;
    let sources: BTreeSet<SourceName> = session.config.sources.iter().map(|source| source.name.clone()).collect();
    let found = find::in_vaults(vaults, silent, session.stack(), sources, &[]).await?;
    end = end.worse(found.warn(&session));
    let mut rows = Vec::new();
    for vault in &found.vaults {
        for source in &found.sources {
            let (opens, unknown) = match grant::opens(vault, &signers, (session.stack(), source), recipient).await {
                Ok(told) => told,
                Err(error) => {
                    end = end.worse(warn(cx, vault, &error.into()));
                    continue;
                }
            };
            for text in unknown {
                let text =
                    format!("vault `{}`, source `{source}`: it cannot be told whom this is for: {text}", vault.name());
                cx.printer.warn(&text, "see what is damaged with `backup verify`");
                end = end.worse(Exit::Partial);
            }
            for opens in opens {
                let granted = opens.by != Standing::Recipient;
                let mut removed = false;
                if granted && !args.dry_run {
                    match grant::remove(vault, &opens.dir, recipient).await {
                        Ok(there) => removed = there,
                        Err(error) => end = end.worse(warn(cx, vault, &error.into())),
                    }
                }
                rows.push(Row { vault: vault.name().to_owned(), opens, removed });
            }
        }
    }
    advise(cx, &session, configured, recipient, &rows);
    let listed = rows.iter().map(|row| {
        let id = &row.opens.dir.id;
        json!({
            "vault": row.vault, "source": row.opens.dir.source, "generation": id, "snapshots": row.opens.snapshots,
            "first_day": id.first_day(), "accepts_until": crate::words::utc(id.deadline()), "by": word(&row.opens.by),
            "grant_removed": row.removed,
        })
    });
    let value = json!({
        "recipient": recipient, "dry_run": args.dry_run, "configuration": configured_word(configured),
        "opens": listed.collect::<Vec<_>>(), "silent": found.silent_json(),
    });
    cx.printer.result("key revoke", value, || text(recipient, &rows, args.dry_run))?;
    Ok(end)
}

fn warn(cx: &Context, vault: &Vault, error: &CliError) -> Exit {
    let text = format!("vault `{}`: {}", vault.name(), error.message());
    cx.printer.warn(&text, error.advice().unwrap_or("repeat this when it answers"));
    error.as_part()
}

fn word(by: &Standing) -> &'static str {
    match by {
        Standing::Recipient => "recipient",
        Standing::Granted => "grant",
        Standing::Unsigned => "unsigned-grant",
        Standing::Closed { .. } => "closed",
    }
}

fn configured_word(configured: Configured) -> &'static str {
    match configured {
        Configured::Already => "already",
        Configured::Written => "written",
        Configured::WouldBe => "would-be-written",
        Configured::ByHand => "by-hand",
    }
}

/// Changes the configuration, or says what to change by hand.
fn configure(session: &Session<'_>, recipient: &str, dry_run: bool) -> Result<(Configured, Exit), CliError> {
    let (keys, file) = (&session.config.keys, &session.config.file);
    let listed = keys.recipients.iter().any(|one| one == recipient);
    if !listed && keys.revoked.iter().any(|one| one == recipient) {
        return Ok((Configured::Already, Exit::Done));
    }
    if listed && keys.recipients.len() == 1 {
        return Err(CliError::usage(
            "it is the only recipient in `keys.recipients`: without it nobody could read the backups",
        )
        .hint(
            "make an identity with `backup key new FILE`, add its recipient to `keys.recipients`, then revoke this one",
        ));
    }
    let failed = |error: &std::io::Error| {
        CliError::caused(Exit::Failed, format!("cannot change the configuration `{}`", file.display()), error)
            .hint("nothing was revoked; check the rights of this user")
    };
    let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
    match edit::revoke(&text, file, recipient) {
        None => Ok((Configured::ByHand, Exit::Partial)),
        Some(_) if dry_run => Ok((Configured::WouldBe, Exit::Done)),
        Some(text) => {
            edit::replace(file, &text).map(|()| (Configured::Written, Exit::Done)).map_err(|error| failed(&error))
        }
    }
}

/// What to do next.
fn advise(cx: &Context, session: &Session<'_>, configured: Configured, recipient: &str, rows: &[Row]) {
    let was_listed = session.config.keys.recipients.iter().any(|one| one == recipient);
    let file = session.config.file.display();
    match configured {
        Configured::Written => cx
            .printer
            .talk(&format!("changed `{file}`: {recipient} is in `keys.revoked`, and no longer in `keys.recipients`")),
        Configured::WouldBe => cx
            .printer
            .talk(&format!("would change `{file}`: {recipient} into `keys.revoked`, and out of `keys.recipients`")),
        Configured::Already => cx.printer.talk(&format!("`{file}` refuses it already")),
        Configured::ByHand => cx.printer.warn(
            &format!("`{file}` has a form that is not changed here: nothing refuses this recipient yet"),
            &format!("below `[keys]` write `revoked = [\"{recipient}\"]`, and take it out of `recipients`"),
        ),
    }
    // A generation is closed by its recipients: one that only a grant opened goes on.
    let next = if was_listed { "; the next run of each opens new generations" } else { "" };
    cx.printer.talk(&format!("do the same in the configuration of every other host of this stack{next}"));
    if !rows.is_empty() {
        cx.printer.warn(
            "what is listed stays readable with the leaked identity wherever a copy of it exists, also after the removal of grants",
            "change the passwords and secrets that are in it; `backup purge GENERATION` removes a generation from the vaults",
        );
    }
}

fn text(recipient: &str, rows: &[Row], dry_run: bool) -> String {
    if rows.is_empty() {
        return format!("{recipient} opens nothing in the vaults that answer\n");
    }
    let mut table = Table::new(&["VAULT", "SOURCE", "GENERATION", "SNAPSHOTS", "OPENED BY"]);
    for Row { vault, opens, removed } in rows {
        let by = match (&opens.by, removed) {
            (Standing::Recipient, _) => "its own key",
            (Standing::Closed { .. }, true) => "maybe a grant that is not believed, removed now",
            (Standing::Closed { .. }, false) => "maybe a grant that is not believed",
            (_, true) => "a grant, removed now",
            (_, false) if dry_run => "a grant, which would be removed",
            (_, false) => "a grant",
        };
        let (source, generation) = (opens.dir.source.to_string(), opens.dir.id.to_string());
        table.row(vec![vault.clone(), source, generation, opens.snapshots.to_string(), by.to_owned()]);
    }
    table.render()
}
