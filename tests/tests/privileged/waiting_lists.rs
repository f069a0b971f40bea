//! The waiting clients that `overwatch listeners` shows are the kernel's own: compared with `/proc/net/tcp` while clients come, wait, give
//! up and are accepted all the time.
//!
//! A row is of one instant, and a table of `/proc` is not read in one. So tables are read without a break, with the times before and after:
//! a client that is in all tables around the instant must be in the row, and a client of the row must be in one of the tables, or must have
//! connected and been accepted between two of them, as both ends recorded.

use std::collections::{BTreeSet, VecDeque};
use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns};
use overwatch_tests::harness::host::{Host, Tier, in_guest, patience};
use overwatch_tests::harness::lines::parse;
use overwatch_tests::harness::listeners::ListenersInterval;
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::proc::Proc;
use overwatch_tests::harness::unit;

/// For how long clients come and go; OVERWATCH_CHURN_SECONDS asks for more.
const SECONDS: u64 = 15;
/// Listening sockets, and threads of clients for each.
const LISTENERS: usize = 4;
const CLIENTS: usize = 6;
/// Between two rows, and between two tables of `/proc`.
const INTERVAL: &str = "0.2";
const BETWEEN_TABLES: Duration = Duration::from_millis(5);
/// Times of rows are printed in milliseconds.
const PRECISION: f64 = 0.002;
/// Records that are older than any row that can still come.
const OLD_SECONDS: f64 = 20.0;
/// Rows that must agree, of a thousand.
const LEAST_EQUAL_PER_MILLE: u64 = 999;

/// A client: the server's port and its own.
type Client = (u16, u16);

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A table of `/proc`, and when reading it began and ended.
struct Table {
    began: f64,
    ended: f64,
    waiting: BTreeSet<Client>,
}

/// A client that may wait from `began` to `ended`.
struct Visit {
    client: Client,
    began: f64,
    ended: f64,
}

/// What the test itself has seen.
#[derive(Default)]
struct Records {
    tables: VecDeque<Table>,
    visits: VecDeque<Visit>,
}

impl Records {
    fn forget(&mut self) {
        let old = now() - OLD_SECONDS;
        while self.tables.front().is_some_and(|table| table.ended < old) {
            self.tables.pop_front();
        }
        while self.visits.front().is_some_and(|visit| visit.ended < old) {
            self.visits.pop_front();
        }
    }

    /// Clients that must be in a row that was read between these times, and those that may; `None` when tables are missing.
    fn bounds(&self, from: f64, to: f64) -> Option<(BTreeSet<Client>, BTreeSet<Client>)> {
        let first = self.tables.iter().rposition(|table| table.ended <= from)?;
        let last = self.tables.iter().position(|table| table.began >= to)?;
        let mut tables = self.tables.range(first..=last);
        let mut must = tables.next()?.waiting.clone();
        let mut may = must.clone();
        for table in tables {
            must = must.intersection(&table.waiting).copied().collect();
            may.extend(&table.waiting);
        }
        let visits = self.visits.iter().filter(|visit| visit.began <= to && visit.ended >= from);
        may.extend(visits.map(|visit| visit.client));
        Some((must, may))
    }
}

fn lock(records: &Mutex<Records>) -> MutexGuard<'_, Records> {
    records.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines of `/proc/net/tcp` in ESTABLISHED or CLOSE_WAIT at these local ports that no process has open.
fn waiting(text: &str, ports: &[u16]) -> BTreeSet<Client> {
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    let client = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_complete = ["01", "08"].contains(fields.get(3)?);
        (is_complete && *fields.get(9)? == "0").then_some((port(fields.get(1)?)?, port(fields.get(2)?)?))
    };
    text.lines().skip(1).filter_map(client).filter(|(local, _)| ports.contains(local)).collect()
}

