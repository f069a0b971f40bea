//! Snapshots to text. What a row consists of is declared once, in [`columns`].

pub mod check;
pub mod columns;
pub mod csv;
pub mod json;
pub mod table;
pub mod text;
