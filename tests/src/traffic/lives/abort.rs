//! Has the kernel end somebody's connection, as `ss --kill` does.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::endings::{answer, be_reset, call};
use super::lane::Lane;

/// `SOCK_DESTROY`.
const SOCK_DESTROY: u16 = 21;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST: u16 = 5;
/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
const LENGTH: usize = 72;

fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET } as u8;
    let mut message = Vec::with_capacity(LENGTH);
    message.extend((LENGTH as u32).to_ne_bytes());
    message.extend(SOCK_DESTROY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence number and port.
    message.extend([0; 8]);
    // The family, the protocol, no extensions, padding, every state.
    message.extend([family, libc::IPPROTO_TCP as u8, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes());
    message.extend(local.port().to_be_bytes());
    message.extend(remote.port().to_be_bytes());
    for address in [local.ip(), remote.ip()] {
        let mut field = [0; 16];
        match address {
            IpAddr::V4(v4) => field[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => field.copy_from_slice(&v6.octets()),
        }
        message.extend(field);
    }
    // Any interface, any socket with these addresses.
    message.extend([0; 4]);
    message.extend([0xff; 8]);
    message
}

/// Asks the kernel to end a connection of this network namespace. Its answer is an error, or none.
fn abort(local: SocketAddr, remote: SocketAddr) -> Result<Option<Errno>> {
    let protocol = SockProtocol::NetlinkSockDiag;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::seconds(10))?;
    send(netlink.as_raw_fd(), &request(local, remote), MsgFlags::empty())?;
    let mut reply = [0_u8; 256];
    let length = recv(netlink.as_raw_fd(), &mut reply, MsgFlags::empty())?;
    ensure!(length >= 20, "the kernel answered with {length} bytes");
    // After the header comes an error, negative, or 0.
    let code = i32::from_ne_bytes([reply[16], reply[17], reply[18], reply[19]]);
    Ok((code != 0).then(|| Errno::from_raw(-code)))
}

/// Why this kernel does not end connections on demand, if it does not.
pub(super) fn cannot_abort() -> Option<String> {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    match abort(nobody, nobody) {
        Ok(Some(Errno::ENOENT)) => None,
        Ok(other) => Some(format!("asked to end a connection that is not there: {other:?}")),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// Its connection is ended by the kernel.
pub(super) fn client_aborted(lane: &mut Lane<'_>) -> Result<()> {
    let living = call(lane)?;
    living.settle()?;
    lane.wait()?;
    let (local, remote) = living.end.tuple();
    if let Some(error) = abort(local, remote)? {
        return Err(io::Error::from(error).into());
    }
    living.fail(lane)
}

/// Is reset by that.
pub(super) fn server_of_aborted(lane: &mut Lane<'_>) -> Result<()> {
    be_reset(answer(lane)?, lane)
}
