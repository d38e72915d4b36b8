#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| backup_core::fuzzing::paths(data));
