//! What a client may take, by time and by number.

use std::time::Duration;

use super::counters::Phase;

/// Bounds on what a client may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at one time. A further one takes the place of one that waits; when none does, it is closed at once.
    pub connections: usize,
    /// Bytes of a request's line and headers; 8192 at least.
    pub header_bytes: usize,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For a whole head, from its first byte, or from the connection's start.
    pub header: Duration,
    /// From a whole head to an answer. Prometheus does not wait longer by default.
    pub request: Duration,
    /// For a whole answer to be taken.
    pub write: Duration,
    /// Between two requests. Longer than a scrape interval, so that there is one handshake and not one per scrape.
    pub idle: Duration,
    /// For all that was asked when the server is told to end.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            header_bytes: 16 * 1024,
            handshake: Duration::from_secs(5),
            header: Duration::from_secs(5),
            request: Duration::from_secs(10),
            write: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            shutdown: Duration::from_secs(2),
        }
    }
}

impl Limits {
    /// `None`: what takes so long is bounded where it is done.
    pub(super) fn of(&self, phase: Phase) -> Option<Duration> {
        match phase {
            Phase::Handshake => Some(self.handshake),
            Phase::Header => Some(self.header),
            Phase::Serving => None,
            Phase::Writing => Some(self.write),
            Phase::Idle => Some(self.idle),
        }
    }
}
