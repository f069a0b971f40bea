//! What is true of a listener at some instant, worked out from what its server and its clients did, and when.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::host::in_guest;
use super::listeners::WaitingClient;
use super::watch::Sight;
use crate::traffic::queue::step;
use crate::traffic::report::Step;

/// Between these two times, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Within {
    /// Not before.
    pub from: f64,
    /// Not after.
    pub until: f64,
}

impl Within {
    fn of(step: &Step) -> Self {
        Self { from: step.from, until: step.until }
    }
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Visit {
    /// The client's end.
    pub client: SocketAddr,
    /// When the client was connected.
    pub connected: Within,
    /// What it had sent then.
    pub bytes: u64,
    /// When the server accepted.
    pub accepted: Option<Within>,
    /// When the server closed.
    pub closed: Option<Within>,
    /// When the client closed or lost the connection.
    pub left: Option<Within>,
}

/// How far the instant of a row may be from the time that the row has: the kernel is asked shortly before the interval ends.
#[must_use]
pub fn slack() -> f64 {
    if in_guest() { 0.5 } else { 0.1 }
}

/// All connections that came to be. A client's address may be that of an earlier one.
#[must_use]
pub fn visits(server: &[Step], clients: &[Step]) -> Vec<Visit> {
    let mut all: Vec<Visit> = Vec::new();
    let mut by_client: BTreeMap<SocketAddr, Vec<usize>> = BTreeMap::new();
    let mut begun: BTreeMap<SocketAddr, f64> = BTreeMap::new();
    for step in clients {
        let Some(client) = step.client else { continue };
        let of_client = by_client.entry(client).or_default();
        match step.step.as_str() {
            step::CONNECTING => drop(begun.insert(client, step.from)),
            step::CONNECTED => {
                of_client.push(all.len());
                let connected = Within::of(step);
                all.push(Visit { client, connected, bytes: step.bytes, accepted: None, closed: None, left: None });
            }
            step::ENDED | step::GAVE_UP | step::FAILED => {
                if let Some(last) = of_client.last() {
                    all[*last].left.get_or_insert(Within::of(step));
                }
            }
            _ => {}
        }
    }
    for step in server {
        // The last of this address that was there by then; the server may accept before the client knows that it is connected.
        let Some(client) = step.client else { continue };
        let of_client = by_client.entry(client).or_default();
        let was_there = |visit: &&usize| all[**visit].connected.from <= step.until;
        let visit = of_client.iter().rev().find(was_there).copied();
        let unnoticed = begun.get(&client).filter(|_| visit.is_none());
        match (step.step.as_str(), visit, unnoticed) {
            (step::ACCEPTED, Some(visit), _) => all[visit].accepted = Some(Within::of(step)),
            (step::CLOSED, Some(visit), _) => all[visit].closed = Some(Within::of(step)),
            (step::ACCEPTED, None, Some(from)) => {
                // The client gave up before it knew that it was connected.
                of_client.push(all.len());
                let connected = Within { from: *from, until: step.until };
                let accepted = Some(Within::of(step));
                all.push(Visit { client, connected, bytes: 0, accepted, closed: None, left: None });
            }
            _ => {}
        }
    }
    all
}

/// Whether something had happened at an instant, as far as can be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Had {
    Yes,
    No,
    Perhaps,
}

fn had(what: Option<Within>, time: f64, slack: f64) -> Had {
    match what {
        Some(within) if within.until < time - slack => Had::Yes,
        Some(within) if within.from < time + slack => Had::Perhaps,
        _ => Had::No,
    }
}

impl Visit {
    fn waits(&self, time: f64, slack: f64) -> Had {
        both(had(Some(self.connected), time, slack), not(had(self.accepted, time, slack)))
    }

    fn is_served(&self, time: f64, slack: f64) -> Had {
        both(had(self.accepted, time, slack), not(had(self.closed, time, slack)))
    }
}

