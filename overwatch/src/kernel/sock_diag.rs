//! Sockets of a network namespace as the kernel lists them for `ss`: netlink, family sock_diag.

use std::{io, net::SocketAddr, time::Duration};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use netlink_sys::{Socket, SocketAddr as KernelAddress, protocols::NETLINK_SOCK_DIAG};

/// Listening sockets.
pub const LISTENING: StateFlags = StateFlags::LISTEN;
/// Connections that are complete and may be in an accept queue: the client is there, or has closed already.
pub const COMPLETE: StateFlags = StateFlags::ESTABLISHED.union(StateFlags::CLOSE_WAIT);

/// The kernel sends no more at once (`netlink_dump`, net/netlink/af_netlink.c, v6.12).
const LARGEST_MESSAGE: usize = 32 * 1024;
/// Where `struct tcp_info` (include/uapi/linux/tcp.h) has `tcpi_last_data_sent`, in milliseconds.
const LAST_DATA_SENT: std::ops::Range<usize> = 44..48;

/// A TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiagSocket {
    /// The address that it is bound to.
    pub local: SocketAddr,
    /// The peer's address; unspecified for a listening socket.
    pub remote: SocketAddr,
    /// TCP state, the kernel's number.
    pub state: u8,
    /// Of a listening socket: connections in the accept queue. Else bytes that no process has read.
    pub receive_queue: u32,
    /// Of a listening socket: the limit of the accept queue. Else bytes that are not acknowledged.
    pub send_queue: u32,
    /// Inode number; `None` when no process has it open: it waits to be accepted, or was closed.
    pub inode: Option<u64>,
    /// Number of the socket that the kernel gives to no other until the next boot.
    pub cookie: u64,
    /// Packets to it that were dropped since it was made; `None` when the kernel does not say.
    pub drops: Option<u32>,
    /// Time since data was last sent, or since the socket was made; `None` when the kernel does not say.
    pub last_data_sent: Option<Duration>,
}

/// TCP sockets in these states in the network namespace of the calling thread, over IPv4 and IPv6; only at this local port, if one is given.
pub fn dump(states: &StateFlags, local_port: Option<u16>) -> io::Result<Vec<DiagSocket>> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        match dump_family(family, states, local_port, &mut found) {
            // A kernel without IPv6.
            Err(error) if family == AF_INET6 && error.raw_os_error() == Some(libc::ENOENT) => {}
            result => result?,
        }
    }
    Ok(found)
}

fn dump_family(
    family: u8,
    states: &StateFlags,
    local_port: Option<u16>,
    found: &mut Vec<DiagSocket>,
) -> io::Result<()> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.connect(&KernelAddress::new(0, 0))?;
    socket.send(&request(family, states, local_port), 0)?;
    let mut buffer = Vec::with_capacity(LARGEST_MESSAGE);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        if parse(&buffer, found)? {
            return Ok(());
        }
    }
}

fn request(family: u8, states: &StateFlags, local_port: Option<u16>) -> Vec<u8> {
    let mut socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    socket_id.source_port = local_port.unwrap_or(0);
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO | ExtensionFlags::SKMEMINFO,
        states: states.clone(),
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Reads the messages of one datagram; true when the last of them ends the dump.
fn parse(mut bytes: &[u8], found: &mut Vec<DiagSocket>) -> io::Result<bool> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(bytes).map_err(io::Error::other)?;
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => found.push(socket(&response)),
            _ => {}
        }
        // Messages are aligned to four bytes, the last one in a datagram need not be.
        let length = (message.header.length as usize).next_multiple_of(4).max(4);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(false)
}

