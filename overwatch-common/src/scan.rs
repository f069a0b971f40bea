//! Records of the listener scan: for each listening socket one [`ListenerRecord`], followed by a [`WaitingRecord`] per client in its
//! accept queue, the oldest first. The first word of each record is its kind.

use crate::connection::Listener;

/// Value of [`ListenerRecord::kind`].
pub const LISTENER: u32 = 1;
/// Value of [`WaitingRecord::kind`].
pub const WAITING: u32 = 2;

/// Waiting clients that are read of one accept queue.
pub const MOST_WAITING: usize = 64;

/// Size of the scan's ring buffer in bytes. The kernel wants a power of two of at least a page.
pub const SCAN_BYTES: u32 = 64 * 1024;

/// Listening sockets of one run; no tracepoint has more arguments (`MAX_BPF_FUNC_ARGS`, include/linux/bpf.h).
pub const BATCH: usize = 12;

/// Bytes that a ring buffer needs beside each record.
const RECORD_HEADER: usize = 8;

const _: () = assert!(BATCH * (size_of::<ListenerRecord>() + RECORD_HEADER) < SCAN_BYTES as usize);
const _: () = assert!(MOST_WAITING * (size_of::<WaitingRecord>() + RECORD_HEADER) < SCAN_BYTES as usize);

/// What the scan programs return.
pub mod result {
    /// The program has run. For listening sockets, bit N says that the Nth of them has connections in its accept queue.
    pub const DONE: u32 = 1 << 16;
    /// The ring buffer had no room for a record. Above all other bits, also when it is shifted by the number of a socket.
    pub const NO_ROOM: u32 = 1 << 17;
}

/// State of a listening socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerRecord {
    /// [`LISTENER`].
    pub kind: u32,
    /// Connections in the accept queue (`sk_ack_backlog`).
    pub accept_queue: u32,
    /// Kernel address of the socket.
    pub sock: u64,
    /// When this was read, nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// The same instant in jiffies.
    pub jiffies: u64,
    /// Limit of the accept queue (`sk_max_ack_backlog`): one more than this fits.
    pub backlog_limit: u32,
    /// Packets to this socket that were dropped since the socket was made (`sk_drops`). A refusal at the last ACK counts twice.
    pub drops: u32,
    /// Half-open connections.
    pub syn_queue: u32,
    /// Half-open connections whose SYN-ACK was sent only once.
    pub syn_queue_young: u32,
    /// Not 0 when TCP_DEFER_ACCEPT is set.
    pub defer_accept: u32,
    /// Makes the padding explicit.
    pub pad: u32,
    /// Its entry in the map LISTENERS, with the inode and port of this instant.
    pub listener: Listener,
}

/// An established connection in the accept queue.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingRecord {
    /// [`WAITING`].
    pub kind: u32,
    /// TCP state, the kernel's number.
    pub state: u32,
    /// Kernel address of the listening socket.
    pub listener: u64,
    /// Kernel address of the connection's own socket.
    pub sock: u64,
    /// When its entry in the connection table was made; 0 without an entry.
    pub created_ns: u64,
    /// When the handshake was completed; 0 when that was not seen.
    pub established_ns: u64,
    /// Remote address over IPv6.
    pub remote_addr_v6: [u8; 16],
    /// Remote address over IPv4.
    pub remote_addr_v4: [u8; 4],
    /// When data was last sent to the client, in the lower half of the kernel's jiffies. Before any was sent: when the socket was made
    /// (`tcp_create_openreq_child`, net/ipv4/tcp_minisocks.c, v6.12).
    pub last_sent_jiffies: u32,
    /// Bytes that have arrived and that no process has read.
    pub unread_bytes: u32,
    /// Connections that were in the accept queue when this one was queued.
    pub queued_behind: u32,
    /// Remote port, host order.
    pub remote_port: u16,
    /// AF_INET or AF_INET6: which of the two addresses is valid.
    pub family: u16,
    /// Makes the padding explicit.
    pub pad: u32,
}

const _: () = assert!(size_of::<ListenerRecord>() == 56 + size_of::<Listener>());
const _: () = assert!(size_of::<WaitingRecord>() == 80);

#[cfg(feature = "user")]
mod user {
    use super::{ListenerRecord, WaitingRecord};

    // SAFETY: repr(C), integers and plain structs of them only, no padding (sizes asserted above).
    unsafe impl aya::Pod for ListenerRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for WaitingRecord {}
}
