//! Listening sockets: which have series of their own, and the metrics of each.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    OTHER, UNKNOWN,
    family::{Distribution, Family, Kind, family},
};
use crate::model::{
    queue::{BacklogOrigin, Holder, Queue, Row, WAIT_EDGES, WaitTotals},
    verdict::{Cause, Level},
};

#[cfg(test)]
mod tests;

/// The labels of all of them.
pub(super) const LABELS: &[&str] = &["listener", "netns", "socket"];
/// At most so many process names are in a label.
const MOST_NAMES: usize = 5;

/// What grows.
#[derive(Clone, Debug, Default, PartialEq)]
struct Totals {
    /// `None` when accepts are not seen, and the same of accepts and waits.
    arrivals: Option<u64>,
    accepts: Option<u64>,
    /// Refused at the SYN and at the last ACK; `None` in a tier that does not tell them apart.
    overflows: Option<[u64; 2]>,
    /// Refused at either.
    overflows_of_unknown_stage: Option<u64>,
    drops: u64,
    syn_cookies: Option<u64>,
    syn_queue_overflows: Option<u64>,
    waits: Option<WaitTotals>,
}

impl Totals {
    fn of(queue: &Queue) -> Self {
        let by_packet = queue.overflows_by_packet();
        Self {
            arrivals: queue.by_accepts(queue.arrivals.total),
            accepts: queue.by_accepts(queue.accepts.total),
            overflows: by_packet.map(|(syn, ack)| [syn.total, ack.total]),
            overflows_of_unknown_stage: by_packet.is_none().then(|| queue.overflows().total),
            drops: queue.other_drops.total,
            syn_cookies: queue.syn_cookies.map(|count| count.total),
            syn_queue_overflows: queue.syn_queue_overflows.map(|count| count.total),
            waits: queue.by_accepts(queue.accept_wait_totals),
        }
    }

    fn add(&mut self, more: &Self) {
        self.arrivals = sum(self.arrivals, more.arrivals, |one, two| one + two);
        self.accepts = sum(self.accepts, more.accepts, |one, two| one + two);
        self.overflows = sum(self.overflows, more.overflows, |one, two| [one[0] + two[0], one[1] + two[1]]);
        self.overflows_of_unknown_stage =
            sum(self.overflows_of_unknown_stage, more.overflows_of_unknown_stage, |one, two| one + two);
        self.drops += more.drops;
        self.syn_cookies = sum(self.syn_cookies, more.syn_cookies, |one, two| one + two);
        self.syn_queue_overflows = sum(self.syn_queue_overflows, more.syn_queue_overflows, |one, two| one + two);
        self.waits = sum(self.waits, more.waits, |one, two| one.plus(&two));
    }
}

/// Of what is known.
fn sum<T>(one: Option<T>, two: Option<T>, add: impl FnOnce(T, T) -> T) -> Option<T> {
    match (one, two) {
        (Some(one), Some(two)) => Some(add(one, two)),
        (one, two) => one.or(two),
    }
}

/// What is said of one listening socket, or of all that have no series of their own.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Numbers {
    totals: Totals,
    queue: u64,
    limit: u64,
    peak: u64,
    /// `None` when it cannot be read.
    syn_queue: Option<u64>,
    waiting: u64,
    /// `None` when somebody waits and it is not known for how long.
    oldest_wait: Option<Duration>,
    /// `None` when it is not known.
    serving: Option<u64>,
    serving_ceiling: Option<u64>,
    /// Of the process that is nearest to its limit: what it has open, and may have.
    open_files: Option<(u64, u64)>,
    level: Level,
    cause: Cause,
    since: Option<SystemTime>,
    /// Of one socket only.
    info: Option<Info>,
}

#[derive(Clone, Debug, PartialEq)]
struct Info {
    processes: String,
    cgroup: String,
    backlog_origin: Option<BacklogOrigin>,
}

