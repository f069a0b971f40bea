//! Arguments of `listeners`.

use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use super::{FilterArguments, Pace, SHORTEST_SECONDS, network, seconds_within};

/// Longest time that a threshold can be: an hour.
const LONGEST_THRESHOLD_SECONDS: f64 = 3_600.0;

/// Arguments of `listeners`.
#[derive(Clone, Debug, Args)]
pub struct Listeners {
    /// When to show.
    #[command(flatten)]
    pub pace: Pace,
    /// Show at most this many rows [default: what fits on a terminal, else all]
    #[arg(short = 'n', long, value_name = "N")]
    pub rows: Option<usize>,
    /// Tell the whole story of the listeners at a port; without a port, of those that the filters choose, and without filters of those
    /// that are saturated or overflowing. A number behind it is a port: INTERVAL stands before it, or behind the port
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = CHOSEN, value_parser = explain)]
    pub explain: Option<Explain>,
    /// When a verdict changes.
    #[command(flatten)]
    pub thresholds: ThresholdArguments,
    /// Which rows.
    #[command(flatten)]
    pub filter: ListenerFilter,
}

/// Whose whole story is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Explain {
    /// That of all rows which the filters choose; without filters, of those that are sick.
    Chosen,
    /// That of the listeners at this port.
    Port(u16),
}

/// Stands for `--explain` without a port, and is none.
const CHOSEN: &str = "";

fn explain(text: &str) -> Result<Explain, String> {
    if text == CHOSEN {
        return Ok(Explain::Chosen);
    }
    text.parse().map(Explain::Port).map_err(|_| "not a port: give none, or a number from 0 to 65535".to_owned())
}

/// When a verdict changes.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Thresholds (docs/listeners.md has the reasons)")]
pub struct ThresholdArguments {
    /// A client that waits longer than this makes a listener saturated, if its queue does not drain; from 0.001 to 3600
    #[arg(long, value_name = "SECS", default_value = "1", value_parser = wait_threshold)]
    pub wait_threshold: Duration,
    /// A listener is well again when it has shown no sign of trouble for so long; from 0 to 3600
    #[arg(long, value_name = "SECS", default_value = "3", value_parser = calm)]
    pub calm: Duration,
    /// Rates and ceilings are taken over so long; from 0.1 to 3600
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = window)]
    pub window: Duration,
}

fn wait_threshold(text: &str) -> Result<Duration, String> {
    seconds_within(text, 0.001, LONGEST_THRESHOLD_SECONDS)
}

fn calm(text: &str) -> Result<Duration, String> {
    seconds_within(text, 0.0, LONGEST_THRESHOLD_SECONDS)
}

fn window(text: &str) -> Result<Duration, String> {
    seconds_within(text, SHORTEST_SECONDS, LONGEST_THRESHOLD_SECONDS)
}

/// Filters of listening sockets. All that are given must hold.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters (all that are given must hold)")]
pub struct ListenerFilter {
    /// Sockets that this process holds, perhaps with others
    #[arg(long)]
    pub pid: Option<u32>,
    /// Sockets that a process of this name holds
    #[arg(long, value_name = "NAME")]
    pub comm: Option<String>,
    /// Sockets that listen at this port
    #[arg(long, visible_alias = "lport")]
    pub port: Option<u16>,
    /// Sockets that are bound to this address, or to one in this network: 0.0.0.0 or :: are such as are bound to all
    #[arg(long, value_name = "CIDR", value_parser = network)]
    pub addr: Option<IpNet>,
    /// Sockets that a process in this control group or below it holds
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<String>,
    /// Sockets in this network namespace: a name of `ip netns` or an inode number
    #[arg(long, value_name = "NAME|INODE")]
    pub netns: Option<String>,
    /// Sockets that are bound to an IPv4 address
    #[arg(short = '4', conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// Sockets that are bound to an IPv6 address, among them :: that serves IPv4 too
    #[arg(short = '6')]
    pub ipv6: bool,
}

impl Listeners {
    /// The filters in the words of the other verbs.
    pub fn filter(&self) -> FilterArguments {
        let filter = &self.filter;
        FilterArguments {
            pid: filter.pid,
            comm: filter.comm.clone(),
            // A listening socket has one port only, so that these two are conditions on the same.
            port: match self.explain {
                Some(Explain::Port(port)) => Some(port),
                Some(Explain::Chosen) | None => None,
            },
            lport: filter.port,
            rport: None,
            addr: filter.addr,
            cgroup: filter.cgroup.clone(),
            netns: filter.netns.clone(),
            ipv4: filter.ipv4,
            ipv6: filter.ipv6,
        }
    }

