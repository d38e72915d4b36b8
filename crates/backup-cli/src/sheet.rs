//! The recovery sheet: what to print and keep off the host, so that a bare machine is enough.

use std::path::PathBuf;

use backup_core::config::{Config, Place};
use backup_core::id::Hash256;
use backup_core::recover::RECOVER;
use backup_core::signature::{HostKey, Signers};
use serde_json::{Value, json};

use crate::address::Address;

/// What the sheet says.
pub(crate) struct Sheet {
    stack: String,
    signer_line: String,
    fingerprint: String,
    /// Everybody who is pinned, the host's own key first: what `--signer` takes, and the line. What an earlier host key signed, or the
    /// host that this machine pulls from, is in the vaults as well.
    signers: Vec<(String, Option<String>)>,
    recipients: Vec<String>,
    vaults: Vec<Line>,
}

/// A vault.
struct Line {
    name: String,
    address: String,
    id: String,
    /// PEM file of the authority, and its SHA-256, or why that is not known.
    ca: Option<(PathBuf, Result<Hash256, String>)>,
}

impl Line {
    fn of(vault: &backup_core::config::Vault) -> Self {
        let id = vault.id.as_ref().map_or_else(|| "not made yet".to_owned(), ToString::to_string);
        let ca = match &vault.place {
            Place::S3(s3) => s3.ca.clone(),
            Place::Path(_) => None,
        };
        let hash = |path: &PathBuf| std::fs::read(path).map(|pem| Hash256::of(&pem)).map_err(|e| e.to_string());
        let ca = ca.map(|path| (path.clone(), hash(&path)));
        Self { name: vault.name.clone(), address: Address::of(&vault.place).to_string(), id, ca }
    }
}

impl Sheet {
    /// From a configuration whose vaults are made.
    pub(crate) fn new(config: &Config, key: &HostKey, pinned: &Signers) -> Self {
        let mut signers = pinned.pins();
        signers.sort_by_key(|(pin, _)| !pin.starts_with(&key.fingerprint()));
        Self {
            signers,
            stack: config.stack.to_string(),
            signer_line: key.allowed_signers_line(),
            fingerprint: key.fingerprint(),
            recipients: config.keys.recipients.clone(),
            vaults: config.vaults.iter().map(Line::of).collect(),
        }
    }

    fn command(&self, address: &str) -> String {
        let signers: Vec<String> = self.signers.iter().map(|(pin, _)| format!("--signer {pin}")).collect();
        format!(
            "backup restore --latest --vault '{address}' \\\n    --stack {} {} \\\n    --identity FILE",
            self.stack,
            signers.join(" \\\n    ")
        )
    }

    /// For programs.
    pub(crate) fn to_json(&self) -> Value {
        let vaults: Vec<Value> = self
            .vaults
            .iter()
            .map(|Line { name, address, id, ca }| {
                let ca = ca.as_ref().map(|(path, hash)| json!({ "path": path, "sha256": hash.as_ref().ok() }));
                json!({
                    "name": name, "address": address, "id": id, "ca": ca,
                    "command": self.command(address).replace(" \\\n   ", ""),
                })
            })
            .collect();
        json!({
            "stack": self.stack,
            "signer": self.fingerprint,
            "signer_line": self.signer_line,
            "signers": self.signers.iter().map(|(pin, line)| json!({ "signer": pin, "line": line })).collect::<Vec<_>>(),
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
        for Line { name, address, id, ca } in &self.vaults {
            out.push_str(&format!("vault {name}\n  at  {address}\n  id  {id}\n"));
            if let Some((path, hash)) = ca {
                let hash = hash.as_ref().map_or_else(|why| format!("not known: {why}"), ToString::to_string);
                out.push_str(&format!("  ca  PEM file, to be kept with this sheet; SHA-256\n      {hash}\n"));
                out.push_str(&format!("      save it as {}\n", path.display()));
            }
        }
        out.push_str(if self.signers.len() == 1 { "signer\n" } else { "signers, this host's first\n" });
        for (pin, line) in &self.signers {
            out.push_str(&format!("  {pin}\n  {}\n", line.as_deref().unwrap_or_default()));
        }
        out.push_str("identity: the secret key of one of these recipients; it is kept at\n  ______________________________________\n");
        for recipient in &self.recipients {
            out.push_str(&format!("  {recipient}\n"));
        }
        out.push_str("on a bare machine, with this program, S3 keys in AWS_ACCESS_KEY_ID and\n");
        out.push_str("AWS_SECRET_ACCESS_KEY, and --into postgres://USER@HOST:PORT/DB for a database:\n");
        for Line { address, .. } in &self.vaults {
            out.push_str(&format!("  {}\n", self.command(address)));
        }
        out.push_str(&format!(
            "without this program: RECOVER-1.md in each vault, SHA-256\n  {}\n{rule}\n",
            Hash256::of(RECOVER.as_bytes())
        ));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_of_ones_own_is_on_the_sheet() {
        let folder = tempfile::tempdir().unwrap();
        let pem = folder.path().join("ca.pem");
        let (recipient, id) = (age::x25519::Identity::generate().to_public(), "0".repeat(32));
        let text = format!(
            "schema = 1\nstack = \"s\"\nstate = \"state\"\n[keys]\nrecipients = [\"{recipient}\"]\nsigners = \"signers\"\n\
             [vault.offsite]\nid = \"{id}\"\ncredentials = \"aws-chain\"\nkeep = {{ within = \"30d\", min = 7 }}\n\
             s3 = {{ endpoint = \"https://minio.example:9000\", bucket = \"b\", region = \"r\", ca = \"ca.pem\" }}\n\
             [source.f]\ntype = \"files\"\npaths = [\"/f\"]\n"
        );
        let config = Config::parse(&text, &folder.path().join("backup.toml")).unwrap();
        let sheet = || Sheet {
            stack: "s".into(),
            signer_line: "line".into(),
            fingerprint: "SHA256:x".into(),
            signers: vec![("SHA256:x".into(), Some("line".into()))],
            recipients: Vec::new(),
            vaults: config.vaults.iter().map(Line::of).collect(),
        };
        assert!(sheet().text().contains("not known: "), "{}", sheet().text());
        std::fs::write(&pem, "authority").unwrap();
        let (text, value) = (sheet().text(), sheet().to_json());
        let hash = Hash256::of(b"authority").to_string();
        assert!(text.contains(&hash) && text.contains(&format!("save it as {}", pem.display())), "{text}");
        assert_eq!(value["vaults"][0]["ca"], json!({ "path": pem, "sha256": hash }));
        let command = value["vaults"][0]["command"].as_str().unwrap();
        assert!(command.contains(&format!("&ca={}'", pem.display())), "{command}");
    }
}
