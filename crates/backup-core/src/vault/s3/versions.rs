//! Older versions and delete markers, in buckets that say that they keep them.
//!
//! Only `GetBucketVersioning` counts. Version ids in answers prove nothing: an endpoint was seen that gives one for each PUT,
//! keeps no versions, answers a GET of any of them with the current body, and deletes that when one is named in a DELETE.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput;
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::error::{Refusal, judge};
use super::probe::Versioning;
use super::turning::Turns;
use super::{S3Store, to_chrono, to_u64};
use crate::vault::protection::{Gone, Hidden, Older, Remembered};
use crate::vault::retry::GaveUp;
use crate::vault::store::{Store as _, StoreError, StorePath};

/// So many of the newest and of the oldest versions of one body are given.
const ENDS: usize = 50;
/// So many pages of versions of one body are asked for: a million versions, and some minutes.
const PAGES: u32 = 1000;
/// And of the versions of one folder: a hundred thousand, so that whoever floods it makes nobody wait for long.
const FOLDER_PAGES: u32 = 100;

/// Whether a bucket says that it keeps versions, or has kept them.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    Yes,
    /// It says so, or does not know the question.
    No,
    /// These credentials may not ask, and why.
    Denied(String),
}

impl S3Store {
    /// Whether the bucket says that it keeps versions, or has kept them, asked until it answers, for what lies at `path`. A bucket
    /// that does not know the question keeps none. Errors: these credentials may not ask, or nobody answered: that says nothing of
    /// the bucket, and is remembered for as long as the asking took. One bad minute must hide nothing for as long as a process lives,
    /// and a restore must not wait for each missing object again.
    pub(super) async fn keeps_versions(&self, path: &StorePath) -> Result<bool, StoreError> {
        let ask = async || {
            Ok(match self.versioning().await? {
                Versioning::Enabled | Versioning::Suspended => Kept::Yes,
                Versioning::Denied(reason) => Kept::Denied(reason),
                Versioning::Off | Versioning::Unknown(_) => Kept::No,
            })
        };
        if let Some(error) = self.lately_unasked(path) {
            return Err(error);
        }
        let begun = Instant::now();
        let answer = self.versioned.get_or_try_init(ask).await.inspect_err(|error: &StoreError| {
            let until = Instant::now() + begun.elapsed();
            *self.unasked.lock().unwrap_or_else(PoisonError::into_inner) = Some((until, error.to_string()));
        });
        match answer? {
            Kept::Yes => Ok(true),
            Kept::No => Ok(false),
            Kept::Denied(reason) => Err(StoreError::Denied {
                action: "list",
                path: format!("the versions of {path}"),
                store: self.describe(),
                reason: reason.clone(),
            }),
        }
    }

