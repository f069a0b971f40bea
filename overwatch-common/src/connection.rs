//! The connection table: one entry per socket, and one share per further process that uses the socket.

/// Longest process name the kernel keeps, with its terminating zero (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;

/// Who opened a connection, as far as is known.
pub mod role {
    /// Not known.
    pub const UNKNOWN: u8 = 0;
    /// This end called connect.
    pub const CLIENT: u8 = 1;
    /// This end was accepted from a listener.
    pub const SERVER: u8 = 2;
}

/// Numbers of TCP states (include/net/tcp_states.h), which are part of the kernel's interface to users.
pub mod state {
    /// Data flows.
    pub const ESTABLISHED: u32 = 1;
    /// A SYN was sent.
    pub const SYN_SENT: u32 = 2;
    /// A SYN was answered.
    pub const SYN_RECV: u32 = 3;
    /// Our FIN was sent, and is not confirmed.
    pub const FIN_WAIT1: u32 = 4;
    /// Our FIN was confirmed.
    pub const FIN_WAIT2: u32 = 5;
    /// Both ends have closed; late segments are waited for.
    pub const TIME_WAIT: u32 = 6;
    /// Nothing any more.
    pub const CLOSE: u32 = 7;
    /// The peer's FIN has come.
    pub const CLOSE_WAIT: u32 = 8;
    /// The peer's FIN has come, and ours was sent.
    pub const LAST_ACK: u32 = 9;
    /// Connections are waited for.
    pub const LISTEN: u32 = 10;
    /// Both FINs crossed.
    pub const CLOSING: u32 = 11;
}

/// Bits of [`Listener::seen`]: which of the two programs at the tracepoint have seen it begin.
pub mod seen {
    /// The one that gets the tracepoint's arguments.
    pub const BY_ARGUMENTS: u8 = 1;
    /// The one that gets its record.
    pub const BY_RECORD: u8 = 1 << 1;
    /// It was found: neither will see it begin any more.
    pub const BOTH: u8 = BY_ARGUMENTS | BY_RECORD;
}

/// Bits of [`Connection::flags`].
pub mod flag {
    /// This end queued its FIN after the entry was made.
    pub const FIN_SENT: u32 = 1;
    /// The socket reached CLOSE: `kernel_sent` and `kernel_received` are final, but for data that is still read.
    pub const CLOSED: u32 = 1 << 1;
    /// This end's FIN came before the peer's.
    pub const CLOSED_FIRST: u32 = 1 << 2;
    /// The peer's FIN has come.
    pub const PEER_CLOSED: u32 = 1 << 3;
    /// The handshake was completed.
    pub const ESTABLISHED: u32 = 1 << 4;
    /// A process has accepted it although that was not seen (see [`super::Connection::is_accepted`]).
    pub const ACCEPTED: u32 = 1 << 5;
    /// This end sent a RST.
    pub const RESET_SENT: u32 = 1 << 6;
    /// A RST of the peer's was obeyed.
    pub const RESET_RECEIVED: u32 = 1 << 7;
    /// Its beginning was not seen: it was open before overwatch, or the kernel skipped a program.
    pub const PARTIAL: u32 = 1 << 8;
    /// Its last record has been handed over, although the socket lives on.
    pub const HANDED_OVER: u32 = 1 << 9;
    /// A process has accepted it since the entry was made, and no hook has told of that: the kernel skipped its program.
    pub const ACCEPT_MISSED: u32 = 1 << 10;
}

/// One socket's entry in the connection table. The key is the socket's kernel address; together with
/// `created_ns` it names a connection for ever, although the kernel uses addresses again.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// When the entry was made, nanoseconds of CLOCK_MONOTONIC.
    pub created_ns: u64,
    /// Bytes that the owner's calls have sent.
    pub sent: u64,
    /// Bytes that the owner's calls have received.
    pub received: u64,
    /// `sent` when the current epoch's first call on this socket began: what is above it is not reported yet.
    pub marked_sent: u64,
    /// `received`, likewise.
    pub marked_received: u64,
    /// Bytes on this socket by processes whose share did not fit into the table of shares.
    pub unattributed_sent: u64,
    /// Likewise, received.
    pub unattributed_received: u64,
    /// The kernel's own count of bytes sent when the entry was made (see `kernel_sent`).
    pub base_sent: u64,
    /// The kernel's own count of bytes received when the entry was made.
    pub base_received: u64,
    /// Bytes that the application handed to the socket by the kernel's own counters, when the entry was last announced. Read
    /// while the kernel may be changing them.
    pub live_sent: u64,
    /// Bytes that the application took from the socket by the kernel's own counters, likewise.
    pub live_received: u64,
    /// Bytes that the application handed to the socket by the kernel's own counters, at close.
    pub kernel_sent: u64,
    /// Bytes that the application took from the socket by the kernel's own counters, at close.
    pub kernel_received: u64,
    /// When the handshake was completed, nanoseconds of CLOCK_MONOTONIC; 0 when it was not, or nobody saw it.
    pub established_ns: u64,
    /// When a process accepted it, likewise.
    pub accepted_ns: u64,
    /// When it reached CLOSE, likewise.
    pub closed_ns: u64,
    /// When the present state began, likewise.
    pub state_ns: u64,
    /// Control group (version 2) of the owner when it became the owner.
    pub cgroup_id: u64,
    /// How many further processes have a share of this connection.
    pub shares: u64,
    /// Kernel address of the listening socket by which it was accepted; 0 when it was not, or that was not seen.
    pub listener: u64,
    /// Local address; IPv4 is stored v4-mapped.
    pub local_addr: [u8; 16],
    /// Remote address; IPv4 is stored v4-mapped.
    pub remote_addr: [u8; 16],
    /// Name of the owner process (of its main thread).
    pub comm: [u8; COMM_LEN],
    /// Owner process (thread group id in the initial pid namespace); 0 when there is none, or it is not known.
    pub tgid: u32,
    /// Network namespace of the socket (inode number).
    pub netns: u32,
    /// The last epoch in which this entry was announced.
    pub epoch: u32,
    /// See [`flag`].
    pub flags: u32,
    /// From the SYN-ACK to the final ACK, microseconds (server); 0 when not known.
    pub handshake_us: u32,
    /// Smoothed round-trip time at CLOSE, microseconds; 0 when the kernel has none.
    pub smoothed_rtt_us: u32,
    /// Segments sent, at CLOSE.
    pub segments_sent: u32,
    /// Segments received, at CLOSE.
    pub segments_received: u32,
    /// Segments sent again, at CLOSE.
    pub retransmits: u32,
    /// Segments that the kernel took for lost, at CLOSE.
    pub lost_segments: u32,
    /// The socket's error at CLOSE, or that of a connect that failed (errno); 0 for none.
    pub error: u32,
    /// Bytes that had arrived and were never read.
    pub unread: u32,
    /// Local port, host order.
    pub local_port: u16,
    /// Remote port, host order.
    pub remote_port: u16,
    /// TCP state, the kernel's number.
    pub state: u32,
    /// See [`role`].
    pub role: u8,
    /// The state that it left for CLOSE; 0 when not known.
    pub closed_from: u8,
    /// Number of the last audit that found the socket.
    pub audit: u16,
    /// The low half of `created_ns` again, in the last place: the kernel copies entries while it writes them, and an entry
    /// whose two ends differ is of two connections.
    pub generation: u32,
}

