//! When to run.
//!
//! For now this is one type: [`Crontab`], a line of crontab time fields, and the next instant at which it is due in a
//! time zone. Nothing here starts anything, sleeps, or asks what time it is: the instant is an argument.

pub mod crontab;

pub use crontab::{Crontab, CrontabError, Field};
