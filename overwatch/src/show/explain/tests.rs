use super::*;
use crate::{
    model::queue::fixtures::{holder, row, snapshot, unknown_holder, unknown_row, waiting},
    show::text::steers,
};

const PLAIN: Style = Style { color: false, width: None, height: None };

fn told(rows: Vec<Row>, style: Style) -> Vec<String> {
    let snapshot = snapshot(rows);
    let rows: Vec<_> = snapshot.rows.iter().map(|row| (row, Some("/system.slice/\x1bapache2"))).collect();
    let mut out = Vec::new();
    let interval = Interval { host: "web1", snapshot: &snapshot, rows: &rows, all: rows.len(), most: usize::MAX };
    write(&mut out, &interval, style, "nothing listens on port 5").unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_whole_story_is_told() {
    let text = told(vec![row()], PLAIN).join("\n");
    for line in [
        "1970-01-01T00:01:40Z  1 listener, 1 sick  web1",
        "\n\n0.0.0.0:8080  saturated: worker_limit, for 10.00s  6x apache2\nWhy:\n  - 5 connections are served",
        "\n  - The client that came first has waited 9.5 s.\nWhat to do:\n  - Raise MaxRequestWorkers",
        "\nMore: docs/runbooks/worker_limit.md\nNumbers:\n",
        "\n  accept queue    3, the oldest for 9.50s; at most 4 in this interval\n",
        "\n  its limit       511, as listen() was called; net.core.somaxconn is 4096\n",
        "\n  served          5 now, and never more than 5; 1 ended in this interval\n",
        "\n  arrived         6 (3.0/s), 60 in all\n",
        "\n  accepted        4 (2.0/s), 40 in all\n",
        "\n  waited          half up to 1.0ms, 90 % up to 20.0ms, 99 % up to 300.0ms, the longest 4.00s\n",
        "\n  refused at SYN  0 (0.0/s), 2 in all\n  refused at ACK  0 (0.0/s), 1 in all\n  other drops ",
        "\n  SYN queue       2, of these 1 had their SYN-ACK sent again; TCP_DEFER_ACCEPT keeps silent clients here\n",
        "\n  SYN queue full  3 (1.5/s), 30 in all\n",
        "\n  listening       since 1970-01-01T00:00:05Z\n",
        "\n  socket          inode 4711\n",
        "\n  control group   /system.slice/?apache2\n",
        "\nWaiting clients:\n  WAITING CLIENT                  UNREAD STATE",
        "\n    9.50s 10.0.0.2:50001              78 ESTABLISHED\n",
        "\n    4.00s 10.0.0.2:50002              78 CLOSE_WAIT  gone\n",
        "\n       42 apache2               5    1     2    1    1  20.0ms   12/1024   300.0ms",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn what_is_not_known_is_said_to_be_so() {
    let mut unknown = unknown_row();
    unknown.queue.holders = vec![unknown_holder()];
    unknown.queue.siblings = 3;
    let text = told(vec![unknown], PLAIN).join("\n");
    for line in [
        "\n0.0.0.0:80  ok  apache2\nNumbers:\n",
        "511; net.core.somaxconn is not known\n",
        "served          not known\n  arrived         not visible on this host\n",
        "\n  refused         0 (0.0/s), 3 in all, at the SYN or at the last ACK\n  other drops ",
        "SYN cookies     not visible on this host\n",
        "tcp_syncookies  -\n",
        "waited          nobody was accepted, or it is not known\n",
        "listening       since before overwatch\n",
        "refusals are worked out",
        "3 more sockets listen at this address (SO_REUSEPORT)",
        "42 apache2               -    -     -    -    -       -         -         -",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert!(!text.contains("Why:") && !text.contains("runbooks") && !text.contains("Waiting clients"), "{text}");
}

#[test]
fn a_limit_that_is_somaxconn_and_a_full_queue_are_named() {
    let mut full = row();
    (full.queue.accept_queue, full.queue.backlog_limit, full.queue.somaxconn) = (129, 128, Some(128));
    let text = told(vec![full], PLAIN).join("\n");
    assert!(text.contains("129, full, the oldest for 9.50s;"), "{text}");
    assert!(text.contains("128, which is net.core.somaxconn\n"), "{text}");
}

#[test]
fn all_waiting_clients_and_processes_are_listed_and_the_rest_is_counted() {
    let mut long = row();
    long.queue.waiting = (0..64).map(|port| waiting(port, 10, 1)).collect();
    long.queue.waiting_total = 4_097;
    long.queue.holders = (100..500).map(holder).collect();
    let lines = told(vec![long], PLAIN);
    assert_eq!(lines.iter().filter(|line| line.contains("ESTABLISHED")).count(), 64);
    assert!(lines.contains(&"  ... and 4033 more".to_owned()), "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| line.ends_with("300.0ms")).count(), 400);
}

#[test]
fn nothing_is_wider_or_higher_than_the_terminal() {
    let mut hostile = row();
    hostile.queue.holders[0].comm = "x\n\x1b[2J\u{9b}\u{202e}y".into();
    hostile.verdict.evidence[0] = "Process \x1b]0;x\x07 is stopped.".into();
    hostile.queue.local_addr = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
    for width in [1, 20, 80, 120] {
        let lines = told(vec![hostile.clone(), unknown_row()], Style { width: Some(width), height: Some(24), ..PLAIN });
        assert_eq!(lines.len(), 24);
        for line in told(vec![hostile.clone(), unknown_row()], Style { width: Some(width), ..PLAIN }) {
            assert!(line.chars().count() <= width, "{width}: {line}");
            assert!(!line.chars().any(steers), "{line:?}");
        }
    }
    let all = told(vec![row()], PLAIN).len();
    let lines = told(vec![row()], Style { height: Some(10), ..PLAIN });
    assert_eq!(lines[9], format!("... and {} more lines: `listeners 1 1 --explain` prints them all", all - 9));
    assert_eq!(told(vec![row()], Style { height: Some(all), ..PLAIN }).len(), all);
}

#[test]
fn where_there_is_none_it_is_said() {
    assert_eq!(told(vec![], PLAIN), ["1970-01-01T00:01:40Z  0 listeners, 0 sick  web1", "nothing listens on port 5"]);
}

#[test]
fn several_stories_have_a_line_between_them() {
    let snapshot = snapshot(vec![row(), unknown_row(), unknown_row()]);
    let rows: Vec<_> = snapshot.rows.iter().map(|row| (row, None)).collect();
    let mut out = Vec::new();
    let interval = Interval { host: "web1", snapshot: &snapshot, rows: &rows, all: 9, most: 2 };
    write(&mut out, &interval, PLAIN, "").unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches("\n\n0.0.0.0:80").count(), 2);
    assert!(text.contains("9 listeners, 1 sick") && text.ends_with("\n\n... and 1 more\n"), "{text}");
}

#[test]
fn the_title_has_the_colour_of_the_verdict() {
    let lines = told(vec![row()], Style { color: true, ..PLAIN });
    assert_eq!(lines[2], "\x1b[1;31m0.0.0.0:8080  saturated: worker_limit, for 10.00s  6x apache2\x1b[0m");
    assert!(lines.iter().enumerate().all(|(at, line)| at == 2 || !line.contains('\x1b')), "{lines:#?}");
}