/// Numbers that look random, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        // Constants of Knuth's MMIX generator.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Accepts with pauses, so that clients wait; closes at once.
fn accept(listener: &TcpListener, records: &Mutex<Records>, numbers: &mut Numbers, over: &AtomicBool) -> Result<()> {
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    while !over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((_, from)) => {
                let ended = now();
                let mut records = lock(records);
                let visit = records.visits.iter_mut().rfind(|visit| visit.client == (port, from.port()));
                if let Some(visit) = visit {
                    visit.ended = ended;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error.into()),
        }
        // Now and then without a pause, so that the queue never fills up for good.
        if numbers.below(4) > 0 {
            thread::sleep(Duration::from_millis(10 + numbers.below(120)));
        }
    }
    Ok(())
}

/// Connects, sends a little, and leaves after a while, accepted or not.
fn call(at: SocketAddr, records: &Mutex<Records>, numbers: &mut Numbers, over: &AtomicBool) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        let began = now();
        let mut stream = TcpStream::connect(at)?;
        let client = (at.port(), stream.local_addr()?.port());
        lock(records).visits.push_back(Visit { client, began, ended: f64::INFINITY });
        stream.write_all(b"request")?;
        thread::sleep(Duration::from_millis(numbers.below(600)));
        drop(stream);
        thread::sleep(Duration::from_millis(50 + numbers.below(200)));
    }
    Ok(())
}

fn read_tables(ports: &[u16], records: &Mutex<Records>, over: &AtomicBool) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        let began = now();
        let text = fs::read_to_string("/proc/thread-self/net/tcp")?;
        let ended = now();
        let mut records = lock(records);
        records.tables.push_back(Table { began, ended, waiting: waiting(&text, ports) });
        records.forget();
        drop(records);
        thread::sleep(BETWEEN_TABLES);
    }
    Ok(())
}

/// How many rows agree, of how many, and the first that do not.
#[derive(Debug, Default)]
struct Tally {
    rows: u64,
    equal: u64,
    clients: u64,
    different: Vec<String>,
}

impl Tally {
    fn judge(&mut self, interval: &ListenersInterval, received: f64, netns: &NetNs, records: &Records) -> Result<()> {
        let (from, to) = (interval.time - PRECISION, received);
        let (must, may) = records.bounds(from, to).context("no tables around a row")?;
        for row in interval.listeners.iter().filter(|row| row.netns == netns.inode()) {
            let of_row = |clients: &BTreeSet<Client>| -> BTreeSet<Client> {
                clients.iter().filter(|(port, _)| *port == row.local_port).copied().collect()
            };
            let shown: BTreeSet<Client> =
                row.waiting.iter().map(|client| (row.local_port, client.remote_port)).collect();
            let (must, may) = (of_row(&must), of_row(&may));
            self.rows += 1;
            self.clients += shown.len() as u64;
            if must.is_subset(&shown) && shown.is_subset(&may) && shown.len() == row.waiting.len() {
                self.equal += 1;
            } else if self.different.len() < 5 {
                let missing: Vec<_> = must.difference(&shown).collect();
                let invented: Vec<_> = shown.difference(&may).collect();
                self.different.push(format!("{from} to {to}: missing {missing:?}, invented {invented:?}"));
            }
        }
        Ok(())
    }
}

fn seconds() -> Result<u64> {
    env::var("OVERWATCH_CHURN_SECONDS").map_or(Ok(SECONDS), |text| text.parse().context("OVERWATCH_CHURN_SECONDS"))
}

