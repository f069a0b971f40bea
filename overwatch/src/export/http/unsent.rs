//! What a client has not taken when its connection ends. The kernel would keep it, and send it for minutes; so whoever
//! asks and does not read could fill the host's memory for TCP with closed connections.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt},
};
use tokio::{net::TcpStream, time::sleep};

/// How often it is looked whether it was taken. It is one round trip most often.
const EVERY: Duration = Duration::from_millis(20);

/// A second descriptor of a connection, which outlives the first.
#[derive(Debug)]
pub(super) struct Unsent {
    fd: OwnedFd,
}

impl Unsent {
    pub(super) fn of(stream: &TcpStream) -> io::Result<Self> {
        Ok(Self { fd: stream.as_fd().try_clone_to_owned()? })
    }

    /// Whether there are bytes that the client has not acknowledged. One is for the end of the stream (tcp_ioctl) and worth no waiting.
    fn is_left(&self) -> bool {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open, and SIOCOUTQ, which is TIOCOUTQ by another name, writes one int.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        result == 0 && bytes > 1
    }

    /// The connection is no more, so nothing can be taken.
    fn is_over(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::empty())];
        let over = PollFlags::POLLERR | PollFlags::POLLHUP;
        poll(&mut fds, PollTimeout::ZERO).is_err() || fds[0].revents().is_none_or(|events| events.intersects(over))
    }

    /// Waits until all was taken, or nothing more can be.
    pub(super) async fn taken(&self) {
        while self.is_left() && !self.is_over() {
            sleep(EVERY).await;
        }
    }

    /// Has the connection end by a reset when it is dropped, if there is something left; so the kernel forgets it.
    pub(super) fn discard(&self) {
        if self.is_left() {
            let reset = libc::linger { l_onoff: 1, l_linger: 0 };
            // Should it fail, the kernel does as ever.
            let _kept = setsockopt(&self.fd, sockopt::Linger, &reset);
        }
    }
}
