//! The audit: what is really there, after the kernel has skipped programs that show the beginning and end of connections.
//!
//! The kernel's own walk makes entries for sockets that have none and marks all that it finds. What was there before the walk began and
//! is not marked has gone without our knowing. A socket in CLOSE is in none of the kernel's tables, so nothing can be said of those.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use overwatch_common::connection::{Connection, flag, state};

use super::{
    clocks::monotonic_ns,
    session::{Session, SessionError, found},
};

/// Walking costs the length of the kernel's tables, in each network namespace.
const EVERY: Duration = Duration::from_secs(5);
/// A socket that connects has an entry a moment before it is in the kernel's tables.
const GRACE: Duration = Duration::from_millis(100);

/// Which audits there were.
#[derive(Debug, Default)]
pub(super) struct Audits {
    number: u16,
    last: Option<Instant>,
    /// Skipped runs that they have made good.
    skips: u64,
}

impl Audits {
    /// True when something was skipped since the last one, and that is long enough ago.
    pub(super) fn is_due(&self, skips: u64, last_sample: bool) -> bool {
        skips > self.skips && (last_sample || self.last.is_none_or(|last| last.elapsed() >= EVERY))
    }
}

impl Session {
    /// Looks for what is there, and ends what is not.
    pub(super) fn audit(&mut self, skips: u64) -> Result<(), SessionError> {
        let number = self.audits.number.wrapping_add(1).max(1);
        self.audits = Audits { number, last: Some(Instant::now()), skips };
        self.maps.set_audit(number)?;
        let latest_ns = monotonic_ns().saturating_sub(GRACE.as_nanos() as u64);
        let walked = self.seed.audit(&mut self.ebpf, &self.root)?;
        let gone = |connection: &Connection| is_gone(connection, number, latest_ns, &walked);
        let entries = self.maps.connections.iter().collect::<Result<Vec<_>, _>>()?;
        for (sock, _) in entries.into_iter().filter(|(_, connection)| gone(connection)) {
            // Once more, since time has passed.
            let Some(mut connection) = found(self.maps.connections.get(&sock, 0))?.filter(&gone) else {
                continue;
            };
            self.maps.connections.remove(&sock)?;
            connection.state = state::CLOSE;
            self.end(sock, connection)?;
        }
        let listeners = self.maps.listeners.iter().collect::<Result<Vec<_>, _>>()?;
        for (sock, listener) in listeners {
            if listener.audit != number && listener.since_ns < latest_ns && walked.contains(&listener.netns) {
                self.maps.listeners.remove(&sock)?;
            }
        }
        Ok(())
    }

    /// Connections in CLOSE whose sockets live on, or ended in a run that was skipped: nothing can follow once we have gone.
    pub(super) fn end_closed(&mut self) -> Result<(), SessionError> {
        let pending = self.pending.closed.iter();
        let ended: HashSet<_> = pending.map(|closed| (closed.sock, closed.connection.created_ns)).collect();
        for (sock, connection) in self.maps.connections.iter().collect::<Result<Vec<_>, _>>()? {
            let closed = connection.flags & (flag::CLOSED | flag::HANDED_OVER) == flag::CLOSED;
            // Its record may have come while the entry was still being taken out.
            if closed && !ended.contains(&(sock, connection.created_ns)) {
                self.end(sock, connection)?;
            }
        }
        Ok(())
    }
}

fn is_gone(connection: &Connection, audit: u16, latest_ns: u64, walked: &HashSet<u32>) -> bool {
    connection.audit != audit
        && connection.created_ns.max(connection.state_ns) < latest_ns
        && connection.state != state::CLOSE
        && walked.contains(&connection.netns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::connection;

    #[test]
    fn gone_is_what_was_there_before_the_walk_and_was_not_found() {
        let of = |audit, created_ns, state_ns, state, netns| Connection {
            audit,
            created_ns,
            state_ns,
            state,
            netns,
            ..connection(1, 0, 0)
        };
        for (connection, gone) in [
            (of(1, 10, 0, 1, 7), true),
            (of(2, 10, 0, 1, 7), false),
            // Younger than the walk, or changed since.
            (of(1, 100, 0, 1, 7), false),
            (of(1, 10, 100, 1, 7), false),
            // In CLOSE the kernel's walk does not find it.
            (of(1, 10, 0, 7, 7), false),
            // In a namespace that could not be entered.
            (of(1, 10, 0, 1, 8), false),
        ] {
            assert_eq!(is_gone(&connection, 2, 100, &HashSet::from([7])), gone, "{connection:?}");
        }
    }

    #[test]
    fn audits_follow_skipped_runs_and_not_too_often() {
        let never = Audits::default();
        let just_now = Audits { number: 1, last: Some(Instant::now()), skips: 5 };
        for (audits, skips, last_sample, due) in [
            (&never, 0, false, false),
            (&never, 0, true, false),
            (&never, 1, false, true),
            (&just_now, 5, true, false),
            (&just_now, 6, false, false),
            (&just_now, 6, true, true),
        ] {
            assert_eq!(audits.is_due(skips, last_sample), due, "{audits:?}, {skips}, {last_sample}");
        }
    }
}
