//! Accept: the moment when a connection that a client opened gets its owner.

use aya_ebpf::{
    EbpfContext as _,
    helpers::bpf_ktime_get_ns,
    macros::{fexit, kprobe, kretprobe, tracepoint},
    programs::{FExitContext, ProbeContext, RetProbeContext, TracePointContext},
};
use overwatch_common::{connection::role, counter::Counter, event::want};

use crate::{
    bytes,
    changes::{self, Transition},
    ends, entry,
    kernel::{self, Address, argument, register},
    maps::{CONNECTIONS, count, note_full},
    sockets,
    table::Moved,
};

/// The child's entry belongs to the process that accepts, until another one moves bytes over it. `listener` is 0 when not known.
#[inline(always)]
fn accepted(sock: Address, listener: Address) {
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
        count(Counter::AcceptLost, 1);
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
        if listener != 0 {
            connection.listener = listener;
        }
        if connection.remote_port == 0 {
            // With TCP Fast Open it is accepted before it is established.
            sockets::fill_addresses(connection, sock);
        }
        if connection.role == role::UNKNOWN {
            // Listeners with a backlog of 0 have children that look like clients.
            connection.role = role::SERVER;
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
    let context = context.as_ptr();
    accepted(argument(context, &kernel::ACCEPT_RETURN), argument(context, &kernel::ACCEPT_SK));
    0
}

/// kprobe of inet_csk_accept, where somebody wants to know which listener a connection is of
#[kprobe]
pub(crate) fn accept_enter(context: ProbeContext) -> u32 {
    bytes::entered(register(context.as_ptr(), &kernel::ACCEPT_SK));
    0
}

/// kretprobe of inet_csk_accept
#[kretprobe]
pub(crate) fn accept_return(context: RetProbeContext) -> u32 {
    let remembered = kernel::WANT_CHANGES.load() >= want::LEAST_WITH_LISTENER;
    accepted(context.ret::<u64>(), if remembered { bytes::returned().unwrap_or(0) } else { 0 });
    0
}

/// tracepoints syscalls/sys_exit_accept and sys_exit_accept4, where the other tiers are not to be had
#[tracepoint]
pub(crate) fn accept_syscall(context: TracePointContext) -> u32 {
    // SAFETY: BTF told where the result stands in the record; the verifier checks the bound.
    let result: i64 = unsafe { context.read_at(kernel::SYSCALL_EXIT_RET.load() as usize) }.unwrap_or(-1);
    if result >= 0
        && let Some(sock) = of_descriptor(result as u64)
    {
        let wanted = kernel::WANT_CHANGES.load() >= want::LEAST_WITH_LISTENER;
        let listener = if wanted { of_descriptor(kernel::syscall_arguments().0) } else { None };
        accepted(sock, listener.unwrap_or(0));
    }
    0
}

/// Not inlined, since it is called twice.
#[inline(never)]
fn of_descriptor(descriptor: u64) -> Option<Address> {
    sockets::of_descriptor(descriptor).and_then(sockets::first_subflow)
}
