//! Services: what each has moved, and how its connections ended.

use std::collections::HashMap;

use overwatch_common::connection::state;

use super::{
    OTHER, UNKNOWN,
    family::{Family, Kind, family},
    itself::Capped,
};
use crate::model::{
    open::Open,
    services::{PortTotals, SeriesCounts, Service, ServicePort, ServiceSums, Services},
    snapshot::{Role, state_name},
};

/// The labels of a service.
pub(super) const LABELS: &[&str] = &["role", "port", "process", "cgroup"];
/// The labels of its port.
pub(super) const PORT_LABELS: &[&str] = &["role", "port"];
fn role(role: Option<Role>) -> String {
    role.map_or(UNKNOWN, Role::name).to_owned()
}

/// The series of services, the largest port last. `path` finds the path of a control group.
pub(super) fn series<'a>(
    services: &Services,
    path: &dyn Fn(u64) -> Option<&'a str>,
) -> Vec<(Vec<String>, ServiceSums)> {
    let labels = |service: &Service| {
        let process = service.process.as_deref().unwrap_or(UNKNOWN).to_owned();
        let cgroup = service.cgroup_id.map_or(UNKNOWN, |number| path(number).unwrap_or(UNKNOWN)).to_owned();
        vec![role(service.role), service.port.to_string(), process, cgroup]
    };
    let mut own: Vec<_> = services.services().collect();
    own.sort_by_key(|(service, _)| *service);
    let mut series: Vec<(Vec<String>, ServiceSums)> = Vec::new();
    for (service, sums) in own {
        series.push((labels(service), sums));
    }
    // Two groups of one path are one, and so are those of which it is not known.
    series.sort_by(|(one, _), (two, _)| one.cmp(two));
    series.dedup_by(|(later, more), (labels, sums)| {
        let same = later == labels;
        if same {
            *sums = sums.plus(*more);
        }
        same
    });
    if has_others(services.service_counts()) {
        series.push((vec![OTHER.to_owned(); LABELS.len()], services.other_services()));
    }
    series
}

/// The series of ports.
pub(super) fn ports(services: &Services) -> Vec<(Vec<String>, PortTotals)> {
    let labels = |port: &ServicePort| vec![role(port.role), port.port.to_string()];
    let mut own: Vec<_> = services.ports().collect();
    own.sort_by_key(|(port, _)| **port);
    let mut series: Vec<_> = own.into_iter().map(|(port, totals)| (labels(port), totals)).collect();
    if has_others(services.port_counts()) {
        series.push((vec![OTHER.to_owned(); PORT_LABELS.len()], services.other_ports()));
    }
    series
}

fn has_others(counts: SeriesCounts) -> bool {
    counts.series >= counts.limit || counts.folded > 0
}

pub(super) fn capped(name: &'static str, counts: SeriesCounts) -> Capped {
    Capped { name, most: counts.limit as u64, now: counts.series as u64, folded: counts.folded }
}

#[rustfmt::skip]
pub(super) const FAMILIES: &[Family<ServiceSums>] = &[
    family("overwatch_sent_bytes_total", Kind::Counter, &[],
        "Bytes that the process sent over TCP, exactly, as the application handed them over.",
        |of, points| points.count(of.totals.sent_bytes)),
    family("overwatch_received_bytes_total", Kind::Counter, &[],
        "Bytes that the process received over TCP, likewise.",
        |of, points| points.count(of.totals.received_bytes)),
    family("overwatch_connections_opened_total", Kind::Counter, &[],
        "Connections that the process connected or accepted, also those that came to nothing.",
        |of, points| points.count(of.totals.opened)),
    family("overwatch_connections_closed_total", Kind::Counter, &[],
        "Connections that have ended, also such as were open before overwatch was.",
        |of, points| points.count(of.totals.closed)),
    family("overwatch_connections_open", Kind::Gauge, &[],
        "Connections that are open. Those that nobody has accepted are of the process that listens.",
        |of, points| points.count(of.open)),
];

#[rustfmt::skip]
pub(super) const PORT_FAMILIES: &[Family<PortTotals>] = &[
    family("overwatch_connection_endings_total", Kind::Counter, &["ending"],
        "Connections by how they ended: closed_by_us, closed_by_peer, reset_by_us, reset_by_peer, timed_out, refused, unreachable, aborted_unread (this end closed it with unread data), never_accepted, failed, unknown.",
        |of, points| for (ending, count) in of.endings() {
            points.put_at(&[ending.unwrap_or(UNKNOWN)], count as f64);
        }),
    family("overwatch_retransmitted_segments_total", Kind::Counter, &[],
        "Segments that were sent again, of connections that have ended.",
        |of, points| points.count(of.retransmitted_segments)),
];

/// The host's connections by state.
pub(super) struct States(Vec<(String, u64)>);

/// Those that an open connection can be in. A child of a listener in SYN_RECV is one of its SYN queue.
const STATES: [u32; 8] = [
    state::ESTABLISHED,
    state::SYN_SENT,
    state::SYN_RECV,
    state::FIN_WAIT1,
    state::FIN_WAIT2,
    state::CLOSE_WAIT,
    state::LAST_ACK,
    state::CLOSING,
];

impl States {
    pub(super) fn of(open: &Open) -> Self {
        let counts: HashMap<u32, u64> = open.states().collect();
        let named = |number: u32| {
            let name = state_name(number)?.to_lowercase();
            Some((name, counts.get(&number).copied().unwrap_or(0)))
        };
        Self(STATES.into_iter().filter_map(named).collect())
    }
}

#[rustfmt::skip]
pub(super) const STATE_FAMILIES: &[Family<States>] = &[
    family("overwatch_connections", Kind::Gauge, &["state"],
        "Open connections of the whole host by TCP state. In TIME_WAIT there is no connection any more that a process could have.",
        |of, points| for (state, count) in &of.0 {
            points.put_at(&[state], *count as f64);
        }),
];
