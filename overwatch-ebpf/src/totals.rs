//! What the kernel itself knows of the bytes that an application handed to a socket and took from it.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use overwatch_common::connection::{Connection, flag, role};

use crate::{
    kernel::{self, Address, read},
    table::Moved,
};

/// Which of our flags took a number in the sequence of bytes sent.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sequence {
    syn: bool,
    fin: bool,
}

impl Sequence {
    /// As far as we know. Who opened the connection sent a SYN, also before we saw it.
    #[inline(always)]
    pub(crate) fn of(connection: &Connection) -> Self {
        Self { syn: connection.role == role::CLIENT, fin: connection.flags & flag::FIN_SENT != 0 }
    }
}

/// Bytes sent are those transmitted and those still queued; bytes received are those that the application has taken.
///
/// Read without the socket's lock: where another CPU changes the counters in between, the sum is too small for a moment.
#[inline(always)]
pub(crate) fn now(sock: Address, sequence: Sequence) -> Moved {
    let transmitted = transmitted(sock, sequence);
    Moved { sent: transmitted + queued(sock, sequence), received: received(sock) }
}

/// More than this was certainly not sent. Read in an order in which another CPU can only make it too large, and with our SYN and FIN.
#[inline(always)]
pub(crate) fn at_most_sent(sock: Address) -> u64 {
    let unacked_seq: u32 = read(sock, kernel::TCP_SND_UNA.load());
    let write_seq: u32 = read(sock, kernel::TCP_WRITE_SEQ.load());
    let acked: u64 = read(sock, kernel::TCP_BYTES_ACKED.load());
    acked + ahead(write_seq, unacked_seq)
}

/// More than this was certainly not received, likewise, and with the peer's FIN.
#[inline(always)]
pub(crate) fn at_most_received(sock: Address) -> u64 {
    let copied_seq: u32 = read(sock, kernel::TCP_COPIED_SEQ.load());
    let next_seq: u32 = read(sock, kernel::TCP_RCV_NXT.load());
    let arrived: u64 = read(sock, kernel::TCP_BYTES_RECEIVED.load());
    less(arrived, ahead(next_seq, copied_seq))
}

/// Payload that was transmitted, each byte once.
///
/// Two counts, of which the smaller is right. `bytes_sent - bytes_retrans` needs no knowledge of SYN and FIN, but counts a
/// packet again each time it could not leave the host (`__tcp_transmit_skb` adds before it knows, net/ipv4/tcp_output.c).
/// `bytes_acked + (snd_nxt - snd_una)` does not, but has our SYN and FIN in it.
#[inline(always)]
pub(crate) fn transmitted(sock: Address, sequence: Sequence) -> u64 {
    let all: u64 = read(sock, kernel::TCP_BYTES_SENT.load());
    let again: u64 = read(sock, kernel::TCP_BYTES_RETRANS.load());
    let acked: u64 = read(sock, kernel::TCP_BYTES_ACKED.load());
    let unacked_seq: u32 = read(sock, kernel::TCP_SND_UNA.load());
    let next_seq: u32 = read(sock, kernel::TCP_SND_NXT.load());
    let write_seq: u32 = read(sock, kernel::TCP_WRITE_SEQ.load());
    let fin_left = sequence.fin && write_seq == next_seq;
    let by_sequence = less(acked + ahead(next_seq, unacked_seq), u64::from(sequence.syn) + u64::from(fin_left));
    smaller(less(all, again), by_sequence)
}

/// What waits to be transmitted, without our FIN.
#[inline(always)]
fn queued(sock: Address, sequence: Sequence) -> u64 {
    let write_seq: u32 = read(sock, kernel::TCP_WRITE_SEQ.load());
    let next_seq: u32 = read(sock, kernel::TCP_SND_NXT.load());
    less(ahead(write_seq, next_seq), u64::from(sequence.fin))
}

/// How far one sequence number is ahead of another; 0 when it is behind, having been read too early.
#[inline(always)]
fn ahead(later: u32, earlier: u32) -> u64 {
    above_zero(i64::from(later.wrapping_sub(earlier) as i32))
}

/// The number, or 0 when it is negative. Without a branch, which kernels up to 6.1 would follow both ways in all combinations.
#[inline(always)]
fn above_zero(number: i64) -> u64 {
    let mut sign = number;
    // SAFETY: shifts a register; in assembly since the compiler would know it for a branch.
    unsafe { core::arch::asm!("{sign} s>>= 63", sign = inout(reg) sign) };
    (number & !sign) as u64
}

