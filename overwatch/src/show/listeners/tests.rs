use super::*;
use crate::{
    model::{
        queue::{
            Count, Threads,
            fixtures::{at, holder, row, snapshot, unknown_row, waiting},
        },
        verdict::{Judge, Thresholds},
    },
    show::columns::{keys, listeners},
};

const PLAIN: Style = Style { color: false, width: None, height: None };

fn interval<'a>(snapshot: &'a Snapshot, rows: &'a [(&'a Row, Option<&'a str>)]) -> Interval<'a> {
    Interval { host: "web1", snapshot, rows, all: rows.len(), most: usize::MAX }
}

fn chosen(snapshot: &Snapshot) -> Vec<(&Row, Option<&str>)> {
    snapshot.rows.iter().map(|row| (row, Some("/system.slice/apache2.service"))).collect()
}

fn json(rows: Vec<Row>) -> serde_json::Value {
    let snapshot = snapshot(rows);
    let mut out = Vec::new();
    write_json(&mut out, &interval(&snapshot, &chosen(&snapshot))).unwrap();
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    serde_json::from_slice(&out).unwrap()
}

fn table(rows: Vec<Row>, style: Style) -> Vec<String> {
    let snapshot = snapshot(rows);
    let mut out = Vec::new();
    write_table(&mut out, &interval(&snapshot, &chosen(&snapshot)), style).unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

fn with(level: Level, queue: Queue) -> Row {
    let mut row = Row { queue, ..row() };
    row.verdict.level = level;
    row
}

/// With all that another user of the host can choose.
fn hostile() -> Row {
    let mut row = row();
    row.queue.holders[0].comm = "x\n\x1b[2J\u{9b}\u{202e}y".into();
    row.verdict.evidence[0] = "Process \x1b]0;x\x07 is stopped.".into();
    row.verdict.advice[0] = "Continue\n\x1b[31m it.".into();
    row
}

#[test]
fn json_has_the_promised_keys() {
    let object = json(vec![row(), unknown_row()]);
    let names = |object: &serde_json::Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let promised = |keys: &[crate::show::columns::Key]| keys.iter().map(|key| key.name.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&object), promised(listeners::INTERVAL));
    assert_eq!(object["interval_seconds"], 2.0);
    let [sick, unknown] = object["listeners"].as_array().unwrap().as_slice() else { panic!("{object}") };
    assert_eq!(names(sick), promised(&keys(LISTENER)));
    assert_eq!(names(&sick["processes"][0]), promised(&keys(listeners::PROCESS)));
    assert_eq!(names(&sick["waiting"][0]), promised(&keys(listeners::WAITING)));
    assert_eq!(names(&sick["accept_wait_seconds"]), ["p50", "p90", "p99", "max"]);
    assert_eq!(names(unknown), names(sick));
}

#[test]
fn json_has_the_numbers() {
    let object = json(vec![row()]);
    let row = &object["listeners"][0];
    for (pointer, value) in [
        ("/verdict", "\"saturated\""),
        ("/cause", "\"worker_limit\""),
        ("/since", "\"1970-01-01T00:01:30.000000Z\""),
        ("/listening_since", "\"1970-01-01T00:00:05.000000Z\""),
        ("/netns", "7"),
        ("/cgroup", "\"/system.slice/apache2.service\""),
        ("/local_addr", "\"0.0.0.0\""),
        ("/local_port", "8080"),
        ("/inode", "4711"),
        ("/backlog_limit", "511"),
        ("/backlog_origin", "\"listen\""),
        ("/somaxconn", "4096"),
        ("/accept_queue", "3"),
        ("/accept_queue_peak", "4"),
        ("/accept_queue_full", "false"),
        ("/syn_queue", "2"),
        ("/arrivals", "6"),
        ("/accepts", "4"),
        ("/accepts_total", "40"),
        ("/overflows", "0"),
        ("/overflows_total", "3"),
        ("/overflows_syn_total", "2"),
        ("/overflows_ack_total", "1"),
        ("/overflows_exact", "true"),
        ("/drops", "1"),
        ("/drops_total", "9"),
        ("/syn_cookies", "2"),
        ("/syn_queue_overflows_total", "30"),
        ("/serving", "5"),
        ("/serving_ceiling", "5"),
        ("/waiting_total", "3"),
        ("/waiting/0/remote_addr", "\"10.0.0.2\""),
        ("/waiting/0/remote_port", "50001"),
        ("/waiting/0/waiting_seconds", "9.5"),
        ("/waiting/0/unread_bytes", "78"),
        ("/waiting/0/gone", "false"),
        ("/waiting/1/state", "\"CLOSE_WAIT\""),
        ("/waiting/1/gone", "true"),
        ("/oldest_wait_seconds", "9.5"),
        ("/accept_wait_seconds/p50", "0.001"),
        ("/accept_wait_seconds/max", "4.0"),
        ("/processes/5/pid", "47"),
        ("/processes/0/threads", "5"),
        ("/processes/0/on_cpu_seconds", "0.02"),
        ("/processes/0/open_files_limit", "1024"),
        ("/processes/0/throttled_seconds", "0.3"),
        ("/advice/0", "\"Raise MaxRequestWorkers above 5 in Apache's configuration.\""),
    ] {
        assert_eq!(row.pointer(pointer).unwrap().to_string(), value, "{pointer}");
    }
}

