//! The TOML file of `--config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| overwatch::fuzz::settings(bytes));
