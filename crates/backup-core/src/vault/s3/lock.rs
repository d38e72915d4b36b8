//! Object Lock: what goes with a PUT, what a HEAD shows, legal holds.
//!
//! A HEAD is asked and not `GetObjectRetention`: it is a right that every key of a vault has, and it shows both kinds of lock.

use aws_sdk_s3::types::{
    ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode,
};
use chrono::{DateTime, Utc};

use super::error::{Kind, Refusal, judge, judge_head};
use super::{S3Store, to_chrono};
use crate::monitor::Event;
use crate::vault::MAX_DOCUMENT_BYTES;
use crate::vault::older::both_ends;
use crate::vault::protection::{LockMode, Retention};
use crate::vault::retry::Failure;
use crate::vault::store::{StoreError, StorePath};

pub(super) fn mode(mode: LockMode) -> ObjectLockMode {
    match mode {
        LockMode::Governance => ObjectLockMode::Governance,
        LockMode::Compliance => ObjectLockMode::Compliance,
    }
}

pub(super) fn date(at: DateTime<Utc>) -> aws_sdk_s3::primitives::DateTime {
    aws_sdk_s3::primitives::DateTime::from_secs(at.timestamp())
}

fn retention_mode(mode: LockMode) -> ObjectLockRetentionMode {
    match mode {
        LockMode::Governance => ObjectLockRetentionMode::Governance,
        LockMode::Compliance => ObjectLockRetentionMode::Compliance,
    }
}

/// A lock.
type Lock = (LockMode, DateTime<Utc>);

/// The lock to set so that it lasts as `wanted`; `None` where what is seen does. It is never shorter than what is seen, and S3 lets
/// nobody go back from compliance to governance.
fn longer(seen: Option<&Retention>, (mode, until): Lock) -> Option<Lock> {
    let Some(Retention { mode: Some(found), until: Some(end), .. }) = seen else { return Some((mode, until)) };
    let stricter = if *found == LockMode::Compliance { LockMode::Compliance } else { mode };
    // Whole seconds are sent.
    (end.timestamp() < until.timestamp() || stricter != *found).then_some((stricter, until.max(*end)))
}

impl S3Store {
    /// The lock with which a body at `path` is stored.
    pub(super) fn lock_for(&self, path: &StorePath) -> Option<(LockMode, DateTime<Utc>)> {
        self.lock.as_ref().map(|rule| (rule.mode, rule.until(path)))
    }

    /// What a HEAD shows.
    pub(super) async fn retention(&self, path: &StorePath) -> Result<Option<Retention>, StoreError> {
        self.retention_of(path, None).await.map(|(retention, _)| retention)
    }

    /// What a HEAD of one version shows, or of the current one, and the version that it is about.
    async fn retention_of(
        &self,
        path: &StorePath,
        version: Option<&str>,
    ) -> Result<(Option<Retention>, Option<String>), StoreError> {
        let answer = self.call("read", path.as_str(), |_| self.retention_once(path.as_str(), version)).await;
        answer.map_err(|gave_up| self.error("read", path.as_str(), gave_up))
    }

    /// What a HEAD shows, and the version that it is about.
    pub(super) async fn retention_once(
        &self,
        path: &str,
        version: Option<&str>,
    ) -> Result<(Option<Retention>, Option<String>), Failure<Refusal>> {
        let asked = self.client.head_object().bucket(&self.bucket).key(self.key(path));
        let asked = asked.set_version_id(version.map(str::to_owned)).send();
        let head = match Box::pin(asked).await.map_err(judge_head) {
            Err(Failure::Final(refusal)) if matches!(refusal.kind, Kind::NoKey) => {
                self.missing().await?;
                return Err(Failure::Final(refusal));
            }
            other => other?,
        };
        let mode = match head.object_lock_mode() {
            Some(ObjectLockMode::Governance) => Some(LockMode::Governance),
            Some(ObjectLockMode::Compliance) => Some(LockMode::Compliance),
            _ => None,
        };
        let until = head.object_lock_retain_until_date().map(to_chrono).filter(|_| mode.is_some());
        let legal_hold = head.object_lock_legal_hold_status() == Some(&ObjectLockLegalHoldStatus::On);
        let retention = (mode.is_some() || legal_hold).then_some(Retention { mode, until, legal_hold });
        Ok((retention, head.version_id().map(str::to_owned)))
    }

    /// Tells of a body that was stored with a lock and shows none. It is there, so nothing fails; and what was promised of it
    /// does not hold.
    pub(super) async fn look_at_lock(&self, path: &StorePath) {
        let why = match self.retention(path).await {
            Ok(Some(Retention { mode: Some(_), until: Some(_), .. })) => return,
            Ok(_) => "the endpoint shows no lock on it (it ignores locks, or this key lacks `s3:GetObjectRetention`)"
                .to_owned(),
            Err(error) => error.to_string(),
        };
        let text = format!("`{path}` in {} was stored with a lock, and that is not seen: {why}", self.name);
        self.monitor.event(Event::Warning { text });
    }