fn socket(response: &InetResponse) -> DiagSocket {
    let header = &response.header;
    let id = &header.socket_id;
    let (mut drops, mut last_data_sent) = (None, None);
    for attribute in &response.nlas {
        match attribute {
            Nla::MemInfo(memory) => drops = Some(memory.drops),
            Nla::TcpInfo(bytes) => {
                let milliseconds = bytes.get(LAST_DATA_SENT).and_then(|field| field.try_into().ok());
                last_data_sent = milliseconds.map(|field| Duration::from_millis(u32::from_ne_bytes(field).into()));
            }
            _ => {}
        }
    }
    DiagSocket {
        local: SocketAddr::new(id.source_address, id.source_port),
        remote: SocketAddr::new(id.destination_address, id.destination_port),
        state: header.state,
        receive_queue: header.recv_queue,
        send_queue: header.send_queue,
        inode: (header.inode != 0).then_some(header.inode.into()),
        cookie: u64::from_ne_bytes(id.cookie),
        drops,
        last_data_sent,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::random::Random;

    #[test]
    fn a_listening_socket_and_its_waiting_client_are_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let local = listener.local_addr().unwrap();
            let client = TcpStream::connect(local).unwrap();
            let listening = dump(&LISTENING, None).unwrap();
            let listening: Vec<_> = listening.iter().filter(|socket| socket.local == local).collect();
            assert_eq!(listening.len(), 1, "{address}");
            assert_eq!((listening[0].receive_queue, listening[0].drops), (1, Some(0)), "{address}");
            assert!(listening[0].inode.is_some() && listening[0].send_queue > 0, "{address}");
            let at_port = dump(&COMPLETE, Some(local.port())).unwrap();
            let waiting: Vec<_> = at_port.iter().filter(|socket| socket.inode.is_none()).collect();
            assert_eq!(waiting.len(), 1, "{at_port:?}");
            assert_eq!((waiting[0].local, waiting[0].remote), (local, client.local_addr().unwrap()));
            assert!(waiting[0].last_data_sent.is_some_and(|sent| sent < Duration::from_secs(600)), "{waiting:?}");
        }
    }

    #[test]
    fn a_port_without_connections_has_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(dump(&COMPLETE, Some(listener.local_addr().unwrap().port())).unwrap(), []);
    }

    #[test]
    fn damaged_messages_are_errors_or_other_sockets_and_no_panics() {
        // An answer for one socket: head, addresses and numbers, and the attribute INET_DIAG_INFO.
        let mut info = vec![0; 232];
        info[LAST_DATA_SENT].copy_from_slice(&1_500_u32.to_ne_bytes());
        let mut body = vec![AF_INET, 1, 0, 0];
        body.extend([[0, 80], [0xc3, 0x50]].concat());
        body.extend([10, 0, 0, 1].iter().chain(&[0; 12]).chain(&[10, 0, 0, 2]).chain(&[0; 12]));
        body.extend([0; 4].iter().chain(&7_u64.to_ne_bytes()).chain(&[0; 4]));
        body.extend([78_u32, 0, 0, 0].iter().flat_map(|number| number.to_ne_bytes()));
        body.extend([(info.len() + 4) as u16, 2].iter().flat_map(|number| number.to_ne_bytes()));
        body.extend(info);
        let mut bytes = ((body.len() + 16) as u32).to_ne_bytes().to_vec();
        // Message type SOCK_DIAG_BY_FAMILY.
        bytes.extend([20, 0, 2, 0].iter().chain(&[0; 8]));
        bytes.extend(body);
        let mut whole = Vec::new();
        assert!(!parse(&bytes.repeat(2), &mut whole).unwrap());
        let expected = DiagSocket {
            local: "10.0.0.1:80".parse().unwrap(),
            remote: "10.0.0.2:50000".parse().unwrap(),
            state: 1,
            receive_queue: 78,
            send_queue: 0,
            inode: None,
            cookie: 7,
            drops: None,
            last_data_sent: Some(Duration::from_millis(1_500)),
        };
        assert_eq!(whole, [expected.clone(), expected]);
        let mut random = Random::new(3);
        let (mut read, mut refused) = (0, 0);
        for _ in 0..50_000 {
            let mut damaged = bytes.clone();
            for _ in 0..=random.below(4) {
                let place = random.below(damaged.len());
                match random.below(3) {
                    0 => damaged[place] = random.next() as u8,
                    1 => damaged.truncate(place + 1),
                    _ => damaged.extend_from_within(..place),
                }
            }
            match parse(&damaged, &mut Vec::new()) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(read > 1_000 && refused > 1_000, "{read} {refused}");
    }
}
