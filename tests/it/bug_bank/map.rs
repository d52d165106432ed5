//! Which id has which faults. Every rule, schedule, crash scenario and regression id has one at least, or
//! the reason why its fault cannot be written here; `docs/bug-bank.md` has this map and all faults.

use super::faults::all;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Ids whose plants are found by a test of their own, not by a searcher of the bank.
const BY_TEST: &[(&str, &str)] = &[
    (
        "RULES 4",
        "`Ablation::NoStoreSeed` (`no_rule_can_be_taken_out_unseen`)",
    ),
    (
        "RULES 22",
        "`Ablation::ReceiptAlways` (`rule_22_a_commit_is_one_sync_and_a_receipt_for_each_is_noticed`)",
    ),
    (
        "RULES 23",
        "`Ablation::TrustSlots` (`no_rule_can_be_taken_out_unseen`)",
    ),
];

/// Ids whose fault is none of a running program.
const CANNOT: &[(&str, &str)] = &[(
    "RULES 24",
    "cannot be written at run time: the rule is about the text of the program (no clock or chance in \
     the trait, `unsafe` in one module); `tidy_unsafe_stands_in_one_module` and the compiler hold it",
)];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// Rules, schedules, crash scenarios, and the reproduced defects of the seed systems.
fn ids() -> Vec<String> {
    let numbered = |what: &str, upto: u32| -> Vec<String> {
        (1..=upto).map(|n| format!("{what}{n}")).collect()
    };
    let mut ids = numbered("RULES ", 26);
    ids.extend(numbered("F", 6));
    ids.extend(numbered("C", 10));
    let seeds = read("docs/seeds.md");
    let defects = seeds.split("## Reproduced defects").nth(1).expect("a part");
    let defects = defects.split("\n## ").next().expect("a part");
    let rows = defects.lines().filter_map(|line| line.strip_prefix("| "));
    let names = rows.filter_map(|row| row.split(" | ").next());
    ids.extend(names.filter(|name| *name != "id").map(String::from));
    ids
}

/// The map as the documents hold it.
fn map() -> Vec<String> {
    let mut plants: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for fault in all() {
        for id in fault.known_by() {
            let plant = format!("`{}`", fault.plant());
            plants.entry(id).or_default().insert(plant);
        }
    }
    for (id, plant) in BY_TEST {
        plants
            .entry((*id).into())
            .or_default()
            .insert((*plant).into());
    }
    let mut rows = Vec::new();
    for id in ids() {
        let cannot = CANNOT.iter().find(|(known, _)| *known == id);
        let text = match (plants.get(&id), cannot) {
            (Some(plants), None) => {
                let plants: Vec<&str> = plants.iter().map(String::as_str).collect();
                plants.join(", ")
            }
            (None, Some((_, why))) => (*why).into(),
            (None, None) => panic!("{id} has no fault"),
            (Some(_), Some(_)) => panic!("{id} has a fault and a reason for none"),
        };
        rows.push(format!("| {id} | {text} |"));
    }
    rows
}

#[test]
fn checks_every_id_has_its_plants_and_the_documents_say_so() {
    let ids = ids();
    assert!(ids.len() > 26 + 6 + 10 + 40, "{ids:?}");
    let text = read("docs/bug-bank.md");
    let lines: BTreeSet<&str> = text.lines().collect();
    let rows = map();
    let missing: Vec<&String> = rows
        .iter()
        .filter(|row| !lines.contains(row.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "not in docs/bug-bank.md:\n{}",
        join(&missing)
    );
    let row = |name: &str, plant: &str| format!("| {name} | `{plant}` | ");
    let all = all();
    let rows: Vec<String> = (all.iter())
        .map(|fault| row(fault.name, &fault.plant()))
        .collect();
    let absent = |row: &&String| !lines.iter().any(|line| line.starts_with(row.as_str()));
    let missing: Vec<&String> = rows.iter().filter(absent).collect();
    assert!(
        missing.is_empty(),
        "not in docs/bug-bank.md:\n{}",
        join(&missing)
    );
}

fn join(rows: &[&String]) -> String {
    let rows: Vec<&str> = rows.iter().map(|row| row.as_str()).collect();
    rows.join("\n")
}