impl Numbers {
    fn of<'a>(row: &Row, peak: u32, path: &dyn Fn(u64) -> Option<&'a str>) -> Self {
        let (queue, verdict) = (&row.queue, &row.verdict);
        let cgroup = queue.holders.first().and_then(|holder| path(holder.cgroup_id));
        Self {
            totals: Totals::of(queue),
            queue: queue.accept_queue.into(),
            limit: queue.backlog_limit.into(),
            peak: peak.into(),
            syn_queue: queue.syn_queue.map(|of| of.length.into()),
            waiting: queue.waiting_total,
            oldest_wait: queue.oldest_wait().or_else(|| (queue.waiting_total == 0).then_some(Duration::ZERO)),
            serving: queue.serving,
            serving_ceiling: verdict.serving_ceiling,
            open_files: queue.holders.iter().filter_map(open_files).max_by(nearer),
            level: verdict.level,
            cause: verdict.cause,
            since: verdict.since,
            info: Some(Info {
                processes: names(&queue.holders),
                cgroup: cgroup.unwrap_or(UNKNOWN).to_owned(),
                backlog_origin: queue.backlog_origin(),
            }),
        }
    }

    /// What has been counted of those that have gone.
    fn of_gone(totals: Totals) -> Self {
        Self {
            totals,
            queue: 0,
            limit: 0,
            peak: 0,
            syn_queue: Some(0),
            waiting: 0,
            oldest_wait: Some(Duration::ZERO),
            serving: Some(0),
            serving_ceiling: None,
            open_files: None,
            level: Level::Ok,
            cause: Cause::None,
            since: None,
            info: None,
        }
    }

    /// Sums of what can be summed, and the worst of the rest.
    fn add(&mut self, more: &Self) {
        self.totals.add(&more.totals);
        self.queue += more.queue;
        self.limit += more.limit;
        self.peak += more.peak;
        self.syn_queue = self.syn_queue.zip(more.syn_queue).map(|(one, two)| one + two);
        self.waiting += more.waiting;
        self.oldest_wait = self.oldest_wait.zip(more.oldest_wait).map(|(one, two)| one.max(two));
        self.serving = self.serving.zip(more.serving).map(|(one, two)| one + two);
        self.open_files = [self.open_files, more.open_files].into_iter().flatten().max_by(nearer);
        if more.level > self.level {
            (self.level, self.cause, self.since) = (more.level, more.cause, more.since);
        }
    }
}

fn open_files(holder: &Holder) -> Option<(u64, u64)> {
    holder.open_files.zip(holder.open_files_limit)
}

/// Which of two processes has the larger share of its descriptors open.
fn nearer(one: &(u64, u64), two: &(u64, u64)) -> Ordering {
    let share = |(open, limit): &(u64, u64)| *open as f64 / (*limit).max(1) as f64;
    share(one).total_cmp(&share(two))
}

/// Each name once, in the order of the alphabet.
fn names(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return UNKNOWN.to_owned();
    }
    let names: BTreeSet<&str> = holders.iter().map(|holder| holder.comm.as_str()).collect();
    names.into_iter().take(MOST_NAMES).collect::<Vec<_>>().join(",")
}

/// What there is of a listening socket besides its row.
#[derive(Clone, Debug, Default)]
struct Held {
    /// Which it is of those that share its address. It keeps that while it is there: what another has counted is not its.
    ordinal: u64,
    /// Most in the queue since the scrape before.
    peak: u32,
    totals: Totals,
}

/// The listening sockets, by their numbers: the older one has the lower.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    rows: Vec<Row>,
    own: BTreeMap<u64, Held>,
    /// Those without series of their own. They stay here: a series that begins with what was counted elsewhere would count it twice.
    others: BTreeMap<u64, Held>,
    /// What those have counted that have gone.
    gone: Totals,
    /// How many came here.
    folded: u64,
}

impl Listeners {
    /// Takes an interval; at most so many have series of their own.
    pub(super) fn update(&mut self, mut rows: Vec<Row>, most: usize) {
        rows.sort_by_key(|row| row.queue.listener);
        let present: BTreeSet<u64> = rows.iter().map(|row| row.queue.listener).collect();
        self.own.retain(|number, _| present.contains(number));
        let gone = &mut self.gone;
        self.others.retain(|number, held| {
            let stays = present.contains(number);
            if !stays {
                gone.add(&held.totals);
            }
            stays
        });
        while self.own.len() > most
            && let Some((number, held)) = self.own.pop_last()
        {
            self.others.insert(number, held);
            self.folded += 1;
        }
        let mut ordinals = self.ordinals(&rows);
        for row in &rows {
            let number = row.queue.listener;
            let is_new = !self.own.contains_key(&number) && !self.others.contains_key(&number);
            let held = match self.others.get_mut(&number) {
                Some(held) => held,
                None if self.own.contains_key(&number) || self.own.len() < most => self.own.entry(number).or_default(),
                None => {
                    self.folded += 1;
                    self.others.entry(number).or_default()
                }
            };
            if is_new {
                let taken = ordinals.entry(place(&row.queue)).or_default();
                held.ordinal = (1..).find(|ordinal| !taken.contains(ordinal)).unwrap_or_default();
                taken.insert(held.ordinal);
            }
            held.peak = held.peak.max(row.queue.accept_queue_peak);
            held.totals = Totals::of(&row.queue);
        }
        self.rows = rows;
    }

