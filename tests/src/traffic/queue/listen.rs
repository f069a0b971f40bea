//! A listener with a backlog of one's own choice.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};

use crate::traffic::queues::set_option;

/// How to listen.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) at: SocketAddr,
    pub(super) backlog: i32,
    /// Several sockets share the address.
    pub(super) shared: bool,
    /// TCP_DEFER_ACCEPT, in seconds.
    pub(super) defer_seconds: Option<i32>,
}

impl Place {
    /// A listener that does not block.
    pub(super) fn listen(&self) -> io::Result<TcpListener> {
        let family = if self.at.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        if self.shared {
            setsockopt(&fd, sockopt::ReusePort, &true)?;
        }
        if let Some(seconds) = self.defer_seconds {
            set_option(&fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(self.at))?;
        // Not by the wrapper of nix, which refuses what the kernel would only cut.
        // SAFETY: listen(2) takes two numbers.
        Errno::result(unsafe { libc::listen(fd.as_raw_fd(), self.backlog) })?;
        Ok(TcpListener::from(fd))
    }
}

/// The number by which the kernel names a socket.
pub(super) fn inode(of: &TcpListener) -> io::Result<u64> {
    Ok(std::fs::metadata(format!("/proc/thread-self/fd/{}", of.as_raw_fd()))?.ino())
}

/// How many connections and packets the kernel has refused at the socket.
pub(super) fn drops(of: &TcpListener) -> io::Result<u32> {
    let mut info = [0_u32; libc::SK_MEMINFO_DROPS as usize + 1];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes no more than the length says, into integers.
    let outcome = unsafe {
        libc::getsockopt(of.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    Errno::result(outcome)?;
    Ok(info[libc::SK_MEMINFO_DROPS as usize])
}
