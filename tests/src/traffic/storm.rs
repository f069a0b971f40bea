//! Connections that end in every ugly way, many at a time. Each part is a process of its own that goes on until it is
//! killed: the test decides when, and what has become of the network by then.
//!
//! Nothing is counted here, and calls may fail: the network, the other end or the next call may be gone at any time.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{Backlog, SockaddrStorage, bind, connect, listen, setsockopt, sockopt};

use super::args::Args;
use super::end::PAYLOAD;
use super::family::Family;
use super::process::{enter_netns, set_comm};
use super::queues::set_option;
use super::report::event;
use super::workers::in_threads;

/// The options of this mode.
pub const OPTIONS: &[&str] = &["part", "netns", "address", "from", "at-once"];

/// Where the server listens at its address.
pub const EXACT: u16 = 9_100;
/// Where the server listens at every address of both families.
pub const ANY: u16 = 9_101;
/// Where the server listens and accepts nothing.
pub const IGNORED: u16 = 9_102;

/// So many connections wait at [`IGNORED`], and one more.
const QUEUE: i32 = 7;
/// How long the server sends without an answer.
const USER_TIMEOUT_MILLISECONDS: libc::c_int = 300;
/// The last byte of a client that is not to be answered by closing.
const HOLD: u8 = b'h';
/// Threads that accept, at each address.
const ACCEPTORS: usize = 2;
/// The server has a thread per connection.
const STACK_BYTES: usize = 256 * 1024;

struct Storm {
    address: IpAddr,
    from: IpAddr,
    at_once: usize,
}

/// Plays one part for ever. Says `ready` when all of its connections have been under way at least once.
pub fn run(args: &Args) -> Result<()> {
    let part = args.text("part", "serve");
    set_comm(&format!("ow-st-{part}"))?;
    enter_netns(args.path("netns").as_deref())?;
    let storm = Storm {
        address: args.address("address")?.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        from: args.address("from")?.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        at_once: args.value("at-once", 8_usize)?.clamp(1, 256),
    };
    match part {
        "serve" => storm.serve(),
        "transfer" => storm.transfer(false),
        "reset" => storm.transfer(true),
        "halve" => storm.halve(),
        "queue" => storm.queue(),
        _ => bail!("no part {part:?}; there are: serve, transfer, reset, halve, queue"),
    }
}

impl Storm {
    fn serve(&self) -> Result<()> {
        let exact = Family::V4.listen(Some(self.address), EXACT).context("listening")?;
        let any = Family::MappedServer.listen(None, ANY).context("listening")?;
        let ignored = Family::V4.listen(Some(self.address), IGNORED).context("listening")?;
        listen(&ignored, Backlog::new(QUEUE)?)?;
        event("ready", 0)?;
        let next = AtomicUsize::new(0);
        in_threads(2 * ACCEPTORS, || {
            let which = next.fetch_add(1, Ordering::Relaxed) % 2;
            accept_for_ever(if which == 0 { &exact } else { &any })
        })
    }

    /// Connects, exchanges some bytes, ends that plainly or by a reset, and begins anew.
    fn transfer(&self, resets: bool) -> Result<()> {
        let (next, begun) = (AtomicUsize::new(0), AtomicUsize::new(0));
        in_threads(self.at_once, || {
            let mut turn = next.fetch_add(1, Ordering::Relaxed);
            let mut first = true;
            loop {
                if self.exchange(turn, resets).is_err() {
                    thread::sleep(Duration::from_millis(5));
                }
                if std::mem::take(&mut first) && begun.fetch_add(1, Ordering::Relaxed) + 1 == self.at_once {
                    event("ready", 0)?;
                }
                turn += 1;
            }
        })
    }

    fn exchange(&self, turn: usize, resets: bool) -> io::Result<()> {
        let mut stream = self.connect(if turn.is_multiple_of(2) { EXACT } else { ANY })?;
        let mut buffer = vec![0; PAYLOAD.len()];
        for exchange in 0..1 + turn % 7 {
            let bytes = PAYLOAD.len() >> (exchange % 4);
            stream.write_all(&PAYLOAD[..bytes])?;
            stream.read_exact(&mut buffer[..bytes])?;
        }
        if resets {
            // Every other one while bytes are on their way.
            if turn % 4 < 2 {
                stream.write_all(&PAYLOAD)?;
            }
            setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
        }
        Ok(())
    }

    /// Sends, closes its half, and waits. The server answers every other connection by closing, too.
    fn halve(&self) -> Result<()> {
        let mut held = Vec::new();
        for turn in 0..self.at_once {
            let mut stream = self.connect(if turn % 4 < 2 { EXACT } else { ANY })?;
            stream.write_all(&PAYLOAD[..1_000])?;
            stream.read_exact(&mut [0; 1_000])?;
            if turn.is_multiple_of(2) {
                stream.write_all(&[HOLD])?;
            }
            stream.shutdown(Shutdown::Write)?;
            held.push(stream);
        }
        event("ready", 0)?;
        stay()
    }

    /// Connects where nobody accepts, more often than there is room for, and sends.
    fn queue(&self) -> Result<()> {
        let mut held = Vec::new();
        for _ in 0..self.at_once {
            let stream = self.socket()?;
            stream.set_nonblocking(true)?;
            // It goes on by itself, or waits for room.
            let _ = connect(stream.as_raw_fd(), &self.target(IGNORED));
            held.push(stream);
        }
        thread::sleep(Duration::from_millis(20));
        for stream in &mut held {
            let _ = stream.write(&PAYLOAD[..1_000]);
        }
        event("ready", 0)?;
        stay()
    }

    fn target(&self, port: u16) -> SockaddrStorage {
        SocketAddr::new(self.address, port).into()
    }

    fn socket(&self) -> io::Result<TcpStream> {
        let stream = Family::V4.client(SocketAddr::new(self.address, 0), 0)?;
        bind(stream.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(self.from, 0)))?;
        Ok(stream)
    }

    fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let stream = self.socket()?;
        connect(stream.as_raw_fd(), &self.target(port))?;
        Ok(stream)
    }
}

fn accept_for_ever(listener: &TcpListener) -> Result<()> {
    loop {
        // A connection that was reset while it waited is no reason to end.
        if let Ok((stream, _)) = listener.accept() {
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            thread.spawn(|| drop(answer(stream))).context("a thread per connection")?;
        }
    }
}

/// Sends back what comes, and closes when the client has closed, unless that asked not to.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    set_option(&stream, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, USER_TIMEOUT_MILLISECONDS)?;
    let mut buffer = [0; 16_384];
    let mut last = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 if last == HOLD => stay(),
            0 => return Ok(()),
            got => {
                last = buffer[got - 1];
                stream.write_all(&buffer[..got])?;
            }
        }
    }
}

fn stay() -> ! {
    loop {
        thread::park();
    }
}
