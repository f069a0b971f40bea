//! Hosts to look at.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use super::super::board::{Board, Interval, Itself};
use crate::model::{
    bytes::Bytes,
    connections::Live,
    fixtures::transition,
    queue::{self, fixtures},
    snapshot::{Process, Role},
    workers::Worker,
};

fn process(pid: u32, comm: &str) -> Process {
    Process { pid, comm: comm.to_owned(), cgroup_id: 9 }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn live(number: u64, pid: u32, comm: &str, moved: u64) -> Live {
    Live {
        key: (number, number),
        process: Some(process(pid, comm)),
        netns: 7,
        local_addr: [10, 0, 0, 1].into(),
        local_port: 8080,
        remote_addr: Some([192, 0, 2, (number % 250) as u8].into()),
        remote_port: Some(50_000 + (number % 10_000) as u16),
        role: Some(Role::Server),
        state: 1,
        waits: false,
        opened: Some(at(90)),
        established: Some(at(90)),
        accepted: Some(at(91)),
        moved: Bytes { sent: moved, received: moved / 10 },
        moved_total: Bytes { sent: moved * 9, received: moved },
    }
}

fn itself() -> Itself {
    let program = |name: &str| (name.to_owned(), "fexit".to_owned());
    Itself {
        tier: "fentry".to_owned(),
        looks: true,
        capabilities: "bytes full, life full, listeners full".to_owned(),
        blind: false,
        degradations: Vec::new(),
        programs: ["accept_exit", "sendmsg_exit", "state_changed"].map(program).into(),
        maps: vec![("CONNECTIONS".to_owned(), 8, 65_536)],
        maps_age: Duration::from_secs(4),
        lost: vec![("ends of connections".to_owned(), 0), ("changes of state".to_owned(), 0)],
        unattributed: Bytes::default(),
        skipped_runs: Some(0),
        memory_bytes: Some(30 << 20),
        on_cpu: Some(Duration::from_millis(12)),
        took: Duration::from_millis(3),
    }
}

fn board(rows: &[queue::Row], connections: &[Live], workers: &[Worker], itself: &Itself) -> Board {
    let mut board = Board::new("web1".to_owned(), at(0));
    for seconds in [99, 100] {
        let listeners = queue::Snapshot {
            time: at(seconds),
            interval: Duration::from_secs(1),
            rows: rows.to_vec(),
            lost_events: 0,
        };
        let cgroups = HashMap::from([(9, "/system.slice/apache2.service".to_owned())]);
        board.end_interval(Interval {
            listeners,
            connections: connections.to_vec(),
            moved: connections.iter().fold(Bytes::default(), |sum, live| sum.plus(live.moved)),
            left_out: 0,
            transitions: if seconds == 100 { vec![transition()] } else { Vec::new() },
            workers: workers.to_vec(),
            cgroups,
            itself: itself.clone(),
        });
    }
    board
}

pub(super) fn mover(pid: u32, comm: &str, moved: u64) -> Worker {
    let moved = Bytes { sent: moved, received: moved / 10 };
    Worker { process: process(pid, comm), open: 3, listens: Some(1), moved, moved_total: moved }
}

/// A listening socket of which little is known.
fn other_listener() -> queue::Row {
    let mut row = fixtures::unknown_row();
    row.queue.listener += 1;
    row
}

/// One server that does nothing.
pub(super) fn idle() -> Board {
    board(&[other_listener()], &[], &[mover(42, "nginx", 0)], &itself())
}

/// Apache with five workers serves five clients; three wait.
pub(super) fn founding() -> Board {
    let mut row = fixtures::row();
    row.verdict.since = Some(at(90));
    row.queue.netns = 7;
    let served = (1..=5).map(|number| Live {
        remote_addr: Some([10, 0, 0, 2].into()),
        ..live(number, 41 + number as u32, "apache2", 20_000 * number)
    });
    let waiting = (6..=8).map(|number| Live {
        waits: true,
        accepted: None,
        remote_addr: Some([10, 0, 0, 2].into()),
        remote_port: Some(49_995 + number as u16),
        ..live(number, 42, "apache2", 0)
    });
    let other = Live { local_port: 22, remote_addr: Some([192, 0, 2, 7].into()), ..live(9, 7, "sshd", 300) };
    let workers: Vec<Worker> =
        (42..47).map(|pid| mover(pid, "apache2", 20_000)).chain([mover(7, "sshd", 300)]).collect();
    let connections: Vec<Live> = served.chain(waiting).chain([other]).collect();
    board(&[row, other_listener()], &connections, &workers, &itself())
}

/// Overwatch has lost something, and is not attached as it would like.
pub(super) fn degraded() -> Board {
    let degradations = vec![[
        "fentry tier".to_owned(),
        "the kernel refuses fexit programs: EPERM".to_owned(),
        "each call costs five times as much".to_owned(),
    ]];
    let lost = vec![("ends of connections".to_owned(), 12_345), ("changes of state".to_owned(), 3)];
    let unattributed = Bytes { sent: 5_000_000, received: 1 };
    let maps = vec![("CONNECTIONS".to_owned(), 65_000, 65_536)];
    let itself = Itself {
        tier: "kprobe".to_owned(),
        looks: false,
        capabilities: "bytes full, life full, listeners none".to_owned(),
        blind: true,
        degradations,
        lost,
        unattributed,
        maps,
        skipped_runs: None,
        memory_bytes: None,
        on_cpu: None,
        ..itself()
    };
    let worker = Worker { listens: None, ..mover(42, "nginx", 5) };
    board(&[], &[live(1, 42, "nginx", 5)], &[worker], &itself)
}

/// Many connections.
pub(super) fn busy(connections: u64) -> Board {
    let all =
        (1..=connections).map(|number| live(number, 100 + (number % 40) as u32, "nginx", number * 7_919 % 100_003));
    let workers: Vec<Worker> = (100..140).map(|pid| mover(pid, "nginx", u64::from(pid) * 1_000)).collect();
    board(&[other_listener()], &all.collect::<Vec<_>>(), &workers, &itself())
}

/// Names that would like to steer the terminal, or are wide.
pub(super) fn hostile() -> Board {
    const HOSTILE: &str = "\x1b[2J\n\u{202e}\u{9b}";
    let mut row = fixtures::row();
    for holder in &mut row.queue.holders {
        holder.comm = HOSTILE.to_owned();
    }
    row.verdict.evidence = vec![format!("{HOSTILE} waits")];
    row.verdict.advice = vec![format!("end {HOSTILE}")];
    let connections = vec![live(1, 42, HOSTILE, 5), live(2, 43, "日本語サーバー", 7)];
    let mut board = board(&[row], &connections, &[mover(42, HOSTILE, 5), mover(43, "日本語サーバー", 7)], &itself());
    board.host = HOSTILE.to_owned();
    board.cgroups = HashMap::from([(9, format!("/{HOSTILE}"))]);
    board
}

/// All that have pictures.
pub(super) fn all() -> [(&'static str, Board); 4] {
    [("idle", idle()), ("founding", founding()), ("degraded", degraded()), ("busy", busy(100_000))]
}
