//! Bytes that never pass through this process: `sendfile` and `splice`.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use nix::fcntl::{SpliceFFlags, splice};
use nix::sys::sendfile::sendfile as sendfile_call;
use nix::unistd::pipe;

use crate::traffic::end::{CHUNK, End, PAYLOAD, retry};

/// `sendfile` from a file on a file system.
pub(super) fn sendfile(end: &mut End, total: usize) -> io::Result<()> {
    let mut file = tempfile::tempfile()?;
    for part in PAYLOAD.chunks(PAYLOAD.len()).cycle().take(total.div_ceil(PAYLOAD.len())) {
        file.write_all(part)?;
    }
    file.rewind()?;
    end.send_by(total, |socket, bytes| Ok(sendfile_call(socket, &file, None, bytes.len())?))
}

/// `splice` from a pipe to the socket.
pub(super) fn to_socket(end: &mut End, total: usize) -> io::Result<()> {
    let (out, into) = pipe()?;
    let mut into = File::from(into);
    let mut waiting = 0;
    end.send_by(total, |socket, bytes| {
        if waiting < bytes.len() {
            // A pipe holds 64 KiB: this never blocks.
            into.write_all(&bytes[waiting..])?;
            waiting = bytes.len();
        }
        let sent = splice(out.as_fd(), None, socket, None, bytes.len(), SpliceFFlags::empty())?;
        waiting -= sent;
        Ok(sent)
    })
}

/// `splice` from the socket to a pipe, which is then emptied.
pub(super) fn from_socket(end: &mut End, total: usize) -> io::Result<()> {
    let (out, into): (OwnedFd, OwnedFd) = pipe()?;
    let mut out = File::from(out);
    let mut drain = [0_u8; CHUNK];
    end.receive_by(total, |socket, buffer| {
        let got = retry(|| Ok(splice(socket, None, into.as_fd(), None, buffer.len(), SpliceFFlags::empty())?))?;
        out.read_exact(&mut drain[..got])?;
        Ok(got)
    })
}