#[test]
fn what_is_not_known_is_null_and_lists_are_empty() {
    let object = json(vec![unknown_row()]);
    let row = &object["listeners"][0];
    for key in ["inode", "somaxconn", "backlog_origin", "serving", "syn_cookies", "accept_wait_seconds", "since"] {
        assert!(row[key].is_null(), "{key}: {}", row[key]);
    }
    for key in ["overflows_syn", "overflows_syn_total", "overflows_ack", "overflows_ack_total"] {
        assert!(row[key].is_null() && row["overflows_total"] == 3, "{key}: {}", row[key]);
    }
    for key in ["processes", "waiting", "evidence", "advice"] {
        assert_eq!(row[key].as_array().unwrap().len(), 0, "{key}");
    }
}

#[test]
fn csv_has_a_record_for_each_with_a_field_for_each_heading() {
    let snapshot = snapshot(vec![hostile(), unknown_row()]);
    let mut out = Vec::new();
    write_csv_heading(&mut out).unwrap();
    write_csv(&mut out, &interval(&snapshot, &chosen(&snapshot))).unwrap();
    let mut reader = ::csv::Reader::from_reader(out.as_slice());
    let headings = reader.headers().unwrap().clone();
    let records: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 2);
    // An object has four keys, and time, interval and lost events stand beside.
    assert_eq!(headings.len(), LISTENER.len() + 3 + 3);
    let of = |record: usize, name: &str| {
        let at = headings.iter().position(|heading| heading == name).unwrap_or_else(|| panic!("no column {name}"));
        records[record][at].to_owned()
    };
    for (name, known, unknown) in [
        ("time", "1970-01-01T00:01:40.000Z", "1970-01-01T00:01:40.000Z"),
        ("interval_seconds", "2", "2"),
        ("verdict", "saturated", "ok"),
        ("local_port", "8080", "80"),
        ("inode", "4711", ""),
        ("accept_wait_seconds_p50", "0.001", ""),
        ("accept_wait_seconds_max", "4", ""),
        ("oldest_wait_seconds", "9.5", ""),
        ("lost_events", "0", "0"),
    ] {
        assert_eq!((of(0, name).as_str(), of(1, name).as_str()), (known, unknown), "{name}");
    }
    let processes: serde_json::Value = serde_json::from_str(&of(0, "processes")).unwrap();
    assert_eq!(processes[0]["comm"], "x\n\x1b[2J\u{9b}\u{202e}y");
    assert_eq!(processes[5]["pid"], 47);
    assert_eq!(of(1, "waiting"), "[]");
    let text = String::from_utf8(out).unwrap();
    assert!(!text.contains(['\x1b', '\u{9b}', '\u{202e}']), "{text:?}");
}

