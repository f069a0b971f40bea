use std::io::Read as _;

use super::*;

#[tokio::test]
async fn each_request_has_its_answer() {
    within(async {
        let running = Running::start(limited(patient()), "").await;
        for (request, code, kind, body) in [
            ("GET /metrics HTTP/1.1", 200, "text/plain; version=0.0.4; charset=utf-8", METRICS),
            ("GET /metrics?debug=1 HTTP/1.1", 200, "text/plain; version=0.0.4; charset=utf-8", METRICS),
            ("GET http://host/metrics HTTP/1.1", 200, "text/plain; version=0.0.4; charset=utf-8", METRICS),
            ("GET /-/healthy HTTP/1.1", 200, "text/plain; charset=utf-8", "overwatch is healthy\n"),
            ("GET /-/ready HTTP/1.1", 503, "text/plain; charset=utf-8", "overwatch is not ready\n"),
            ("GET /metrics/ HTTP/1.1", 404, "text/plain; charset=utf-8", "there is nothing here\n"),
            ("GET //metrics HTTP/1.1", 404, "text/plain; charset=utf-8", "there is nothing here\n"),
            ("GET /../metrics HTTP/1.1", 404, "text/plain; charset=utf-8", "there is nothing here\n"),
            ("GET metrics HTTP/1.1", 404, "text/plain; charset=utf-8", "there is nothing here\n"),
            ("OPTIONS * HTTP/1.1", 404, "text/plain; charset=utf-8", "there is nothing here\n"),
            ("POST /nothing HTTP/1.1", 404, "text/plain; charset=utf-8", "there is nothing here\n"),
            ("POST /metrics HTTP/1.1", 405, "text/plain; charset=utf-8", "only GET and HEAD\n"),
            ("DELETE / HTTP/1.1", 405, "text/plain; charset=utf-8", "only GET and HEAD\n"),
            ("X-Y /-/ready HTTP/1.1", 405, "text/plain; charset=utf-8", "only GET and HEAD\n"),
        ] {
            let reply = Reply::parse(&running.send(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n")).await);
            assert_eq!((reply.code, reply.header("content-type"), reply.text()), (code, Some(kind), body), "{request}");
            assert_eq!(reply.header("allow").is_some(), code == 405, "{request}");
        }
        running.server.set_ready(true);
        assert_eq!(running.get("/-/ready").await.text(), "overwatch is ready\n");
        let landing = running.get("/").await;
        assert_eq!((landing.code, landing.header("content-type")), (200, Some("text/html; charset=utf-8")));
        for link in ["href=\"/metrics\"", "href=\"/-/healthy\"", "href=\"/-/ready\""] {
            assert!(landing.text().contains(link), "{link}");
        }
        let counts = [
            (Handler::Metrics, 200, 3),
            (Handler::Metrics, 405, 1),
            (Handler::Unknown, 404, 6),
            (Handler::Ready, 503, 1),
            (Handler::Ready, 200, 1),
            (Handler::Ready, 405, 1),
            (Handler::Healthy, 200, 1),
            (Handler::Landing, 200, 1),
            (Handler::Landing, 405, 1),
            (Handler::Unreadable, 400, 0),
        ];
        for (handler, code, count) in counts {
            assert_eq!(running.requests(handler, code), count, "{handler:?} {code}");
        }
        let all: u64 = running.server.counters().requests().map(|row| row.2).sum();
        assert_eq!(all, counts.iter().map(|row| row.2).sum::<u64>());
        until(|| running.open() == 0).await;
    })
    .await;
}

#[tokio::test]
async fn head_has_the_headers_and_no_body() {
    within(async {
        let running = Running::start(limited(patient()), "").await;
        for path in ["/metrics", "/", "/nothing"] {
            let get = running.get(path).await;
            let bytes = running.send(format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
            let (head, rest) = Reply::parse_one(&bytes, false).unwrap();
            assert_eq!(
                (head.code, head.header("content-length"), rest),
                (get.code, get.header("content-length"), &b""[..])
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_is_refused() {
    within(async {
        let running = Running::start(limited(patient()), "").await;
        for (request, code) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 413),
            ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n", 413),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 413),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 413),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 200),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ] {
            // The connection ends by itself: this returns.
            assert_eq!(Reply::parse(&running.send(request).await).code, code, "{request}");
        }
        assert_eq!(running.requests(Handler::Metrics, 413), 4);
        running.assert_good_scrape().await;
    })
    .await;
}

#[tokio::test]
async fn metrics_are_compressed_for_those_who_take_it() {
    within(async {
        let (running, asks) = Running::silent(limited(patient()), "").await;
        let metrics = METRICS.repeat(1000);
        tokio::spawn(always(asks, metrics.clone()));
        let reply = running.get_with("/metrics", "Accept-Encoding: gzip\r\n").await;
        assert_eq!((reply.code, reply.header("content-encoding")), (200, Some("gzip")));
        assert_eq!(reply.header("vary"), Some("accept-encoding"));
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*reply.body).read_to_string(&mut text).unwrap();
        assert!(text == metrics);
        assert!(reply.body.len() < metrics.len() / 20);
        let reply = running.get("/metrics").await;
        assert_eq!((reply.header("content-encoding"), reply.body.len()), (None, metrics.len()));
        assert_eq!(running.get_with("/-/healthy", "Accept-Encoding: gzip\r\n").await.header("content-encoding"), None);
    })
    .await;
}

#[tokio::test]
async fn the_path_is_the_one_that_was_set() {
    within(async {
        let settings = |path: &str| Settings { metrics_path: path.parse().unwrap(), limits: patient() };
        let running = Running::start(settings("/my/metrics"), "").await;
        assert_eq!(running.get("/my/metrics").await.text(), METRICS);
        assert_eq!(running.get("/metrics").await.code, 404);
        assert!(running.get("/").await.text().contains("href=\"/my/metrics\""));
        let running = Running::start(settings("/"), "").await;
        assert_eq!(running.get("/").await.text(), METRICS);
    })
    .await;
}

#[tokio::test]
async fn one_computation_serves_all_who_ask_meanwhile() {
    within(async {
        let (running, mut asks) = Running::silent(limited(patient()), "").await;
        let counters = running.server.counters();
        let scrapes = async {
            let mut all = JoinSet::new();
            for _ in 0..50 {
                let stream = running.connect().await;
                all.spawn(exchange_owned(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
            }
            all.join_all().await
        };
        let compute = async {
            let ask = asks.next().await.unwrap();
            until(|| counters.shared_computations.load(Relaxed) == 49).await;
            ask.answer(Ok(METRICS.to_owned()));
        };
        let (replies, ()) = tokio::join!(scrapes, compute);
        assert!(replies.iter().all(|reply| Reply::parse(reply).text() == METRICS));
        assert_eq!(counters.computations.load(Relaxed), 1);
    })
    .await;
}

async fn exchange_owned(stream: TcpStream, bytes: &'static str) -> Vec<u8> {
    exchange(stream, bytes.as_bytes()).await
}

#[tokio::test]
async fn metrics_that_do_not_come_are_an_error() {
    within(async {
        let limits = Limits { request: Duration::from_millis(200), ..patient() };
        let (running, mut asks) = Running::silent(limited(limits), "").await;
        let ask = async { asks.next().await.unwrap() };
        let (reply, ask) = tokio::join!(running.get("/metrics"), ask);
        assert_eq!((reply.code, reply.text()), (503, "there was no answer in time\n"));
        assert_eq!(running.get("/-/healthy").await.code, 200);
        drop(ask);
        let failing = async { asks.next().await.unwrap().answer(Err("no table".to_owned())) };
        let (reply, ()) = tokio::join!(running.get("/metrics"), failing);
        assert_eq!((reply.code, reply.text()), (500, "no table\n"));
        drop(asks);
        assert_eq!(running.get("/metrics").await.text(), "nothing computes metrics any more\n");
    })
    .await;
}

#[tokio::test]
async fn a_connection_may_ask_more_than_once() {
    within(async {
        let running = Running::start(limited(patient()), "").await;
        // All at once, and in the end one that closes.
        let mut requests =
            "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50);
        requests.push_str("GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let bytes = running.send(requests).await;
        let (mut rest, mut codes) = (&bytes[..], Vec::new());
        while let Some((reply, after)) = Reply::parse_one(rest, true) {
            codes.push((reply.code, reply.body.len()));
            rest = after;
        }
        let mut expected = [(200, METRICS.len()), (200, 21)].repeat(50);
        expected.push((404, 22));
        assert_eq!((codes, rest.len()), (expected, 0));
        assert_eq!(running.server.counters().connections.load(Relaxed), 1);
    })
    .await;
}

#[tokio::test]
async fn a_scrape_is_finished_when_the_server_ends() {
    within(async {
        let (mut running, mut asks) = Running::silent(limited(patient()), "").await;
        let scraper = running.connect().await;
        let waiting = running.connect().await;
        until(|| running.open() == 2).await;
        let scrape = tokio::spawn(exchange_owned(scraper, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"));
        let ask = asks.next().await.unwrap();
        running.tell_to_stop();
        // It did not ask, so it is closed; and nobody new is let in.
        assert_eq!(exchange(waiting, b"").await, b"");
        until(|| std::net::TcpStream::connect(running.address).is_err()).await;
        ask.answer(Ok(METRICS.to_owned()));
        assert_eq!(Reply::parse(&scrape.await.unwrap()).text(), METRICS);
        running.task.await.unwrap();
        assert_eq!(running.server.counters().aborted_connections.load(Relaxed), 0);
        assert_eq!(running.server.counters().open_connections.load(Relaxed), 0);
    })
    .await;
}

#[tokio::test]
async fn the_server_ends_without_those_who_do_not() {
    within(async {
        let limits = Limits { shutdown: Duration::from_millis(200), ..patient() };
        let (mut running, mut asks) = Running::silent(limited(limits), "").await;
        let scrape = tokio::spawn(exchange_owned(running.connect().await, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"));
        let _never_answered = asks.next().await.unwrap();
        running.tell_to_stop();
        running.task.await.unwrap();
        assert_eq!(running.server.counters().aborted_connections.load(Relaxed), 1);
        assert_eq!(scrape.await.unwrap(), b"");
    })
    .await;
}
