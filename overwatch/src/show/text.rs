//! Making text safe and short enough to show. Names come from other users of the host.

use std::time::{Duration, SystemTime};

use unicode_width::UnicodeWidthChar as _;

/// True for characters that steer a terminal or the direction of writing instead of showing something.
pub(crate) fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// For a terminal: what steers becomes a question mark.
pub fn printable(text: &str) -> String {
    text.chars().map(|character| if steers(character) { '?' } else { character }).collect()
}

/// For files that people also look at in a terminal: what steers is written as an escape, and so is the backslash.
pub fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut text, character| {
        if steers(character) || character == '\\' {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
        text
    })
}

/// Cuts or pads to a width in terminal cells.
pub fn fit(text: &str, width: usize, right: bool) -> String {
    let mut fitted = String::new();
    let mut used = 0;
    for character in text.chars() {
        let cells = character.width().unwrap_or(0);
        if used + cells > width {
            break;
        }
        used += cells;
        fitted.push(character);
    }
    let padding = " ".repeat(width - used);
    if right { padding + &fitted } else { fitted + &padding }
}

/// Breaks a line at spaces so that no piece has more than `width` cells; the pieces behind the first are indented. Of a narrow line
/// half is left for the text.
pub fn wrap(line: &str, width: usize, indent: usize) -> Vec<String> {
    let margin = |cells: usize| " ".repeat(cells.min(width / 2));
    let text = line.trim_start();
    let mut pieces = Vec::new();
    let mut rest = margin(line.len() - text.len()) + text.trim_end();
    while let Some(at) = break_at(&rest, width) {
        let (piece, more) = rest.split_at(at);
        pieces.push(piece.trim_end().to_owned());
        rest = margin(indent) + more.trim_start();
    }
    pieces.push(rest);
    pieces
}

/// Where a line that is too long is broken: at the last space that fits, else where it is full.
fn break_at(line: &str, width: usize) -> Option<usize> {
    let begin = line.len() - line.trim_start().len();
    let mut used = 0;
    let mut space = None;
    for (at, character) in line.char_indices() {
        if character == ' ' && at > begin {
            space = Some(at);
        }
        used += character.width().unwrap_or(0);
        // At least one character is taken, so that there is an end to it.
        if used > width && at > begin {
            return Some(space.unwrap_or(at));
        }
    }
    None
}

/// A count in at most four cells: `9999`, `10k`, `999k`, `1.2M`, `45M`.
pub fn count(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{}k", number / 1_000),
        1_000_000..10_000_000 => format!("{}.{}M", number / 1_000_000, number / 100_000 % 10),
        10_000_000..1_000_000_000 => format!("{}M", number / 1_000_000),
        _ => format!("{}G", number / 1_000_000_000),
    }
}

/// A number of bytes in at most eight cells, binary units: `1023`, `1.0Ki`, `17.3Mi`.
pub fn bytes(number: f64) -> String {
    const UNITS: [&str; 6] = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let mut number = number;
    let mut unit = 0;
    while number >= 1023.5 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number:.0}") } else { format!("{number:.1}{}", UNITS[unit]) }
}