#[test]
fn the_line_of_a_listener_has_the_answer_under_it_when_it_is_sick() {
    let idle = with(Level::Ok, unknown_row().queue);
    let idle = Row { verdict: crate::model::verdict::Verdict::ok(), ..idle };
    let lines = table(vec![row(), idle], PLAIN);
    assert_eq!(lines[0], "1970-01-01T00:01:40Z  2 listeners, 1 sick  web1");
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let titles = "VERDICT CAUSE SINCE LISTENER PROCESSES QUEUE PEAK OLDEST SERVED ACCEPT/s REFUSED NETNS";
    assert_eq!(cells(&lines[1]), cells(titles));
    assert_eq!(
        cells(&lines[2]),
        cells("saturated worker_limit 10.00s 0.0.0.0:8080 6x apache2 3/511 4 9.50s 5/5 2.0 0 7")
    );
    assert_eq!(lines[3], "    Why: 5 connections are served, which has been the most for 10 s, and 3 clients wait.");
    assert_eq!(lines[4], "    Do:  Raise MaxRequestWorkers above 5 in Apache's configuration.");
    assert_eq!(cells(&lines[5]), cells("ok - - 0.0.0.0:80 - 0/511 0 - - - 0 -"));
    assert_eq!(lines.len(), 6);
}

#[test]
fn namespaces_are_shown_when_there_are_several() {
    let other = Row { queue: Queue { netns: 8, ..row().queue }, ..row() };
    assert!(!table(vec![row(), row()], PLAIN)[1].contains("NETNS"));
    assert!(table(vec![row(), other], PLAIN)[1].contains("NETNS"));
}

#[test]
fn the_least_useful_columns_go_first() {
    let titles = |width| {
        let lines = table(vec![row()], Style { width, ..PLAIN });
        lines[1].split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(titles(None), "VERDICT CAUSE SINCE LISTENER PROCESSES QUEUE PEAK OLDEST SERVED ACCEPT/s REFUSED");
    assert_eq!(titles(Some(120)), "VERDICT CAUSE SINCE LISTENER PROCESSES QUEUE PEAK OLDEST SERVED ACCEPT/s REFUSED");
    assert_eq!(titles(Some(100)), "VERDICT CAUSE LISTENER PROCESSES QUEUE OLDEST SERVED REFUSED");
    assert_eq!(titles(Some(80)), "VERDICT CAUSE LISTENER PROCESSES QUEUE OLDEST");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let mut long = row();
    long.queue.local_addr = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
    long.queue.accept_queue = u32::MAX;
    long.queue.holders = (0..1000).map(|pid| Holder { comm: format!("worker-{}", pid % 7), ..holder(pid) }).collect();
    for width in [0, 1, 20, 80, 120] {
        for line in table(vec![long.clone(), row()], Style { width: Some(width), ..PLAIN }) {
            // A sentence goes on with at least one character a line.
            assert!(line.chars().count() <= width.max(1), "{width}: {line}");
        }
    }
    // The port is what tells two of them apart.
    let lines = table(vec![long], Style { width: Some(80), ..PLAIN });
    assert!(lines[2].contains("5555:6666]:8080") && lines[2].contains("4G/511!"), "{}", lines[2]);
}

#[test]
fn sentences_are_broken_and_not_cut() {
    let lines = table(vec![row()], Style { width: Some(40), ..PLAIN });
    let text = lines[3..].join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        text,
        "Why: 5 connections are served, which has been the most for 10 s, and 3 clients wait. \
         Do: Raise MaxRequestWorkers above 5 in Apache's configuration."
    );
    assert!(lines[4].starts_with("         "), "{lines:?}");
}

#[test]
fn nothing_steers_the_terminal() {
    for width in [None, Some(20), Some(80), Some(120)] {
        for line in table(vec![hostile()], Style { width, ..PLAIN }) {
            assert!(!line.chars().any(super::super::text::steers), "{line:?}");
        }
    }
}

