//! Bytes that are no business of a TCP observer: UDP and Unix sockets, which pass by the same system calls and, in
//! the kernel, by some of the same hooks.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};

use anyhow::{Result, ensure};

use super::args::Args;
use super::process::{enter_netns, set_comm};
use super::report::event;

/// The options of this mode.
pub const OPTIONS: &[&str] = &["netns", "bytes", "times"];

/// Moves `bytes` bytes `times` times by each kind of socket.
pub fn run(args: &Args) -> Result<()> {
    enter_netns(args.path("netns").as_deref())?;
    set_comm("ow-other")?;
    let bytes: usize = args.value("bytes", 1_001)?;
    let payload = vec![b'x'; bytes];
    let mut buffer = vec![0_u8; bytes];
    let v4 = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    let v6 = (UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))?);
    for (from, to) in [&v4, &v6] {
        from.connect(to.local_addr()?)?;
    }
    let (mut stream_a, mut stream_b) = UnixStream::pair()?;
    let (datagram_a, datagram_b) = UnixDatagram::pair()?;
    for _ in 0..args.value("times", 10)? {
        for (from, to) in [&v4, &v6] {
            ensure!(from.send(&payload)? == bytes && to.recv(&mut buffer)? == bytes, "UDP");
        }
        stream_a.write_all(&payload)?;
        stream_b.read_exact(&mut buffer)?;
        ensure!(datagram_a.send(&payload)? == bytes && datagram_b.recv(&mut buffer)? == bytes, "Unix datagrams");
    }
    Ok(event("done", bytes as u64)?)
}
