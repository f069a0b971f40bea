//! Zero copy, and the socket's error queue, from which its completions are read.

use std::io::{self, IoSliceMut, Write as _};
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{self, ControlMessageOwned, MsgFlags, SockaddrStorage, TimestampingFlag, setsockopt, sockopt};

use super::support;
use crate::traffic::end::{End, retry};

/// The kernel's `struct tcp_zerocopy_receive`, as far as Linux 5.11 has it.
#[repr(C)]
#[derive(Default)]
struct ZeroCopyReceive {
    address: u64,
    length: u32,
    recv_skip_hint: u32,
    inq: u32,
    err: i32,
    copybuf_address: u64,
    copybuf_len: i32,
    flags: u32,
}

/// Why `MSG_ZEROCOPY` cannot be had.
pub(super) fn cannot_send() -> Option<String> {
    let attempt = support::connection().and_then(|(client, _server)| allow_zerocopy(client.as_raw_fd()));
    attempt.err().map(|error| format!("SO_ZEROCOPY: {error}"))
}

fn allow_zerocopy(fd: RawFd) -> io::Result<()> {
    let yes: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: the option reads one integer, the one given.
    let outcome = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY, (&raw const yes).cast(), length) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `send` with `MSG_ZEROCOPY`; the completions are read from the error queue and are not traffic.
pub(super) fn send(end: &mut End, total: usize) -> io::Result<()> {
    allow_zerocopy(end.as_raw_fd())?;
    let mut calls = 0;
    end.send_by(total, |fd, bytes| {
        let flags = MsgFlags::from_bits_retain(libc::MSG_ZEROCOPY);
        let sent = socket::send(fd.as_raw_fd(), bytes, flags)?;
        calls += 1;
        Ok(sent)
    })?;
    // One message may report a range of calls: its last two fields are the first and the last of them.
    drain(end, |notice| u64::from(notice.ee_data.wrapping_sub(notice.ee_info)) + 1, calls)
}

/// `send` with time stamps asked for: they come back through the error queue together with a copy of what was
/// sent, so that reading it returns bytes which nobody received.
pub(super) fn send_with_timestamps(end: &mut End, total: usize) -> io::Result<()> {
    let wanted = TimestampingFlag::from_bits_retain(libc::SOF_TIMESTAMPING_TX_ACK | libc::SOF_TIMESTAMPING_OPT_ID)
        | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE;
    setsockopt(end, sockopt::Timestamping, &wanted)?;
    let mut calls = 0;
    end.send_by(total, |fd, bytes| {
        let sent = socket::send(fd.as_raw_fd(), bytes, MsgFlags::empty())?;
        calls += 1;
        Ok(sent)
    })?;
    drain(end, |_| 1, calls)
}

/// Nothing more comes through the error queue when this long nothing came.
const QUIET: Duration = Duration::from_millis(100);

/// Reads the error queue until `expected` calls are reported, or fewer when the kernel put several in one.
fn drain(end: &mut End, reports: fn(&libc::sock_extended_err) -> u64, expected: u64) -> io::Result<()> {
    let mut buffer = vec![0_u8; 1 << 17];
    let mut control = nix::cmsg_space!([u8; 512]);
    let mut seen = 0;
    let mut last = Instant::now();
    while seen < expected && last.elapsed() < QUIET {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message = match socket::recvmsg::<SockaddrStorage>(end.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        last = Instant::now();
        end.error_queue += message.bytes as u64;
        for note in message.cmsgs()? {
            if let ControlMessageOwned::Ipv4RecvErr(notice, _) | ControlMessageOwned::Ipv6RecvErr(notice, _) = note {
                seen += reports(&notice);
            }
        }
    }
    Ok(())
}

/// Why `TCP_ZEROCOPY_RECEIVE` cannot be had: it needs the buffer for small reads that Linux 5.11 brought.
pub(super) fn cannot_receive() -> Option<String> {
    let attempt = || {
        let (mut client, server) = support::connection()?;
        client.write_all(b"some bytes")?;
        let mut buffer = [0_u8; 64];
        socket::recv(server.as_raw_fd(), &mut buffer, MsgFlags::MSG_PEEK)?;
        zerocopy_call(server.as_raw_fd(), &mut buffer)
    };
    match attempt() {
        Ok(10) => None,
        Ok(other) => Some(format!("TCP_ZEROCOPY_RECEIVE with a buffer: 10 bytes were there, {other} came")),
        Err(error) => Some(format!("TCP_ZEROCOPY_RECEIVE with a buffer: {error}")),
    }
}

/// `getsockopt(TCP_ZEROCOPY_RECEIVE)`, which copies what does not fill pages into the buffer it is given.
pub(super) fn receive(end: &mut End, total: usize) -> io::Result<()> {
    // More than is ever under way: the kernel copies only when everything that waits fits.
    let mut buffer = vec![0_u8; total];
    let mut left = total;
    while left > 0 {
        end.wait_for(PollFlags::POLLIN)?;
        let got = retry(|| zerocopy_call(end.as_raw_fd(), &mut buffer))?;
        if got == 0 || got > left {
            return Err(io::Error::other(format!("zero-copy receive returned {got} with {left} left")));
        }
        end.received += got as u64;
        left -= got;
    }
    Ok(())
}

fn zerocopy_call(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    let mut request = ZeroCopyReceive {
        copybuf_address: buffer.as_mut_ptr() as u64,
        copybuf_len: i32::try_from(buffer.len()).map_err(io::Error::other)?,
        ..ZeroCopyReceive::default()
    };
    let mut length = libc::socklen_t::try_from(size_of::<ZeroCopyReceive>()).map_err(io::Error::other)?;
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_ZEROCOPY_RECEIVE);
    // SAFETY: the option reads and writes at most `length` bytes of `request`, whose buffer address and length
    // describe `buffer`, which is ours to write; no mapping is named, so none is changed.
    let outcome = unsafe { libc::getsockopt(fd, level, option, (&raw mut request).cast(), &raw mut length) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < offset_of!(ZeroCopyReceive, copybuf_len) + size_of::<i32>() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel knows no buffer there"));
    }
    usize::try_from(request.copybuf_len).map_err(|_| io::Error::from_raw_os_error(-request.copybuf_len))
}
