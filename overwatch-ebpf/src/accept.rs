//! Accept: the moment when a connection that a client opened gets its owner.

use aya_ebpf::{
    EbpfContext as _,
    helpers::bpf_ktime_get_ns,
    macros::{fexit, kretprobe, tracepoint},
    programs::{FExitContext, RetProbeContext, TracePointContext},
};
use overwatch_common::connection::role;

use crate::{
    changes::{self, Transition},
    ends, entry,
    kernel::{self, Address, argument},
    maps::{CONNECTIONS, note_full},
    sockets,
    table::Moved,
};

/// The child's entry belongs to the process that accepts, until another one moves bytes over it.
#[inline(always)]
fn accepted(sock: Address) {
    if sock == 0 || !sockets::is_tcp(sock) {
        return;
    }
    let mut entry = CONNECTIONS.get_ptr_mut(sock);
    if let Some(earlier) = entry
        // SAFETY: the pointer is from the lookup.
        && sockets::is_another(sock, unsafe { (*earlier).remote_port })
    {
        // Left behind by a socket whose end we did not see.
        ends::finish(sock, earlier);
        entry = None;
    }
    if entry.is_none() {
        entry::create_late(sock, role::SERVER, &Moved { sent: 0, received: 0 }, None);
        entry = CONNECTIONS.get_ptr_mut(sock);
    }
    let Some(connection) = entry else {
        note_full();
        return;
    };
    // SAFETY: the pointer is from the lookup. Transitions may write the entry at the same time, but not the words that an accept
    // writes, nor flags, which only they write.
    unsafe {
        let connection = &mut *connection;
        let now = bpf_ktime_get_ns();
        if connection.accepted_ns == 0 {
            connection.accepted_ns = now;
        }
        if connection.remote_port == 0 {
            // With TCP Fast Open it is accepted before it is established.
            sockets::fill_addresses(connection, sock);
        }
        if connection.tgid == 0 {
            entry::own(connection);
        }
        changes::tell(sock, connection, &Transition::none(connection, now));
    }
}

/// fexit of `struct sock *inet_csk_accept(struct sock *sk, ...)`
#[fexit(function = "inet_csk_accept")]
pub(crate) fn accept_exit(context: FExitContext) -> i32 {
    accepted(argument(context.as_ptr(), &kernel::ACCEPT_RETURN));
    0
}

/// kretprobe of inet_csk_accept
#[kretprobe]
pub(crate) fn accept_return(context: RetProbeContext) -> u32 {
    accepted(context.ret::<u64>());
    0
}

/// tracepoints syscalls/sys_exit_accept and sys_exit_accept4, where the other tiers are not to be had
#[tracepoint]
pub(crate) fn accept_syscall(context: TracePointContext) -> u32 {
    // SAFETY: BTF told where the result stands in the record; the verifier checks the bound.
    let result: i64 = unsafe { context.read_at(kernel::SYSCALL_EXIT_RET.load() as usize) }.unwrap_or(-1);
    if result >= 0
        && let Some(sock) = sockets::of_descriptor(result as u64).and_then(sockets::first_subflow)
    {
        accepted(sock);
    }
    0
}
