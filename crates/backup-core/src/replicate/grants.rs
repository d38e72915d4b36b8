//! Grants are made after a generation was copied: a vault that has the generation should have them too.
//!
//! Only what a pinned signer signed travels. One that nobody signed stays where the operator put it: whoever can write into
//! one vault must not fill the others through us.

use std::sync::Arc;

use super::ReplicateError;
use super::marks::is_away;
use crate::grant::{self, Judged};
use crate::id::{SourceName, StackName};
use crate::monitor::{Event, Monitor};
use crate::prune::notice;
use crate::signature::Signers;
use crate::vault::{Vault, VaultError};
use crate::verify::chain_text;
use crate::words::plain;

/// Puts into `to` the grants that it lacks of generations that both have, but none for a recipient that is `revoked`: a vault
/// that was away when it was revoked still has those. Gives how many were put, and what failed.
pub async fn replicate_grants(
    (from, to): (&Vault, &Vault),
    signers: &Signers,
    (stack, source): (&StackName, &SourceName),
    revoked: &[String],
    monitor: &Arc<dyn Monitor>,
) -> (u64, Vec<ReplicateError>) {
    let (mut put, mut errors) = (0, Vec::new());
    if let Err(error) = copy((from, to), signers, (stack, source), (revoked, monitor), &mut put, &mut errors).await {
        errors.push(ReplicateError::Vault(error));
    }
    (put, errors)
}

async fn copy(
    (from, to): (&Vault, &Vault),
    signers: &Signers,
    (stack, source): (&StackName, &SourceName),
    (revoked, monitor): (&[String], &Arc<dyn Monitor>),
    put: &mut u64,
    errors: &mut Vec<ReplicateError>,
) -> Result<(), VaultError> {
    let there = to.generations(stack, source).await?;
    for dir in from.generations(stack, source).await? {
        if !there.contains(&dir) {
            continue;
        }
        for path in grant::paths(from, &dir).await? {
            let Judged::Signed(given) = grant::judge(from, signers, &path, None).await? else { continue };
            if revoked.contains(&given.doc.recipient) {
                let (recipient, from) = (&given.doc.recipient, from.name());
                let text = format!(
                    "vault `{from}` still has a grant for {recipient}, which is revoked: it is not copied; \
                     `backup key revoke {recipient}` removes it there"
                );
                monitor.event(Event::Warning { text });
                continue;
            }
            let replaced = match grant::judge(to, signers, &path, None).await? {
                Judged::Signed(_) => continue,
                Judged::None => None,
                Judged::Unsigned(_) => Some("nobody signed it".to_owned()),
                Judged::Refused(error) => Some(plain(&chain_text(&error))),
            };
            // What is being deleted would be begun anew by it.
            if notice::standing(to, signers, &dir).await?.pruned {
                break;
            }
            match to.put_verbatim(&*given).await {
                Ok(()) => {
                    *put += 1;
                    if let Some(why) = replaced {
                        let text = format!("foreign or unsigned grant `{path}`, replaced by a signed one: {why}");
                        monitor.event(Event::Warning { text });
                    }
                }
                Err(source) => {
                    let over = is_away(&source);
                    errors.push(ReplicateError::Grant { path: path.to_string(), to: to.name().to_owned(), source });
                    if over {
                        return Ok(());
                    }
                }
            }
        }
    }
    Ok(())
}
