//! Which connection a RST of ours belongs to that was sent after its last record.

use overwatch_common::{connection::flag, event::Closed};

use super::sample::ClosedConnection;

/// So many records other CPUs may put between the last record of a connection and word of the reset.
const NEIGHBOURS: usize = 64;

/// Notes the reset in the connection whose record came last from that socket: word of a reset follows it at once, and addresses are used
/// again. `earlier` was taken before `now`. True when it may belong to a connection of the sample before.
pub(super) fn note(sock: u64, now: &mut [Closed], earlier: &mut [ClosedConnection]) -> bool {
    let known = now.len() + earlier.len();
    let now = now.iter_mut().map(|closed| (closed.sock, &mut closed.connection));
    let earlier = earlier.iter_mut().map(|closed| (closed.sock, &mut closed.connection));
    match now.rev().chain(earlier.rev()).take(NEIGHBOURS).find(|(of, _)| *of == sock) {
        Some((_, connection)) => {
            connection.flags |= flag::RESET_SENT;
            false
        }
        None => known < NEIGHBOURS,
    }
}

#[cfg(test)]
mod tests {
    use overwatch_common::event;

    use super::*;
    use crate::model::fixtures::connection;

    fn now(socks: &[u64]) -> Vec<Closed> {
        let closed = |sock: &u64| Closed { kind: event::CLOSED, pad: 0, sock: *sock, connection: connection(1, 0, 0) };
        socks.iter().map(closed).collect()
    }

    fn earlier(socks: &[u64]) -> Vec<ClosedConnection> {
        let closed = |sock: &u64| ClosedConnection { sock: *sock, connection: connection(1, 0, 0), shares: Vec::new() };
        socks.iter().map(closed).collect()
    }

    #[test]
    fn a_reset_is_of_the_last_connection_that_had_the_address() {
        let many: Vec<u64> = (100..200).collect();
        // Sockets of this drain and of those before, the reset's, the place of the one it belongs to, and whether it may be of the sample
        // before.
        type Case<'a> = (&'a [u64], &'a [u64], u64, Option<usize>, bool);
        let cases: [Case<'_>; 7] = [
            (&[1], &[], 1, Some(0), false),
            (&[1, 2, 1, 3], &[], 1, Some(2), false),
            (&[2], &[1, 1], 1, Some(2), false),
            (&[1], &[1], 1, Some(0), false),
            (&[2], &[3], 1, None, true),
            (&[], &[], 1, None, true),
            // Word of it would have come long ago.
            (&many, &[1], 1, None, false),
        ];
        for (of_now, of_earlier, sock, expected, may_be_before) in cases {
            let (mut now, mut earlier) = (now(of_now), earlier(of_earlier));
            assert_eq!(note(sock, &mut now, &mut earlier), may_be_before, "{of_now:?} {of_earlier:?}");
            let flags = now.iter().map(|closed| closed.connection.flags);
            let flags = flags.chain(earlier.iter().map(|closed| closed.connection.flags));
            let marked: Vec<usize> =
                flags.enumerate().filter(|(_, flags)| flags & flag::RESET_SENT != 0).map(|(place, _)| place).collect();
            assert_eq!(marked, expected.into_iter().collect::<Vec<_>>(), "{of_now:?} {of_earlier:?}");
        }
    }
}
