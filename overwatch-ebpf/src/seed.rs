//! Initial dump and resync: the kernel's own walk over its sockets. At the start it finds the sockets from before the start, later on (an audit)
//! those that were missed; and what the walk over all TCP sockets does not find has gone.

use aya_ebpf::{bindings::BPF_ANY, helpers::generated::bpf_skc_to_tcp_sock};
use overwatch_common::{
    connection::{Owner, flag, role, seen},
    counter::Counter,
};

use crate::{
    entry::{self, NOBODY},
    kernel::{self, Address, argument, read},
    listeners,
    maps::{CONNECTIONS, LISTENERS, OWNERS, PLAIN_LISTENERS, audit, count, note_full},
    sockets,
    table::Moved,
    totals::{self, Sequence},
};

/// iter/tcp: called for every TCP socket while the kernel holds it, so an entry made here is not older than the
/// socket's end, which takes it out again. Bytes moved before are the base and never show.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub(crate) extern "C" fn seed(context: *mut core::ffi::c_void) -> i32 {
    let sock = argument(context, &kernel::ITER_TCP_SK);
    // SAFETY: the helper takes a socket pointer or null and gives null for what is no full TCP socket (TIME_WAIT,
    // requests).
    if sock == 0 || unsafe { bpf_skc_to_tcp_sock(sock as *mut core::ffi::c_void) }.is_null() {
        return 0;
    }
    found(sock);
    0
}

/// iter/task_file: called for every open file of every process, for kernels that refuse iter/tcp. The process holds the file and with it the
/// socket. Finds listening sockets and connections in all network namespaces, but no connection that no process holds.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub(crate) extern "C" fn seed_files(context: *mut core::ffi::c_void) -> i32 {
    let file = argument(context, &kernel::ITER_FILE_FILE);
    if file != 0
        && let Some(sock) = sockets::of_file(file).and_then(sockets::first_subflow)
        && sockets::is_tcp(sock)
    {
        found(sock);
    }
    0
}

/// Makes an entry for a socket without one, and marks the entry with the number of the audit.
#[inline(always)]
fn found(sock: Address) {
    let state = sockets::state_of(sock);
    if state == kernel::TCP_LISTEN.load() {
        if sockets::role_of(sock) == role::UNKNOWN {
            let _full = PLAIN_LISTENERS.insert(place(sock), &1, u64::from(BPF_ANY));
        }
        match LISTENERS.get_ptr_mut(sock) {
            // SAFETY: the pointer is from the lookup; audits run one after the other.
            Some(listener) => unsafe { (*listener).audit = audit() },
            None => listeners::note(sock, owner_of(sock), 0, seen::BOTH),
        }
        return;
    }
    if state == kernel::TCP_CLOSE.load() {
        return;
    }
    if let Some(connection) = CONNECTIONS.get_ptr_mut(sock) {
        // Its next bytes were faster than the walk, or this is an audit.
        // SAFETY: the pointer is from the lookup; nobody else writes the role of an entry, or its audit.
        unsafe {
            (*connection).audit = audit();
            if (*connection).role == role::UNKNOWN {
                (*connection).role = role_of_open(sock);
            }
        }
        count(Counter::Seeded, 1);
        return;
    }
    let before = totals::now(sock, Sequence::default());
    entry::create(sock, role::UNKNOWN, flag::PARTIAL, &Moved { sent: 0, received: 0 }, Some(&NOBODY));
    let Some(connection) = CONNECTIONS.get_ptr_mut(sock) else {
        note_full();
        return;
    };
    // Written here and not handed over: kernels before 5.15 or so would follow each combination through all of `create`.
    // SAFETY: the pointer is from the lookup; the kernel holds the socket, and the entry is a moment old.
    let connection = unsafe { &mut *connection };
    connection.base_sent = before.sent;
    connection.base_received = before.received;
    connection.role = role_of_open(sock);
    connection.flags |= entry::flags_of(state) | accepted(sock, state);
    let owner = owner_of(sock);
    if connection.tgid == 0 {
        connection.comm = owner.comm;
        connection.cgroup_id = owner.cgroup_id;
        connection.tgid = owner.tgid;
    }
    count(Counter::Seeded, 1);
}

/// Without a struct socket it waits to be accepted, unless the process has left it already.
#[inline(always)]
fn accepted(sock: Address, state: u32) -> u32 {
    let waits = state == kernel::TCP_ESTABLISHED.load()
        || state == kernel::TCP_CLOSE_WAIT.load()
        || state == kernel::TCP_SYN_RECV.load();
    if sockets::is_held(sock) || !waits { flag::ACCEPTED } else { 0 }
}

/// The process that has the socket open, as far as the user side could see.
#[inline(always)]
fn owner_of(sock: Address) -> &'static Owner {
    match sockets::inode_of(sock) {
        0 => &NOBODY,
        // SAFETY: the pointer is from the lookup; the user side wrote the table before.
        inode_number => OWNERS.get_ptr(inode_number).map_or(&NOBODY, |owner| unsafe { &*owner }),
    }
}

/// Without a backlog it is no listener's child, unless of a listener with a backlog of 0, and the walk comes to the
/// listeners first (`tcp_get_idx`, net/ipv4/tcp_ipv4.c).
#[inline(always)]
fn role_of_open(sock: Address) -> u8 {
    match sockets::role_of(sock) {
        role::UNKNOWN if PLAIN_LISTENERS.get_ptr(place(sock)).is_none() => role::CLIENT,
        known => known,
    }
}

/// Local port and network namespace.
#[inline(always)]
fn place(sock: Address) -> u64 {
    let port: u16 = read(sock, kernel::SOCK_LOCAL_PORT.load());
    u64::from(sockets::netns_of(sock)) << 16 | u64::from(port)
}
