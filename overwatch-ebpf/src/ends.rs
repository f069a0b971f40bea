//! How a connection ends: its last record goes to the user side, in the ring buffer, else in a map, else into a sum.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    helpers::bpf_ktime_get_ns,
    maps::ring_buf::RingBufEntry,
};
use overwatch_common::{
    connection::{COMM_LEN, Connection, flag, role},
    counter::Counter,
    event::{self, Closed, ClosedKey, LostKey, LostSum},
};

use crate::{
    entry::{all_were_seeded, own},
    kernel::{self, Address, read},
    maps::{CONNECTIONS, DEFERRED, EVENTS, LOST, add, count, epoch},
    sockets,
    totals::{self, Sequence},
};

/// Takes the entry out of the table and hands its last record to the user side.
#[inline(never)]
pub(crate) fn finish(sock: Address, connection: *mut Connection) {
    // SAFETY: the pointer is from a lookup of this program's; nobody uses the socket any more.
    unsafe {
        if (*connection).flags & flag::HANDED_OVER == 0 {
            hand_over(sock, &*connection);
        }
    }
    let _gone = CONNECTIONS.remove(sock);
}

/// A connect failed. Whoever made it may keep the socket for long, but no byte can follow, unless it had sent some with the SYN.
#[inline(always)]
pub(crate) fn connect_failed(sock: Address, connection: &mut Connection) {
    let write_seq: u32 = read(sock, kernel::TCP_WRITE_SEQ.load());
    let unacked_seq: u32 = read(sock, kernel::TCP_SND_UNA.load());
    if write_seq.wrapping_sub(unacked_seq) <= 1 {
        hand_over(sock, connection);
        connection.flags |= flag::HANDED_OVER;
    }
}

/// Copies from map value to record or map value directly: the stack has 512 bytes.
#[inline(never)]
fn hand_over(sock: Address, connection: *const Connection) {
    // SAFETY: the pointer is from a lookup of this program's.
    let connection = unsafe { &*connection };
    if let Some(mut entry) = EVENTS.reserve::<Closed>(0) {
        let record = entry.as_mut_ptr();
        // SAFETY: the reserved record is ours until it is submitted, and all of it is written.
        unsafe {
            (*record).kind = event::CLOSED;
            (*record).pad = 0;
            (*record).sock = sock;
            core::ptr::copy_nonoverlapping(connection, &raw mut (*record).connection, 1);
        }
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        return;
    }
    let key = ClosedKey { sock, created_ns: connection.created_ns };
    if DEFERRED.insert(key, connection, u64::from(BPF_ANY)).is_ok() {
        count(Counter::ClosedDeferred, 1);
        return;
    }
    count(Counter::ClosedLost, 1);
    if connection.epoch == epoch() {
        // What earlier epochs moved has been reported; the rest will never be put on its process.
        count(Counter::UnattributedSent, connection.sent.wrapping_sub(connection.marked_sent));
        count(Counter::UnattributedReceived, connection.received.wrapping_sub(connection.marked_received));
    }
    let key = LostKey {
        comm: connection.comm,
        tgid: connection.tgid,
        netns: connection.netns,
        role: connection.role,
        pad: [0; 7],
    };
    let sent = connection.sent + connection.unattributed_sent;
    let received = connection.received + connection.unattributed_received;
    lose(
        &key,
        if sent > connection.kernel_sent { sent } else { connection.kernel_sent },
        if received > connection.kernel_received { received } else { connection.kernel_received },
    );
}

/// Adds a connection to the sums of those that will have no record.
#[inline(never)]
fn lose(key: &LostKey, sent: u64, received: u64) {
    if LOST.get_ptr(key).is_none() {
        let nothing = LostSum { connections: 0, sent: 0, received: 0 };
        let _exists_or_full = LOST.insert(key, &nothing, u64::from(BPF_NOEXIST));
    }
    if let Some(sum) = LOST.get_ptr_mut(key) {
        // SAFETY: the pointer is from the lookup, to aligned counters of a live map value.
        unsafe {
            add(&raw mut (*sum).connections, 1);
            add(&raw mut (*sum).sent, sent);
            add(&raw mut (*sum).received, received);
        }
    }
}

/// A last record of a socket without an entry, with what every such record has.
#[inline(always)]
fn fresh(sock: Address) -> Option<RingBufEntry<Closed>> {
    let mut entry = EVENTS.reserve::<Closed>(0)?;
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved record is ours until it is submitted; a Closed is integers, of which all may be 0.
    unsafe {
        core::ptr::write_bytes(record, 0, 1);
        (*record).kind = event::CLOSED;
        (*record).sock = sock;
        let connection = &mut (*record).connection;
        connection.created_ns = bpf_ktime_get_ns();
        connection.generation = connection.created_ns as u32;
        connection.closed_ns = connection.created_ns;
        connection.state = kernel::TCP_CLOSE.load();
        connection.netns = sockets::netns_of(sock);
        sockets::fill_addresses(connection, sock);
    }
    Some(entry)
}

/// A socket ends without an entry. If it was a connection, either the table was full, or the kernel has skipped every program that
/// could have made one.
#[inline(never)]
pub(crate) fn ended_unseen(sock: Address) {
    let segments: u32 =
        read::<u32>(sock, kernel::TCP_SEGMENTS_OUT.load()) | read::<u32>(sock, kernel::TCP_SEGMENTS_IN.load());
    if segments == 0 || !sockets::is_tcp(sock) {
        return;
    }
    let (sent, received) = (totals::transmitted(sock, Sequence::default()), totals::received(sock));
    if all_were_seeded(sock)
        && let Some(mut entry) = fresh(sock)
    {
        // SAFETY: as in `fresh`.
        let connection = unsafe { &mut (*entry.as_mut_ptr()).connection };
        connection.role = sockets::role_of(sock);
        connection.kernel_sent = sent;
        connection.kernel_received = received;
        connection.flags = flag::PARTIAL | flag::CLOSED;
        totals::describe(sock, connection);
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        return;
    }
    let key =
        LostKey { comm: [0; COMM_LEN], tgid: 0, netns: sockets::netns_of(sock), role: role::UNKNOWN, pad: [0; 7] };
    lose(&key, sent, received);
}

/// A connect of the current process's failed at once, before the socket changed its state.
#[inline(never)]
pub(crate) fn failed_at_once(sock: Address, remote_addr: &[u8; 16], remote_port: u16, error: u32) {
    let Some(mut entry) = fresh(sock) else {
        count(Counter::ClosedLost, 1);
        return;
    };
    // SAFETY: as in `fresh`.
    let connection = unsafe { &mut (*entry.as_mut_ptr()).connection };
    own(connection);
    connection.role = role::CLIENT;
    connection.remote_addr = *remote_addr;
    connection.remote_port = remote_port;
    connection.closed_from = kernel::TCP_SYN_SENT.load() as u8;
    connection.error = error;
    connection.flags = flag::CLOSED;
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}
