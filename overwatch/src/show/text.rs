//! Making text safe and short enough to show. Names come from other users of the host.

use unicode_width::UnicodeWidthChar as _;

/// True for characters that steer a terminal or the direction of writing instead of showing something.
fn steers(character: char) -> bool {
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
}
