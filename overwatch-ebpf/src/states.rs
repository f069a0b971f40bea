//! State transitions and the end of a socket's life: the same two tracepoints in every tier, each with two programs.
//!
//! Kernels that preempt in tracepoints (Linux 7) skip a BTF program while an interrupted task is inside it. The kernel skips those that
//! get the tracepoint's record, too, but at other times. So each is there twice, and whichever comes second finds that there is
//! nothing left to do. Which that is depends on who else uses the tracepoint: the kernel runs the programs of all records where
//! the first user of records has got in line.

use aya_ebpf::{bindings::BPF_ANY, helpers::bpf_ktime_get_ns, macros::tracepoint, programs::TracePointContext};
use overwatch_common::connection::{Connection, flag, role, seen};

use crate::{
    changes::{self, Transition},
    ends,
    entry::{self, NOBODY},
    kernel::{self, Address, argument, at_tracepoint},
    listeners,
    maps::{CONNECTIONS, ENDED_AGAIN, note_full},
    sockets,
    table::Moved,
    totals,
};

/// What a connection has moved when it begins.
static NOTHING: Moved = Moved { sent: 0, received: 0 };

/// Reads a field of a tracepoint's record, whose place BTF told; 0 where the verifier would not let it.
macro_rules! field {
    ($context:expr, $place:ident) => {
        // SAFETY: the place is within the record; the verifier checks the bound.
        unsafe { $context.read_at(kernel::$place.load() as usize) }.unwrap_or_default()
    };
}

at_tracepoint!("inet_sock_set_state", state_changed, state_changed_raw, by_arguments);

#[inline(always)]
fn by_arguments(context: *const core::ffi::c_void) {
    transition(
        argument(context, &kernel::STATE_SK),
        argument(context, &kernel::STATE_OLD) as u32,
        argument(context, &kernel::STATE_NEW) as u32,
        seen::BY_ARGUMENTS,
    );
}

/// tracepoint sock:inet_sock_set_state
#[tracepoint]
pub(crate) fn state_changed_again(context: TracePointContext) -> u32 {
    transition(
        field!(context, STATE_RECORD_SOCK),
        field!(context, STATE_RECORD_OLD),
        field!(context, STATE_RECORD_NEW),
        seen::BY_RECORD,
    );
    0
}

at_tracepoint!("tcp_destroy_sock", destroyed, destroyed_raw, destroyed_by_arguments);

#[inline(always)]
fn destroyed_by_arguments(context: *const core::ffi::c_void) {
    let sock = argument(context, &kernel::DESTROY_SK);
    if finished(sock) || ENDED_AGAIN.remove(sock).is_ok() || listeners::ended(sock) {
        return;
    }
    ends::ended_unseen(sock);
}

/// tracepoint tcp:tcp_destroy_sock. A socket without an entry is nothing to it: the other program has seen its end, or will.
#[tracepoint]
pub(crate) fn destroyed_again(context: TracePointContext) -> u32 {
    let sock: Address = field!(context, DESTROY_RECORD_SOCK);
    if finished(sock) {
        let _always_room = ENDED_AGAIN.insert(sock, &1, u64::from(BPF_ANY));
    }
    0
}

/// Hands the last record over; false when the socket has no entry.
#[inline(always)]
fn finished(sock: Address) -> bool {
    let Some(connection) = CONNECTIONS.get_ptr_mut(sock) else {
        return false;
    };
    // SAFETY: the pointer is from the lookup; the socket is being destroyed, so nobody else writes the entry.
    unsafe { totals::settle_at_end(sock, &mut *connection) };
    ends::finish(sock, connection);
    true
}

