//! What the screen is at: which view, which row, what is typed. Everything here changes by keys, and by nothing else.

use std::time::Duration;

use super::theme::Tone;
use super::{
    board::Board,
    keys::{Action, BINDINGS},
    listing::{Id, Sort, Text},
    views::{CONNECTIONS, LISTENERS, VIEWS, View},
};
use crate::{
    model::{filter::Filter, verdict::Level},
    show::text::{duration, printable},
};

/// Intervals that `+` and `-` lead through.
const PACES: [Duration; 8] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// What somebody else has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// End.
    Quit,
    /// Go to the background.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// From now on intervals are so long.
    Pace(Duration),
    /// Into the clipboard.
    Copy(String),
    /// Into a file.
    Write(String),
}

/// What keys are for at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They are as the table says.
    #[default]
    Normal,
    /// They are text of a filter.
    Typing(String),
    /// They choose columns: the place of the one under the cursor.
    Columns(usize),
    /// They leave the help, or go through it.
    Help(usize),
}

/// Where a list is at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The row under the cursor; `None` for the first, whichever it is.
    pub row: Option<Id>,
    /// Where that is, and where it was when it is gone.
    pub at: usize,
    /// The first line that is seen.
    pub top: usize,
    /// By what it is sorted.
    pub sort: Sort,
    /// Bits of columns that are not wanted.
    pub hidden: u64,
}

/// A story that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// Of what.
    pub of: Id,
    /// The first line that is seen.
    pub top: usize,
    /// What there was to say when it was last there.
    pub said: Vec<Text>,
    /// It is there no more.
    pub gone: bool,
}

/// Turns what was typed into a filter.
pub type Parse = fn(&str) -> Result<Filter, String>;

/// What the screen is at.
#[derive(Clone, Debug)]
pub struct State {
    pub(super) view: usize,
    /// Nobody has chosen it.
    by_itself: bool,
    pub(super) places: Vec<Place>,
    pub(super) story: Option<Story>,
    pub(super) mode: Mode,
    pub(super) typed: String,
    pub(super) filter: Filter,
    /// What is said in the last line until the next key.
    pub(super) message: Option<String>,
    pub(super) paused: bool,
    pub(super) interval: Duration,
    /// Rows that are wanted, in order, of the view.
    pub(super) rows: Vec<usize>,
    /// Lines for rows, or for a story.
    pub(super) room: usize,
    pub(super) width: usize,
    parse: Parse,
}

impl State {
    /// At the beginning.
    pub fn new(interval: Duration, filter: Filter, typed: String, parse: Parse) -> Self {
        Self {
            view: CONNECTIONS,
            by_itself: true,
            places: vec![Place::default(); VIEWS.len()],
            story: None,
            mode: Mode::Normal,
            typed,
            filter,
            message: None,
            paused: false,
            interval,
            rows: Vec::new(),
            room: 1,
            width: 80,
            parse,
        }
    }

