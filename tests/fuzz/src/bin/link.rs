//! Frames between the two processes of the daemon.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| overwatch::fuzz::link(bytes));