    /// True when only those are asked for that are sick.
    pub fn only_sick(&self) -> bool {
        let filter = &self.filter;
        let unfiltered = filter.pid.is_none()
            && filter.comm.is_none()
            && filter.port.is_none()
            && filter.addr.is_none()
            && filter.cgroup.is_none()
            && filter.netns.is_none()
            && !filter.ipv4
            && !filter.ipv6;
        self.explain == Some(Explain::Chosen) && unfiltered
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    /// The arguments behind `overwatch listeners`.
    #[derive(Debug, Parser)]
    struct Behind {
        #[command(flatten)]
        listeners: Listeners,
    }

    fn listeners(line: &str) -> Result<Listeners, clap::Error> {
        Behind::try_parse_from(format!("listeners {line}").split_whitespace()).map(|behind| behind.listeners)
    }

    #[test]
    fn what_is_explained_cannot_be_taken_for_an_interval() {
        let (second, five) = (Duration::from_secs(1), Duration::from_secs(5));
        for (line, explain, interval, count) in [
            ("", None, second, None),
            ("5 12", None, five, Some(12)),
            ("--explain", Some(Explain::Chosen), second, None),
            ("5 --explain", Some(Explain::Chosen), five, None),
            ("5 12 --explain", Some(Explain::Chosen), five, Some(12)),
            ("--explain --port 443", Some(Explain::Chosen), second, None),
            ("--explain -- 5", Some(Explain::Chosen), five, None),
            ("--explain 443", Some(Explain::Port(443)), second, None),
            ("--explain=443", Some(Explain::Port(443)), second, None),
            ("--explain 443 5", Some(Explain::Port(443)), five, None),
            ("--explain 443 5 12", Some(Explain::Port(443)), five, Some(12)),
            ("5 12 --explain 443", Some(Explain::Port(443)), five, Some(12)),
            ("5 --explain 443 12", Some(Explain::Port(443)), five, Some(12)),
        ] {
            let listeners = listeners(line).unwrap();
            assert_eq!(listeners.explain, explain, "{line}");
            assert_eq!((listeners.pace.interval, listeners.pace.count), (interval, count), "{line}");
        }
    }

    #[test]
    fn without_filters_the_sick_ones_are_explained() {
        for (line, only_sick) in [
            ("", false),
            ("--explain", true),
            ("--explain -n 3", true),
            ("--explain 443", false),
            ("--explain --pid 1", false),
            ("--explain --comm nginx", false),
            ("--explain --port 443", false),
            ("--explain --lport 443", false),
            ("--explain --addr ::/0", false),
            ("--explain --cgroup /", false),
            ("--explain --netns web", false),
            ("--explain -4", false),
            ("--explain -6", false),
        ] {
            assert_eq!(listeners(line).unwrap().only_sick(), only_sick, "{line}");
        }
    }

    #[test]
    fn both_ports_are_conditions() {
        for (line, port, lport) in [
            ("", None, None),
            ("--port 443", None, Some(443)),
            ("--lport 443", None, Some(443)),
            ("--explain 443", Some(443), None),
            ("--explain 443 --port 80", Some(443), Some(80)),
        ] {
            let filter = listeners(line).unwrap().filter();
            assert_eq!((filter.port, filter.lport, filter.rport), (port, lport, None), "{line}");
        }
    }

    #[test]
    fn thresholds_have_defaults_and_limits() {
        let millis = Duration::from_millis;
        for (line, wait_threshold, calm, window) in [
            ("", 1_000, 3_000, 5_000),
            ("--wait-threshold 0.2 --calm 0 --window 10", 200, 0, 10_000),
            ("--calm 3600", 1_000, 3_600_000, 5_000),
        ] {
            let of = listeners(line).unwrap().thresholds;
            let wanted = [wait_threshold, calm, window].map(millis);
            assert_eq!([of.wait_threshold, of.calm, of.window], wanted, "{line}");
        }
        for line in [
            "--wait-threshold 0",
            "--wait-threshold 1e9",
            "--wait-threshold abc",
            "--calm=-1",
            "--calm NaN",
            "--window 0",
            "--explain 70000",
            "--explain nginx",
            "--rport 80",
            "--port http",
            "0",
        ] {
            assert_eq!(listeners(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn thresholds_are_documented_with_their_defaults() {
        let document = include_str!("../../../../docs/listeners.md");
        let command = Behind::command();
        for flag in ["wait-threshold", "calm", "window"] {
            let argument = command.get_arguments().find(|argument| argument.get_long() == Some(flag)).unwrap();
            let default = argument.get_default_values()[0].to_str().unwrap();
            assert!(document.contains(&format!("\n| `--{flag}` | {default} s | ")), "--{flag} {default}");
        }
    }
}
