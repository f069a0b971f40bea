//! The terminal's screen: what is wrong first, and the way from there to who waits and why.
//!
//! [`board`] is what can be shown, [`state`] what the user is at, [`keys`] what keys do, [`views`] the lists; drawing changes nothing.

pub mod board;
mod draw;
mod facts;
pub mod keys;
mod listing;
pub mod state;
mod theme;
mod views;

#[cfg(test)]
mod tests;

use std::time::SystemTime;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::Frame;

use self::{
    board::Board,
    keys::{Action, Key},
    state::{Effect, Mode, State, Typed},
    theme::Theme,
};

/// Lines that the wheel moves.
const WHEEL: isize = 3;

/// Everything.
#[derive(Clone, Debug)]
pub struct Screen {
    /// What the user is at.
    pub state: State,
    /// As of the last interval.
    pub live: Board,
    /// What is shown while it is paused.
    held: Option<Box<Board>>,
    theme: Theme,
    /// The first line of the list on the terminal.
    list_line: u16,
}

impl Screen {
    /// With nothing on it yet.
    pub fn new(state: State, live: Board, color: bool) -> Self {
        Self { state, live, held: None, theme: Theme { color }, list_line: 0 }
    }

    /// What is shown.
    pub fn board(&self) -> &Board {
        shown(&self.held, &self.live)
    }

    /// An interval has ended.
    pub fn look(&mut self) {
        let board = shown(&self.held, &self.live);
        self.state.look(board);
    }

    /// A key was pressed.
    pub fn press(&mut self, event: &KeyEvent) -> Effect {
        if event.kind == KeyEventKind::Release {
            return Effect::None;
        }
        let key = Key::of(event);
        let board = shown(&self.held, &self.live);
        match self.state.mode {
            Mode::Typing(_) => {
                if let Some(typed) = typed(event) {
                    self.state.type_filter(typed, board);
                } else if key == Key::Ctrl('c') {
                    return Effect::Quit;
                }
                Effect::None
            }
            Mode::Columns(_) | Mode::Help(_) => {
                match key.action() {
                    Some(Action::Quit) if key == Key::Ctrl('c') => return Effect::Quit,
                    Some(Action::Move(lines)) => self.state.travel_over(lines),
                    Some(Action::Page(pages)) => self.state.travel_over(pages * 10),
                    Some(Action::Open | Action::Pause) if matches!(self.state.mode, Mode::Columns(_)) => {
                        self.state.toggle_column();
                    }
                    _ => self.state.leave(),
                }
                Effect::None
            }
            Mode::Normal => {
                let Some(action) = key.action() else { return Effect::None };
                let effect = self.state.act(action, board);
                self.hold();
                effect
            }
        }
    }

    /// Keeps what is shown while it is paused.
    fn hold(&mut self) {
        match (self.state.is_paused(), &self.held) {
            (true, None) => self.held = Some(Box::new(self.live.clone())),
            (false, Some(_)) => {
                self.held = None;
                self.look();
            }
            _ => {}
        }
    }

    /// The mouse did something.
    pub fn point(&mut self, event: &MouseEvent) -> Effect {
        let board = shown(&self.held, &self.live);
        if self.state.mode != Mode::Normal {
            return Effect::None;
        }
        match event.kind {
            MouseEventKind::ScrollUp => self.state.act(Action::Move(-WHEEL), board),
            MouseEventKind::ScrollDown => self.state.act(Action::Move(WHEEL), board),
            MouseEventKind::Down(MouseButton::Left) => {
                if let Some(line) = event.row.checked_sub(self.list_line) {
                    self.state.click(line.into(), board);
                }
                Effect::None
            }
            _ => Effect::None,
        }
    }

    /// Draws all of it, at this time.
    pub fn draw(&mut self, frame: &mut Frame<'_>, now: SystemTime) {
        let board = shown(&self.held, &self.live);
        self.list_line = draw::draw(frame, &mut self.state, board, now, self.theme);
    }
}

/// Of the two fields alone, so that the state can change meanwhile.
fn shown<'a>(held: &'a Option<Box<Board>>, live: &'a Board) -> &'a Board {
    held.as_deref().unwrap_or(live)
}

fn typed(event: &KeyEvent) -> Option<Typed> {
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    match event.code {
        KeyCode::Char('u') if control => Some(Typed::EraseAll),
        KeyCode::Char(letter) if !control => Some(Typed::Letter(letter)),
        KeyCode::Backspace => Some(Typed::Erase),
        KeyCode::Enter => Some(Typed::Done),
        KeyCode::Esc => Some(Typed::Never),
        _ => None,
    }
}
