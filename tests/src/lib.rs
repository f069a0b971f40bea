//! What the privileged tests are made of.
//!
//! [`traffic`] moves bytes over TCP in every way that Linux offers and counts what the calls returned: it is the
//! truth that overwatch is held against, so it knows nothing of overwatch. [`harness`] starts overwatch, reads what
//! it prints and cleans up. The tests themselves are in `tests/privileged/`, one file for each thing that must hold.

pub mod harness;
pub mod traffic;
