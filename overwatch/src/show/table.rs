//! The table for people.

use std::io::{self, Write};

use super::{
    cells::{comm, endpoint, pid, role, state},
    layout::{
        Addresses, Column, LEAST_ADDRESS, Layout,
        Width::{Address, Between, Fixed, Spare},
        column,
    },
    text::{bytes, printable},
};
use crate::model::snapshot::{Row, Snapshot};

/// What is in a cell; the second argument is the length of the interval in seconds.
type Cell = fn(&Row, f64) -> String;

#[rustfmt::skip]
const COLUMNS: &[Column<Cell>] = &[
    column("PID", Fixed(7), true, |row, _| pid(row.process.as_ref())),
    column("COMM", Between(8, 15), false, |row, _| comm(row.process.as_ref())),
    column("ROLE", Spare(6, 1), false, |row, _| role(row.role)),
    column("STATE", Spare(11, 2), false, |row, _| state(row.state)),
    column("SENT/s", Fixed(9), true, |row, seconds| bytes(row.sent_bytes as f64 / seconds)),
    column("RECV/s", Fixed(9), true, |row, seconds| bytes(row.received_bytes as f64 / seconds)),
    column("REMOTE", Address, false, |row, _| endpoint(row.remote_addr, row.remote_port)),
    column("LOCAL", Address, false, |row, _| endpoint(row.local_addr, row.local_port)),
];

/// How the table is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Colour may be used.
    pub color: bool,
    /// At most this many rows; the rest is summed up in a line.
    pub rows: usize,
    /// Cells in a line; `None` when nobody knows, so that nothing is cut.
    pub width: Option<usize>,
}

/// Addresses are as wide as the widest that is shown, so that IPv6 is not cut and IPv4 wastes nothing.
fn addresses(rows: &[&Row]) -> Addresses {
    let ends = rows.iter().flat_map(|row| {
        [endpoint(row.local_addr, row.local_port), endpoint(row.remote_addr, row.remote_port)].map(|end| end.len())
    });
    let widest = ends.max().unwrap_or(0).max(LEAST_ADDRESS);
    Addresses { wanted: widest, most: widest }
}

/// What the numbers below it leave out, each in a line of its own, so that no narrow screen cuts it off.
fn warnings(snapshot: &Snapshot) -> Vec<String> {
    let mut warnings = Vec::new();
    if snapshot.unattributed_sent_bytes + snapshot.unattributed_received_bytes > 0 {
        warnings.push(format!(
            "UNATTRIBUTED: sent {}, received {} (--max-connections?)",
            bytes(snapshot.unattributed_sent_bytes as f64),
            bytes(snapshot.unattributed_received_bytes as f64),
        ));
    }
    if snapshot.lost_events > 0 {
        warnings.push(format!("LOST: the last records of {} connections", snapshot.lost_events));
    }
    warnings
}

/// Lines that an interval has beside its rows.
pub fn lines_beside_rows(snapshot: &Snapshot) -> usize {
    // The summary, the heading, and one for the rows that do not fit.
    3 + warnings(snapshot).len()
}

