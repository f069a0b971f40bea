//! Holds the lines of `overwatch life` against what both ends of the connections recorded themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::host::in_guest;
use super::lines::LifeLine;
use super::problems::Problems;
use crate::traffic::report::{Fate, Life};

/// How far times may be apart: the ends look at the clock before and after their calls, and may wait for a CPU between.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Never more than this, in seconds.
    pub most: f64,
    /// Mostly not more than this: a busy host makes the ends themselves wait.
    pub usual: f64,
}

/// One time of three may be further off than usual.
const RARELY: usize = 3;

impl Tolerance {
    /// The one for this host.
    #[must_use]
    pub fn here() -> Self {
        if in_guest() { Self { most: 5.0, usual: 0.5 } } else { Self { most: 0.5, usual: 0.005 } }
    }
}

type Key = (u64, IpAddr, u16, IpAddr, u16);

fn key_of_life(life: &Life) -> Key {
    (life.netns, life.local_addr, life.local_port, life.remote_addr, life.remote_port)
}

/// The same for a line; an address or port that is not known is that of nowhere.
fn key_of_line(line: &LifeLine) -> Key {
    let nowhere = IpAddr::from([0, 0, 0, 0]);
    (
        line.netns,
        line.local_addr.unwrap_or(nowhere),
        line.local_port.unwrap_or_default(),
        line.remote_addr.unwrap_or(nowhere),
        line.remote_port.unwrap_or_default(),
    )
}

/// The lives of each socket address, in order: the kernel uses a port again.
fn in_order<'a, T>(all: impl Iterator<Item = (Key, f64, &'a T)>) -> BTreeMap<Key, Vec<&'a T>> {
    let mut found: BTreeMap<Key, Vec<(f64, &T)>> = BTreeMap::new();
    for (key, time, one) in all {
        found.entry(key).or_default().push((time, one));
    }
    let sorted = |mut some: Vec<(f64, &'a T)>| {
        some.sort_by(|a, b| a.0.total_cmp(&b.0));
        some.into_iter().map(|(_, one)| one).collect()
    };
    found.into_iter().map(|(key, some)| (key, sorted(some))).collect()
}

/// When the other ends of the servers' connections began to connect, by both ends' addresses and in order.
struct Beginnings(BTreeMap<Key, Vec<f64>>);

impl Beginnings {
    fn of(lives: &[Life]) -> Self {
        // The other end is in a namespace of its own.
        let seen_from_server = |life: &Life| (0, life.remote_addr, life.remote_port, life.local_addr, life.local_port);
        let with_beginning = lives.iter().filter(|life| life.opened.is_some());
        let sorted = in_order(with_beginning.map(|life| (seen_from_server(life), life.closed, life)));
        let opened = |some: Vec<&Life>| some.iter().filter_map(|life| life.opened).collect();
        Self(sorted.into_iter().map(|(key, some)| (key, opened(some))).collect())
    }

    fn of_server(&self, life: &Life, index: usize) -> Option<f64> {
        let (_, local, local_port, remote, remote_port) = key_of_life(life);
        self.0.get(&(0, local, local_port, remote, remote_port))?.get(index).copied()
    }
}

/// What is wrong with the lines of the namespaces in which the lives were. Other lines are not judged.
#[must_use]
pub fn judge(lines: &[LifeLine], lives: &[Life], tolerance: Tolerance) -> Problems {
    let places: BTreeSet<u64> = lives.iter().map(|life| life.netns).collect();
    let ours = lines.iter().filter(|line| places.contains(&line.netns));
    let mut shown = in_order(ours.map(|line| (key_of_line(line), line.time, line)));
    let recorded = in_order(lives.iter().map(|life| (key_of_life(life), life.closed, life)));
    let beginnings = Beginnings::of(lives);
    let mut problems = Problems::default();
    let mut off = Vec::new();
    for (key, lives) in recorded {
        let lines = shown.remove(&key).unwrap_or_default();
        if lines.len() != lives.len() {
            let text = format!("{}: {} lines for {} lives", place(lives[0]), lines.len(), lives.len());
            // Nobody knows which line is whose.
            problems.must(lines.len() < lives.len(), || text.clone());
            (lines.len()..lives.len()).for_each(|_| problems.missing(text.clone()));
            continue;
        }
        for (index, (line, life)) in lines.into_iter().zip(lives).enumerate() {
            let begun = life.opened.or_else(|| beginnings.of_server(life, index));
            let mut found = facts(line, life);
            found.append(times(line, life, begun, tolerance, &mut off));
            problems.of_one(&place(life), found);
        }
    }
    for line in shown.values().flatten() {
        problems.wrong(format!("nobody's connection: {line:?}"));
    }
    let unusual = off.iter().filter(|off| **off > tolerance.usual).count();
    problems.must(unusual <= off.len() / RARELY, || {
        format!("{unusual} of {} times are more than {} s off", off.len(), tolerance.usual)
    });
    problems
}