    /// Makes the locks of a body as long as that of one that is put now: of the current version, and of those behind it. Whoever has
    /// the host's key can put another body or a delete marker over ours; if only that were locked, ours would be free to go
    /// when its lock ends. What goes wrong is told, and fails nothing: the lock lasts as long as before, and an audit finds
    /// one that is too short.
    pub(super) async fn renew_lock(&self, path: &StorePath) {
        let Some(wanted) = self.lock_for(path) else { return };
        let current = self.renew_version(path, None, wanted).await;
        if let Err(error) = current.and(self.renew_older(path, wanted).await) {
            let until = wanted.1.format("%F");
            let text = format!("the lock of `{path}` in {} could not be renewed until {until}: {error}", self.name);
            self.monitor.event(Event::Warning { text });
        }
    }

    /// The same for versions behind the current one, those that a restore would try. A key that may not list versions renews what it
    /// sees: it need not have more rights than `run` needs.
    async fn renew_older(&self, path: &StorePath, wanted: Lock) -> Result<(), StoreError> {
        let older = match self.keeps_versions(path).await {
            Ok(true) => self.older_versions(path).await,
            other => other.map(|_| Vec::new()),
        };
        let older = match older {
            Err(StoreError::Denied { .. }) => return Ok(()),
            other => other?,
        };
        // What is larger is none of ours: nobody shall make this host lock what they put there.
        // One that cannot be locked keeps none behind it from being locked, and one that may not be looked at is no failure.
        let mut failed = Ok(());
        for version in both_ends(&older).filter(|version| version.bytes <= MAX_DOCUMENT_BYTES) {
            match self.renew_version(path, Some(&version.version), wanted).await {
                Ok(()) | Err(StoreError::Denied { .. }) => {}
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed
    }

    /// The lock goes to the version that was looked at, whatever was put over it meanwhile.
    async fn renew_version(&self, path: &StorePath, version: Option<&str>, wanted: Lock) -> Result<(), StoreError> {
        match self.retention_of(path, version).await {
            // Hidden by a delete marker, or gone: nothing to lock here.
            Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok((seen, found)) => match longer(seen.as_ref(), wanted) {
                None => Ok(()),
                Some(lock) => self.set_retention(path, version.or(found.as_deref()), lock).await,
            },
        }
    }

    async fn set_retention(
        &self,
        path: &StorePath,
        version: Option<&str>,
        (mode, until): Lock,
    ) -> Result<(), StoreError> {
        let retention =
            ObjectLockRetention::builder().mode(retention_mode(mode)).retain_until_date(date(until)).build();
        let key = self.key(path.as_str());
        let attempt = async |_| {
            let asked = self.client.put_object_retention().bucket(&self.bucket).key(&key).retention(retention.clone());
            let asked = asked.set_version_id(version.map(str::to_owned)).send();
            Box::pin(asked).await.map(drop).map_err(judge)
        };
        let answer = self.call("lock", path.as_str(), attempt).await;
        answer.map_err(|gave_up| self.error("lock", path.as_str(), gave_up))
    }

    /// Sets or lifts the legal hold of the current version.
    pub(super) async fn set_hold(&self, path: &StorePath, on: bool) -> Result<(), StoreError> {
        let status = if on { ObjectLockLegalHoldStatus::On } else { ObjectLockLegalHoldStatus::Off };
        let hold = ObjectLockLegalHold::builder().status(status).build();
        let key = self.key(path.as_str());
        let attempt = async |_| {
            let asked =
                self.client.put_object_legal_hold().bucket(&self.bucket).key(&key).legal_hold(hold.clone()).send();
            Box::pin(asked).await.map(drop).map_err(judge)
        };
        let answer = self.call("hold", path.as_str(), attempt).await;
        answer.map_err(|gave_up| self.error("hold", path.as_str(), gave_up))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_made_longer_and_stricter_and_never_the_other_way() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let (weak, strict) = (LockMode::Governance, LockMode::Compliance);
        let seen = |mode, until: &str| Some(Retention { mode: Some(mode), until: Some(at(until)), legal_hold: false });
        let until = at("2027-01-01T00:00:00.9Z");
        let held = Some(Retention { mode: None, until: None, legal_hold: true });
        for (found, wanted, asked) in [
            (None, weak, Some((weak, until))),
            (held, strict, Some((strict, until))),
            (seen(weak, "2026-12-31T23:59:59Z"), weak, Some((weak, until))),
            (seen(weak, "2027-01-01T00:00:00Z"), weak, None),
            (seen(weak, "2028-01-01T00:00:00Z"), weak, None),
            (seen(weak, "2028-01-01T00:00:00Z"), strict, Some((strict, at("2028-01-01T00:00:00Z")))),
            (seen(strict, "2026-12-01T00:00:00Z"), weak, Some((strict, until))),
            (seen(strict, "2028-01-01T00:00:00Z"), weak, None),
        ] {
            assert_eq!(longer(found.as_ref(), (wanted, until)), asked, "{found:?}");
        }
    }
}
