//! Handshakes made by hand, from addresses that nobody has: the kernel of the client's namespace knows nothing of them and so
//! says nothing to what comes back.
//!
//! Sends `--count` SYNs, `--rate` per second or all at once, from the addresses that begin with `--from` (one each, port 40000),
//! and says `knocked` and, when the SYN-ACK comes, `offered`. What is still half-open then stays so, unless `complete` comes on
//! stdin: then the last ACK of every handshake that was offered is sent, and that is said as `completed`. Ends with its stdin.
//!
//! Only for namespaces that a test has made; the server's needs a route to those addresses that leads to the client's, where
//! they come to nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, SockaddrIn, recv, sendto};
use nix::unistd::read;

use crate::traffic::args::Args;
use crate::traffic::process::{enter_netns, set_comm};

use super::packet::{ACK, SYN, Segment};
use super::{Taken, happened, interest, now, step, wait};

/// The options of this mode.
pub const OPTIONS: &[&str] = &["address", "port", "netns", "comm", "from", "count", "rate"];

/// The port of every client.
const PORT: u16 = 40_000;
/// `ETH_P_IP`, as it is on the wire.
const INTERNET: libc::c_int = (libc::ETH_P_IP as u16).to_be() as libc::c_int;

fn new_socket(domain: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> Result<OwnedFd> {
    // SAFETY: a system call that takes three numbers.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol) };
    ensure!(fd >= 0, "a raw socket: {}", io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

struct Knocker {
    server: SocketAddrV4,
    first: Ipv4Addr,
    /// Takes packets with their header.
    raw: OwnedFd,
    /// Sees what arrives here, also for addresses that nobody has.
    tap: OwnedFd,
    /// What the server has offered, by client.
    offers: BTreeMap<SocketAddrV4, Segment>,
}

/// Sends and listens until the end of stdin.
pub fn run(args: &Args) -> Result<()> {
    set_comm(args.text("comm", "ow-knock"))?;
    enter_netns(args.path("netns").as_deref())?;
    let v4 = |name: &str| match args.address(name)? {
        Some(IpAddr::V4(address)) => Ok(address),
        other => bail!("--{name} must be an IPv4 address, not {other:?}"),
    };
    let count: u32 = args.value("count", 1)?;
    let rate: f64 = args.value("rate", 0.0)?;
    let apart = if rate > 0.0 { Duration::from_secs_f64(1.0 / rate) } else { Duration::ZERO };
    let mut knocker = Knocker {
        server: SocketAddrV4::new(v4("address")?, args.value("port", 0)?),
        first: v4("from")?,
        raw: new_socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)?,
        tap: new_socket(libc::AF_PACKET, libc::SOCK_DGRAM, INTERNET)?,
        offers: BTreeMap::new(),
    };
    let begin = Instant::now();
    let stdin = io::stdin();
    let mut sent = 0;
    loop {
        while sent < count && begin + apart * sent <= Instant::now() {
            knocker.knock(sent)?;
            sent += 1;
        }
        let next = (sent < count).then(|| begin + apart * sent);
        let mut fds = [interest(&knocker.tap, PollFlags::POLLIN), interest(&stdin, PollFlags::POLLIN)];
        wait(&mut fds, next)?;
        let [offered, told] = fds.each_ref().map(happened);
        if offered {
            knocker.listen()?;
        }
        if told && !knocker.obey()? {
            return Ok(());
        }
    }
}

impl Knocker {
    fn send(&self, segment: &Segment) -> Result<()> {
        let to = SockaddrIn::from(SocketAddrV4::new(*segment.to.ip(), 0));
        sendto(self.raw.as_raw_fd(), &segment.packet(), &to, MsgFlags::empty()).context("sending a packet")?;
        Ok(())
    }

    fn knock(&self, index: u32) -> Result<()> {
        let from = now();
        let client = SocketAddrV4::new(Ipv4Addr::from_bits(self.first.to_bits() + index), PORT);
        let sequence = 1_000_000 * (index + 1);
        self.send(&Segment { from: client, to: self.server, sequence, acknowledged: 0, flags: SYN })?;
        self.say(step::KNOCKED, from, client)
    }

    fn say(&self, step: &str, from: f64, client: SocketAddrV4) -> Result<()> {
        Ok(Taken::new(step, SocketAddr::V4(self.server), from).client(SocketAddr::V4(client)).print()?)
    }

    fn listen(&mut self) -> Result<()> {
        let mut buffer = [0; 2_048];
        loop {
            let from = now();
            let length = match recv(self.tap.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error).context("listening"),
            };
            let Some(segment) = Segment::read(&buffer[..length]) else { continue };
            let is_offer = segment.from == self.server && segment.flags & (SYN | ACK) == SYN | ACK;
            if is_offer && segment.to.port() == PORT && self.offers.insert(segment.to, segment).is_none() {
                self.say(step::OFFERED, from, segment.to)?;
            }
        }
    }

    /// Whether there may be more to obey.
    fn obey(&mut self) -> Result<bool> {
        let mut command = [0; 256];
        let length = read(io::stdin(), &mut command)?;
        if length == 0 {
            return Ok(false);
        }
        let command = String::from_utf8_lossy(&command[..length]);
        ensure!(command.trim() == "complete", "no command {command:?}");
        for (&client, offer) in &self.offers {
            let from = now();
            let (sequence, acknowledged) = (offer.acknowledged, offer.sequence.wrapping_add(1));
            self.send(&Segment { from: client, to: self.server, sequence, acknowledged, flags: ACK })?;
            self.say(step::COMPLETED, from, client)?;
        }
        Ok(true)
    }
}
