//! Unusual ways to come about. They end in the usual way.

use std::mem::size_of;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Result, ensure};
use nix::sys::socket::{Backlog, MsgFlags, SockaddrStorage, bind, getsockopt, listen, sendto, sockopt};

use crate::traffic::end::PAYLOAD;
use crate::traffic::family::bound_calls;
use crate::traffic::queues::{extended_counter, opened_with_data, set_option, until_state};

use super::connects::{Attempt, local_address};
use super::endings::{answer, call, server_second};
use super::lane::Lane;
use super::living::{Living, family, now};
use super::place::{Silence, Sysctl, address_towards};
use super::table::{CLOSED_BY_US, RESET_BY_PEER, RESET_BY_US};

/// Both ends ask for it, and both must be allowed to.
const FAST_OPEN: (&str, &str) = ("tcp_fastopen", "3");

/// The most that the SYN carries for sure.
const IN_SYN: usize = 500;

/// The first time brings the cookie, the second time the SYN brings data.
pub(super) fn fast_opening_client(lane: &mut Lane<'_>) -> Result<()> {
    lane.device()?;
    let _allowed = Sysctl::set(FAST_OPEN.0, FAST_OPEN.1)?;
    let target = lane.hear()?;
    for with_data in [false, true] {
        let opened = now();
        let stream = family(lane.place.address).client(target, 0)?;
        let flags = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
        let sent = sendto(stream.as_raw_fd(), &PAYLOAD[..IN_SYN], &SockaddrStorage::from(target), flags)?;
        ensure!(sent == IN_SYN, "{sent} bytes sent by connecting");
        let mut living = Living::client(stream, opened)?;
        living.end.sent += sent as u64;
        living.end.send_plainly(lane.to_server)?;
        living.end.receive_plainly(lane.to_client)?;
        // Addresses are known for sure only now: the first call may return before the handshake is done.
        living.end.note_tuple();
        let carried = opened_with_data(&living.end)?;
        ensure!(carried == with_data, "whether the SYN carried data: {carried} instead of {with_data}");
        living.close(lane)?;
    }
    Ok(())
}

pub(super) fn fast_opened_server(lane: &mut Lane<'_>) -> Result<()> {
    let _allowed = Sysctl::set(FAST_OPEN.0, FAST_OPEN.1)?;
    let address = lane.place.address;
    let listener = family(address).listen(Some(address), 0)?;
    set_option(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 16)?;
    lane.say(listener.local_addr()?)?;
    for _ in 0..2 {
        let mut living = Living::accept(&listener)?;
        living.end.receive_plainly(IN_SYN + lane.to_server)?;
        living.end.send_plainly(lane.to_client)?;
        living.close_second(lane)?;
    }
    Ok(())
}

/// `IPPROTO_MPTCP`.
const MPTCP: libc::c_int = 262;
/// `SOL_MPTCP` and `MPTCP_INFO`.
const MPTCP_INFO: (libc::c_int, libc::c_int) = (284, 1);
/// `MPTCP_INFO_FLAG_FALLBACK`.
const FALLBACK: u32 = 1;

fn multipath_socket(address: SocketAddr) -> Result<OwnedFd> {
    let domain = if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: a system call that takes three numbers.
    let fd = unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, MPTCP) };
    ensure!(fd >= 0, "a socket of Multipath TCP: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Why this kernel has no Multipath TCP, if it has none.
pub(super) fn cannot_use_multipath() -> Option<String> {
    multipath_socket(SocketAddr::from(([127, 0, 0, 1], 0))).err().map(|error| format!("{error:#}"))
}

/// Checks that the other end speaks it, too.
fn is_multipath(stream: &TcpStream) -> Result<()> {
    let mut info = [0_u32; 4];
    let mut length = size_of::<[u32; 4]>() as libc::socklen_t;
    let (level, name) = MPTCP_INFO;
    // SAFETY: the kernel writes at most as many bytes as it is told that there are.
    let outcome =
        unsafe { libc::getsockopt(stream.as_raw_fd(), level, name, info.as_mut_ptr().cast(), &raw mut length) };
    ensure!(outcome == 0, "asking about Multipath TCP: {}", std::io::Error::last_os_error());
    // Six small numbers and padding, then the flags.
    ensure!(info[2] & FALLBACK == 0, "plain TCP where Multipath TCP was asked for");
    Ok(())
}

pub(super) fn multipath_client(lane: &mut Lane<'_>) -> Result<()> {
    let target: SocketAddr = lane.hear()?;
    let fd = multipath_socket(target)?;
    bound_calls(&fd)?;
    let opened = now();
    nix::sys::socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(target))?;
    let mut living = Living::client(TcpStream::from(fd), opened)?;
    living.end.send_plainly(lane.to_server)?;
    living.end.receive_plainly(lane.to_client)?;
    is_multipath(&living.end.stream)?;
    let past = living.past(now());
    drop(living);
    lane.tell(&past)
}

