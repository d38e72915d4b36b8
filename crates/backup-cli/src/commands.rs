//! One file per verb: its arguments, then `run`.

pub(crate) mod audit;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod list;
pub(crate) mod mark;
pub(crate) mod prune;
pub(crate) mod purge;
pub(crate) mod replicate;
pub(crate) mod restore;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod show;
pub(crate) mod silent;
pub(crate) mod status;
pub(crate) mod verify;
