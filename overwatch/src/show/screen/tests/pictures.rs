//! Pictures for the documentation: recorded boards, drawn as the terminal would.

use std::{fmt::Write as _, fs, path::Path};

use ratatui::{
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};
use unicode_width::UnicodeWidthStr as _;

use super::*;

/// A picture: its name, the recording, the keys that lead there, and its size.
struct Picture {
    name: &'static str,
    recording: &'static str,
    keys: &'static [KeyCode],
    size: (u16, u16),
}

const PICTURES: [Picture; 4] = [
    Picture { name: "listeners", recording: "apache", keys: &[], size: (100, 24) },
    Picture { name: "listener", recording: "apache", keys: &[KeyCode::Enter], size: (100, 44) },
    Picture { name: "connections", recording: "apache", keys: &[KeyCode::Char('2')], size: (100, 24) },
    Picture { name: "overwatch", recording: "apache", keys: &[KeyCode::Char('5')], size: (100, 30) },
];

const CELL_WIDTH: f64 = 8.4;
const CELL_HEIGHT: f64 = 17.0;
const BACKGROUND: &str = "#1d1f21";
const FOREGROUND: &str = "#c5c8c6";

fn color(color: Color, of_none: &'static str) -> &'static str {
    match color {
        Color::Red => "#cc6666",
        Color::Magenta => "#b294bb",
        Color::Green => "#b5bd68",
        _ => of_none,
    }
}

/// Of a cell: colours of text and ground, and whether it is bold.
fn look(cell: &Cell) -> (&'static str, &'static str, bool, bool) {
    let (text, ground) = (color(cell.fg, FOREGROUND), color(cell.bg, BACKGROUND));
    let reversed = cell.modifier.contains(Modifier::REVERSED);
    let (text, ground) = if reversed { (ground, text) } else { (text, ground) };
    (text, ground, cell.modifier.contains(Modifier::BOLD), cell.modifier.contains(Modifier::DIM))
}

fn svg(buffer: &Buffer) -> String {
    let (width, height) = (buffer.area.width, buffer.area.height);
    let (wide, high) = (f64::from(width) * CELL_WIDTH + 16.0, f64::from(height) * CELL_HEIGHT + 16.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide:.1} {high:.1}\" width=\"{wide:.0}\" height=\"{high:.0}\" \
         font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n"
    );
    for y in 0..height {
        let mut x = 0;
        while x < width {
            // As many cells as look the same.
            let begin = x;
            let first = look(&buffer[(x, y)]);
            let mut text = String::new();
            while x < width && look(&buffer[(x, y)]) == first {
                let symbol = buffer[(x, y)].symbol();
                text.push_str(symbol);
                x += (symbol.width() as u16).max(1);
            }
            let (fill, ground, bold, dim) = first;
            let left = 8.0 + f64::from(begin) * CELL_WIDTH;
            let top = 8.0 + f64::from(y) * CELL_HEIGHT;
            let length = f64::from(x - begin) * CELL_WIDTH;
            if ground != BACKGROUND {
                let _ = writeln!(
                    out,
                    "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"{CELL_HEIGHT}\" fill=\"{ground}\"/>"
                );
            }
            if text.trim().is_empty() {
                continue;
            }
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let weight = if bold { " font-weight=\"bold\"" } else { "" };
            let opacity = if dim { " opacity=\"0.6\"" } else { "" };
            let _ = writeln!(
                out,
                "<text x=\"{left:.1}\" y=\"{:.1}\" textLength=\"{length:.1}\" xml:space=\"preserve\" fill=\"{fill}\"{weight}{opacity}>{text}</text>",
                top + 13.0
            );
        }
    }
    out + "</svg>\n"
}

#[test]
fn the_pictures_of_the_documentation_are_of_what_was_recorded() {
    let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    for picture in PICTURES {
        let recorded = documents.join("recordings").join(format!("{}.json", picture.recording));
        let board = Board::replay(&fs::read_to_string(&recorded).unwrap()).unwrap();
        let mut screen = screen(board);
        let (width, height) = picture.size;
        buffer(&mut screen, width, height);
        picture.keys.iter().for_each(|key| drop(press(&mut screen, *key)));
        let drawn = svg(&buffer(&mut screen, width, height));
        let path = documents.join("pictures").join(format!("{}.svg", picture.name));
        if std::env::var_os(WRITE).is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &drawn).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert!(drawn == expected, "{} is not what is drawn now: `cargo xtask screenshots` draws it", path.display());
    }
}

#[test]
fn what_was_recorded_comes_back() {
    let board = hosts::founding();
    let again = Board::replay(&board.record().unwrap()).unwrap();
    let shown = |board: Board| {
        let mut screen = screen(board);
        VIEWS
            .iter()
            .enumerate()
            .map(|(at, _)| {
                press(&mut screen, KeyCode::Char(char::from_digit(at as u32 + 1, 10).unwrap()));
                text(&mut screen, 120, 40)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(again), shown(board));
}
