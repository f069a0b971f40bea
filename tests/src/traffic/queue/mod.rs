//! Servers that do badly in known ways, the clients that wait for them, and handshakes made by hand.
//!
//! Every process prints a line for each step, with the times just before and just after it: what is true of a listener
//! at some instant can be worked out from the lines of its server and of its clients.

pub mod call;
pub mod knock;
mod listen;
mod packet;
pub mod serve;
mod served;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::time::TimeSpec;

use super::report::{Line, Step};

/// Now, in seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The names of steps.
pub mod step {
    /// A server has begun to listen; its line has the inode of the socket.
    pub const LISTENING: &str = "listening";
    /// A server has accepted a connection.
    pub const ACCEPTED: &str = "accepted";
    /// A server could not accept, for want of a descriptor; said once in a row.
    pub const NOT_ACCEPTED: &str = "not_accepted";
    /// A server has closed a connection.
    pub const CLOSED: &str = "closed";
    /// A client has begun to connect; it has no address that is worth telling.
    pub const CONNECTING: &str = "connecting";
    /// A client is connected and has sent its request: as many bytes as are said.
    pub const CONNECTED: &str = "connected";
    /// A client has received the first byte of an answer.
    pub const ANSWERED: &str = "answered";
    /// A client has come to the end of the answer.
    pub const ENDED: &str = "ended";
    /// A client has closed because no answer came in time.
    pub const GAVE_UP: &str = "gave_up";
    /// A client could not connect, or has lost the connection.
    pub const FAILED: &str = "failed";
    /// A SYN was sent by hand.
    pub const KNOCKED: &str = "knocked";
    /// It was answered by a SYN-ACK.
    pub const OFFERED: &str = "offered";
    /// The last ACK of the handshake was sent by hand.
    pub const COMPLETED: &str = "completed";
}

/// A step of this process, to be completed and printed.
struct Taken(Step);

impl Taken {
    fn new(step: &str, server: SocketAddr, from: f64) -> Self {
        Self(Step {
            step: step.to_owned(),
            pid: std::process::id(),
            server,
            client: None,
            from,
            until: now(),
            bytes: 0,
            inode: None,
            error: None,
        })
    }

    fn client(mut self, client: SocketAddr) -> Self {
        self.0.client = Some(client);
        self
    }

    fn bytes(mut self, bytes: usize) -> Self {
        self.0.bytes = bytes as u64;
        self
    }

    fn inode(mut self, inode: u64) -> Self {
        self.0.inode = Some(inode);
        self
    }

    fn error(mut self, error: &io::Error) -> Self {
        self.0.error =
            Some(error.raw_os_error().map_or_else(|| error.to_string(), |raw| format!("{:?}", Errno::from_raw(raw))));
        self
    }

    fn print(self) -> io::Result<()> {
        Line::Step(self.0).print()
    }
}

/// Waits for one of the files, or until that time; for ever if there is none.
fn wait(fds: &mut [PollFd<'_>], until: Option<Instant>) -> io::Result<()> {
    let left = until.map(|at| TimeSpec::from_duration(at.saturating_duration_since(Instant::now())));
    match ppoll(fds, left, None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What there is to wait for on a file.
fn interest(fd: &impl AsFd, flags: PollFlags) -> PollFd<'_> {
    PollFd::new(fd.as_fd(), flags)
}

/// Whether something has happened to it: what was asked for, or its end.
fn happened(fd: &PollFd<'_>) -> bool {
    fd.revents().is_some_and(|events| !events.is_empty())
}

/// The earlier of two times.
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Lets this process have as many files as it may ask for, or so many.
fn allow_files(count: Option<u64>) -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, count.unwrap_or(most), most)?;
    Ok(())
}