    /// Those that are taken, by address.
    fn ordinals(&self, rows: &[Row]) -> HashMap<Place, BTreeSet<u64>> {
        let mut ordinals: HashMap<Place, BTreeSet<u64>> = HashMap::new();
        for queue in rows.iter().map(|row| &row.queue) {
            let held = self.own.get(&queue.listener).or_else(|| self.others.get(&queue.listener));
            if let Some(held) = held {
                ordinals.entry(place(queue)).or_default().insert(held.ordinal);
            }
        }
        ordinals
    }

    /// The control groups of those that listen.
    pub(super) fn cgroups(&self) -> impl Iterator<Item = u64> {
        let first = self.rows.iter().filter_map(|row| row.queue.holders.first());
        first.map(|holder| holder.cgroup_id).filter(|number| *number != 0)
    }

    /// How many have series of their own, and how many came to those that do not.
    pub(super) fn series(&self) -> (u64, u64) {
        (self.own.len() as u64, self.folded)
    }

    /// The series as of the last interval. Peaks begin anew.
    pub(super) fn take<'a>(&mut self, path: &dyn Fn(u64) -> Option<&'a str>) -> Vec<(Vec<String>, Numbers)> {
        let mut series = Vec::new();
        let mut others = Numbers::of_gone(self.gone.clone());
        for row in &self.rows {
            let queue = &row.queue;
            if let Some(held) = self.own.get_mut(&queue.listener) {
                let peak = std::mem::replace(&mut held.peak, queue.accept_queue);
                series.push((labels(queue, held.ordinal), Numbers::of(row, peak, path)));
            } else if let Some(held) = self.others.get_mut(&queue.listener) {
                let peak = std::mem::replace(&mut held.peak, queue.accept_queue);
                others.add(&Numbers::of(row, peak, path));
            }
        }
        if self.folded > 0 {
            series.push((vec![OTHER.to_owned(); LABELS.len()], others));
        }
        series
    }
}

/// Namespace, address and port.
type Place = (u32, IpAddr, u16);

fn place(queue: &Queue) -> Place {
    (queue.netns, queue.local_addr, queue.local_port)
}

fn labels(queue: &Queue, ordinal: u64) -> Vec<String> {
    let listener = std::net::SocketAddr::new(queue.local_addr, queue.local_port);
    vec![listener.to_string(), queue.netns.to_string(), ordinal.to_string()]
}

