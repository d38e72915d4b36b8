//! Grants of a generation: is each of them what it says, and with identities, does it hold the generation's key?

use super::{Verified, chain_text};
use crate::grant::{self, Judged};
use crate::prune::notice;
use crate::seal::key::Identities;
use crate::signature::Signers;
use crate::vault::document::GrantDoc;
use crate::vault::layout::GenerationDir;
use crate::vault::{Vault, VaultError};
use crate::words::plain;

/// Judges every grant of a generation. Errors: only a store that fails.
pub(super) async fn look(
    vault: &Vault,
    signers: &Signers,
    dir: &GenerationDir,
    identities: Option<&Identities>,
    verified: &mut Verified,
) -> Result<(), VaultError> {
    let paths = grant::paths(vault, dir).await?;
    if paths.is_empty() {
        return Ok(());
    }
    // Where nothing says which key it should be, what is wrong is told already.
    let locked = match grant::locked(vault, signers, dir).await {
        Ok(locked) => Some(locked),
        Err(error) if notice::is_foreign(vault, &error).await => None,
        Err(error) => return Err(error),
    };
    let public_key = locked.as_ref().map(|locked| locked.public_key.as_str());
    for path in paths {
        let doc = match grant::judge(vault, signers, &path, public_key).await? {
            Judged::None => continue,
            Judged::Refused(error) => {
                verified.document::<GrantDoc>(vault, Err(error), None).await?;
                continue;
            }
            Judged::Signed(signed) => {
                let doc = signed.doc.clone();
                verified.document::<GrantDoc>(vault, Ok(*signed), None).await?;
                doc
            }
            Judged::Unsigned(doc) => {
                let text = format!("`{path}` in vault `{}`, for {}", vault.name(), plain(&doc.recipient));
                verified.unsigned.push(text);
                *doc
            }
        };
        let (Some(identities), Some(public_key)) = (identities, public_key) else { continue };
        if !identities.recipients().contains(&doc.recipient) {
            continue;
        }
        let recipients = std::slice::from_ref(&doc.recipient);
        if let Err(error) = identities.unwrap_key(&doc.wrapped_key, public_key, recipients) {
            let text = format!("`{path}` in vault `{}` does not hold the key: {}", vault.name(), chain_text(&error));
            verified.unbelieved.push(plain(&text));
        }
    }
    Ok(())
}
