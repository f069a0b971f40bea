//! Snapshots and lines to text. What they consist of is declared once, in [`columns`].

pub mod capabilities;
mod cells;
pub mod check;
pub mod columns;
pub mod csv;
pub mod explain;
pub mod json;
mod layout;
pub mod life;
pub mod listeners;
pub mod open;
pub mod schema;
pub mod screen;
pub mod settings;
pub mod states;
pub mod stream;
pub mod table;
pub mod text;
