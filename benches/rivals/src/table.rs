//! Medians with their ranges over the rounds, and ratios to duraft within each round, as Markdown.

use crate::Result;
use serde_json::{Value, json};
use std::path::Path;

/// What a workload measures. The first figure is the one that is compared.
#[derive(Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) digits: usize,
}

/// One workload with the figures of each rival.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) figures: &'static [Figure],
    /// Rival, and for each round its figures; none where it has no such operation.
    pub(crate) rows: Vec<(&'static str, Vec<Option<Vec<f64>>>)>,
}

fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (
        values[values.len() / 2],
        values[0],
        values[values.len() - 1],
    )
}

fn shown((median, min, max): (f64, f64, f64), digits: usize) -> String {
    format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
}

impl Table {
    /// Prints it. The base of the ratios is the first row of duraft.
    pub(crate) fn print(&self) {
        println!("\n### {}\n", self.title);
        let names: Vec<&str> = self.figures.iter().map(|figure| figure.name).collect();
        println!("| | {} | {} / duraft |", names.join(" | "), names[0]);
        println!("|---|{}---|", "---|".repeat(names.len()));
        let is_base = |row: &&(&str, Vec<Option<Vec<f64>>>)| {
            row.0.starts_with("duraft") && row.1.iter().all(Option::is_some)
        };
        let base = self.rows.iter().find(is_base).map(|row| &row.1);
        for (rival, rounds) in &self.rows {
            let Some(rounds) = rounds.iter().cloned().collect::<Option<Vec<_>>>() else {
                continue;
            };
            let mut cells = Vec::new();
            for (place, figure) in self.figures.iter().enumerate() {
                let values = rounds.iter().map(|round| round[place]).collect();
                cells.push(shown(spread(values), figure.digits));
            }
            let ratio = base.map(|base| {
                let pairs = rounds.iter().zip(base.iter().flatten());
                shown(
                    spread(pairs.map(|(ours, base)| ours[0] / base[0]).collect()),
                    2,
                )
            });
            println!(
                "| {rival} | {} | {} |",
                cells.join(" | "),
                ratio.unwrap_or_default()
            );
        }
    }

    fn json(&self) -> Value {
        let names: Vec<&str> = self.figures.iter().map(|figure| figure.name).collect();
        let rows = self
            .rows
            .iter()
            .map(|(rival, rounds)| json!({"rival": rival, "rounds": rounds}));
        json!({"workload": self.name, "figures": names, "rows": rows.collect::<Vec<_>>()})
    }
}

/// Writes all tables to a file.
pub(crate) fn write_json(path: &Path, facts: &str, tables: &[Table]) -> Result<()> {
    let tables: Vec<Value> = tables.iter().map(Table::json).collect();
    let all = json!({"machine": facts, "tables": tables});
    Ok(std::fs::write(
        path,
        serde_json::to_string_pretty(&all)? + "\n",
    )?)
}
