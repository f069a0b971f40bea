//! Ways in which connecting fails.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;

use anyhow::{Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{SockaddrStorage, bind, connect, getsockname, getsockopt, sockopt};

use crate::traffic::end::End;
use crate::traffic::queues::{SYN_SENT, set_option, state, until};

use super::endings::server_second;
use super::lane::Lane;
use super::living::{Living, Past, family, now};
use super::place::{NoRoute, Sysctl, address_towards, elsewhere, missing, silent};
use super::table::{CLOSED_BY_PEER, CLOSED_BY_US, REFUSED};

/// A call of connect that does not wait.
pub(super) struct Attempt {
    pub(super) stream: TcpStream,
    opened: f64,
    local: SocketAddr,
    target: SocketAddr,
    at_once: Option<Errno>,
}

/// This end's address, also when the other end's is not known.
pub(super) fn local_address(of: &TcpStream) -> Result<SocketAddr> {
    let name: SockaddrStorage = getsockname(of.as_raw_fd())?;
    match (name.as_sockaddr_in(), name.as_sockaddr_in6()) {
        (Some(v4), _) => Ok(SocketAddr::new(v4.ip().into(), v4.port())),
        (_, Some(v6)) => Ok(SocketAddr::new(v6.ip().into(), v6.port())),
        _ => bail!("a socket of neither IPv4 nor IPv6"),
    }
}

impl Attempt {
    /// A socket that does not wait and is bound to a port of the kernel's choice, for a client of `lane`.
    pub(super) fn bound_socket(lane: &Lane<'_>) -> Result<TcpStream> {
        let here = address_towards(lane.target)?;
        let stream = family(here).client(lane.target, 0)?;
        bind(stream.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(here, 0)))?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Begins to connect.
    pub(super) fn begin(stream: TcpStream, target: SocketAddr) -> Result<Self> {
        let opened = now();
        let at_once = match connect(stream.as_raw_fd(), &SockaddrStorage::from(target)) {
            Ok(()) => bail!("connected to {target} at once"),
            Err(Errno::EINPROGRESS) => None,
            Err(error) => Some(error),
        };
        let local = local_address(&stream)?;
        Ok(Self { stream, opened, local, target, at_once })
    }

    /// From a fresh socket of that kind, without binding it.
    fn to(target: SocketAddr) -> Result<Self> {
        let stream = family(target.ip()).client(target, 0)?;
        stream.set_nonblocking(true)?;
        Self::begin(stream, target)
    }

    fn past(&self) -> Result<Past> {
        Ok(Past { opened: Some(self.opened), ..Past::of_nothing("client", self.local, self.target)? })
    }

    fn wait(&self) -> Result<Errno> {
        if let Some(error) = self.at_once {
            return Ok(error);
        }
        // Only for its waiting: the tuple of an end that has not connected is empty.
        End::new(self.stream.try_clone()?, "client")?.wait_for(PollFlags::POLLOUT)?;
        // Up to Linux 6.9 the kernel reports an error before it closes the socket (`tcp_v4_err`): who reads it in between takes it away.
        until(|| Ok(state(&self.stream)? != SYN_SENT))?;
        Ok(Errno::from_raw(getsockopt(&self.stream, sockopt::SocketError)?))
    }

    /// Waits for the connecting to fail as the scenario says.
    fn fail(self, lane: &Lane<'_>) -> Result<()> {
        let error = self.wait()?;
        let past = self.past()?;
        lane.outcome()?.expect(error)?;
        drop(self);
        lane.tell(&past)
    }

    /// Waits for the connection.
    pub(super) fn finish(self) -> Result<Living> {
        let error = self.wait()?;
        ensure!(error as i32 == 0, "connecting to {}: {error:?}", self.target);
        self.stream.set_nonblocking(false)?;
        Living::client(self.stream, self.opened)
    }
}

/// Nothing to do for this side.
#[expect(clippy::unnecessary_wraps, reason = "it stands where a side of a scenario stands")]
pub(super) fn nothing(_: &mut Lane<'_>) -> Result<()> {
    Ok(())
}

/// A port on which nobody listens, for as long as the client needs it.
pub(super) fn server_keeping_a_port(lane: &mut Lane<'_>) -> Result<()> {
    let address = SocketAddr::new(lane.place.address, 0);
    let socket = family(address.ip()).client(address, 0)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    lane.say(local_address(&socket)?)?;
    lane.wait()
}

pub(super) fn client_refused(lane: &mut Lane<'_>) -> Result<()> {
    let target = lane.hear()?;
    Attempt::to(target)?.fail(lane)?;
    lane.say("refused")
}

/// Gives up before anybody has answered.
pub(super) fn client_giving_up(lane: &mut Lane<'_>) -> Result<()> {
    lane.device()?;
    let attempt = Attempt::to(SocketAddr::new(silent(lane.target.ip()), 9))?;
    ensure!(attempt.at_once.is_none(), "connecting to nobody: {:?}", attempt.at_once);
    let past = attempt.past()?;
    drop(attempt);
    lane.tell(&past)
}

/// Nobody ever answers; the second SYN is the last one.
pub(super) fn client_never_answered(lane: &mut Lane<'_>) -> Result<()> {
    lane.device()?;
    let stream = Attempt::bound_socket(lane)?;
    set_option(&stream, libc::IPPROTO_TCP, libc::TCP_SYNCNT, 1)?;
    Attempt::begin(stream, SocketAddr::new(silent(lane.target.ip()), 9))?.fail(lane)
}

/// The neighbour does not exist, and the kernel finds that out itself.
pub(super) fn client_without_neighbour(lane: &mut Lane<'_>) -> Result<()> {
    lane.device()?;
    Attempt::to(SocketAddr::new(missing(lane.target.ip()), 9))?.fail(lane)
}

fn towards(target: IpAddr, lane: &Lane<'_>) -> Result<()> {
    let attempt = Attempt::begin(Attempt::bound_socket(lane)?, SocketAddr::new(target, 9))?;
    ensure!(attempt.at_once.is_some(), "there is a route to {target}");
    attempt.fail(lane)
}

/// There is no route.
pub(super) fn client_without_route(lane: &mut Lane<'_>) -> Result<()> {
    lane.device()?;
    towards(elsewhere(lane.target.ip()), lane)
}

fn by_route(kind: &'static str, lane: &Lane<'_>) -> Result<()> {
    lane.device()?;
    let target = elsewhere(lane.target.ip());
    let _route = NoRoute::to(target, kind)?;
    towards(target, lane)
}

/// The route says that there is no way.
pub(super) fn client_with_unreachable_route(lane: &mut Lane<'_>) -> Result<()> {
    by_route("unreachable", lane)
}

/// The route says that it is not allowed.
pub(super) fn client_with_prohibited_route(lane: &mut Lane<'_>) -> Result<()> {
    by_route("prohibit", lane)
}

/// How many ports there are for the scenario in which they run out.
const PORTS: usize = 2;

/// Two ports, and a third connection to the same place.
pub(super) fn client_without_port(lane: &mut Lane<'_>) -> Result<()> {
    lane.device()?;
    let here = address_towards(lane.target)?;
    {
        let _range = Sysctl::set("ip_local_port_range", "40000 40001")?;
        let taken = (0..PORTS).map(|_| Living::connect(lane.target)).collect::<Result<Vec<_>>>()?;
        let mut attempt = Attempt::to(lane.target)?;
        attempt.local = SocketAddr::new(here, 0);
        attempt.fail(lane)?;
        for living in taken {
            let past = living.past(now());
            drop(living);
            lane.tell_as(&past, &CLOSED_BY_US)?;
        }
    }
    lane.say("done")
}

/// Takes what the client opens only to have its ports.
pub(super) fn server_of_all_ports(lane: &mut Lane<'_>) -> Result<()> {
    for _ in 0..PORTS {
        let mut living = Living::accept(lane.listener()?)?;
        living.end.receive_to_end()?;
        let past = living.past(now());
        drop(living);
        lane.tell_as(&past, &CLOSED_BY_PEER)?;
    }
    lane.wait()
}

/// Is refused, and connects with the same socket to where somebody listens.
pub(super) fn client_refused_first(lane: &mut Lane<'_>) -> Result<()> {
    let dead = lane.hear()?;
    let stream = Attempt::bound_socket(lane)?;
    let refused = Attempt::begin(stream, dead)?;
    let error = refused.wait()?;
    ensure!(error == Errno::ECONNREFUSED, "connecting to a dead port: {error:?}");
    lane.tell_as(&refused.past()?, &REFUSED)?;
    lane.say("refused")?;
    // The kernel reports a failed attempt once more, to the next call of connect.
    let again = connect(refused.stream.as_raw_fd(), &SockaddrStorage::from(lane.target));
    ensure!(again == Err(Errno::ECONNABORTED), "the next call of connect: {again:?}");
    let mut living = Attempt::begin(refused.stream, lane.target)?.finish()?;
    living.end.send_plainly(lane.to_server)?;
    living.end.receive_plainly(lane.to_client)?;
    living.close(lane)
}

/// Keeps a dead port for the first attempt and accepts the second.
pub(super) fn server_of_second_attempt(lane: &mut Lane<'_>) -> Result<()> {
    server_keeping_a_port(lane)?;
    server_second(lane)
}
