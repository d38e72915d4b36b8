//! The binary `backup`.
fn main() {}
