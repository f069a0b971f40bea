//! The table for people.

use std::io::{self, Write};

use super::text::{bytes, fit, printable};
use crate::model::snapshot::{Row, Snapshot, state_name};

/// One column of the table.
struct Column {
    title: &'static str,
    width: usize,
    right: bool,
    cell: fn(&Row, f64) -> String,
}

const fn column(title: &'static str, width: usize, right: bool, cell: fn(&Row, f64) -> String) -> Column {
    Column { title, width, right, cell }
}

const UNKNOWN: &str = "-";

const COLUMNS: &[Column] = &[
    column("PID", 7, true, |row, _| row.process.as_ref().map_or(UNKNOWN.into(), |process| process.pid.to_string())),
    column("COMM", 15, false, |row, _| row.process.as_ref().map_or(UNKNOWN.into(), |process| printable(&process.comm))),
    column("ROLE", 6, false, |row, _| row.role.map_or(UNKNOWN, |role| role.name()).into()),
    column("STATE", 11, false, |row, _| state_name(row.state).into()),
    column("SENT/s", 9, true, |row, seconds| bytes(row.sent_bytes as f64 / seconds)),
    column("RECV/s", 9, true, |row, seconds| bytes(row.received_bytes as f64 / seconds)),
    column("LOCAL", 21, false, |row, _| endpoint(row.local_addr, row.local_port)),
    column("REMOTE", 21, false, |row, _| endpoint(row.remote_addr, row.remote_port)),
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

fn endpoint(address: std::net::IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

/// Writes an interval: a line about the host, the heading, the rows.
pub fn write(out: &mut impl Write, host: &str, snapshot: &Snapshot, rows: &[&Row], style: Style) -> io::Result<()> {
    let seconds = snapshot.interval.as_secs_f64().max(1e-3);
    let total = |of: fn(&Row) -> u64| bytes(rows.iter().map(|row| of(row)).sum::<u64>() as f64 / seconds);
    let mut summary = format!(
        "{} {}  {} rows  sent {}/s  received {}/s",
        humantime::format_rfc3339_seconds(snapshot.time),
        printable(host),
        rows.len(),
        total(|row| row.sent_bytes),
        total(|row| row.received_bytes),
    );
    if snapshot.unattributed_sent_bytes + snapshot.unattributed_received_bytes > 0 {
        summary += &format!(
            "  UNATTRIBUTED sent {} received {} (table full: raise --max-connections)",
            bytes(snapshot.unattributed_sent_bytes as f64),
            bytes(snapshot.unattributed_received_bytes as f64),
        );
    }
    if snapshot.lost_events > 0 {
        summary += &format!("  LOST {} events", snapshot.lost_events);
    }
    // Addresses are as wide as the widest that is shown, so that IPv6 is not cut and IPv4 wastes nothing.
    let shown = &rows[..rows.len().min(style.rows)];
    let widths: Vec<usize> = COLUMNS
        .iter()
        .map(|column| {
            let fixed = !matches!(column.title, "LOCAL" | "REMOTE");
            let widest = shown.iter().map(|row| (column.cell)(row, seconds).len()).max().unwrap_or(0);
            if fixed { column.width } else { column.width.max(widest) }
        })
        .collect();
    let line = |cell: &dyn Fn(&Column) -> String| {
        let cells = COLUMNS.iter().zip(&widths).map(|(column, width)| fit(&cell(column), *width, column.right));
        cells.collect::<Vec<_>>().join(" ")
    };
    let cut = |line: &str| match style.width {
        Some(width) => fit(line, width, false).trim_end().to_owned(),
        None => line.trim_end().to_owned(),
    };
    writeln!(out, "{}", cut(&summary))?;
    let heading = cut(&line(&|column| column.title.to_owned()));
    if style.color {
        writeln!(out, "\x1b[1m{heading}\x1b[0m")?;
    } else {
        writeln!(out, "{heading}")?;
    }
    for row in shown {
        writeln!(out, "{}", cut(&line(&|column| (column.cell)(row, seconds))))?;
    }
    if shown.len() < rows.len() {
        writeln!(out, "{}", cut(&format!("... and {} more rows", rows.len() - shown.len())))?;
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
        assert!(
            lines[0].contains("sent 500/s") && lines[0].contains("UNATTRIBUTED sent 0 received 2.0Ki"),
            "{}",
            lines[0]
        );
        assert!(lines[2].contains("nginx") && lines[2].contains("10.0.0.2:50000"), "{}", lines[2]);
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
    const LOCAL: usize = 63;

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
        for (rows, remote) in [
            // IPv4 and short IPv6 take 21 cells, the longest IPv6 address with port 80 takes 43.
            (vec![&v4], LOCAL + 22),
            (vec![&short, &v4], LOCAL + 22),
            (vec![&v4, &long, &short], LOCAL + 44),
        ] {
            let lines = lines(&rows, ALL);
            assert_eq!(lines[1].find("LOCAL"), Some(LOCAL));
            assert_eq!(lines[1].find("REMOTE"), Some(remote));
            for (line, row) in lines[2..].iter().zip(&rows) {
                assert_eq!(line[LOCAL..remote].trim_end(), endpoint(row.local_addr, row.local_port));
                assert_eq!(&line[remote..], endpoint(row.remote_addr, row.remote_port));
            }
            assert_eq!(lines.len(), 2 + rows.len());
        }
        // A row that is not shown takes no room.
        let lines = lines(&[&v4, &long], Style { rows: 1, ..ALL });
        assert_eq!(lines[1].find("REMOTE"), Some(LOCAL + 22));
    }

    #[test]
    fn wide_characters_and_long_names_move_no_column() {
        for comm in ["日本語日本語日", "a-name-of-15-ch", "a-name-of-far-more-than-15", "", "e\u{301}e\u{301}"] {
            let mut named = row();
            named.process.as_mut().unwrap().comm = comm.into();
            let line = &lines(&[&named], ALL)[2];
            let before = &line[..line.find("server").unwrap()];
            assert_eq!(unicode_width::UnicodeWidthStr::width(before), 7 + 1 + 15 + 1, "{line}");
        }
    }

    #[test]
    fn without_rows_there_is_a_summary_and_a_heading() {
        let lines = lines(&[], ALL);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("1970-01-01T00:00:00Z web1  0 rows  sent 0/s  received 0/s"), "{}", lines[0]);
        assert!(lines[1].starts_with("    PID COMM"), "{}", lines[1]);
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
            assert_eq!(lines.len(), 2 + shown + usize::from(last.is_some()));
            // The summary is of all rows: 500 bytes a second each.
            assert!(lines[0].contains(&format!("{rows} rows  sent {}/s", bytes(500.0 * rows as f64))), "{}", lines[0]);
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_however_narrow() {
        let long = between("[2001:db8:1111:2222:3333:4444:5555:6666]:80", "[::1]:1");
        for width in [0, 1, 7, 8, 40, 80, 500] {
            let lines = lines(&[&long, &long], Style { color: false, rows: 1, width: Some(width) });
            assert_eq!(lines.len(), 4);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:?}");
        }
        // Colour takes no cells, and is switched off again behind a heading that was cut.
        let lines = lines(&[&long], Style { color: true, rows: 1, width: Some(5) });
        assert_eq!(lines[1], "\x1b[1m    P\x1b[0m");
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let unknown = Row { process: None, role: None, state: 99, ..row() };
        let line = &lines(&[&unknown], ALL)[2];
        let cells: Vec<_> = line.split_whitespace().collect();
        assert_eq!(cells[..4], ["-", "-", "-", "UNKNOWN"]);
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
        assert!(text.contains("sent 976.6Ki/s") && text.contains("LOST 4 events"), "{text}");
        assert!(!text.contains("inf") && !text.contains("NaN") && !text.contains("UNATTRIBUTED"), "{text}");
    }
}
