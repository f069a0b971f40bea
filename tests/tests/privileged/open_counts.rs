//! What `overwatch open` counts does not drift: after storms of connections that end in every ugly way the counts are
//! those of the kernel's own lists, and in the end nothing is left of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use overwatch_tests::harness::host::{Host, Tier, in_guest, patience};
use overwatch_tests::harness::lines::OpenInterval;
use overwatch_tests::harness::netns::Joined;
use overwatch_tests::harness::sockets::{CLOSE_WAIT, ESTABLISHED, Row, connections, holders, within};
use overwatch_tests::harness::stream::Open;
use overwatch_tests::harness::traffic::Storm;
use overwatch_tests::traffic::storm::IGNORED;

/// A second address of the clients, to which the server's packets get lost while the other one's arrive.
const VANISHING: &str = "10.213.6.3";
/// More connections than there ever are, and less than any counter that went below 0 shows.
const FAR_TOO_MANY: u64 = 10_000;
/// A connection whose process has closed it tries so many times to say so: few, so that a round settles soon.
const ORPHAN_RETRIES: &str = "1";

/// How long the counts may be wrong: overwatch looks every five seconds for what it missed in runs that the kernel left out,
/// and what it finds then may have changed again while everything was moving.
const SETTLING: Duration = Duration::from_secs(20);

/// What there is at a time, by the kernel's lists or by overwatch. What has no connections is left out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Counts {
    total: u64,
    /// By port of the server: open, and waiting.
    ports: BTreeMap<u16, (u64, u64)>,
    remotes: BTreeMap<IpAddr, u64>,
}

/// The kernel's lists, and what follows from them.
#[derive(Debug, Eq, PartialEq)]
struct Lists {
    rows: [Vec<Row>; 2],
    counts: Counts,
    /// By process.
    owners: BTreeMap<u32, u64>,
    /// Connections whose process has closed them: nobody can tell whose they were.
    orphans: u64,
}

struct Storms {
    joined: Joined,
    open: Open,
}

fn ours() -> Result<BTreeSet<IpAddr>> {
    [Joined::CLIENT, Joined::SERVER, VANISHING].iter().map(|text| text.parse().context("an address")).collect()
}

impl Lists {
    /// Reads them. `listener` is the process that those belong to which nobody has accepted.
    fn read(joined: &Joined, listener: Option<u32>) -> Result<Self> {
        let rows = [connections(&joined.server)?, connections(&joined.client)?];
        let holders = holders()?;
        let (mut counts, mut owners, mut orphans) = (Counts::default(), BTreeMap::new(), 0);
        for (is_server, row) in rows[0].iter().map(|row| (true, row)).chain(rows[1].iter().map(|row| (false, row))) {
            let waits = is_server && row.inode == 0 && [ESTABLISHED, CLOSE_WAIT].contains(&row.state);
            counts.total += 1;
            *counts.remotes.entry(row.remote.ip()).or_default() += 1;
            if is_server {
                let (open, waiting) = counts.ports.entry(row.local.port()).or_default();
                *open += 1;
                *waiting += u64::from(waits);
            }
            match if waits { listener } else { holders.get(&row.inode).copied() } {
                Some(pid) => *owners.entry(pid).or_default() += 1,
                None => orphans += 1,
            }
        }
        Ok(Self { rows, counts, owners, orphans })
    }
}

/// What of an interval is of the two namespaces.
fn counts_of(interval: &OpenInterval, joined: &Joined) -> Result<Counts> {
    let ours = ours()?;
    let mut counts = Counts::default();
    for remote in interval.remotes.iter().filter(|remote| remote.open > 0 && ours.contains(&remote.remote_addr)) {
        counts.total += remote.open;
        *counts.remotes.entry(remote.remote_addr).or_default() += remote.open;
    }
    let listeners = interval.listeners.iter().filter(|listener| listener.netns == joined.server.inode());
    for listener in listeners.filter(|listener| (listener.open, listener.waiting) != (0, 0)) {
        let (open, waiting) = counts.ports.entry(listener.local_port).or_default();
        *open += listener.open;
        *waiting += listener.waiting;
    }
    Ok(counts)
}

