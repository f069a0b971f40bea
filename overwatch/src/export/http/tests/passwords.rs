use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;
use crate::export::http::users::tests::hash;

fn basic(credentials: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(credentials))
}

fn config(password: &str) -> String {
    format!(
        "http_server_config:\n  headers:\n    X-Frame-Options: deny\nbasic_auth_users:\n  alice: {}\n  bob: {}\n",
        hash(password),
        hash("other")
    )
}

#[tokio::test]
async fn nobody_gets_metrics_without_the_password() {
    within(async {
        let running = Running::start(limited(patient()), &config("secret")).await;
        for (headers, code) in [
            (String::new(), 401),
            (basic("alice:wrong"), 401),
            (basic("alice:other"), 401),
            (basic("carol:secret"), 401),
            (basic("alice"), 401),
            (basic(":"), 401),
            ("Authorization: Basic\r\n".to_owned(), 401),
            ("Authorization: Bearer secret\r\n".to_owned(), 401),
            ("Authorization: Basic !!!!\r\n".to_owned(), 401),
            (basic("alice:secret"), 200),
            (basic("alice:secret"), 200),
            (basic("bob:other"), 200),
            (basic("alice:wrong"), 401),
        ] {
            for path in ["/metrics", "/", "/-/healthy"] {
                let reply = running.get_with(path, &headers).await;
                assert_eq!(reply.code, code, "{path} {headers}");
                assert_eq!(reply.header("www-authenticate").is_some(), code == 401);
                assert_eq!(reply.header("x-frame-options"), Some("deny"));
                assert!(code == 200 || !reply.text().contains("overwatch_"));
            }
        }
        assert_eq!(running.get_with("/nothing", "").await.code, 401);
        assert_eq!((running.requests(Handler::Metrics, 401), running.requests(Handler::Metrics, 200)), (10, 3));
        assert_eq!(running.server.counters().computations.load(Relaxed), 3);
    })
    .await;
}

#[tokio::test]
async fn guessing_keeps_nobody_from_a_scrape() {
    within(async {
        let running = Arc::new(Running::start(limited(patient()), &config("secret")).await);
        let mut guesses = JoinSet::new();
        for number in 0..200 {
            let running = Arc::clone(&running);
            guesses.spawn(async move {
                let request = format!(
                    "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n",
                    basic(&format!("alice:{number}"))
                );
                let answer = running.send(request).await;
                answer.is_empty() || Reply::parse(&answer).code == 401
            });
        }
        for _ in 0..10 {
            let request =
                format!("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n", basic("alice:secret"));
            // When all are busy it is refused, as any other would be.
            while running.send(&request).await.is_empty() {
                sleep(Duration::from_millis(20)).await;
            }
        }
        assert!(guesses.join_all().await.into_iter().all(|refused| refused));
        assert_eq!(running.requests(Handler::Metrics, 200), 10);
    })
    .await;
}

#[tokio::test]
async fn a_reload_changes_the_passwords() {
    within(async {
        let first = config("secret");
        let running = Running::start(limited(patient()), &first).await;
        let old = basic("alice:secret");
        assert_eq!(running.get_with("/metrics", &old).await.code, 200);
        let waiting = running.connect().await;
        until(|| running.open() == 1).await;

        write(&running.file("web.yml"), "basic_auth_users:\n  alice: secret\n");
        let error = running.server.reread().unwrap_err();
        assert_eq!((error.line, error.key.as_deref()), (Some(2), Some("basic_auth_users.alice")));
        assert!(
            error.to_string().contains("web.yml, line 2, basic_auth_users.alice: it is not a bcrypt hash"),
            "{error}"
        );
        // All is as it was, also after a reload without a change.
        write(&running.file("web.yml"), &first);
        running.server.reread().unwrap();
        assert_eq!(running.get_with("/metrics", &old).await.code, 200);
        until(|| running.open() == 1).await;

        write(&running.file("web.yml"), config("new"));
        running.server.reread().unwrap();
        assert_eq!(exchange(waiting, b"").await, b"");
        assert_eq!(running.get_with("/metrics", &old).await.code, 401);
        assert_eq!(running.get_with("/metrics", &basic("alice:new")).await.code, 200);
        write(&running.file("web.yml"), "");
        running.server.reread().unwrap();
        running.assert_good_scrape().await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_busy_at_a_reload_ends_with_its_answer() {
    within(async {
        let (running, mut asks) = Running::silent(limited(patient()), "").await;
        let reload = async {
            let ask = asks.next().await.unwrap();
            write(&running.file("web.yml"), "# Another one.\n");
            running.server.reread().unwrap();
            ask.answer(Ok(METRICS.to_owned()));
        };
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        // It returns since the connection is closed.
        let (answer, ()) = tokio::join!(running.send(request), reload);
        let reply = Reply::parse(&answer);
        assert_eq!((reply.code, reply.header("connection")), (200, Some("close")));
        assert_eq!(running.timeouts(Phase::Idle), 0);
    })
    .await;
}
