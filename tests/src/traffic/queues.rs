//! What is still under way on a socket, and what its state is: asked of the kernel, for traffic that has to wait.

use std::fs;
use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsFd, AsRawFd as _};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::family::CALL_SECONDS;

mod request {
    nix::ioctl_read_bad!(outgoing, libc::TIOCOUTQ, libc::c_int);
    nix::ioctl_read_bad!(incoming, libc::FIONREAD, libc::c_int);
}

/// `TCP_SYN_SENT`.
pub const SYN_SENT: u8 = 2;
/// `TCP_FIN_WAIT2`.
pub const FIN_WAIT2: u8 = 5;

/// Bit of the sixth byte of `struct tcp_info`: the SYN carried data, and they were acknowledged.
const SYN_DATA: u8 = 32;

type Request = unsafe fn(libc::c_int, *mut libc::c_int) -> nix::Result<libc::c_int>;

fn queue(of: &impl AsFd, which: Request) -> io::Result<usize> {
    let mut bytes = 0;
    // SAFETY: both requests write one integer, to the integer given.
    unsafe { which(of.as_fd().as_raw_fd(), &raw mut bytes) }?;
    usize::try_from(bytes).map_err(io::Error::other)
}

/// Bytes that were sent and that the other end has not acknowledged.
pub fn unsent(of: &impl AsFd) -> io::Result<usize> {
    queue(of, request::outgoing)
}

/// Bytes that have arrived and were not read.
pub fn unread(of: &impl AsFd) -> io::Result<usize> {
    queue(of, request::incoming)
}

/// The first bytes of the socket's `struct tcp_info`.
fn tcp_info(of: &impl AsFd) -> io::Result<[u8; 8]> {
    let mut info = [0_u8; 8];
    let mut length = size_of_val(&info) as libc::socklen_t;
    let fd = of.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most as many bytes as it is told that there are.
    let outcome =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length) };
    if outcome == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

/// The socket's TCP state, the kernel's number.
pub fn state(of: &impl AsFd) -> io::Result<u8> {
    Ok(tcp_info(of)?[0])
}

/// Whether the socket's SYN carried data that the other end took.
pub fn opened_with_data(of: &impl AsFd) -> io::Result<bool> {
    Ok(tcp_info(of)?[5] & SYN_DATA != 0)
}

/// Sets an option of a socket that is one integer.
pub fn set_option(of: &impl AsFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let fd = of.as_fd().as_raw_fd();
    // SAFETY: the kernel reads one integer, from the integer given.
    let outcome =
        unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of_val(&value) as libc::socklen_t) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Acknowledges what has arrived, now and not when the kernel would.
pub fn acknowledge(of: &impl AsFd) -> io::Result<()> {
    set_option(of, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1)
}

/// Waits until it is so, but not for ever.
pub fn until(mut done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(CALL_SECONDS.unsigned_abs());
    while !done()? {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the socket did not come to where it was waited for"));
        }
        sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// Waits until the other end has acknowledged everything.
pub fn until_delivered(of: &impl AsFd) -> io::Result<()> {
    until(|| Ok(unsent(of)? == 0))
}

/// Waits until the socket is in that state.
pub fn until_state(of: &impl AsFd, wanted: u8) -> io::Result<()> {
    until(|| Ok(state(of)? == wanted))
}

/// How often something has happened in the network namespace of this thread: a counter of `/proc/net/netstat`, as `nstat` names it
/// without the leading `TcpExt`.
pub fn extended_counter(name: &str) -> io::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/netstat")?;
    let missing = || io::Error::other(format!("/proc/net/netstat has no {name}"));
    let mut rows = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (rows.next().ok_or_else(missing)?, rows.next().ok_or_else(missing)?);
    let at = names.split(' ').position(|found| found == name).ok_or_else(missing)?;
    values.split(' ').nth(at).and_then(|value| value.parse().ok()).ok_or_else(missing)
}
