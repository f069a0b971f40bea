//! Listener scan by sock_diag, as `ss` does it: one visit to each network namespace. For kernels that refuse our program.
//!
//! It shows the accept queue, its limit, and the waiting clients. It does not show the SYN queue, nor clients that have reset the
//! connection while they waited.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Duration,
};

use overwatch_common::{
    connection::{COMM_LEN, Listener, seen, state},
    scan::MOST_WAITING,
};

use super::ScanError;
use crate::{
    collect::{
        clocks::monotonic_ns,
        queues::{ListenerReading, WaitingReading},
    },
    kernel::{
        namespaces,
        sock_diag::{self, COMPLETE, DiagSocket, LISTENING},
    },
    probes::refuse::Refuse,
};

#[cfg(test)]
mod tests;

/// The name of this way in output, and in the switch for forced refusals.
pub(super) const NAME: &str = "sock_diag";

/// The kernel has listed its sockets once.
#[derive(Debug)]
pub(in crate::collect) struct DiagScan(());

/// The sockets of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Namespace {
    netns: u32,
    /// When they were listed, nanoseconds of CLOCK_MONOTONIC.
    time_ns: u64,
    listening: Vec<DiagSocket>,
    /// Connections at the ports where a client waits.
    complete: Vec<DiagSocket>,
}

impl DiagScan {
    /// An error where the kernel does not list sockets, for instance because tcp_diag is not built in and no module of it is there.
    pub(in crate::collect) fn prepare(refuse: &Refuse) -> Result<Self, ScanError> {
        refuse.check(NAME)?;
        sock_diag::dump(&LISTENING, None)?;
        Ok(Self(()))
    }

    /// Reads every namespace that can be entered. `known` are the entries of the map of listening sockets.
    pub(in crate::collect) fn read(&mut self, root: &Path, known: &[(u64, Listener)]) -> Vec<ListenerReading> {
        let own = fs::metadata(root.join("proc/self/ns/net")).map(|metadata| metadata.ino()).ok();
        let known: HashMap<u64, (u64, Listener)> =
            known.iter().map(|(sock, listener)| (listener.inode, (*sock, *listener))).collect();
        let mut readings = Vec::new();
        for namespace in namespaces::list(root) {
            let Ok(netns) = u32::try_from(namespace.inode) else { continue };
            let listed = if Some(namespace.inode) == own {
                Some(list(netns))
            } else {
                namespaces::inside(&namespace, || list(netns))
            };
            // A namespace that has gone, or that this process may not enter, has no readings.
            if let Some(Ok(listed)) = listed {
                readings.extend(listed.readings(&known));
            }
        }
        readings
    }
}

/// Lists the sockets of the namespace of the calling thread.
fn list(netns: u32) -> io::Result<Namespace> {
    let listening = sock_diag::dump(&LISTENING, None)?;
    let time_ns = monotonic_ns();
    let mut ports: Vec<u16> =
        listening.iter().filter(|socket| socket.receive_queue > 0).map(|socket| socket.local.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    let mut complete = Vec::new();
    for port in ports {
        complete.extend(sock_diag::dump(&COMPLETE, Some(port))?);
    }
    Ok(Namespace { netns, time_ns, listening, complete })
}

impl Namespace {
    /// The listening sockets with their waiting clients. `known` has the entries of the map by inode.
    fn readings(&self, known: &HashMap<u64, (u64, Listener)>) -> Vec<ListenerReading> {
        let mut waiting: HashMap<usize, Vec<WaitingReading>> = HashMap::new();
        // A connection without an inode waits to be accepted: a closed one is in neither of these states.
        for client in self.complete.iter().filter(|client| client.inode.is_none()) {
            if let Some(index) = self.listener_of(client) {
                waiting.entry(index).or_default().push(waits(client));
            }
        }
        let listening = self.listening.iter().enumerate();
        listening
            .map(|(index, socket)| self.reading(socket, waiting.remove(&index).unwrap_or_default(), known))
            .collect()
    }

    /// The only listening socket with a client in its queue at the client's local address. Of several (SO_REUSEPORT) none: sock_diag does not
    /// show whose queue a connection is in.
    fn listener_of(&self, client: &DiagSocket) -> Option<usize> {
        let port = client.local.port();
        // As in the kernel, the exact address goes before the wildcard, and that of IPv4 before that of IPv6.
        let address = client.local.ip().to_canonical();
        let any_v4 = address.is_ipv4().then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let candidates = [Some(address), any_v4, Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED))];
        candidates.into_iter().flatten().find_map(|address| {
            let at = |socket: &DiagSocket| socket.local.port() == port && socket.local.ip().to_canonical() == address;
            let listening = self.listening.iter().enumerate();
            let mut found = listening.filter(|(_, socket)| at(socket) && socket.receive_queue > 0);
            let (index, _) = found.next()?;
            found.next().is_none().then_some(index)
        })
    }

    fn reading(
        &self,
        socket: &DiagSocket,
        mut waiting: Vec<WaitingReading>,
        known: &HashMap<u64, (u64, Listener)>,
    ) -> ListenerReading {
        let entry = socket.inode.and_then(|inode| known.get(&inode));
        let entry = entry.filter(|(_, listener)| listener.netns == self.netns).copied();
        // Without an entry the socket is named by its cookie, which no kernel address is equal to.
        let (sock, mut listener) = entry.unwrap_or_else(|| (socket.cookie, self.unknown(socket)));
        listener.local_port = socket.local.port();
        // The kernel lists connections in no order.
        waiting.sort_by_key(|client| std::cmp::Reverse(client.waited));
        waiting.truncate(MOST_WAITING.min(socket.receive_queue as usize));
        ListenerReading {
            sock,
            listener,
            time_ns: self.time_ns,
            inode: socket.inode,
            accept_queue: socket.receive_queue,
            backlog_limit: socket.send_queue,
            drops: socket.drops.unwrap_or_default(),
            syn_queue: None,
            waiting,
        }
    }

    /// A listening socket that is not in the map.
    fn unknown(&self, socket: &DiagSocket) -> Listener {
        Listener {
            since_ns: 0,
            cgroup_id: 0,
            inode: socket.inode.unwrap_or(0),
            overflows_syn: 0,
            overflows_ack: 0,
            syn_queue_overflows: 0,
            syn_queue_at_limit: 0,
            syn_cookies: 0,
            local_addr: octets(socket.local),
            comm: [0; COMM_LEN],
            tgid: 0,
            netns: self.netns,
            local_port: socket.local.port(),
            audit: 0,
            seen: seen::BOTH,
            pad: [0; 3],
        }
    }
}

fn waits(client: &DiagSocket) -> WaitingReading {
    WaitingReading {
        sock: client.cookie,
        established_ns: 0,
        remote_addr: octets(client.remote),
        remote_port: client.remote.port(),
        state: client.state.into(),
        // The FIN of a client that has closed counts as a byte (`tcp_diag_get_info`, net/ipv4/tcp_diag.c, v6.12).
        unread_bytes: client.receive_queue.saturating_sub(u32::from(u32::from(client.state) == state::CLOSE_WAIT)),
        queued_behind: 0,
        // Before anything was sent to the client, this is the age of its socket, to a jiffy.
        waited: client.last_data_sent.filter(|age| *age < LONGEST_WAIT),
    }
}

/// Jiffies that are older have run over and show nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// IPv4 is v4-mapped, as in the maps.
fn octets(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
