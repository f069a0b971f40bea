//! Types that cross the border between the kernel side (`overwatch-ebpf`) and the user side (`overwatch`).
//!
//! Everything here is `repr(C)`, has no padding and is valid for every bit pattern; sizes are asserted at
//! compile time, so the two sides cannot drift apart.
#![no_std]

pub mod connection;
pub mod counter;
pub mod event;
pub mod kernel;
pub mod scan;
