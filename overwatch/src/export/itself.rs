//! What overwatch says about itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overwatch_common::counter::Counter;

use super::family::{Distribution, Family, Kind, family};
use crate::{
    collect::{Counters, MapReading, ProgramReading},
    model::{bytes::Bytes, losses::LOSSES},
    probes::{
        capabilities::{Capabilities, Level},
        catalogue::Tier,
    },
};

/// How long something took, so many times.
#[derive(Clone, Debug, Default)]
pub struct Timing {
    at_most: [u64; EDGES_SECONDS.len()],
    count: u64,
    sum: Duration,
}

/// From a tick without anything to do to one that holds up a scrape.
const EDGES_SECONDS: [f64; 12] = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

impl Timing {
    /// It took that long once more.
    pub fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let first = EDGES_SECONDS.partition_point(|edge| *edge < seconds);
        for at_most in &mut self.at_most[first..] {
            *at_most += 1;
        }
        self.count += 1;
        self.sum += took;
    }

    fn distribution(&self) -> Distribution<'_> {
        Distribution {
            edges_seconds: &EDGES_SECONDS,
            at_most: &self.at_most,
            count: self.count,
            sum_seconds: self.sum.as_secs_f64(),
        }
    }
}

/// A family of which only so many label sets have series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capped {
    pub(super) name: &'static str,
    pub(super) most: u64,
    pub(super) now: u64,
    pub(super) folded: u64,
}

