//! Arguments of `listeners`.

use clap::Args;
use ipnet::IpNet;

use super::{FilterArguments, Pace, ThresholdArguments, network};

/// Arguments of `listeners`.
#[derive(Clone, Debug, Args)]
pub struct Listeners {
    /// When to show.
    #[command(flatten)]
    pub pace: Pace,
    /// Show at most this many rows [default: all; on a terminal without COUNT, what fits]
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

/// Filters of listening sockets. All that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
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
        self.explain == Some(Explain::Chosen) && self.filter == ListenerFilter::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory as _, Parser};

    use super::*;
    use crate::model::verdict::Thresholds;

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

    /// Flag, least and most, another value, and what that makes of the defaults.
    type Setting = (&'static str, f64, f64, f64, fn(&mut Thresholds, f64));

    const SETTINGS: [Setting; 9] = [
        ("wait-threshold", 0.001, 3600.0, 0.2, |of, to| of.wait = Duration::from_secs_f64(to)),
        ("calm", 0.0, 3600.0, 7.5, |of, to| of.calm = Duration::from_secs_f64(to)),
        ("window", 0.1, 3600.0, 10.0, |of, to| of.window = Duration::from_secs_f64(to)),
        ("busy-wait", 0.001, 3600.0, 0.05, |of, to| of.busy_wait = Duration::from_secs_f64(to)),
        ("queue-share", 0.01, 1.0, 0.5, |of, to| of.queue_share = to),
        ("settle", 0.0, 10.0, 2.0, |of, to| of.settle = Duration::from_secs_f64(to)),
        ("idle", 0.1, 3600.0, 60.0, |of, to| of.idle = Duration::from_secs_f64(to)),
        ("constant-share", 0.0, 1.0, 0.1, |of, to| of.constant_share = to),
        ("throttled-share", 0.01, 1.0, 0.75, |of, to| of.throttled_share = to),
    ];

    #[test]
    fn thresholds_reach_the_model() {
        let thresholds = |line: &str| listeners(line).unwrap().thresholds.thresholds();
        assert_eq!(thresholds(""), Thresholds::default());
        let (mut all, mut line) = (Thresholds::default(), String::new());
        for (flag, least, most, other, set) in SETTINGS {
            for value in [least, most, other] {
                let mut expected = Thresholds::default();
                set(&mut expected, value);
                assert_eq!(thresholds(&format!("--{flag} {value}")), expected, "{flag} {value}");
            }
            set(&mut all, other);
            line += &format!("--{flag} {other} ");
        }
        assert_eq!(thresholds(&line), all);
    }

    #[test]
    fn bad_thresholds_and_arguments_are_refused() {
        let refused = |line: &str| assert_eq!(listeners(line).unwrap_err().exit_code(), 2, "{line}");
        for (flag, least, most, _, _) in SETTINGS {
            for value in [least - 0.0001, most + 0.0001, -1.0, f64::NAN, f64::INFINITY, f64::MAX] {
                refused(&format!("--{flag}={value}"));
            }
            for text in ["", "abc", "1s", "50%", "0x1"] {
                refused(&format!("--{flag}={text}"));
            }
        }
        for line in ["--explain 70000", "--explain nginx", "--rport 80", "--port http", "0", "--idle", "--setle 1"] {
            refused(line);
        }
        let thresholds = |line: &str| listeners(line).unwrap().thresholds.thresholds();
        assert_eq!(thresholds("--calm=-0").calm, Duration::ZERO);
        assert!(thresholds("--constant-share=-0").constant_share.is_sign_positive());
    }

    #[test]
    fn thresholds_are_documented_with_their_defaults() {
        let document = include_str!("../../../../docs/listeners.md");
        let command = Behind::command();
        let (mut documented, mut arguments) = (0, 0);
        for argument in command.get_arguments() {
            let is_threshold = argument.get_help_heading().is_some_and(|heading| heading.starts_with("Thresholds"));
            arguments += usize::from(is_threshold);
        }
        for (flag, least, most, _, _) in SETTINGS {
            let argument = command.get_arguments().find(|argument| argument.get_long() == Some(flag)).unwrap();
            let help = argument.get_help().unwrap().to_string();
            let (_, default) = help.strip_suffix(']').unwrap().split_once(" [default: ").unwrap();
            let unit = if argument.get_value_names().unwrap()[0] == "SECS" { " s" } else { "" };
            let row = format!("\n| `--{flag}` | {default}{unit} | ");
            assert!(document.contains(&row), "{row}");
            assert!(help.contains(&format!("; from {least} to {most} [")), "{flag}: {help}");
            documented += 1;
        }
        assert_eq!((documented, arguments), (9, 9));
        assert_eq!(document.matches("\n| `--").count(), 9);
    }

    #[test]
    fn short_help_has_the_three_that_are_used_most() {
        let mut command = Behind::command();
        let (short, long) = (command.render_help().to_string(), command.render_long_help().to_string());
        for (index, (flag, ..)) in SETTINGS.iter().enumerate() {
            let has = |help: &str| help.contains(&format!("--{flag} "));
            assert_eq!((has(&short), has(&long)), (index < 3, true), "{flag}");
        }
    }
}
