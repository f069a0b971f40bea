//! What a look at the listening sockets tells: for each one a [`ListenerRecord`], followed by a [`WaitingRecord`] for each client that
//! waits there, the one that came first in front. The first word of each is its kind.

use crate::connection::Listener;

/// Value of [`ListenerRecord::kind`].
pub const LISTENER: u32 = 1;
/// Value of [`WaitingRecord::kind`].
pub const WAITING: u32 = 2;

/// A look walks no further along an accept queue.
pub const MOST_WAITING: usize = 64;

/// A listening socket as it is now.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerRecord {
    /// [`LISTENER`].
    pub kind: u32,
    /// Connections in the accept queue (`sk_ack_backlog`).
    pub accept_queue: u32,
    /// The socket's kernel address.
    pub sock: u64,
    /// When this was read, nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// The same instant in the kernel's ticks.
    pub jiffies: u64,
    /// Inode number of the socket; 0 when it has none.
    pub inode: u64,
    /// The kernel's limit of the accept queue (`sk_max_ack_backlog`): one more than this fits.
    pub backlog_limit: u32,
    /// Packets to this socket that were dropped, since it was made (`sk_drops`). What is refused at the last ACK counts twice.
    pub drops: u32,
    /// Handshakes that are not complete.
    pub syn_queue: u32,
    /// Of these: such as have had no SYN-ACK sent again.
    pub syn_queue_young: u32,
    /// Not 0 when TCP_DEFER_ACCEPT is set.
    pub defer_accept: u32,
    /// Makes the padding explicit.
    pub pad: u32,
    /// Its entry in the map.
    pub listener: Listener,
}

/// A client that is connected and that nobody has accepted.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingRecord {
    /// [`WAITING`].
    pub kind: u32,
    /// TCP state, the kernel's number.
    pub state: u32,
    /// Kernel address of the listening socket.
    pub listener: u64,
    /// Kernel address of the client's own socket.
    pub sock: u64,
    /// When its entry in the connection table was made; 0 when it has none.
    pub created_ns: u64,
    /// When the handshake was completed; 0 when nobody saw it.
    pub established_ns: u64,
    /// Remote address over IPv6.
    pub remote_addr_v6: [u8; 16],
    /// Remote address over IPv4.
    pub remote_addr_v4: [u8; 4],
    /// When data was last sent to it, in the lower half of the kernel's ticks. To whom nobody has sent anything: when the socket was
    /// made (`tcp_create_openreq_child`, net/ipv4/tcp_minisocks.c).
    pub last_sent_jiffies: u32,
    /// Bytes that have arrived and that nobody has read.
    pub unread_bytes: u32,
    /// How many connections were in the accept queue when this one was put there.
    pub queued_behind: u32,
    /// Remote port, host order.
    pub remote_port: u16,
    /// Which of the two addresses it has: AF_INET or AF_INET6.
    pub family: u16,
    /// Makes the padding explicit.
    pub pad: u32,
}

const _: () = assert!(size_of::<ListenerRecord>() == 64 + size_of::<Listener>());
const _: () = assert!(size_of::<WaitingRecord>() == 80);

#[cfg(feature = "user")]
mod user {
    use super::{ListenerRecord, WaitingRecord};

    // SAFETY: repr(C), integers and plain structs of them only, no padding (sizes asserted above).
    unsafe impl aya::Pod for ListenerRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for WaitingRecord {}
}
