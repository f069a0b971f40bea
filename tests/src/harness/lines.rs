//! What `overwatch life`, `states` and `open` print with `-o json`, key by key: no key may come that is not known here.

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

fn seconds(text: &str) -> Result<f64> {
    let time = humantime::parse_rfc3339(text).with_context(|| format!("not a time: {text:?}"))?;
    Ok(time.duration_since(UNIX_EPOCH)?.as_secs_f64())
}

pub(super) fn time<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    seconds(&String::deserialize(from)?).map_err(D::Error::custom)
}

pub(super) fn time_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.as_deref().map(seconds).transpose().map_err(D::Error::custom)
}

/// One finished connection. Times are in seconds since 1970.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifeLine {
    /// When it ended.
    #[serde(deserialize_with = "time")]
    pub time: f64,
    /// Inode number of the socket's network namespace.
    pub netns: u64,
    /// The process that connected or accepted.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Its control group.
    pub cgroup: Option<String>,
    /// This end.
    pub local_addr: Option<IpAddr>,
    /// This end's port.
    pub local_port: Option<u16>,
    /// The other end.
    pub remote_addr: Option<IpAddr>,
    /// The other end's port.
    pub remote_port: Option<u16>,
    /// `server`, `client` or unknown.
    pub role: Option<String>,
    /// The address that the listener was bound to.
    pub listener_addr: Option<IpAddr>,
    /// The listener's port.
    pub listener_port: Option<u16>,
    /// When the SYN was sent.
    #[serde(deserialize_with = "time_if_any")]
    pub syn_time: Option<f64>,
    /// When the handshake was complete.
    #[serde(deserialize_with = "time_if_any")]
    pub established_time: Option<f64>,
    /// When a process accepted it.
    #[serde(deserialize_with = "time_if_any")]
    pub accepted_time: Option<f64>,
    /// From the SYN to the end.
    pub duration_seconds: Option<f64>,
    /// From the SYN to the end of the handshake, or of the attempt.
    pub connect_seconds: Option<f64>,
    /// From the SYN-ACK to the final ACK.
    pub handshake_seconds: Option<f64>,
    /// How long it waited to be accepted.
    pub accept_wait_seconds: Option<f64>,
    /// Bytes that the application sent.
    pub sent_bytes: u64,
    /// Bytes that the application received.
    pub received_bytes: u64,
    /// Of those sent: what was made good.
    pub reconciled_sent_bytes: u64,
    /// Of those received: what was made good.
    pub reconciled_received_bytes: u64,
    /// The kernel's own count.
    pub kernel_sent_bytes: Option<u64>,
    /// The kernel's own count.
    pub kernel_received_bytes: Option<u64>,
    /// What had arrived and was never read.
    pub unread_bytes: Option<u64>,
    /// Segments sent.
    pub segments_sent: Option<u64>,
    /// Segments received.
    pub segments_received: Option<u64>,
    /// Segments sent again.
    pub retransmits: Option<u64>,
    /// Segments that were lost.
    pub lost_segments: Option<u64>,
    /// Smoothed round-trip time.
    pub smoothed_rtt_seconds: Option<f64>,
    /// How it ended.
    pub ended: Option<String>,
    /// The name of the socket's error.
    pub error: Option<String>,
    /// Whether its beginning was not seen.
    pub partial: bool,
}

/// Finished connections of one process that have no line of their own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifeLoss {
    /// When that was noticed.
    #[serde(deserialize_with = "time")]
    pub time: f64,
    /// How many connections.
    pub lost_events: u64,
    /// The process.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Inode number of the sockets' network namespace.
    pub netns: Option<u64>,
    /// `server`, `client` or unknown.
    pub role: Option<String>,
    /// Bytes that they sent.
    pub sent_bytes: u64,
    /// Bytes that they received.
    pub received_bytes: u64,
}

