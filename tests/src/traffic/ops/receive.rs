//! Ways to receive that are one system call each.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd as _;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::socket::{self, MsgFlags};
use nix::sys::uio;

use super::send::{empty_message, iovec};
use crate::traffic::end::{CHUNK, End, retry};

/// `read`.
pub(super) fn read(end: &mut End, total: usize) -> io::Result<()> {
    end.receive_plainly(total)
}

/// `read` by a reader that begins late and pauses, so that the sender's buffer fills.
pub(super) fn slowly(end: &mut End, total: usize) -> io::Result<()> {
    sleep(Duration::from_millis(50));
    let half = total / 2;
    end.receive_plainly(half)?;
    sleep(Duration::from_millis(50));
    end.receive_plainly(total - half)
}

/// `readv` into two pieces.
pub(super) fn readv(end: &mut End, total: usize) -> io::Result<()> {
    end.receive_by(total, |fd, buffer| {
        let (first, second) = buffer.split_at_mut(buffer.len() / 3);
        Ok(uio::readv(fd, &mut [IoSliceMut::new(first), IoSliceMut::new(second)])?)
    })
}

/// `recv`.
pub(super) fn recv(end: &mut End, total: usize) -> io::Result<()> {
    end.receive_by(total, |fd, buffer| Ok(socket::recv(fd.as_raw_fd(), buffer, MsgFlags::empty())?))
}

/// `recvmsg` into two pieces.
pub(super) fn recvmsg(end: &mut End, total: usize) -> io::Result<()> {
    end.receive_by(total, |fd, buffer| {
        let (first, second) = buffer.split_at_mut(buffer.len() / 4);
        let mut parts = [IoSliceMut::new(first), IoSliceMut::new(second)];
        Ok(socket::recvmsg::<()>(fd.as_raw_fd(), &mut parts, None, MsgFlags::empty())?.bytes)
    })
}

/// `recvmmsg` with four messages: of a stream each takes what is there.
pub(super) fn recvmmsg(end: &mut End, total: usize) -> io::Result<()> {
    end.receive_by(total, |fd, buffer| {
        let mut parts: Vec<libc::iovec> = buffer.chunks_mut(CHUNK / 4 + 1).map(|part| iovec(part)).collect();
        let mut messages: Vec<libc::mmsghdr> = parts.iter().map(|_| empty_message()).collect();
        for (message, part) in messages.iter_mut().zip(&mut parts) {
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        let count = u32::try_from(messages.len()).map_err(io::Error::other)?;
        let (list, flags) = (messages.as_mut_ptr(), libc::MSG_WAITFORONE);
        // SAFETY: `count` headers point at as many vectors, which point at separate parts of `buffer`; all outlive
        // the call. There is no time limit to point at.
        let done = unsafe { libc::recvmmsg(fd.as_raw_fd(), list, count, flags, std::ptr::null_mut()) };
        let done = usize::try_from(done).map_err(|_| io::Error::last_os_error())?;
        Ok(messages.iter().take(done).map(|message| message.msg_len as usize).sum())
    })
}

/// `recv` with `MSG_PEEK`, twice, and then in earnest: only the last counts.
pub(super) fn peek_then_recv(end: &mut End, total: usize) -> io::Result<()> {
    let mut peeked = 0;
    let outcome = end.receive_by(total, |fd, buffer| {
        for _ in 0..2 {
            peeked += retry(|| Ok(socket::recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_PEEK)?))?;
        }
        Ok(socket::recv(fd.as_raw_fd(), buffer, MsgFlags::empty())?)
    });
    end.peeked += peeked as u64;
    outcome
}

/// `recv` with `MSG_WAITALL`.
pub(super) fn waitall(end: &mut End, total: usize) -> io::Result<()> {
    end.receive_by(total, |fd, buffer| Ok(socket::recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_WAITALL)?))
}

/// `recv` with `MSG_TRUNC`: on TCP the bytes are taken and thrown away, and no buffer is needed.
pub(super) fn discard(end: &mut End, total: usize) -> io::Result<()> {
    end.receive_by(total, |fd, buffer| {
        // SAFETY: with MSG_TRUNC a TCP socket copies nothing, so nothing is written through the null pointer.
        let got = unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), buffer.len(), libc::MSG_TRUNC) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    })
}
