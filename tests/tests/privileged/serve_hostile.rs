//! Clients that mean harm, or do not know better: a good scrape is answered within a second all the while, and memory stays bounded.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use overwatch_tests::harness::daemon::{Daemon, exchange, get};
use overwatch_tests::harness::host::{self, Host, patience};
use overwatch_tests::harness::proc::resident_kib;

/// The processes' memory may grow by that much while thousands are answered.
const MEMORY_MARGIN_KIB: u64 = 96 * 1024;

fn raise_limit_of_files() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard).context("raising the limit of open files")
}

/// The daemon's resident memory and that of its children.
fn memory_kib(daemon: &Daemon) -> Result<u64> {
    daemon.children()?.into_iter().chain([daemon.id()]).map(resident_kib).sum()
}

/// A good client's scrape, and how long it took.
fn good_scrape(address: SocketAddr) -> Result<Duration> {
    let start = Instant::now();
    let reply =
        get(address, "/metrics").with_context(|| format!("a good scrape failed after {:?}", start.elapsed()))?;
    ensure!(reply.status == 200 && reply.body.contains("overwatch_build_info"), "{}", reply.head);
    Ok(start.elapsed())
}

/// Scrapes while `attack` runs. How long that takes on a quiet machine is in docs/benchmarks.md; here it shows that nobody is shut out.
fn scrapes_during(daemon: &Daemon, what: &str, attack: impl FnOnce() -> Result<usize> + Send) -> Result<()> {
    let before = memory_kib(daemon)?;
    let (address, over) = (daemon.address(), AtomicBool::new(false));
    let (longest, scrapes, most) = thread::scope(|scope| -> Result<_> {
        let attack = scope.spawn(|| {
            let result = attack();
            over.store(true, Ordering::Relaxed);
            result
        });
        let (mut longest, mut scrapes, mut most) = (Duration::ZERO, 0, before);
        while !over.load(Ordering::Relaxed) {
            longest = longest.max(good_scrape(address)?);
            most = most.max(memory_kib(daemon)?);
            scrapes += 1;
            sleep(Duration::from_millis(50));
        }
        let answered = attack.join().unwrap_or_else(|_| bail!("the attack panicked"))?;
        println!(
            "{what}: {scrapes} good scrapes, the longest took {longest:?}; {answered} of the others were answered"
        );
        Ok((longest, scrapes, most))
    })?;
    println!("{what}: {before} KiB before, {most} KiB at most");
    ensure!(scrapes > 0, "{what}: it was over before the first scrape");
    let bound = patience(5);
    ensure!(longest < bound, "{what}: a good scrape took {longest:?}");
    ensure!(most < before + MEMORY_MARGIN_KIB, "{what}: {before} KiB before, {most} KiB then");
    Ok(())
}

/// Two thousand clients send a byte of their header now and then.
fn slow_headers(address: SocketAddr) -> Result<usize> {
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..host::scale(2_000)? {
        let Ok(stream) = TcpStream::connect(address) else { continue };
        stream.set_nonblocking(true)?;
        streams.push(stream);
    }
    let end = Instant::now() + Duration::from_secs(8);
    for byte in b"GET /metrics HTTP/1.1\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaa".iter().cycle() {
        streams.retain_mut(|stream| stream.write(&[*byte]).is_ok());
        if Instant::now() > end {
            break;
        }
        sleep(Duration::from_millis(200));
    }
    Ok(0)
}

/// Ten thousand want the metrics at the same time, from a hundred threads.
fn many_scrapes(address: SocketAddr) -> Result<usize> {
    let each = host::scale(10_000)? / 100;
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                let mut streams: Vec<_> = (0..each).filter_map(|_| TcpStream::connect(address).ok()).collect();
                for stream in &mut streams {
                    let _closed = stream.write_all(request);
                }
                for mut stream in streams {
                    let mut answer = Vec::new();
                    let _broken = stream.set_read_timeout(Some(Duration::from_secs(20)));
                    if stream.read_to_end(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200 ") {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    Ok(answered.into_inner())
}

/// Headers of ten megabytes, by several at once.
fn large_headers(address: SocketAddr) -> Result<usize> {
    let line = format!("X-Large: {}\r\n", "a".repeat(1_000));
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address)?;
        let mut sent = stream.write_all(b"GET /metrics HTTP/1.1\r\n");
        for _ in 0..10_000 {
            sent = sent.and_then(|()| stream.write_all(line.as_bytes()));
        }
        ensure!(sent.is_err(), "ten megabytes of headers were taken");
    }
    Ok(0)
}

/// Bytes that are no request, and some that nearly are.
fn nonsense(address: SocketAddr) -> Result<usize> {
    let mut seed = 1_u64;
    for round in 0..200 {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let bytes: Vec<u8> = match round % 5 {
            0 => b"GET /metrics\r\n".to_vec(),
            1 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            2 => b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\nGET /nope HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            3 => b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
            _ => std::iter::repeat_with(|| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) as u8
            })
            .take(500)
            .collect(),
        };
        let _closed = stream.write_all(&bytes);
        let _done = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _broken = stream.read_to_end(&mut answer);
        if round % 5 != 2 {
            ensure!(!answer.starts_with(b"HTTP/1.1 200"), "{:?} was answered", String::from_utf8_lossy(&bytes));
        }
    }
    Ok(0)
}

#[test]
fn a_good_scrape_is_answered_within_a_second_whatever_the_others_do() -> Result<()> {
    let _host = Host::take()?;
    raise_limit_of_files()?;
    let daemon = Daemon::start(None, &[])?;
    let address = daemon.address();
    // The first ones make the page and what stays of it.
    good_scrape(address)?;
    good_scrape(address)?;
    scrapes_during(&daemon, "slow headers", || slow_headers(address))?;
    scrapes_during(&daemon, "ten thousand scrapes", || many_scrapes(address))?;
    scrapes_during(&daemon, "large headers", || large_headers(address))?;
    scrapes_during(&daemon, "nonsense", || nonsense(address))?;
    daemon.stop().map(drop)
}

#[test]
fn nobody_gets_metrics_without_the_password() -> Result<()> {
    let _host = Host::take()?;
    let directory = tempfile::tempdir()?;
    let web = directory.path().join("web.yml");
    // bcrypt of "open sesame".
    std::fs::write(
        &web,
        "basic_auth_users:\n  prometheus: $2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n",
    )?;
    let daemon = Daemon::start(None, &["--web.config.file", web.to_str().context("a path is text")?])?;
    for authorization in [
        "",
        "Authorization: Basic cHJvbWV0aGV1czp3cm9uZw==\r\n",
        "Authorization: Basic !!!\r\n",
        "Authorization: Bearer x\r\n",
    ] {
        for path in ["/metrics", "/", "/-/nope"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{authorization}Connection: close\r\n\r\n");
            let reply = exchange(daemon.address(), request.as_bytes())?;
            ensure!(reply.status == 401 && !reply.body.contains("overwatch_"), "{path} {authorization}: {reply:?}");
        }
    }
    let right = "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic cHJvbWV0aGV1czpvcGVuIHNlc2FtZQ==\r\nConnection: close\r\n\r\n";
    let reply = exchange(daemon.address(), right.as_bytes())?;
    ensure!(reply.status == 200 && reply.body.contains("overwatch_build_info"), "{}", reply.head);
    daemon.stop().map(drop)
}
