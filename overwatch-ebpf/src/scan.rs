//! Listener scan: the state of listening sockets, and the clients in an accept queue.
//!
//! The programs are attached to nothing. The user side runs them by BPF_PROG_TEST_RUN (Linux 5.10 and later), with addresses of
//! sockets as arguments: the first for some sockets at a time, the second for each that has an accept queue. They need neither an
//! iterator, which some kernels refuse, nor a visit to the sockets' network namespaces.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_ktime_get_ns, generated::bpf_jiffies64},
};
use overwatch_common::scan::{LISTENER, ListenerRecord, MOST_WAITING, WAITING, WaitingRecord, result};

use crate::{
    kernel::{self, Address, argument_of_raw, read, read_into},
    maps::{CONNECTIONS, LISTENERS, SCANNED},
    sockets, totals,
};

/// raw_tp, run with the addresses of up to [`BATCH`] sockets that are in LISTENERS, 0 where there is none. Writes a record for each that
/// listens, and returns [`result::DONE`] with a bit for each that has an accept queue, or [`result::NO_ROOM`]; which is why the library's macro
/// is not used: what that makes returns 0.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/scan_listener")]
pub(crate) extern "C" fn scan_listener(context: *mut core::ffi::c_void) -> u32 {
    let mut returned = result::DONE;
    macro_rules! scan {
        ($($number:literal)*) => {
            $(returned |= listener(argument_of_raw::<{ 8 * $number }>(context)) << $number;)*
        };
    }
    scan!(0 1 2 3 4 5 6 7 8 9 10 11);
    returned
}

/// Writes the record of a listening socket: 1 when connections are in its accept queue, else 0. A record without room is a bit that no socket
/// has.
#[inline(never)]
fn listener(sock: Address) -> u32 {
    let Some(entry) = LISTENERS.get_ptr(sock) else { return 0 };
    // The entry of a closed socket is about to be removed.
    if sockets::state_of(sock) != kernel::TCP_LISTEN.load() {
        return 0;
    }
    // SAFETY: no arguments.
    let (time_ns, jiffies) = unsafe { (bpf_ktime_get_ns(), bpf_jiffies64()) };
    let mut record = ListenerRecord {
        kind: LISTENER,
        accept_queue: read(sock, kernel::SOCK_ACK_BACKLOG.load()),
        sock,
        time_ns,
        jiffies,
        backlog_limit: read(sock, kernel::SOCK_MAX_ACK_BACKLOG.load()),
        drops: read(sock, kernel::SOCK_DROPS.load()),
        syn_queue: read(sock, kernel::QUEUE_SYN_LENGTH.load()),
        syn_queue_young: read(sock, kernel::QUEUE_SYN_YOUNG.load()),
        defer_accept: u32::from(read::<u8>(sock, kernel::QUEUE_DEFER_ACCEPT.load())),
        pad: 0,
        // SAFETY: the pointer is from the lookup, and the entry stays until this program ends.
        listener: unsafe { *entry },
    };
    record.listener.inode = sockets::inode_of(sock);
    // Without bind(2) before it, listen(2) chooses the port after it has changed the state (`inet_csk_listen_start`,
    // net/ipv4/inet_connection_sock.c, v6.12), so that the entry in the map lacks the port.
    record.listener.local_port = read(sock, kernel::SOCK_LOCAL_PORT.load());
    match SCANNED.output::<ListenerRecord>(&record, u64::from(BPF_RB_NO_WAKEUP)) {
        Ok(()) => u32::from(record.accept_queue > 0),
        Err(_) => result::NO_ROOM,
    }
}

/// raw_tp, run with the address of a listening socket: writes a record for each client in its accept queue, the oldest first. Returns
/// [`result::DONE`] or [`result::NO_ROOM`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/scan_waiting")]
pub(crate) extern "C" fn scan_waiting(context: *mut core::ffi::c_void) -> u32 {
    let sock = argument_of_raw::<0>(context);
    // It has closed, and its memory may be another's.
    if LISTENERS.get_ptr(sock).is_none() || sockets::state_of(sock) != kernel::TCP_LISTEN.load() {
        return result::DONE;
    }
    let port: u16 = read(sock, kernel::SOCK_LOCAL_PORT.load());
    let mut request: Address = read(sock, kernel::QUEUE_ACCEPT_HEAD.load());
    for _ in 0..MOST_WAITING {
        if request == 0 {
            break;
        }
        let child: Address = read(request, kernel::REQUEST_CHILD.load());
        let of: Address = read(request, kernel::REQUEST_LISTENER.load());
        let child_port: u16 = read(child, kernel::SOCK_LOCAL_PORT.load());
        // No lock is held: a connection that was accepted in between may be in another queue by now. A request that came with a
        // SYN cookie does not name its listener.
        if child == 0 || of != sock && of != 0 || child_port != port && child_port != 0 {
            break;
        }
        if !waiting(sock, child) {
            return result::NO_ROOM;
        }
        request = read(request, kernel::REQUEST_NEXT.load());
    }
    result::DONE
}

/// Writes the record of a waiting client; false when there is no room.
#[inline(never)]
fn waiting(listener: Address, child: Address) -> bool {
    let (mut created_ns, mut established_ns) = (0, 0);
    if let Some(connection) = CONNECTIONS.get_ptr(child) {
        // SAFETY: the pointer is from the lookup.
        unsafe { (created_ns, established_ns) = ((*connection).created_ns, (*connection).established_ns) };
    }
    let mut record = WaitingRecord {
        kind: WAITING,
        state: sockets::state_of(child),
        listener,
        sock: child,
        created_ns,
        established_ns,
        remote_addr_v6: [0; 16],
        remote_addr_v4: [0; 4],
        last_sent_jiffies: read(child, kernel::TCP_LAST_SENT.load()),
        unread_bytes: totals::unread(child) as u32,
        queued_behind: sockets::queued_behind(child),
        remote_port: u16::from_be(read(child, kernel::SOCK_REMOTE_PORT.load())),
        family: read(child, kernel::SOCK_FAMILY.load()),
        pad: 0,
    };
    // Both addresses, without a branch for older verifiers to follow: the user side chooses by the family.
    read_into(&mut record.remote_addr_v6, child, kernel::SOCK_REMOTE_ADDR_V6.load());
    read_into(&mut record.remote_addr_v4, child, kernel::SOCK_REMOTE_ADDR.load());
    SCANNED.output::<WaitingRecord>(&record, u64::from(BPF_RB_NO_WAKEUP)).is_ok()
}