/// Counts of one interval have to agree with each other, whatever goes on.
fn check_sanity(interval: &OpenInterval) -> Result<()> {
    let total = interval.open_connections;
    let owners: u64 = interval.owners.iter().map(|owner| owner.open).sum();
    let remotes: u64 = interval.remotes.iter().map(|remote| remote.open).sum();
    let listeners: u64 = interval.listeners.iter().map(|listener| listener.open).sum();
    ensure!(total < FAR_TOO_MANY, "{total} connections in {interval:?}");
    ensure!(owners == total, "{total} connections, {owners} of processes in {interval:?}");
    // One whose other end is not known yet is in no line.
    ensure!(remotes <= total, "{total} connections, {remotes} with hosts in {interval:?}");
    ensure!(listeners <= total, "{total} connections, {listeners} of listeners in {interval:?}");
    for listener in &interval.listeners {
        ensure!(listener.waiting <= listener.open, "{listener:?} in {interval:?}");
    }
    Ok(())
}

fn differs(what: &str, kernel: &impl Debug, overwatch: &impl Debug) -> String {
    format!("{what}: the kernel has {kernel:?}, overwatch {overwatch:?}")
}

/// What overwatch says otherwise than the kernel's lists.
fn difference(interval: &OpenInterval, lists: &Lists, joined: &Joined) -> Result<Option<String>> {
    let counts = counts_of(interval, joined)?;
    if counts != lists.counts {
        return Ok(Some(differs("counts", &lists.counts, &counts)));
    }
    let mut owners: BTreeMap<Option<u32>, u64> = BTreeMap::new();
    for owner in &interval.owners {
        *owners.entry(owner.pid).or_default() += owner.open;
    }
    // Orphans are still of the process that closed them, so each process may have as many more as there are orphans.
    let mut more = 0;
    for (pid, &held) in &lists.owners {
        let open = owners.remove(&Some(*pid)).unwrap_or_default();
        if !(held..=held + lists.orphans).contains(&open) {
            return Ok(Some(differs(&format!("process {pid}"), &held, &open)));
        }
        more += open - held;
    }
    more += owners.values().sum::<u64>();
    let elsewhere = interval.open_connections - counts.total;
    let expected = lists.orphans + elsewhere;
    Ok((more != expected).then(|| differs("owners that hold no file", &expected, &more)))
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

impl Storms {
    /// Waits until nothing changes any more and overwatch counts what the kernel lists. What that is comes back.
    fn settle(&mut self, listener: Option<u32>, enough: impl Fn(&Lists) -> bool) -> Result<Counts> {
        let deadline = Instant::now() + SETTLING;
        let mut wrong = "nothing was compared, so much changed".to_owned();
        let mut behind: Option<Instant> = None;
        while Instant::now() < deadline {
            let lists = Lists::read(&self.joined, listener)?;
            let begin = now()?;
            let sanity = RefCell::new(Ok(()));
            let interval = self.open.read_until(20, |interval| {
                let mut sanity = sanity.borrow_mut();
                *sanity = std::mem::replace(&mut *sanity, Ok(())).and_then(|()| check_sanity(interval));
                interval.time > begin
            })?;
            sanity.into_inner()?;
            if !enough(&lists) {
                wrong = format!("not what was waited for: {lists:?}");
                continue;
            }
            let difference = difference(interval, &lists, &self.joined)?;
            if Lists::read(&self.joined, listener)? != lists {
                continue;
            }
            match difference {
                None => {
                    if let Some(behind) = behind {
                        println!("overwatch was behind for {:?}: {wrong}", behind.elapsed());
                    }
                    return Ok(lists.counts);
                }
                Some(difference) => {
                    behind.get_or_insert_with(Instant::now);
                    wrong = format!("{difference}; {interval:?}\n{lists:?}");
                }
            }
        }
        bail!("not settled, {} runs of programs left out: {wrong}", self.open.runs_left_out())
    }

    fn round(&mut self, number: usize) -> Result<Counts> {
        let (client, server) = (self.joined.client.path_text(), self.joined.server.path_text());
        let at_once = if in_guest() { "6" } else { "24" };
        let place = |netns, from| ["--netns", netns, "--address", Joined::SERVER, "--from", from, "--at-once", at_once];
        let (near, far) = (place(client, Joined::CLIENT), place(client, VANISHING));
        let mut server = Some(Storm::start("serve", &place(server, Joined::SERVER))?);
        let mut listener = server.as_ref().map(Storm::id);
        server.iter().try_for_each(Storm::wait_until_ready)?;
        let halved = Storm::start("halve", &near)?;
        let queued = Storm::start("queue", &[&near[..6], &["--at-once", "12"]].concat())?;
        let killed = [Storm::start("transfer", &near)?, Storm::start("reset", &near)?];
        let vanished = Storm::start("transfer", &far)?;
        for storm in [&halved, &queued, &vanished].into_iter().chain(&killed) {
            storm.wait_until_ready()?;
        }
        sleep(patience(1) / 10);
        let vanishes = number % 3 < 2;
        if vanishes {
            self.joined.server.lose(VANISHING, Joined::DEVICE, true)?;
        }
        if number % 4 == 3 {
            Storm::kill(server.take())?;
            listener = None;
        }
        Storm::kill(killed)?;
        let mut rest = vec![queued];
        // Some that vanish never come back, some are there again when the round is over.
        if number % 3 == 1 {
            rest.push(vanished);
        } else {
            Storm::kill([vanished])?;
        }
        if number % 5 == 2 {
            Storm::kill([halved])?;
        } else {
            rest.push(halved);
        }
        let counts = self.settle(listener, |_| true);
        Storm::kill(rest.into_iter().chain(server))?;
        if vanishes {
            self.joined.server.lose(VANISHING, Joined::DEVICE, false)?;
        }
        counts
    }
}

fn measure(tier: Tier, rounds: usize) -> Result<()> {
    let joined = Joined::new("open")?;
    joined.client.add_address(&format!("{VANISHING}/24"), Joined::DEVICE)?;
    for netns in [&joined.client, &joined.server] {
        within(netns, || Ok(fs::write("/proc/sys/net/ipv4/tcp_orphan_retries", ORPHAN_RETRIES)?))?;
    }
    let mut storms = Storms { joined, open: Open::start_every("0.2", Some(tier), &[])? };
    let (mut most, mut queued) = (0, 0);
    for number in 0..rounds {
        let began = Instant::now();
        let counts = storms.round(number).with_context(|| format!("{tier}: round {number}"))?;
        let left_out = storms.open.runs_left_out();
        println!("{tier}: round {number}, {:?}, {left_out} runs left out: {counts:?}", began.elapsed());
        most = most.max(counts.total);
        queued = queued.max(counts.ports.get(&IGNORED).copied().unwrap_or_default().1);
    }
    ensure!(most >= 10 && queued >= 5, "{tier}: no storm: at most {most} connections, {queued} of them queued");
    storms.settle(None, |lists| lists.counts.total == 0).with_context(|| format!("{tier}: the end"))?;
    let Storms { joined, open } = storms;
    let intervals = open.stop()?;
    intervals.iter().try_for_each(check_sanity)?;
    let last = intervals.last().context("it printed something")?;
    let left = counts_of(last, &joined)?;
    ensure!(left == Counts::default(), "{tier}: left over: {left:?}");
    let listening = last.listeners.iter().filter(|listener| joined.has(listener.netns)).count();
    ensure!(listening == 0, "{tier}: {listening} listeners are left over: {last:?}");
    let peak = intervals.iter().map(|interval| interval.open_connections).max();
    let lost: u64 = intervals.iter().map(|interval| interval.lost_events).sum();
    println!("{tier}: {} intervals, at most {peak:?} connections, {lost} events lost", intervals.len());
    Ok(())
}

#[test]
fn counts_are_the_kernels_after_storms_and_zero_in_the_end() -> Result<()> {
    let host = Host::take()?;
    for tier in host.tiers()? {
        measure(tier, if in_guest() { 6 } else { 50 })?;
    }
    Ok(())
}
