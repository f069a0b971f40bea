use std::{
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use tokio::net::UnixStream;

use super::*;

const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

fn bind(text: &str) -> Result<Listener, String> {
    Listener::bind(&text.parse().unwrap()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_taken_address_is_said() {
    within(async {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind(&address).unwrap_err();
        assert!(
            error.starts_with(&format!("cannot listen at {address}: the address is in use by another process")),
            "{error}"
        );
        // 192.0.2.0/24 is nobody's (RFC 5737).
        let error = bind("192.0.2.1:0").unwrap_err();
        assert_eq!(error, "cannot listen at 192.0.2.1:0: Cannot assign requested address (os error 99)");
        // A name that no resolver is asked for.
        let error = bind("[fe80::1%nothing]:80").unwrap_err();
        assert_eq!(error, "cannot listen at [fe80::1%nothing]:80: the name cannot be resolved");
        for text in [":0", "localhost:0", "127.0.0.1:0"] {
            assert_ne!(bind(text).unwrap().local_addr().unwrap().port(), 0, "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn several_sockets_are_served_together() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("overwatch.sock");
        let unix = format!("unix://{}?mode=0600", path.display());
        let (first, second, third) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"), bind(&unix));
        let addresses = [&first, &second].map(|listener| listener.as_ref().unwrap().local_addr().unwrap());
        assert_eq!(path.symlink_metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let (server, asks) = Server::new(limited(patient()), None, &Files::default()).unwrap();
        tokio::spawn(always(asks, METRICS.to_owned()));
        let (stop, stopped) = oneshot::channel::<()>();
        let listeners = vec![first.unwrap(), second.unwrap(), third.unwrap()];
        let task = tokio::spawn(serve(server, listeners, async { stopped.await.unwrap_or_default() }));
        for address in addresses {
            let answer = exchange(TcpStream::connect(address).await.unwrap(), SCRAPE).await;
            assert_eq!(Reply::parse(&answer).text(), METRICS);
        }
        let answer = exchange(UnixStream::connect(&path).await.unwrap(), SCRAPE).await;
        assert_eq!(Reply::parse(&answer).text(), METRICS);
        // Somebody listens there.
        let error = bind(&unix).unwrap_err();
        assert!(error.contains("the address is in use by another process"), "{error}");
        stop.send(()).unwrap();
        task.await.unwrap();
        assert!(!path.exists());
    })
    .await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_file_is_not() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("overwatch.sock");
        let address = format!("unix://{}", path.display());
        // As after kill -9: the file is there, and nobody behind it.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = bind(&address).unwrap();
        assert_eq!(path.symlink_metadata().unwrap().permissions().mode() & 0o777, 0o660);
        // What somebody else put there stays.
        std::fs::remove_file(&path).unwrap();
        write(&path, "mine");
        drop(listener);
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        let error = bind(&address).unwrap_err();
        assert_eq!(error, format!("cannot listen at {address}: there is a file of that name that is not a socket"));
        let error = bind("unix:///nowhere/at/all.sock").unwrap_err();
        assert!(
            error.starts_with("cannot listen at unix:///nowhere/at/all.sock: No such file or directory"),
            "{error}"
        );
    })
    .await;
}

/// The test below is the systemd of this one.
#[tokio::test]
#[ignore = "run by the test below with a socket"]
async fn serve_what_is_inherited() {
    let listeners = activation::inherited().unwrap();
    let (server, asks) = Server::new(limited(patient()), None, &Files::default()).unwrap();
    tokio::spawn(always(asks, METRICS.to_owned()));
    let enough = Arc::clone(&server);
    let served = async move {
        until(|| enough.counters().connections.load(Relaxed) == 2).await;
    };
    if !listeners.is_empty() {
        within(serve(server, listeners, served)).await;
    }
}

#[tokio::test]
async fn a_socket_of_systemd_is_served() {
    within(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "exec 3<&0; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" --ignored --exact export::http::tests::sockets::serve_what_is_inherited"])
            .arg(std::env::current_exe().unwrap())
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let answer = exchange(TcpStream::connect(address).await.unwrap(), SCRAPE).await;
        assert_eq!(Reply::parse(&answer).text(), METRICS);
        // The second ends it.
        drop(TcpStream::connect(address).await.unwrap());
        let ended = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
        assert!(ended.success(), "{ended}");
    })
    .await;
}
