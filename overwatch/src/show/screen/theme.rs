//! How things look: by the terminal's own sixteen colours, or without any. Of these only those are used that can be read on a light and on
//! a dark background: no yellow, no cyan, no blue.

use ratatui::style::{Color, Modifier, Style};

use crate::model::verdict::Level;

/// What a piece of text says, whatever it looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// Headings, names.
    Strong,
    /// Less important.
    Weak,
    /// Good to know.
    Notice,
    /// Not good.
    Warning,
    /// Bad.
    Alarm,
}

impl From<Level> for Tone {
    fn from(level: Level) -> Self {
        match level {
            Level::Ok => Self::Plain,
            Level::Busy => Self::Warning,
            Level::Saturated | Level::Overflowing => Self::Alarm,
        }
    }
}

/// With colours, or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Theme {
    /// Colours may be used.
    pub(super) color: bool,
}

impl Theme {
    /// The style of a tone.
    pub(super) fn of(self, tone: Tone) -> Style {
        let colored = |color: Color| if self.color { Style::new().fg(color) } else { Style::new() };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
            Tone::Weak => Style::new().add_modifier(Modifier::DIM),
            Tone::Notice => colored(Color::Green),
            Tone::Warning => colored(Color::Magenta).add_modifier(Modifier::BOLD),
            Tone::Alarm => colored(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    /// The line under the cursor.
    pub(super) fn cursor(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}
