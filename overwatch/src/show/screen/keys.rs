//! The keys, each once: what it is, what it does, and how help and footer name it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Up by so many lines, down where it is positive.
    Move(isize),
    /// Up or down by so many pages.
    Page(isize),
    /// To the first line.
    First,
    /// To the last one.
    Last,
    /// To the view behind this one, or before it.
    Turn(isize),
    /// To a view by its place.
    View(usize),
    /// Opens what is under the cursor.
    Open,
    /// Leaves what is open: a story, a filter.
    Back,
    /// Types a filter.
    Filter,
    /// Sorts by the next column.
    Sort,
    /// Turns the order round.
    Reverse,
    /// Holds what is shown.
    Pause,
    /// A shorter interval, or a longer one.
    Pace(isize),
    /// Chooses columns.
    Columns,
    /// Copies the row.
    CopyRow,
    /// Writes a report.
    Write,
    /// Shows the keys.
    Help,
    /// Draws everything anew.
    Redraw,
    /// Goes to the background.
    Suspend,
    /// Ends.
    Quit,
}

/// Where a key is worth a place in the footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a list and in a story.
    Everywhere,
    /// In a list.
    List,
    /// In a story.
    Story,
    /// Help alone names it.
    Help,
}

/// A key, or several that do the same.
#[derive(Debug)]
pub struct Binding {
    /// The keys.
    pub keys: &'static [Key],
    /// How they are called.
    pub label: &'static str,
    /// What they do.
    pub action: Action,
    /// In the footer, in a word.
    pub hint: &'static str,
    /// In help.
    pub help: &'static str,
    /// Where the footer has it.
    pub place: Place,
}

/// A key of the keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// With or without Shift.
    Char(char),
    /// Together with Ctrl.
    Ctrl(char),
    /// One without a character.
    Code(KeyCode),
}

use Action::{
    Back, Columns, CopyRow, Filter, First, Help, Last, Move, Open, Pace, Page, Pause, Quit, Redraw, Reverse, Sort,
    Suspend, Turn, View, Write,
};
use Key::{Char, Code, Ctrl};

const fn binding(
    keys: &'static [Key],
    label: &'static str,
    action: Action,
    hint: &'static str,
    help: &'static str,
    place: Place,
) -> Binding {
    Binding { keys, label, action, hint, help, place }
}

/// All of them, in the order of the help. In the footer those that stand first go last.
#[rustfmt::skip]
pub const BINDINGS: &[Binding] = &[
    binding(&[Code(KeyCode::Enter), Code(KeyCode::Right), Char('l')], "Enter l", Open, "open", "the whole story of what is under the cursor", Place::List),
    binding(&[Code(KeyCode::Esc), Code(KeyCode::Left), Char('h'), Code(KeyCode::Backspace)], "Esc h", Back, "back", "back to the list; in a list: no filter any more", Place::Story),
    binding(&[Char('q'), Ctrl('c')], "q", Quit, "quit", "end", Place::Everywhere),
    binding(&[Char('?'), Code(KeyCode::F(1))], "?", Help, "help", "this page", Place::Everywhere),
    binding(&[Code(KeyCode::Tab)], "Tab", Turn(1), "view", "the next view", Place::List),
    binding(&[Code(KeyCode::BackTab)], "Shift-Tab", Turn(-1), "", "the view before", Place::Help),
    binding(&[Char('/')], "/", Filter, "filter", "show only: 443, nginx, 10.0.0.0/8, or the words of the flags", Place::List),
    binding(&[Char('s')], "s", Sort, "sort", "sort by the next column", Place::List),
    binding(&[Char('r')], "r", Reverse, "reverse", "turn the order round", Place::List),
    binding(&[Char(' ')], "Space", Pause, "pause", "hold the screen; data goes on being collected", Place::Everywhere),
    binding(&[Char('w')], "w", Write, "report", "write what is shown to a file", Place::Everywhere),
    binding(&[Char('y')], "y", CopyRow, "copy", "copy the row as JSON to the clipboard (OSC 52)", Place::List),
    binding(&[Char('c')], "c", Columns, "columns", "choose columns", Place::List),
    binding(&[Char('+'), Char('=')], "+", Pace(1), "", "a longer interval", Place::Help),
    binding(&[Char('-')], "-", Pace(-1), "", "a shorter interval", Place::Help),
    binding(&[Code(KeyCode::Up), Char('k')], "Up k", Move(-1), "", "up", Place::Help),
    binding(&[Code(KeyCode::Down), Char('j')], "Down j", Move(1), "", "down", Place::Help),
    binding(&[Code(KeyCode::PageUp), Ctrl('b')], "PageUp", Page(-1), "", "a page up", Place::Help),
    binding(&[Code(KeyCode::PageDown), Ctrl('f')], "PageDown", Page(1), "", "a page down", Place::Help),
    binding(&[Code(KeyCode::Home), Char('g')], "Home g", First, "", "to the first line", Place::Help),
    binding(&[Code(KeyCode::End), Char('G')], "End G", Last, "", "to the last line", Place::Help),
    binding(&[Char('1')], "1", View(0), "", "listeners", Place::Help),
    binding(&[Char('2')], "2", View(1), "", "connections", Place::Help),
    binding(&[Char('3')], "3", View(2), "", "processes", Place::Help),
    binding(&[Char('4')], "4", View(3), "", "states", Place::Help),
    binding(&[Char('5')], "5", View(4), "", "overwatch itself", Place::Help),
    binding(&[Ctrl('l')], "Ctrl-L", Redraw, "", "draw everything anew", Place::Help),
    binding(&[Ctrl('z')], "Ctrl-Z", Suspend, "", "to the background; fg comes back", Place::Help),
];

impl Key {
    /// What was pressed.
    pub fn of(event: &KeyEvent) -> Self {
        match event.code {
            KeyCode::Char(letter) if event.modifiers.contains(KeyModifiers::CONTROL) => {
                Ctrl(letter.to_ascii_lowercase())
            }
            KeyCode::Char(letter) => Char(letter),
            code => Code(code),
        }
    }

    /// What it does where no text is typed.
    pub fn action(self) -> Option<Action> {
        BINDINGS.iter().find(|binding| binding.keys.contains(&self)).map(|binding| binding.action)
    }
}
