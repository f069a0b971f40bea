//! A client's connection to the HTTP server.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| overwatch::fuzz::request(bytes));