/// A length of time in at most seven cells: `350us`, `1.2ms`, `3.40s`, `2m05s`, `3h07m`, `12d03h`.
pub fn duration(duration: Duration) -> String {
    let (seconds, micros) = (duration.as_secs(), duration.as_micros());
    match micros {
        0..1_000 => format!("{micros}us"),
        1_000..999_950 => format!("{:.1}ms", micros as f64 / 1e3),
        // From here on it would be 1000.0ms.
        999_950..60_000_000 => format!("{:.2}s", duration.as_secs_f64()),
        _ if seconds < 3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// The time of day, UTC: `07:05:09.120`.
pub fn time_of_day(time: SystemTime) -> String {
    let time = humantime::format_rfc3339_millis(time).to_string();
    let of_day = time.split_once('T').map_or(time.as_str(), |(_, of_day)| of_day);
    of_day.trim_end_matches('Z').to_owned()
}

/// A length of time in seconds, to the microsecond.
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\nb\x1b[31m,\"\u{9b}\u{202e}\\";

    #[test]
    fn nothing_printable_steers_a_terminal() {
        assert_eq!(printable(HOSTILE), "a?b?[31m,\"??\\");
        assert_eq!(printable("日本 café"), "日本 café");
    }

    #[test]
    fn escapes_can_be_read_back() {
        assert_eq!(escaped(HOSTILE), "a\\nb\\u{1b}[31m,\"\\u{9b}\\u{202e}\\\\");
    }

    #[test]
    fn fit_counts_cells_not_characters() {
        assert_eq!(fit("abc", 5, false), "abc  ");
        assert_eq!(fit("abc", 5, true), "  abc");
        assert_eq!(fit("日本語", 5, false), "日本 ");
        assert_eq!(fit("abcdef", 3, true), "abc");
    }

    #[test]
    fn a_long_line_is_broken_at_spaces() {
        for (line, width, indent, pieces) in [
            ("one two three", 20, 2, vec!["one two three"]),
            ("one two three", 13, 2, vec!["one two three"]),
            ("one two three", 12, 2, vec!["one two", "  three"]),
            ("  one two three", 7, 4, vec!["  one", "   two", "   thre", "   e"]),
            ("abcdefgh", 3, 0, vec!["abc", "def", "gh"]),
            ("日本語 日本語", 7, 0, vec!["日本語", "日本語"]),
            ("", 5, 2, vec![""]),
            ("ab", 0, 5, vec!["a", "b"]),
            ("        ab", 4, 0, vec!["  ab"]),
        ] {
            assert_eq!(wrap(line, width, indent), pieces, "{line} in {width}");
        }
    }

    #[test]
    fn a_count_has_four_cells_at_most() {
        for (number, text) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10k"),
            (65_535, "65k"),
            (999_999, "999k"),
            (1_000_000, "1.0M"),
            (9_999_999, "9.9M"),
            (45_000_000, "45M"),
            (u64::from(u32::MAX), "4G"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn bytes_use_binary_units() {
        for (number, text) in [
            (0.0, "0"),
            (1023.0, "1023"),
            (1024.0, "1.0Ki"),
            (1_048_575.0, "1.0Mi"),
            (18.0 * 1024.0 * 1024.0, "18.0Mi"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn a_length_of_time_has_the_unit_that_fits() {
        for (micros, text) in [
            (0, "0us"),
            (999, "999us"),
            (1_000, "1.0ms"),
            (1_249, "1.2ms"),
            (999_949, "999.9ms"),
            (999_950, "1.00s"),
            (3_400_000, "3.40s"),
            (59_994_999, "59.99s"),
            (59_999_999, "60.00s"),
            (60_000_000, "1m00s"),
            (125_900_000, "2m05s"),
            (3_599_999_999, "59m59s"),
            (3_600_000_000, "1h00m"),
            (11_220_000_000, "3h07m"),
            (86_399_000_000, "23h59m"),
            (86_400_000_000, "1d00h"),
            (1_047_600_000_000, "12d03h"),
        ] {
            let shown = duration(Duration::from_micros(micros));
            assert_eq!(shown, text);
            assert!(shown.len() <= 7, "{shown}");
        }
    }

    #[test]
    fn seconds_are_rounded_to_microseconds() {
        for (nanos, expected) in
            [(0, 0.0), (499, 0.0), (500, 0.000_001), (1_234_567_499, 1.234_567), (2_000_000_000, 2.0)]
        {
            assert_eq!(seconds(Duration::from_nanos(nanos)), expected);
        }
    }

    #[test]
    fn the_time_of_day_has_milliseconds() {
        let at = |millis| time_of_day(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        assert_eq!(at(0), "00:00:00.000");
        assert_eq!(at(86_400_000 + 25_509_120), "07:05:09.120");
    }
}
