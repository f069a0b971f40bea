//! Both streams in all formats.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde_json::Value as Json;

use super::*;
use crate::{
    model::{
        fixtures::{life_line, transition, unknown_life_line, unknown_transition},
        life::{Line, Lost},
        snapshot::{Process, Role},
        states::Transition,
    },
    show::{columns::states::LostTransitions, life, states},
};

const HOSTILE: &str = "a,\"b\"\n\x1b[2J\u{9b}";
const WIDE: Format = Format::Table { color: false, width: None };

fn narrow(width: usize) -> Format {
    Format::Table { color: false, width: Some(width) }
}

fn lost() -> Lost {
    Lost {
        time: SystemTime::UNIX_EPOCH,
        lost_events: 3,
        process: Some(Process { pid: 5, comm: HOSTILE.into(), cgroup_id: 0 }),
        netns: 7,
        role: Some(Role::Client),
        sent_bytes: 2048,
        received_bytes: 9,
    }
}

const LOST_TRANSITIONS: LostTransitions = LostTransitions { time: SystemTime::UNIX_EPOCH, lost_events: 12 };

fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Heading, lines and what is missing.
fn all<T, L>(shape: &'static Shape<T, L>, format: Format, lines: &[(&T, Option<&str>)], lost: &L) -> String {
    let stream = Stream::new(shape, format);
    text(|out| {
        stream.write_heading(out)?;
        stream.write_lines(out, lines)?;
        stream.write_lost(out, lost)
    })
}

