//! What a place must do before a vault is made there or joined, and in which words `init` and `doctor` tell it.
//!
//! Found out by trying: nothing may rest on what an endpoint only says. Refused is what no run could live with (a listing that
//! does not show what was stored, a lock that was asked for and does not hold, a clock over an hour apart), and before
//! anything is made, so that nobody finds out in the first night. The rest is `doctor`'s to tell, in full.

use backup_core::config::{Place, Vault};
use backup_core::vault::store::Store as _;
use chrono::TimeDelta;

use crate::error::CliError;
use crate::exit::Exit;
use crate::locks;
use crate::session::Session;

/// Said of an endpoint whose listings lag.
pub(crate) const UNLISTED: &str = "a listing does not show what was just stored: no run can prove there what it stored";
/// What to do about it.
pub(crate) const UNLISTED_HINT: &str = "use another endpoint, or one that lists consistently";
/// What to do about clocks.
pub(crate) const CLOCK_HINT: &str = "set both clocks by a time server";

/// How two clocks stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clocks {
    /// Within five minutes.
    Agree,
    /// Worth a look.
    Apart,
    /// Over an hour: runs stop before they begin, and nothing expires.
    TooFar,
}

/// Judges a store's clock that is so far `ahead` of this host's, and says it.
pub(crate) fn clocks(ahead: TimeDelta) -> (Clocks, String) {
    let apart = ahead.abs();
    let side = if ahead > TimeDelta::zero() { "ahead of" } else { "behind" };
    let text = format!("its clock is {}s {side} ours", apart.num_seconds());
    if apart > TimeDelta::hours(1) {
        (Clocks::TooFar, format!("{text}: no run would begin, and nothing would expire"))
    } else if apart > TimeDelta::minutes(5) {
        (Clocks::Apart, text)
    } else if apart < TimeDelta::seconds(2) {
        (Clocks::Agree, "its clock agrees with ours".to_owned())
    } else {
        (Clocks::Agree, text)
    }
}

/// Tries the place of a vault that is about to be made, or, without `making`, joined: then a directory is not asked for its
/// clock, because that takes a file, and who joins may have come only to read.
pub(crate) async fn require(session: &Session<'_>, vault: &Vault, making: bool) -> Result<(), CliError> {
    let refused = |text: &str, hint: &str| {
        CliError::new(Exit::Failed, format!("vault `{}`: {text}", vault.name)).hint(hint.to_owned())
    };
    let now = match &vault.place {
        Place::Path(_) if !making => return Ok(()),
        Place::Path(_) => session.store(vault, true).await?.now().await?,
        Place::S3(s3) => {
            let store = session.s3(&vault.name, s3).await?;
            let versioning = store.probe().await?.versioning;
            let shield = store.shield(&versioning, locks::mode(vault)).await?;
            locks::check(vault, shield.lock.as_ref())?;
            if !shield.listed_after_write {
                return Err(refused(UNLISTED, UNLISTED_HINT));
            }
            store.now().await?
        }
    };
    match clocks(now - session.cx.clock.now()) {
        (Clocks::TooFar, text) => Err(refused(&text, CLOCK_HINT)),
        (Clocks::Apart, text) => {
            session.cx.printer.warn(&format!("vault `{}`: {text}", vault.name), CLOCK_HINT);
            Ok(())
        }
        (Clocks::Agree, _) => Ok(()),
    }
}