#[test]
fn the_verdict_has_its_colour_and_nothing_else_has() {
    let color = |level| {
        let lines = table(vec![with(level, row().queue)], Style { color: true, ..PLAIN });
        lines[2].split_once("worker").unwrap().0.to_owned()
    };
    assert_eq!(color(Level::Ok), "ok          ");
    assert_eq!(color(Level::Busy), "\x1b[33mbusy\x1b[0m        ");
    assert_eq!(color(Level::Saturated), "\x1b[1;31msaturated\x1b[0m   ");
    assert_eq!(color(Level::Overflowing), "\x1b[1;31moverflowing\x1b[0m ");
    let narrow = table(vec![row()], Style { color: true, width: Some(4), height: None });
    assert_eq!(narrow[2], "\x1b[1;31msatu\x1b[0m");
}

#[test]
fn what_does_not_fit_is_counted() {
    let ok = || Row { verdict: crate::model::verdict::Verdict::ok(), ..row() };
    // A sick row takes three lines, and summary and heading one each.
    for (rows, height, shown, last) in [
        (vec![row(), ok(), ok()], Some(7), 3, None),
        (vec![row(), ok(), ok()], Some(6), 1, Some("... and 2 more")),
        (vec![row(), ok(), ok()], Some(5), 0, Some("... and 3 more")),
        (vec![row(), ok(), ok()], Some(0), 0, Some("... and 3 more")),
        (vec![row(), ok(), ok()], None, 3, None),
        (vec![], Some(9), 0, None),
    ] {
        let lines = table(rows, Style { height, ..PLAIN });
        assert_eq!(lines.iter().filter(|line| line.contains(":8080")).count(), shown, "{height:?}: {lines:#?}");
        assert_eq!(lines.last().map(String::as_str).filter(|line| line.starts_with("...")), last);
    }
    let snapshot = snapshot(vec![row(), ok(), ok()]);
    let mut out = Vec::new();
    write_table(&mut out, &Interval { most: 1, ..interval(&snapshot, &chosen(&snapshot)) }, PLAIN).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("3 listeners, 1 sick") && text.ends_with("... and 2 more\n"), "{text}");
}

#[test]
fn lost_changes_are_told() {
    let lost = Snapshot { lost_events: 4, ..snapshot(vec![]) };
    let mut out = Vec::new();
    write_table(&mut out, &interval(&lost, &[]), PLAIN).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("\nLOST: 4 changes; accepts among them are not counted\n"), "{text}");
}

#[test]
fn a_full_queue_is_marked_and_large_numbers_do_not_lose_their_end() {
    for (accept_queue, backlog_limit, shown) in [
        (3, 511, "3/511"),
        (2, 2, "2/2"),
        (3, 2, "3/2!"),
        (1, 0, "1/0!"),
        (4_097, 4_096, "4097/4096!"),
        (65_536, 65_535, "65k/65k!"),
    ] {
        let of = Queue { accept_queue, backlog_limit, ..row().queue };
        assert_eq!(queue(&of), shown);
    }
}

#[test]
fn what_is_served_is_shown_with_its_ceiling() {
    for (serving, ceiling, shown) in [
        (Some(5), Some(5), "5/5"),
        (Some(5), None, "5"),
        (None, None, "-"),
        (None, Some(10), "-/10"),
        (Some(12_345), Some(12_345), "12k/12k"),
    ] {
        let mut row = row();
        (row.queue.serving, row.verdict.serving_ceiling) = (serving, ceiling);
        assert_eq!(served(&row), shown);
    }
}

#[test]
fn processes_are_counted_by_name() {
    let of = |names: &[&str]| {
        let holders = names.iter().zip(1..).map(|(name, pid)| Holder { comm: (*name).into(), ..holder(pid) });
        processes(&holders.collect::<Vec<_>>())
    };
    for (names, shown) in [
        (vec![], "-"),
        (vec!["sshd"], "sshd"),
        (vec!["apache2"; 6], "6x apache2"),
        (vec!["systemd", "apache2", "apache2"], "2x apache2, systemd"),
        (vec!["b", "a"], "b, a"),
        (vec!["httpd"; 12_000], "12kx httpd"),
    ] {
        assert_eq!(of(&names), shown);
    }
}

