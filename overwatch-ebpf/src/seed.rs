//! Connections that were open before the start: the kernel's own walk over the TCP sockets of a network namespace.

use aya_ebpf::{bindings::BPF_ANY, helpers::generated::bpf_skc_to_tcp_sock};
use overwatch_common::{
    connection::{COMM_LEN, Owner, role},
    counter::Counter,
};

use crate::{
    kernel::{self, Address, argument, follow, read},
    maps::{CONNECTIONS, OWNERS, PLAIN_LISTENERS, count, note_full},
    table,
    totals::{self, Sequence},
};

/// Owner of a socket that no process has open, as far as we could see.
static NOBODY: Owner = Owner { comm: [0; COMM_LEN], tgid: 0, pad: 0, cgroup_id: 0 };

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
    let state = u32::from(read::<u8>(sock, kernel::SOCK_STATE.load()));
    if state == kernel::TCP_LISTEN.load() {
        if table::role_of(sock) == role::UNKNOWN {
            let _full = PLAIN_LISTENERS.insert(place(sock), &1, u64::from(BPF_ANY));
        }
        return 0;
    }
    if state == kernel::TCP_CLOSE.load() {
        return 0;
    }
    // Without a struct socket nobody can move bytes: not accepted yet, or already left by its process.
    let Some(socket) = follow(sock, kernel::SOCK_SOCKET.load()) else {
        return 0;
    };
    let inode_number: u64 =
        read(socket - u64::from(kernel::SOCKET_ALLOC_SOCKET.load()), kernel::SOCKET_ALLOC_INODE_NUMBER.load());
    if let Some(connection) = CONNECTIONS.get_ptr_mut(sock) {
        // Its next bytes were faster than the walk.
        // SAFETY: the pointer is from the lookup; nobody else writes the role of an entry.
        unsafe {
            if (*connection).role == role::UNKNOWN {
                (*connection).role = role_of_open(sock);
            }
        }
        count(Counter::Seeded, 1);
    } else {
        let before = totals::now(sock, Sequence::default());
        // SAFETY: the pointer is from the lookup; the user side wrote the table before.
        let owner = OWNERS.get_ptr(inode_number).map_or(&NOBODY, |owner| unsafe { &*owner });
        table::create(sock, role_of_open(sock), before.sent, before.received, Some(owner));
        if CONNECTIONS.get_ptr(sock).is_some() {
            count(Counter::Seeded, 1);
        } else {
            note_full();
        }
    }
    0
}

/// Without a backlog it is no listener's child, unless of a listener with a backlog of 0, and the walk comes to the
/// listeners first (`tcp_get_idx`, net/ipv4/tcp_ipv4.c).
#[inline(always)]
fn role_of_open(sock: Address) -> u8 {
    match table::role_of(sock) {
        role::UNKNOWN if PLAIN_LISTENERS.get_ptr(place(sock)).is_none() => role::CLIENT,
        known => known,
    }
}

/// Local port and network namespace.
#[inline(always)]
fn place(sock: Address) -> u64 {
    let port: u16 = read(sock, kernel::SOCK_LOCAL_PORT.load());
    u64::from(table::netns_of(sock)) << 16 | u64::from(port)
}
