//! Clients, one thread for all of them, that ask, wait and lose patience as they are told.
//!
//! - `--count N` clients come at once, or `--rate R` per second; `--from` takes addresses that they use in turn.
//! - Each sends `--request-bytes` bytes, or `--request TEXT` (with `\r\n` spelled out), once it is connected.
//! - `--give-up-ms T` after it began, a client that has no answer closes, or resets the connection with `--by reset`.
//! - With `--again-ms T`, a client whose connection has ended begins anew T milliseconds later, and one whose connection is kept sends
//!   another request T milliseconds after an answer.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, setsockopt, socket, sockopt,
};

use crate::traffic::args::Args;
use crate::traffic::end::PAYLOAD;
use crate::traffic::process::{enter_netns, set_comm};

use super::{Taken, allow_files, earlier, happened, interest, milliseconds, now, step, wait};

/// The options of this mode.
pub const OPTIONS: &[&str] = &[
    "address",
    "port",
    "netns",
    "comm",
    "from",
    "count",
    "rate",
    "request",
    "request-bytes",
    "give-up-ms",
    "by",
    "again-ms",
];

struct Plan {
    target: SocketAddr,
    from: Vec<IpAddr>,
    count: usize,
    /// Between one client and the next.
    apart: Duration,
    request: Vec<u8>,
    patience: Option<Duration>,
    resets: bool,
    again: Option<Duration>,
}

