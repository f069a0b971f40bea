//! A connection to try an operation on, before anything is measured.

use std::io;
use std::net::TcpStream;

use crate::traffic::family::Family;

/// Both ends of a loopback connection: client, server.
pub(super) fn connection() -> io::Result<(TcpStream, TcpStream)> {
    let family = Family::V4;
    let listener = family.listen(None, 0)?;
    let client = family.connect(family.target(None, listener.local_addr()?.port()), 0)?;
    Ok((client, listener.accept()?.0))
}
