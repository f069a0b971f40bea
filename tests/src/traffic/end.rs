//! One end of a connection and what it has counted.

use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;

use super::family::{CALL_SECONDS, bound_calls};
use super::process;

/// The most that one call is given: odd, so that no buffer size of the kernel divides it.
pub const CHUNK: usize = 7_001;

/// The bytes that are sent. What they are does not matter, how many does.
pub static PAYLOAD: [u8; 65_536] = [0x6f; 65_536];

/// One end of a connection, with the sums of what its calls returned.
#[derive(Debug)]
pub struct End {
    /// The socket.
    pub stream: TcpStream,
    /// `server` or `client`.
    pub role: &'static str,
    /// Inode number of the network namespace of the socket.
    pub netns: u64,
    /// Sum of what the sending calls returned.
    pub sent: u64,
    /// Sum of what the receiving calls returned.
    pub received: u64,
    /// Calls that ended in EAGAIN.
    pub again: u64,
    /// Sending calls that took less than they were given.
    pub partial: u64,
    /// Bytes that came through the error queue.
    pub error_queue: u64,
    /// Bytes that were looked at and left.
    pub peeked: u64,
    /// Where a client that is not connected yet will connect to.
    pub target: Option<SocketAddr>,
    tuple: Option<(SocketAddr, SocketAddr)>,
}

impl End {
    /// An end that has moved nothing yet.
    pub fn new(stream: TcpStream, role: &'static str) -> io::Result<Self> {
        bound_calls(&stream)?;
        let mut end = Self {
            stream,
            role,
            netns: process::netns_inode()?,
            sent: 0,
            received: 0,
            again: 0,
            partial: 0,
            error_queue: 0,
            peeked: 0,
            target: None,
            tuple: None,
        };
        end.note_tuple();
        Ok(end)
    }

    /// Remembers the addresses while the kernel still knows them: a socket that was reset has no peer any more.
    pub fn note_tuple(&mut self) {
        if let (Ok(local), Ok(remote)) = (self.stream.local_addr(), self.stream.peer_addr()) {
            self.tuple = Some((local, remote));
        }
    }

    /// Local and remote address.
    #[must_use]
    pub fn tuple(&self) -> (SocketAddr, SocketAddr) {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        self.tuple.unwrap_or((nowhere, nowhere))
    }

    /// Sends `total` bytes by repeating `call`, which is given what to send and returns what it sent.
    pub fn send_by(
        &mut self,
        total: usize,
        mut call: impl FnMut(BorrowedFd<'_>, &[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut left = total;
        while left > 0 {
            let asked = left.min(CHUNK);
            let sent = retry(|| call(self.stream.as_fd(), &PAYLOAD[..asked]))?;
            if sent == 0 || sent > asked {
                return Err(io::Error::other(format!("asked to send {asked} bytes, returned {sent}")));
            }
            self.partial += u64::from(sent < asked);
            self.sent += sent as u64;
            left -= sent;
        }
        Ok(())
    }

    /// Receives `total` bytes by repeating `call`, which is given a buffer and returns what it received.
    pub fn receive_by(
        &mut self,
        total: usize,
        mut call: impl FnMut(BorrowedFd<'_>, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut buffer = [0_u8; CHUNK];
        let mut left = total;
        while left > 0 {
            let asked = left.min(CHUNK);
            let got = retry(|| call(self.stream.as_fd(), &mut buffer[..asked]))?;
            if got == 0 || got > asked {
                let what = format!("asked for {asked} bytes with {left} left, returned {got}");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
            }
            self.received += got as u64;
            left -= got;
        }
        Ok(())
    }

    /// Sends by plain `write`: what an operation does that is about the other direction.
    pub fn send_plainly(&mut self, total: usize) -> io::Result<()> {
        self.send_by(total, |fd, bytes| Ok(unistd::write(fd, bytes)?))
    }

    /// Receives by plain `read`.
    pub fn receive_plainly(&mut self, total: usize) -> io::Result<()> {
        self.receive_by(total, |fd, buffer| Ok(unistd::read(fd, buffer)?))
    }

    /// Reads until the other end has closed or reset the connection; what comes is counted.
    pub fn receive_to_end(&mut self) -> io::Result<()> {
        let mut buffer = [0_u8; CHUNK];
        loop {
            match retry(|| self.stream.read(&mut buffer)) {
                Ok(0) => return Ok(()),
                Ok(got) => self.received += got as u64,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for something to happen on the socket.
    pub fn wait_for(&self, what: PollFlags) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(CALL_SECONDS.unsigned_abs());
        let mut fds = [PollFd::new(self.stream.as_fd(), what)];
        while Instant::now() < deadline {
            match poll(&mut fds, PollTimeout::from(1000_u16)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no {what:?} on the socket")))
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsRawFd for End {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// Repeats a call that a signal interrupted.
pub fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