/// Runs until all clients are through; until it is killed, if they stay or come again.
pub fn run(args: &Args) -> Result<()> {
    set_comm(args.text("comm", "ow-call"))?;
    enter_netns(args.path("netns").as_deref())?;
    allow_files(None)?;
    let address = args.address("address")?.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let from = args.text("from", "").split(',').filter(|text| !text.is_empty());
    let rate: f64 = args.value("rate", 0.0)?;
    let time = |name: &str| -> Result<Option<Duration>> {
        let given = args.value(name, -1_i64)?;
        Ok(u64::try_from(given).ok().map(milliseconds))
    };
    let request = match args.text("request", "") {
        "" => PAYLOAD[..args.value("request-bytes", 0_usize)?.min(PAYLOAD.len())].to_vec(),
        text => text.replace("\\r\\n", "\r\n").into_bytes(),
    };
    let plan = Plan {
        target: SocketAddr::new(address, args.value("port", 0)?),
        from: from.map(|text| text.parse().with_context(|| format!("--from {text}"))).collect::<Result<_>>()?,
        count: args.value("count", 1)?,
        apart: if rate > 0.0 { Duration::from_secs_f64(1.0 / rate) } else { Duration::ZERO },
        request,
        patience: time("give-up-ms")?,
        resets: args.text("by", "close") == "reset",
        again: time("again-ms")?,
    };
    let begin = Instant::now();
    let mut clients: Vec<Client> =
        (0..plan.count).map(|index| Client::new(index, begin + plan.apart * index as u32)).collect();
    while clients.iter().any(|client| !client.is_through()) {
        let clock = Instant::now();
        for client in &mut clients {
            client.work(&plan, clock)?;
        }
        let until = clients.iter().fold(None, |until, client| earlier(until, client.due(&plan)));
        let mut waiting = Vec::new();
        let mut fds = Vec::new();
        for (index, client) in clients.iter().enumerate() {
            if let Some((stream, flags)) = client.waits_for() {
                waiting.push(index);
                fds.push(interest(stream, flags));
            }
        }
        wait(&mut fds, until)?;
        let heard: Vec<usize> =
            waiting.into_iter().zip(&fds).filter(|(_, fd)| happened(fd)).map(|(index, _)| index).collect();
        drop(fds);
        for index in heard {
            clients[index].hear(&plan)?;
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Conversation {
    stream: TcpStream,
    local: SocketAddr,
    /// When it began to connect, on both clocks.
    begun: Instant,
    from: f64,
    connected: bool,
    /// Whether anything has come since the last request.
    answered: bool,
    /// When to ask again.
    asks: Option<Instant>,
    received: usize,
}

#[derive(Debug)]
enum Client {
    /// Its number and when it begins.
    Absent(usize, Instant),
    Present(usize, Conversation),
    Through,
}

impl Client {
    fn new(index: usize, begins: Instant) -> Self {
        Self::Absent(index, begins)
    }

    fn is_through(&self) -> bool {
        matches!(self, Self::Through)
    }

    /// When it does something by itself.
    fn due(&self, plan: &Plan) -> Option<Instant> {
        match self {
            Self::Absent(_, begins) => Some(*begins),
            Self::Present(_, talk) => {
                let gives_up = plan.patience.filter(|_| !talk.answered).map(|patience| talk.begun + patience);
                earlier(gives_up, talk.asks)
            }
            Self::Through => None,
        }
    }

    fn waits_for(&self) -> Option<(&TcpStream, PollFlags)> {
        match self {
            Self::Present(_, talk) if talk.connected => Some((&talk.stream, PollFlags::POLLIN)),
            Self::Present(_, talk) => Some((&talk.stream, PollFlags::POLLOUT)),
            _ => None,
        }
    }

    fn work(&mut self, plan: &Plan, clock: Instant) -> Result<()> {
        if self.due(plan).is_none_or(|due| due > clock) {
            return Ok(());
        }
        match self {
            Self::Absent(index, _) => {
                let index = *index;
                let talk = Conversation::begin(plan, index).with_context(|| format!("client {index}"))?;
                // It may have failed at once, which is told by the socket.
                *self = Self::Present(index, talk);
                self.hear_if_ready(plan)?;
            }
            Self::Present(_, talk) if talk.asks.is_some_and(|asks| asks <= clock) => {
                talk.asks = None;
                talk.answered = false;
                talk.begun = clock;
                if let Err(error) = talk.stream.write_all(&plan.request) {
                    self.fail(plan, &error)?;
                }
            }
            Self::Present(_, talk) => {
                let from = now();
                if plan.resets {
                    setsockopt(&talk.stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
                }
                let local = talk.local;
                self.leave(plan);
                Taken::new(step::GAVE_UP, plan.target, from).client(local).print()?;
            }
            Self::Through => {}
        }
        Ok(())
    }

    /// Over loopback a connection is made before the call that asked for it returns.
    fn hear_if_ready(&mut self, plan: &Plan) -> Result<()> {
        let ready = match self.waits_for() {
            Some((stream, flags)) => {
                let mut fds = [interest(stream, flags)];
                poll(&mut fds, PollTimeout::ZERO).unwrap_or(0) > 0
            }
            None => false,
        };
        if ready { self.hear(plan) } else { Ok(()) }
    }

    /// The connection is there, has brought something, or is lost.
    fn hear(&mut self, plan: &Plan) -> Result<()> {
        let Self::Present(_, talk) = self else { return Ok(()) };
        if !talk.connected {
            return match talk.connected(plan) {
                Ok(()) => Ok(()),
                Err(error) => self.fail(plan, &error),
            };
        }
        let from = now();
        let mut buffer = [0; 65_536];
        match talk.stream.read(&mut buffer) {
            Ok(0) => {
                let (local, received) = (talk.local, talk.received);
                self.leave(plan);
                Ok(Taken::new(step::ENDED, plan.target, from).client(local).bytes(received).print()?)
            }
            Ok(got) => {
                talk.received += got;
                if std::mem::replace(&mut talk.answered, true) {
                    return Ok(());
                }
                talk.asks = plan.again.map(|again| Instant::now() + again);
                Ok(Taken::new(step::ANSWERED, plan.target, from).client(talk.local).print()?)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(error) => self.fail(plan, &error),
        }
    }

    fn fail(&mut self, plan: &Plan, error: &io::Error) -> Result<()> {
        let Self::Present(_, talk) = self else { return Ok(()) };
        let taken = Taken::new(step::FAILED, plan.target, talk.from).client(talk.local).error(error);
        self.leave(plan);
        Ok(taken.print()?)
    }

    /// Closes the connection; begins anew if that is the plan.
    fn leave(&mut self, plan: &Plan) {
        let Self::Present(index, _) = self else { return };
        *self = match plan.again {
            Some(again) => Self::Absent(*index, Instant::now() + again),
            None => Self::Through,
        };
    }
}

impl Conversation {
    fn begin(plan: &Plan, index: usize) -> Result<Self> {
        let family = if plan.target.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let fd: OwnedFd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        if !plan.from.is_empty() {
            let own = SocketAddr::new(plan.from[index % plan.from.len()], 0);
            bind(fd.as_raw_fd(), &SockaddrStorage::from(own)).with_context(|| format!("binding to {own}"))?;
        }
        let (begun, from) = (Instant::now(), now());
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(plan.target)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error).with_context(|| format!("connecting to {}", plan.target)),
        }
        let stream = TcpStream::from(fd);
        let local = stream.local_addr()?;
        let talk = Self { stream, local, begun, from, connected: false, answered: false, asks: None, received: 0 };
        Taken::new(step::CONNECTING, plan.target, from).client(local).print()?;
        Ok(talk)
    }

    fn connected(&mut self, plan: &Plan) -> io::Result<()> {
        match getsockopt(&self.stream, sockopt::SocketError)? {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        self.connected = true;
        let taken = Taken::new(step::CONNECTED, plan.target, self.from).client(self.local);
        self.stream.write_all(&plan.request)?;
        taken.bytes(plan.request.len()).print()
    }
}
