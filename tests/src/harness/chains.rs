//! Holds the lines of `overwatch states` of one connection against each other.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::lines::StateLine;
use super::problems::Problems;

/// Times are printed in millionths of a second, and each batch of lines takes the clocks' difference anew.
const CLOCKS: f64 = 0.001;

/// The transitions of one connection or listening socket, in order.
#[derive(Clone, Debug)]
pub struct Chain<'a>(Vec<&'a StateLine>);

/// One end and the other: a namespace, an address and a port, and where the other end is if there is one.
pub type Ends = (u64, Option<(IpAddr, u16)>, Option<(IpAddr, u16)>);

/// The chains among the lines, in the order of their first lines.
#[must_use]
pub fn chains<'a>(lines: impl IntoIterator<Item = &'a StateLine>) -> Vec<Chain<'a>> {
    let mut found: Vec<Chain<'a>> = Vec::new();
    let mut places: BTreeMap<u64, usize> = BTreeMap::new();
    for line in lines {
        let place = *places.entry(line.connection).or_insert(found.len());
        match found.get_mut(place) {
            Some(chain) => chain.0.push(line),
            None => found.push(Chain(vec![line])),
        }
    }
    found
}

fn ends(line: &StateLine) -> Ends {
    (line.netns, line.local_addr.zip(line.local_port), line.remote_addr.zip(line.remote_port))
}

impl<'a> Chain<'a> {
    /// Its lines.
    #[must_use]
    pub fn lines(&self) -> &[&'a StateLine] {
        &self.0
    }

    /// What was known of its ends in the end.
    #[must_use]
    pub fn ends(&self) -> Ends {
        self.0.last().map_or((0, None, None), |line| ends(line))
    }

    /// Whether it is a listening socket's.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.0.iter().all(|line| line.role.is_none() && line.remote_port.is_none())
            && self.0.iter().any(|line| [line.old_state.as_str(), line.new_state.as_str()].contains(&"LISTEN"))
    }

    /// The states that it went through.
    #[must_use]
    pub fn states(&self) -> Vec<&'a str> {
        let first = self.0.first().map(|line| line.old_state.as_str());
        first.into_iter().chain(self.0.iter().map(|line| line.new_state.as_str())).collect()
    }

    /// Whether it is of a child that the kernel made twice, when two packets completed one handshake at a time, and threw away
    /// (`inet_ehash_nolisten`): it comes and goes, and both ends know of one connection only.
    #[must_use]
    pub fn is_twin(&self) -> bool {
        self.states() == ["LISTEN", "SYN_RECV", "CLOSE"]
    }

    /// How long it was in that state, if it was and it is known.
    #[must_use]
    pub fn seconds_in(&self, state: &str) -> Option<f64> {
        self.0.iter().find(|line| line.old_state == state)?.old_state_seconds
    }

    /// What does not hold among its lines.
    #[must_use]
    pub fn problems(&self) -> Problems {
        let mut problems = Problems::default();
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else {
            return problems;
        };
        if !["CLOSE", "LISTEN"].contains(&first.old_state.as_str()) {
            problems.missing(format!("the beginning: {} is the first old state", first.old_state));
        }
        if last.new_state != "CLOSE" {
            problems.missing(format!("the end: {} is the last new state", last.new_state));
        }
        let mut whole = true;
        for pair in self.0.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            problems.must(before.time <= after.time, || format!("{before:?} after {after:?}"));
            problems.must(before.new_state != "CLOSE", || format!("{after:?} after the end"));
            if before.new_state != after.old_state {
                problems.missing(format!("a transition from {} to {}", before.new_state, after.old_state));
                whole = false;
            }
            whole &= after.old_state_seconds.is_some();
            if after.old_state_seconds.is_none() {
                problems.missing(format!("the time in {}", after.old_state));
            }
            self.constant(before, after, &mut problems);
        }
        let sum: f64 = self.0.iter().skip(1).filter_map(|line| line.old_state_seconds).sum();
        let between = last.time - first.time;
        problems.must(!whole || (sum - between).abs() < CLOCKS, || {
            format!("{sum} seconds in its states, {between} between its first line and its last")
        });
        problems
    }

    /// What is known once stays so.
    fn constant(&self, before: &StateLine, after: &StateLine, problems: &mut Problems) {
        let (old, new) = (ends(before), ends(after));
        let same = old.0 == new.0 && (old.1.is_none() || old.1 == new.1) && (old.2.is_none() || old.2 == new.2);
        problems.must(same, || format!("{new:?} after {old:?}"));
        problems.must(before.role.is_none() || before.role == after.role, || {
            format!("role {:?} after {:?}", after.role, before.role)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::problems::Kind;

    fn lines() -> Vec<StateLine> {
        let text = r#"{"time":"1970-01-01T00:00:01Z","connection":4,"netns":2,"pid":7,"comm":"ow-cli","cgroup":null,
            "local_addr":"10.0.0.1","local_port":80,"remote_addr":"10.0.0.2","remote_port":90,"role":"client",
            "old_state":"CLOSE","new_state":"SYN_SENT","old_state_seconds":null}"#;
        let first: StateLine = serde_json::from_str(text).unwrap();
        let next = |time: f64, old: &str, new: &str| StateLine {
            time,
            old_state: old.to_owned(),
            new_state: new.to_owned(),
            old_state_seconds: Some(1.0),
            ..first.clone()
        };
        let more = [next(2.0, "SYN_SENT", "ESTABLISHED"), next(3.0, "ESTABLISHED", "CLOSE")];
        [first].into_iter().chain(more).collect()
    }

    #[test]
    fn a_chain_is_what_has_one_number() {
        let mut all = lines();
        all.insert(1, StateLine { connection: 5, ..all[0].clone() });
        let found = chains(&all);
        assert_eq!(found.iter().map(|chain| chain.lines().len()).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(found[0].states(), ["CLOSE", "SYN_SENT", "ESTABLISHED", "CLOSE"]);
        assert_eq!(found[0].seconds_in("SYN_SENT"), Some(1.0));
        assert_eq!(found[0].problems(), Problems::default());
    }

    #[test]
    fn what_does_not_fit_is_found() {
        type Change = fn(&mut Vec<StateLine>);
        let cases: [(Change, Kind); 9] = [
            (|lines| drop(lines.remove(0)), Kind::Missing),
            (|lines| drop(lines.remove(1)), Kind::Missing),
            (|lines| drop(lines.remove(2)), Kind::Missing),
            (|lines| lines[1].old_state_seconds = None, Kind::Missing),
            (|lines| lines[1].old_state_seconds = Some(2.0), Kind::Wrong),
            (|lines| lines[2].remote_port = Some(91), Kind::Wrong),
            (|lines| lines[2].netns = 3, Kind::Wrong),
            (|lines| lines[2].role = None, Kind::Wrong),
            (|lines| lines[1].time = 4.0, Kind::Wrong),
        ];
        for (index, (change, kind)) in cases.into_iter().enumerate() {
            let mut changed = lines();
            change(&mut changed);
            let found = chains(&changed);
            let problems = found[0].problems();
            assert!(problems.count(kind) == 1 && problems.len() == 1, "number {index}: {problems:?}");
        }
    }
}
