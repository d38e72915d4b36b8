//! What protects a vault from its own key, found out by trying. For `init` and `doctor`: a run asks none of this.
//!
//! Two small bodies below `_probe/`: of one a version is deleted by name, where the bucket says that it keeps versions; the
//! other is stored under a lock of two minutes, looked at by a HEAD, and then its version is deleted by name, which must be
//! refused; under a governance lock it is asked for once more with the bypass, which some keys may use. Nothing else is ever deleted by version. What cannot be deleted stays, a few bytes under these two names, and
//! goes with a later probe once its lock has ended.

use bytes::Bytes;
use chrono::TimeDelta;

use super::error::{Kind, Refusal, judge};
use super::probe::Versioning;
use super::{S3Store, sha256_base64};
use crate::vault::layout::PROBE;
use crate::vault::protection::{LockMode, Retention};
use crate::vault::retry::{Failure, Progress};
use crate::vault::store::{Store as _, StoreError, StorePath};
use std::sync::Arc;

/// Stored to be listed, and to be deleted by version.
const SEEN: &str = "_probe/seen";
/// Stored under a lock.
const LOCKED: &str = "_probe/locked";
/// How long the probe's lock lasts: long enough for clocks that are a little apart.
const LOCKED_FOR: TimeDelta = TimeDelta::minutes(2);

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shield {
    /// A listing shows what was just stored.
    pub listed_after_write: bool,
    /// Whether this key may delete older versions; `None` where the bucket keeps none, or the bucket locks what is stored by
    /// itself.
    pub versions_deletable: Option<bool>,
    /// Whether a lock holds; `None` where none was asked for.
    pub lock: Option<LockSeen>,
}

/// What became of a body that was stored under a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockSeen {
    /// A HEAD shows the lock, and its version could not be deleted.
    Enforced,
    /// It is so for a plain deletion; asked to bypass a governance lock, the store let this key delete the version.
    Bypassable,
    /// It is not so; what was seen.
    NotEnforced(String),
}

impl S3Store {
    /// Tries it. `lock`: the mode that the vault shall have. Costs three requests, and up to ten more for versions and a lock.
    pub async fn shield(&self, versioning: &Versioning, lock: Option<LockMode>) -> Result<Shield, StoreError> {
        let body = Bytes::from_static(b"seen\n");
        let (key, sum) = (self.key(SEEN), sha256_base64(&body));
        // With the condition, as a policy may demand it; a body that an earlier probe left is as good.
        let answer = self.probe_put(SEEN, &key, &body, &sum, true).await?;
        if answer == super::probe::Answer::NotUnderstood {
            self.probe_put(SEEN, &key, &body, &sum, false).await?;
        }
        let folder = StorePath::new(PROBE).expect("a path of checked parts");
        let listed_after_write = self.list(Some(&folder)).await?.iter().any(|entry| entry.path.as_str() == SEEN);
        let kept = matches!(versioning, Versioning::Enabled | Versioning::Suspended);
        let versions_deletable = if kept { self.can_delete_versions().await? } else { None };
        // Best effort.
        let _ = self.call("delete", SEEN, |_| self.delete_once(&key)).await;
        let lock = match lock {
            None => None,
            Some(_) if *versioning != Versioning::Enabled => {
                let why = "the bucket does not keep versions, and only versions can be locked";
                Some(LockSeen::NotEnforced(why.to_owned()))
            }
            Some(mode) => Some(self.try_lock(mode).await?),
        };
        Ok(Shield { listed_after_write, versions_deletable, lock })
    }

    /// Whether a version of the probe's own body can be deleted. Only where the bucket says that it keeps versions.
    async fn can_delete_versions(&self) -> Result<Option<bool>, StoreError> {
        let path = SEEN;
        let (retention, version) = self
            .call("read", path, |_| self.retention_once(path, None))
            .await
            .map_err(|gave_up| self.error("read", path, gave_up))?;
        if retention.is_some() {
            // The bucket's default: a refusal would say nothing of this key's rights.
            return Ok(None);
        }
        let Some(version) = version else { return Ok(None) };
        if !self.delete_version(path, &version, false).await? {
            return Ok(Some(false));
        }
        // What was answered is not what was done.
        Ok(Some(!self.is_current(path, &version).await?))
    }

