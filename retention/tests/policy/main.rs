//! The policy from outside: tables written down by hand, and properties over random histories.

mod bounds;
mod golden;
mod properties;
