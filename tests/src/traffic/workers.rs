//! What the modes with many connections share: threads that serve one listener or connect, and the sums of a process.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::process::{comm, netns_inode};
use super::report::{Line, Sums};

/// What a process has moved.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

impl Counters {
    /// Prints them as this process', with the local ports that are its own, if it has such.
    pub(super) fn print(&self, role: &str, ports: Option<Range<u16>>) -> Result<()> {
        let sums = Sums {
            flood: role.to_owned(),
            pid: std::process::id(),
            comm: comm()?,
            netns: netns_inode()?,
            connections: self.connections.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            ports,
        };
        Ok(Line::Sums(sums).print()?)
    }

    /// Sends all of it, and counts it.
    pub(super) fn send(&self, stream: &mut TcpStream, bytes: &[u8]) -> Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let sent = stream.write(left)?;
            self.sent.fetch_add(sent as u64, Ordering::Relaxed);
            left = &left[sent..];
        }
        Ok(())
    }

    /// Fills the buffer, and counts it.
    pub(super) fn receive(&self, stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
        let mut have = 0;
        while have < buffer.len() {
            let got = stream.read(&mut buffer[have..])?;
            if got == 0 {
                bail!("the other end closed after {have} bytes");
            }
            self.received.fetch_add(got as u64, Ordering::Relaxed);
            have += got;
        }
        Ok(())
    }
}

/// Runs `work` in that many threads.
pub(super) fn in_threads(count: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(&work)).collect();
        let mut outcome = Ok(());
        for thread in threads {
            let ended = thread.join().unwrap_or_else(|_| bail!("a thread panicked"));
            outcome = outcome.and(ended);
        }
        outcome
    })
}

/// The next connection, or none when the clients are done.
pub(super) fn next(listener: &TcpListener, stop: &OwnedFd) -> Result<Option<TcpStream>> {
    loop {
        let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(listener), PollFlags::POLLIN), {
            PollFd::new(std::os::fd::AsFd::as_fd(stop), PollFlags::POLLIN)
        }];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(Some(stream));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if fds[1].any() == Some(true) {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}
