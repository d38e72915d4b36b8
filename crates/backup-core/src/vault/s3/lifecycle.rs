//! The bucket's own rules that delete, as `GetBucketLifecycleConfiguration` tells them.
//!
//! A rule that asks for a tag reaches nothing of ours: no body is stored with one. A rule by size is taken for one that
//! reaches everything. Endpoints may forget parts of a rule that they accepted; what counts is what they give back.

use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule as SdkRule};

use super::error::{Refusal, judge};
use super::{S3Store, to_chrono};
use crate::vault::protection::{Expires, Lifecycle, LifecycleRule};
use crate::vault::retry::Failure;
use crate::vault::store::StoreError;

impl S3Store {
    /// The rules that are turned on. That this key may not ask, or the endpoint does not know the question, is no error.
    pub(super) async fn bucket_rules(&self) -> Result<Lifecycle, StoreError> {
        let attempt = async |_| {
            let asked = self.client.get_bucket_lifecycle_configuration().bucket(&self.bucket).send();
            match Box::pin(asked).await.map_err(judge) {
                Ok(answer) => Ok(Lifecycle::Rules(answer.rules().iter().filter_map(rule).collect())),
                Err(Failure::Final(Refusal { reason, .. })) if reason.starts_with("NoSuchLifecycleConfiguration") => {
                    Ok(Lifecycle::Rules(Vec::new()))
                }
                Err(Failure::Final(refusal)) => Ok(Lifecycle::Unknown(refusal.reason)),
                Err(again) => Err(again),
            }
        };
        let what = "the bucket's lifecycle";
        self.call("read", what, attempt).await.map_err(|gave_up| self.error("read", what, gave_up))
    }

    /// What the keys of this vault begin with: empty, or ending in `/`.
    pub fn key_prefix(&self) -> &str {
        &self.prefix
    }
}

fn days(days: Option<i32>) -> Option<u32> {
    days.and_then(|days| u32::try_from(days).ok())
}

/// One rule, if it is turned on and can reach bodies without tags.
fn rule(rule: &SdkRule) -> Option<LifecycleRule> {
    if rule.status() != &ExpirationStatus::Enabled {
        return None;
    }
    let filter = rule.filter();
    let and = filter.and_then(|filter| filter.and());
    if filter.is_some_and(|filter| filter.tag().is_some()) || and.is_some_and(|and| !and.tags().is_empty()) {
        return None;
    }
    #[expect(deprecated, reason = "old rules have their prefix there, and still act")]
    let old_prefix = rule.prefix();
    let prefix = filter.and_then(|filter| filter.prefix()).or(and.and_then(|and| and.prefix())).or(old_prefix);
    let expires = rule.expiration().and_then(|expiration| {
        let after = days(expiration.days()).map(|days| Expires::After { days });
        after.or(expiration.date().map(|date| Expires::From(to_chrono(date))))
    });
    let moves_to = rule.transitions().iter().find_map(|transition| transition.storage_class());
    Some(LifecycleRule {
        id: rule.id().unwrap_or_default().to_owned(),
        prefix: prefix.unwrap_or_default().to_owned(),
        expires,
        older_days: rule.noncurrent_version_expiration().and_then(|older| days(older.noncurrent_days())),
        moves_to: moves_to.map(|class| class.as_str().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{LifecycleExpiration, LifecycleRuleAndOperator, LifecycleRuleFilter, Tag};

    use super::*;

    fn built(filter: LifecycleRuleFilter, status: ExpirationStatus) -> Option<LifecycleRule> {
        let expiration = LifecycleExpiration::builder().days(3).build();
        rule(&SdkRule::builder().id("r").status(status).filter(filter).expiration(expiration).build().unwrap())
    }

    #[test]
    fn a_rule_that_is_off_or_wants_a_tag_reaches_nothing_of_ours() {
        let tag = || Tag::builder().key("k").value("v").build().unwrap();
        let prefix = || LifecycleRuleFilter::builder().prefix("v/").build();
        let on = built(prefix(), ExpirationStatus::Enabled).unwrap();
        assert_eq!((on.prefix.as_str(), on.expires), ("v/", Some(Expires::After { days: 3 })));
        assert_eq!(built(prefix(), ExpirationStatus::Disabled), None);
        assert_eq!(built(LifecycleRuleFilter::builder().tag(tag()).build(), ExpirationStatus::Enabled), None);
        let and = LifecycleRuleAndOperator::builder().prefix("w/");
        let filter = |and: LifecycleRuleAndOperator| LifecycleRuleFilter::builder().and(and).build();
        assert_eq!(built(filter(and.clone().build()), ExpirationStatus::Enabled).unwrap().prefix, "w/");
        assert_eq!(built(filter(and.tags(tag()).build()), ExpirationStatus::Enabled), None);
    }
}
