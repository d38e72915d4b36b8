//! The engine's verbs over a store that is watched, that fails where it is told to, and whose content is meddled with.
//!
//! Two clocks that the test moves (the host's and the store's), a scripted source, everything in memory: what is proved
//! here is the protocol, not a disk or a network.

mod accepts;
mod commit;
mod crash_points;
mod damage;
mod dedup;
mod forks;
mod frozen;
mod generation;
mod gone;
mod grants;
mod guard;
mod histories;
mod locks;
mod meanwhile;
mod pace;
mod planted;
mod promise;
pub(crate) mod prune;
mod prune_answers;
mod prune_now;
mod prune_rules;
mod purge;
mod remembered;
mod repair;
mod replicate;
mod site;
mod unlisted;
mod vault_facts;
pub(crate) mod watch;
mod withdrawn;
pub(crate) mod world;
