//! Connections as fast as they go: small, one after the other, through the same few sockets of the kernel.
//!
//! Each server process listens on a port of its own and each client process binds to ports of its own, so that the ports of
//! a connection tell whose it is, and how many bytes it moves: nothing can be of another connection unnoticed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::pipe;

use super::args::Args;
use super::end::End;
use super::family::Family;
use super::process::{enter_netns, fork_child, wait_all};
use super::workers::{Counters, in_threads, next};

/// The options of this mode.
pub const OPTIONS: &[&str] =
    &["address", "server-netns", "client-netns", "servers", "clients", "threads", "seconds", "connections"];

/// The first server's port.
const FIRST_SERVER: u16 = 9_000;
/// The clients' ports: above the servers', below those that nobody may take.
const CLIENTS: Range<u16> = 10_000..60_000;
/// The client's port divided by this and what is left over are the sizes.
const STEP: u16 = 251;

/// Bytes from the client with that port to the server.
#[must_use]
pub fn to_server(client_port: u16) -> u64 {
    u64::from(1 + client_port % STEP)
}

/// Bytes from the server to the client with that port.
#[must_use]
pub fn to_client(client_port: u16) -> u64 {
    u64::from(1 + client_port / STEP)
}

/// Whether the client with that port ends its connections by a reset; else the server closes first.
#[must_use]
pub fn resets(client_port: u16) -> bool {
    client_port % 2 == 1
}

struct Churn {
    address: IpAddr,
    servers: usize,
    clients: usize,
    /// Threads in each process.
    threads: usize,
    seconds: Duration,
    /// The most that one thread makes.
    connections: usize,
}

/// Runs until the time is over or enough connections are made, and prints the sums of each process.
pub fn run(args: &Args) -> Result<()> {
    let mut churn = Churn {
        address: args.address("address")?.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        servers: args.value("servers", 1_usize)?.clamp(1, 64),
        clients: args.value("clients", 1_usize)?.clamp(1, 64),
        threads: args.value("threads", 2_usize)?.clamp(1, 64),
        seconds: Duration::from_secs_f64(args.value("seconds", 600.0)?),
        connections: args.value("connections", usize::MAX)?,
    };
    churn.connections = (churn.connections / (churn.clients * churn.threads)).max(1);
    enter_netns(args.path("server-netns").as_deref())?;
    let family = if churn.address.is_ipv6() { Family::V6 } else { Family::V4 };
    let ports = (FIRST_SERVER..).take(churn.servers);
    let listeners: Vec<TcpListener> = ports
        .map(|port| family.listen(Some(churn.address), port))
        .collect::<std::io::Result<_>>()
        .context("listening")?;
    // The servers stop when the parent lets go of this pipe.
    let (stop, running) = pipe()?;
    let mut held = Some((listeners, running));
    let mut servers = Vec::new();
    for index in 0..churn.servers {
        servers.push(fork_child("ow-ch-srv", || {
            let (mut listeners, running) = held.take().context("taken once")?;
            drop(running);
            let listener = listeners.swap_remove(index);
            drop(listeners);
            serve(&churn, &listener, &stop)
        })?);
    }
    let (listeners, running) = held.take().context("taken once")?;
    drop(listeners);
    let mut running = Some(running);
    let mut clients = Vec::new();
    for index in 0..churn.clients {
        clients.push(fork_child("ow-ch-cli", || {
            drop(running.take());
            enter_netns(args.path("client-netns").as_deref())?;
            call(&churn, family, index)
        })?);
    }
    for client in clients {
        client.wait()?;
    }
    drop(running);
    wait_all(servers)
}

/// Counts an end that is through.
fn count(counters: &Counters, end: &End) {
    counters.connections.fetch_add(1, Ordering::Relaxed);
    counters.sent.fetch_add(end.sent, Ordering::Relaxed);
    counters.received.fetch_add(end.received, Ordering::Relaxed);
}

fn serve(churn: &Churn, listener: &TcpListener, stop: &OwnedFd) -> Result<()> {
    let counters = Counters::default();
    let port = listener.local_addr()?.port();
    listener.set_nonblocking(true)?;
    in_threads(churn.threads, || {
        while let Some(stream) = next(listener, stop)? {
            let client_port = stream.peer_addr()?.port();
            answer(stream, client_port, &counters).with_context(|| format!("the client with port {client_port}"))?;
        }
        Ok(())
    })?;
    counters.print("server", Some(port..port + 1))
}

fn answer(stream: TcpStream, client_port: u16, counters: &Counters) -> Result<()> {
    let mut end = End::new(stream, "server")?;
    end.receive_plainly(to_server(client_port) as usize)?;
    end.send_plainly(to_client(client_port) as usize)?;
    if resets(client_port) {
        end.receive_to_end()?;
    }
    count(counters, &end);
    Ok(())
}

fn call(churn: &Churn, family: Family, index: usize) -> Result<()> {
    let counters = Counters::default();
    let deadline = Instant::now() + churn.seconds;
    let share = (CLIENTS.len() / churn.clients) as u16;
    let own = CLIENTS.start + index as u16 * share..CLIENTS.start + (index as u16 + 1) * share;
    let next_thread = AtomicUsize::new(0);
    in_threads(churn.threads, || {
        let thread = next_thread.fetch_add(1, Ordering::Relaxed);
        let target = SocketAddr::new(churn.address, FIRST_SERVER + ((index + thread) % churn.servers) as u16);
        // The ports of a process are dealt out to its threads in turn, and each thread uses its own again and again.
        let mut ports = own.clone().skip(thread).step_by(churn.threads).cycle();
        for _ in 0..churn.connections {
            if Instant::now() > deadline {
                break;
            }
            let port = ports.next().context("a thread has ports")?;
            connect(family, target, port, &counters).with_context(|| format!("from port {port}"))?;
        }
        Ok(())
    })?;
    counters.print("client", Some(own))
}

fn connect(family: Family, target: SocketAddr, port: u16, counters: &Counters) -> Result<()> {
    let mut end = End::new(family.connect(target, port)?, "client")?;
    end.send_plainly(to_server(port) as usize)?;
    end.receive_plainly(to_client(port) as usize)?;
    if resets(port) {
        setsockopt(&end, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    } else {
        end.receive_to_end()?;
    }
    ensure!(end.received == to_client(port), "more came than was agreed");
    count(counters, &end);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_ports_have_the_same_sizes() {
        let sizes: BTreeSet<(u64, u64)> = CLIENTS.map(|port| (to_server(port), to_client(port))).collect();
        assert_eq!(sizes.len(), CLIENTS.len());
        assert!(CLIENTS.clone().all(|port| to_server(port) > 0 && to_client(port) > 0));
    }
}
