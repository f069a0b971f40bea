//! A connection that a server has accepted.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::traffic::end::PAYLOAD;

/// How often an answer that is sent at a rate goes on.
const PACE: Duration = Duration::from_millis(50);
/// How often a full socket is tried again.
const AGAIN: Duration = Duration::from_millis(5);

/// What a server does with a connection.
#[derive(Clone, Debug)]
pub(super) struct Treatment {
    /// Whether it waits for a request.
    pub(super) asked: bool,
    /// How long it thinks before it answers.
    pub(super) thinks: Duration,
    /// How much it answers.
    pub(super) answer_bytes: usize,
    /// How fast, in bytes per second; 0 when as fast as possible.
    pub(super) answer_rate: usize,
    /// Whether it closes after the answer.
    pub(super) closes: bool,
}

/// One of its connections.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) stream: TcpStream,
    pub(super) client: SocketAddr,
    pub(super) sent: usize,
    /// When to do something; none while it is the client's turn.
    due: Option<Instant>,
    left: usize,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    GoesOn,
    IsOver,
}

impl Served {
    pub(super) fn new(stream: TcpStream, client: SocketAddr, how: &Treatment) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        setsockopt(&stream, sockopt::TcpNoDelay, &true)?;
        let mut served = Self { stream, client, sent: 0, due: None, left: 0 };
        if !how.asked {
            served.begin(how);
        }
        Ok(served)
    }

    fn begin(&mut self, how: &Treatment) {
        self.left = how.answer_bytes;
        self.due = Some(Instant::now() + how.thinks);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Something has come from the client.
    pub(super) fn hear(&mut self, how: &Treatment) -> Fate {
        let mut buffer = [0; 16_384];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Fate::IsOver,
                Ok(_) if self.due.is_none() && how.asked => self.begin(how),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Fate::GoesOn,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The client has reset it.
                Err(_) => return Fate::IsOver,
            }
        }
    }

    /// Goes on with the answer, if it is time.
    pub(super) fn work(&mut self, how: &Treatment) -> Fate {
        let now = Instant::now();
        if self.due.is_none_or(|due| due > now) {
            return Fate::GoesOn;
        }
        let paced = how.answer_rate > 0;
        let mut portion = if paced { (how.answer_rate as f64 * PACE.as_secs_f64()) as usize } else { usize::MAX };
        while self.left > 0 && portion > 0 {
            let most = self.left.min(portion).min(PAYLOAD.len());
            match self.stream.write(&PAYLOAD[..most]) {
                Ok(sent) => {
                    self.sent += sent;
                    self.left -= sent;
                    portion -= sent;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.due = Some(now + AGAIN);
                    return Fate::GoesOn;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Fate::IsOver,
            }
        }
        if self.left > 0 {
            self.due = Some(now + PACE);
        } else if how.closes {
            return Fate::IsOver;
        } else {
            self.due = None;
        }
        Fate::GoesOn
    }
}
