//! The connection table: what every call that moves bytes adds to it.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    helpers::bpf_get_current_cgroup_id,
};
use overwatch_common::{
    connection::{COMM_LEN, Connection, Share, ShareKey, flag},
    counter::Counter,
    event::{self, Activity},
};

use crate::{
    ends,
    entry::{claim, create_late, current_tgid},
    kernel::{self, Address, process_name},
    maps::{CONNECTIONS, EVENTS, SHARES, add, count, epoch, note_full},
    sockets,
    totals::{self, Sequence},
};

/// What a call moved.
#[derive(Clone, Copy)]
pub(crate) struct Moved {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// Whether a call on this socket can have moved that, by the kernel's own counters. One byte is given: urgent data is read out of turn.
#[inline(never)]
pub(crate) fn is_possible(sock: Address, sent: u64, received: u64) -> bool {
    // A call holds its file, so the socket has not been closed.
    if !sockets::is_held(sock) {
        return false;
    }
    let (mut sent_before, mut received_before) = (0, 0);
    match CONNECTIONS.get_ptr(sock) {
        // SAFETY: the pointer is from the lookup.
        Some(connection) => unsafe {
            // In CLOSE the counters may have been set back.
            if (*connection).flags & flag::CLOSED != 0 {
                return true;
            }
            (sent_before, received_before) = ((*connection).sent, (*connection).received);
        },
        // At the address of one that has gone there is another by now, which nobody has connected yet.
        None if sockets::state_of(sock) == kernel::TCP_CLOSE.load() => return false,
        None => {}
    }
    // Without what was there when the entry was made: it may have been made in the middle of this very call.
    if sent != 0 {
        return sent_before + sent <= totals::at_most_sent(sock) + 1;
    }
    received_before + received <= totals::at_most_received(sock) + 1
}

/// Puts the bytes that the current process has moved onto its share of the connection.
#[inline(always)]
pub(crate) fn account(sock: Address, moved: Moved) {
    let mut entry = CONNECTIONS.get_ptr_mut(sock);
    if let Some(connection) = entry
        // SAFETY: as below.
        && unsafe { (*connection).flags & flag::CLOSED != 0 && sockets::is_another(sock, (*connection).remote_port) }
    {
        // Left from an earlier socket at this address, since the kernel showed us neither its end nor this one's birth.
        ends::finish(sock, connection);
        entry = None;
    }
    if entry.is_none() {
        if !sockets::is_tcp(sock) {
            return;
        }
        create_late(sock, sockets::role_of(sock), &moved, None);
        entry = CONNECTIONS.get_ptr_mut(sock);
    }
    let Some(connection) = entry else {
        note_full();
        count(Counter::TableFull, 1);
        unattributed(moved);
        return;
    };
    let tgid = current_tgid();
    // SAFETY: a pointer that the map lookup gave is valid until the program ends; shared counters are only added to
    // atomically, and the rest is written by one writer or harmless to write twice.
    unsafe {
        if (*connection).tgid != tgid && ((*connection).tgid != 0 || !claim(sock, connection)) {
            account_share(sock, connection, tgid, moved.sent, moved.received);
            return;
        }
        if moved.sent != 0 {
            add(&raw mut (*connection).sent, moved.sent);
        }
        if moved.received != 0 {
            add(&raw mut (*connection).received, moved.received);
        }
        let now = epoch();
        if (*connection).epoch != now {
            (*connection).marked_sent = (*connection).sent.wrapping_sub(moved.sent);
            (*connection).marked_received = (*connection).received.wrapping_sub(moved.received);
            (*connection).epoch = now;
            announce(sock, connection, tgid);
        }
    }
}

/// Tells the user side that this process moved bytes over this connection in the running epoch, and takes the kernel's own
/// counters along: they show what we missed.
///
/// The user side raises the epoch first and reads the counters afterwards, and the programs add first and look at the
/// epoch afterwards: bytes that a drain did not see are therefore announced to the next one.
#[inline(never)]
fn announce(sock: Address, connection: *mut Connection, tgid: u32) {
    // SAFETY: as in `account`.
    let created_ns = unsafe {
        if (*connection).local_port == 0 {
            // A client whose port the kernel had not chosen yet when connect made the entry.
            sockets::fill_addresses(&mut *connection, sock);
        }
        if (*connection).flags & flag::CLOSED == 0 {
            let totals = totals::now(sock, Sequence::of(&*connection));
            (*connection).live_sent = totals.sent.saturating_sub((*connection).base_sent);
            (*connection).live_received = totals.received.saturating_sub((*connection).base_received);
        }
        (*connection).created_ns
    };
    match EVENTS.reserve::<Activity>(0) {
        Some(mut entry) => {
            entry.write(Activity { kind: event::ACTIVITY, tgid, sock, created_ns });
            entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        }
        None => count(Counter::ActivityDeferred, 1),
    }
}

/// The slower way, for a process that uses a socket which another process connected or accepted. Not inlined, like
/// everything off the fast path: the programs and their frames stay small.
#[inline(never)]
fn account_share(sock: Address, connection: *mut Connection, tgid: u32, sent: u64, received: u64) {
    let moved = Moved { sent, received };
    // SAFETY: as in `account`.
    unsafe {
        let key = ShareKey { sock, tgid, generation: (*connection).created_ns as u32 };
        let mut share = SHARES.get_ptr_mut(key);
        if share.is_none() {
            let mut fresh = Share {
                sent: 0,
                received: 0,
                cgroup_id: bpf_get_current_cgroup_id(),
                comm: [0; COMM_LEN],
                epoch: 0,
                pad: 0,
            };
            process_name(&mut fresh.comm);
            if SHARES.insert(key, &fresh, u64::from(BPF_NOEXIST)).is_ok() {
                add(&raw mut (*connection).shares, 1);
            }
            share = SHARES.get_ptr_mut(key);
        }
        let Some(share) = share else {
            count(Counter::SharesFull, 1);
            unattributed(moved);
            add(&raw mut (*connection).unattributed_sent, moved.sent);
            add(&raw mut (*connection).unattributed_received, moved.received);
            return;
        };
        add(&raw mut (*share).sent, moved.sent);
        add(&raw mut (*share).received, moved.received);
        let now = epoch();
        if (*share).epoch != now {
            (*share).epoch = now;
            announce(sock, connection, tgid);
        }
    }
}

#[inline(always)]
fn unattributed(moved: Moved) {
    if moved.sent != 0 {
        count(Counter::UnattributedSent, moved.sent);
    }
    if moved.received != 0 {
        count(Counter::UnattributedReceived, moved.received);
    }
}
