//! The screen without a terminal: keys in, cells out.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};

use super::{
    Screen,
    board::{Board, HISTORY, Series, TRANSITIONS},
    keys::{Action, BINDINGS, Key},
    listing::Id,
    state::{Effect, Mode, State},
    views::VIEWS,
};
use crate::model::filter::Filter;

mod hosts;
mod pictures;

/// As the program itself has it, but for names of namespaces.
fn parse(text: &str) -> Result<Filter, String> {
    match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        [] => Ok(Filter::default()),
        ["port", port] => {
            port.parse().map(|port| Filter { port: Some(port), ..Filter::default() }).map_err(|_| "no port".into())
        }
        ["comm", comm] => Ok(Filter { comm: Some((*comm).to_owned()), ..Filter::default() }),
        _ => Err(format!("{text} is no filter")),
    }
}

fn screen(board: Board) -> Screen {
    let state = State::new(Duration::from_secs(1), Filter::default(), String::new(), parse);
    let mut screen = Screen::new(state, board, true);
    screen.look();
    screen
}

fn buffer(screen: &mut Screen, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let now = screen.live.time;
    terminal.draw(|frame| screen.draw(frame, now)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(screen: &mut Screen, width: u16, height: u16) -> String {
    let buffer = buffer(screen, width, height);
    let line = |y| -> String {
        let mut line = String::new();
        let mut skip = 0;
        for x in 0..width {
            // The cell behind a wide character is its second half.
            if skip > 0 {
                skip -= 1;
                continue;
            }
            let symbol = buffer[(x, y)].symbol();
            skip = unicode_width::UnicodeWidthStr::width(symbol).saturating_sub(1);
            line.push_str(symbol);
        }
        line.trim_end().to_owned()
    };
    (0..height).map(line).collect::<Vec<_>>().join("\n") + "\n"
}

fn press(screen: &mut Screen, code: KeyCode) -> Effect {
    screen.press(&KeyEvent::new(code, KeyModifiers::NONE))
}

fn letters(screen: &mut Screen, letters: &str) -> Effect {
    letters.chars().map(|letter| press(screen, KeyCode::Char(letter))).last().unwrap_or(Effect::None)
}

/// Set, it writes the pictures instead of comparing with them.
const WRITE: &str = "OVERWATCH_WRITE_SCREENS";

fn agrees(name: &str, shown: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/show/screen/tests/pictures").join(name);
    if std::env::var_os(WRITE).is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, shown).unwrap();
    }
    let expected =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}; {WRITE}=1 writes it", path.display()));
    assert!(shown == expected, "{name} is\n{shown}\ninstead of\n{expected}\n{WRITE}=1 writes it anew");
}

