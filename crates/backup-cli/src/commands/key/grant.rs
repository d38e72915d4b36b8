//! `backup key grant`: lets a new operator open what was stored before.
//!
//! An operator's identity opens the key of each generation, and the key is wrapped once more, for the recipient on the
//! command line and for nobody else. No object and no signed document is touched.

use std::path::PathBuf;

use backup_core::grant::{self, Locked, Put, Standing};
use backup_core::id::SourceName;
use backup_core::seal::key::Identities;
use backup_core::signature::{HostKey, Signers};
use backup_core::vault::Vault;
use backup_core::vault::document::GrantDoc;
use backup_core::vault::layout::GenerationDir;
use serde_json::json;

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::find;
use crate::session::{self, Session, TOOL};
use crate::table::Table;

/// Let one more recipient open the generations that are there
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The recipient, age1…, as `backup key new` prints it
    #[arg(value_name = "RECIPIENT")]
    recipient: String,
    /// File with an identity that opens them now, `-` for standard input [default: `keys.identity`]
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// File with the passphrase of a protected identity [default: asked at the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Only these sources
    #[arg(long, value_name = "S")]
    source: Vec<SourceName>,
    /// Only this vault
    #[arg(long, value_name = "NAME")]
    vault: Option<String>,
    /// Open the keys, and show what would be granted
    #[arg(long)]
    dry_run: bool,
}

/// What became of one generation in one vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Recipient,
    Already,
    Made,
    TooLate,
    NotBelieved,
    Failed,
}

impl Done {
    fn text(self, dry: bool) -> &'static str {
        match (self, dry) {
            (Self::Recipient, _) => "is one of its recipients",
            (Self::Already, _) => "is granted already",
            (Self::Made, false) => "granted",
            (Self::Made, true) => "would be granted",
            (Self::TooLate, _) => "is being deleted",
            (Self::NotBelieved, _) => "was put, and is not believed",
            (Self::Failed, _) => "not granted: see above",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Recipient => "recipient",
            Self::Already => "already",
            Self::Made => "made",
            Self::TooLate => "deleting",
            Self::NotBelieved => "not-believed",
            Self::Failed => "failed",
        }
    }
}

struct Row {
    vault: String,
    dir: GenerationDir,
    done: Done,
}

/// Grants. Exit 12 where the identity opens nothing that is not granted already; 3 where a part could not be.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    let recipient = super::recipient(&args.recipient)?;
    session.config.refuse_revoked()?;
    if session.config.keys.revoked.iter().any(|revoked| revoked == recipient) {
        return Err(CliError::usage(format!("{recipient} is revoked by `keys.revoked`"))
            .hint("grant to a new identity: `backup key new FILE` makes one"));
    }
    let signers = session.signers()?;
    let key = session.config.keys.host_key.as_ref().map(|_| session.host_key()).transpose()?;
    let configured = session.config.keys.identity.as_ref();
    let identities = session::identities(args.identity.as_deref(), configured, args.passphrase_file.as_deref())?;
    let (vaults, silent) = session.vaults(args.vault.as_deref(), !args.dry_run).await?;
    let sources = session.config.sources.iter().map(|source| source.name.clone()).collect();
    let found = find::in_vaults(vaults, silent, session.stack(), sources, &args.source).await?;
    found.require_one()?;
    let mut end = found.warn(&session);
    let mut work = Work {
        session: &session,
        signers: &signers,
        identities: &identities,
        key: key.as_ref(),
        recipient,
        dry_run: args.dry_run,
        rows: Vec::new(),
        errors: Vec::new(),
    };
    for source in &found.sources {
        work.source(&found.vaults, source).await;
    }
    let Work { rows, errors, .. } = work;
    let made = rows.iter().filter(|row| row.done == Done::Made).count();
    if made == 0
        && let Some(error) = errors.iter().find(|error| error.exit() == Exit::WrongKey)
    {
        return Err(error.clone());
    }
    for error in &errors {
        cx.printer.warn(error.message(), error.advice().unwrap_or("repeat this when it is mended"));
        end = end.worse(error.as_part());
    }
    if made > 0 && key.is_none() {
        cx.printer.warn(
            "no key signs here, so the grants are unsigned: they open, `verify` names them, and `replicate` leaves them",
            "grant again where a vault was not reached; or name a key in `keys.host_key` that is pinned for `backup.grant.*`",
        );
    }
    if !session.config.keys.recipients.iter().any(|known| known == recipient) {
        cx.printer.talk("what is stored from now on is not for this recipient: add it to `keys.recipients` for that");
    }
    let listed = rows.iter().map(|row| {
        json!({ "vault": row.vault, "source": row.dir.source, "generation": row.dir.id, "done": row.done.word() })
    });
    let value = json!({
        "recipient": recipient, "dry_run": args.dry_run, "signed": key.is_some(), "made": made,
        "generations": listed.collect::<Vec<_>>(), "silent": found.silent_json(),
        "errors": errors.iter().map(CliError::to_json).collect::<Vec<_>>(),
    });
    cx.printer.result("key grant", value, || {
        if rows.is_empty() {
            return "no generation is there to be granted\n".to_owned();
        }
        let mut table = Table::new(&["VAULT", "SOURCE", "GENERATION", recipient]);
        for row in &rows {
            let (source, generation) = (row.dir.source.to_string(), row.dir.id.to_string());
            table.row(vec![row.vault.clone(), source, generation, row.done.text(args.dry_run).to_owned()]);
        }
        table.render()
    })?;
    Ok(end)
}

