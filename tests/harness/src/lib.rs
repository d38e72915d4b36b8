//! Test-only: the real servers that tests talk to, each started by the test that uses it and gone with it.

pub mod pg;
