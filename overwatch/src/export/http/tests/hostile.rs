use super::*;
use crate::random::Random;

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn slow_headers_shut_nobody_out() {
    within(async {
        let running = Running::start(limited(patient()), "").await;
        let most = running.server.settings.limits.connections;
        let mut slow = Vec::new();
        for count in 1..=300 {
            let mut stream = running.connect().await;
            // Some of them are closed by now, which is the point.
            let _closed = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-A: b").await;
            slow.push(stream);
            if count % 50 == 0 {
                running.assert_good_scrape().await;
                assert!(running.open() <= most as u64 + 1, "{}", running.open());
            }
        }
        let counters = running.server.counters();
        until(|| counters.connections.load(Relaxed) == 306).await;
        // Those that were served have gone by themselves, and the rest until there were as many as there may be.
        let evicted = counters.evicted_connections.load(Relaxed);
        assert!((300 - most as u64..=306 - most as u64).contains(&evicted), "{evicted}");
        assert_eq!(counters.refused_connections.load(Relaxed), 0);
        running.assert_good_scrape().await;
    })
    .await;
}

#[tokio::test]
async fn whoever_takes_too_long_is_cut_off() {
    within(async {
        let running = Running::start(limited(Limits { header: SHORT, idle: SHORT, ..patient() }), "").await;
        // Nothing at all.
        assert_eq!(running.send("").await, b"");
        assert_eq!(running.timeouts(Phase::Header), 1);
        // A byte now and then.
        let mut stream = running.connect().await;
        while stream.write_all(b"X").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
        until(|| running.timeouts(Phase::Header) == 2).await;
        // Nothing after an answer.
        let reply = running.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(Reply::parse(&reply).text(), METRICS);
        assert_eq!((running.timeouts(Phase::Header), running.timeouts(Phase::Idle)), (2, 1));
        // Half a request after an answer.
        let reply = running.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET").await;
        assert_eq!(Reply::parse(&reply).text(), METRICS);
        assert_eq!(running.timeouts(Phase::Header) + running.timeouts(Phase::Idle), 4);
        assert_eq!(running.timeouts(Phase::Writing), 0);
        until(|| running.open() == 0).await;
    })
    .await;
}

#[tokio::test]
async fn when_all_are_busy_the_next_is_closed_soon() {
    within(async {
        let (running, mut asks) = Running::silent(limited(Limits { connections: 2, ..patient() }), "").await;
        let scrape = || async { running.get("/metrics").await };
        let rest = async {
            let ask = asks.next().await.unwrap();
            until(|| running.server.counters().shared_computations.load(Relaxed) == 1).await;
            assert_eq!(running.send("").await, b"");
            assert_eq!(running.server.counters().refused_connections.load(Relaxed), 1);
            ask.answer(Ok(METRICS.to_owned()));
        };
        let (first, second, ()) = tokio::join!(scrape(), scrape(), rest);
        assert_eq!((first.text(), second.text()), (METRICS, METRICS));
        until(|| running.open() == 0).await;
    })
    .await;
}

