//! S3 server.
fn main() {}
