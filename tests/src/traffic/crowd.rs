//! A host with very many sockets at which nothing happens: what they cost whoever watches them.
//!
//! Each process holds listening sockets at an address of its own and both ends of connections to them, so that the limit of descriptors of
//! one process is no limit of the whole. They stay until the end of stdin.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, ensure};

use super::args::Args;
use super::family::Family;
use super::process::{Forked, enter_netns, fork_child};
use super::report::event;

/// The options of this mode.
pub const OPTIONS: &[&str] = &["netns", "processes", "listeners", "connections"];

/// Opens `listeners` sockets and `connections` connections, each with two ends here, in so many `processes`; says `ready` with the number of
/// established sockets.
pub fn run(args: &Args) -> Result<()> {
    let processes: u8 = args.value("processes", 8)?;
    let listeners: u32 = args.value("listeners", 2_000)?;
    let connections: u32 = args.value("connections", 50_000)?;
    ensure!(processes > 0 && processes < u8::MAX, "from 1 to 254 processes");
    enter_netns(args.path("netns").as_deref())?;
    let mut crowd: Vec<(Forked, UnixStream)> = Vec::new();
    for place in 0..processes {
        let share = |all: u32| all / u32::from(processes) + u32::from(u32::from(place) < all % u32::from(processes));
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, place + 1, 1));
        let (mine, mut theirs) = UnixStream::pair()?;
        let child = fork_child("ow-crowd", || {
            let _held = sockets(address, share(listeners), share(connections))?;
            theirs.write_all(b"r")?;
            // Until it is killed, or the parent has gone.
            theirs.read_exact(&mut [0])?;
            Ok(())
        })?;
        crowd.push((child, mine));
    }
    for (_, ready) in &mut crowd {
        ready.read_exact(&mut [0]).context("a process of the crowd has ended")?;
    }
    event("ready", u64::from(connections) * 2)?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// Listening sockets at this address, and as many connections to each as to the others.
fn sockets(address: IpAddr, listeners: u32, connections: u32) -> Result<(Vec<TcpListener>, Vec<TcpStream>)> {
    let listening = (0..listeners).map(|_| Family::V4.listen(Some(address), 0));
    let listening = listening.collect::<io::Result<Vec<_>>>().context("listening")?;
    let mut streams = Vec::new();
    for listener in listening.iter().cycle().take(connections as usize) {
        streams.push(TcpStream::connect(listener.local_addr()?).context("connecting")?);
        streams.push(listener.accept().context("accepting")?.0);
    }
    Ok((listening, streams))
}
