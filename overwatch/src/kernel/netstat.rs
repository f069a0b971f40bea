//! What a network namespace says of its listening sockets together: overflows since it was made, and the settings that limit queues.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use super::namespaces;

/// Numbers of `TcpExt` in `/proc/net/netstat`, since the namespace was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overflows {
    /// Connections refused because an accept queue was full, at their first or last packet (`ListenOverflows`).
    pub listen_overflows: u64,
    /// SYNs that found the SYN queue full and were answered with a cookie (`TCPReqQFullDoCookies`).
    pub syn_queue_full_cookies: u64,
    /// SYNs that found the SYN queue full and were refused (`TCPReqQFullDrop`).
    pub syn_queue_full_drops: u64,
}

/// What there is to know of one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// What it has refused; `None` when it cannot be read.
    pub overflows: Option<Overflows>,
    /// `net.core.somaxconn`, which no accept queue's limit exceeds; `None` likewise.
    pub somaxconn: Option<u32>,
    /// `net.ipv4.tcp_syncookies`: 0 never, 1 when the SYN queue is full, 2 always; `None` likewise.
    pub syncookies: Option<u32>,
}

impl Limits {
    /// Reads those of the namespace that the calling thread is in.
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        let number = |path: &str| text(path)?.trim().parse().ok();
        Self {
            // Not /proc/net, which is the namespace of the process and not of the thread.
            overflows: text("proc/thread-self/net/netstat").as_deref().and_then(Overflows::parse),
            somaxconn: number("proc/sys/net/core/somaxconn"),
            syncookies: number("proc/sys/net/ipv4/tcp_syncookies"),
        }
    }
}

/// Those of these namespaces, by inode number. Entering one that is not this process's costs a thread.
pub fn read_all(root: &Path, wanted: &BTreeSet<u32>) -> HashMap<u32, Limits> {
    let own = fs::metadata(root.join("proc/self/ns/net")).ok().and_then(|own| u32::try_from(own.ino()).ok());
    let mut found: HashMap<u32, Limits> = wanted.iter().map(|netns| (*netns, Limits::default())).collect();
    if let Some(limits) = own.and_then(|own| found.get_mut(&own)) {
        *limits = Limits::read(root);
    }
    if wanted.iter().all(|netns| Some(*netns) == own) {
        return found;
    }
    for namespace in namespaces::list(root) {
        let other = u32::try_from(namespace.inode).ok().filter(|netns| Some(*netns) != own);
        if let Some(limits) = other.and_then(|netns| found.get_mut(&netns)) {
            *limits = namespaces::inside(&namespace, || Limits::read(root)).unwrap_or_default();
        }
    }
    found
}

impl Overflows {
    /// From a table in pairs of lines, of which the first has the names and the second the values; `None` when one is missing.
    pub fn parse(netstat: &str) -> Option<Self> {
        let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
        let (names, values) = (lines.next()?, lines.next()?);
        let value = |name: &str| {
            let place = names.split_whitespace().position(|of| of == name)?;
            values.split_whitespace().nth(place)?.parse().ok()
        };
        Some(Self {
            listen_overflows: value("ListenOverflows")?,
            syn_queue_full_cookies: value("TCPReqQFullDoCookies")?,
            syn_queue_full_drops: value("TCPReqQFullDrop")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// As Linux 6.12 writes it, with fewer names.
    const NETSTAT: &str = "\
TcpExt: SyncookiesSent SyncookiesRecv TW ListenOverflows ListenDrops TCPReqQFullDoCookies TCPReqQFullDrop TCPWqueueTooBig
TcpExt: 7 1 18446744073709551615 20 23 5 3 0
IpExt: InNoRoutes ListenOverflows
IpExt: 1 99
";
    const OVERFLOWS: Overflows = Overflows { listen_overflows: 20, syn_queue_full_cookies: 5, syn_queue_full_drops: 3 };

    #[test]
    fn numbers_are_found_by_name_and_none_is_made_up() {
        let mut other_order: Vec<&str> = NETSTAT.lines().collect();
        other_order.rotate_left(2);
        for (text, expected) in [
            (NETSTAT.to_owned(), Some(OVERFLOWS)),
            (other_order.join("\n"), Some(OVERFLOWS)),
            (NETSTAT.replace("TW ", "TW More ").replace("1 184", "1 4 184"), Some(OVERFLOWS)),
            (NETSTAT.replace("ListenOverflows", "ListenOverflow"), None),
            (NETSTAT.replace("TCPReqQFullDrop", "TCPReqQDrop"), None),
            // Numbers that nobody asks for.
            (NETSTAT.replace("ListenDrops", "ListenDrop").replace("SyncookiesSent", "Sent"), Some(OVERFLOWS)),
            // A line without its other half, or with too few values.
            (NETSTAT.lines().take(1).collect(), None),
            (NETSTAT.replace(" 23 5 3 0", ""), None),
            (NETSTAT.replace(" 20 ", " -1 "), None),
            (NETSTAT.replace(" 20 ", " 18446744073709551616 "), None),
            (NETSTAT.replace("TcpExt", "TcpEx"), None),
            (String::new(), None),
        ] {
            assert_eq!(Overflows::parse(&text), expected, "{text}");
        }
    }

    #[test]
    fn damaged_tables_are_read_or_refused() {
        let mut random = Random::new(11);
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut bytes = NETSTAT.as_bytes().to_vec();
            for _ in 0..=random.below(3) {
                if bytes.is_empty() {
                    break;
                }
                let place = random.below(bytes.len());
                match random.below(3) {
                    0 => bytes[place] = random.next() as u8 & 0x7f,
                    1 => drop(bytes.remove(place)),
                    _ => bytes.truncate(place),
                }
            }
            // Whatever is found stands there, as a word.
            let text = String::from_utf8(bytes).unwrap();
            let words: Vec<&str> = text.split(|at: char| at.is_whitespace() || at == ':').collect();
            match Overflows::parse(&text) {
                Some(found) => {
                    for value in [found.listen_overflows, found.syn_queue_full_cookies, found.syn_queue_full_drops] {
                        assert!(words.iter().any(|word| word.parse() == Ok(value)), "{value} is not in {text:?}");
                    }
                }
                None => refused += 1,
            }
        }
        assert!((1_000..19_000).contains(&refused), "{refused}");
    }

    #[test]
    fn this_host_has_them_and_one_without_files_has_none() {
        let here = Limits::read(Path::new("/"));
        assert!(here.overflows.is_some() && here.somaxconn > Some(0), "{here:?}");
        assert_eq!(Limits::read(Path::new("/nonexistent")), Limits::default());
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino() as u32;
        let found = read_all(Path::new("/"), &BTreeSet::from([own]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[&own].somaxconn, here.somaxconn);
        // One that cannot be found is not left out, but nothing is known of it.
        assert_eq!(read_all(Path::new("/"), &BTreeSet::from([1])), HashMap::from([(1, Limits::default())]));
    }
}