/// A connection in CLOSE can still be read from, so its entry stays until the socket is destroyed, or connects anew.
#[inline(always)]
fn transition(sock: Address, old: u32, new: u32, program: u8) {
    // A close of what is closed is none.
    if old == new || !sockets::is_tcp(sock) {
        return;
    }
    let listen = kernel::TCP_LISTEN.load();
    let is_child = old == listen && new == kernel::TCP_SYN_RECV.load();
    if new == listen {
        listeners::began(sock, old, program);
        return;
    }
    if old == listen && !is_child {
        listeners::closed(sock, new);
        return;
    }
    let known = CONNECTIONS.get_ptr_mut(sock);
    if let Some(connection) = known
        // SAFETY: the pointer is from the lookup; transitions of one socket happen under its lock.
        && unsafe { (*connection).state } == new
    {
        // The other program was here.
        return;
    }
    let connects = new == kernel::TCP_SYN_SENT.load() && old == kernel::TCP_CLOSE.load();
    if connects || is_child {
        if let Some(earlier) = known {
            // The socket connects again, or the entry is of an earlier one at its address, whose end nobody showed us.
            ends::finish(sock, earlier);
        }
        if connects {
            // In connect(2), so the current process is the one that connects.
            entry::create(sock, role::CLIENT, 0, &NOTHING, None);
        } else {
            entry::create(sock, role::SERVER, 0, &NOTHING, Some(&NOBODY));
        }
    } else if known.is_none() {
        entry::create_late(sock, sockets::role_of(sock), &NOTHING, Some(&NOBODY));
    }
    let Some(connection) = CONNECTIONS.get_ptr_mut(sock) else {
        note_full();
        return;
    };
    // SAFETY: as above.
    advance(sock, unsafe { &mut *connection }, old, new);
}

/// Notes a transition in the entry.
#[inline(never)]
fn advance(sock: Address, connection: &mut Connection, old: u32, new: u32) {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // Where one is missing before this one, nobody knows since when.
    let since_ns = if connection.state == old { connection.state_ns } else { 0 };
    connection.state = new;
    connection.state_ns = now;
    if connection.local_port == 0 || connection.remote_port == 0 {
        sockets::fill_addresses(connection, sock);
    }
    if connection.role == role::SERVER && connection.flags & flag::ACCEPTED == 0 && sockets::is_held(sock) {
        // Somebody must have accepted it, also where no hook has shown who. Who ends it is the owner.
        connection.flags |= flag::ACCEPTED;
        if connection.accepted_ns == 0 && connection.flags & flag::PARTIAL == 0 && sockets::is_held_alone(sock) {
            connection.flags |= flag::ACCEPT_MISSED;
        }
        if connection.tgid == 0 && (new == kernel::TCP_FIN_WAIT1.load() || new == kernel::TCP_LAST_ACK.load()) {
            entry::own(connection);
        }
    }
    if new == kernel::TCP_ESTABLISHED.load() {
        sockets::fill_addresses(connection, sock);
        connection.flags |= flag::ESTABLISHED;
        connection.established_ns = now;
        if connection.role == role::SERVER {
            // The first measurement is the handshake (tcp_synack_rtt_meas, net/ipv4/tcp_input.c); none with SYN cookies, or
            // when the SYN-ACK was sent more than once.
            connection.handshake_us = totals::smoothed_rtt_us(sock);
        }
    } else if new == kernel::TCP_FIN_WAIT1.load() {
        connection.flags |= flag::FIN_SENT | flag::CLOSED_FIRST;
    } else if new == kernel::TCP_LAST_ACK.load() {
        connection.flags |= flag::FIN_SENT;
    } else if new == kernel::TCP_CLOSE_WAIT.load() || new == kernel::TCP_CLOSING.load() {
        connection.flags |= flag::PEER_CLOSED;
    } else if new == kernel::TCP_CLOSE.load() {
        connection.closed_ns = now;
        connection.closed_from = old as u8;
        totals::settle_at_close(sock, connection);
    }
    changes::tell(sock, connection, &Transition { old, new, since_ns, time_ns: now });
    if new == kernel::TCP_CLOSE.load() && old == kernel::TCP_SYN_SENT.load() && connection.error != 0 {
        ends::connect_failed(sock, connection);
    }
}
