//! Objects as a fuzzer brings them: the frame alone, behind age's tag, and whatever age makes of the bytes.

use super::{MAX_PLAIN_BYTES, Opener, WINDOW_LOG_MAX, decode_frame};
use crate::id::Hash256;

/// The content of an object. What is opened is within its limit and says the same when it is written again.
pub fn object(data: &[u8]) {
    let mut plain = Vec::new();
    if decode_frame(data, MAX_PLAIN_BYTES, &mut plain).is_ok() {
        assert!(plain.len() <= MAX_PLAIN_BYTES && plain.capacity() <= MAX_PLAIN_BYTES + (1 << WINDOW_LOG_MAX));
        let again = zstd::bulk::compress(&plain, 1).expect("zstd compresses");
        let mut twice = Vec::new();
        decode_frame(&again, MAX_PLAIN_BYTES, &mut twice).expect("our own frame");
        assert_eq!(twice, plain);
    }
    // A limit holds, whatever the header says.
    let mut short = Vec::new();
    assert!(decode_frame(data, 16, &mut short).is_err() || short.len() <= 16);
    let identity: age::x25519::Identity =
        "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX".parse().expect("age's test key");
    assert!(Opener { identity }.open(&Hash256::of(data), data).is_err(), "nobody sealed an object for this fuzzer");
}