    async fn try_lock(&self, mode: LockMode) -> Result<LockSeen, StoreError> {
        let (path, body) = (LOCKED, Bytes::from_static(b"locked\n"));
        let (key, sum, until) = (self.key(path), sha256_base64(&body), self.now().await? + LOCKED_FOR);
        let progress = Arc::new(Progress::default());
        let put = self
            .call("write", path, async |_| {
                match self.put_once(&key, body.clone(), &sum, false, Some((mode, until)), &progress).await {
                    Ok(()) => Ok(None),
                    // S3 itself answers 400 in a bucket that was made without Object Lock.
                    Err(Failure::Final(refusal)) => Ok(Some(refusal.reason)),
                    Err(again) => Err(again),
                }
            })
            .await
            .map_err(|gave_up| self.error("write", path, gave_up))?;
        if let Some(reason) = put {
            return Ok(LockSeen::NotEnforced(format!("a body with a lock is refused: {reason}")));
        }
        let (retention, version) = self
            .call("read", path, |_| self.retention_once(path, None))
            .await
            .map_err(|gave_up| self.error("read", path, gave_up))?;
        let shown = matches!(&retention, Some(Retention { mode: Some(found), until: Some(_), .. }) if *found == mode);
        let seen = match version {
            _ if !shown => LockSeen::NotEnforced(
                "a body was stored with a lock, and a HEAD shows none: the endpoint ignores locks, or this key lacks \
                 `s3:GetObjectRetention`"
                    .to_owned(),
            ),
            None => LockSeen::NotEnforced("a body with a lock has no version".to_owned()),
            Some(version) if self.delete_version(path, &version, false).await? => {
                LockSeen::NotEnforced("a version with a lock could be deleted".to_owned())
            }
            Some(version) if !self.is_current(path, &version).await? => {
                LockSeen::NotEnforced("the deletion of a version with a lock was refused, and it is gone".to_owned())
            }
            // What was answered is not what was done.
            Some(version)
                if mode == LockMode::Governance
                    && self.delete_version(path, &version, true).await?
                    && !self.is_current(path, &version).await? =>
            {
                LockSeen::Bypassable
            }
            Some(_) => LockSeen::Enforced,
        };
        if seen == LockSeen::Enforced {
            // Best effort: earlier probes', whose locks have ended.
            for version in self.versions_of(path).await.unwrap_or_default().into_iter().skip(1) {
                let _ = self.delete_version(path, &version, false).await;
            }
        }
        Ok(seen)
    }

    /// Deletes one version, with `bypass` also under a governance lock if the key may; `false` where that is refused. For the
    /// probe's names only.
    async fn delete_version(&self, path: &'static str, version: &str, bypass: bool) -> Result<bool, StoreError> {
        let key = self.key(path);
        let attempt = async |_| {
            let asked = self.client.delete_object().bucket(&self.bucket).key(&key).version_id(version);
            let asked = asked.set_bypass_governance_retention(bypass.then_some(true)).send();
            match Box::pin(asked).await.map_err(judge) {
                Ok(_) => Ok(true),
                Err(Failure::Final(Refusal { kind: Kind::Denied { .. } | Kind::Refused | Kind::Other, .. })) => {
                    Ok(false)
                }
                Err(other) => Err(other),
            }
        };
        self.call("delete", path, attempt).await.map_err(|gave_up| self.error("delete", path, gave_up))
    }

    /// Whether a HEAD still shows this version. A key need not be allowed to list versions.
    async fn is_current(&self, path: &'static str, version: &str) -> Result<bool, StoreError> {
        let head = self.call("read", path, async |_| match self.retention_once(path, None).await {
            Ok((_, current)) => Ok(current.as_deref() == Some(version)),
            Err(Failure::Final(Refusal { kind: Kind::NoKey, .. })) => Ok(false),
            Err(other) => Err(other),
        });
        head.await.map_err(|gave_up| self.error("read", path, gave_up))
    }

    /// Ids of all versions of a probe's body, newest first as the bucket lists them.
    async fn versions_of(&self, path: &'static str) -> Result<Vec<String>, StoreError> {
        let (key, mut ids) = (self.key(path), Vec::new());
        self.version_pages(&key, path, |page| {
            let own = page.versions().iter().filter(|version| version.key() == Some(&key));
            ids.extend(own.filter_map(|version| version.version_id().map(str::to_owned)));
            true
        })
        .await?;
        Ok(ids)
    }
}
