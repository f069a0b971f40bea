//! The YAML file of `--web.config.file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| overwatch::fuzz::web_config(bytes));
