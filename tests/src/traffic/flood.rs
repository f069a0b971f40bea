//! Many short connections: connect, some bytes each way, close.
//!
//! Two server processes accept from one listener and two client processes connect, `at-once` connections open at a
//! time between them, so that bytes have different owners in both roles.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::unistd::pipe;

use super::args::Args;
use super::family::{Family, bound_calls};
use super::process::{enter_netns, fork_child, wait_all};
use super::report::event;
use super::workers::{Counters, in_threads, next};

/// The options of this mode.
pub const OPTIONS: &[&str] = &["connections", "at-once", "bytes", "netns", "progress-every", "threads", "pause-ms"];

/// Processes on each side.
const PROCESSES: usize = 2;

struct Flood {
    connections: usize,
    at_once: usize,
    bytes: usize,
    progress_every: u64,
    /// Threads in each process.
    threads: usize,
    /// How long a client waits before it sends, while the servers wait for it in their calls.
    pause: Duration,
    target: SocketAddr,
}

/// Runs the flood and prints the sums of each process.
pub fn run(args: &Args) -> Result<()> {
    enter_netns(args.path("netns").as_deref())?;
    let family = Family::V4;
    let listener = family.listen(None, 0)?;
    let flood = Flood {
        connections: args.value("connections", 1_000)?,
        at_once: args.value("at-once", 8)?,
        bytes: args.value("bytes", 1_024)?,
        progress_every: args.value("progress-every", u64::MAX)?,
        threads: args.value("threads", 4)?,
        pause: Duration::from_millis(args.value("pause-ms", 0)?),
        target: family.target(None, listener.local_addr()?.port()),
    };
    let workers = PROCESSES * flood.threads.clamp(1, 256);
    if !flood.connections.is_multiple_of(workers) || !flood.at_once.is_multiple_of(workers) {
        bail!("--connections and --at-once must be multiples of {workers}");
    }
    listener.set_nonblocking(true)?;
    // The servers stop when the parent lets go of this pipe.
    let (stop, running) = pipe()?;
    let mut held = Some((listener, running));
    let mut servers = Vec::new();
    for _ in 0..PROCESSES {
        servers.push(fork_child("ow-fl-srv", || {
            let (listener, running) = held.take().context("taken once")?;
            drop(running);
            serve(&flood, &listener, &stop)
        })?);
    }
    let (listener, running) = held.take().context("taken once")?;
    drop(listener);
    let mut running = Some(running);
    let mut clients = Vec::new();
    for _ in 0..PROCESSES {
        clients.push(fork_child("ow-fl-cli", || {
            drop(running.take());
            call(&flood)
        })?);
    }
    for client in clients {
        client.wait()?;
    }
    drop(running);
    wait_all(servers)
}

fn serve(flood: &Flood, listener: &TcpListener, stop: &OwnedFd) -> Result<()> {
    let counters = Counters::default();
    in_threads(flood.threads, || {
        let mut buffer = vec![0_u8; flood.bytes];
        while let Some(mut stream) = next(listener, stop)? {
            bound_calls(&stream)?;
            counters.receive(&mut stream, &mut buffer)?;
            counters.send(&mut stream, &buffer)?;
            counters.connections.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })?;
    counters.print("server", None)
}

fn call(flood: &Flood) -> Result<()> {
    let counters = Counters::default();
    let (share, batch) = (flood.connections / PROCESSES / flood.threads, flood.at_once / PROCESSES / flood.threads);
    in_threads(flood.threads, || {
        let payload = vec![b'x'; flood.bytes];
        let mut buffer = vec![0_u8; flood.bytes];
        let mut left = share;
        while left > 0 {
            let now = left.min(batch);
            // All of a batch are open before the first one gets any bytes.
            let mut streams = (0..now)
                .map(|_| Family::V4.connect(flood.target, 0))
                .collect::<std::io::Result<Vec<_>>>()
                .context("connecting")?;
            thread::sleep(flood.pause);
            for stream in &mut streams {
                counters.send(stream, &payload)?;
            }
            for stream in &mut streams {
                counters.receive(stream, &mut buffer)?;
                // The server closes first, so that the waiting time after closing keeps no port of ours.
                if stream.read(&mut [0_u8; 1])? != 0 {
                    bail!("more came than was agreed");
                }
                let done = counters.connections.fetch_add(1, Ordering::Relaxed) + 1;
                if done.is_multiple_of(flood.progress_every) {
                    event("progress", done)?;
                }
            }
            left -= now;
        }
        Ok(())
    })?;
    counters.print("client", None)
}