/// Runs everything in one namespace. `refused` are programs that are to fail.
fn churn(tier: Tier, refused: &str) -> Result<()> {
    let netns = NetNs::new("churn")?;
    let namespace = File::open(netns.path())?;
    let enter = || setns(&namespace, CloneFlags::CLONE_NEWNET).context("entering the namespace");
    let listeners = thread::scope(|scope| {
        let bound = scope.spawn(|| -> Result<Vec<TcpListener>> {
            enter()?;
            let bound = (0..LISTENERS).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
            Ok(bound.collect::<Result<Vec<_>, _>>()?)
        });
        bound.join().map_err(|_| anyhow::anyhow!("binding panicked"))?
    })?;
    let places = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
    let ports: Vec<u16> = places.iter().map(SocketAddr::port).collect();
    let mut command = unit::command(&["listeners", "-o", "json", "-v", "--attach", tier.name(), INTERVAL]);
    command.env("OVERWATCH_REFUSE", refused);
    let mut process = Proc::start(command)?;
    process.close_stdin();
    process.wait_for_stderr(patience(60), |line| line.starts_with("overwatch: ready"))?;
    let (records, over) = (Mutex::new(Records::default()), AtomicBool::new(false));
    let mut tally = Tally::default();
    let result = thread::scope(|scope| -> Result<()> {
        let mut parties = Vec::new();
        for (index, listener) in listeners.iter().enumerate() {
            let (records, over) = (&records, &over);
            parties.push(scope.spawn(move || accept(listener, records, &mut Numbers(index as u64), over)));
        }
        for index in 0..LISTENERS * CLIENTS {
            let (records, over, at, enter) = (&records, &over, places[index % LISTENERS], &enter);
            parties.push(scope.spawn(move || {
                enter()?;
                call(at, records, &mut Numbers(1_000 + index as u64), over)
            }));
        }
        parties.push(scope.spawn(|| {
            enter()?;
            read_tables(&ports, &records, &over)
        }));
        let watched = watch(&process, &netns, &records, &mut tally);
        over.store(true, Ordering::Relaxed);
        for party in parties {
            party.join().map_err(|_| anyhow::anyhow!("a party panicked"))??;
        }
        watched
    });
    process.finish(patience(60)).map(drop).or_else(|error| if result.is_ok() { Err(error) } else { Ok(()) })?;
    result?;
    println!("{tier} without {refused:?}: {} of {} rows equal, {} clients", tally.equal, tally.rows, tally.clients);
    ensure!(tally.rows >= 100 && tally.clients > tally.rows, "too little was compared: {tally:#?}");
    let wrong = tally.rows - tally.equal;
    // In a short run one row in a thousand is none.
    ensure!(wrong <= 1.max(tally.rows * (1_000 - LEAST_EQUAL_PER_MILLE) / 1_000), "{tally:#?}");
    Ok(())
}

/// Judges rows until the time is over, each when the tables after it are there.
fn watch(process: &Proc, netns: &NetNs, records: &Mutex<Records>, tally: &mut Tally) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(seconds()?);
    // Rows of the first moments have no tables before them.
    let begin = now() + 1.0;
    while Instant::now() < end {
        let line = process.line(patience(30))?.context("overwatch ended")?;
        let received = now();
        let interval: ListenersInterval = parse(&line)?;
        if interval.time < begin {
            continue;
        }
        let deadline = Instant::now() + patience(10);
        while lock(records).tables.back().is_none_or(|table| table.began < received) {
            ensure!(Instant::now() < deadline, "no table of /proc after a row");
            thread::sleep(BETWEEN_TABLES);
        }
        tally.judge(&interval, received, netns, &lock(records))?;
    }
    process.signal(nix::sys::signal::Signal::SIGINT)
}

#[test]
fn waiting_clients_are_those_of_the_kernel() -> Result<()> {
    let host = Host::take()?;
    let tiers = host.tiers()?;
    // The scan is the same in each tier; what is beside it is not.
    let tiers = if in_guest() { tiers } else { tiers.into_iter().take(1).collect() };
    tiers.into_iter().try_for_each(|tier| churn(tier, ""))
}

#[test]
fn sock_diag_shows_the_same_clients() -> Result<()> {
    let host = Host::take()?;
    let tier = host.tiers()?[0];
    churn(tier, "scan_listener")
}

#[test]
fn lines_of_proc_are_clients_or_not() {
    let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        0: 0100007F:1F90 0100007F:C350 01 00000000:00000007 00:00000000 00000000     0        0 0 1 0\n\
        1: 0100007F:1F90 0100007F:C351 08 00000000:00000007 00:00000000 00000000     0        0 0 1 0\n\
        2: 0100007F:1F90 0100007F:C352 01 00000000:00000007 00:00000000 00000000     0        0 77 1 0\n\
        3: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 78 1 0\n\
        4: 0100007F:1F91 0100007F:C353 01 00000000:00000007 00:00000000 00000000     0        0 0 1 0\n";
    assert_eq!(waiting(text, &[8080]), BTreeSet::from([(8080, 50_000), (8080, 50_001)]));
}
