//! From how many half-open connections on the kernel takes a SYN queue for full: where they are as many as its limit, or only beyond it. Which,
//! is in no kernel's type information, and stable series took the change along (`inet_csk_reqsk_queue_is_full`,
//! include/net/inet_connection_sock.h). The namespaces' own counters tell.

use overwatch_common::connection::Listener;

/// What hooks and kernels have counted since overwatch began, in intervals in which both can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SynQueueLimit {
    by_kernel: u64,
    beyond: u64,
    at_limit: u64,
}

/// SYNs that found a full queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Full {
    /// Answered with a cookie.
    pub(super) cookies: u64,
    /// Refused.
    pub(super) refused: u64,
}

impl SynQueueLimit {
    /// Takes in one namespace's interval: what its kernel has counted, those beyond the limit, and those at it.
    pub(super) fn note(&mut self, by_kernel: u64, beyond: u64, at_limit: u64) {
        self.by_kernel += by_kernel;
        self.beyond += beyond;
        self.at_limit += at_limit;
    }

    /// True where a queue is full that has reached its limit; until something tells, not.
    fn is_full_at_limit(self) -> bool {
        self.by_kernel.abs_diff(self.beyond + self.at_limit) < self.by_kernel.abs_diff(self.beyond)
    }

    /// What a socket's counters mean. Which of both it was at the limit, the namespace's setting says.
    pub(super) fn full(self, listener: &Listener, syncookies: Option<u32>) -> Full {
        let at_limit = if self.is_full_at_limit() { listener.syn_queue_at_limit } else { 0 };
        let (cookies, refused) = if syncookies == Some(0) { (0, at_limit) } else { (at_limit, 0) };
        Full { cookies: listener.syn_cookies + cookies, refused: listener.syn_queue_overflows + refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::listener;

    #[test]
    fn the_kernels_counter_tells_what_full_is() {
        for (name, intervals, full) in [
            ("nothing is known", &[][..], false),
            ("nothing has happened", &[(0, 0, 0)], false),
            ("one more was let in", &[(82, 82, 1)], false),
            ("none was", &[(82, 0, 82)], true),
            ("the counter was read a little later", &[(3, 0, 2), (80, 0, 81)], true),
            ("and where one more is let in", &[(1, 0, 1), (81, 82, 0)], false),
            ("a single SYN that was refused", &[(1, 0, 1)], true),
            ("a single one that was let in", &[(0, 0, 1)], false),
        ] {
            let mut limit = SynQueueLimit::default();
            for (by_kernel, beyond, at_limit) in intervals {
                limit.note(*by_kernel, *beyond, *at_limit);
            }
            assert_eq!(limit.is_full_at_limit(), full, "{name}");
        }
    }

    #[test]
    fn what_is_full_at_the_limit_counts_as_the_setting_says() {
        let listener =
            Listener { syn_cookies: 100, syn_queue_overflows: 10, syn_queue_at_limit: 1, ..listener(0, "10.0.0.1") };
        let (at_limit, beyond) = (SynQueueLimit { by_kernel: 1, beyond: 0, at_limit: 1 }, SynQueueLimit::default());
        for (limit, syncookies, cookies, refused) in [
            (beyond, Some(1), 100, 10),
            (beyond, Some(0), 100, 10),
            (at_limit, Some(1), 101, 10),
            (at_limit, Some(0), 100, 11),
            (at_limit, None, 101, 10),
        ] {
            assert_eq!(limit.full(&listener, syncookies), Full { cookies, refused }, "{limit:?} {syncookies:?}");
        }
    }
}
