//! The reference page of the configuration, written from the table of fields.

use super::{Config, FIELDS};

const HEAD: &str = "\
# Configuration of `duraft serve`

Written by `duraft serve --print-reference`; a test compares this page with the program.

A node reads one TOML file, `--config FILE`. Any field can be set on the command line as well, which wins:
`--set limits.connections_max=100`. `--print-config` prints what comes out of both, complete, and starts nothing.
Sizes are written as `65536` or `\"64 KiB\"`, times as `\"250ms\"` or `\"10s\"`. All problems of a file are reported
at once.

## `[[node]]`: the cluster's nodes

One table per node, the same on all nodes. They are the first members of a new cluster; nodes that are added
later tell the others by way of the log, and need not be written here.

| field | what it is |
|---|---|
| `id` | the node's number, from 1 |
| `peer` | where other nodes reach it, `host:port` |
| `client` | where Redis clients reach it, and followers that pass writes on |
| `http` | where HTTP clients reach it |
| `admin` | where `duraft cluster` reaches it; may be left out |

An address of this node is also where it listens, unless `[listen]` says otherwise.
";

/// The whole page.
pub(crate) fn reference() -> String {
    let mut config = Config::default();
    let mut out = String::from(HEAD);
    let mut table = None;
    for field in FIELDS {
        let (of, name) = field.path.split_once('.').unwrap_or(("", field.path));
        if table != Some(of) {
            table = Some(of);
            let title = if of.is_empty() {
                "Top of the file".to_string()
            } else {
                format!("`[{of}]`")
            };
            out.push_str(&format!("\n## {title}\n"));
        }
        let default = (field.slot)(&mut config).show();
        let range = (field.slot)(&mut config).range();
        out.push_str(&format!("\n### `{name}`\n\n{}\n\n", field.doc));
        out.push_str(&format!("Default `{default}`. Allowed: {range}."));
        if !field.rule.is_empty() {
            out.push_str(&format!(" Must be: {}.", field.rule));
        }
        out.push('\n');
    }
    out
}
