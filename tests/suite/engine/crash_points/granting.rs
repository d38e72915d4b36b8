//! Granting and taking back that die: no signed document changes, and what lies where a grant belongs is believed or is not
//! there. Half a grant would be told as a stranger's, and would keep the real one from being seen.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use age::secrecy::ExposeSecret;
use backup_core::grant::{self, Judged, Put, Standing};
use backup_core::replicate::replicate_grants;
use backup_core::seal::key::Identities;
use bytes::Bytes;

use super::super::site::Site;

/// A new operator: the same one in every copy of a site.
static OPERATOR: LazyLock<age::x25519::Identity> = LazyLock::new(age::x25519::Identity::generate);

fn operator() -> (String, Identities) {
    let file = OPERATOR.to_string();
    (OPERATOR.to_public().to_string(), Identities::parse(file.expose_secret().as_bytes(), None).unwrap())
}

fn text(error: &dyn std::error::Error) -> String {
    backup_core::verify::chain_text(error)
}

/// `key grant`: every generation of a vault that the operator does not open yet.
pub(super) async fn grant(site: &Site, vault: usize) -> Result<(), String> {
    let (recipient, _) = operator();
    let (vault, signers, key) = (&site.places[vault].vault, &site.signers, &site.sides[0].key);
    let dirs = vault.generations(&site.request.stack, &site.request.source).await.map_err(|e| text(&e))?;
    for dir in dirs {
        let locked = grant::locked(vault, signers, &dir).await.map_err(|e| text(&e))?;
        let standing = grant::standing(vault, signers, &locked, &recipient).await.map_err(|e| text(&e))?;
        if standing == Standing::Granted {
            continue;
        }
        let opener = grant::unlock(vault, &locked, site.identities()).await.map_err(|e| text(&e))?;
        let made = (site.clock.now(), "backup 0");
        let doc = grant::document(&opener, &locked, &recipient, made, Some(key)).map_err(|e| text(&e))?;
        let put = grant::put(vault, signers, Some(key), &doc).await.map_err(|e| text(&e))?;
        if put != Put::Made {
            return Err(format!("{dir:?}: {put:?}"));
        }
    }
    Ok(())
}

/// What `key revoke` does in a vault.
pub(super) async fn revoke(site: &Site, vault: usize) -> Result<(), String> {
    let vault = &site.places[vault].vault;
    for dir in vault.generations(&site.request.stack, &site.request.source).await.map_err(|e| text(&e))? {
        grant::remove(vault, &dir, &operator().0).await.map_err(|e| text(&e))?;
    }
    Ok(())
}

/// Grants that the first vault has and the second has not.
pub(super) async fn copy(site: &Site) -> Result<(), String> {
    let (from, to, of) = (&site.places[0].vault, &site.places[1].vault, (&site.request.stack, &site.request.source));
    let (_, errors) = replicate_grants((from, to), &site.signers, of, &[], &Site::monitor()).await;
    errors.first().map_or(Ok(()), |error| Err(text(error)))
}

/// What holds at any instant. `before`: everything in the vault.
pub(super) async fn musts(site: &Site, vault: usize, before: &BTreeMap<String, Bytes>) {
    let now = site.content(vault).await;
    let (mut before, mut rest) = (before.clone(), now);
    for all in [&mut before, &mut rest] {
        all.retain(|path, _| !path.contains("/grants/"));
    }
    assert!(rest == before, "something else than grants has changed");
    let (recipient, identities) = operator();
    for at in site.listed(vault).await {
        let path = at.0.grant(&recipient);
        let judged = grant::judge(&site.places[vault].vault, &site.signers, &path, None).await.unwrap();
        let opened = site.read_by(vault, &at, &identities).await;
        match judged {
            Judged::Signed(_) => assert!(opened.is_ok(), "{opened:?}"),
            // Somebody else's key opens nothing on the word of a half written document.
            Judged::None => assert!(opened.is_err(), "{at:?} is open without a grant"),
            Judged::Unsigned(_) | Judged::Refused(_) => panic!("half a grant at {path}: {judged:?}"),
        }
    }
}

/// The next call ended it: all generations are open, or none is.
pub(super) async fn ended(site: &Site, vault: usize, open: bool) {
    for at in site.listed(vault).await {
        assert_eq!(site.read_by(vault, &at, &operator().1).await.is_ok(), open, "{at:?}");
    }
    let left = site.content(vault).await.into_keys().filter(|path| path.contains("/grants/")).count();
    assert_eq!(left > 0, open, "{left} files of grants are left");
}