/// `from - what`, or 0. Byte counts do not come near 2^63.
#[inline(always)]
fn less(from: u64, what: u64) -> u64 {
    above_zero(from.wrapping_sub(what) as i64)
}

/// The smaller of two.
#[inline(always)]
fn smaller(one: u64, other: u64) -> u64 {
    one - less(one, other)
}

/// What arrived less what was not read yet, so data that was never read does not count. The peer's FIN is taken out.
#[inline(always)]
pub(crate) fn received(sock: Address) -> u64 {
    let arrived: u64 = read(sock, kernel::TCP_BYTES_RECEIVED.load());
    let next_seq: u32 = read(sock, kernel::TCP_RCV_NXT.load());
    let copied_seq: u32 = read(sock, kernel::TCP_COPIED_SEQ.load());
    smaller(less(arrived, ahead(next_seq, copied_seq)), less(arrived, fin_arrived(sock)))
}

/// What has arrived and was not read.
#[inline(always)]
pub(crate) fn unread(sock: Address) -> u64 {
    let next_seq: u32 = read(sock, kernel::TCP_RCV_NXT.load());
    let copied_seq: u32 = read(sock, kernel::TCP_COPIED_SEQ.load());
    less(ahead(next_seq, copied_seq), fin_arrived(sock))
}

/// 1 when the peer's FIN has come, which occupies a sequence number.
#[inline(always)]
fn fin_arrived(sock: Address) -> u64 {
    let flags: u64 = read(sock, kernel::SOCK_FLAGS.load());
    flags >> (kernel::SOCK_DONE.load() & 63) & 1
}

/// The kernel keeps it in eighths (`tcp_sock.srtt_us`).
#[inline(always)]
pub(crate) fn smoothed_rtt_us(sock: Address) -> u32 {
    read::<u32>(sock, kernel::TCP_SRTT_US.load()) >> 3
}

/// Writes what the kernel knows besides bytes into the entry.
#[inline(always)]
pub(crate) fn describe(sock: Address, connection: &mut Connection) {
    connection.smoothed_rtt_us = smoothed_rtt_us(sock);
    connection.segments_sent = read(sock, kernel::TCP_SEGMENTS_OUT.load());
    connection.segments_received = read(sock, kernel::TCP_SEGMENTS_IN.load());
    connection.retransmits = read(sock, kernel::TCP_TOTAL_RETRANS.load());
    connection.lost_segments = read(sock, kernel::TCP_LOST.load());
    connection.error = read(sock, kernel::SOCK_ERROR.load());
    connection.unread = unread(sock) as u32;
}

/// Writes the kernel's counters into the entry for good when the socket reaches CLOSE, under its lock and before
/// tcp_disconnect resets them.
#[inline(always)]
pub(crate) fn settle_at_close(sock: Address, connection: &mut Connection) {
    describe(sock, connection);
    let totals = now(sock, Sequence::of(connection));
    connection.kernel_sent = less(totals.sent, connection.base_sent);
    connection.kernel_received = less(totals.received, connection.base_received);
    connection.flags |= flag::CLOSED;
}

/// Completes them when the socket is destroyed: data that had arrived before CLOSE may have been read after it, and the
/// kernel may have skipped the program at CLOSE. What tcp_disconnect has reset is smaller than what was known before.
#[inline(always)]
pub(crate) fn settle_at_end(sock: Address, connection: &mut Connection) {
    let received = received(sock).saturating_sub(connection.base_received);
    if received > connection.kernel_received {
        connection.kernel_received = received;
    }
    let arrived: u64 = read(sock, kernel::TCP_BYTES_RECEIVED.load());
    let unread = unread(sock) as u32;
    // Nothing that has arrived: tcp_disconnect has reset it all.
    if arrived != 0 && unread < connection.unread {
        connection.unread = unread;
    }
    if connection.flags & flag::CLOSED == 0 {
        // Without what is queued: tcp_disconnect moves write_seq far ahead (net/ipv4/tcp.c).
        let sent = transmitted(sock, Sequence::of(connection)).saturating_sub(connection.base_sent);
        if sent > connection.kernel_sent {
            connection.kernel_sent = sent;
        }
        describe(sock, connection);
        // SAFETY: no arguments.
        connection.closed_ns = unsafe { bpf_ktime_get_ns() };
        connection.flags |= flag::CLOSED;
        connection.state = kernel::TCP_CLOSE.load();
    }
}
