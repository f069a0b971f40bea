//! Which processes have a share in which connection, so that a connection's end finds its shares without a walk over
//! the whole table.

use std::collections::{HashMap, HashSet};

use overwatch_common::connection::{Connection, ShareKey};

/// Processes by connection.
#[derive(Debug, Default)]
pub(super) struct ShareIndex {
    processes: HashMap<(u64, u32), Vec<u32>>,
}

impl ShareIndex {
    /// Notes that a process has announced itself.
    pub(super) fn note(&mut self, key: ShareKey) {
        let processes = self.processes.entry((key.sock, key.generation)).or_default();
        if !processes.contains(&key.tgid) {
            processes.push(key.tgid);
        }
    }

    /// Forgets a connection and gives the keys of its shares; `None` when some of them were never announced (the ring
    /// buffer was full), so that the table must be walked.
    pub(super) fn forget(&mut self, sock: u64, connection: &Connection) -> Option<Vec<ShareKey>> {
        let generation = connection.created_ns as u32;
        let processes = self.processes.remove(&(sock, generation)).unwrap_or_default();
        let keys: Vec<_> = processes.into_iter().map(|tgid| ShareKey { sock, tgid, generation }).collect();
        (keys.len() as u64 == connection.shares).then_some(keys)
    }

    /// Forgets connections that are not in the table, by socket and time of birth: the last record of some was lost, and those are asked for by
    /// nobody. Where one is on its way, the table of shares is walked for it.
    pub(super) fn keep(&mut self, present: &HashSet<(u64, u64)>) {
        let present: HashSet<(u64, u32)> =
            present.iter().map(|(sock, created_ns)| (*sock, *created_ns as u32)).collect();
        self.processes.retain(|connection, _| present.contains(connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::connection;

    const FIRST: u64 = 0xffff_8880_0000_1000;
    const SECOND: u64 = 0xffff_8880_0000_2000;

    fn key(sock: u64, tgid: u32, generation: u32) -> ShareKey {
        ShareKey { sock, tgid, generation }
    }

    fn ended(created_ns: u64, shares: u64) -> Connection {
        Connection { created_ns, shares, ..connection(1, 0, 0) }
    }

    #[test]
    fn a_connection_that_ends_gives_back_the_shares_that_were_announced() {
        // Announced processes, how many shares the kernel side has made, the answer.
        for (announced, shares, expected) in [
            (&[][..], 0, Some(&[][..])),
            (&[42], 1, Some(&[42][..])),
            (&[42, 43, 44], 3, Some(&[42, 43, 44])),
            // A process announces itself once per interval.
            (&[42, 43, 42, 42, 43], 2, Some(&[42, 43])),
            // The ring buffer was full when one announced itself.
            (&[], 1, None),
            (&[42], 2, None),
            // More than there can be: the table knows better.
            (&[42, 43], 1, None),
        ] {
            let mut index = ShareIndex::default();
            for tgid in announced {
                index.note(key(FIRST, *tgid, 5));
            }
            let keys = index.forget(FIRST, &ended(5, shares));
            let expected = expected.map(|tgids| tgids.iter().map(|tgid| key(FIRST, *tgid, 5)).collect::<Vec<_>>());
            assert_eq!(keys, expected, "{announced:?}, {shares} shares");
            assert!(index.processes.is_empty(), "{announced:?}: nothing may stay behind");
        }
    }

    #[test]
    fn what_is_in_the_table_no_more_is_forgotten() {
        let mut index = ShareIndex::default();
        for generation in [5, 6] {
            index.note(key(FIRST, 42, generation));
        }
        index.note(key(SECOND, 43, 6));
        index.keep(&HashSet::from([(FIRST, (7 << 32) + 6)]));
        assert_eq!(index.forget(FIRST, &ended((7 << 32) + 6, 1)), Some(vec![key(FIRST, 42, 6)]));
        assert!(index.processes.is_empty());
    }

    #[test]
    fn connections_are_told_apart_by_address_and_generation() {
        let mut index = ShareIndex::default();
        // The same address twice, since the kernel uses it again, and another one in the same nanosecond. Of the time
        // only the low half counts.
        let (old, new) = (u64::from(u32::MAX), (7 << 32) + 5);
        index.note(key(FIRST, 42, u32::MAX));
        index.note(key(FIRST, 43, 5));
        index.note(key(SECOND, 44, 5));
        assert_eq!(index.forget(FIRST, &ended(new, 1)), Some(vec![key(FIRST, 43, 5)]));
        assert_eq!(index.forget(FIRST, &ended(old, 1)), Some(vec![key(FIRST, 42, u32::MAX)]));
        assert_eq!(index.forget(SECOND, &ended(5, 1)), Some(vec![key(SECOND, 44, 5)]));
        // Once only: what is asked for again must be looked for in the table.
        assert_eq!(index.forget(FIRST, &ended(new, 1)), None);
        assert!(index.processes.is_empty());
    }
}
