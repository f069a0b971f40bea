//! Which of a socket's drops were refusals because its accept queue was full.
//!
//! `sk_drops` of a listening socket counts everything that was dropped there: a SYN that found the accept queue full once, a last ACK that
//! did twice (`tcp_listendrop` and the discard that follows), and the rest once. Where a hook counts the refusals, only the rest has to be
//! worked out. Where none does, the namespace's own `ListenOverflows` says how many there were, and the drops say whose.

use overwatch_common::connection::Listener;

/// What a listening socket has dropped since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Drops {
    /// By `sk_drops`.
    pub(super) all: u64,
    /// SYNs refused because the accept queue was full; `None` where no hook counts them.
    pub(super) syn: Option<u64>,
    /// Last ACKs refused, likewise.
    pub(super) ack: Option<u64>,
    /// The queue was full at some time of the interval, as far as is known.
    pub(super) was_full: bool,
}

/// What hooks have counted at a listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hooks {
    pub(super) syn: u64,
    pub(super) ack: u64,
}

impl Hooks {
    pub(super) fn of(listener: &Listener) -> Self {
        Self { syn: listener.overflows_syn, ack: listener.overflows_ack }
    }
}

/// The same by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) syn: u64,
    pub(super) ack: u64,
    pub(super) other: u64,
    pub(super) exact: bool,
}

impl Drops {
    /// Drops that no hook has explained.
    fn unexplained(&self) -> u64 {
        self.all.saturating_sub(self.syn.unwrap_or(0)).saturating_sub(2 * self.ack.unwrap_or(0))
    }
}

/// Tells the drops of one namespace's sockets apart. `overflows` is how far `ListenOverflows` went on there; `None` when it is not known. Gives
/// also how many of these are on no socket.
pub(super) fn split(sockets: &[Drops], overflows: Option<u64>) -> (Vec<Refused>, u64) {
    let known: u64 = sockets.iter().map(|drops| drops.syn.unwrap_or(0) + drops.ack.unwrap_or(0)).sum();
    let mut left = overflows.map(|overflows| overflows.saturating_sub(known));
    let open: Vec<_> = sockets.iter().filter(|drops| drops.syn.is_none() && drops.unexplained() > 0).collect();
    let exact = open.len() < 2 && overflows.is_some() || left == Some(0);
    let mut refused: Vec<_> = sockets
        .iter()
        .map(|drops| Refused {
            syn: drops.syn.unwrap_or(0),
            ack: drops.ack.unwrap_or(0),
            other: drops.unexplained(),
            exact: drops.syn.is_some() || exact || drops.unexplained() == 0,
        })
        .collect();
    // A hook makes the kernel's test a moment earlier. Where another CPU made room in between there was no refusal; more can pass before that of a
    // last ACK, so these are doubted first.
    let mut doubted = overflows.map_or(0, |overflows| known.saturating_sub(overflows));
    let mut doubt = |count: &mut u64| {
        let less = doubted.min(*count);
        *count -= less;
        doubted -= less;
    };
    refused.iter_mut().for_each(|refused| doubt(&mut refused.ack));
    refused.iter_mut().for_each(|refused| doubt(&mut refused.syn));
    // Those whose queue was full come first.
    for full in [true, false] {
        for (drops, refused) in sockets.iter().zip(&mut refused) {
            if drops.syn.is_some() || drops.was_full != full {
                continue;
            }
            let most = refused.other;
            let syn = match &mut left {
                Some(left) => {
                    let syn = most.min(*left);
                    *left -= syn;
                    syn
                }
                None if full => most,
                None => 0,
            };
            refused.syn = syn;
            refused.other = most - syn;
            if drops.ack.is_none() {
                // Some of them may have been last ACKs, which count twice.
                refused.other = refused.other.saturating_sub(syn);
            }
        }
    }
    (refused, left.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Drops = Drops { all: 0, syn: None, ack: None, was_full: false };

    fn refused(syn: u64, ack: u64, other: u64, exact: bool) -> Refused {
        Refused { syn, ack, other, exact }
    }

    #[test]
    fn drops_are_told_apart() {
        let exact = |all, syn, ack| Drops { all, syn: Some(syn), ack: Some(ack), was_full: true };
        type Case<'a> = (&'a str, &'a [Drops], Option<u64>, &'a [Refused], u64);
        let cases: &[Case<'_>] = &[
            ("nothing", &[NONE], Some(0), &[refused(0, 0, 0, true)], 0),
            ("nothing, and the namespace is not known", &[NONE], None, &[refused(0, 0, 0, true)], 0),
            ("hooks", &[exact(17, 6, 4)], Some(10), &[refused(6, 4, 3, true)], 0),
            ("hooks, without the namespace", &[exact(6, 6, 0)], None, &[refused(6, 0, 0, true)], 0),
            ("a last ACK found room after all", &[exact(13, 6, 4)], Some(9), &[refused(6, 3, 0, true)], 0),
            ("and a SYN did", &[exact(5, 6, 0)], Some(5), &[refused(5, 0, 0, true)], 0),
            (
                "one of several did",
                &[exact(1, 1, 0), exact(3, 0, 2)],
                Some(2),
                &[refused(1, 0, 0, true), refused(0, 1, 0, true)],
                0,
            ),
            ("a hook was faster than the look", &[exact(5, 6, 0)], Some(6), &[refused(6, 0, 0, true)], 0),
            (
                "one socket, only SYNs",
                &[Drops { all: 6, was_full: true, ..NONE }],
                Some(6),
                &[refused(6, 0, 0, true)],
                0,
            ),
            ("drops that are no overflows", &[Drops { all: 6, ..NONE }], Some(0), &[refused(0, 0, 6, true)], 0),
            (
                "the last ACKs are known",
                &[Drops { all: 9, ack: Some(2), was_full: true, ..NONE }],
                Some(5),
                &[refused(3, 2, 2, true)],
                0,
            ),
            ("they are not", &[Drops { all: 4, was_full: true, ..NONE }], Some(2), &[refused(2, 0, 0, true)], 0),
            (
                "of two, the full one",
                &[Drops { all: 3, ack: Some(0), ..NONE }, Drops { all: 5, ack: Some(0), was_full: true, ..NONE }],
                Some(5),
                &[refused(0, 0, 3, false), refused(5, 0, 0, false)],
                0,
            ),
            (
                "of a socket that has gone",
                &[Drops { all: 1, ack: Some(0), was_full: true, ..NONE }],
                Some(4),
                &[refused(1, 0, 0, true)],
                3,
            ),
            ("nobody knows", &[Drops { all: 5, was_full: true, ..NONE }], None, &[refused(5, 0, 0, false)], 0),
            ("nobody knows, and it was not full", &[Drops { all: 5, ..NONE }], None, &[refused(0, 0, 5, false)], 0),
        ];
        for (name, sockets, overflows, expected, left) in cases {
            assert_eq!(split(sockets, *overflows), (expected.to_vec(), *left), "{name}");
        }
    }
}
