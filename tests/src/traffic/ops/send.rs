//! Ways to send that are one system call each.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::socket::{self, MsgFlags, setsockopt, sockopt};
use nix::sys::uio;
use nix::unistd;

use crate::traffic::end::{End, PAYLOAD};

/// `write`.
pub(super) fn write(end: &mut End, total: usize) -> io::Result<()> {
    end.send_plainly(total)
}

/// `writev` with three pieces.
pub(super) fn writev(end: &mut End, total: usize) -> io::Result<()> {
    end.send_by(total, |fd, bytes| Ok(uio::writev(fd, &pieces(bytes))?))
}

/// `send`.
pub(super) fn send(end: &mut End, total: usize) -> io::Result<()> {
    end.send_by(total, |fd, bytes| Ok(socket::send(fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?))
}

/// `sendmsg` with three pieces.
pub(super) fn sendmsg(end: &mut End, total: usize) -> io::Result<()> {
    end.send_by(total, |fd, bytes| {
        Ok(socket::sendmsg::<()>(fd.as_raw_fd(), &pieces(bytes), &[], MsgFlags::MSG_NOSIGNAL, None)?)
    })
}

/// `sendmmsg` with two messages of two pieces.
pub(super) fn sendmmsg(end: &mut End, total: usize) -> io::Result<()> {
    end.send_by(total, |fd, bytes| {
        let (first, second) = bytes.split_at(bytes.len() / 3);
        let mut parts = [iovec(first), iovec(second)];
        let mut messages: [libc::mmsghdr; 2] = std::array::from_fn(|_| empty_message());
        for (message, part) in messages.iter_mut().zip(&mut parts) {
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the headers point at two vectors on this stack, which point into `bytes`; all outlive the call.
        let done = unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), 2, libc::MSG_NOSIGNAL) };
        let done = usize::try_from(done).map_err(|_| io::Error::last_os_error())?;
        Ok(messages.iter().take(done).map(|message| message.msg_len as usize).sum())
    })
}

/// Non-blocking writes into a small buffer, more at a time than it holds: they end partial or in EAGAIN.
pub(super) fn nonblocking(end: &mut End, total: usize) -> io::Result<()> {
    setsockopt(end, sockopt::SndBuf, &4096)?;
    let flags = OFlag::from_bits_truncate(fcntl(&*end, FcntlArg::F_GETFL)?);
    fcntl(&*end, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let mut left = total;
    while left > 0 {
        let asked = left.min(PAYLOAD.len());
        match unistd::write(&*end, &PAYLOAD[..asked]) {
            Ok(sent) => {
                end.partial += u64::from(sent < asked);
                end.sent += sent as u64;
                left -= sent;
            }
            Err(Errno::EAGAIN) => {
                end.again += 1;
                end.wait_for(PollFlags::POLLOUT)?;
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    fcntl(&*end, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

fn pieces(bytes: &[u8]) -> [IoSlice<'_>; 3] {
    let (first, rest) = bytes.split_at(bytes.len() / 5);
    let (second, third) = rest.split_at(rest.len() / 2);
    [IoSlice::new(first), IoSlice::new(second), IoSlice::new(third)]
}

pub(super) fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

pub(super) fn empty_message() -> libc::mmsghdr {
    // SAFETY: all fields are integers and pointers, for which zero bytes are a value.
    unsafe { std::mem::zeroed() }
}
