//! Records in the ring buffer. The first word of each is its kind.

use crate::connection::Connection;

/// Value of [`Activity::kind`].
pub const ACTIVITY: u32 = 1;
/// Value of [`Closed::kind`].
pub const CLOSED: u32 = 2;

/// Tells the drain that a process moved bytes over a connection, once per epoch, connection and process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// [`ACTIVITY`].
    pub kind: u32,
    /// The process.
    pub tgid: u32,
    /// The socket's kernel address.
    pub sock: u64,
    /// The connection's `created_ns`.
    pub created_ns: u64,
}

/// A connection's last record: its entry as it was when the socket was destroyed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// [`CLOSED`].
    pub kind: u32,
    /// Makes the padding explicit.
    pub pad: u32,
    /// The socket's kernel address.
    pub sock: u64,
    /// The entry.
    pub connection: Connection,
}

/// Key of a final record that did not fit into the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedKey {
    /// The socket's kernel address.
    pub sock: u64,
    /// The connection's `created_ns`.
    pub created_ns: u64,
}

/// Word of the array `CONTROL`: number of the running drain interval, from 1. The user side writes it.
pub const EPOCH: u32 = 0;
/// Word of the array `CONTROL`: not 0 once the connection table has been full. The kernel side writes it.
pub const WAS_FULL: u32 = 1;
/// How many words there are.
pub const CONTROL_WORDS: u32 = 2;

const _: () = assert!(size_of::<Activity>() == 24);
const _: () = assert!(size_of::<Closed>() == 16 + size_of::<Connection>());
const _: () = assert!(size_of::<ClosedKey>() == 16);

#[cfg(feature = "user")]
mod user {
    use super::{Activity, Closed, ClosedKey};

    // SAFETY: repr(C), integers and plain structs of them only, no padding (sizes asserted above).
    unsafe impl aya::Pod for Activity {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Closed {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ClosedKey {}
}