/// Key of a share: the connection and the process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShareKey {
    /// The socket's kernel address.
    pub sock: u64,
    /// The process.
    pub tgid: u32,
    /// The low half of the connection's `created_ns`: tells it from an earlier one at the same address.
    pub generation: u32,
}

/// What one further process has moved over a connection that another process owns.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Bytes sent by this process.
    pub sent: u64,
    /// Bytes received by this process.
    pub received: u64,
    /// Control group (version 2) of the process.
    pub cgroup_id: u64,
    /// Name of the process.
    pub comm: [u8; COMM_LEN],
    /// The last epoch in which this share was announced.
    pub epoch: u32,
    /// Makes the padding explicit.
    pub pad: u32,
}

/// A process that holds a socket which was open before overwatch started; the table is keyed by inode.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Name of the process.
    pub comm: [u8; COMM_LEN],
    /// The process.
    pub tgid: u32,
    /// Makes the padding explicit.
    pub pad: u32,
    /// Control group (version 2) of the process, 0 when not known.
    pub cgroup_id: u64,
}

/// A listening socket, keyed by its kernel address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Since when it listens, nanoseconds of CLOCK_MONOTONIC; 0 when that was before overwatch.
    pub since_ns: u64,
    /// Control group (version 2) of the process that listens, 0 when not known.
    pub cgroup_id: u64,
    /// Inode number of the socket; 0 when no process has it open.
    pub inode: u64,
    /// SYNs that were refused because the accept queue was full.
    pub overflows_syn: u64,
    /// Handshakes whose last ACK was refused because the accept queue was full.
    pub overflows_ack: u64,
    /// SYNs that were refused because there were more in the SYN queue than its limit, and there are no cookies.
    pub syn_queue_overflows: u64,
    /// SYNs that found as many in the SYN queue as its limit. Some kernels let one more in, and others do not.
    pub syn_queue_at_limit: u64,
    /// SYNs that were answered with a cookie.
    pub syn_cookies: u64,
    /// The address it is bound to; IPv4 is stored v4-mapped.
    pub local_addr: [u8; 16],
    /// Name of the process that listens.
    pub comm: [u8; COMM_LEN],
    /// The process that listens; 0 when not known.
    pub tgid: u32,
    /// Network namespace of the socket (inode number).
    pub netns: u32,
    /// The port, host order.
    pub local_port: u16,
    /// Number of the last audit that found the socket.
    pub audit: u16,
    /// See [`seen`].
    pub seen: u8,
    /// Makes the padding explicit.
    pub pad: [u8; 3],
}

/// The call of a thread that has entered a probed function and not yet returned (kprobe tier only), keyed by thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// The socket's kernel address; 0 when the thread is in no such call.
    pub sock: u64,
}

/// The connect of a thread that has not returned (kprobe tier only), keyed by thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connecting {
    /// The socket's kernel address.
    pub sock: u64,
    /// Kernel address of the `sockaddr`.
    pub address: u64,
}

impl Connection {
    /// True when some process has accepted it, as far as anybody can tell.
    pub fn is_accepted(&self) -> bool {
        self.accepted_ns != 0 || self.tgid != 0 || self.flags & flag::ACCEPTED != 0
    }
}

const _: () = assert!(size_of::<Connection>() == 272);
const _: () = assert!(size_of::<ShareKey>() == 16);
const _: () = assert!(size_of::<Share>() == 48);
const _: () = assert!(size_of::<Owner>() == 32);
const _: () = assert!(size_of::<Listener>() == 112);
const _: () = assert!(size_of::<InFlight>() == 8);
const _: () = assert!(size_of::<Connecting>() == 16);

#[cfg(feature = "user")]
mod user {
    use super::{Connecting, Connection, InFlight, Listener, Owner, Share, ShareKey};

    // SAFETY: repr(C), integers and arrays of them only, no padding (sizes asserted above).
    unsafe impl aya::Pod for Connection {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ShareKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Share {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Owner {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Listener {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InFlight {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Connecting {}
}
