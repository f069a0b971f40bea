//! What overwatch says of itself: what is attached, what it costs, what was lost.

use serde_json::json;

use crate::show::{
    json,
    layout::{
        Column, LEAST_ADDRESS,
        Width::{Between, Fixed},
        column,
    },
    screen::{
        board::Board,
        facts::Fact,
        listing::{Id, Table, Text},
    },
    text::printable,
};

pub(super) type Cell = fn(&Fact) -> String;

pub(super) static TABLE: Table<Fact, Cell> = Table {
    columns: COLUMNS,
    least_address: LEAST_ADDRESS,
    text: |cell, fact, _| cell(fact),
    orders: &[],
    rows: |board| &board.facts,
    rank: |_| [0; 3],
    id: |fact| Id::Fact(fact.number),
    // A filter is about sockets.
    wanted: |_, _| Box::new(|_| true),
    tone: |fact| fact.tone,
    remark: |_, _| Vec::new(),
    json: |fact, _| json::text(&json!({ "what": fact.what, "value": fact.value })),
    story,
};

#[rustfmt::skip]
const COLUMNS: &[Column<Cell>] = &[
    column("WHAT", Fixed(42), false, |fact| printable(&fact.what)),
    column("IT IS", Between(20, 200), false, |fact| printable(&fact.value)),
];

fn story(fact: &Fact, _: &Board, width: usize) -> Vec<Text> {
    let lines =
        [&fact.what, &fact.value].into_iter().flat_map(|text| crate::show::text::wrap(&printable(text), width, 2));
    lines.map(|line| Text::new(line, fact.tone)).collect()
}
