//! Sentences that say what a verdict rests on, with the numbers.

use std::time::{Duration, SystemTime};

use super::{
    Cause, Level, Verdict,
    facts::{Facts, is_stopped},
    history::{is_stale, is_syn_trouble, on_cpu},
};
use crate::model::{
    queue::{Holder, MOST_WAITING},
    state::{CLOSE, CLOSE_WAIT},
};

/// So many processes are named; more are counted.
const MOST_NAMED: usize = 4;

/// What a verdict that is not ok rests on. `now` is how bad the last interval was by itself.
pub(super) fn evidence(verdict: &Verdict, now: Level, time: SystemTime, facts: &Facts<'_>) -> Vec<String> {
    let sentences = [
        Some(waiting(facts)),
        gone(facts),
        refused(facts),
        full(facts),
        rates(verdict, facts),
        serving(verdict, time, facts),
        stopped(facts),
        threads(facts),
        processor_time(verdict, facts),
        descriptors(verdict, facts),
        throttling(verdict, facts),
        siblings(verdict, facts),
        syn_queue(facts),
        better(verdict, now, facts),
    ];
    sentences.into_iter().flatten().collect()
}

/// `350 ms`, `12.4 s`, `2 min 05 s`, `3 h 07 min`.
pub(super) fn length(length: Duration) -> String {
    let seconds = length.as_secs();
    match length.as_millis() {
        0 => format!("{} us", length.as_micros()),
        1..1000 => format!("{} ms", length.as_millis()),
        // From here on it would be 60.0 s.
        1000..59_950 => format!("{:.1} s", length.as_secs_f64()),
        _ if seconds < 3600 => format!("{} min {:02} s", seconds.max(60) / 60, seconds.max(60) % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `1 client waits`, `3 clients wait`.
fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The time of day, UTC; with the date when that was more than half a day ago.
fn moment(moment: SystemTime, now: SystemTime) -> String {
    // What cannot be written otherwise: times before 1970, when the clock is wrong.
    let text = humantime::format_rfc3339_seconds(moment.max(SystemTime::UNIX_EPOCH)).to_string();
    let is_recent = now.duration_since(moment).is_ok_and(|ago| ago < Duration::from_secs(12 * 3600));
    match text.split_once('T') {
        Some((_, of_day)) if is_recent => format!("{} UTC", of_day.trim_end_matches('Z')),
        _ => text,
    }
}

fn waiting(facts: &Facts<'_>) -> String {
    let queue = facts.queue;
    let window = facts.window;
    if queue.accept_queue == 0 && !queue.accepts_seen {
        return "No client waits now.".to_owned();
    }
    if queue.accept_queue == 0 {
        let longest = facts.history.longest_wait();
        return match longest {
            Some(longest) => format!(
                "Nobody waits now; of those accepted in the last {} one had waited {}.",
                length(window.length),
                length(longest)
            ),
            None => {
                format!("Nobody waits now; {} accepted in the last {}.", people(window.accepts), length(window.length))
            }
        };
    }
    let clients = count(queue.waiting_total.max(u64::from(queue.accept_queue)), "client waits", "clients wait");
    let oldest = match (queue.oldest_wait(), facts.oldest_wait()) {
        (Some(oldest), _) => format!(", the oldest for {}", length(oldest)),
        (None, Some(least)) if least > Duration::ZERO => format!(", the oldest for at least {}", length(least)),
        _ => String::new(),
    };
    if !queue.accepts_seen {
        return format!(
            "{clients}{oldest}. What the server accepts and serves is not known here, so the cause is not known either."
        );
    }
    let quiet = facts.history.quiet;
    let accepted = if quiet >= facts.thresholds.settle || window.accepts == 0 {
        format!("nobody was accepted in the last {}", length(quiet))
    } else {
        format!("{} accepted in the last {}", people(window.accepts), length(window.length))
    };
    format!("{clients}{oldest}; {accepted}.")
}

fn people(number: u64) -> String {
    if number == 0 { "nobody was".to_owned() } else { count(number, "was", "were") }
}

/// Clients that are there no more.
fn gone(facts: &Facts<'_>) -> Option<String> {
    let queue = facts.queue;
    let gone = queue.waiting.iter().filter(|client| matches!(client.state, CLOSE | CLOSE_WAIT)).count();
    let first = if queue.waiting_total > MOST_WAITING as u64 {
        format!(" of the first {}", queue.waiting.len())
    } else {
        String::new()
    };
    (gone > 0).then(|| {
        // sock_diag does not list clients that have reset their connection.
        let is_all = queue.waiting.len() as u64 >= queue.waiting_total.min(MOST_WAITING as u64);
        let least = if is_all { "" } else { "At least " };
        let have = format!("{least}{}", count(gone as u64, "client", "clients"));
        let verb = if gone == 1 { "has" } else { "have" };
        format!(
            "{have}{first} {verb} closed the connection or reset it, and still {} a place in the queue.",
            if gone == 1 { "takes" } else { "take" }
        )
    })
}

fn refused(facts: &Facts<'_>) -> Option<String> {
    let queue = facts.queue;
    let window = facts.window;
    if window.overflows == 0 {
        let total = queue.overflows().total;
        return facts
            .history
            .refusing
            .then(|| format!("{} refused so far because the accept queue is full.", packets(total)));
    }
    let about = if queue.overflows_exact {
        ""
    } else {
        ", worked out from the drops of the socket and the overflows of the namespace"
    };
    let stages = match queue.overflows_by_packet() {
        Some((_, at_ack)) if at_ack.total == 0 => "at the SYN",
        Some((at_syn, _)) if at_syn.total == 0 => "at the last ACK of the handshake",
        _ => "at the SYN or at the last ACK of the handshake",
    };
    Some(format!(
        "{} refused in the last {} because the accept queue was full, {stages}{about}.",
        packets(window.overflows),
        length(window.length)
    ))
}

/// A client that tries again is counted again.
fn packets(number: u64) -> String {
    if number == 1 { "1 attempt was".to_owned() } else { format!("{number} attempts were") }
}

fn full(facts: &Facts<'_>) -> Option<String> {
    let queue = facts.queue;
    let capacity = u64::from(queue.backlog_limit) + 1;
    let limit = queue.backlog_limit;
    if queue.is_full() {
        return Some(format!("The accept queue is full: it holds {} with a limit of {limit}.", queue.accept_queue));
    }
    let most = queue.accept_queue_peak;
    facts.is_nearly_full().then(|| {
        format!("At most {most} were in the accept queue at once in this interval; {capacity} fit (limit {limit}).")
    })
}

/// Only where they are the point.
fn rates(verdict: &Verdict, facts: &Facts<'_>) -> Option<String> {
    if !matches!(verdict.cause, Cause::SlowAccept | Cause::BacklogTooSmall | Cause::CpuThrottled) {
        return None;
    }
    let pressed = facts.history.under_wait();
    let is_enough = pressed.length >= facts.thresholds.pressed();
    let sums = if is_enough { pressed } else { facts.window };
    Some(format!(
        "In the last {} there came {:.1} connections per second into the queue, and {:.1} per second were accepted.",
        length(sums.length),
        sums.rate(sums.arrivals),
        sums.rate(sums.accepts)
    ))
}

fn serving(verdict: &Verdict, time: SystemTime, facts: &Facts<'_>) -> Option<String> {
    if verdict.level < Level::Saturated || matches!(verdict.cause, Cause::SynFlood | Cause::BacklogTooSmall) {
        return None;
    }
    let Some(serving) = facts.queue.serving else {
        return Some("How many connections are being served here is not known.".to_owned());
    };
    let are = count(serving, "connection is being served", "connections are being served");
    Some(match (verdict.cause, verdict.serving_ceiling, verdict.since) {
        (Cause::WorkerLimit, Some(ceiling), Some(since)) if ceiling == serving => {
            format!("{are}, and not more since {}.", moment(since, time))
        }
        (Cause::WorkerLimit, Some(ceiling), Some(since)) => {
            format!("{are}, and never more than {ceiling} since {}.", moment(since, time))
        }
        _ => format!("{are}."),
    })
}

/// A process may call itself anything, and has no name when that is not known.
fn shown(comm: &str) -> &str {
    if comm.is_empty() { "a process" } else { comm }
}

fn names(holders: &[&Holder]) -> String {
    let mut named: Vec<String> =
        holders.iter().take(MOST_NAMED).map(|holder| format!("{} (pid {})", shown(&holder.comm), holder.pid)).collect();
    if holders.len() > MOST_NAMED {
        named.push(format!("{} more", holders.len() - MOST_NAMED));
    }
    named.join(", ")
}

fn stopped(facts: &Facts<'_>) -> Option<String> {
    let stopped: Vec<&Holder> = facts.queue.holders.iter().filter(|holder| is_stopped(holder)).collect();
    let all = facts.queue.holders.len();
    match stopped.len() {
        0 => None,
        1 if all == 1 => {
            Some(format!("The process that listens is stopped by a signal or a debugger: {}.", names(&stopped)))
        }
        number if number == all => {
            Some(format!("All {all} processes that listen are stopped by a signal or a debugger: {}.", names(&stopped)))
        }
        number => {
            let are = if number == 1 { "is" } else { "are" };
            Some(format!(
                "{number} of {all} processes that listen {are} stopped by a signal or a debugger: {}.",
                names(&stopped)
            ))
        }
    }
}

/// What those threads do that are not stopped.
fn threads(facts: &Facts<'_>) -> Option<String> {
    let seen: Vec<_> = facts.queue.holders.iter().filter_map(|holder| holder.threads).collect();
    let sum =
        |of: fn(&crate::model::queue::Threads) -> u32| seen.iter().map(|threads| u64::from(of(threads))).sum::<u64>();
    let (total, stopped) = (sum(|threads| threads.total), sum(|threads| threads.stopped));
    if facts.queue.accept_queue == 0 || total == 0 || stopped >= total {
        return None;
    }
    let (running, sleeping, uninterruptible) =
        (sum(|threads| threads.running), sum(|threads| threads.sleeping), sum(|threads| threads.uninterruptible));
    let mut parts = vec![format!("{running} running"), format!("{sleeping} sleeping")];
    if uninterruptible > 0 {
        parts.push(format!("{uninterruptible} waiting for a disk or the like (D)"));
    }
    if stopped > 0 {
        parts.push(format!("{stopped} stopped"));
    }
    let processes = count(facts.queue.holders.len() as u64, "process", "processes");
    Some(format!("{} of {processes}: {}.", count(total, "thread", "threads"), parts.join(", ")))
}

fn processor_time(verdict: &Verdict, facts: &Facts<'_>) -> Option<String> {
    if !matches!(verdict.cause, Cause::WorkerLimit | Cause::NotAccepting | Cause::OneWorkerStuck | Cause::SlowAccept) {
        return None;
    }
    match facts.history.idle {
        Some(idle) if idle > Duration::ZERO => {
            Some(format!("The processes have used no processor time for {}.", length(idle)))
        }
        _ => on_cpu(facts.queue)
            .map(|used| format!("The processes used {} of processor time in this interval.", length(used))),
    }
}

fn descriptors(verdict: &Verdict, facts: &Facts<'_>) -> Option<String> {
    let (holder, open, limit) = facts.nearly_out_of_descriptors()?;
    (verdict.cause == Cause::FdLimit || open >= limit)
        .then(|| format!("{} has {open} of {limit} descriptors open (RLIMIT_NOFILE).", names(&[holder])))
}

fn throttling(verdict: &Verdict, facts: &Facts<'_>) -> Option<String> {
    let sums = facts.window;
    let share = sums.throttled_share()?;
    let stood =
        facts.queue.holders.iter().filter_map(|holder| holder.throttling).map(|throttling| throttling.throttled).max();
    (verdict.cause == Cause::CpuThrottled || share >= facts.thresholds.throttled_share).then(|| {
        format!(
            "In {} of {} periods ({:.0} %) the control group was throttled, having used up its processor time; in this interval its threads stood still for {} in all.",
            sums.throttled_periods,
            sums.periods,
            share * 100.0,
            length(stood.unwrap_or_default())
        )
    })
}

fn siblings(verdict: &Verdict, facts: &Facts<'_>) -> Option<String> {
    (verdict.cause == Cause::OneWorkerStuck).then(|| {
        format!(
            "{} at this address (SO_REUSEPORT); at {} of them nobody waits, and {} accepted there in the last {}.",
            if facts.queue.siblings == 1 {
                "1 other socket listens".to_owned()
            } else {
                format!("{} other sockets listen", facts.queue.siblings)
            },
            facts.siblings.fine,
            people(facts.siblings.accepts),
            length(facts.window.length)
        )
    })
}

fn syn_queue(facts: &Facts<'_>) -> Option<String> {
    let queue = facts.queue;
    let window = facts.window;
    if !is_syn_trouble(queue) && !is_stale(queue) && window.syn_refused + window.syn_cookies == 0 {
        return None;
    }
    let mut text = queue.syn_queue.map_or_else(
        || "How many handshakes are not complete is not known".to_owned(),
        |of| {
            format!(
                "{} not complete (limit {}), {} of them so long that the SYN-ACK was sent again",
                count(of.length.into(), "handshake is", "handshakes are"),
                queue.backlog_limit,
                of.old
            )
        },
    );
    if window.syn_cookies > 0 {
        text += &format!("; {} answered with a cookie", count(window.syn_cookies, "SYN was", "SYNs were"));
    }
    if window.syn_refused > 0 {
        text += &format!("; {} refused because this queue was full", count(window.syn_refused, "SYN was", "SYNs were"));
    }
    text += &format!("; {} completed in the last {}.", people(window.arrivals), length(window.length));
    if queue.syn_queue.is_some_and(|of| of.defers_accept) {
        text += " TCP_DEFER_ACCEPT is set: clients that are connected and say nothing are among them.";
    }
    Some(text)
}

/// A verdict that stands although the last interval was better.
fn better(verdict: &Verdict, now: Level, facts: &Facts<'_>) -> Option<String> {
    (now < verdict.level).then(|| {
        format!(
            "This interval by itself was {}; the verdict improves when it has been better for {}.",
            now.name(),
            length(facts.thresholds.calm)
        )
    })
}
