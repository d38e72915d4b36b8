//! What goes wrong with a vault: each variant names the file and the vault, and keeps the store's or the parser's own reason.
//!
//! An error tells apart what is missing, what is damaged and what nobody believes, because a reader that meets damage goes
//! on to another vault, and one that meets a failing store must not call that damage. It never holds a body or a key.

use super::inventory::InventoryError;
use super::store::StoreError;
use crate::id::VaultId;
use crate::json::JsonError;
use crate::signature::SignatureError;

/// Why a vault cannot be used, or what is wrong in it.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The store failed.
    #[error("vault `{vault}`")]
    Store {
        /// The vault's name in the configuration, or its address.
        vault: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// There is no vault at that place.
    #[error("there is no vault in {store}")]
    NoVault {
        /// The place.
        store: String,
    },
    /// Another vault lies there than the configuration pins.
    #[error("{store} holds the vault {found}, and the configuration pins {pinned}")]
    OtherVault {
        /// The place.
        store: String,
        /// Its id.
        found: VaultId,
        /// The id in the configuration.
        pinned: VaultId,
    },
    /// A vault is there already.
    #[error("{store} already holds the vault {found}")]
    Occupied {
        /// The place.
        store: String,
        /// Its id.
        found: VaultId,
    },
    /// A document is damaged or of a newer format.
    #[error("`{path}` in vault `{vault}` cannot be used")]
    Document {
        /// Its path.
        path: String,
        /// The vault.
        vault: String,
        /// Why.
        #[source]
        source: JsonError,
    },
    /// A document that something else names is missing.
    #[error("`{path}` is missing in vault `{vault}`")]
    MissingDocument {
        /// Its path.
        path: String,
        /// The vault.
        vault: String,
    },
    /// A signature is missing, foreign or does not match.
    #[error("`{path}` in vault `{vault}` is not believed")]
    Signature {
        /// Path of the document.
        path: String,
        /// The vault.
        vault: String,
        /// Why.
        #[source]
        source: SignatureError,
    },
    /// A document lies at another path than it says itself: it was moved or swapped.
    #[error("`{path}` in vault `{vault}` says that it belongs at `{says}`")]
    Misplaced {
        /// Where it lies.
        path: String,
        /// The vault.
        vault: String,
        /// Where it says that it belongs.
        says: String,
    },
    /// Stored bytes are not those that were promised.
    #[error("`{path}` in vault `{vault}` is damaged: {reason}")]
    Damaged {
        /// Its path.
        path: String,
        /// The vault.
        vault: String,
        /// What was found.
        reason: String,
    },
    /// An inventory cannot be understood.
    #[error("`{path}` in vault `{vault}`")]
    Inventory {
        /// Its path.
        path: String,
        /// The vault.
        vault: String,
        /// Why.
        #[source]
        source: InventoryError,
    },
    /// A document could not be signed.
    #[error("`{path}` could not be signed")]
    Sign {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: SignatureError,
    },
}
