//! Lists of sock_diag, and the readings made of them.

use super::*;
use crate::model::fixtures;

const NETNS: u32 = 7;

fn listening(local: &str, inode: u64, queue: u32) -> DiagSocket {
    DiagSocket {
        local: local.parse().unwrap(),
        remote: "0.0.0.0:0".parse().unwrap(),
        state: 10,
        receive_queue: queue,
        send_queue: 511,
        inode: Some(inode),
        cookie: inode + 1_000,
        drops: Some(3),
        last_data_sent: Some(Duration::ZERO),
    }
}

fn client(local: &str, remote: &str, waited_ms: u64) -> DiagSocket {
    DiagSocket {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        state: 1,
        receive_queue: 78,
        send_queue: 0,
        inode: None,
        cookie: 9,
        drops: Some(0),
        last_data_sent: Some(Duration::from_millis(waited_ms)),
    }
}

fn readings(listening: Vec<DiagSocket>, complete: Vec<DiagSocket>, known: &[(u64, Listener)]) -> Vec<ListenerReading> {
    let known = known.iter().map(|(sock, listener)| (listener.inode, (*sock, *listener))).collect();
    Namespace { netns: NETNS, time_ns: 5, listening, complete }.readings(&known)
}

#[test]
fn a_client_waits_at_the_only_listener_of_its_address_that_has_a_queue() {
    let on = |local, queue| listening(local, 4711, queue);
    for (listeners, local, expected) in [
        (vec![on("10.0.0.1:80", 1)], "10.0.0.1:80", Some(0)),
        (vec![on("10.0.0.1:80", 1)], "10.0.0.1:81", None),
        (vec![on("10.0.0.1:80", 1)], "10.0.0.2:80", None),
        // The exact address goes before the wildcard, and the wildcard of IPv4 before that of IPv6.
        (vec![on("0.0.0.0:80", 1), on("10.0.0.1:80", 1)], "10.0.0.1:80", Some(1)),
        (vec![on("[::]:80", 1), on("0.0.0.0:80", 1)], "10.0.0.1:80", Some(1)),
        (vec![on("[::]:80", 1)], "10.0.0.1:80", Some(0)),
        (vec![on("[::]:80", 1)], "[::ffff:10.0.0.1]:80", Some(0)),
        (vec![on("0.0.0.0:80", 1), on("[::]:80", 1)], "[2001:db8::1]:80", Some(1)),
        (vec![on("0.0.0.0:80", 1)], "[2001:db8::1]:80", None),
        // An empty queue has no clients; of two with a queue at one address neither is known to have it.
        (vec![on("10.0.0.1:80", 0), on("0.0.0.0:80", 1)], "10.0.0.1:80", Some(1)),
        (vec![on("10.0.0.1:80", 1), on("10.0.0.1:80", 0)], "10.0.0.1:80", Some(0)),
        (vec![on("10.0.0.1:80", 1), on("10.0.0.1:80", 1)], "10.0.0.1:80", None),
    ] {
        let text = format!("{listeners:?} {local}");
        let readings = readings(listeners, vec![client(local, "10.0.0.9:50000", 10)], &[]);
        let found = readings.iter().position(|reading| !reading.waiting.is_empty());
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn the_oldest_client_comes_first_and_accepted_ones_do_not_wait() {
    let accepted = DiagSocket { inode: Some(1), ..client("10.0.0.1:80", "10.0.0.9:1", 9_000) };
    let gone = DiagSocket { state: 8, ..client("10.0.0.1:80", "10.0.0.9:3", 7_000) };
    // A clock that has run over.
    let unknown = client("10.0.0.1:80", "10.0.0.9:4", 86_400_000);
    let complete = vec![client("10.0.0.1:80", "10.0.0.9:2", 500), accepted, gone, unknown];
    let reading = readings(vec![listening("10.0.0.1:80", 4711, 3)], complete, &[]).remove(0);
    let waiting: Vec<_> =
        reading.waiting.iter().map(|client| (client.remote_port, client.state, client.waited)).collect();
    let ms = Duration::from_millis;
    assert_eq!(waiting, [(3, 8, Some(ms(7_000))), (2, 1, Some(ms(500))), (4, 1, None)]);
    // The client that has closed has a FIN among its 78.
    assert_eq!([reading.waiting[0].unread_bytes, reading.waiting[1].unread_bytes], [77, 78]);
    assert_eq!(reading.waiting[1].remote_addr, fixtures::bytes("10.0.0.9"));
}

#[test]
fn no_more_clients_are_shown_than_are_in_the_queue() {
    let complete = (1..=3).map(|port| client("10.0.0.1:80", &format!("10.0.0.9:{port}"), 10)).collect();
    let reading = readings(vec![listening("10.0.0.1:80", 4711, 2)], complete, &[]).remove(0);
    assert_eq!(reading.waiting.len(), 2);
}

#[test]
fn a_socket_has_its_entry_in_the_map_or_is_named_by_its_cookie() {
    let entry = |inode, netns| Listener { inode, netns, ..fixtures::listener(44, "10.0.0.1") };
    let known = [(0xffff_8880_0000_1000, entry(4711, NETNS)), (0xffff_8880_0000_2000, entry(4712, 8))];
    let sockets = [4711, 4712, 4713].map(|inode| listening("10.0.0.1:80", inode, 0)).to_vec();
    let readings = readings(sockets, vec![], &known);
    let named: Vec<_> =
        readings.iter().map(|reading| (reading.sock, reading.listener.since_ns, reading.listener.tgid)).collect();
    // The second one's entry is of another namespace.
    assert_eq!(named, [(0xffff_8880_0000_1000, 44, 42), (5_712, 0, 0), (5_713, 0, 0)]);
    for reading in &readings {
        assert_eq!((reading.listener.netns, reading.listener.local_port, reading.drops), (NETNS, 80, 3));
        assert_eq!((reading.backlog_limit, reading.syn_queue, reading.time_ns), (511, None, 5));
    }
}