/// What is said.
#[derive(Debug)]
pub struct Itself {
    /// How it is attached.
    pub tier: Tier,
    /// What it can do on this host.
    pub capabilities: Capabilities,
    /// What it runs without, and what that loses.
    pub degradations: Vec<(String, &'static str)>,
    /// The programs.
    pub programs: Vec<ProgramReading>,
    /// The maps.
    pub maps: Vec<MapReading>,
    /// What the kernel side has counted.
    pub counters: Counters,
    /// Work between two scrapes: emptying the ring buffer, ending an interval.
    pub ticks: Timing,
    /// Making the page.
    pub scrapes: Timing,
    /// Whether the last reload of the configuration went well, and when one last did.
    pub reload: (bool, SystemTime),
}

/// The same, with how many series there are.
pub(super) struct Facts {
    pub(super) itself: Itself,
    pub(super) capped: [Capped; 3],
    pub(super) unattributed: Bytes,
}

#[rustfmt::skip]
pub(super) const FAMILIES: &[Family<Facts>] = &[
    family("overwatch_build_info", Kind::Gauge, &["version"], "1.",
        |_, points| points.put_at(&[env!("CARGO_PKG_VERSION")], 1.0)),
    family("overwatch_attach_tier", Kind::Gauge, &["tier"],
        "1 for the way in which overwatch is attached to the kernel, 0 for the others: fentry, kprobe, tracepoint.",
        |of, points| points.state(&Tier::ALL.map(Tier::name), of.itself.tier.name())),
    family("overwatch_capability", Kind::Gauge, &["capability", "level"],
        "1 for the level of each capability on this host, 0 for the others. Capabilities: bytes, life (states, ends and failures of connections), \
         listeners; levels: full, partial (a degradation concerns it), none.",
        |of, points| for (capability, now) in of.itself.capabilities.each() {
            for level in Level::ALL {
                points.put_at(&[capability.name(), level.name()], if level == now { 1.0 } else { 0.0 });
            }
        }),
    family("overwatch_degradations", Kind::Gauge, &[],
        "Hooks and sources that overwatch has to do without on this host.",
        |of, points| points.count(of.itself.degradations.len() as u64)),
    family("overwatch_degradation_info", Kind::Gauge, &["missing", "loss"],
        "1 for each of them, with what is not known for want of it.",
        |of, points| for (missing, loss) in &of.itself.degradations {
            points.put_at(&[missing, loss], 1.0);
        }),
    family("overwatch_program_attached", Kind::Gauge, &["program", "kind"],
        "1 for each BPF program that is loaded.",
        |of, points| for program in &of.itself.programs {
            points.put_at(&[&program.name, program.kind], 1.0);
        }),
    family("overwatch_program_run_seconds_total", Kind::Counter, &["program"],
        "Time that the program has run; absent unless the sysctl kernel.bpf_stats_enabled is on, which makes each run a little dearer.",
        |of, points| for program in &of.itself.programs {
            if let Some((_, time)) = program.runs {
                points.put_at(&[&program.name], time.as_secs_f64());
            }
        }),
    family("overwatch_program_runs_total", Kind::Counter, &["program"],
        "How often it has run; absent likewise.",
        |of, points| for program in &of.itself.programs {
            if let Some((runs, _)) = program.runs {
                points.put_at(&[&program.name], runs as f64);
            }
        }),
    family("overwatch_program_skipped_runs_total", Kind::Counter, &["program"],
        "Runs that the kernel has left out, since the program was interrupted on that CPU; absent before Linux 5.12.",
        |of, points| for program in &of.itself.programs {
            if let Some(skipped) = program.skipped_runs {
                points.put_at(&[&program.name], skipped as f64);
            }
        }),
    family("overwatch_map_entries", Kind::Gauge, &["map"],
        "Entries of the BPF map.",
        |of, points| for map in &of.itself.maps {
            points.put_at(&[map.name], map.entries as f64);
        }),
    family("overwatch_map_capacity_entries", Kind::Gauge, &["map"],
        "How many it has room for.",
        |of, points| for map in &of.itself.maps {
            points.put_at(&[map.name], f64::from(map.capacity));
        }),
    family("overwatch_unattributed_bytes_total", Kind::Counter, &["direction"],
        "Bytes that could be put on no connection or process: sent, received.",
        |of, points| {
            points.put_at(&["sent"], of.unattributed.sent as f64);
            points.put_at(&["received"], of.unattributed.received as f64);
        }),
    family("overwatch_lost_events_total", Kind::Counter, &["event"],
        "What the kernel side could not tell: the end of a connection (closed), a change of state or owner (change; the whole table is read \
         then), an accept (accept), a listening socket (listener), a call that found the connection table (connection) or that of shares (share) full.",
        |of, points| for loss in LOSSES {
            points.put_at(&[loss.event], of.itself.counters.get(loss.counter) as f64);
        }),
    family("overwatch_deferred_events_total", Kind::Counter, &["event"],
        "What did not fit into the ring buffer and came by another way: the end of a connection (closed), word that one moves bytes (activity).",
        |of, points| for (event, counter) in DEFERRED {
            points.put_at(&[event], of.itself.counters.get(*counter) as f64);
        }),
    family("overwatch_tick_duration_seconds", Kind::Histogram, &[],
        "How long it took to take what the kernel side had to tell, several times a second.",
        |of, points| points.distribution(&of.itself.ticks.distribution())),
    family("overwatch_scrape_duration_seconds", Kind::Histogram, &[],
        "How long it took to make this page, the times before.",
        |of, points| points.distribution(&of.itself.scrapes.distribution())),
    family("overwatch_series", Kind::Gauge, &["family"],
        "Label sets that have series of their own, of listeners, services and ports.",
        |of, points| for capped in &of.capped {
            points.put_at(&[capped.name], capped.now as f64);
        }),
    family("overwatch_series_limit", Kind::Gauge, &["family"],
        "How many may.",
        |of, points| for capped in &of.capped {
            points.put_at(&[capped.name], capped.most as f64);
        }),
    family("overwatch_series_folded_total", Kind::Counter, &["family"],
        "How often something went to the series of all others, since there was no room for one of its own.",
        |of, points| for capped in &of.capped {
            points.put_at(&[capped.name], capped.folded as f64);
        }),
    family("overwatch_config_last_reload_successful", Kind::Gauge, &[],
        "1 when the configuration could be read the last time, 0 when the one before is still in force.",
        |of, points| points.put(if of.itself.reload.0 { 1.0 } else { 0.0 })),
    family("overwatch_config_last_reload_success_timestamp_seconds", Kind::Gauge, &[],
        "When the configuration that is in force was read, Unix time.",
        |of, points| points.put(of.itself.reload.1.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())),
];

const DEFERRED: &[(&str, Counter)] = &[("closed", Counter::ClosedDeferred), ("activity", Counter::ActivityDeferred)];
