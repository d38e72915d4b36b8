//! One file per verb: its arguments, then `run`.

pub(crate) mod completions;
pub(crate) mod config;
#[cfg(test)]
mod doctor;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod list;
#[cfg(test)]
mod prune;
#[cfg(test)]
mod replicate;
pub(crate) mod restore;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod show;
pub(crate) mod status;
#[cfg(test)]
mod verify;