    pub(super) fn view(&self) -> &'static View {
        &VIEWS[self.view]
    }

    pub(super) fn place(&self) -> &Place {
        &self.places[self.view]
    }

    fn place_mut(&mut self) -> &mut Place {
        &mut self.places[self.view]
    }

    /// The place of the row under the cursor among all rows.
    pub(super) fn current(&self) -> Option<usize> {
        self.rows.get(self.place().at).copied()
    }

    /// True when what is shown is not what is collected.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// How long intervals are to be.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Says something in the last line.
    pub fn say(&mut self, message: String) {
        self.message = Some(message);
    }

    /// The board is another one, or the window.
    pub fn look(&mut self, board: &Board) {
        if self.by_itself {
            let worst = board.listeners.iter().map(|row| row.verdict.level).max();
            // Once something is wrong it stays there, so that nothing jumps away while somebody reads.
            if worst > Some(Level::Busy) {
                (self.view, self.by_itself) = (LISTENERS, false);
            }
        }
        let (view, sort) = (self.view(), self.place().sort);
        self.rows = view.listing.select(board, &self.filter, sort);
        // Where the row has gone, the cursor stays where it is on the screen.
        if let Some(row) = self.place().row {
            let found = self.rows.iter().position(|at| view.listing.id(board, *at) == row);
            let at = found.unwrap_or(self.place().at).min(self.rows.len().saturating_sub(1));
            let id = self.rows.get(at).map(|row| view.listing.id(board, *row));
            let place = self.place_mut();
            (place.at, place.row) = (at, id);
        } else {
            self.place_mut().at = 0;
        }
        self.settle();
        let (room, width) = (self.room, self.width);
        if let Some(story) = &mut self.story {
            match view.listing.story(board, story.of, width) {
                Some(said) => (story.said, story.gone) = (said, false),
                None if story.gone => {}
                None => {
                    story.said.insert(0, Text::new("It has gone. This was the last of it:", Tone::Warning));
                    story.gone = true;
                }
            }
            story.top = story.top.min(story.said.len().saturating_sub(room));
        }
    }

    /// The cursor is in sight.
    fn settle(&mut self) {
        let (room, rows) = (self.room.max(1), self.rows.len());
        let place = self.place_mut();
        place.top = place.top.clamp((place.at + 1).saturating_sub(room), place.at).min(rows.saturating_sub(room));
    }

    /// What a key does where no text is typed.
    pub fn act(&mut self, action: Action, board: &Board) -> Effect {
        self.message = None;
        self.by_itself &= action == Action::Help;
        match action {
            Action::Quit => return Effect::Quit,
            Action::Suspend => return Effect::Suspend,
            Action::Redraw => return Effect::Redraw,
            Action::Help => self.mode = Mode::Help(0),
            Action::Pause => self.paused = !self.paused,
            Action::Pace(step) => return self.pace(step),
            Action::CopyRow => {
                return self.current().map_or(Effect::None, |at| Effect::Copy(self.view().listing.json(board, at)));
            }
            Action::Write => return Effect::Write(self.report(board)),
            Action::Move(_) | Action::Page(_) | Action::First | Action::Last => {
                let page = self.room.max(2).cast_signed() - 1;
                let lines = match action {
                    Action::Move(lines) => lines,
                    Action::Page(pages) => pages * page,
                    Action::First => isize::MIN / 2,
                    _ => isize::MAX / 2,
                };
                // Nothing is chosen or sorted for that.
                self.travel(lines, board);
                return Effect::None;
            }
            Action::Turn(step) => {
                let views = VIEWS.len().cast_signed();
                self.turn((self.view.cast_signed() + step).rem_euclid(views).cast_unsigned());
            }
            Action::View(view) if view < VIEWS.len() => self.turn(view),
            Action::View(_) => {}
            Action::Open => self.open(board),
            Action::Back => self.back(),
            Action::Filter => self.mode = Mode::Typing(self.typed.clone()),
            Action::Sort => self.sort(),
            Action::Reverse => self.place_mut().sort.reversed ^= true,
            Action::Columns => self.mode = Mode::Columns(0),
        }
        self.look(board);
        Effect::None
    }

    fn turn(&mut self, view: usize) {
        (self.view, self.by_itself, self.story) = (view, false, None);
    }

    fn pace(&mut self, step: isize) -> Effect {
        let at = PACES.partition_point(|pace| *pace < self.interval);
        let exact = PACES.get(at) == Some(&self.interval);
        let next = if step > 0 { at + usize::from(exact) } else { at.saturating_sub(1) };
        let next = PACES[next.min(PACES.len() - 1)];
        // One that was given at the start may be beyond both ends.
        if (next > self.interval) == (step > 0) {
            self.interval = next;
        }
        Effect::Pace(self.interval)
    }

    fn travel(&mut self, lines: isize, board: &Board) {
        if let Some(story) = &mut self.story {
            story.top = story.top.saturating_add_signed(lines).min(story.said.len().saturating_sub(self.room));
            return;
        }
        let last = self.rows.len().saturating_sub(1);
        let at = self.place().at.saturating_add_signed(lines).min(last);
        let id = self.rows.get(at).map(|row| self.view().listing.id(board, *row));
        let place = self.place_mut();
        (place.at, place.row) = (at, id);
        self.settle();
    }

    fn open(&mut self, board: &Board) {
        if self.story.is_some() {
            return;
        }
        let Some(at) = self.current() else { return };
        let of = self.view().listing.id(board, at);
        self.place_mut().row = Some(of);
        let said = self.view().listing.story(board, of, self.width).unwrap_or_default();
        (self.story, self.by_itself) = (Some(Story { of, top: 0, said, gone: false }), false);
    }

    fn back(&mut self) {
        if self.story.take().is_none() {
            (self.filter, self.typed) = (Filter::default(), String::new());
        }
    }

    fn sort(&mut self) {
        let orders = self.view().listing.orders().len();
        let sort = &mut self.place_mut().sort;
        let next = sort.by.map_or(0, |by| by + 1);
        *sort = Sort { by: (next < orders).then_some(next), reversed: false };
        let by = sort.by.map(|by| self.view().listing.orders()[by]);
        self.message = Some(by.map_or("sorted as at the start".to_owned(), |by| format!("sorted by {by}")));
    }

    /// What a key does in a filter that is being typed.
    pub fn type_filter(&mut self, text: Typed, board: &Board) {
        let Mode::Typing(typed) = &mut self.mode else { return };
        self.message = None;
        match text {
            Typed::Letter(letter) => typed.push(letter),
            Typed::Erase => drop(typed.pop()),
            Typed::EraseAll => typed.clear(),
            Typed::Never => self.mode = Mode::Normal,
            Typed::Done => match (self.parse)(typed) {
                Ok(filter) => {
                    (self.filter, self.typed, self.message) = (filter, typed.trim().to_owned(), None);
                    self.mode = Mode::Normal;
                    self.look(board);
                }
                Err(why) => self.message = Some(why),
            },
        }
    }

    /// Shows or hides the column under the cursor.
    pub fn toggle_column(&mut self) {
        let Mode::Columns(at) = self.mode else { return };
        let columns = self.view().listing.titles().len();
        let hidden = self.place().hidden ^ (1 << at);
        // One at least stays.
        if hidden.count_ones() < columns as u32 {
            self.place_mut().hidden = hidden;
        }
    }

    /// Up and down in a list that stands over the others.
    pub fn travel_over(&mut self, lines: isize) {
        let last = match self.mode {
            Mode::Columns(_) => self.view().listing.titles().len(),
            _ => BINDINGS.len(),
        };
        if let Mode::Columns(at) | Mode::Help(at) = &mut self.mode {
            *at = at.saturating_add_signed(lines).min(last.saturating_sub(1));
        }
    }

    /// Leaves what stands over the others.
    pub fn leave(&mut self) {
        self.mode = Mode::Normal;
    }

    /// A line of the list was clicked.
    pub fn click(&mut self, line: usize, board: &Board) {
        let before = self.place().row;
        let at = self.place().top + line;
        if self.story.is_some() || line >= self.room || at >= self.rows.len() {
            return;
        }
        self.travel(at.cast_signed() - self.place().at.cast_signed(), board);
        // The second time it opens.
        if self.place().row == before {
            self.open(board);
        }
        self.look(board);
    }

    /// What is shown, whole, for a file.
    fn report(&self, board: &Board) -> String {
        let time = humantime::format_rfc3339_seconds(board.time);
        let only = if self.typed.is_empty() { String::new() } else { format!(", only: {}", printable(&self.typed)) };
        let (view, host) = (self.view().name.to_lowercase(), printable(&board.host));
        let mut text = format!("overwatch {view} on {host}, {time}, {} of it{only}\n\n", duration(board.interval));
        match &self.story {
            Some(story) => story.said.iter().for_each(|line| {
                text.push_str(&line.text);
                text.push('\n');
            }),
            None => {
                let listing = self.view().listing;
                let seen = super::listing::Seen {
                    rows: &self.rows,
                    sort: self.place().sort,
                    hidden: self.place().hidden,
                    width: 250,
                    theme: super::theme::Theme { color: false },
                };
                let (heading, lines) = listing.draw(board, &seen);
                for line in std::iter::once(heading).chain(lines) {
                    text.push_str(line.to_string().trim_end());
                    text.push('\n');
                }
            }
        }
        text
    }
}

/// A key while text is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// One more letter.
    Letter(char),
    /// The last one goes.
    Erase,
    /// All go.
    EraseAll,
    /// It is meant.
    Done,
    /// It is not.
    Never,
}
