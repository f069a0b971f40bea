//! The address families that a connection can have, and how its two ends are made.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, listen, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::end::retry;

/// How long one call may wait for the other end.
pub const CALL_SECONDS: i64 = 120;

/// An address family of a connection, as its two ends see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// Both ends are IPv4 sockets.
    V4,
    /// Both ends are IPv6 sockets.
    V6,
    /// The listener is a dual-stack IPv6 socket, the client an IPv4 socket.
    MappedServer,
    /// The listener is an IPv4 socket, the client an IPv6 socket that connects to `::ffff:a.b.c.d`.
    MappedClient,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 4] = [Self::V4, Self::V6, Self::MappedServer, Self::MappedClient];

    /// The name that reports and arguments use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
            Self::MappedServer => "mapped-server",
            Self::MappedClient => "mapped-client",
        }
    }

    /// The family of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    /// What the listener binds to, on loopback unless `address` says otherwise.
    fn listen_ip(self, address: Option<IpAddr>) -> IpAddr {
        match self {
            Self::V4 | Self::MappedClient => address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Self::V6 => address.unwrap_or(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            Self::MappedServer => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// What the client connects to.
    fn target_ip(self, address: Option<IpAddr>) -> IpAddr {
        match self {
            Self::V4 | Self::V6 => self.listen_ip(address),
            Self::MappedServer => address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Self::MappedClient => match address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)) {
                IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
                v6 @ IpAddr::V6(_) => v6,
            },
        }
    }

    /// A listener, on a port of the kernel's choice when `port` is 0.
    pub fn listen(self, address: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
        let at = SocketAddr::new(self.listen_ip(address), port);
        let fd = new_socket(at.ip())?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        if at.is_ipv6() {
            setsockopt(&fd, sockopt::Ipv6V6Only, &(self != Self::MappedServer))?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(at))?;
        listen(&fd, Backlog::new(4096)?)?;
        Ok(TcpListener::from(fd))
    }

    /// Where a client finds a listener of this family.
    #[must_use]
    pub fn target(self, address: Option<IpAddr>, port: u16) -> SocketAddr {
        SocketAddr::new(self.target_ip(address), port)
    }

    /// A client's socket, bound to `port` if it is not 0, and not connected yet.
    pub fn client(self, target: SocketAddr, port: u16) -> io::Result<TcpStream> {
        let fd = new_socket(target.ip())?;
        if port != 0 {
            setsockopt(&fd, sockopt::ReuseAddr, &true)?;
            let any = if target.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
            bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, port)))?;
        }
        bound_calls(&fd)?;
        Ok(TcpStream::from(fd))
    }

    /// A connected client.
    pub fn connect(self, target: SocketAddr, port: u16) -> io::Result<TcpStream> {
        let stream = self.client(target, port)?;
        match connect(stream.as_raw_fd(), &SockaddrStorage::from(target)) {
            // io_uring interrupts calls of the process that uses it. The connecting goes on without the caller.
            Err(Errno::EINTR) => await_connection(&stream)?,
            other => other?,
        }
        Ok(stream)
    }
}

fn await_connection(stream: &TcpStream) -> io::Result<()> {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    let limit = PollTimeout::try_from(CALL_SECONDS * 1000).map_err(io::Error::other)?;
    let ready = retry(|| Ok(poll(&mut fds, limit)?))?;
    match getsockopt(stream, sockopt::SocketError)? {
        0 if ready > 0 => Ok(()),
        0 => Err(io::ErrorKind::TimedOut.into()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn new_socket(ip: IpAddr) -> io::Result<OwnedFd> {
    let family = if ip.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    Ok(socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// No call on the socket waits for ever.
pub fn bound_calls(fd: &impl std::os::fd::AsFd) -> io::Result<()> {
    let limit = TimeVal::seconds(CALL_SECONDS);
    setsockopt(fd, sockopt::ReceiveTimeout, &limit)?;
    setsockopt(fd, sockopt::SendTimeout, &limit)?;
    Ok(())
}
