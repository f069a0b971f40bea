//! What waits at the listening sockets now: a walk over the map of them, which enters no network namespace.

use aya_ebpf::{
    bindings::seq_file,
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_jiffies64, bpf_seq_write},
    },
};
use overwatch_common::{
    connection::Listener,
    look::{LISTENER, ListenerRecord, MOST_WAITING, WAITING, WaitingRecord},
};

use crate::{
    kernel::{self, Address, argument, read, read_into, typed_pointer},
    maps::CONNECTIONS,
    sockets, totals,
};

/// iter/bpf_map_elem: called for every entry of the map that the user side names, which is LISTENERS.
///
/// What one call writes fits into the 32 KiB that the kernel keeps for a reader (`bpf_seq_read`, kernel/bpf/bpf_iter.c); where they
/// are full already, it takes the listener back and calls again.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
pub(crate) extern "C" fn look(context: *mut core::ffi::c_void) -> i32 {
    let meta = argument(context, &kernel::ITER_ELEM_META);
    let key = argument(context, &kernel::ITER_ELEM_KEY) as *const u64;
    let value = argument(context, &kernel::ITER_ELEM_VALUE) as *const Listener;
    // Both are null in a last call that stands for the end.
    if key.is_null() || value.is_null() {
        return 0;
    }
    let output = typed_pointer(meta, &kernel::ITER_META_SEQ) as *mut seq_file;
    // SAFETY: both pointers are the kernel's, to an entry of LISTENERS that stays until this program ends.
    let (sock, listener) = unsafe { (*key, &*value) };
    // Closed, and the entry on its way out.
    if sockets::state_of(sock) != kernel::TCP_LISTEN.load() {
        return 0;
    }
    // SAFETY: no arguments.
    let (time_ns, jiffies) = unsafe { (bpf_ktime_get_ns(), bpf_jiffies64()) };
    let port: u16 = read(sock, kernel::SOCK_LOCAL_PORT.load());
    let mut record = ListenerRecord {
        kind: LISTENER,
        accept_queue: read(sock, kernel::SOCK_ACK_BACKLOG.load()),
        sock,
        time_ns,
        jiffies,
        inode: sockets::inode_of(sock),
        backlog_limit: read(sock, kernel::SOCK_MAX_ACK_BACKLOG.load()),
        drops: read(sock, kernel::SOCK_DROPS.load()),
        syn_queue: read(sock, kernel::QUEUE_SYN_LENGTH.load()),
        syn_queue_young: read(sock, kernel::QUEUE_SYN_YOUNG.load()),
        defer_accept: u32::from(read::<u8>(sock, kernel::QUEUE_DEFER_ACCEPT.load())),
        pad: 0,
        listener: *listener,
    };
    // Without bind(2) before it, listen(2) chooses the port after it has changed the state (`inet_csk_listen_start`,
    // net/ipv4/inet_connection_sock.c), so that the entry in the map lacks it.
    record.listener.local_port = port;
    write(output, &record);
    let mut request: Address = read(sock, kernel::QUEUE_ACCEPT_HEAD.load());
    for _ in 0..MOST_WAITING {
        if request == 0 {
            break;
        }
        let child: Address = read(request, kernel::REQUEST_CHILD.load());
        let of: Address = read(request, kernel::REQUEST_LISTENER.load());
        let child_port: u16 = read(child, kernel::SOCK_LOCAL_PORT.load());
        // Nobody keeps the queue still: what was accepted in between may be in another one by now. A request that came with a SYN
        // cookie does not say whose it is.
        if child == 0 || of != sock && of != 0 || child_port != port && child_port != 0 {
            break;
        }
        waiting(output, sock, child);
        request = read(request, kernel::REQUEST_NEXT.load());
    }
    0
}

/// Writes what is known of a client that waits.
#[inline(always)]
fn waiting(output: *mut seq_file, listener: Address, child: Address) {
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
    // Both, without a branch for older verifiers to follow: the user side knows which is the right one.
    read_into(&mut record.remote_addr_v6, child, kernel::SOCK_REMOTE_ADDR_V6.load());
    read_into(&mut record.remote_addr_v4, child, kernel::SOCK_REMOTE_ADDR.load());
    write(output, &record);
}

/// Gives a record to whoever reads. When there is no room, the kernel calls again with more.
#[inline(always)]
fn write<T>(output: *mut seq_file, record: &T) {
    // SAFETY: the record is as long as it is told, and without padding.
    let _called_again = unsafe { bpf_seq_write(output, (&raw const *record).cast(), size_of::<T>() as u32) };
}