/// What stays the same for all generations, and what was done so far.
struct Work<'a> {
    session: &'a Session<'a>,
    signers: &'a Signers,
    identities: &'a Identities,
    key: Option<&'a HostKey>,
    recipient: &'a str,
    dry_run: bool,
    rows: Vec<Row>,
    errors: Vec<CliError>,
}

impl Work<'_> {
    /// Every generation of a source, in all vaults that have it. Its key is unwrapped once and the same document goes into
    /// each of them: identities may ask for a passphrase or a touch.
    async fn source(&mut self, vaults: &[Vault], source: &SourceName) {
        let mut all: Vec<(GenerationDir, Vec<&Vault>)> = Vec::new();
        for vault in vaults {
            match vault.generations(self.session.stack(), source).await {
                Ok(dirs) => {
                    for dir in dirs {
                        match all.iter_mut().find(|(known, _)| *known == dir) {
                            Some((_, has)) => has.push(vault),
                            None => all.push((dir, vec![vault])),
                        }
                    }
                }
                Err(error) => self.errors.push(CliError::from(error).about(format!("vault `{}`", vault.name()))),
            }
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        for (dir, has) in all {
            let mut made: Option<GrantDoc> = None;
            for vault in has {
                let done = match self.one(vault, &dir, &mut made).await {
                    Ok(done) => done,
                    Err(error) => {
                        let what = format!("generation `{}` of `{}` in vault `{}`", dir.id, dir.source, vault.name());
                        self.errors.push(error.about(what));
                        Done::Failed
                    }
                };
                self.rows.push(Row { vault: vault.name().to_owned(), dir: dir.clone(), done });
            }
        }
    }

    async fn one(&mut self, vault: &Vault, dir: &GenerationDir, made: &mut Option<GrantDoc>) -> Result<Done, CliError> {
        let locked = grant::locked(vault, self.signers, dir).await?;
        match grant::standing(vault, self.signers, &locked, self.recipient).await? {
            Standing::Recipient => return Ok(Done::Recipient),
            Standing::Granted => return Ok(Done::Already),
            // One that nobody signed may hold anything: ours takes its place.
            Standing::Unsigned => {}
            Standing::Closed { foreign } => {
                if let Some(why) = foreign {
                    let text =
                        format!("vault `{}`: what lies in the grant's place is not believed: {why}", vault.name());
                    self.session.cx.printer.warn(&text, "it is replaced");
                }
            }
        }
        let doc = match made.take().filter(|doc| doc.public_key == locked.public_key) {
            Some(doc) => doc,
            None => self.document(vault, &locked).await?,
        };
        let doc = made.insert(doc);
        if self.dry_run {
            return Ok(Done::Made);
        }
        Ok(match grant::put(vault, self.signers, self.key, doc).await? {
            Put::Made => Done::Made,
            Put::TooLate => Done::TooLate,
            Put::NotBelieved => {
                let text = format!("vault `{}`: `{}` was put, and is not believed", vault.name(), dir.id);
                self.errors.push(
                    CliError::new(Exit::Failed, text)
                        .hint("see in `keys.signers` whether this host's key may sign now"),
                );
                Done::NotBelieved
            }
        })
    }

    async fn document(&self, vault: &Vault, locked: &Locked) -> Result<GrantDoc, CliError> {
        let opener = grant::unlock(vault, locked, self.identities).await?;
        let now = self.session.cx.clock.now();
        Ok(grant::document(&opener, locked, self.recipient, (now, TOOL), self.key)?)
    }
}