fn not(had: Had) -> Had {
    match had {
        Had::Yes => Had::No,
        Had::No => Had::Yes,
        Had::Perhaps => Had::Perhaps,
    }
}

fn both(one: Had, other: Had) -> Had {
    match (one, other) {
        (Had::No, _) | (_, Had::No) => Had::No,
        (Had::Yes, Had::Yes) => Had::Yes,
        _ => Had::Perhaps,
    }
}

/// What is wrong in a row of the listener that was visited.
///
/// `refused` says that clients may have been refused at the last ACK: such a client believes that it is connected.
#[must_use]
pub fn problems(sight: &Sight, visits: &[Visit], refused: bool) -> Vec<String> {
    let (time, row, slack) = (sight.time, &sight.row, slack());
    let mut problems = Vec::new();
    let mut counted = |what: &str, shown: u64, of: &dyn Fn(&Visit) -> Had, least: bool| {
        let sure = if least { visits.iter().filter(|visit| of(visit) == Had::Yes).count() as u64 } else { 0 };
        let most = visits.iter().filter(|visit| of(visit) != Had::No).count() as u64;
        if shown < sure || shown > most {
            problems.push(format!("{what} is {shown}, not {sure} to {most}"));
        }
    };
    counted("accept_queue", row.accept_queue, &|visit| visit.waits(time, slack), !refused);
    counted("waiting_total", row.waiting_total, &|visit| visit.waits(time, slack), !refused);
    counted("accepts_total", row.accepts_total, &|visit| had(visit.accepted, time, slack), true);
    if let Some(serving) = row.serving {
        counted("serving", serving, &|visit| visit.is_served(time, slack), true);
    }
    for shown in &row.waiting {
        let address = SocketAddr::new(shown.remote_addr, shown.remote_port);
        let Some(visit) = visits.iter().find(|visit| visit.client == address && visit.waits(time, slack) != Had::No)
        else {
            problems.push(format!("{address} does not wait"));
            continue;
        };
        // Who was refused at the last ACK is in the queue since a later one.
        let least = if refused { 0.0 } else { time - visit.connected.until - slack };
        let most = time - visit.connected.from + slack;
        match shown.waiting_seconds {
            Some(age) if age >= least && age <= most => {}
            age => problems.push(format!("{address} has waited {age:?} s, not {least:.3} to {most:.3}")),
        }
        if had(Some(visit.connected), time, slack) == Had::Yes && shown.unread_bytes != visit.bytes {
            problems.push(format!("{address}: {} bytes unread, not {}", shown.unread_bytes, visit.bytes));
        }
        match had(visit.left, time, slack) {
            Had::Yes if !shown.gone => problems.push(format!("{address} is gone")),
            Had::No if shown.gone => problems.push(format!("{address} is not gone")),
            _ => {}
        }
    }
    let all_shown = row.waiting.len() as u64 == row.waiting_total;
    for visit in visits.iter().filter(|visit| all_shown && !refused && visit.waits(time, slack) == Had::Yes) {
        let is_client = |shown: &WaitingClient| SocketAddr::new(shown.remote_addr, shown.remote_port) == visit.client;
        if !row.waiting.iter().any(is_client) {
            problems.push(format!("{} waits and is not shown", visit.client));
        }
    }
    let oldest = row.waiting.iter().filter_map(|shown| shown.waiting_seconds).reduce(f64::max);
    if all_shown && oldest != row.oldest_wait_seconds {
        problems.push(format!("oldest_wait_seconds is {:?}, not {oldest:?}", row.oldest_wait_seconds));
    }
    problems
}

/// Between what bounds a number of connections had waited that were accepted in an interval: the median is between the shortest and the
/// longest that may have been, and the longest of all is between the longest that certainly was and the longest that may have been.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WaitBounds {
    /// The shortest.
    pub shortest: f64,
    /// No connection that was certainly accepted in the interval waited longer.
    pub sure_longest: f64,
    /// No connection that may have been accepted in the interval waited longer.
    pub longest: f64,
}

