//! What overwatch says of itself, line by line.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use super::{board::Itself, theme::Tone};
use crate::show::text::{bytes, count, duration};

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What names it, wherever it stands.
    pub number: u64,
    /// What it is about.
    pub what: String,
    /// What there is to say.
    pub value: String,
    /// And how.
    pub tone: Tone,
}

/// All of them: first what is not as it should be.
pub(super) fn facts(itself: &Itself) -> Vec<Fact> {
    let mut lines: Vec<(String, String, Tone)> = Vec::new();
    let mut say = |what: String, value: String, tone: Tone| lines.push((what, value, tone));
    for (what, lost) in itself.lost.iter().filter(|(_, lost)| *lost > 0) {
        say(format!("LOST: {what}"), count(*lost), Tone::Alarm);
    }
    let unattributed = itself.unattributed;
    if unattributed.both() > 0 {
        let value =
            format!("sent {}, received {}", bytes(unattributed.sent as f64), bytes(unattributed.received as f64));
        say("unattributed bytes (--max-connections?)".to_owned(), value, Tone::Alarm);
    }
    for [what, why, loss] in &itself.degradations {
        say(format!("degraded: {what}"), format!("{loss} ({why})"), Tone::Warning);
    }
    let tone = if itself.blind { Tone::Alarm } else { Tone::Plain };
    say("capabilities".to_owned(), itself.capabilities.clone(), tone);
    say("attached".to_owned(), format!("{} tier, {} programs", itself.tier, itself.programs.len()), Tone::Strong);
    if itself.lost.iter().all(|(_, lost)| *lost == 0) {
        say("lost".to_owned(), "nothing".to_owned(), Tone::Plain);
    }
    let unknown = || "not known".to_owned();
    let memory = itself.memory_bytes.map_or_else(unknown, |memory| bytes(memory as f64));
    say("memory of this process".to_owned(), memory, Tone::Plain);
    let on_cpu = itself.on_cpu.map_or_else(unknown, duration);
    say("processor time in this interval".to_owned(), on_cpu, Tone::Plain);
    say("taking in the interval before took".to_owned(), duration(itself.took), Tone::Plain);
    let skipped = itself.skipped_runs.map_or_else(unknown, count);
    say("runs that the kernel has skipped".to_owned(), skipped, Tone::Plain);
    for (name, entries, room) in &itself.maps {
        let share = *entries as f64 / f64::from((*room).max(1));
        let tone = if share > 0.9 { Tone::Alarm } else { Tone::Plain };
        say(
            format!("map {name}"),
            format!("{entries} of {room} ({:.0} %), {} ago", share * 100.0, duration(itself.maps_age)),
            tone,
        );
    }
    for (name, known) in &itself.programs {
        say(format!("program {name}"), known.clone(), Tone::Weak);
    }
    let mut before: HashMap<String, usize> = HashMap::new();
    let fact = |(what, value, tone): (String, String, Tone)| {
        let same = before.entry(what.clone()).or_default();
        *same += 1;
        let mut number = DefaultHasher::new();
        (&what, *same).hash(&mut number);
        Fact { number: number.finish(), what, value, tone }
    };
    lines.into_iter().map(fact).collect()
}
