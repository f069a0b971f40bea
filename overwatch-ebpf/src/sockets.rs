//! What a socket says about itself.

use overwatch_common::{
    connection::{Connection, role},
    kernel::ABSENT,
};

use crate::kernel::{self, Address, follow, read, read_into};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;
/// Behind `::ffff:` stands an IPv4 address (RFC 4291, 2.5.5.2).
pub(crate) const V4_MAPPED_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// True for a TCP socket over IPv4 or IPv6. MPTCP, whose sockets are not `tcp_sock`, is not one.
#[inline(always)]
pub(crate) fn is_tcp(sock: Address) -> bool {
    let family: u16 = read(sock, kernel::SOCK_FAMILY.load());
    let protocol: u16 = read(sock, kernel::SOCK_PROTOCOL.load());
    (family == AF_INET || family == AF_INET6) && protocol == IPPROTO_TCP
}

/// The TCP socket behind an MPTCP one, of the subflow that began it; any other socket itself.
#[inline(always)]
pub(crate) fn first_subflow(sock: Address) -> Option<Address> {
    let first = kernel::MPTCP_FIRST.load();
    let protocol: u16 = read(sock, kernel::SOCK_PROTOCOL.load());
    if first == ABSENT || protocol != IPPROTO_MPTCP { Some(sock) } else { follow(sock, first) }
}

/// The state by the socket's own word. The tracepoint of a transition comes before the state is stored.
#[inline(always)]
pub(crate) fn state_of(sock: Address) -> u32 {
    u32::from(read::<u8>(sock, kernel::SOCK_STATE.load()))
}

/// True when a process has it open, or had until it closed it a moment ago: it has a `struct socket`.
#[inline(always)]
pub(crate) fn is_held(sock: Address) -> bool {
    follow(sock, kernel::SOCK_SOCKET.load()).is_some()
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

/// How many connections were in the accept queue when this one, a child of a listener, was put there: a child has its listener's
/// number from then, as it has all of its listener (`sk_clone_lock`, net/core/sock.c), and nobody counts in it.
#[inline(always)]
pub(crate) fn queued_behind(sock: Address) -> u32 {
    read(sock, kernel::SOCK_ACK_BACKLOG.load())
}

/// True when it is the socket that its process has, and not a subflow of one: those of MPTCP share theirs, and only the first of them was
/// accepted.
#[inline(always)]
pub(crate) fn is_held_alone(sock: Address) -> bool {
    follow(sock, kernel::SOCK_SOCKET.load()).is_some_and(|socket| read::<u64>(socket, kernel::SOCKET_SK.load()) == sock)
}

/// Inode number of the socket; 0 when no process has it open.
#[inline(always)]
pub(crate) fn inode_of(sock: Address) -> u64 {
    follow(sock, kernel::SOCK_SOCKET.load()).map_or(0, |socket| {
        read(socket - u64::from(kernel::SOCKET_ALLOC_SOCKET.load()), kernel::SOCKET_ALLOC_INODE_NUMBER.load())
    })
}

/// Host order; 0 while the kernel has chosen none. A socket that reaches CLOSE has given its port back, but still says in its headers
/// which it was (`tcp_set_state`, net/ipv4/tcp.c).
#[inline(always)]
pub(crate) fn local_port_of(sock: Address) -> u16 {
    let bound: u16 = read(sock, kernel::SOCK_LOCAL_PORT.load());
    if bound != 0 { bound } else { u16::from_be(read(sock, kernel::INET_SOURCE_PORT.load())) }
}

/// True when the socket is connected to another port than its entry says. Its state does not tell: see [`state_of`].
#[inline(always)]
pub(crate) fn is_another(sock: Address, remote_port: u16) -> bool {
    let port = u16::from_be(read(sock, kernel::SOCK_REMOTE_PORT.load()));
    port != 0 && remote_port != 0 && port != remote_port
}

/// Copies the local address.
#[inline(always)]
pub(crate) fn read_local_addr(local_addr: &mut [u8; 16], sock: Address) {
    let family: u16 = read(sock, kernel::SOCK_FAMILY.load());
    if family == AF_INET6 {
        read_into(local_addr, sock, kernel::SOCK_LOCAL_ADDR_V6.load());
    } else {
        local_addr[..12].copy_from_slice(&V4_MAPPED_PREFIX);
        read_into(&mut local_addr[12..], sock, kernel::SOCK_LOCAL_ADDR.load());
    }
}

/// Copies the 4-tuple.
#[inline(always)]
pub(crate) fn fill_addresses(connection: &mut Connection, sock: Address) {
    let family: u16 = read(sock, kernel::SOCK_FAMILY.load());
    if family == AF_INET6 {
        read_into(&mut connection.remote_addr, sock, kernel::SOCK_REMOTE_ADDR_V6.load());
    } else {
        connection.remote_addr[..12].copy_from_slice(&V4_MAPPED_PREFIX);
        read_into(&mut connection.remote_addr[12..], sock, kernel::SOCK_REMOTE_ADDR.load());
    }
    read_local_addr(&mut connection.local_addr, sock);
    connection.local_port = local_port_of(sock);
    connection.remote_port = u16::from_be(read(sock, kernel::SOCK_REMOTE_PORT.load()));
}

/// From a file descriptor of the current process to its TCP socket.
#[inline(always)]
pub(crate) fn of_descriptor(descriptor: u64) -> Option<Address> {
    // SAFETY: no arguments; gives the address of the current task.
    let task = unsafe { aya_ebpf::helpers::generated::bpf_get_current_task() };
    let files = follow(task, kernel::TASK_FILES.load())?;
    let table = follow(files, kernel::FILES_FDT.load())?;
    let limit: u32 = read(table, kernel::FDTABLE_MAX_FDS.load());
    if descriptor >= u64::from(limit) {
        return None;
    }
    let array = follow(table, kernel::FDTABLE_FD.load())?;
    // Another thread may have closed the descriptor and opened something else.
    of_file(follow(array + descriptor * 8, 0)?)
}

/// From a file to its socket; `None` for a file of another kind, since only a socket points back to its file.
#[inline(always)]
pub(crate) fn of_file(file: Address) -> Option<Address> {
    let socket = follow(file, kernel::FILE_PRIVATE_DATA.load())?;
    (follow(socket, kernel::SOCKET_FILE.load())? == file).then_some(())?;
    follow(socket, kernel::SOCKET_SK.load())
}
