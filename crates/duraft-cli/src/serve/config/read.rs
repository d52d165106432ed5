//! From the file's text and flags to a configuration, and back.

use super::fields::FIELDS;
use super::{Config, Peer, Problem, problem, units};
use toml::{Table, Value};

/// Reads a file's text and flags of the form `field=value`, which win. Every problem at once; rules
/// between fields are checked where each field by itself is right.
pub(crate) fn from_text(text: &str, flags: &[String]) -> Result<Config, Vec<Problem>> {
    let mut config = Config::default();
    let mut problems = Vec::new();
    match text.parse::<Table>() {
        Ok(table) => take_table(&mut config, "", &table, &mut problems),
        Err(error) => {
            let line = error
                .span()
                .map_or(0, |span| text[..span.start].lines().count());
            let what = error.message();
            problems.push(problem(
                format!("line {line}"),
                format!("is no TOML: {what}"),
            ));
        }
    }
    for flag in flags {
        take_flag(&mut config, flag, &mut problems);
    }
    if problems.is_empty() {
        problems = config.validate();
    }
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(problems)
    }
}

fn take_flag(config: &mut Config, flag: &str, problems: &mut Vec<Problem>) {
    let Some((path, value)) = flag.split_once('=') else {
        problems.push(problem(flag, "must be written as field=value"));
        return;
    };
    set(config, path.trim(), value.trim(), problems);
}

fn set(config: &mut Config, path: &str, text: &str, problems: &mut Vec<Problem>) {
    let Some(field) = FIELDS.iter().find(|field| field.path == path) else {
        problems.push(problem(path, unknown(path)));
        return;
    };
    if let Err(rule) = (field.slot)(config).set_text(text) {
        problems.push(problem(path, rule));
    }
}

/// Names the field that was probably meant.
fn unknown(path: &str) -> String {
    let last = path.rsplit('.').next().unwrap_or(path);
    let near = FIELDS
        .iter()
        .map(|field| (distance(path, field.path), field.path))
        .chain(FIELDS.iter().filter_map(|field| {
            let name = field.path.rsplit('.').next()?;
            (name == last).then_some((0, field.path))
        }))
        .min();
    match near {
        Some((distance, path)) if distance <= 3 => {
            format!("there is no such field; `{path}` is meant?")
        }
        Some(_) | None => "there is no such field".into(),
    }
}

/// Insertions, deletions and changes between two short texts.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn take_table(config: &mut Config, prefix: &str, table: &Table, problems: &mut Vec<Problem>) {
    for (name, value) in table {
        let path = format!("{prefix}{name}");
        match value {
            Value::Array(nodes) if path == "node" => {
                for (place, node) in nodes.iter().enumerate() {
                    take_node(config, place, node, problems);
                }
            }
            Value::Table(inner) if prefix.is_empty() && path != "node" => {
                take_table(config, &format!("{name}."), inner, problems);
            }
            Value::String(text) => set(config, &path, text, problems),
            Value::Integer(number) => set(config, &path, &number.to_string(), problems),
            Value::Boolean(on) => set(config, &path, &on.to_string(), problems),
            Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                let rule = if path == "node" {
                    "must be a list: write [[node]]"
                } else {
                    "must be a text, a whole number, or true or false"
                };
                problems.push(problem(path, rule));
            }
        }
    }
}

fn take_node(config: &mut Config, place: usize, node: &Value, problems: &mut Vec<Problem>) {
    let at = format!("node[{place}]");
    let Value::Table(table) = node else {
        problems.push(problem(at, "must be a table"));
        return;
    };
    let mut peer = Peer::default();
    for (name, value) in table {
        let path = format!("{at}.{name}");
        let slot = match name.as_str() {
            "id" => {
                match value.as_integer().and_then(|id| u64::try_from(id).ok()) {
                    Some(id) => peer.id = id,
                    None => problems.push(problem(path, "must be a whole number from 1")),
                }
                continue;
            }
            "peer" => &mut peer.peer,
            "client" => &mut peer.client,
            "http" => &mut peer.http,
            "admin" => &mut peer.admin,
            _ => {
                let rule = "there is no such field; a node has id, peer, client, http, admin";
                problems.push(problem(path, rule));
                continue;
            }
        };
        match value.as_str() {
            Some(text) => *slot = text.to_string(),
            None => problems.push(problem(path, "must be an address, as \"host:port\"")),
        }
    }
    config.nodes.push(peer);
}

/// The configuration as a file that gives the same one.
pub(crate) fn print(config: &Config) -> String {
    let mut config = config.clone();
    let nodes = std::mem::take(&mut config.nodes);
    let mut out = String::new();
    let mut table = "";
    for field in FIELDS {
        let (of, name) = field.path.split_once('.').unwrap_or(("", field.path));
        if of != table {
            out.push_str(&format!("\n[{of}]\n"));
            table = of;
        }
        let value = (field.slot)(&mut config).show();
        out.push_str(&format!("{name} = {value}\n"));
    }
    for node in nodes {
        out.push_str(&format!("\n[[node]]\nid = {}\n", node.id));
        let addresses = [
            ("peer", &node.peer),
            ("client", &node.client),
            ("http", &node.http),
            ("admin", &node.admin),
        ];
        for (name, address) in addresses.into_iter().filter(|(_, a)| !a.is_empty()) {
            out.push_str(&format!("{name} = {}\n", units::quoted(address)));
        }
    }
    out
}
