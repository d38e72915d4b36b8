//! One file per verb: its arguments, then `run`.
//!
//! The verbs below the line have their arguments ready and no engine yet: they are compiled for their tests only and
//! are in no tree, because a verb that is offered must work.

pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod prune;
pub(crate) mod replicate;
pub(crate) mod restore;
pub(crate) mod run;
pub(crate) mod silent;
pub(crate) mod verify;

#[cfg(test)]
mod list;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod show;
#[cfg(test)]
mod status;
