//! The line that each end of a connection prints, and the tests read.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::end::End;
use super::process;

/// What one process did on one end of one connection.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// The operation by which the bytes moved.
    pub op: String,
    /// The address family that was used, see [`super::family::Family`].
    pub family: String,
    /// `server` for the end that accepted, `client` for the end that connected.
    pub role: String,
    /// The process (thread group) that made the calls.
    pub pid: u32,
    /// The name of that process: of its main thread, whichever thread made the calls.
    pub comm: String,
    /// Inode number of the network namespace that the socket was made in.
    pub netns: u64,
    /// This end's address, IPv4-mapped addresses as IPv4.
    pub local_addr: String,
    /// This end's port.
    pub local_port: u16,
    /// The other end's address, IPv4-mapped addresses as IPv4.
    pub remote_addr: String,
    /// The other end's port.
    pub remote_port: u16,
    /// Sum of what the sending calls returned.
    pub sent: u64,
    /// Sum of what the receiving calls returned, looks without taking (`MSG_PEEK`) left out.
    pub received: u64,
    /// Calls that ended in EAGAIN.
    #[serde(default)]
    pub again: u64,
    /// Sending calls that took less than they were given.
    #[serde(default)]
    pub partial: u64,
    /// Bytes that came back through the error queue: they are not traffic.
    #[serde(default)]
    pub error_queue: u64,
    /// Bytes that were only looked at.
    #[serde(default)]
    pub peeked: u64,
}

/// A way in which the kernel ends a connection.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fate {
    /// How it ended, in the words of `overwatch life`.
    pub ended: String,
    /// The name of the error that the socket came to, if it came to one.
    pub error: Option<String>,
}

/// The whole life of one end of one connection.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Life {
    /// The scenario that it followed.
    pub life: String,
    /// Which connection of the run, the same at both ends.
    pub number: u64,
    /// `server` for the end that accepted or would have, `client` for the end that connected.
    pub role: String,
    /// The process that connected or accepted; the one that listened, when nobody accepted.
    pub pid: u32,
    /// The name of that process.
    pub comm: String,
    /// Inode number of the network namespace of the socket.
    pub netns: u64,
    /// This end's address.
    pub local_addr: IpAddr,
    /// This end's port; 0 when it never had one.
    pub local_port: u16,
    /// The other end's address.
    pub remote_addr: IpAddr,
    /// The other end's port.
    pub remote_port: u16,
    /// Sum of what the sending calls returned.
    pub sent: u64,
    /// Sum of what the receiving calls returned.
    pub received: u64,
    /// Bytes that had arrived and that nobody read.
    pub unread: u64,
    /// Just before it was told to connect, as all times in seconds since 1970; none for a server.
    pub opened: Option<f64>,
    /// When the call that connected or accepted had returned; none when there was no such call, or it failed.
    pub established: Option<f64>,
    /// Just before this end was told to end the connection, or when it learned that it had ended.
    pub closed: f64,
    /// How the kernel may end it: one way, but where it is a matter of timing.
    pub fates: Vec<Fate>,
    /// Whether all that this end sent was received, and all that was received was sent: the kernel counts no other bytes.
    pub exact: bool,
}

/// An operation that this kernel cannot do, and why.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Skipped {
    /// The operation.
    pub op: String,
    /// Why it cannot be done here.
    pub skipped: String,
}

/// What a flood or a holder says while it works.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Event {
    /// `ready`, `progress`, `done`.
    pub event: String,
    /// A count that belongs to the event.
    #[serde(default)]
    pub count: u64,
}

/// The sums of one process of a flood.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Sums {
    /// `server` or `client`.
    pub flood: String,
    /// The process.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// The network namespace it worked in.
    pub netns: u64,
    /// Connections that it finished.
    pub connections: u64,
    /// Bytes that it sent.
    pub sent: u64,
    /// Bytes that it received.
    pub received: u64,
    /// The ports that are this process's alone, where it has such.
    #[serde(default)]
    pub ports: Option<Range<u16>>,
}

/// What a server or a client did with one connection, or with its listener, and when. Times are in seconds since 1970.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Step {
    /// What it did: see the module of the mode.
    pub step: String,
    /// The process.
    pub pid: u32,
    /// The listener's address.
    pub server: SocketAddr,
    /// The client's address; none where the step is of no connection, or the client has none yet.
    pub client: Option<SocketAddr>,
    /// Just before it was begun.
    pub from: f64,
    /// Just after it was done.
    pub until: f64,
    /// Bytes that this end had sent by then.
    #[serde(default)]
    pub bytes: u64,
    /// Inode number of the listener.
    #[serde(default)]
    pub inode: Option<u64>,
    /// The name of the error, where the step is a failure.
    #[serde(default)]
    pub error: Option<String>,
}

/// Any line that the traffic program prints.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Line {
    /// One end of one connection.
    Report(Report),
    /// The life of one end of one connection.
    Life(Life),
    /// One process of a flood.
    Sums(Sums),
    /// A step of a server or a client.
    Step(Step),
    /// An operation left out.
    Skipped(Skipped),
    /// A sign of life.
    Event(Event),
}

impl Line {
    /// Prints the line in one piece, so that lines of several processes on one pipe never mix.
    pub fn print(&self) -> io::Result<()> {
        let mut text = serde_json::to_string(self)?;
        text.push('\n');
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

/// Says that something happened.
pub fn event(name: &str, count: u64) -> io::Result<()> {
    Line::Event(Event { event: name.to_owned(), count }).print()
}

impl Report {
    /// What `end` has counted so far.
    pub fn of(end: &End, op: &str, family: &str) -> io::Result<Self> {
        let (local, remote) = end.tuple();
        Ok(Self {
            op: op.to_owned(),
            family: family.to_owned(),
            role: end.role.to_owned(),
            pid: std::process::id(),
            comm: process::comm()?,
            netns: end.netns,
            local_addr: address(local),
            local_port: local.port(),
            remote_addr: address(remote),
            remote_port: remote.port(),
            sent: end.sent,
            received: end.received,
            again: end.again,
            partial: end.partial,
            error_queue: end.error_queue,
            peeked: end.peeked,
        })
    }

    /// Prints the report as one line.
    pub fn print(self) -> io::Result<()> {
        Line::Report(self).print()
    }
}

fn address(of: SocketAddr) -> String {
    of.ip().to_canonical().to_string()
}
