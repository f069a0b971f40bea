//! One end of a connection with the times of its life, and what is left of it when it is over.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use crate::traffic::end::{End, retry};
use crate::traffic::family::Family;
use crate::traffic::process::netns_inode;
use crate::traffic::queues;

use super::lane::Lane;
use super::table::Outcome;

/// The time of day, in seconds since 1970.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The family of sockets for this address.
pub(super) fn family(of: IpAddr) -> Family {
    if of.is_ipv6() { Family::V6 } else { Family::V4 }
}

/// An end that lives.
#[derive(Debug)]
pub(super) struct Living {
    pub(super) end: End,
    opened: Option<f64>,
    established: Option<f64>,
}

/// What an end has done in its life.
#[derive(Clone, Debug)]
pub(super) struct Past {
    pub(super) role: &'static str,
    pub(super) netns: u64,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) unread: u64,
    pub(super) opened: Option<f64>,
    pub(super) established: Option<f64>,
    pub(super) closed: f64,
}

impl Past {
    /// Of a connection that never came about, or not for any process: it moved nothing, and is over now.
    pub(super) fn of_nothing(role: &'static str, local: SocketAddr, remote: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            role,
            netns: netns_inode()?,
            local,
            remote,
            sent: 0,
            received: 0,
            unread: 0,
            opened: None,
            established: None,
            closed: now(),
        })
    }
}

impl Living {
    /// Connects.
    pub(super) fn connect(target: SocketAddr) -> Result<Self> {
        let opened = now();
        let stream = family(target.ip()).connect(target, 0)?;
        Self::client(stream, opened)
    }

    /// The client's end of a connection that has come about.
    pub(super) fn client(stream: TcpStream, opened: f64) -> Result<Self> {
        let established = now();
        Ok(Self { end: End::new(stream, "client")?, opened: Some(opened), established: Some(established) })
    }

    /// Accepts.
    pub(super) fn accept(listener: &TcpListener) -> Result<Self> {
        let (stream, _) = retry(|| listener.accept())?;
        let established = now();
        Ok(Self { end: End::new(stream, "server")?, opened: None, established: Some(established) })
    }

    /// What it has done, if it ended at `closed`.
    pub(super) fn past(&self, closed: f64) -> Past {
        let (local, remote) = self.end.tuple();
        Past {
            role: self.end.role,
            netns: self.end.netns,
            local,
            remote,
            sent: self.end.sent,
            received: self.end.received,
            unread: 0,
            opened: self.opened,
            established: self.established,
            closed,
        }
    }

    /// Waits until nothing is under way any more, in either direction, as far as this end can tell.
    pub(super) fn settle(&self) -> Result<()> {
        queues::acknowledge(&self.end)?;
        Ok(queues::until_delivered(&self.end)?)
    }

    /// Closes, with bytes that nobody read if there are any.
    pub(super) fn close(self, lane: &Lane<'_>) -> Result<()> {
        let unread = queues::unread(&self.end).unwrap_or_default() as u64;
        let past = Past { unread, ..self.past(now()) };
        drop(self);
        lane.tell(&past)
    }

    /// Waits for the other end to close, and closes.
    pub(super) fn close_second(mut self, lane: &Lane<'_>) -> Result<()> {
        let before = self.end.received;
        self.end.receive_to_end()?;
        ensure!(self.end.received == before, "more came than was agreed");
        self.close(lane)
    }

    /// Ends the connection by a reset.
    pub(super) fn reset(self, lane: &Lane<'_>) -> Result<()> {
        setsockopt(&self.end, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
        self.close(lane)
    }

    /// Waits until the connection has failed, by an error that the scenario names.
    pub(super) fn fail(self, lane: &Lane<'_>) -> Result<()> {
        self.fail_as(lane, lane.outcome()?)
    }

    /// The same by an error of another outcome.
    pub(super) fn fail_as(self, lane: &Lane<'_>, outcome: &Outcome) -> Result<()> {
        self.end.wait_for(PollFlags::empty())?;
        let error = Errno::from_raw(getsockopt(&self.end, sockopt::SocketError)?);
        let past = self.past(now());
        outcome.expect(error)?;
        drop(self);
        lane.tell_as(&past, outcome)
    }
}