#[rustfmt::skip]
pub(super) const FAMILIES: &[Family<Numbers>] = &[
    family("overwatch_listener_info", Kind::Gauge, &["processes", "cgroup", "backlog_origin"],
        "1. Names of the processes that listen, at most 5; the control group of the first; where the queue's limit comes from: listen, somaxconn or unknown.",
        |of, points| if let Some(info) = &of.info {
            let origin = info.backlog_origin.map_or(UNKNOWN, BacklogOrigin::name);
            points.put_at(&[&info.processes, &info.cgroup, origin], 1.0);
        }),
    family("overwatch_listener_verdict", Kind::Gauge, &["verdict"],
        "1 for the verdict that holds, 0 for the others: ok, busy (a queue, short waits), saturated (clients wait too long), overflowing (connections are refused).",
        |of, points| points.state(Level::NAMES, of.level.name())),
    family("overwatch_listener_cause", Kind::Gauge, &["cause"],
        "1 for the cause of the verdict, 0 for the others; the runbooks are named after them.",
        |of, points| points.state(Cause::NAMES, of.cause.name())),
    family("overwatch_listener_verdict_since_timestamp_seconds", Kind::Gauge, &[],
        "Since when verdict and cause hold, Unix time; absent while the verdict is ok.",
        |of, points| points.put_known(of.since.map(unix_seconds))),
    family("overwatch_listener_accept_queue_length", Kind::Gauge, &[],
        "Connections in the accept queue.",
        |of, points| points.count(of.queue)),
    family("overwatch_listener_accept_queue_limit", Kind::Gauge, &[],
        "The kernel's limit of the accept queue. One more fits: it is full at limit + 1.",
        |of, points| points.count(of.limit)),
    family("overwatch_listener_accept_queue_peak_length", Kind::Gauge, &[],
        "Most connections in the accept queue at any time since the scrape before, whoever scraped.",
        |of, points| points.count(of.peak)),
    family("overwatch_listener_syn_queue_length", Kind::Gauge, &[],
        "Half-open connections; absent when they cannot be read.",
        |of, points| points.put_known(of.syn_queue.map(|length| length as f64))),
    family("overwatch_listener_waiting_clients", Kind::Gauge, &[],
        "Clients that are connected and that nobody has accepted, also those that have given up and still take their place.",
        |of, points| points.count(of.waiting)),
    family("overwatch_listener_oldest_wait_seconds", Kind::Gauge, &[],
        "How long the client has waited that came first; 0 when nobody waits, absent when it is not known.",
        |of, points| points.put_known(of.oldest_wait.map(|wait| wait.as_secs_f64()))),
    family("overwatch_listener_arrivals_total", Kind::Counter, &[],
        "Connections that entered the accept queue; absent when no program sees accepts.",
        |of, points| points.put_known(of.totals.arrivals.map(|count| count as f64))),
    family("overwatch_listener_accepts_total", Kind::Counter, &[],
        "Connections that were accepted; absent when no program sees accepts.",
        |of, points| points.put_known(of.totals.accepts.map(|count| count as f64))),
    family("overwatch_listener_overflows_total", Kind::Counter, &["stage"],
        "Connections refused because the accept queue was full: at the SYN (syn), at the last packet of the handshake (ack), or at either where the tier does not tell them apart (unknown).",
        |of, points| {
            if let Some([syn, ack]) = of.totals.overflows {
                points.put_at(&["syn"], syn as f64);
                points.put_at(&["ack"], ack as f64);
            }
            if let Some(all) = of.totals.overflows_of_unknown_stage {
                points.put_at(&["unknown"], all as f64);
            }
        }),
    family("overwatch_listener_drops_total", Kind::Counter, &[],
        "Packets to the socket that were dropped for other reasons than a full accept queue.",
        |of, points| points.count(of.totals.drops)),
    family("overwatch_listener_syn_cookies_total", Kind::Counter, &[],
        "SYNs that were answered with a SYN cookie since the SYN queue was full; absent in a tier that does not see it.",
        |of, points| points.put_known(of.totals.syn_cookies.map(|count| count as f64))),
    family("overwatch_listener_syn_queue_overflows_total", Kind::Counter, &[],
        "SYNs refused because the SYN queue was full and there are no cookies; absent in a tier that does not see it.",
        |of, points| points.put_known(of.totals.syn_queue_overflows.map(|count| count as f64))),
    family("overwatch_listener_serving_connections", Kind::Gauge, &[],
        "Connections that were accepted here and that a process has not closed; absent when it is not known of which of several sockets they are.",
        |of, points| points.put_known(of.serving.map(|serving| serving as f64))),
    family("overwatch_listener_serving_ceiling_connections", Kind::Gauge, &[],
        "The number of served connections that the server does not get beyond while clients wait; absent when none wait.",
        |of, points| points.put_known(of.serving_ceiling.map(|ceiling| ceiling as f64))),
    family("overwatch_listener_accept_wait_seconds", Kind::Histogram, &[],
        "How long accepted connections had waited, from queued to accepted, without the handshake; absent when no program sees accepts.",
        |of, points| if let Some(waits) = &of.totals.waits {
            points.distribution(&Distribution {
                edges_seconds: &WAIT_EDGES.map(|edge| edge.as_secs_f64()),
                at_most: &waits.at_most,
                count: waits.count,
                sum_seconds: waits.sum.as_secs_f64(),
            });
        }),
    family("overwatch_listener_open_files", Kind::Gauge, &[],
        "File descriptors that the process has open which is nearest to its limit; absent when none was looked at, which is done where clients wait.",
        |of, points| points.put_known(of.open_files.map(|(open, _)| open as f64))),
    family("overwatch_listener_open_files_limit", Kind::Gauge, &[],
        "How many it may have open (RLIMIT_NOFILE, soft); absent likewise.",
        |of, points| points.put_known(of.open_files.map(|(_, limit)| limit as f64))),
];

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
