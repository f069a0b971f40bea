//! What `overwatch listeners` prints with `-o json`: the keys that the tests judge by.

use std::net::IpAddr;

use serde::Deserialize;

use super::lines::{time, time_if_any};

/// One interval.
#[derive(Clone, Debug, Deserialize)]
pub struct ListenersInterval {
    /// When it ended, in seconds since 1970, as all times.
    #[serde(deserialize_with = "time")]
    pub time: f64,
    /// How long it was.
    pub interval_seconds: f64,
    /// This host's name.
    pub host: String,
    /// Changes that were lost.
    pub lost_events: u64,
    /// Every listening socket.
    pub listeners: Vec<ListenerRow>,
}

/// One listening socket in one interval.
#[derive(Clone, Debug, Deserialize)]
pub struct ListenerRow {
    /// Inode number of its network namespace.
    pub netns: u64,
    /// Control group of the process that holds it.
    pub cgroup: Option<String>,
    /// Where it listens.
    pub local_addr: IpAddr,
    /// Where it listens.
    pub local_port: u16,
    /// Who holds it.
    pub processes: Vec<ListenerProcess>,
    /// Inode number of the socket.
    pub inode: Option<u64>,
    /// So many, and one more, fit into its accept queue.
    pub backlog_limit: u64,
    /// Where that limit comes from.
    pub backlog_origin: Option<String>,
    /// `net.core.somaxconn` of its namespace.
    pub somaxconn: Option<u64>,
    /// Connections in the accept queue at the end.
    pub accept_queue: u64,
    /// The most that there were at any time.
    pub accept_queue_peak: u64,
    /// Half-open connections; `None` when the scan cannot read them.
    pub syn_queue: Option<u64>,
    /// Connections that entered the accept queue.
    pub arrivals: u64,
    /// Connections that were accepted.
    pub accepts: u64,
    /// The same since the start.
    pub accepts_total: u64,
    /// Refused because the accept queue was full.
    pub overflows: u64,
    /// The same since the start.
    pub overflows_total: u64,
    /// Of these: at the SYN; `None` in a tier that does not see at which packet it was.
    pub overflows_syn: Option<u64>,
    /// Of these: at the last ACK; `None` likewise.
    pub overflows_ack: Option<u64>,
    /// Whether they were counted where they happened.
    pub overflows_exact: bool,
    /// Dropped for other reasons.
    pub drops: u64,
    /// The same since the start.
    pub drops_total: u64,
    /// SYNs that were answered with a cookie.
    pub syn_cookies: Option<u64>,
    /// SYNs that were refused because the SYN queue was full.
    pub syn_queue_overflows: Option<u64>,
    /// Accepted and not closed.
    pub serving: Option<u64>,
    /// What that does not get beyond.
    pub serving_ceiling: Option<u64>,
    /// Clients in the accept queue.
    pub waiting: Vec<WaitingClient>,
    /// How many there are.
    pub waiting_total: u64,
    /// How long the first one has waited.
    pub oldest_wait_seconds: Option<f64>,
    /// How long those had waited that were accepted.
    pub accept_wait_seconds: Option<AcceptWaits>,
    /// How bad it is.
    pub verdict: String,
    /// Why.
    pub cause: String,
    /// Sentences with the numbers in them.
    pub evidence: Vec<String>,
    /// What to change.
    pub advice: Vec<String>,
    /// Since when.
    #[serde(deserialize_with = "time_if_any")]
    pub since: Option<f64>,
}

/// A process that holds a listening socket.
#[derive(Clone, Debug, Deserialize)]
pub struct ListenerProcess {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// A client that nobody has accepted yet.
#[derive(Clone, Debug, Deserialize)]
pub struct WaitingClient {
    /// Its address.
    pub remote_addr: IpAddr,
    /// Its port.
    pub remote_port: u16,
    /// How long it has waited.
    pub waiting_seconds: Option<f64>,
    /// What it has sent.
    pub unread_bytes: u64,
    /// Whether it has closed or reset the connection.
    pub gone: bool,
}

/// A distribution of waiting times, in seconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct AcceptWaits {
    /// The median.
    pub p50: f64,
    /// Of ten, nine waited no longer.
    pub p90: f64,
    /// Of a hundred, 99 waited no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl ListenerRow {
    /// Verdict and cause.
    #[must_use]
    pub fn judged(&self) -> (&str, &str) {
        (&self.verdict, &self.cause)
    }

    /// What contradicts itself in this row.
    #[must_use]
    pub fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                found.push(format!("{what} does not hold"));
            }
        };
        must(self.accept_queue <= self.accept_queue_peak, "accept_queue <= accept_queue_peak");
        must(
            match (self.overflows_syn, self.overflows_ack) {
                (Some(at_syn), Some(at_ack)) => self.overflows == at_syn + at_ack,
                (None, None) => true,
                _ => false,
            },
            "overflows == overflows_syn + overflows_ack, or neither is known",
        );
        must(self.overflows <= self.overflows_total, "overflows <= overflows_total");
        must(self.accepts <= self.accepts_total, "accepts <= accepts_total");
        must(self.drops <= self.drops_total, "drops <= drops_total");
        must(self.waiting.len() as u64 <= self.waiting_total, "waiting is no longer than waiting_total");
        must(self.accept_wait_seconds.is_none() || self.accepts > 0, "accept waits only where something was accepted");
        must((self.verdict == "ok") == self.since.is_none(), "since is null if and only if the verdict is ok");
        must(self.verdict != "ok" || self.cause == "none", "the verdict ok has no cause");
        must(self.verdict == "ok" || !self.evidence.is_empty(), "whatever is not ok has evidence");
        if let Some(waits) = self.accept_wait_seconds {
            let rising = waits.p50 <= waits.p90 && waits.p90 <= waits.p99 && waits.p99 <= waits.max;
            must(rising && waits.p50 >= 0.0, "0 <= p50 <= p90 <= p99 <= max");
        }
        found
    }
}
