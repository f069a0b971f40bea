//! Records in the ring buffer. The first word of each is its kind.

use crate::connection::{COMM_LEN, Connection};

/// Value of [`Activity::kind`].
pub const ACTIVITY: u32 = 1;
/// Value of [`Closed::kind`].
pub const CLOSED: u32 = 2;
/// Value of [`Change::kind`].
pub const CHANGE: u32 = 3;
/// Value of [`Reset::kind`].
pub const RESET: u32 = 4;

/// Which changes of connections the user side wants to be told of.
pub mod want {
    /// None.
    pub const NOTHING: u32 = 0;
    /// All.
    pub const ALL: u32 = 1;
    /// Of connections that were accepted: that, and when the process stops serving them.
    pub const SERVING: u32 = 2;
    /// All, and of those that were accepted also the listening socket, as with [`SERVING`].
    pub const ALL_AND_SERVING: u32 = 3;

    /// From this one on, the listening socket of a connection is wanted.
    pub const LEAST_WITH_LISTENER: u32 = SERVING;
}

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

/// A socket's state or owner changed. Where `old` and `new` are the same, only what is known of it did.
///
/// Those of listening sockets always come; those of connections only where somebody wants them: see [`want`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// [`CHANGE`].
    pub kind: u32,
    /// Owner process; 0 when there is none, or it is not known.
    pub tgid: u32,
    /// The socket's kernel address.
    pub sock: u64,
    /// The connection's `created_ns`, or since when it listens.
    pub created_ns: u64,
    /// When, nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// When the old state began; 0 when not known.
    pub since_ns: u64,
    /// Control group (version 2) of the owner, 0 when not known.
    pub cgroup_id: u64,
    /// Kernel address of the listening socket by which it was accepted; 0 when not known.
    pub listener: u64,
    /// When the handshake was completed; 0 when not known, and where the accept was not seen.
    pub established_ns: u64,
    /// Local address; IPv4 is v4-mapped.
    pub local_addr: [u8; 16],
    /// Remote address, likewise.
    pub remote_addr: [u8; 16],
    /// Name of the owner process.
    pub comm: [u8; COMM_LEN],
    /// Network namespace of the socket (inode number).
    pub netns: u32,
    /// Local port, host order.
    pub local_port: u16,
    /// Remote port, host order; 0 while it is not known.
    pub remote_port: u16,
    /// How many connections were in the accept queue when this one was put there (server).
    pub queued_behind: u32,
    /// State before, the kernel's number.
    pub old: u8,
    /// State now.
    pub new: u8,
    /// See [`crate::connection::role`].
    pub role: u8,
    /// Not 0 when both directions were shut down before this change: by close(2), or by the peer's FIN and shutdown(2). The process
    /// that has only shut down its sending is still busy with the connection.
    pub let_go: u8,
}

/// This end sent a RST for a socket whose last record was handed over before.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// [`RESET`].
    pub kind: u32,
    /// Makes the padding explicit.
    pub pad: u32,
    /// The socket's kernel address.
    pub sock: u64,
}

/// Key of the sum of connections whose last records fitted nowhere.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LostKey {
    /// Name of the owner process.
    pub comm: [u8; COMM_LEN],
    /// The owner process.
    pub tgid: u32,
    /// Network namespace (inode number).
    pub netns: u32,
    /// See [`crate::connection::role`].
    pub role: u8,
    /// Makes the padding explicit.
    pub pad: [u8; 7],
}

/// What connections whose last records fitted nowhere have moved, as far as no record has said so.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostSum {
    /// How many connections.
    pub connections: u64,
    /// Bytes sent, over their whole lives.
    pub sent: u64,
    /// Bytes received, likewise.
    pub received: u64,
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
/// Word of the array `CONTROL`: number of the last audit, from 1; 0 while there was none. The user side writes it.
pub const AUDIT: u32 = 2;
/// Word of the array `CONTROL`: not 0 where the kernel skips programs, so that a return may find the slot of an earlier call (kprobe tier).
/// The user side writes it.
pub const SKIPS: u32 = 3;
/// Place of the word that changes whenever a listening socket is added to LISTENERS or taken out. Written by the kernel side.
pub const LISTENERS_CHANGED: u32 = 4;
/// How many words there are.
pub const CONTROL_WORDS: u32 = 5;

const _: () = assert!(size_of::<Activity>() == 24);
const _: () = assert!(size_of::<Closed>() == 16 + size_of::<Connection>());
const _: () = assert!(size_of::<Change>() == 128);
const _: () = assert!(size_of::<Reset>() == 16);
const _: () = assert!(size_of::<LostKey>() == 32);
const _: () = assert!(size_of::<LostSum>() == 24);
const _: () = assert!(size_of::<ClosedKey>() == 16);

#[cfg(feature = "user")]
mod user {
    use super::{Activity, Change, Closed, ClosedKey, LostKey, LostSum, Reset};

    // SAFETY: repr(C), integers and plain structs of them only, no padding (sizes asserted above).
    unsafe impl aya::Pod for Activity {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Closed {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Change {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Reset {}
    // SAFETY: as above.
    unsafe impl aya::Pod for LostKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for LostSum {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ClosedKey {}
}