#[test]
fn rates_and_ages_survive_a_clock_that_goes_wrong() {
    for (number, seconds, shown) in [(4, 2.0, "2.0"), (0, 1.0, "0.0"), (1, 0.0, "1000"), (123_456, 1.0, "123k")] {
        assert_eq!(rate(number, seconds), shown);
    }
    assert_eq!(age(&row(), at(100)), Some(Duration::from_secs(10)));
    assert_eq!(age(&row(), at(1)), Some(Duration::ZERO));
    assert_eq!(age(&unknown_row(), at(100)), None);
}

#[test]
fn sixty_four_waiting_clients_are_all_in_json() {
    let mut queue = row().queue;
    queue.waiting = (0..64).map(|port| waiting(port, u64::from(100 - port), 1)).collect();
    queue.waiting_total = 4096;
    let object = json(vec![with(Level::Overflowing, queue)]);
    let row = &object["listeners"][0];
    assert_eq!(row["waiting"].as_array().unwrap().len(), 64);
    assert_eq!((&row["waiting_total"], &row["oldest_wait_seconds"]), (&4096.into(), &0.1.into()));
}

/// Apache with five workers, all of which sleep, as it is judged after ten seconds in which three clients have come and nobody was accepted.
fn judged(time: SystemTime) -> Row {
    let mut queue = row().queue;
    queue.accept_queue_peak = 3;
    queue.served = 0;
    queue.accept_waits = None;
    for count in [&mut queue.arrivals, &mut queue.accepts, &mut queue.overflows_syn, &mut queue.overflows_ack] {
        *count = Count::default();
    }
    (queue.syn_cookies, queue.syn_queue_overflows) = (Some(Count::default()), Some(Count::default()));
    for holder in &mut queue.holders {
        holder.threads = Some(Threads { total: 1, sleeping: 1, ..Threads::default() });
        holder.throttling = None;
    }
    let mut judge = Judge::new(Thresholds::default());
    let mut judged = row();
    for second in 0..10 {
        queue.waiting = (0..3).map(|client| waiting(50_001 + client, 400 + 1000 * second, 1)).collect();
        let time = time - Duration::from_secs(9 - second);
        let verdict = judge.judge(time, Duration::from_secs(1), std::slice::from_ref(&queue)).remove(0);
        judged = Row { queue: queue.clone(), verdict };
    }
    judged
}

/// The example in docs/listeners.md.
#[test]
fn the_documented_table_is_what_is_written() {
    let idle = |addr: [u8; 4], local_port, comm: &str, pid, backlog_limit, serving| {
        let holders = vec![Holder { comm: comm.into(), ..holder(pid) }];
        let local_addr = addr.into();
        let queue = Queue { local_addr, local_port, holders, backlog_limit, serving, ..unknown_row().queue };
        Row { queue: Queue { netns: 7, accepts_seen: true, accepts: Default::default(), ..queue }, ..unknown_row() }
    };
    let time = humantime::parse_rfc3339("2026-11-22T01:02:11Z").unwrap();
    let rows = vec![
        judged(time),
        idle([0, 0, 0, 0], 22, "sshd", 812, 128, Some(1)),
        idle([127, 0, 0, 1], 5432, "postgres", 901, 200, Some(11)),
    ];
    let snapshot = Snapshot { time, ..snapshot(rows) };
    let mut out = Vec::new();
    let style = Style { width: Some(120), ..PLAIN };
    write_table(&mut out, &interval(&snapshot, &chosen(&snapshot)), style).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(include_str!("../../../../docs/listeners.md").contains(&text), "docs/listeners.md lacks\n{text}");
}

/// docs/listeners.md is for people; this keeps it complete.
#[test]
fn every_column_verdict_and_cause_is_documented() {
    let document = include_str!("../../../../docs/listeners.md");
    let titles = COLUMNS.iter().map(|column| format!("| {} | ", column.title));
    let words = Level::NAMES.iter().chain(Cause::NAMES).map(|name| format!("| `{name}` | "));
    for line in titles.chain(words) {
        assert!(document.contains(&format!("\n{line}")), "docs/listeners.md lacks the line that begins with {line}");
    }
}
