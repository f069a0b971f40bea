//! What the server counts about itself. Whoever exports it reads it here.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What was asked for. Few and fixed, since whoever asks may make up any path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// The metrics, wherever they are.
    Metrics,
    /// `/-/healthy`.
    Healthy,
    /// `/-/ready`.
    Ready,
    /// `/`.
    Landing,
    /// Any other path.
    Unknown,
    /// What was sent is no request that can be read.
    Unreadable,
}

impl Handler {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 6] =
        [Self::Metrics, Self::Healthy, Self::Ready, Self::Landing, Self::Unknown, Self::Unreadable];

    /// A word for a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Healthy => "healthy",
            Self::Ready => "ready",
            Self::Landing => "landing",
            Self::Unknown => "unknown",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Every code that is ever answered.
pub const CODES: [u16; 9] = [200, 400, 401, 404, 405, 413, 431, 500, 503];

/// What a connection is doing, and so what it may be timed out in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// TLS handshake.
    Handshake,
    /// The head of a request is being read, or its first byte is waited for.
    Header,
    /// A request is being answered.
    Serving,
    /// The answer is being written.
    Writing,
    /// Between two requests.
    Idle,
}

impl Phase {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 5] = [Self::Handshake, Self::Header, Self::Serving, Self::Writing, Self::Idle];

    /// A word for a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Header => "header",
            Self::Serving => "serving",
            Self::Writing => "writing",
            Self::Idle => "idle",
        }
    }
}

/// Counts since the start, but for `open_connections`.
#[derive(Debug, Default)]
pub struct Counters {
    requests: [[AtomicU64; CODES.len()]; Handler::ALL.len()],
    timeouts: [AtomicU64; Phase::ALL.len()],
    /// Connections that were taken.
    pub connections: AtomicU64,
    /// Connections that are open now.
    pub open_connections: AtomicU64,
    /// Connections that were closed at once, since as many as may be were busy.
    pub refused_connections: AtomicU64,
    /// Connections that waited or were slow, and were closed to make room for a new one.
    pub evicted_connections: AtomicU64,
    /// Connections that were cut off since they were not done when the server had to end.
    pub aborted_connections: AtomicU64,
    /// Handshakes that failed: no TLS, no common version, a bad certificate or none.
    pub failed_handshakes: AtomicU64,
    /// Connections that the kernel could not hand over, most often for want of file descriptors.
    pub accept_errors: AtomicU64,
    /// Times the metrics were computed.
    pub computations: AtomicU64,
    /// Requests that got what was being computed for another.
    pub shared_computations: AtomicU64,
}

impl Counters {
    /// Requests by what was asked for and what was answered: each pair, also those that are 0.
    pub fn requests(&self) -> impl Iterator<Item = (Handler, u16, u64)> {
        Handler::ALL.into_iter().zip(&self.requests).flat_map(|(handler, codes)| {
            CODES.into_iter().zip(codes).map(move |(code, count)| (handler, code, count.load(Relaxed)))
        })
    }

    /// Connections that were closed since something took too long.
    pub fn timeouts(&self) -> impl Iterator<Item = (Phase, u64)> {
        Phase::ALL.into_iter().zip(&self.timeouts).map(|(phase, count)| (phase, count.load(Relaxed)))
    }

    pub(super) fn answered(&self, handler: Handler, code: u16) {
        let row = Handler::ALL.iter().position(|known| *known == handler);
        let column = CODES.iter().position(|known| *known == code);
        if let (Some(row), Some(column)) = (row, column) {
            self.requests[row][column].fetch_add(1, Relaxed);
        }
    }

    pub(super) fn timed_out(&self, phase: Phase) {
        if let Some(index) = Phase::ALL.iter().position(|known| *known == phase) {
            self.timeouts[index].fetch_add(1, Relaxed);
        }
    }
}
