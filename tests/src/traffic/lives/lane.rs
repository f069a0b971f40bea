//! A lane: two threads, one in each process, that live through one connection after the other together.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use crate::traffic::family::CALL_SECONDS;
use crate::traffic::process::comm;
use crate::traffic::report::{Fate, Life, Line};

use super::living::{Past, family};
use super::table::{Outcome, Scenario};

/// Where the connections are.
#[derive(Debug)]
pub(super) struct Place {
    /// The server's address.
    pub(super) address: IpAddr,
    /// The interface between the two namespaces, if they are joined by one.
    pub(super) device: Option<String>,
}

/// Which of the two a thread is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Server,
    Client,
}

/// One thread's half of a lane.
#[derive(Debug)]
pub(super) struct Lane<'a> {
    pub(super) place: &'a Place,
    /// Which connection of the run this is.
    pub(super) number: u64,
    /// Bytes from client to server.
    pub(super) to_server: usize,
    /// Bytes from server to client.
    pub(super) to_client: usize,
    /// The server's listener: the client has none.
    pub(super) listener: Option<TcpListener>,
    /// Where it listens.
    pub(super) target: SocketAddr,
    role: Role,
    scenario: &'a Scenario,
    other: BufReader<UnixStream>,
}

impl<'a> Lane<'a> {
    /// The server's half, with a listener.
    pub(super) fn server(place: &'a Place, scenario: &'a Scenario, other: UnixStream) -> Result<Self> {
        let listener = family(place.address).listen(Some(place.address), 0)?;
        let target = listener.local_addr()?;
        let lane = Self::new(place, scenario, other, Role::Server, target, Some(listener))?;
        lane.say(target)?;
        Ok(lane)
    }

    /// The client's half. Waits for the server's.
    pub(super) fn client(place: &'a Place, scenario: &'a Scenario, other: UnixStream) -> Result<Self> {
        let nowhere = SocketAddr::new(place.address, 0);
        let mut lane = Self::new(place, scenario, other, Role::Client, nowhere, None)?;
        lane.target = lane.hear()?;
        Ok(lane)
    }

    fn new(
        place: &'a Place,
        scenario: &'a Scenario,
        other: UnixStream,
        role: Role,
        target: SocketAddr,
        listener: Option<TcpListener>,
    ) -> Result<Self> {
        other.set_read_timeout(Some(Duration::from_secs(CALL_SECONDS.unsigned_abs())))?;
        let other = BufReader::new(other);
        Ok(Self { place, number: 0, to_server: 0, to_client: 0, listener, target, role, scenario, other })
    }

    /// Lives through one connection.
    pub(super) fn live(&mut self, number: u64, scenario: &'a Scenario) -> Result<()> {
        (self.number, self.scenario) = (number, scenario);
        (self.to_server, self.to_client) = sizes(number);
        let side = match self.role {
            Role::Server => scenario.server_side,
            Role::Client => scenario.client_side,
        };
        side(self).with_context(|| format!("{} number {number}, {:?}", scenario.name, self.role))
    }

    /// The listener of the lane.
    pub(super) fn listener(&self) -> Result<&TcpListener> {
        self.listener.as_ref().context("only the server listens")
    }

    /// The interface between the namespaces.
    pub(super) fn device(&self) -> Result<&str> {
        self.place.device.as_deref().with_context(|| format!("{} needs --device", self.scenario.name))
    }

    /// Tells something to the other half. A word alone says that this half is so far.
    pub(super) fn say(&self, what: impl std::fmt::Display) -> Result<()> {
        let mut to = self.other.get_ref();
        Ok(to.write_all(format!("{what}\n").as_bytes())?)
    }

    /// Waits for what the other half says.
    pub(super) fn hear<T: std::str::FromStr>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.other.read_line(&mut line).context("waiting for the other end")?;
        ensure!(!line.is_empty(), "the other end is gone");
        line.trim_end().parse().ok().with_context(|| format!("the other end said {line:?}"))
    }

    /// Waits until the other half says that it is so far.
    pub(super) fn wait(&mut self) -> Result<()> {
        self.hear::<String>().map(drop)
    }

    /// How the scenario ends for this half.
    pub(super) fn outcome(&self) -> Result<&'a Outcome> {
        match self.role {
            Role::Client => Ok(&self.scenario.client),
            Role::Server => self.scenario.server.as_ref().context("nothing was to happen at the server"),
        }
    }

    /// Prints what was done in a life that ended as the scenario says.
    pub(super) fn tell(&self, past: &Past) -> Result<()> {
        let outcome = self.outcome()?;
        self.tell_as(past, outcome)
    }

    /// Prints what was done in a life that ended otherwise.
    pub(super) fn tell_as(&self, past: &Past, outcome: &Outcome) -> Result<()> {
        let fate = |way: &(&str, Option<Errno>)| Fate {
            ended: way.0.to_owned(),
            error: way.1.map(|error| format!("{error:?}")),
        };
        let life = Life {
            life: self.scenario.name.to_owned(),
            number: self.number,
            role: past.role.to_owned(),
            pid: std::process::id(),
            comm: comm()?,
            netns: past.netns,
            local_addr: past.local.ip().to_canonical(),
            local_port: past.local.port(),
            remote_addr: past.remote.ip().to_canonical(),
            remote_port: past.remote.port(),
            sent: past.sent,
            received: past.received,
            unread: past.unread,
            opened: past.opened,
            established: past.established,
            closed: past.closed,
            fates: outcome.ways.iter().map(fate).collect(),
            exact: outcome.exact,
        };
        Ok(Line::Life(life).print()?)
    }
}

/// How many bytes go to the server and to the client: mixed, mostly small, sometimes none, the same in every run.
pub(super) fn sizes(number: u64) -> (usize, usize) {
    let mut state = number.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut size = || {
        // One step of SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 20;
        let most = match mixed % 16 {
            0 => 1,
            1..=11 => 2_000,
            12..=14 => 20_000,
            _ => 200_000,
        };
        ((mixed >> 4) % most) as usize
    };
    (size(), size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_mixed_and_stay() {
        let all: Vec<(usize, usize)> = (0..1_000).map(sizes).collect();
        assert_eq!(all, (0..1_000).map(sizes).collect::<Vec<_>>());
        let of = |least: usize, most: usize| all.iter().filter(|(up, _)| (least..most).contains(up)).count();
        assert!(of(0, 1) > 30, "{} without a byte", of(0, 1));
        assert!(of(1, 2_000) > 500, "{} small", of(1, 2_000));
        assert!(of(20_000, 200_000) > 30, "{} large", of(20_000, 200_000));
        assert!(all.iter().filter(|(up, down)| up == down).count() < 20);
    }
}
