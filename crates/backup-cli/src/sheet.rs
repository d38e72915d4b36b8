//! The recovery sheet: what to print and keep off the host, so that a bare machine is enough.

use backup_core::config::Config;
use backup_core::id::Hash256;
use backup_core::recover::RECOVER;
use backup_core::signature::HostKey;
use serde_json::{Value, json};

use crate::address::Address;

/// What the sheet says.
pub(crate) struct Sheet {
    stack: String,
    signer_line: String,
    fingerprint: String,
    recipients: Vec<String>,
    vaults: Vec<(String, String, String)>,
}

impl Sheet {
    /// From a configuration whose vaults are made.
    pub(crate) fn new(config: &Config, key: &HostKey) -> Self {
        let vault = |vault: &backup_core::config::Vault| {
            let id = vault.id.as_ref().map_or_else(|| "not made yet".to_owned(), ToString::to_string);
            (vault.name.clone(), Address::of(&vault.place).to_string(), id)
        };
        Self {
            stack: config.stack.to_string(),
            signer_line: key.allowed_signers_line(),
            fingerprint: key.fingerprint(),
            recipients: config.keys.recipients.clone(),
            vaults: config.vaults.iter().map(vault).collect(),
        }
    }

    fn command(&self, address: &str) -> String {
        format!(
            "backup restore --latest --vault '{address}' \\\n    --stack {} --signer {} \\\n    --identity FILE",
            self.stack, self.fingerprint
        )
    }

    /// For programs.
    pub(crate) fn to_json(&self) -> Value {
        let vaults: Vec<Value> = self
            .vaults
            .iter()
            .map(|(name, address, id)| {
                json!({ "name": name, "address": address, "id": id, "command": self.command(address).replace(" \\\n   ", "") })
            })
            .collect();
        json!({
            "stack": self.stack,
            "signer": self.fingerprint,
            "signer_line": self.signer_line,
            "recipients": self.recipients,
            "recover_sha256": Hash256::of(RECOVER.as_bytes()),
            "vaults": vaults,
        })
    }

    /// For paper.
    pub(crate) fn text(&self) -> String {
        let rule = "=".repeat(78);
        let mut out =
            format!("{rule}\nRECOVERY SHEET for stack {}: print it, keep it off this host\n{rule}\n", self.stack);
        for (name, address, id) in &self.vaults {
            out.push_str(&format!("vault {name}\n  at  {address}\n  id  {id}\n"));
        }
        out.push_str(&format!("signer\n  {}\n  {}\n", self.fingerprint, self.signer_line));
        out.push_str("identity: the secret key of one of these recipients; it is kept at\n  ______________________________________\n");
        for recipient in &self.recipients {
            out.push_str(&format!("  {recipient}\n"));
        }
        out.push_str("on a bare machine, with this program, S3 keys in AWS_ACCESS_KEY_ID and\n");
        out.push_str("AWS_SECRET_ACCESS_KEY, and --into postgres://USER@HOST:PORT/DB for a database:\n");
        for (_, address, _) in &self.vaults {
            out.push_str(&format!("  {}\n", self.command(address)));
        }
        out.push_str(&format!(
            "without this program: RECOVER-1.md in each vault, SHA-256\n  {}\n{rule}\n",
            Hash256::of(RECOVER.as_bytes())
        ));
        out
    }
}
