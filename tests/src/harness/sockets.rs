//! The connections that the kernel lists in `/proc/net/tcp` and `tcp6`, and who has them.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};

use crate::traffic::process::enter_netns;
use crate::traffic::queues::extended_counter;

use super::host::patience;
use super::netns::NetNs;
use super::proc::must;

/// `TCP_ESTABLISHED`.
pub const ESTABLISHED: u8 = 1;
/// `TCP_CLOSE_WAIT`.
pub const CLOSE_WAIT: u8 = 8;

const SYN_RECV: u8 = 3;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;
const NEW_SYN_RECV: u8 = 12;
/// The timer of what is left of a connection whose socket is gone, in whatever state.
const WAITING_TIMER: &str = "03";

/// A connection.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Row {
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// The kernel's number.
    pub state: u8,
    /// Of the socket's file; 0 when there is none, before a process has accepted and after it has closed.
    pub inode: u64,
}

/// Does something in a namespace, in a thread that goes away with it.
pub fn within<T: Send>(netns: &NetNs, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter_netns(Some(netns.path()))?;
            work()
        });
        thread.join().unwrap_or_else(|_| bail!("the thread in {} panicked", netns.name()))
    })
}

/// The connections of a namespace that have a socket, in order: no listeners, no requests, nothing that only waits.
pub fn connections(netns: &NetNs) -> Result<Vec<Row>> {
    let mut rows = within(netns, || {
        let mut rows = Vec::new();
        for name in ["tcp", "tcp6"] {
            let path = Path::new("/proc/thread-self/net").join(name);
            match fs::read_to_string(&path) {
                Ok(text) => rows.extend(parse(&text)?),
                // A kernel without IPv6.
                Err(_) if name == "tcp6" => {}
                Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
            }
        }
        Ok(rows)
    })?;
    rows.sort();
    Ok(rows)
}

/// What `ss` says of a listening socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backlog {
    /// Connections in the accept queue.
    pub queue: u64,
    /// How many may be there, by the kernel's word.
    pub limit: u64,
    /// Packets that the socket has dropped.
    pub drops: u64,
}

/// What `ss` says of the sockets that listen on a port of that namespace.
pub fn backlogs(netns: &NetNs, port: u16) -> Result<Vec<Backlog>> {
    let filter = format!("sport = :{port}");
    let command = netns.command(&["ss", "-HOtlnm", &filter]);
    must(command, patience(20))?.stdout.lines().map(parse_backlog).collect()
}

/// What `ss` says of a port with one listener.
pub fn backlog(netns: &NetNs, port: u16) -> Result<Backlog> {
    let found = backlogs(netns, port)?;
    ensure!(found.len() == 1, "one listener, not {found:?}");
    Ok(found[0])
}

/// A counter of the kernel's for a namespace.
pub fn counted(netns: &NetNs, counter: &str) -> Result<u64> {
    within(netns, || Ok(extended_counter(counter)?))
}

/// `LISTEN 3 2 127.0.0.1:80 0.0.0.0:* skmem:(r0,rb131072,t0,tb16384,f0,w0,o0,bl0,d17)`
fn parse_backlog(line: &str) -> Result<Backlog> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok());
    let memory = words.iter().find_map(|word| word.strip_prefix("skmem:("));
    let drops = memory.and_then(|memory| memory.trim_end_matches(')').rsplit_once(",d"));
    match (number(words.get(1).copied()), number(words.get(2).copied()), number(drops.map(|(_, drops)| drops))) {
        (Some(queue), Some(limit), Some(drops)) => Ok(Backlog { queue, limit, drops }),
        _ => bail!("not a listening socket: {line}"),
    }
}

/// Which process has the file of a socket, by inode. Of several: any of them.
pub fn holders() -> Result<HashMap<u64, u32>> {
    let mut holders = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Processes and files may go away at any time.
        let Ok(files) = fs::read_dir(entry.path().join("fd")) else { continue };
        for file in files.flatten() {
            let Ok(target) = fs::read_link(file.path()) else { continue };
            let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            holders.extend(inode.map(|inode| (inode, pid)));
        }
    }
    Ok(holders)
}

fn parse(text: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for line in text.lines().skip(1) {
        rows.extend(parse_line(line).with_context(|| format!("not a line of /proc/net/tcp: {line}"))?);
    }
    Ok(rows)
}

fn parse_line(line: &str) -> Result<Option<Row>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, local, remote, state, _, timer, _, _, _, inode, ..] = words[..] else { bail!("too few columns") };
    let row =
        Row { local: end(local)?, remote: end(remote)?, state: u8::from_str_radix(state, 16)?, inode: inode.parse()? };
    let is_request = row.state == SYN_RECV && row.inode == 0;
    let is_connection =
        !matches!(row.state, TIME_WAIT | CLOSE | LISTEN | NEW_SYN_RECV) && !timer.starts_with(WAITING_TIMER);
    Ok((is_connection && !is_request).then_some(row))
}

/// An address is words of the kernel's memory, each printed as the number that it is to this machine.
fn end(text: &str) -> Result<SocketAddr> {
    let (address, port) = text.split_once(':').context("an address and a port")?;
    ensure!(address.is_ascii() && address.len() % 8 == 0, "words of 8 digits");
    let mut bytes = Vec::new();
    for at in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(&address[at..at + 8], 16)?.to_ne_bytes());
    }
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes.as_slice())?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice())?),
        other => bail!("an address of {other} bytes"),
    };
    Ok(SocketAddr::new(address.to_canonical(), u16::from_str_radix(port, 16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_read_from_a_line_of_ss() {
        let line = "LISTEN 3      2      127.0.0.1:8005 0.0.0.0:*  skmem:(r0,rb131072,t0,tb16384,f0,w0,o0,bl0,d17) ";
        assert_eq!(parse_backlog(line).unwrap(), Backlog { queue: 3, limit: 2, drops: 17 });
        assert!(parse_backlog("LISTEN 3 2 127.0.0.1:8005 0.0.0.0:*").is_err());
    }

    #[test]
    fn only_sockets_of_connections_are_rows() {
        let line = |state: &str, timer: &str, inode: u64| {
            format!("   0: 0206D50A:238C 0106D50A:D903 {state} 0:0 {timer}:00000000 0 0 0 {inode} 2 f 20 4 30 10 -1")
        };
        let cases = [
            ("01", "00", 77, true),
            ("01", "00", 0, true),
            ("03", "01", 0, false),
            ("03", "00", 77, true),
            ("04", "01", 0, true),
            ("05", "00", 77, true),
            ("05", "03", 0, false),
            ("06", "03", 0, false),
            ("0A", "00", 77, false),
        ];
        for (state, timer, inode, counts) in cases {
            let row = parse_line(&line(state, timer, inode)).unwrap();
            assert_eq!(row.is_some(), counts, "{state} {timer} {inode}");
        }
        assert!(parse_line("   0: 0206D50A:238C").is_err());
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn addresses_of_both_families_are_read() {
        let cases = [
            ("0206D50A:238C", "10.213.6.2:9100"),
            ("0000000000000000FFFF00000206D50A:0050", "10.213.6.2:80"),
            ("B80D0120000000000000000001000000:FFFF", "[2001:db8::1]:65535"),
        ];
        for (text, expected) in cases {
            assert_eq!(end(text).unwrap().to_string(), expected);
        }
        assert!(end("0206D5:238C").is_err());
    }
}