fn place(life: &Life) -> String {
    format!(
        "{} number {} {} {}:{} -> {}:{}",
        life.life, life.number, life.role, life.local_addr, life.local_port, life.remote_addr, life.remote_port
    )
}

/// What must be the same.
fn facts(line: &LifeLine, life: &Life) -> Problems {
    let mut problems = Problems::default();
    problems.must_be("role", line.role.as_ref(), &life.role);
    // Before anybody accepts, a connection is nobody's; or the listener's, where that is known.
    let nobody = life.fates.iter().all(|fate| fate.ended == "never_accepted") && line.pid.is_none();
    if !nobody {
        problems.must_be("pid", line.pid.as_ref(), &life.pid);
        problems.must_be("comm", line.comm.as_ref(), &life.comm);
    }
    ending(line, life, &mut problems);
    bytes(line, life, &mut problems);
    if life.unread > 0 || line.unread_bytes.is_some() {
        problems.must_be("unread bytes", line.unread_bytes.as_ref(), &life.unread);
    }
    if line.partial {
        problems.missing("the beginning");
    }
    if life.role == "server" {
        problems.must_be("listener", line.listener_addr.as_ref(), &life.local_addr);
        problems.must_be("listener port", line.listener_port.as_ref(), &life.local_port);
    } else {
        problems.must(line.listener_addr.is_none() && line.listener_port.is_none(), || "a listener".to_owned());
    }
    problems
}

fn ending(line: &LifeLine, life: &Life, problems: &mut Problems) {
    let fits = |fate: &Fate| line.ended.as_ref() == Some(&fate.ended) && line.error == fate.error;
    // Linux treats a socket for which it sends a RST as if the peer's had come. Only the tracepoint at the sending tells, and a run of the
    // program there may have been left out.
    let by_us = |fate: &Fate| fate.ended == "reset_by_us" && fate.error == line.error;
    if line.ended.as_deref() == Some("reset_by_peer") && !life.fates.iter().any(fits) && life.fates.iter().any(by_us) {
        problems.missing("who sent the reset");
    } else if line.ended.is_none() {
        problems.missing(format!("how it ended, expected {:?}", life.fates));
    } else {
        problems.must(life.fates.iter().any(fits), || {
            format!("ended {:?} with {:?}, not as {:?}", line.ended, line.error, life.fates)
        });
    }
}

fn bytes(line: &LifeLine, life: &Life, problems: &mut Problems) {
    let reconciled = (line.reconciled_sent_bytes, line.reconciled_received_bytes);
    let pairs = [
        ("sent", line.sent_bytes, life.sent, reconciled.0, line.kernel_sent_bytes),
        ("received", line.received_bytes, life.received, reconciled.1, line.kernel_received_bytes),
    ];
    for (what, shown, moved, reconciled, kernel) in pairs {
        let text = || format!("{shown} bytes {what}, {moved} moved");
        // They are made good from the kernel's counts, if there are such for the whole of its life.
        let excused = shown < moved && (line.partial || kernel.is_none());
        if excused {
            problems.missing(text());
        } else {
            problems.must(shown == moved, text);
        }
        problems.must(reconciled <= shown, || format!("{reconciled} of {shown} bytes {what} made good"));
        match kernel {
            Some(counted) if life.exact && line.partial && counted < moved => {
                problems.missing(format!("the kernel's bytes {what} from the beginning"));
            }
            Some(counted) => problems.must(!life.exact || counted == moved, || {
                format!("the kernel counts {counted} bytes {what}, the ends {moved}")
            }),
            None if life.exact => problems.missing(format!("the kernel's bytes {what}")),
            None => {}
        }
    }
}