pub(super) fn multipath_server(lane: &mut Lane<'_>) -> Result<()> {
    let at = SocketAddr::new(lane.place.address, 0);
    let fd = multipath_socket(at)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(at))?;
    listen(&fd, Backlog::new(16)?)?;
    let listener = TcpListener::from(fd);
    lane.say(listener.local_addr()?)?;
    let mut living = Living::accept(&listener)?;
    living.end.receive_plainly(lane.to_server)?;
    living.end.send_plainly(lane.to_client)?;
    living.end.receive_to_end()?;
    let past = living.past(now());
    drop(living);
    lane.tell(&past)
}

/// How many connections of this namespace came about by a cookie.
fn cookies_taken() -> Result<u64> {
    Ok(extended_counter("SyncookiesRecv")?)
}

/// Sends cookies always, not only when it is overrun. The client notices nothing.
pub(super) fn server_with_cookies(lane: &mut Lane<'_>) -> Result<()> {
    lane.device()?;
    let _always = Sysctl::set("tcp_syncookies", "2")?;
    let before = cookies_taken()?;
    lane.say("ready")?;
    let living = answer(lane)?;
    let taken = cookies_taken()? - before;
    ensure!(taken == 1, "{taken} connections by a cookie");
    living.close_second(lane)
}

pub(super) fn client_with_cookie(lane: &mut Lane<'_>) -> Result<()> {
    lane.wait()?;
    call(lane)?.close(lane)
}

/// `TCP_SYN_RECV`.
const SYN_RECV: u8 = 3;

/// Calls first, but is not heard, until the other end has called, too.
pub(super) fn caller_not_heard(lane: &mut Lane<'_>) -> Result<()> {
    let target: SocketAddr = lane.hear()?;
    let silence = Silence::of(target.ip(), lane.device()?)?;
    let attempt = Attempt::begin(Attempt::bound_socket(lane)?, target)?;
    lane.say(local_address(&attempt.stream)?)?;
    until_state(&attempt.stream, SYN_RECV)?;
    drop(silence);
    let mut living = attempt.finish()?;
    living.end.send_plainly(lane.to_server)?;
    living.end.receive_plainly(lane.to_client)?;
    living.close(lane)
}

/// Calls an end that has called already. Nobody listens.
pub(super) fn caller_of_a_caller(lane: &mut Lane<'_>) -> Result<()> {
    let stream = Attempt::bound_socket(lane)?;
    lane.say(local_address(&stream)?)?;
    let target = lane.hear()?;
    let mut living = Attempt::begin(stream, target)?.finish()?;
    living.end.receive_plainly(lane.to_server)?;
    living.end.send_plainly(lane.to_client)?;
    living.close_second(lane)
}

/// Both ends are one socket.
pub(super) fn client_of_itself(lane: &mut Lane<'_>) -> Result<()> {
    let here = address_towards(lane.target)?;
    let stream = family(here).client(lane.target, 0)?;
    bind(stream.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(here, 0)))?;
    let own = local_address(&stream)?;
    let opened = now();
    nix::sys::socket::connect(stream.as_raw_fd(), &SockaddrStorage::from(own))?;
    let mut living = Living::client(stream, opened)?;
    // What it sends must fit into what it does not read yet.
    let bytes = lane.to_server.clamp(1, 20_000);
    living.end.send_plainly(bytes)?;
    living.end.receive_plainly(bytes)?;
    living.close(lane)
}

/// Lets go of the connection with a reset, and connects the same socket again.
pub(super) fn client_connecting_again(lane: &mut Lane<'_>) -> Result<()> {
    let first = call(lane)?;
    first.settle()?;
    lane.wait()?;
    let past = first.past(now());
    let stream = first.end.stream;
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    // SAFETY: the address is as long as is said.
    let outcome = unsafe {
        libc::connect(stream.as_raw_fd(), &raw const nowhere, size_of::<libc::sockaddr>() as libc::socklen_t)
    };
    ensure!(outcome == 0, "disconnecting: {}", std::io::Error::last_os_error());
    // Takes the error that the kernel left there.
    getsockopt(&stream, sockopt::SocketError)?;
    lane.tell_as(&past, &RESET_BY_US)?;
    let opened = now();
    nix::sys::socket::connect(stream.as_raw_fd(), &SockaddrStorage::from(lane.target))?;
    let mut again = Living::client(stream, opened)?;
    again.end.send_plainly(lane.to_server)?;
    again.end.receive_plainly(lane.to_client)?;
    let past = again.past(now());
    drop(again);
    lane.tell_as(&past, &CLOSED_BY_US)
}

/// Is reset, and accepts the same client again.
pub(super) fn server_called_again(lane: &mut Lane<'_>) -> Result<()> {
    let first = answer(lane)?;
    first.settle()?;
    lane.say("settled")?;
    first.fail_as(lane, &RESET_BY_PEER)?;
    server_second(lane)
}