#[test]
fn every_view_of_every_host_looks_as_it_did_at_three_sizes() {
    for (host, board) in hosts::all() {
        let mut screen = screen(board);
        for (at, view) in VIEWS.iter().enumerate() {
            for (width, height) in [(80, 24), (120, 40), (300, 100)] {
                press(&mut screen, KeyCode::Char(char::from_digit(at as u32 + 1, 10).unwrap()));
                let name = format!("{host}-{}-{width}x{height}.txt", view.name.to_lowercase());
                let shown = text(&mut screen, width, height);
                agrees(&name, &shown);
                assert!(
                    shown.lines().all(|line| unicode_width::UnicodeWidthStr::width(line) <= width.into()),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn the_story_of_each_thing_looks_as_it_did() {
    for (view, name) in [(1, "listener"), (2, "connection"), (3, "process"), (4, "transition"), (5, "itself")] {
        let mut screen = screen(hosts::founding());
        text(&mut screen, 100, 40);
        letters(&mut screen, &view.to_string());
        press(&mut screen, KeyCode::Enter);
        agrees(&format!("story-{name}-100x40.txt"), &text(&mut screen, 100, 40));
    }
}

#[test]
fn what_is_wrong_comes_first_unless_somebody_has_chosen() {
    let mut sick = screen(hosts::founding());
    assert!(text(&mut sick, 80, 24).contains("saturated   worker_limit"));
    let mut well = screen(hosts::idle());
    assert_eq!(well.state.view().name, "Connections");
    // It becomes sick.
    well.live = hosts::founding();
    well.look();
    assert_eq!(well.state.view().name, "Listeners");
    let mut chosen = screen(hosts::idle());
    letters(&mut chosen, "3");
    // To have moved is to have chosen, to have read the help is not.
    let mut read = screen(hosts::idle());
    letters(&mut read, "?");
    press(&mut read, KeyCode::Esc);
    let mut moved = screen(hosts::idle());
    letters(&mut moved, "j");
    for (of, view) in [(&mut read, "Listeners"), (&mut moved, "Connections")] {
        of.live = hosts::founding();
        of.look();
        assert_eq!(of.state.view().name, view);
    }
    chosen.live = hosts::founding();
    chosen.look();
    assert_eq!(chosen.state.view().name, "Processes");
}

#[test]
fn enter_leads_to_the_waiting_clients_and_escape_back() {
    let mut screen = screen(hosts::founding());
    text(&mut screen, 100, 40);
    press(&mut screen, KeyCode::Enter);
    let shown = text(&mut screen, 100, 40);
    for client in ["10.0.0.2:50001", "10.0.0.2:50002", "10.0.0.2:50003"] {
        assert!(shown.contains(client), "{client} is not in\n{shown}");
    }
    press(&mut screen, KeyCode::Esc);
    assert!(text(&mut screen, 100, 40).contains("VERDICT"));
}

#[test]
fn every_key_of_the_help_does_something_and_no_key_two_things() {
    let mut seen = Vec::new();
    for binding in BINDINGS {
        assert!(!binding.keys.is_empty() && !binding.label.is_empty() && !binding.help.is_empty(), "{binding:?}");
        for key in binding.keys {
            assert!(!seen.contains(key), "{key:?} does two things");
            seen.push(*key);
            assert_eq!(key.action(), Some(binding.action));
            let (code, modifiers) = match *key {
                Key::Char(letter) => (KeyCode::Char(letter), KeyModifiers::NONE),
                Key::Ctrl(letter) => (KeyCode::Char(letter), KeyModifiers::CONTROL),
                Key::Code(code) => (code, KeyModifiers::NONE),
            };
            let event = KeyEvent::new(code, modifiers);
            assert_eq!(Key::of(&event), *key);
            // Where there is room to move in both directions, in a list and in a story.
            let changes = [false, true].into_iter().any(|story| {
                let mut screen = screen(hosts::busy(500));
                text(&mut screen, 100, 20);
                letters(&mut screen, "2");
                press(&mut screen, KeyCode::Down);
                press(&mut screen, KeyCode::PageDown);
                if binding.action == Action::Back {
                    press(&mut screen, KeyCode::Enter);
                }
                if story {
                    press(&mut screen, KeyCode::Enter);
                }
                let before = format!("{:?}", screen.state);
                let effect = screen.press(&event);
                effect != Effect::None || format!("{:?}", screen.state) != before
            });
            assert!(changes, "{key:?} does nothing");
        }
    }
}

#[test]
fn help_and_footer_are_made_from_the_table() {
    let mut screen = screen(hosts::founding());
    let footer = text(&mut screen, 200, 24);
    let footer = footer.lines().last().unwrap();
    assert!(footer.starts_with("Enter open  q quit  ? help"), "{footer}");
    letters(&mut screen, "?");
    let help = text(&mut screen, 140, 50);
    for binding in BINDINGS {
        assert!(help.contains(binding.label) && help.contains(binding.help), "{binding:?} is not in\n{help}");
    }
    press(&mut screen, KeyCode::Esc);
    assert_eq!(screen.state.mode, Mode::Normal);
    press(&mut screen, KeyCode::Enter);
    let shown = text(&mut screen, 80, 24);
    assert!(shown.lines().last().unwrap().starts_with("Esc back  q quit"), "{shown}");
}

#[test]
fn what_stands_over_a_list_looks_as_it_did() {
    for (keys, name) in [("?", "help"), ("?jjjj", "help-further"), ("2c", "columns"), ("/port 80", "filter")] {
        let mut screen = screen(hosts::founding());
        letters(&mut screen, keys);
        agrees(&format!("over-{name}-80x24.txt"), &text(&mut screen, 80, 24));
    }
}

#[test]
fn every_key_is_documented_with_its_help() {
    let document = include_str!("../../../../../docs/screen.md");
    for binding in BINDINGS {
        let line = format!("| `{}` | {} |", binding.label, binding.help);
        assert!(document.contains(&line), "docs/screen.md lacks the line\n{line}");
    }
}

#[test]
fn a_filter_is_typed_and_says_what_is_wrong_with_it() {
    let mut screen = screen(hosts::founding());
    letters(&mut screen, "2/port 8080x");
    press(&mut screen, KeyCode::Enter);
    assert!(text(&mut screen, 100, 24).contains("no port"));
    assert!(matches!(screen.state.mode, Mode::Typing(_)));
    press(&mut screen, KeyCode::Backspace);
    press(&mut screen, KeyCode::Enter);
    let shown = text(&mut screen, 100, 24);
    assert!(shown.contains("only: port 8080") && !shown.contains("192.0.2.7"), "{shown}");
    // Other views follow it.
    letters(&mut screen, "1");
    assert_eq!(screen.state.rows.len(), 1);
    press(&mut screen, KeyCode::Esc);
    assert_eq!(screen.state.rows.len(), screen.live.listeners.len());
    // It is not taken when it is not meant, and keys are letters meanwhile.
    letters(&mut screen, "/q");
    assert_eq!(screen.state.mode, Mode::Typing("q".into()));
    press(&mut screen, KeyCode::Esc);
    assert_eq!(screen.state.filter, Filter::default());
    letters(&mut screen, "2/comm nobody");
    press(&mut screen, KeyCode::Enter);
    assert!(text(&mut screen, 80, 24).contains("nothing is like that: Esc shows all"));
}

#[test]
fn the_cursor_stays_with_its_row_while_others_come_and_go() {
    let mut screen = screen(hosts::busy(200));
    text(&mut screen, 100, 24);
    letters(&mut screen, "2");
    (0..7).for_each(|_| drop(press(&mut screen, KeyCode::Down)));
    let row = screen.state.place().row.unwrap();
    // Rows before it grow quieter than it, and others come.
    let mut board = hosts::busy(400);
    board.connections.retain(|live| Id::Connection(live.key) == row || live.key.0 % 3 != 0);
    screen.live = board;
    screen.look();
    assert_eq!(screen.state.place().row, Some(row));
    let at = screen.state.current().unwrap();
    assert_eq!(Id::Connection(screen.live.connections[at].key), row);
    // It goes: the cursor stays where it is.
    let line = screen.state.place().at;
    screen.live.connections.retain(|live| Id::Connection(live.key) != row);
    screen.look();
    assert_eq!(screen.state.place().at, line);
    assert_ne!(screen.state.place().row, Some(row));
}

#[test]
fn a_fact_is_known_by_what_it_is_about() {
    let mut screen = screen(hosts::idle());
    letters(&mut screen, "5jjj");
    let named = |screen: &Screen| screen.live.facts[screen.state.current().unwrap()].what.clone();
    let before = named(&screen);
    // Something is lost: there are more lines before it.
    screen.live.itself.lost[0].1 = 7;
    screen.live.facts = super::facts::facts(&screen.live.itself);
    screen.look();
    assert_eq!(named(&screen), before);
}

#[test]
fn a_filter_on_processes_leaves_those_without_a_socket() {
    let mut board = hosts::founding();
    board.workers.push(crate::model::workers::Worker { open: 0, listens: Some(0), ..hosts::mover(99, "rsync", 0) });
    let mut screen = screen(board);
    letters(&mut screen, "3/comm rsync");
    press(&mut screen, KeyCode::Enter);
    assert_eq!(screen.state.rows.len(), 1);
}

#[test]
fn a_list_is_sorted_by_each_of_its_columns_and_turned_round() {
    for view in 1..=VIEWS.len() {
        let mut screen = screen(hosts::busy(50));
        letters(&mut screen, &view.to_string());
        let orders = screen.state.view().listing.orders();
        for title in &orders {
            letters(&mut screen, "s");
            assert!(text(&mut screen, 200, 40).contains(&format!("sorted by {title}")), "{title}");
            let down = screen.state.rows.clone();
            letters(&mut screen, "r");
            let up: Vec<usize> = screen.state.rows.iter().rev().copied().collect();
            assert_eq!(up, down, "{title}");
        }
        letters(&mut screen, "s");
        assert_eq!(screen.state.place().sort, super::listing::Sort::default());
    }
}

#[test]
fn while_it_is_paused_data_goes_on_and_the_screen_says_how_old_it_is() {
    let mut screen = screen(hosts::founding());
    letters(&mut screen, " ");
    let mut later = hosts::idle();
    later.time = hosts::founding().time + Duration::from_secs(7);
    screen.live = later;
    screen.look();
    let shown = text(&mut screen, 100, 24);
    assert!(shown.contains("PAUSED, 7.00s old") && shown.contains("worker_limit"), "{shown}");
    // One can go on reading.
    press(&mut screen, KeyCode::Enter);
    assert!(text(&mut screen, 100, 40).contains("Waiting clients:"));
    letters(&mut screen, " ");
    assert!(!text(&mut screen, 100, 24).contains("PAUSED"));
}

#[test]
fn the_interval_goes_up_and_down_to_its_ends() {
    let mut screen = screen(hosts::idle());
    let seconds = |effect| match effect {
        Effect::Pace(length) => length.as_secs_f64(),
        other => panic!("{other:?}"),
    };
    let up: Vec<f64> = (0..6).map(|_| seconds(letters(&mut screen, "+"))).collect();
    assert_eq!(up, [2.0, 5.0, 10.0, 30.0, 60.0, 60.0]);
    let down: Vec<f64> = (0..8).map(|_| seconds(letters(&mut screen, "-"))).collect();
    assert_eq!(down, [30.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.2]);
    // One that was given by hand is beyond the ends.
    for (given, key) in [(300.0, "+"), (0.1, "-")] {
        let state = State::new(Duration::from_secs_f64(given), Filter::default(), String::new(), parse);
        let mut screen = Screen::new(state, hosts::idle(), true);
        assert!((seconds(letters(&mut screen, key)) - given).abs() < 1e-9);
    }
}

#[test]
fn columns_are_hidden_and_shown_and_one_stays() {
    let mut screen = screen(hosts::founding());
    letters(&mut screen, "2c");
    assert!(text(&mut screen, 100, 30).contains("[x] PID"));
    letters(&mut screen, " ");
    press(&mut screen, KeyCode::Esc);
    let shown = text(&mut screen, 200, 24);
    assert!(!shown.contains("PID") && shown.contains("COMM"), "{shown}");
    letters(&mut screen, "c");
    for _ in 0..20 {
        letters(&mut screen, " j");
    }
    press(&mut screen, KeyCode::Esc);
    let columns = screen.state.view().listing.titles().len() as u32;
    assert!(screen.state.place().hidden.count_ones() < columns);
}

#[test]
fn a_row_is_copied_as_json_and_a_report_has_more_than_the_screen() {
    let mut screen = screen(hosts::busy(300));
    text(&mut screen, 80, 24);
    for (view, key) in [("1", "verdict"), ("2", "remote_port"), ("3", "pid"), ("4", "new_state"), ("5", "what")] {
        let Effect::Copy(json) = letters(&mut screen, &format!("{view}y")) else { panic!("{view}") };
        let object: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(object.get(key).is_some(), "{view}: {json}");
    }
    let Effect::Write(report) = letters(&mut screen, "2w") else { panic!("a report") };
    assert!(report.lines().count() > 300 && report.starts_with("overwatch connections on web1, "), "{report}");
}

#[test]
fn the_mouse_moves_chooses_and_opens() {
    let mut screen = screen(hosts::busy(300));
    letters(&mut screen, "2");
    text(&mut screen, 80, 24);
    let event = |kind, row| MouseEvent { kind, column: 5, row, modifiers: KeyModifiers::NONE };
    screen.point(&event(MouseEventKind::ScrollDown, 10));
    assert_eq!(screen.state.place().at, 3);
    let first = screen.list_line;
    screen.point(&event(MouseEventKind::Down(MouseButton::Left), first + 7));
    assert_eq!((screen.state.place().at, screen.state.story.is_some()), (7, false));
    screen.point(&event(MouseEventKind::Down(MouseButton::Left), first + 7));
    assert!(screen.state.story.is_some());
    // Above the list there is nothing, nor below it.
    press(&mut screen, KeyCode::Esc);
    screen.point(&event(MouseEventKind::Down(MouseButton::Left), 23));
    assert_eq!(screen.state.place().at, 7);
    press(&mut screen, KeyCode::Esc);
    screen.point(&event(MouseEventKind::Down(MouseButton::Left), 0));
    assert_eq!(screen.state.place().at, 7);
}

#[test]
fn where_listeners_cannot_be_seen_they_are_not_said_to_be_well() {
    let mut board = hosts::idle();
    board.listeners.clear();
    board.itself.looks = false;
    let mut screen = screen(board);
    letters(&mut screen, "1");
    let shown = text(&mut screen, 100, 24);
    assert!(shown.contains("listeners are not known") && shown.contains("does not let overwatch look"), "{shown}");
    assert!(!shown.contains("listeners ok") && !shown.contains("nothing listens"), "{shown}");
}

#[test]
fn what_has_gone_is_still_there_to_read() {
    let mut screen = screen(hosts::founding());
    text(&mut screen, 100, 40);
    letters(&mut screen, "1");
    press(&mut screen, KeyCode::Enter);
    screen.live.listeners.clear();
    screen.look();
    let shown = text(&mut screen, 100, 40);
    assert!(shown.contains("It has gone.") && shown.contains("MaxRequestWorkers"), "{shown}");
    // Once, to its end.
    screen.look();
    press(&mut screen, KeyCode::End);
    let shown = text(&mut screen, 100, 20);
    assert!(shown.lines().nth(18).is_some_and(|line| !line.is_empty()), "{shown}");
    press(&mut screen, KeyCode::Home);
    assert_eq!(text(&mut screen, 100, 20).matches("It has gone.").count(), 1);
}

#[test]
fn no_size_of_the_terminal_is_too_small_or_too_odd() {
    for board in [hosts::founding(), hosts::hostile()] {
        for (width, height) in [(1, 1), (2, 50), (200, 1), (7, 3), (20, 5), (79, 23), (500, 200)] {
            for keys in ["", "1", "2", "3", "4", "5", "?", "c", "/x"] {
                let mut screen = screen(board.clone());
                letters(&mut screen, keys);
                text(&mut screen, width, height);
                press(&mut screen, KeyCode::Enter);
                text(&mut screen, width, height);
                press(&mut screen, KeyCode::End);
                text(&mut screen, width, height);
            }
        }
    }
}

#[test]
fn names_of_others_steer_nothing_and_wide_ones_keep_the_columns() {
    let mut screen = screen(hosts::hostile());
    for view in 1..=VIEWS.len() {
        letters(&mut screen, &view.to_string());
        for opened in [false, true] {
            if opened {
                press(&mut screen, KeyCode::Enter);
            }
            let shown = text(&mut screen, 120, 40);
            assert!(!shown.contains(|letter| crate::show::text::steers(letter) && letter != '\n'), "{view}: {shown:?}");
        }
        press(&mut screen, KeyCode::Esc);
    }
}

#[test]
fn without_colour_nothing_is_coloured() {
    for color in [true, false] {
        let state = State::new(Duration::from_secs(1), Filter::default(), String::new(), parse);
        let mut screen = Screen::new(state, hosts::founding(), color);
        screen.look();
        let buffer = buffer(&mut screen, 100, 30);
        let colored = buffer
            .content
            .iter()
            .any(|cell| cell.fg != ratatui::style::Color::Reset || cell.bg != ratatui::style::Color::Reset);
        assert_eq!(colored, color);
    }
}

#[test]
fn the_log_and_the_history_are_bounded() {
    let mut board = hosts::idle();
    for _ in 0..3 {
        board.log(vec![crate::model::fixtures::transition(); TRANSITIONS / 2]);
    }
    assert_eq!(board.transitions.len(), TRANSITIONS);
    assert_eq!(board.transitions.last().unwrap().number, 1 + 3 * TRANSITIONS as u64 / 2);
    let mut series = Series::default();
    (0..500).for_each(|number| series.push(number));
    assert_eq!(series.last(1000), (380..500).collect::<Vec<u64>>());
    assert_eq!((series.last(2), HISTORY), (vec![498, 499], 120));
}

/// Figures for docs/benchmarks.md; `cargo test --release -- --ignored --nocapture frames`.
#[test]
#[ignore = "measures, judges nothing"]
fn frames_of_a_hundred_thousand_connections() {
    let mut screen = screen(hosts::busy(100_000));
    letters(&mut screen, "2");
    let mut terminal = Terminal::new(TestBackend::new(200, 60)).unwrap();
    let start = Instant::now();
    (0..100).for_each(|_| screen.look());
    println!("an interval: {:?}", start.elapsed() / 100);
    let start = Instant::now();
    for _ in 0..100 {
        terminal.draw(|frame| screen.draw(frame, std::time::SystemTime::now())).unwrap();
    }
    println!("a frame: {:?}", start.elapsed() / 100);
}