/// What must be nearly the same. How far each is off goes to `off`.
fn times(line: &LifeLine, life: &Life, begun: Option<f64>, tolerance: Tolerance, off: &mut Vec<f64>) -> Problems {
    let mut problems = Problems::default();
    let mut near = |what: &str, shown: Option<f64>, recorded: Option<f64>| {
        let Some(recorded) = recorded else { return };
        let Some(shown) = shown else {
            problems.missing(what);
            return;
        };
        let difference = (shown - recorded).abs();
        off.push(difference);
        problems.must(difference <= tolerance.most, || format!("{what} is {shown:.6}, but {recorded:.6} was recorded"));
    };
    near("time", Some(line.time), Some(life.closed));
    near("duration", line.duration_seconds, begun.map(|begun| life.closed - begun));
    near("established time", line.established_time, life.established);
    if life.role == "client" {
        near("syn time", line.syn_time, life.opened);
        let connected = life.established.unwrap_or(life.closed);
        near("connect time", line.connect_seconds, life.opened.map(|opened| connected - opened));
    } else {
        near("accepted time", line.accepted_time, life.established);
        let waited = begun.zip(life.established).map(|(begun, accepted)| accepted - begun);
        near("accept wait", line.accept_wait_seconds, waited);
    }
    let taken = [line.duration_seconds, line.connect_seconds, line.handshake_seconds, line.accept_wait_seconds];
    for seconds in taken.into_iter().flatten() {
        problems.must(seconds >= 0.0, || format!("took {seconds} seconds"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::problems::Kind;

    const TOLERANCE: Tolerance = Tolerance { most: 0.5, usual: 0.01 };

    fn lives() -> Vec<Life> {
        let client = r#"{"life":"client_closes_first","number":3,"role":"client","pid":7,"comm":"ow-cli","netns":1,
            "local_addr":"10.0.0.1","local_port":5,"remote_addr":"10.0.0.2","remote_port":6,"sent":10,"received":4,
            "unread":0,"opened":100.0,"established":100.1,"closed":102.0,"fates":[{"ended":"closed_by_us","error":null}],
            "exact":true}"#;
        let client: Life = serde_json::from_str(client).unwrap();
        let mut server = client.clone();
        (server.role, server.pid, server.netns, server.comm) = ("server".to_owned(), 8, 2, "ow-srv".to_owned());
        (server.local_addr, server.remote_addr) = (client.remote_addr, client.local_addr);
        (server.local_port, server.remote_port, server.sent, server.received) = (6, 5, 4, 10);
        (server.opened, server.fates[0].ended) = (None, "closed_by_peer".to_owned());
        vec![client, server]
    }

    fn lines() -> Vec<LifeLine> {
        let client = r#"{"time":"1970-01-01T00:01:42Z","netns":1,"pid":7,"comm":"ow-cli","cgroup":null,
            "local_addr":"10.0.0.1","local_port":5,"remote_addr":"10.0.0.2","remote_port":6,"role":"client",
            "listener_addr":null,"listener_port":null,"syn_time":"1970-01-01T00:01:40Z",
            "established_time":"1970-01-01T00:01:40.1Z","accepted_time":null,"duration_seconds":2.001,
            "connect_seconds":0.1,"handshake_seconds":null,"accept_wait_seconds":null,"sent_bytes":10,
            "received_bytes":4,"reconciled_sent_bytes":0,"reconciled_received_bytes":0,"kernel_sent_bytes":10,
            "kernel_received_bytes":4,"unread_bytes":0,"segments_sent":5,"segments_received":4,"retransmits":0,
            "lost_segments":0,"smoothed_rtt_seconds":0.0001,"ended":"closed_by_us","error":null,"partial":false}"#;
        let client: LifeLine = serde_json::from_str(client).unwrap();
        let mut server = client.clone();
        (server.role, server.pid, server.netns) = (Some("server".to_owned()), Some(8), 2);
        (server.comm, server.ended) = (Some("ow-srv".to_owned()), Some("closed_by_peer".to_owned()));
        (server.local_addr, server.remote_addr) = (client.remote_addr, client.local_addr);
        (server.local_port, server.remote_port) = (client.remote_port, client.local_port);
        (server.listener_addr, server.listener_port) = (server.local_addr, server.local_port);
        (server.sent_bytes, server.received_bytes) = (4, 10);
        (server.kernel_sent_bytes, server.kernel_received_bytes) = (Some(4), Some(10));
        (server.connect_seconds, server.accept_wait_seconds) = (None, Some(0.1));
        server.accepted_time = server.established_time;
        vec![client, server]
    }

    #[test]
    fn what_is_right_passes() {
        assert_eq!(judge(&lines(), &lives(), TOLERANCE), Problems::default());
        let mut elsewhere = lines();
        elsewhere.push(LifeLine { netns: 99, ..lines().remove(0) });
        assert_eq!(judge(&elsewhere, &lives(), TOLERANCE).len(), 0, "other namespaces are not judged");
    }

    #[test]
    fn what_is_wrong_does_not() {
        let wrong: [fn(&mut LifeLine); 11] = [
            |line| line.sent_bytes = 9,
            |line| line.kernel_received_bytes = Some(3),
            |line| line.unread_bytes = Some(1),
            |line| line.pid = Some(9),
            |line| line.ended = Some("reset_by_us".to_owned()),
            |line| line.error = Some("ECONNRESET".to_owned()),
            |line| line.listener_port = Some(7),
            |line| line.local_port = Some(1),
            |line| line.duration_seconds = Some(1.0),
            |line| line.role = Some("neither".to_owned()),
            |line| line.comm = Some("ow-thread".to_owned()),
        ];
        for which in 0..2 {
            for (index, change) in wrong.iter().enumerate() {
                let mut changed = lines();
                change(&mut changed[which]);
                let problems = judge(&changed, &lives(), TOLERANCE);
                assert!(problems.count(Kind::Wrong) > 0, "number {index}, line {which}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_known_as_such() {
        let missing: [fn(&mut LifeLine); 8] = [
            |line| line.kernel_received_bytes = None,
            |line| (line.pid, line.comm) = (None, None),
            |line| line.role = None,
            |line| line.ended = None,
            |line| line.partial = true,
            |line| (line.partial, line.sent_bytes) = (true, 0),
            |line| line.duration_seconds = None,
            |line| line.established_time = None,
        ];
        for which in 0..2 {
            for (index, change) in missing.iter().enumerate() {
                let mut changed = lines();
                change(&mut changed[which]);
                let problems = judge(&changed, &lives(), TOLERANCE);
                let counts = (problems.count(Kind::Missing), problems.count(Kind::Wrong));
                assert_eq!(counts, (1, 0), "number {index}, line {which}: {problems:?}");
            }
        }
    }

    #[test]
    fn none_is_missing_and_none_double() {
        let mut double = lines();
        double.push(double[1].clone());
        assert_eq!(judge(&double, &lives(), TOLERANCE).len(), 1);
        assert_eq!(judge(&lines()[..1], &lives(), TOLERANCE).len(), 1);
        let mut twice = lives();
        twice.extend(lives());
        assert_eq!(judge(&double, &twice, TOLERANCE).len(), 1, "the server's twice, the client's once");
    }

    #[test]
    fn a_third_of_the_times_may_be_off_and_none_too_far() {
        let mut late = lines();
        late[0].time += 0.1;
        assert_eq!(judge(&late, &lives(), TOLERANCE).len(), 0, "one of ten times");
        late[0].established_time = late[0].established_time.map(|time| time + 0.1);
        late[0].duration_seconds = late[0].duration_seconds.map(|seconds| seconds + 0.1);
        late[1].time += 0.1;
        late[1].established_time = late[1].established_time.map(|time| time + 0.1);
        assert_eq!(judge(&late, &lives(), TOLERANCE).len(), 1, "five of ten times");
        let mut late = lines();
        late[0].time += 1.1;
        assert_eq!(judge(&late, &lives(), TOLERANCE).len(), 1, "too far off");
    }
}