fn objects(text: &str) -> Vec<Json> {
    assert!(!text.chars().any(|character| character != '\n' && character.is_control()), "{text:?}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn keys(object: &Json) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_life_is_an_object_with_the_promised_keys() {
    let mut hostile = life_line();
    hostile.process.as_mut().unwrap().comm = HOSTILE.into();
    let objects =
        objects(&all(&life::SHAPE, Format::Json, &[(&hostile, Some("/a")), (&unknown_life_line(), None)], &lost()));
    let promised = "time netns pid comm cgroup local_addr local_port remote_addr remote_port role listener_addr listener_port \
                    syn_time established_time accepted_time duration_seconds connect_seconds handshake_seconds \
                    accept_wait_seconds sent_bytes received_bytes reconciled_sent_bytes reconciled_received_bytes \
                    kernel_sent_bytes kernel_received_bytes unread_bytes segments_sent segments_received retransmits \
                    lost_segments smoothed_rtt_seconds ended error partial";
    let [known, unknown, lost] = &objects[..] else { panic!("{objects:?}") };
    assert_eq!(keys(known), promised.split_whitespace().collect::<Vec<_>>());
    assert_eq!(keys(unknown), keys(known));
    for (key, expected) in [
        ("time", Json::from("1970-01-01T00:00:01.500000Z")),
        ("comm", HOSTILE.into()),
        ("cgroup", "/a".into()),
        ("listener_addr", "0.0.0.0".into()),
        ("listener_port", 80.into()),
        ("syn_time", "1970-01-01T00:00:00.998000Z".into()),
        ("duration_seconds", 0.502.into()),
        ("connect_seconds", Json::Null),
        ("accept_wait_seconds", 0.04.into()),
        ("kernel_sent_bytes", 3000.into()),
        ("smoothed_rtt_seconds", 0.000_25.into()),
        ("ended", "reset_by_peer".into()),
        ("error", "ECONNRESET".into()),
        ("partial", false.into()),
    ] {
        assert_eq!(known[key], expected, "{key}");
    }
    let not_null: Vec<_> = unknown.as_object().unwrap().iter().filter(|(_, value)| !value.is_null()).collect();
    let not_null: Vec<_> = not_null.into_iter().map(|(key, _)| key.as_str()).collect();
    let always = "time local_addr sent_bytes received_bytes reconciled_sent_bytes reconciled_received_bytes partial";
    assert_eq!(not_null, always.split_whitespace().collect::<Vec<_>>());
    let keys_of_lost = "time lost_events pid comm netns role sent_bytes received_bytes";
    assert_eq!(keys(lost), keys_of_lost.split_whitespace().collect::<Vec<_>>());
    assert_eq!((&lost["lost_events"], &lost["comm"], &lost["sent_bytes"]), (&3.into(), &HOSTILE.into(), &2048.into()));
}

#[test]
fn a_transition_is_an_object_with_the_promised_keys() {
    let lines = [(&transition(), Some("/a")), (&unknown_transition(), None)];
    let objects = objects(&all(&states::SHAPE, Format::Json, &lines, &LOST_TRANSITIONS));
    let promised = "time connection netns pid comm cgroup local_addr local_port remote_addr remote_port role old_state \
                    new_state old_state_seconds";
    let [known, unknown, lost] = &objects[..] else { panic!("{objects:?}") };
    assert_eq!(keys(known), promised.split_whitespace().collect::<Vec<_>>());
    for (key, expected) in [
        ("time", Json::from("1970-01-01T00:00:01.000000Z")),
        ("connection", 3.into()),
        ("pid", 42.into()),
        ("role", "server".into()),
        ("old_state", "SYN_RECV".into()),
        ("new_state", "ESTABLISHED".into()),
        ("old_state_seconds", 0.001_25.into()),
    ] {
        assert_eq!(known[key], expected, "{key}");
    }
    for key in ["netns", "pid", "local_port", "remote_addr", "remote_port", "role", "old_state_seconds"] {
        assert_eq!(unknown[key], Json::Null, "{key}");
    }
    assert_eq!(lost.to_string(), r#"{"time":"1970-01-01T00:00:00.000000Z","lost_events":12}"#);
}

fn records(text: &str) -> (::csv::StringRecord, Vec<::csv::StringRecord>) {
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    (reader.headers().unwrap().clone(), reader.records().map(Result::unwrap).collect())
}

#[test]
fn csv_has_the_same_columns_and_one_more_for_what_is_missing() {
    let mut hostile = life_line();
    hostile.process.as_mut().unwrap().comm = HOSTILE.into();
    let text = all(&life::SHAPE, Format::Csv, &[(&hostile, Some("/a")), (&unknown_life_line(), None)], &lost());
    let (heading, records) = records(&text);
    let at = |name: &str| heading.iter().position(|key| key == name).unwrap();
    assert_eq!(heading.len(), life::SHAPE.columns.len() + 1);
    let cases = [
        ("comm", ["a,\"b\"\\n\\u{1b}[2J\\u{9b}", "", "lost"]),
        ("pid", ["42", "", "5"]),
        ("local_port", ["80", "", ""]),
        ("duration_seconds", ["0.502", "", ""]),
        ("smoothed_rtt_seconds", ["0.00025", "", ""]),
        ("role", ["server", "", "client"]),
        ("sent_bytes", ["3000", "3000", "2048"]),
        ("received_bytes", ["30", "30", "9"]),
        ("partial", ["false", "true", ""]),
        ("lost_events", ["", "", "3"]),
    ];
    for (name, expected) in cases {
        assert_eq!(records.iter().map(|record| &record[at(name)]).collect::<Vec<_>>(), expected, "{name}");
    }
}

#[test]
fn a_csv_of_transitions_has_the_missing_ones_in_its_last_column() {
    let text = all(&states::SHAPE, Format::Csv, &[(&transition(), None)], &LOST_TRANSITIONS);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[1],
        "1970-01-01T00:00:01.000000Z,3,7,42,nginx,,10.0.0.1,80,10.0.0.2,50000,server,SYN_RECV,ESTABLISHED,0.00125,"
    );
    assert_eq!(lines[2], "1970-01-01T00:00:00.000000Z,,,,lost,,,,,,,,,,12");
    assert_eq!(lines[0].matches(',').count(), lines[2].matches(',').count());
}

#[test]
fn a_table_of_lives_reads_like_this() {
    let text = all(&life::SHAPE, narrow(153), &[(&life_line(), None), (&unknown_life_line(), None)], &lost());
    let expected = "\
TIME             PID COMM            ROLE   LOCAL                 REMOTE                DURATION CONN/WAIT     SENT     RECV     RTT  RETR ENDED
00:00:01.500      42 nginx           server 10.0.0.1:80           10.0.0.2:50000         502.0ms    40.0ms    2.9Ki       30   250us     6 reset_by_peer
00:00:01.500       - -               -      10.0.0.1:-            -                            -         -    2.9Ki       30       -     - -
LOST: the last records of 3 connections of a,\"b\"??[2J? (5): sent 2.0Ki, received 9
";
    assert_eq!(text, expected);
}

#[test]
fn a_table_of_transitions_reads_like_this() {
    let lines = [(&transition(), None), (&unknown_transition(), None)];
    let text = all(&states::SHAPE, narrow(112), &lines, &LOST_TRANSITIONS);
    let expected = "\
TIME             PID COMM            LOCAL                 REMOTE                OLD         NEW          IN-OLD
00:00:01.000      42 nginx           10.0.0.1:80           10.0.0.2:50000        SYN_RECV    ESTABLISHED   1.2ms
00:00:01.000       - -               10.0.0.1:-            -                     -           -                 -
LOST: 12 transitions
";
    assert_eq!(text, expected);
}

/// A connection of IPv6 addresses as long as they get.
fn long_life() -> Line {
    let [local, remote]: [SocketAddr; 2] = [
        "[2001:db80:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap(),
        "[2001:db80:aaaa:bbbb:cccc:dddd:eeee:ffff]:50000".parse().unwrap(),
    ];
    Line {
        local_addr: local.ip(),
        local_port: local.port(),
        remote_addr: Some(remote.ip()),
        remote_port: Some(remote.port()),
        ..life_line()
    }
}

#[test]
fn columns_stay_where_they_are_whatever_comes() {
    let mut wide = life_line();
    wide.process.as_mut().unwrap().comm = "日本語日本語日本語".into();
    wide.sent_bytes = u64::MAX;
    wide.duration = Some(Duration::from_secs(86_400 * 999));
    for width in [None, Some(80), Some(100), Some(153), Some(250)] {
        let stream = Stream::new(&life::SHAPE, Format::Table { color: false, width });
        let heading = text(|out| stream.write_heading(out));
        let ended = heading.find("ENDED").unwrap();
        // Without a width an IPv6 address moves what follows it: see the next test.
        let long = if width.is_some() { long_life() } else { life_line() };
        for line in [&life_line(), &long, &wide] {
            let shown = text(|out| stream.write_lines(out, &[(line, None)]));
            let before = &shown[..shown.find("reset_by_peer").unwrap()];
            assert_eq!(unicode_width::UnicodeWidthStr::width(before), ended, "{width:?}: {shown}");
        }
    }
}

#[test]
fn an_unknown_width_cuts_no_address() {
    let shown = all(&life::SHAPE, WIDE, &[(&long_life(), None)], &lost());
    for address in
        ["[2001:db80:1111:2222:3333:4444:5555:6666]:65535", "[2001:db80:aaaa:bbbb:cccc:dddd:eeee:ffff]:50000"]
    {
        assert!(shown.contains(&format!(" {address} ")), "{shown}");
    }
}

#[test]
fn a_narrow_screen_drops_the_least_useful_and_keeps_ports_and_endings() {
    let titles =
        |shape_heading: String| shape_heading.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    for (width, expected) in [
        (153, "TIME PID COMM ROLE LOCAL REMOTE DURATION CONN/WAIT SENT RECV RTT RETR ENDED"),
        (152, "TIME PID COMM ROLE LOCAL REMOTE DURATION CONN/WAIT SENT RECV RETR ENDED"),
        (140, "TIME PID COMM ROLE LOCAL REMOTE DURATION CONN/WAIT SENT RECV ENDED"),
        (120, "TIME COMM LOCAL REMOTE DURATION SENT RECV ENDED"),
        (101, "COMM LOCAL REMOTE DURATION SENT RECV ENDED"),
        (80, "COMM LOCAL REMOTE DURATION ENDED"),
    ] {
        let stream = Stream::new(&life::SHAPE, narrow(width));
        assert_eq!(titles(text(|out| stream.write_heading(out))), expected, "{width}");
        let line = text(|out| stream.write_lines(out, &[(&long_life(), None)]));
        assert!(line.chars().count() <= width + 1, "{width}: {line}");
        assert!(line.contains("]:65535 ") && line.contains("]:50000 ") && line.contains("reset_by_peer"), "{line}");
    }
    for (width, expected) in [
        (112, "TIME PID COMM LOCAL REMOTE OLD NEW IN-OLD"),
        (111, "TIME COMM LOCAL REMOTE OLD NEW IN-OLD"),
        (100, "COMM LOCAL REMOTE OLD NEW IN-OLD"),
        (80, "COMM LOCAL REMOTE OLD NEW"),
    ] {
        let stream = Stream::new(&states::SHAPE, narrow(width));
        assert_eq!(titles(text(|out| stream.write_heading(out))), expected, "{width}");
        let line: Transition = transition();
        let line = text(|out| stream.write_lines(out, &[(&line, None)]));
        assert!(line.contains("10.0.0.1:80") && line.trim_end().contains("ESTABLISHED"), "{line}");
    }
}

#[test]
fn no_line_is_wider_than_the_terminal_however_narrow() {
    for width in [0, 1, 7, 40, 80, 100, 113, 150, 500] {
        let lives = all(&life::SHAPE, narrow(width), &[(&long_life(), None), (&unknown_life_line(), None)], &lost());
        let transitions = all(&states::SHAPE, narrow(width), &[(&transition(), None)], &LOST_TRANSITIONS);
        for line in lives.lines().chain(transitions.lines()) {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
    // Colour takes no cells, and is switched off again behind a heading that was cut.
    let stream = Stream::new(&states::SHAPE, Format::Table { color: true, width: Some(6) });
    assert_eq!(text(|out| stream.write_heading(out)), "\x1b[1mCOMM\x1b[0m\n");
}

#[test]
fn a_hostile_name_cannot_steer_the_terminal() {
    let mut hostile = transition();
    hostile.process.as_mut().unwrap().comm = HOSTILE.into();
    for format in [WIDE, narrow(80)] {
        let transitions = all(&states::SHAPE, format, &[(&hostile, None)], &LOST_TRANSITIONS);
        let lives = all(&life::SHAPE, format, &[], &lost());
        assert_eq!((transitions.lines().count(), lives.lines().count()), (3, 2));
        for line in transitions.lines().chain(lives.lines()) {
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
}

#[test]
fn json_has_no_heading_and_no_line_for_nothing() {
    let stream = Stream::new(&life::SHAPE, Format::Json);
    assert_eq!(text(|out| stream.write_heading(out)), "");
    assert_eq!(text(|out| stream.write_lines(out, &[])), "");
}
