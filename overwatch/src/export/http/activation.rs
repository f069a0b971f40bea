//! Listening sockets that systemd has made (sd_listen_fds(3)): numbers from 3 on, announced in the environment.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::{ffi::OsStrExt as _, net::UnixListener as BlockingUnixListener},
    },
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{AddressFamily, SockType, SockaddrLike as _, SockaddrStorage, getsockname, getsockopt, sockopt},
};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

use super::listen::Listener;

/// The first of them (SD_LISTEN_FDS_START).
pub const FIRST: RawFd = 3;
/// More than any unit has; a number beyond it is nonsense from the environment.
const MOST: RawFd = 64;

/// Why the sockets cannot be used.
#[derive(Debug, Error)]
pub enum ActivationError {
    /// Not a count.
    #[error("LISTEN_FDS is '{}', which is not a number from 0 to {MOST}", .0.display())]
    Count(OsString),
    /// Not a process.
    #[error("LISTEN_PID is '{}', which is not a process id", .0.display())]
    Pid(OsString),
    /// Not open, or not what can be listened at.
    #[error(
        "file descriptor {fd} from systemd cannot be used: {why}; see Accept= and ListenStream= of the socket unit"
    )]
    Descriptor {
        /// Its number.
        fd: RawFd,
        /// What it is instead.
        why: String,
    },
}

/// How many sockets there are for the process `own`; 0 when there are none, or they are another's.
pub fn announced(fds: Option<&OsStr>, pid: Option<&OsStr>, own: u32) -> Result<RawFd, ActivationError> {
    let (Some(fds), Some(pid)) = (fds, pid) else { return Ok(0) };
    let number = |text: &OsStr| {
        let digits = Some(text).filter(|text| text.as_bytes().iter().all(u8::is_ascii_digit));
        digits?.to_str()?.parse::<u32>().ok()
    };
    if number(pid).ok_or_else(|| ActivationError::Pid(pid.to_owned()))? != own {
        return Ok(0);
    }
    let count = number(fds).and_then(|count| RawFd::try_from(count).ok()).filter(|count| *count <= MOST);
    count.ok_or_else(|| ActivationError::Count(fds.to_owned()))
}

/// The sockets that were handed to this process; none when it was not started that way. To be called once, at the start:
/// it makes the descriptors its own.
///
/// Needs a tokio runtime.
pub fn inherited() -> Result<Vec<Listener>, ActivationError> {
    handed_over(count()?)
}

/// How many were handed to this process.
pub fn count() -> Result<RawFd, ActivationError> {
    let (fds, pid) = (std::env::var_os("LISTEN_FDS"), std::env::var_os("LISTEN_PID"));
    announced(fds.as_deref(), pid.as_deref(), std::process::id())
}

/// So many sockets, which were handed to the parent of this process. As with [`inherited`], to be called once, at the start.
pub fn handed_over(count: RawFd) -> Result<Vec<Listener>, ActivationError> {
    (FIRST..FIRST + count.clamp(0, MOST)).map(adopt).collect()
}

/// Makes a listening socket of a descriptor that nothing else in this process has.
fn adopt(fd: RawFd) -> Result<Listener, ActivationError> {
    let refused = |why: String| ActivationError::Descriptor { fd, why };
    // SAFETY: fcntl only looks the number up; when it is not open, that is the error that it gives.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(refused("it is not open".to_owned()));
    }
    // SAFETY: it is open, as was just asked. The protocol of sd_listen_fds gives it to this process, which takes it once.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    listener(owned).map_err(|why| refused(why.to_string()))
}

pub(super) fn listener(fd: OwnedFd) -> io::Result<Listener> {
    let family = listening_family(fd.as_fd())?;
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    if family == Some(AddressFamily::Unix) {
        let listener = BlockingUnixListener::from(fd);
        listener.set_nonblocking(true)?;
        return Ok(Listener::of_unix(UnixListener::from_std(listener)?));
    }
    let listener = std::net::TcpListener::from(fd);
    listener.set_nonblocking(true)?;
    Ok(Listener::of_tcp(TcpListener::from_std(listener)?))
}

/// Its family, when it is a listening stream socket of TCP or of a Unix path.
fn listening_family(fd: BorrowedFd<'_>) -> io::Result<Option<AddressFamily>> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
    if getsockopt(&fd, sockopt::SockType).map_err(|_| wrong("it is not a socket"))? != SockType::Stream {
        return Err(wrong("it is not a stream socket"));
    }
    if !getsockopt(&fd, sockopt::AcceptConn)? {
        return Err(wrong("it does not listen"));
    }
    let family = getsockname::<SockaddrStorage>(fd.as_raw_fd())?.family();
    match family {
        Some(AddressFamily::Inet | AddressFamily::Inet6 | AddressFamily::Unix) => Ok(family),
        _ => Err(wrong("it is neither TCP nor a Unix socket")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_how_many() {
        type Case<'a> = (Option<&'a str>, Option<&'a str>, Result<RawFd, &'a str>);
        let cases: [Case<'_>; 12] = [
            (None, None, Ok(0)),
            (Some("1"), None, Ok(0)),
            (None, Some("7"), Ok(0)),
            (Some("1"), Some("7"), Ok(1)),
            (Some("64"), Some("7"), Ok(64)),
            (Some("0"), Some("7"), Ok(0)),
            (Some("2"), Some("8"), Ok(0)),
            // Another's: what is in the rest is none of our business.
            (Some("x"), Some("8"), Ok(0)),
            (Some("65"), Some("7"), Err("LISTEN_FDS is '65', which is not a number from 0 to 64")),
            (Some("-1"), Some("7"), Err("LISTEN_FDS is '-1', which is not a number from 0 to 64")),
            (Some(""), Some("7"), Err("LISTEN_FDS is '', which is not a number from 0 to 64")),
            (Some("1"), Some("+7"), Err("LISTEN_PID is '+7', which is not a process id")),
        ];
        for (fds, pid, expected) in cases {
            let found = announced(fds.map(OsStr::new), pid.map(OsStr::new), 7).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{fds:?} {pid:?}");
        }
    }

    #[tokio::test]
    async fn only_listening_stream_sockets_are_taken() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        assert_eq!(listener(tcp.into()).unwrap().local_addr(), Some(address));
        let directory = tempfile::tempdir().unwrap();
        let unix = BlockingUnixListener::bind(directory.path().join("s")).unwrap();
        assert_eq!(listener(unix.into()).unwrap().local_addr(), None);

        let udp: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client: OwnedFd = std::net::TcpStream::connect(server.local_addr().unwrap()).unwrap().into();
        for (fd, expected) in
            [(udp, "it is not a stream socket"), (file, "it is not a socket"), (client, "it does not listen")]
        {
            assert_eq!(listener(fd).unwrap_err().to_string(), expected);
        }
        let error = adopt(1_000_000).unwrap_err().to_string();
        assert!(error.starts_with("file descriptor 1000000 from systemd cannot be used: it is not open"), "{error}");
    }
}
