//! What the kernel itself knows of the bytes that an application handed to a socket and took from it.

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
    let by_payload = all.saturating_sub(again);
    let by_sequence = (acked + ahead(next_seq, unacked_seq))
        .saturating_sub(u64::from(sequence.syn))
        .saturating_sub(u64::from(fin_left));
    if by_payload < by_sequence { by_payload } else { by_sequence }
}

/// What waits to be transmitted, without our FIN.
#[inline(always)]
fn queued(sock: Address, sequence: Sequence) -> u64 {
    let write_seq: u32 = read(sock, kernel::TCP_WRITE_SEQ.load());
    let next_seq: u32 = read(sock, kernel::TCP_SND_NXT.load());
    ahead(write_seq, next_seq).saturating_sub(u64::from(sequence.fin))
}

/// How far one sequence number is ahead of another; 0 when it is behind, having been read too early.
#[inline(always)]
fn ahead(later: u32, earlier: u32) -> u64 {
    let distance = later.wrapping_sub(earlier);
    if distance > i32::MAX as u32 { 0 } else { u64::from(distance) }
}

/// What arrived less what was not read yet, so data that was never read does not count. The peer's FIN, which occupies a
/// sequence number, is taken out.
#[inline(always)]
pub(crate) fn received(sock: Address) -> u64 {
    let arrived: u64 = read(sock, kernel::TCP_BYTES_RECEIVED.load());
    let next_seq: u32 = read(sock, kernel::TCP_RCV_NXT.load());
    let copied_seq: u32 = read(sock, kernel::TCP_COPIED_SEQ.load());
    let flags: u64 = read(sock, kernel::SOCK_FLAGS.load());
    let fin_arrived = flags >> (kernel::SOCK_DONE.load() & 63) & 1;
    let taken = arrived.saturating_sub(ahead(next_seq, copied_seq));
    let data = arrived.saturating_sub(fin_arrived);
    if taken < data { taken } else { data }
}

/// Writes the kernel's counters into the entry for good when the socket reaches CLOSE, under its lock and before
/// tcp_disconnect resets them.
#[inline(always)]
pub(crate) fn settle_at_close(sock: Address, connection: &mut Connection) {
    let totals = now(sock, Sequence::of(connection));
    connection.kernel_sent = totals.sent.saturating_sub(connection.base_sent);
    connection.kernel_received = totals.received.saturating_sub(connection.base_received);
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
    if connection.flags & flag::CLOSED == 0 {
        // Without what is queued: tcp_disconnect moves write_seq far ahead (net/ipv4/tcp.c).
        let sent = transmitted(sock, Sequence::of(connection)).saturating_sub(connection.base_sent);
        if sent > connection.kernel_sent {
            connection.kernel_sent = sent;
        }
        connection.flags |= flag::CLOSED;
        connection.state = kernel::TCP_CLOSE.load();
    }
}
