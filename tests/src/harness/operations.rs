//! The table of operations by tier: written by the test that measured it, and compared with the one in the docs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::host::Tier;

/// How an operation came out in a tier.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Outcome {
    /// Every byte when it moved.
    Exact,
    /// Every byte, some only when the connection closed.
    ExactAtClose,
    /// The kernel that was tested has no such operation.
    KernelCannot,
    /// The numbers were wrong.
    Wrong,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Exact, Self::ExactAtClose, Self::KernelCannot, Self::Wrong];

    /// What the table says.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::ExactAtClose => "exact at close",
            Self::KernelCannot => "kernel cannot",
            Self::Wrong => "wrong",
        }
    }
}

/// Outcomes by operation and tier.
#[derive(Debug, Default)]
pub struct Table {
    order: Vec<String>,
    cells: BTreeMap<(String, Tier), Outcome>,
}

impl Table {
    /// Notes an outcome; of several for one cell the worst stays.
    pub fn note(&mut self, op: &str, tier: Tier, outcome: Outcome) {
        if !self.order.iter().any(|known| known == op) {
            self.order.push(op.to_owned());
        }
        let cell = self.cells.entry((op.to_owned(), tier)).or_insert(outcome);
        *cell = (*cell).max(outcome);
    }

    /// The table in Markdown that `text` contains, if any.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut table = Self::default();
        let mut tiers: Vec<Option<Tier>> = Vec::new();
        for line in text.lines().filter(|line| line.starts_with('|')) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let Some((name, rest)) = cells.split_first() else {
                continue;
            };
            if *name == "Operation" {
                tiers = rest.iter().map(|cell| Tier::ALL.into_iter().find(|tier| tier.name() == *cell)).collect();
                continue;
            }
            for (cell, tier) in rest.iter().zip(&tiers) {
                let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.text() == *cell);
                if let (Some(tier), Some(outcome)) = (tier, outcome) {
                    table.note(name.trim_matches('`'), *tier, outcome);
                }
            }
        }
        table
    }

    /// Fills what was not measured here, or could not be, from an older table.
    pub fn complete_from(&mut self, older: &Self) {
        for ((op, tier), outcome) in &older.cells {
            let key = (op.clone(), *tier);
            if matches!(self.cells.get(&key), None | Some(Outcome::KernelCannot)) && self.order.contains(op) {
                self.cells.insert(key, *outcome);
            }
        }
    }

    /// Where this measurement contradicts `documented`.
    #[must_use]
    pub fn contradictions(&self, documented: &Self) -> Vec<String> {
        let differing = |(key, outcome): (&(String, Tier), &Outcome)| {
            let (op, tier) = key;
            match documented.cells.get(key) {
                // An older kernel that cannot do it says nothing about the tier.
                _ if *outcome == Outcome::KernelCannot => None,
                Some(said) if said == outcome => None,
                Some(said) => {
                    Some(format!("{op}, {tier}: documented as {:?}, measured {:?}", said.text(), outcome.text()))
                }
                None => Some(format!("{op}, {tier}: not documented, measured {:?}", outcome.text())),
            }
        };
        self.cells.iter().filter_map(differing).collect()
    }

    /// The page with the table.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut page = String::from(
            "# Operations by tier\n\n\
             Measured by `tests/tests/privileged/exact_bytes.rs` against what both ends of each connection counted\n\
             themselves, over IPv4, IPv6 and IPv4-mapped IPv6, and compared with this page whenever that test runs.\n\n\
             - *exact*: every byte is shown in the interval in which it moved, with the process that moved it.\n\
             - *exact at close*: the tier does not see the call; the connection's total is made good from the kernel's own\n  \
             counters when the connection closes, and `reconciled_*` says how much that was.\n\
             - *kernel cannot*: no kernel with this tier that was tested has the operation.\n\n\
             | Operation | fentry | kprobe | tracepoint |\n|---|---|---|---|\n",
        );
        for op in &self.order {
            let cell = |tier| self.cells.get(&(op.clone(), tier)).map_or("", |outcome| outcome.text());
            let [fentry, kprobe, tracepoint] = Tier::ALL.map(cell);
            // Writing to a string does not fail.
            let _ = writeln!(page, "| `{op}` | {fentry} | {kprobe} | {tracepoint} |");
        }
        page
    }
}
