//! Black-box and cross-crate suite: one binary, a module for each file of `suite/`.

#![expect(clippy::unwrap_used, reason = "a test that fails here fails loudly")]

mod suite {
    mod audit;
    mod bad_input;
    mod canary;
    mod chaos;
    mod cli_config;
    mod cli_hints;
    mod cli_inspect;
    mod cli_keys;
    mod cli_known;
    mod cli_marks;
    mod cli_prune;
    mod cli_pull;
    mod cli_repair;
    mod cli_sheet;
    mod cli_vaults;
    mod compat;
    mod concurrency;
    mod damage_matrix;
    mod deleted;
    mod engine;
    mod fault_matrix;
    mod files_roundtrip;
    mod forged;
    mod guard;
    mod host;
    mod import;
    mod json;
    mod kills;
    mod memory;
    mod memory_faults;
    mod past;
    mod pg_capture;
    mod pg_complete;
    mod pg_restore;
    mod protection;
    mod proxy_faults;
    mod recover;
    mod requests;
    mod restore_options;
    mod resume;
    mod roundtrip;
    mod stack;
    mod store_answers;
    mod store_conformance;
    mod store_credentials;
    mod store_faults;
    mod store_keys;
    mod store_listings;
    mod store_throttled;
    mod wrapped;
}
