//! Conversations in which it matters how they begin or end.

use std::io;
use std::os::fd::AsRawFd as _;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::socket::{self, MsgFlags, SockaddrStorage, setsockopt, sockopt};

use crate::traffic::end::End;
use crate::traffic::queues::{unread, until, until_delivered};

/// Long enough for the other end's FIN or RST to have come.
const LATER: Duration = Duration::from_millis(300);

/// Connects by its first send.
pub(super) fn fastopen_client(end: &mut End, to_server: usize, to_client: usize) -> io::Result<()> {
    let Some(target) = end.target else {
        return Err(io::Error::other("the socket is connected already"));
    };
    let target = SockaddrStorage::from(target);
    let flags = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
    let first = to_server / 3;
    let mut connected = false;
    end.send_by(first, |fd, bytes| {
        if connected {
            return Ok(socket::send(fd.as_raw_fd(), bytes, MsgFlags::empty())?);
        }
        connected = true;
        Ok(socket::sendto(fd.as_raw_fd(), bytes, &target, flags)?)
    })?;
    end.note_tuple();
    end.send_plainly(to_server - first)?;
    end.receive_plainly(to_client)?;
    end.receive_to_end()
}

/// Receives, sends, closes.
pub(super) fn plain_server(end: &mut End, to_server: usize, to_client: usize) -> io::Result<()> {
    end.receive_plainly(to_server)?;
    end.send_plainly(to_client)
}

/// Says that it will send no more, and reads the answer only when the connection is over.
pub(super) fn half_close_client(end: &mut End, to_server: usize, to_client: usize) -> io::Result<()> {
    end.send_plainly(to_server)?;
    end.stream.shutdown(std::net::Shutdown::Write)?;
    sleep(LATER);
    end.receive_plainly(to_client)?;
    end.receive_to_end()
}

/// Answers when it has read everything, and closes.
pub(super) fn half_close_server(end: &mut End, to_server: usize, to_client: usize) -> io::Result<()> {
    end.receive_plainly(to_server)?;
    end.receive_to_end()?;
    end.send_plainly(to_client)
}

/// Sends, is reset, and then reads what had arrived before.
pub(super) fn reader_after_reset(end: &mut End, to_server: usize, to_client: usize) -> io::Result<()> {
    end.send_plainly(to_server)?;
    sleep(LATER);
    end.receive_plainly(to_client)?;
    end.receive_to_end()
}

/// Receives, sends, and resets the connection when all has arrived.
pub(super) fn resetting_server(end: &mut End, to_server: usize, to_client: usize) -> io::Result<()> {
    end.receive_plainly(to_server)?;
    end.send_plainly(to_client)?;
    reset_when_delivered(end)
}

/// The same with the client resetting: it hears the server first.
pub(super) fn resetting_client(end: &mut End, to_server: usize, to_client: usize) -> io::Result<()> {
    end.receive_plainly(to_client)?;
    end.send_plainly(to_server)?;
    reset_when_delivered(end)
}

/// Sends, is reset, and then reads what had arrived before.
pub(super) fn server_after_reset(end: &mut End, to_server: usize, to_client: usize) -> io::Result<()> {
    end.send_plainly(to_client)?;
    sleep(LATER);
    end.receive_plainly(to_server)?;
    end.receive_to_end()
}

/// Sends more than the server will read.
pub(super) fn client_of_unread(end: &mut End, to_server: usize, to_client: usize) -> io::Result<()> {
    end.send_plainly(to_server)?;
    end.receive_plainly(to_client)?;
    end.receive_to_end()
}

/// Reads half of what has arrived and closes: what nobody read was not received by anybody.
pub(super) fn server_leaving_unread(end: &mut End, to_server: usize, to_client: usize) -> io::Result<()> {
    until(|| Ok(unread(end)? >= to_server))?;
    end.receive_plainly(to_server / 2)?;
    end.send_plainly(to_client)?;
    // The reset that closing causes overtakes nothing only when everything has arrived.
    until_delivered(end)
}

fn reset_when_delivered(end: &mut End) -> io::Result<()> {
    until_delivered(end)?;
    setsockopt(end, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    Ok(())
}
