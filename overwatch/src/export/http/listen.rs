//! Listening sockets: from an address to a socket, and from a socket to connections.

use std::{
    fs, io,
    net::{SocketAddr, ToSocketAddrs as _},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream as BlockingUnixStream,
    },
    path::{Path, PathBuf},
};

use nix::sys::{
    socket::{setsockopt, sockopt},
    stat::{Mode, fchmod},
};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};

use super::address::Address;

/// Connections that the kernel holds until they are taken (at most net.core.somaxconn). Each is taken soon, if only to be closed; a client whose SYN
/// finds no room comes again a second later.
const BACKLOG: u32 = 4096;

/// What the kernel takes of an answer that the client does not read; it doubles this for what it needs itself (tcp(7)). A
/// compressed scrape of thousands of series is smaller. Without it, it takes megabytes for each client.
const SEND_BUFFER: usize = 128 * 1024;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    /// The file of a Unix socket that was made here.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection that was taken.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Why a socket does not listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Somebody listens there.
    #[error(
        "cannot listen at {0}: the address is in use by another process; stop it, or choose another --web.listen-address"
    )]
    InUse(Address),
    /// The file is there, and it is no socket.
    #[error("cannot listen at {0}: there is a file of that name that is not a socket")]
    NotASocket(Address),
    /// The name has no address.
    #[error("cannot listen at {address}: the name cannot be resolved")]
    Name {
        /// Where.
        address: Address,
        /// What the resolver said.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot listen at {address}: {source}")]
    Other {
        /// Where.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ListenError {
    fn new(address: &Address, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address.clone()),
            _ => Self::Other { address: address.clone(), source },
        }
    }
}

impl Listener {
    /// Listens. A name with several addresses is listened at by the first that works, as Prometheus' exporters do.
    ///
    /// Needs a tokio runtime.
    pub fn bind(address: &Address) -> Result<Self, ListenError> {
        match address {
            Address::Tcp { host, port } => tcp(address, host, *port),
            Address::Unix { path, mode } => unix(address, path, *mode),
        }
    }

    pub(super) fn of_tcp(listener: TcpListener) -> Self {
        Self { kind: Kind::Tcp(listener), _file: None }
    }

    pub(super) fn of_unix(listener: UnixListener) -> Self {
        Self { kind: Kind::Unix(listener), _file: None }
    }

    /// Where a TCP socket listens, with the port that the kernel chose; `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Tcp(listener) => listener.local_addr().ok(),
            Kind::Unix(_) => None,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Socket> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // An answer is written in one piece: there is nothing to wait for. A failure costs 40 ms, no more.
                let _best_effort = stream.set_nodelay(true);
                let _best_effort = setsockopt(&stream, sockopt::SndBuf, &SEND_BUFFER);
                Ok(Socket::Tcp(stream))
            }
            Kind::Unix(listener) => listener.accept().await.map(|(stream, _)| Socket::Unix(stream)),
        }
    }
}

fn tcp(address: &Address, host: &str, port: u16) -> Result<Listener, ListenError> {
    let candidates: Vec<SocketAddr> = if host.is_empty() {
        // With the kernel's defaults (net.ipv6.bindv6only = 0) the first takes IPv4 too; the second is for hosts without IPv6.
        vec![([0_u16; 8], port).into(), ([0_u8; 4], port).into()]
    } else {
        // Not by tokio, which has a thread wait for the answer. That one would keep the privileges that are given up once this listens.
        let found = (host, port).to_socket_addrs();
        found.map_err(|source| ListenError::Name { address: address.clone(), source })?.collect()
    };
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in candidates {
        match tcp_at(candidate) {
            Ok(listener) => return Ok(Listener::of_tcp(listener)),
            // Whoever asked for every address and has one of them taken would not want the rest.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(ListenError::new(address, error)),
            Err(error) => failure = error,
        }
    }
    Err(ListenError::new(address, failure))
}

fn tcp_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a predecessor in TIME_WAIT do not keep its successor from listening.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn unix(address: &Address, path: &Path, mode: u32) -> Result<Listener, ListenError> {
    remove_stale(address, path)?;
    let listen = || -> io::Result<Listener> {
        let socket = UnixSocket::new_stream()?;
        // The file takes the socket's mode less the umask when bind makes it (unix_bind), so it is never open to more than that.
        fchmod(&socket, Mode::from_bits_truncate(mode))?;
        socket.bind(path)?;
        let file = SocketFile::new(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        Ok(Listener { kind: Kind::Unix(socket.listen(BACKLOG)?), _file: Some(file) })
    };
    listen().map_err(|error| ListenError::new(address, error))
}

/// Removes the file that a predecessor left when it was killed: nobody listens behind it.
fn remove_stale(address: &Address, path: &Path) -> Result<(), ListenError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ListenError::new(address, error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(ListenError::NotASocket(address.clone())),
        Ok(_) => {}
    }
    match BlockingUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| ListenError::new(address, error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ListenError::new(address, error)),
        Ok(_) => Err(ListenError::InUse(address.clone())),
    }
}

/// The file of a Unix socket, which goes with it; but for one that somebody else has put there since.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(same) {
            // Nobody is left to be told; the next start removes a stale file.
            let _left = fs::remove_file(&self.path);
        }
    }
}