/// Writes an interval: a line about the host, warnings, the heading, the rows.
pub fn write(out: &mut impl Write, host: &str, snapshot: &Snapshot, rows: &[&Row], style: Style) -> io::Result<()> {
    let seconds = snapshot.interval.as_secs_f64().max(1e-3);
    let total = |of: fn(&Row) -> u64| bytes(rows.iter().map(|row| of(row)).sum::<u64>() as f64 / seconds);
    let summary = format!(
        "{}  {} rows  sent {}/s  received {}/s  {}",
        humantime::format_rfc3339_seconds(snapshot.time),
        rows.len(),
        total(|row| row.sent_bytes),
        total(|row| row.received_bytes),
        printable(host),
    );
    let shown = &rows[..rows.len().min(style.rows)];
    let layout = Layout::new(COLUMNS, style.width, addresses(shown));
    writeln!(out, "{}", layout.cut(&summary))?;
    for warning in warnings(snapshot) {
        writeln!(out, "{}", layout.cut(&warning))?;
    }
    writeln!(out, "{}", layout.heading(style.color))?;
    for row in shown {
        writeln!(out, "{}", layout.line(|column| (column.cell)(row, seconds)))?;
    }
    if shown.len() < rows.len() {
        writeln!(out, "{}", layout.cut(&format!("... and {} more rows", rows.len() - shown.len())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::model::fixtures::row;

    fn lines(rows: &[&Row], style: Style) -> Vec<String> {
        let snapshot = Snapshot {
            time: SystemTime::UNIX_EPOCH,
            interval: Duration::from_secs(2),
            rows: Vec::new(),
            unattributed_sent_bytes: 0,
            unattributed_received_bytes: 2048,
            lost_events: 0,
            skipped_runs: None,
        };
        let mut out = Vec::new();
        write(&mut out, "web1", &snapshot, rows, style).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn rates_are_per_second_and_the_unattributed_are_named() {
        let lines = lines(&[&row()], Style { color: false, rows: 10, width: None });
        assert!(lines[0].contains("sent 500/s"), "{}", lines[0]);
        assert!(lines[1].contains("UNATTRIBUTED: sent 0, received 2.0Ki"), "{}", lines[1]);
        assert!(lines[3].contains("nginx") && lines[3].contains("10.0.0.2:50000"), "{}", lines[3]);
    }

    #[test]
    fn at_eighty_cells_both_ports_are_there_and_nothing_looks_like_another_number() {
        let mut wide = row();
        wide.remote_addr = [192, 168, 100, 100].into();
        wide.local_addr = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
        for line in lines(&[&wide], Style { color: false, rows: 10, width: Some(80) }) {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let lines = lines(&[&wide, &row()], Style { color: false, rows: 10, width: Some(80) });
        assert!(lines[3].contains("192.168.100.100:50000") && lines[3].ends_with("5555:6666]:80"), "{}", lines[3]);
        assert!(lines[1].contains("received 2.0Ki"), "{}", lines[1]);
    }

    #[test]
    fn rows_beyond_the_limit_are_counted_and_lines_are_cut_to_the_width() {
        let row = row();
        let lines = lines(&[&row, &row, &row], Style { color: false, rows: 1, width: Some(40) });
        assert_eq!(lines.last().unwrap(), "... and 2 more rows");
        assert!(lines.iter().all(|line| line.chars().count() <= 40), "{lines:?}");
    }

    #[test]
    fn a_hostile_name_cannot_steer_the_terminal() {
        let mut hostile = row();
        hostile.process.as_mut().unwrap().comm = "x\n\x1b[2J\u{9b}y".into();
        for line in lines(&[&hostile], Style { color: false, rows: 10, width: None }) {
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }

    const ALL: Style = Style { color: false, rows: usize::MAX, width: None };
    /// Title and cells of the last two columns start here when the addresses are IPv4: 7 + 15 + 6 + 11 + 9 + 9 and a space each.
    const REMOTE: usize = 63;
    /// The summary, the warning of the unattributed bytes, the heading.
    const ROWS: usize = 3;
    const HEADING: usize = 2;

    fn between(local: &str, remote: &str) -> Row {
        let [local, remote] = [local, remote].map(|text| text.parse::<std::net::SocketAddr>().unwrap());
        Row {
            local_addr: local.ip(),
            local_port: local.port(),
            remote_addr: remote.ip(),
            remote_port: remote.port(),
            ..row()
        }
    }

    #[test]
    fn addresses_are_never_cut_and_columns_stay_under_their_titles() {
        let v4 = between("10.0.0.1:80", "255.255.255.255:65535");
        let short = between("[::1]:80", "[::]:0");
        let long =
            between("[2001:db8:1111:2222:3333:4444:5555:6666]:80", "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535");
        for (rows, local) in [
            // IPv4 and short IPv6 take 21 cells, the longest IPv6 address and port take 46.
            (vec![&v4], REMOTE + 22),
            (vec![&short, &v4], REMOTE + 22),
            (vec![&v4, &long, &short], REMOTE + 47),
        ] {
            let lines = lines(&rows, ALL);
            assert_eq!(lines[HEADING].find("REMOTE"), Some(REMOTE));
            assert_eq!(lines[HEADING].find("LOCAL"), Some(local));
            for (line, row) in lines[ROWS..].iter().zip(&rows) {
                assert_eq!(line[REMOTE..local].trim_end(), endpoint(row.remote_addr, row.remote_port));
                assert_eq!(&line[local..], endpoint(row.local_addr, row.local_port));
            }
            assert_eq!(lines.len(), ROWS + rows.len());
        }
        // A row that is not shown takes no room.
        let lines = lines(&[&v4, &long], Style { rows: 1, ..ALL });
        assert_eq!(lines[HEADING].find("LOCAL"), Some(REMOTE + 22));
    }

    #[test]
    fn wide_characters_and_long_names_move_no_column() {
        for comm in ["日本語日本語日", "a-name-of-15-ch", "a-name-of-far-more-than-15", "", "e\u{301}e\u{301}"] {
            let mut named = row();
            named.process.as_mut().unwrap().comm = comm.into();
            let line = &lines(&[&named], ALL)[ROWS];
            let before = &line[..line.find("server").unwrap()];
            assert_eq!(unicode_width::UnicodeWidthStr::width(before), 7 + 1 + 15 + 1, "{line}");
        }
    }

    #[test]
    fn without_rows_there_is_a_summary_and_a_heading() {
        let lines = lines(&[], ALL);
        assert_eq!(lines.len(), ROWS, "{lines:?}");
        assert_eq!(lines[0], "1970-01-01T00:00:00Z  0 rows  sent 0/s  received 0/s  web1");
        assert!(lines[HEADING].starts_with("    PID COMM"), "{}", lines[HEADING]);
    }

    #[test]
    fn as_many_rows_as_fit_are_shown_and_the_rest_is_counted() {
        let row = row();
        for (rows, limit, shown, last) in [
            (3, 0, 0, Some("... and 3 more rows")),
            (3, 1, 1, Some("... and 2 more rows")),
            (3, 2, 2, Some("... and 1 more rows")),
            (3, 3, 3, None),
            (3, 4, 3, None),
            (0, 0, 0, None),
        ] {
            let lines = lines(&vec![&row; rows], Style { rows: limit, ..ALL });
            assert_eq!(lines.iter().filter(|line| line.contains("nginx")).count(), shown, "{rows} rows, {limit} fit");
            assert_eq!(lines.last().map(String::as_str).filter(|line| line.starts_with("...")), last);
            assert_eq!(lines.len(), ROWS + shown + usize::from(last.is_some()));
            // The summary is of all rows: 500 bytes a second each.
            assert!(lines[0].contains(&format!("{rows} rows  sent {}/s", bytes(500.0 * rows as f64))), "{}", lines[0]);
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_however_narrow() {
        let long = between("[2001:db8:1111:2222:3333:4444:5555:6666]:80", "[::1]:1");
        for width in [0, 1, 7, 8, 40, 80, 500] {
            let lines = lines(&[&long, &long], Style { color: false, rows: 1, width: Some(width) });
            assert_eq!(lines.len(), ROWS + 2);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:?}");
        }
        // Colour takes no cells, and is switched off again behind a heading that was cut.
        let lines = lines(&[&long], Style { color: true, rows: 1, width: Some(5) });
        assert_eq!(lines[HEADING], "\x1b[1m    P\x1b[0m");
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let unknown = Row { process: None, role: None, state: 99, ..row() };
        let line = &lines(&[&unknown], ALL)[ROWS];
        let cells: Vec<_> = line.split_whitespace().collect();
        assert_eq!(cells[..4], ["-", "-", "-", "-"]);
    }

    #[test]
    fn an_interval_of_no_length_divides_nothing_by_zero() {
        let snapshot = Snapshot {
            time: SystemTime::UNIX_EPOCH,
            interval: Duration::ZERO,
            rows: Vec::new(),
            unattributed_sent_bytes: 0,
            unattributed_received_bytes: 0,
            lost_events: 4,
            skipped_runs: None,
        };
        let mut out = Vec::new();
        write(&mut out, "web1", &snapshot, &[&row()], ALL).unwrap();
        let text = String::from_utf8(out).unwrap();
        // As if it were a millisecond.
        assert!(text.contains("sent 976.6Ki/s") && text.contains("LOST: the last records of 4"), "{text}");
        assert!(!text.contains("inf") && !text.contains("NaN") && !text.contains("UNATTRIBUTED"), "{text}");
    }
}
