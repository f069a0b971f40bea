//! Connections as fast as they go, and overwatch behind everybody else on the host: what it cannot print one by one it adds
//! up, so that nothing is lost, and it needs no more memory for that.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use overwatch_tests::harness::host::{Host, Tier, in_guest};
use overwatch_tests::harness::lines::{Item, LifeItem, LifeLine};
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::proc::resident_kib;
use overwatch_tests::harness::stream::{Stream, arguments, nice};
use overwatch_tests::harness::traffic;
use overwatch_tests::traffic::report::Sums;

/// So much more than after a third of the run overwatch may have at its end.
const MEMORY_MARGIN_KIB: u64 = 24 * 1024;
/// The most that one end of a connection of a churn sends.
const LARGEST: u64 = 251;

/// So many lines of nobody are in a message.
const NOBODYS_TOLD: usize = 10;

/// Connections and their bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Amount {
    connections: u64,
    sent: u64,
    received: u64,
}

impl Amount {
    fn add(&mut self, more: Self) {
        self.connections += more.connections;
        self.sent += more.sent;
        self.received += more.received;
    }

    /// Whether it is `counted`, or less by as much as so many runs can have missed.
    fn is(self, counted: Self, left_out: u64) -> bool {
        let within = |counted: u64, most: u64| -> RangeInclusive<u64> { counted.saturating_sub(most)..=counted };
        within(counted.connections, left_out).contains(&self.connections)
            && within(counted.sent, left_out * LARGEST).contains(&self.sent)
            && within(counted.received, left_out * LARGEST).contains(&self.received)
    }
}

/// By process and role.
type Amounts = BTreeMap<(Option<u32>, Option<String>), Amount>;

/// What came of one namespace: one by one, and added up.
#[derive(Debug, Default)]
struct Shown {
    lines: Amounts,
    lost: Amounts,
    /// Lines without a process or a role: no end of a churn counts as one.
    nobodys: Vec<LifeLine>,
}

impl Shown {
    fn take(&mut self, netns: u64, item: LifeItem) {
        match item {
            Item::Line(line) if line.netns == netns => {
                let amount = Amount { connections: 1, sent: line.sent_bytes, received: line.received_bytes };
                if line.pid.is_none() || line.role.is_none() {
                    self.nobodys.push((*line).clone());
                }
                self.lines.entry((line.pid, line.role)).or_default().add(amount);
            }
            Item::Lost(lost) if lost.netns.is_none_or(|of| of == netns) => {
                let amount =
                    Amount { connections: lost.lost_events, sent: lost.sent_bytes, received: lost.received_bytes };
                self.lost.entry((lost.pid, lost.role)).or_default().add(amount);
            }
            _ => {}
        }
    }

    /// One by one and added up, of each process.
    fn by_process(&self) -> Amounts {
        let mut sums = Amounts::new();
        for (whose, amount) in self.lines.iter().chain(&self.lost) {
            sums.entry(whose.clone()).or_default().add(*amount);
        }
        sums
    }

    fn sum(&self, which: impl Fn(Option<u32>, Option<&str>) -> bool) -> Amount {
        let mut sum = Amount::default();
        for ((pid, role), amount) in self.by_process() {
            if which(pid, role.as_deref()) {
                sum.add(amount);
            }
        }
        sum
    }

    /// For messages: the sums of each process, and some of the lines that are of none.
    fn of_everybody(&self) -> impl std::fmt::Debug {
        (self.by_process(), &self.nobodys[..self.nobodys.len().min(NOBODYS_TOLD)])
    }
}

/// Runs the churn. How much memory the process has comes with what the churn counted, from a third of the run on.
fn churn_watching(pid: u32, churn: &[&str]) -> Result<(Vec<Sums>, Vec<u64>)> {
    thread::scope(|scope| {
        let traffic = scope.spawn(|| traffic::run(churn));
        let mut memory = Vec::new();
        while !traffic.is_finished() {
            memory.push(resident_kib(pid)?);
            sleep(Duration::from_millis(100));
        }
        let traffic = traffic.join().unwrap_or_else(|_| bail!("the churn panicked"))?;
        Ok((traffic.sums, memory.split_off(memory.len() / 3)))
    })
}

fn measure(tier: Tier, extra: &[&str]) -> Result<()> {
    let netns = NetNs::new("burst")?;
    let inode = netns.inode();
    let command = nice(&arguments("life", Some(tier), extra));
    let life = Stream::start(command, Shown::default(), move |all: &mut Shown, item: LifeItem| all.take(inode, item))?;
    let seconds = if in_guest() { "4" } else { "30" };
    let place = ["--server-netns", netns.path_text(), "--client-netns", netns.path_text()];
    let size = ["--servers", "2", "--clients", "2", "--threads", "2", "--seconds", seconds];
    let (sums, memory) = churn_watching(life.id(), &[&["churn"], &place[..], &size].concat())?;
    let (shown, left_out) = life.stop_counting()?;

    let mut counted = Amount::default();
    for sums in &sums {
        let own = Amount { connections: sums.connections, sent: sums.sent, received: sums.received };
        counted.add(own);
        let amount = shown.sum(|pid, role| pid == Some(sums.pid) && role == Some(sums.flood.as_str()));
        ensure!(
            amount.is(own, left_out),
            "{tier}: {amount:?} shown of {} {}, {own:?} counted, {left_out} runs left out; all that was shown: {:#?}",
            sums.comm,
            sums.pid,
            shown.of_everybody()
        );
    }
    let all = shown.sum(|_, _| true);
    let lost: u64 = shown.lost.values().map(|amount| amount.connections).sum();
    let (before, after) = memory.first().zip(memory.last()).context("the churn took a while")?;
    println!("{tier} {extra:?}: {all:?} shown, {lost} of them added up; {before} KiB, then {after} KiB");
    ensure!(
        all.is(counted, left_out),
        "{tier}: {all:?} shown, {counted:?} counted, {left_out} runs left out; all: {:#?}",
        shown.of_everybody()
    );
    ensure!(
        *after <= before + MEMORY_MARGIN_KIB,
        "{tier}: {before} KiB after a third of the run, {after} KiB in the end"
    );
    Ok(())
}

#[test]
fn nothing_is_lost_with_the_usual_ring_buffer() -> Result<()> {
    let host = Host::take()?;
    host.tiers()?.into_iter().try_for_each(|tier| measure(tier, &[]))
}

#[test]
fn nothing_is_lost_with_the_smallest_ring_buffer() -> Result<()> {
    let host = Host::take()?;
    host.tiers()?.into_iter().try_for_each(|tier| measure(tier, &["--ring-buffer-bytes", "4096"]))
}
