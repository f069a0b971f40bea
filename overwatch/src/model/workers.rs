//! Processes that have to do with TCP: what they have open, where they listen, and what they move.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    bytes::Bytes,
    connections::{Live, Mover},
    queue,
    snapshot::Process,
};

/// What a process has to do with TCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// The process.
    pub process: Process,
    /// Connections that it has open.
    pub open: u64,
    /// Sockets that it listens at; `None` where these cannot be looked at.
    pub listens: Option<u64>,
    /// Bytes in this interval.
    pub moved: Bytes,
    /// Bytes since overwatch began, or since it has a connection.
    pub moved_total: Bytes,
}

impl Worker {
    fn new(process: Process, listens: Option<u64>) -> Self {
        Self { process, open: 0, listens, moved: Bytes::default(), moved_total: Bytes::default() }
    }

    /// It has a socket, whether or not it has moved anything.
    pub fn has_socket(&self) -> bool {
        self.open + self.listens.unwrap_or(0) > 0
    }
}

/// Whoever has a connection, listens, or has moved something, in no order. `None` for listeners that cannot be looked at.
pub fn workers<'a>(
    movers: impl IntoIterator<Item = &'a Mover>,
    connections: &[Live],
    listeners: Option<&[queue::Row]>,
) -> Vec<Worker> {
    let mut workers: HashMap<u32, Worker> = HashMap::new();
    let none = listeners.map(|_| 0);
    for Mover { process, moved, moved_total } in movers {
        let worker = Worker { moved: *moved, moved_total: *moved_total, ..Worker::new(process.clone(), none) };
        workers.insert(process.pid, worker);
    }
    for live in connections.iter().filter(|live| !live.waits && !live.has_ended()) {
        if let Some(process) = &live.process {
            workers.entry(process.pid).or_insert_with(|| Worker::new(process.clone(), none)).open += 1;
        }
    }
    for holder in listeners.into_iter().flatten().flat_map(|row| &row.queue.holders) {
        let process = || Process { pid: holder.pid, comm: holder.comm.clone(), cgroup_id: holder.cgroup_id };
        let worker = workers.entry(holder.pid).or_insert_with(|| Worker::new(process(), none));
        worker.listens = worker.listens.map(|listens| listens + 1);
    }
    workers.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::queue::fixtures;

    fn process(pid: u32) -> Process {
        Process { pid, comm: "apache2".to_owned(), cgroup_id: 9 }
    }

    fn live(pid: Option<u32>, state: u32, waits: bool) -> Live {
        Live {
            key: (1, 1),
            process: pid.map(process),
            netns: 7,
            local_addr: [10, 0, 0, 1].into(),
            local_port: 80,
            remote_addr: None,
            remote_port: None,
            role: None,
            state,
            waits,
            opened: None,
            established: None,
            accepted: None,
            moved: Bytes::default(),
            moved_total: Bytes::default(),
        }
    }

    #[test]
    fn a_process_is_there_for_what_it_holds_or_has_moved() {
        const ESTABLISHED: u32 = 1;
        const CLOSE: u32 = 7;
        let movers = [41, 100].map(|pid| Mover {
            process: process(pid),
            moved: Bytes { sent: 5, received: 6 },
            moved_total: Bytes { sent: 50, received: 60 },
        });
        let connections = [
            live(Some(42), ESTABLISHED, false),
            live(Some(42), ESTABLISHED, false),
            // Nobody has it yet, and nobody any more.
            live(Some(43), ESTABLISHED, true),
            live(Some(100), CLOSE, false),
            live(None, ESTABLISHED, false),
            live(Some(101), ESTABLISHED, false),
        ];
        // Its holders are 42 to 47.
        let listeners = [fixtures::row()];
        let mut found: Vec<(u32, u64, u64, u64, bool)> = workers(&movers, &connections, Some(&listeners))
            .iter()
            .map(|worker| {
                (worker.process.pid, worker.open, worker.listens.unwrap(), worker.moved_total.sent, worker.has_socket())
            })
            .collect();
        found.sort_unstable();
        let listens = (43..48).map(|pid| (pid, 0, 1, 0, true));
        let expected = [(41, 0, 0, 50, false), (42, 2, 1, 0, true)].into_iter().chain(listens);
        let expected: Vec<_> = expected.chain([(100, 0, 0, 50, false), (101, 1, 0, 0, true)]).collect();
        assert_eq!(found, expected);
        assert!(workers(&movers, &connections, None).iter().all(|worker| worker.listens.is_none()));
    }
}
