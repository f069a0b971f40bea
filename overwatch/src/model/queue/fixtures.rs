//! Listening sockets for tests.

use std::time::{Duration, SystemTime};

use super::{Count, Holder, Queue, Row, Snapshot, SynQueue, Threads, Throttling, WaitTotals, Waiting, Waits};
use crate::model::verdict::{Cause, Level, Verdict};

pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn count(interval: u64, total: u64) -> Count {
    Count { interval, total }
}

/// A prefork worker that does what it can.
pub(crate) fn holder(pid: u32) -> Holder {
    Holder {
        pid,
        comm: "apache2".into(),
        cgroup_id: 9,
        threads: Some(Threads { total: 5, running: 1, sleeping: 2, uninterruptible: 1, stopped: 1 }),
        on_cpu: Some(Duration::from_millis(20)),
        open_files: Some(12),
        open_files_limit: Some(1024),
        throttling: Some(Throttling { periods: 10, throttled_periods: 4, throttled: Duration::from_millis(300) }),
    }
}

/// A client that has sent a request of 78 bytes and waits, or waited until it left.
pub(crate) fn waiting(port: u16, millis: u64, state: u32) -> Waiting {
    Waiting {
        remote_addr: [10, 0, 0, 2].into(),
        remote_port: port,
        waiting: Some(Duration::from_millis(millis)),
        unread_bytes: 78,
        state,
    }
}

/// Apache with five workers serves five clients; three wait, of which one has closed. Ten seconds after it began.
pub(crate) fn row() -> Row {
    let queue = Queue {
        listener: 3,
        netns: 7,
        local_addr: [0, 0, 0, 0].into(),
        local_port: 8080,
        inode: Some(4711),
        listening_since: Some(at(5)),
        holders: (42..48).map(holder).collect(),
        siblings: 0,
        accept_queue: 3,
        accept_queue_peak: 4,
        backlog_limit: 511,
        somaxconn: Some(4096),
        syncookies: Some(1),
        syn_queue: half_open(2, 1, true),
        accepts_seen: true,
        accepts_lost: false,
        arrivals: count(6, 60),
        accepts: count(4, 40),
        overflows_syn: count(0, 2),
        overflows_ack: count(0, 1),
        overflows_told_apart: true,
        overflows_exact: true,
        other_drops: count(1, 9),
        syn_cookies: Some(count(2, 20)),
        syn_queue_overflows: Some(count(3, 30)),
        serving: Some(5),
        served: 1,
        waiting: vec![waiting(50_001, 9_500, 1), waiting(50_002, 4_000, 8), waiting(50_003, 250, 1)],
        waiting_total: 3,
        accept_waits: Some(Waits {
            p50: Duration::from_millis(1),
            p90: Duration::from_millis(20),
            p99: Duration::from_millis(300),
            max: Duration::from_millis(4_000),
        }),
        accept_wait_totals: WaitTotals {
            at_most: [0, 20, 22, 25, 30, 31, 32, 33, 35, 36, 38, 40, 40, 40, 40],
            count: 40,
            sum: Duration::from_millis(13_500),
        },
    };
    let verdict = Verdict {
        level: Level::Saturated,
        cause: Cause::WorkerLimit,
        since: Some(at(90)),
        serving_ceiling: Some(5),
        evidence: vec![
            "5 connections are served, which has been the most for 10 s, and 3 clients wait.".into(),
            "The client that came first has waited 9.5 s.".into(),
        ],
        advice: vec![
            "Raise MaxRequestWorkers above 5 in Apache's configuration.".into(),
            "A longer queue does not help: clients would only wait longer.".into(),
        ],
    };
    Row { queue, verdict }
}

/// A SYN queue.
pub(crate) fn half_open(length: u32, old: u32, defers_accept: bool) -> Option<SynQueue> {
    Some(SynQueue { length, old, defers_accept })
}

/// As little as can be known of a listening socket.
pub(crate) fn unknown_row() -> Row {
    let queue = Queue {
        netns: 0,
        local_port: 80,
        inode: None,
        listening_since: None,
        holders: Vec::new(),
        accept_queue: 0,
        accept_queue_peak: 0,
        somaxconn: None,
        syncookies: None,
        syn_queue: None,
        accepts_seen: false,
        syn_cookies: None,
        syn_queue_overflows: None,
        overflows_told_apart: false,
        overflows_exact: false,
        serving: None,
        waiting: Vec::new(),
        waiting_total: 0,
        accept_waits: None,
        accept_wait_totals: WaitTotals::default(),
        ..row().queue
    };
    Row { queue, verdict: Verdict::ok() }
}

/// As little as can be known of a process.
pub(crate) fn unknown_holder() -> Holder {
    Holder {
        pid: 42,
        comm: "apache2".into(),
        cgroup_id: 0,
        threads: None,
        on_cpu: None,
        open_files: None,
        open_files_limit: None,
        throttling: None,
    }
}

/// An interval of two seconds that ended at 100.
pub(crate) fn snapshot(rows: Vec<Row>) -> Snapshot {
    Snapshot { time: at(100), interval: Duration::from_secs(2), rows, lost_events: 0 }
}
