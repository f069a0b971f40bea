//! Namespaces: the same addresses and ports in two places are two connections, each with its own namespace and
//! owner; and a connection stays in the namespace of its socket, wherever its process goes.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use overwatch_tests::harness::host::Host;
use overwatch_tests::harness::judge::{Expect, judge, rows_of};
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::overwatch::Top;
use overwatch_tests::harness::traffic::Hold;

const CLIENT: &str = "10.213.7.1/24";
const SERVER: &str = "10.213.7.2/24";
const SERVER_ADDRESS: &str = "10.213.7.2";

/// Two namespaces that are joined, the same addresses every time.
fn pair(tag: &str) -> Result<(NetNs, NetNs)> {
    let client = NetNs::new(&format!("{tag}-cli"))?;
    let server = NetNs::new(&format!("{tag}-srv"))?;
    client.join(CLIENT, &server, SERVER)?;
    Ok((client, server))
}

fn open(client: &NetNs, server: &NetNs) -> Result<Hold> {
    let (client, server) = (client.path_text(), server.path_text());
    let place = ["--client-netns", client, "--server-netns", server, "--address", SERVER_ADDRESS];
    Hold::open(&[&place[..], &["--port", "8213", "--client-port", "48213"]].concat())
}

#[test]
fn identical_addresses_and_ports_in_two_places() -> Result<()> {
    let _host = Host::take()?;
    let (client_a, server_a) = pair("a")?;
    let (client_b, server_b) = pair("b")?;
    let top = Top::start(None, &[])?;
    let mut hold_a = open(&client_a, &server_a)?;
    let mut hold_b = open(&client_b, &server_b)?;
    let ends_a = hold_a.send(10_007, 20_011)?;
    let ends_b = hold_b.send(30_013, 40_009)?;
    hold_a.close()?;
    hold_b.close()?;
    let run = top.stop()?;

    let mut connections = BTreeSet::new();
    let mut namespaces = BTreeSet::new();
    for end in ends_a.iter().chain(&ends_b) {
        let problems = judge(&run.intervals, &[end], Expect::Exact).problems;
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        connections.extend(rows_of(&run.intervals, end).iter().map(|row| row.connection));
        namespaces.insert(end.netns);
    }
    let expected = [&client_a, &server_a, &client_b, &server_b].map(NetNs::inode);
    assert_eq!(namespaces, BTreeSet::from(expected), "the ends were where they should be");
    assert_eq!(connections.len(), 4, "four sockets");
    Ok(())
}

#[test]
fn a_process_that_moves_keeps_its_row() -> Result<()> {
    let _host = Host::take()?;
    let (client, server) = pair("m")?;
    let elsewhere = NetNs::new("elsewhere")?;
    let top = Top::start(None, &[])?;
    let mut hold = open(&client, &server)?;
    hold.send(1_001, 2_003)?;
    hold.move_client(elsewhere.path())?;
    let ends = hold.send(10_007, 20_011)?;
    hold.close()?;
    let run = top.stop()?;
    for end in &ends {
        // The report names the namespace of the socket, so this says that all bytes are in that one's rows.
        let problems = judge(&run.intervals, &[end], Expect::Exact).problems;
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
    }
    let strays: Vec<_> =
        overwatch_tests::harness::rows::rows(&run.intervals).filter(|row| row.netns == elsewhere.inode()).collect();
    ensure!(strays.is_empty(), "rows in a namespace that has no socket: {strays:?}");
    Ok(())
}
