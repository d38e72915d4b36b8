//! Object Lock: what goes with a PUT, what a HEAD shows, legal holds.
//!
//! A HEAD is asked and not `GetObjectRetention`: it is a right that every key of a vault has, and it shows both kinds of lock.

use aws_sdk_s3::types::{
    ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode,
};
use chrono::{DateTime, Utc};

use super::error::{Kind, Refusal, judge};
use super::{S3Store, to_chrono};
use crate::monitor::Event;
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
        let answer = self.call("read", path.as_str(), |_| self.retention_once(path.as_str())).await;
        answer.map(|(retention, _)| retention).map_err(|gave_up| self.error("read", path.as_str(), gave_up))
    }

    /// What a HEAD shows, and the version that it is about.
    pub(super) async fn retention_once(
        &self,
        path: &str,
    ) -> Result<(Option<Retention>, Option<String>), Failure<Refusal>> {
        let asked = self.client.head_object().bucket(&self.bucket).key(self.key(path)).send();
        let head = match Box::pin(asked).await.map_err(judge) {
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

    /// Makes the current version's lock as long as that of a body that is put now. What goes wrong is told, and fails nothing: the
    /// lock lasts as long as before, and an audit finds one that is too short.
    pub(super) async fn renew_lock(&self, path: &StorePath) {
        let Some(wanted) = self.lock_for(path) else { return };
        let asked = match self.retention(path).await {
            Err(StoreError::NotFound { .. }) => return,
            Err(error) => Err(error),
            Ok(seen) => match longer(seen.as_ref(), wanted) {
                None => return,
                Some(lock) => self.set_retention(path, lock).await,
            },
        };
        if let Err(error) = asked {
            let until = wanted.1.format("%F");
            let text = format!("the lock of `{path}` in {} could not be renewed until {until}: {error}", self.name);
            self.monitor.event(Event::Warning { text });
        }
    }

    async fn set_retention(&self, path: &StorePath, (mode, until): Lock) -> Result<(), StoreError> {
        let retention =
            ObjectLockRetention::builder().mode(retention_mode(mode)).retain_until_date(date(until)).build();
        let key = self.key(path.as_str());
        let attempt = async |_| {
            let asked =
                self.client.put_object_retention().bucket(&self.bucket).key(&key).retention(retention.clone()).send();
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