#[tokio::test]
async fn a_head_has_a_size() {
    within(async {
        let running = Running::start(limited(patient()), "").await;
        let head = |bytes: usize| {
            let start = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-A: ";
            format!("{start}{}\r\n\r\n", "a".repeat(bytes - start.len() - 4))
        };
        assert_eq!(Reply::parse(&running.send(head(16_000)).await).code, 200);
        // Whoever goes on sending may see a reset instead of the answer.
        for bytes in [17_000, 10_000_000] {
            let answer = running.send(head(bytes)).await;
            assert!(answer.is_empty() || Reply::parse(&answer).code == 431, "{bytes}");
        }
        let lines = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X-A: b\r\n".repeat(1_000_000));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(10_000_000));
        for request in [lines, long] {
            let answer = running.send(request).await;
            assert!(answer.is_empty() || Reply::parse(&answer).code == 431);
        }
        until(|| running.open() == 0).await;
        assert_eq!(running.requests(Handler::Unreadable, 431), 4);
        running.assert_good_scrape().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_no_request_gets_no_metrics() {
    within(async {
        let settings = limited(Limits { header: SHORT, idle: SHORT, ..patient() });
        let running = Running::start(settings, "").await;
        for bytes in [
            // HTTP/0.9.
            &b"GET /metrics\r\n"[..],
            b"GET /metrics\r\n\r\n",
            b"GET /metrics HTTP/0.9\r\n\r\n",
            b"GET /metrics HTTP/2.0\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /metrics HTTP/1.1 \r\nHost: x\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\nHo st: x\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\n Host: x\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\nX: \0\r\n\r\n",
            // A TLS ClientHello to a server without TLS.
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\0\0\0\0\0\0\0\0",
            b"\r\n\r\n\r\n",
        ] {
            let answer = running.send(bytes).await;
            let shown = String::from_utf8_lossy(bytes);
            assert!(answer.is_empty() || [400, 505].contains(&Reply::parse(&answer).code), "{shown:?}: {answer:?}");
        }
        until(|| running.open() == 0).await;
        assert_eq!(running.requests(Handler::Metrics, 200), 0);
        assert!(running.requests(Handler::Unreadable, 400) >= 8);
        running.assert_good_scrape().await;
    })
    .await;
}

#[tokio::test]
async fn random_bytes_do_no_harm() {
    within(async {
        let settings = limited(Limits { header: SHORT, idle: SHORT, ..patient() });
        let running = Running::start(settings, "").await;
        let mut random = Random::new(9752);
        let good = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
        for round in 0..20 {
            let mut all = JoinSet::new();
            for _ in 0..25 {
                let mut bytes = if random.once_in(2) { good.to_vec() } else { vec![0; 1 + random.below(2000)] };
                let is_good = bytes == good;
                for byte in &mut bytes {
                    if !is_good || random.once_in(20) {
                        *byte = random.next().to_le_bytes()[0];
                    }
                }
                let stream = running.connect().await;
                all.spawn(async move { exchange(stream, &bytes).await });
            }
            all.join_all().await;
            if round % 5 == 0 {
                running.assert_good_scrape().await;
            }
        }
        until(|| running.open() == 0).await;
        running.assert_good_scrape().await;
        assert_eq!(running.server.counters().connections.load(Relaxed), 505);
    })
    .await;
}

/// More than the buffers of both ends take.
fn large() -> String {
    METRICS.repeat(32 * 1024 * 1024 / METRICS.len())
}

#[tokio::test]
async fn a_slow_reader_is_cut_off() {
    within(async {
        let write = Duration::from_millis(500);
        let (running, asks) = Running::silent(limited(Limits { write, ..patient() }), "").await;
        tokio::spawn(always(asks, large()));
        let mut slow = running.connect().await;
        slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        // It reads, though never enough.
        let mut byte = [0];
        while slow.read(&mut byte).await.is_ok_and(|count| count > 0) && running.timeouts(Phase::Writing) == 0 {
            sleep(Duration::from_millis(20)).await;
        }
        until(|| running.timeouts(Phase::Writing) == 1 && running.open() == 0).await;
        assert_eq!(running.get("/-/healthy").await.code, 200);
    })
    .await;
}

#[tokio::test]
async fn slow_readers_make_room() {
    within(async {
        let (running, asks) = Running::silent(limited(Limits { connections: 2, ..patient() }), "").await;
        tokio::spawn(always(asks, large()));
        let mut slow = Vec::new();
        for _ in 0..2 {
            let mut stream = running.connect().await;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            slow.push(stream);
        }
        until(|| running.requests(Handler::Metrics, 200) == 2).await;
        // At first they may be busy; before they are timed out they make room.
        let healthy = loop {
            let answer = running.send("GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
            if !answer.is_empty() {
                break Reply::parse(&answer);
            }
            sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(healthy.code, 200);
        assert!(running.server.counters().evicted_connections.load(Relaxed) >= 1);
        assert_eq!(running.timeouts(Phase::Writing), 0);
    })
    .await;
}

/// Never reads more than a little; the kernel of the server has all of the answer.
async fn lazy(running: &Running, request: &str) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(running.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

const CLOSE: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// Fits into the kernel's buffer.
const MEDIUM: usize = 2000;

#[tokio::test]
async fn what_is_not_taken_is_forgotten() {
    within(async {
        for request in [CLOSE, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let settings = limited(Limits { write: SHORT, idle: SHORT, ..patient() });
            let (running, asks) = Running::silent(settings, "").await;
            tokio::spawn(always(asks, METRICS.repeat(MEDIUM)));
            let mut stream = lazy(&running, request).await;
            until(|| running.timeouts(Phase::Writing) + running.timeouts(Phase::Idle) == 1).await;
            until(|| running.open() == 0).await;
            assert_eq!(running.requests(Handler::Metrics, 200), 1);
            // Were it kept, all of it would come now.
            let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    })
    .await;
}

#[tokio::test]
async fn who_takes_it_late_gets_all_of_it() {
    within(async {
        let (mut running, asks) = Running::silent(limited(patient()), "").await;
        let metrics = METRICS.repeat(MEDIUM);
        tokio::spawn(always(asks, metrics.clone()));
        let streams = [lazy(&running, CLOSE).await, lazy(&running, CLOSE).await];
        until(|| running.requests(Handler::Metrics, 200) == 2).await;
        sleep(SHORT).await;
        // Its place is taken until it has all.
        assert_eq!(running.open(), 2);
        let [first, second] = streams;
        assert_eq!(Reply::parse(&exchange(first, b"").await).body.len(), metrics.len());
        until(|| running.open() == 1).await;
        // The end of the server takes nothing away.
        running.tell_to_stop();
        running.task.await.unwrap();
        assert_eq!(Reply::parse(&exchange(second, b"").await).body.len(), metrics.len());
    })
    .await;
}