/// The bounds for the interval of a sight; none where perhaps nothing was accepted.
#[must_use]
pub fn wait_bounds(sight: &Sight, visits: &[Visit]) -> Option<WaitBounds> {
    let (begin, end, slack) = (sight.time - sight.seconds, sight.time, slack());
    let mut bounds: Option<WaitBounds> = None;
    for visit in visits {
        let Some(accepted) = visit.accepted else { continue };
        let accepted_in = both(not(had(visit.accepted, begin, slack)), had(visit.accepted, end, slack));
        if accepted_in == Had::No {
            continue;
        }
        let least = (accepted.from - visit.connected.until).max(0.0);
        let most = (accepted.until - visit.connected.from).max(0.0);
        let sure = if accepted_in == Had::Yes { least } else { 0.0 };
        let so_far = bounds.unwrap_or(WaitBounds { shortest: least, sure_longest: sure, longest: most });
        bounds = Some(WaitBounds {
            shortest: so_far.shortest.min(least),
            sure_longest: so_far.sure_longest.max(sure),
            longest: so_far.longest.max(most),
        });
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::listeners::ListenerRow;

    const SERVER: &str = "127.0.0.1:80";

    fn step(name: &str, client: &str, time: f64, bytes: u64) -> Step {
        Step {
            step: name.to_owned(),
            pid: 1,
            server: SERVER.parse().unwrap(),
            client: Some(client.parse().unwrap()),
            from: time - 0.01,
            until: time,
            bytes,
            inode: None,
            error: None,
        }
    }

    /// One has been accepted, one waits, one waits and is gone.
    fn story() -> Vec<Visit> {
        let [one, two, three] = ["127.0.0.1:1001", "127.0.0.1:1002", "127.0.0.1:1003"];
        let server = [step(step::ACCEPTED, one, 12.0, 0)];
        let clients = [
            step(step::CONNECTED, one, 10.0, 5),
            step(step::CONNECTED, two, 11.0, 7),
            step(step::CONNECTED, three, 12.0, 9),
            step(step::GAVE_UP, three, 14.0, 0),
        ];
        visits(&server, &clients)
    }

    #[test]
    fn a_clients_address_may_come_again() {
        let client = "127.0.0.1:1001";
        let names = [(step::ACCEPTED, 10.5), (step::CLOSED, 11.0), (step::ACCEPTED, 20.5)];
        let server = names.map(|(name, time)| step(name, client, time, 0));
        let names = [(step::CONNECTED, 10.0), (step::ENDED, 11.0), (step::CONNECTED, 20.0), (step::ENDED, 22.0)];
        let clients = names.map(|(name, time)| step(name, client, time, 5));
        let times = |within: Option<Within>| within.map(|within| within.until);
        let visits = visits(&server, &clients);
        let told: Vec<_> = visits.iter().map(|visit| [visit.accepted, visit.closed, visit.left].map(times)).collect();
        assert_eq!(told, [[Some(10.5), Some(11.0), Some(11.0)], [Some(20.5), None, Some(22.0)]]);
    }

    #[test]
    fn a_client_may_give_up_before_it_knows_that_it_is_connected() {
        let client = "127.0.0.1:1001";
        let server = [step(step::ACCEPTED, client, 12.5, 0), step(step::CLOSED, client, 13.0, 0)];
        let clients = [step(step::CONNECTING, client, 10.0, 0), step(step::GAVE_UP, client, 12.4, 0)];
        let visits = visits(&server, &clients);
        let [visit] = visits.as_slice() else { panic!("{visits:?}") };
        assert_eq!((visit.connected.from, visit.connected.until), (9.99, 12.5));
        assert_eq!((visit.accepted.map(|at| at.until), visit.closed.map(|at| at.until)), (Some(12.5), Some(13.0)));
    }

    fn sight(time: f64, queue: u64, waiting: &str) -> Sight {
        let text = format!(
            r#"{{"netns":1,"cgroup":null,"local_addr":"127.0.0.1","local_port":80,"processes":[],"inode":5,"backlog_limit":9,
            "backlog_origin":null,"somaxconn":null,"accept_queue":{queue},"accept_queue_peak":{queue},"syn_queue":0,"arrivals":0,
            "accepts":0,"accepts_total":1,"overflows":0,"overflows_total":0,"overflows_syn":0,"overflows_ack":0,
            "overflows_exact":true,"drops":0,"drops_total":0,"syn_cookies":null,"syn_queue_overflows":null,"serving":1,
            "serving_ceiling":null,"waiting":{waiting},"waiting_total":{queue},"oldest_wait_seconds":9.0,
            "accept_wait_seconds":null,"verdict":"ok","cause":"none","evidence":[],"advice":[],"since":null}}"#
        );
        let row: ListenerRow = serde_json::from_str(&text).unwrap();
        Sight { time, seconds: 1.0, row }
    }

    fn client(port: u16, waited: f64, unread: u64, gone: bool) -> String {
        format!(
            r#"{{"remote_addr":"127.0.0.1","remote_port":{port},"waiting_seconds":{waited},"unread_bytes":{unread},"gone":{gone}}}"#
        )
    }

    #[test]
    fn a_row_is_held_against_what_both_ends_did() {
        let visits = story();
        let good = [client(1002, 9.0, 7, false), client(1003, 8.0, 9, true)];
        let list = |clients: &[&str]| format!("[{}]", clients.join(","));
        assert_eq!(problems(&sight(20.0, 2, &list(&[&good[0], &good[1]])), &visits, false), Vec::<String>::new());
        let cases = [
            (1, list(&[&good[0]]), "accept_queue is 1"),
            (2, list(&[&good[0], &client(1003, 8.0, 9, false)]), "is gone"),
            (2, list(&[&client(1002, 9.0, 7, true), &good[1]]), "is not gone"),
            (2, list(&[&client(1002, 7.5, 7, false), &good[1]]), "has waited"),
            (2, list(&[&client(1002, 9.0, 6, false), &good[1]]), "bytes unread"),
            (2, list(&[&client(1001, 9.0, 5, false), &good[1]]), "does not wait"),
        ];
        for (queue, waiting, expected) in cases {
            let found = problems(&sight(20.0, queue, &waiting), &visits, false);
            assert!(found.iter().any(|problem| problem.contains(expected)), "{expected}: {found:?}");
        }
        // Who was refused at the last ACK does not know: fewer may wait, not others and not more.
        assert_eq!(problems(&sight(20.0, 1, &list(&[&good[0]])), &visits, true), Vec::<String>::new());
        assert!(!problems(&sight(20.0, 3, "[]"), &visits, true).is_empty());
        // And one that does wait may have waited less, but not more.
        for (waited, refused, is_wrong) in [(1.0, true, false), (1.0, false, true), (12.0, true, true)] {
            let waiting = list(&[&client(1002, waited, 7, false), &good[1]]);
            let found = problems(&sight(20.0, 2, &waiting), &visits, refused);
            assert_eq!(found.iter().any(|problem| problem.contains("has waited")), is_wrong, "{waited}: {found:?}");
        }
    }

    #[test]
    fn waits_lie_between_what_both_ends_saw() {
        let visits = story();
        let bounds = wait_bounds(&sight(12.5, 0, "[]"), &visits).unwrap();
        let near = |one: f64, other: f64| (one - other).abs() < 1e-9;
        assert!(
            near(bounds.shortest, 1.99) && near(bounds.sure_longest, 1.99) && near(bounds.longest, 2.01),
            "{bounds:?}"
        );
        // At the very end of an interval, perhaps in the next.
        let bounds = wait_bounds(&sight(12.05, 0, "[]"), &visits).unwrap();
        assert!(near(bounds.sure_longest, 0.0) && near(bounds.longest, 2.01), "{bounds:?}");
        assert_eq!(wait_bounds(&sight(14.0, 0, "[]"), &visits), None);
    }
}
