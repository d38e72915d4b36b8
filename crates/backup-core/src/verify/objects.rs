//! Stored bytes against the names of their objects.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt, stream};

use super::{Fraction, Pace, Verified, damage_or};
use crate::id::ObjectName;
use crate::vault::layout::GenerationDir;
use crate::vault::{Vault, VaultError};

/// Objects that are read and hashed at once: 4 MiB each.
const READS: usize = 6;

/// Hashes the chosen fraction of a generation's objects, as long as the pace allows, and gives the bad ones with what is
/// wrong.
pub(super) async fn hash(
    vault: &Vault,
    dir: &GenerationDir,
    objects: &HashMap<ObjectName, u64>,
    (fraction, pace): (Option<Fraction>, &Pace<'_>),
    verified: &mut Verified,
) -> Result<BTreeMap<ObjectName, String>, VaultError> {
    let mut bad = BTreeMap::new();
    let names = fraction.map(|fraction| pace.order(dir, objects.keys().filter(|name| fraction.holds(name))));
    let mut read: HashMap<ObjectName, bool> = HashMap::new();
    let mut going = stream::iter(names.iter().flatten().copied())
        .take_while(|_| std::future::ready(!pace.is_over()))
        .map(|name| async move { (name, vault.get_object(dir, &name).await) })
        .buffered(READS);
    while let Some((name, found)) = going.next().await {
        verified.objects_read += 1;
        read.insert(name, found.is_ok());
        match found {
            Ok(bytes) => verified.bytes_read += bytes.len() as u64,
            Err(error) => {
                bad.insert(name, damage_or(vault, error).await?);
            }
        }
    }
    // Time that is up must not make anything good again.
    let before = pace.bad.into_iter().flatten().filter(|((at, _), _)| at == dir);
    for ((_, name), text) in before.filter(|((_, name), _)| objects.contains_key(name) && !read.contains_key(name)) {
        bad.insert(*name, text.clone());
    }
    // Nor do bytes that have the hash of their name.
    let closed = pace.closed.into_iter().flatten().filter(|((at, _), _)| at == dir);
    for ((_, name), text) in closed.filter(|((_, name), _)| objects.contains_key(name)) {
        bad.entry(*name).or_insert_with(|| text.clone());
    }
    let left = names.iter().flatten().filter(|name| !read.contains_key(*name));
    verified.coverage.left_bytes += left.filter_map(|name| objects.get(name)).sum::<u64>();
    read.retain(|_, good| *good);
    verified.coverage.count(pace, dir, objects, &read);
    if !read.is_empty() {
        verified.good.entry(dir.clone()).or_default().extend(read.into_keys());
    }
    Ok(bad)
}
