//! State transitions and the end of a socket's life: the same two tracepoints in every tier.

use aya_ebpf::{EbpfContext as _, macros::btf_tracepoint, programs::BtfTracePointContext};
use overwatch_common::connection::{flag, role};

use crate::{
    kernel::{self, Address, argument},
    maps::CONNECTIONS,
    table, totals,
};

/// tp_btf/inet_sock_set_state
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn state_changed(context: BtfTracePointContext) -> i32 {
    let context = context.as_ptr();
    transition(
        argument(context, &kernel::STATE_SK),
        argument(context, &kernel::STATE_OLD) as u32,
        argument(context, &kernel::STATE_NEW) as u32,
    );
    0
}

/// tp_btf/tcp_destroy_sock
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn destroyed(context: BtfTracePointContext) -> i32 {
    let sock = argument(context.as_ptr(), &kernel::DESTROY_SK);
    if let Some(connection) = CONNECTIONS.get_ptr_mut(sock) {
        // SAFETY: the pointer is from the lookup; the socket is being destroyed, so nobody else writes the entry.
        unsafe { totals::settle_at_end(sock, &mut *connection) };
        table::finish(sock, connection);
    } else {
        table::ended_unseen(sock);
    }
    0
}

/// A connection in CLOSE can still be read from, so its entry stays until the socket is destroyed, or connects anew.
#[inline(always)]
fn transition(sock: Address, old: u32, new: u32) {
    let entry = CONNECTIONS.get_ptr_mut(sock);
    if new == kernel::TCP_SYN_SENT.load() && old == kernel::TCP_CLOSE.load() {
        if !table::is_tcp(sock) {
            return;
        }
        if let Some(earlier) = entry {
            table::finish(sock, earlier);
        }
        // In connect(2), so the current process is the one that connects.
        table::create(sock, role::CLIENT, 0, 0, None);
        return;
    }
    let Some(connection) = entry else { return };
    if new == kernel::TCP_SYN_RECV.load() && old == kernel::TCP_LISTEN.load() {
        // A new socket: the entry is left from an earlier one at its address, whose end the kernel did not show us.
        table::finish(sock, connection);
        return;
    }
    // SAFETY: the pointer is from the lookup; transitions of one socket happen under its lock.
    let connection = unsafe { &mut *connection };
    connection.state = new;
    if new == kernel::TCP_FIN_WAIT1.load() || new == kernel::TCP_LAST_ACK.load() {
        connection.flags |= flag::FIN_SENT;
    } else if new == kernel::TCP_ESTABLISHED.load() {
        table::fill_addresses(connection, sock);
    } else if new == kernel::TCP_CLOSE.load() {
        totals::settle_at_close(sock, connection);
    }
}
