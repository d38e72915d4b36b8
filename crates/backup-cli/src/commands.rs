//! One file per verb: its arguments, then `run`.
//!
//! The verbs below the line have their arguments ready and no engine yet: they are compiled for their tests only and
//! are in no tree, because a verb that is offered must work.

pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod key;
pub(crate) mod list;
pub(crate) mod runs;
pub(crate) mod show;
pub(crate) mod status;

#[cfg(test)]
mod doctor;
#[cfg(test)]
mod init;
#[cfg(test)]
mod prune;
#[cfg(test)]
mod replicate;
#[cfg(test)]
mod restore;
#[cfg(test)]
mod run;
#[cfg(test)]
mod verify;