    fn lately_unasked(&self, path: &StorePath) -> Option<StoreError> {
        let unasked = self.unasked.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, reason) = unasked.as_ref().filter(|(until, _)| Instant::now() < *until)?;
        Some(StoreError::Failed {
            action: "list",
            path: format!("the versions of {path}"),
            store: self.describe(),
            attempts: 1,
            reason: format!("asked a moment ago: {reason}"),
        })
    }

    /// The versions of one body that are not its current one, newest first. Where there are very many, those between the
    /// oldest and the newest are left out; where somebody wrote [`PAGES`] pages of them, the oldest are not reached.
    pub(super) async fn older_versions(&self, path: &StorePath) -> Result<Vec<Older>, StoreError> {
        let key = self.key(path.as_str());
        let (mut found, mut pages) = (Vec::new(), 0);
        self.version_pages(&key, path.as_str(), |page| {
            for version in page.versions().iter().filter(|version| version.key() == Some(&key)) {
                if let (Some(id), Some(bytes), Some(modified), Some(false)) =
                    (version.version_id(), version.size(), version.last_modified(), version.is_latest())
                {
                    found.push(Older {
                        path: path.clone(),
                        version: id.to_owned(),
                        bytes: to_u64(bytes),
                        modified: to_chrono(modified),
                    });
                }
            }
            if found.len() > 2 * ENDS {
                found.drain(ENDS..found.len() - ENDS);
            }
            pages += 1;
            // Keys come in order: this one first, then those that begin with it.
            pages < PAGES && page.versions().iter().all(|version| version.key() == Some(&key))
        })
        .await?;
        found.sort_by_key(|older| std::cmp::Reverse(older.modified));
        Ok(found)
    }

    /// What lies behind the current bodies below the vault's prefix; `None` where the bucket does not say that it keeps
    /// versions. One request for each thousand versions: for `doctor` and `audit`, not for every day.
    pub async fn hidden(&self) -> Result<Option<Hidden>, StoreError> {
        let root = StorePath::new("vault.json").expect("a path of checked parts");
        if !self.keeps_versions(&root).await? {
            return Ok(None);
        }
        let (mut hidden, probe) = (Hidden::default(), format!("{}_probe/", self.prefix));
        let own = |key: Option<&str>| key.is_some_and(|key| !key.starts_with(&probe));
        self.version_pages(&self.prefix, ".", |page| {
            for version in page.versions().iter().filter(|version| own(version.key())) {
                if version.is_latest() == Some(false) {
                    hidden.older += 1;
                    hidden.older_bytes += version.size().map_or(0, to_u64);
                }
            }
            let markers = page.delete_markers().iter().filter(|marker| own(marker.key()));
            hidden.deleted += markers.filter(|marker| marker.is_latest() == Some(true)).count() as u64;
            true
        })
        .await?;
        Ok(Some(hidden))
    }

    /// Paths below a folder of which the newest version is a delete marker, and an older one a body.
    pub(super) async fn deleted_below(&self, folder: &StorePath) -> Result<Remembered<Gone>, StoreError> {
        let (mut deleted, mut pages, mut is_cut) = (BTreeSet::new(), 0, false);
        let mut bodies: BTreeMap<StorePath, (DateTime<Utc>, DateTime<Utc>)> = BTreeMap::new();
        let own = |key: Option<&str>| StorePath::new(key?.strip_prefix(&self.prefix)?);
        self.version_pages(&format!("{}/", self.key(folder.as_str())), folder.as_str(), |page| {
            let markers = page.delete_markers().iter().filter(|marker| marker.is_latest() == Some(true));
            deleted.extend(markers.filter_map(|marker| own(marker.key())));
            let older = page.versions().iter().filter(|version| version.is_latest() == Some(false));
            for (path, at) in
                older.filter_map(|version| Some((own(version.key())?, to_chrono(version.last_modified()?))))
            {
                let times = bodies.entry(path).or_insert((at, at));
                *times = (times.0.min(at), times.1.max(at));
            }
            pages += 1;
            is_cut = pages >= FOLDER_PAGES && page.is_truncated().unwrap_or(false);
            pages < FOLDER_PAGES
        })
        .await?;
        let gone = |path: StorePath| {
            let (first, last) = *bodies.get(&path)?;
            Some(Gone { path, first, last })
        };
        Ok(Remembered { found: deleted.into_iter().filter_map(gone).collect(), is_cut })
    }

    /// Names of the folders directly below a folder in which any version or delete marker lies.
    pub(super) async fn version_folders(&self, folder: &StorePath) -> Result<Remembered<String>, StoreError> {
        let prefix = format!("{}/", self.key(folder.as_str()));
        let (mut found, mut pages, mut is_cut) = (BTreeSet::new(), 0, false);
        self.version_pages_by((&prefix, Some("/")), folder.as_str(), |page| {
            let folders = page.common_prefixes().iter().filter_map(|common| common.prefix());
            found
                .extend(folders.filter_map(|common| Some(common.strip_prefix(&prefix)?.strip_suffix('/')?.to_owned())));
            pages += 1;
            is_cut = pages >= FOLDER_PAGES && page.is_truncated().unwrap_or(false);
            pages < FOLDER_PAGES
        })
        .await?;
        Ok(Remembered { found: found.into_iter().collect(), is_cut })
    }

    /// Every page of versions whose keys begin with `prefix`, while `take` wants more.
    pub(super) async fn version_pages(
        &self,
        prefix: &str,
        shown: &str,
        take: impl FnMut(&ListObjectVersionsOutput) -> bool + Send,
    ) -> Result<(), StoreError> {
        self.version_pages_by((prefix, None), shown, take).await
    }

    /// The same, with what lies behind the next `delimiter` folded into folders.
    async fn version_pages_by(
        &self,
        (prefix, delimiter): (&str, Option<&str>),
        shown: &str,
        mut take: impl FnMut(&ListObjectVersionsOutput) -> bool + Send,
    ) -> Result<(), StoreError> {
        let (mut key, mut version): (Option<String>, Option<String>) = (None, None);
        // Versions are counted or picked, not held, so only their pages have an end.
        let mut turns = Turns::new(self.most_names, self.page_names);
        loop {
            let page = self
                .call("list", shown, async |_| {
                    let asked = self
                        .client
                        .list_object_versions()
                        .bucket(&self.bucket)
                        .set_prefix((!prefix.is_empty()).then(|| prefix.to_owned()))
                        .set_delimiter(delimiter.map(str::to_owned))
                        .set_key_marker(key.clone())
                        .set_version_id_marker(version.clone())
                        .max_keys(i32::from(self.page_names))
                        .send();
                    Box::pin(asked).await.map_err(judge)
                })
                .await
                .map_err(|gave_up| self.error("list", shown, gave_up))?;
            turns.page(first_of(&page), 0).map_err(|error| self.error("list", shown, GaveUp { attempts: 1, error }))?;
            let more = take(&page);
            if !more || !page.is_truncated().unwrap_or(false) {
                return Ok(());
            }
            let next = (page.next_key_marker().map(str::to_owned), page.next_version_id_marker().map(str::to_owned));
            if next.0.is_none() || next == (key.clone(), version.clone()) {
                let error = Refusal::other("listing of versions is cut off without a new place to go on");
                return Err(self.error("list", shown, GaveUp { attempts: 1, error }));
            }
            (key, version) = next;
        }
    }
}

/// What a page of versions begins with: names no two pages share, whatever else is on them.
fn first_of(page: &ListObjectVersionsOutput) -> Option<String> {
    let name = |key: Option<&str>, version: Option<&str>| Some(format!("{} {}", key?, version.unwrap_or_default()));
    let version = page.versions().first().and_then(|one| name(one.key(), one.version_id()));
    let marker = || page.delete_markers().first().and_then(|one| name(one.key(), one.version_id()));
    let folder = || page.common_prefixes().first().and_then(|folder| folder.prefix()).map(str::to_owned);
    version.or_else(marker).or_else(folder)
}
