//! The life of an entry in the connection table: made by connect, accept, first I/O or seed, added to by every call
//! that moves bytes, taken out when the kernel destroys the socket.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_ns},
};
use overwatch_common::{
    connection::{COMM_LEN, Connection, Owner, Share, ShareKey, flag, role},
    counter::Counter,
    event::{self, Activity, Closed, ClosedKey},
};

use crate::{
    kernel::{self, Address, follow, process_name, read, read_into},
    maps::{CONNECTIONS, DEFERRED, EVENTS, SEEDED_NETNS, SHARES, add, count, epoch, note_full, was_full},
    totals::{self, Sequence},
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
/// Behind `::ffff:` stands an IPv4 address (RFC 4291, 2.5.5.2).
const V4_MAPPED_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// What a call moved.
#[derive(Clone, Copy)]
pub(crate) struct Moved {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// The process in whose context the program runs.
#[inline(always)]
pub(crate) fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// True for a TCP socket over IPv4 or IPv6. MPTCP, whose sockets are not `tcp_sock`, is not one.
#[inline(always)]
pub(crate) fn is_tcp(sock: Address) -> bool {
    let family: u16 = read(sock, kernel::SOCK_FAMILY.load());
    let protocol: u16 = read(sock, kernel::SOCK_PROTOCOL.load());
    (family == AF_INET || family == AF_INET6) && protocol == IPPROTO_TCP
}

/// Puts the bytes that the current process has moved onto its share of the connection.
#[inline(always)]
pub(crate) fn account(sock: Address, moved: Moved) {
    let mut entry = CONNECTIONS.get_ptr_mut(sock);
    if let Some(connection) = entry
        // SAFETY: as below.
        && unsafe { (*connection).flags & flag::CLOSED != 0 && is_another(sock, (*connection).remote_port) }
    {
        // Left from an earlier socket at this address, since the kernel showed us neither its end nor this one's birth.
        finish(sock, connection);
        entry = None;
    }
    if entry.is_none() {
        if !first_io(sock, moved.sent, moved.received) {
            return;
        }
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
        if (*connection).tgid != tgid {
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
            fill_addresses(&mut *connection, sock);
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

/// Bytes on a socket without an entry: its beginning was out of our sight (io_uring's accept in the tracepoint tier, or the
/// kernel skipped a program), the seed did not reach it, or there was no room. Makes the entry; false when the socket is
/// not TCP.
#[inline(never)]
fn first_io(sock: Address, sent: u64, received: u64) -> bool {
    if !is_tcp(sock) {
        return false;
    }
    let (mut base_sent, mut base_received) = (0, 0);
    if !began_after_us(sock) {
        let before = totals::now(sock, Sequence::default());
        base_sent = before.sent.saturating_sub(sent);
        base_received = before.received.saturating_sub(received);
    }
    create(sock, role_of(sock), base_sent, base_received, None);
    true
}

/// True when a socket without an entry must be younger than overwatch: all older ones in its network namespace were seeded,
/// and there has always been room since.
#[inline(always)]
fn began_after_us(sock: Address) -> bool {
    // A socket in CLOSE is in none of the kernel's tables, so the seed could not find it.
    !is_closed(sock) && all_were_seeded(sock)
}

/// True when the socket is connected to another port than its entry says. Its state does not tell: the tracepoint of a
/// transition comes before the state is stored.
#[inline(always)]
fn is_another(sock: Address, remote_port: u16) -> bool {
    let port = u16::from_be(read(sock, kernel::SOCK_REMOTE_PORT.load()));
    port != 0 && port != remote_port
}

#[inline(always)]
fn is_closed(sock: Address) -> bool {
    u32::from(read::<u8>(sock, kernel::SOCK_STATE.load())) == kernel::TCP_CLOSE.load()
}

#[inline(always)]
fn all_were_seeded(sock: Address) -> bool {
    SEEDED_NETNS.get_ptr(netns_of(sock)).is_some() && !was_full()
}

/// A socket that ends without an entry, though there was room for one.
#[inline(never)]
pub(crate) fn ended_unseen(sock: Address) {
    if is_tcp(sock) && all_were_seeded(sock) {
        let received = totals::received(sock);
        let sent = totals::transmitted(sock, Sequence::default());
        if sent != 0 {
            count(Counter::UnseenSent, sent);
        }
        if received != 0 {
            count(Counter::UnseenReceived, received);
        }
    }
}

/// Inode number of the socket's network namespace; 0 when it cannot be read.
#[inline(always)]
pub(crate) fn netns_of(sock: Address) -> u32 {
    follow(sock, kernel::SOCK_NET.load()).map_or(0, |net| read(net, kernel::NET_INUM.load()))
}

/// A child inherits the listener's backlog; a socket that connects has none. A listener with a backlog of 0 gives
/// children that look like clients, so such a socket's role is not known.
#[inline(always)]
pub(crate) fn role_of(sock: Address) -> u8 {
    let backlog: u32 = read(sock, kernel::SOCK_MAX_ACK_BACKLOG.load());
    if backlog > 0 { role::SERVER } else { role::UNKNOWN }
}

/// Makes an entry unless there is one. Says nothing when the table is full: the bytes will.
///
/// Without an `owner` it belongs to the current process, so in softirq context there must be one.
#[inline(never)]
pub(crate) fn create(sock: Address, role: u8, base_sent: u64, base_received: u64, owner: Option<&Owner>) {
    let mut connection = Connection {
        // SAFETY: no arguments.
        created_ns: unsafe { bpf_ktime_get_ns() },
        sent: 0,
        received: 0,
        marked_sent: 0,
        marked_received: 0,
        unattributed_sent: 0,
        unattributed_received: 0,
        base_sent,
        base_received,
        live_sent: 0,
        live_received: 0,
        kernel_sent: 0,
        kernel_received: 0,
        cgroup_id: 0,
        shares: 0,
        local_addr: [0; 16],
        remote_addr: [0; 16],
        comm: [0; COMM_LEN],
        tgid: 0,
        netns: 0,
        epoch: 0,
        flags: 0,
        local_port: 0,
        remote_port: 0,
        state: u32::from(read::<u8>(sock, kernel::SOCK_STATE.load())),
        role,
        pad: [0; 3],
        generation: 0,
    };
    connection.generation = connection.created_ns as u32;
    if let Some(owner) = owner {
        connection.comm = owner.comm;
        connection.tgid = owner.tgid;
        connection.cgroup_id = owner.cgroup_id;
    } else {
        process_name(&mut connection.comm);
        connection.tgid = current_tgid();
        // SAFETY: no arguments.
        connection.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    }
    connection.netns = netns_of(sock);
    fill_addresses(&mut connection, sock);
    let _exists_or_full = CONNECTIONS.insert(sock, &connection, u64::from(BPF_NOEXIST));
}

/// Copies the 4-tuple out of the socket.
#[inline(always)]
pub(crate) fn fill_addresses(connection: &mut Connection, sock: Address) {
    let family: u16 = read(sock, kernel::SOCK_FAMILY.load());
    if family == AF_INET6 {
        read_into(&mut connection.local_addr, sock, kernel::SOCK_LOCAL_ADDR_V6.load());
        read_into(&mut connection.remote_addr, sock, kernel::SOCK_REMOTE_ADDR_V6.load());
    } else {
        connection.local_addr[..12].copy_from_slice(&V4_MAPPED_PREFIX);
        connection.remote_addr[..12].copy_from_slice(&V4_MAPPED_PREFIX);
        read_into(&mut connection.local_addr[12..], sock, kernel::SOCK_LOCAL_ADDR.load());
        read_into(&mut connection.remote_addr[12..], sock, kernel::SOCK_REMOTE_ADDR.load());
    }
    connection.local_port = read(sock, kernel::SOCK_LOCAL_PORT.load());
    connection.remote_port = u16::from_be(read(sock, kernel::SOCK_REMOTE_PORT.load()));
}

/// Takes the entry out of the table and hands its last record to the user side.
#[inline(never)]
pub(crate) fn finish(sock: Address, connection: *mut Connection) {
    // SAFETY: as in `account`; nobody uses the socket any more.
    unsafe {
        hand_over(sock, &*connection);
    }
    let _gone = CONNECTIONS.remove(sock);
}

/// Copies from map value to record or map value directly: the stack has 512 bytes.
#[inline(always)]
fn hand_over(sock: Address, connection: &Connection) {
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
}