/// One transition of one socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateLine {
    /// When it was.
    #[serde(deserialize_with = "time")]
    pub time: f64,
    /// The same for all transitions of one connection.
    pub connection: u64,
    /// Inode number of the socket's network namespace.
    pub netns: u64,
    /// The process that connected, accepted or listens.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Its control group.
    pub cgroup: Option<String>,
    /// This end.
    pub local_addr: Option<IpAddr>,
    /// This end's port.
    pub local_port: Option<u16>,
    /// The other end.
    pub remote_addr: Option<IpAddr>,
    /// The other end's port.
    pub remote_port: Option<u16>,
    /// `server`, `client` or neither.
    pub role: Option<String>,
    /// The state before.
    pub old_state: String,
    /// The state now.
    pub new_state: String,
    /// How long it was in the state before.
    pub old_state_seconds: Option<f64>,
}

/// Transitions that have no line.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateLoss {
    /// When that was noticed.
    #[serde(deserialize_with = "time")]
    pub time: f64,
    /// How many transitions.
    pub lost_events: u64,
}

/// What was open at the end of an interval.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenInterval {
    /// When it ended.
    #[serde(deserialize_with = "time")]
    pub time: f64,
    /// How long it was.
    pub interval_seconds: f64,
    /// This host's name.
    pub host: String,
    /// Connections that are not in CLOSE.
    pub open_connections: u64,
    /// By listening address, those without connections too.
    pub listeners: Vec<OpenListener>,
    /// By process.
    pub owners: Vec<OpenOwner>,
    /// By the other end's address.
    pub remotes: Vec<OpenRemote>,
    /// Events that were lost in the interval.
    pub lost_events: u64,
}

/// The connections of a listening address.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenListener {
    /// Inode number of its network namespace.
    pub netns: u64,
    /// Where it listens.
    pub local_addr: IpAddr,
    /// Where it listens.
    pub local_port: u16,
    /// The process that listens.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Its connections that are open.
    pub open: u64,
    /// Those of them that nobody has accepted yet.
    pub waiting: u64,
}

/// The connections of a process.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenOwner {
    /// The process.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Its connections that are open.
    pub open: u64,
}

/// The connections with a host.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRemote {
    /// The host.
    pub remote_addr: IpAddr,
    /// The connections with it that are open.
    pub open: u64,
}

/// A line of a stream: what it is made of, or a loss.
#[derive(Clone, Debug)]
pub enum Item<L, M> {
    /// A line.
    Line(Box<L>),
    /// Lines that are missing.
    Lost(M),
}

/// What `life` prints.
pub type LifeItem = Item<LifeLine, LifeLoss>;
/// What `states` prints.
pub type StateItem = Item<StateLine, StateLoss>;

impl<L: DeserializeOwned, M: DeserializeOwned> Item<L, M> {
    /// Reads one line of output.
    pub fn parse(line: &str) -> Result<Self> {
        if line.contains("\"lost_events\"") {
            Ok(Self::Lost(parse(line)?))
        } else {
            Ok(Self::Line(Box::new(parse(line)?)))
        }
    }
}

/// Reads one line of output.
pub fn parse<L: DeserializeOwned>(line: &str) -> Result<L> {
    serde_json::from_str(line).with_context(|| format!("not what was expected: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOSS: &str = r#"{"time":"2026-10-02T10:00:00.5Z","lost_events":3}"#;

    #[test]
    fn lines_and_losses_are_told_apart() {
        let Item::Lost(loss) = StateItem::parse(LOSS).unwrap() else { panic!("a loss") };
        assert_eq!((loss.lost_events, loss.time.fract()), (3, 0.5));
        let text = r#"{"time":"2026-10-02T10:00:00Z","connection":1,"netns":2,"pid":null,"comm":null,"cgroup":null,
            "local_addr":"::1","local_port":80,"remote_addr":null,"remote_port":null,"role":null,
            "old_state":"CLOSE","new_state":"LISTEN","old_state_seconds":null}"#;
        let Item::Line(line) = StateItem::parse(text).unwrap() else { panic!("a line") };
        assert_eq!((line.new_state.as_str(), line.local_port), ("LISTEN", Some(80)));
        assert!(StateItem::parse(&text.replace("netns", "namespace")).is_err());
        assert!(StateItem::parse(&text.replace("2026-10-02T", "2026-10-02 at ")).is_err());
    }
}
