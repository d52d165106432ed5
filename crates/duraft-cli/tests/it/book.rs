//! Every `duraft ...` command line in the documents names subcommands and flags that exist, and the
//! configuration files of docs/deploy are ones that `duraft serve` takes.

use crate::common::{run, said};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn duraft(args: &[&str]) -> (bool, String) {
    let output = crate::common::duraft(args);
    (output.status.success(), said(&output))
}

/// Flags and commands that work and that no help names: they write pages of the documents.
const HIDDEN: &[&str] = &["print-reference", "reference"];

/// Subcommands and flags of one level, from its help.
struct Level {
    commands: BTreeSet<String>,
    flags: BTreeSet<String>,
}

fn level(path: &[String]) -> Level {
    let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
    args.push("--help");
    let (ok, help) = duraft(&args);
    assert!(ok, "duraft {} --help", path.join(" "));
    let mut commands = BTreeSet::new();
    let mut inside = false;
    for line in help.lines() {
        if !line.starts_with(' ') {
            inside = line == "Commands:";
        } else if inside && line.starts_with("  ") && !line.starts_with("   ") {
            commands.extend(line.split_whitespace().next().map(str::to_owned));
        }
    }
    let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let flags = help.split("--").skip(1).map(|rest| {
        let end = rest.find(|c| !name(c)).unwrap_or(rest.len());
        rest[..end].to_owned()
    });
    Level {
        commands,
        flags: flags.collect(),
    }
}

/// Documents and deployment files, by name.
fn texts() -> Vec<(String, String)> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "README.md", "docs"]);
    let output = run(git.current_dir(root()));
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    let wanted = |name: &&str| name.ends_with(".md") || name.starts_with("docs/deploy/");
    names
        .split('\0')
        .filter(wanted)
        .filter_map(|name| {
            Some((
                name.to_owned(),
                std::fs::read_to_string(root().join(name)).ok()?,
            ))
        })
        .collect()
}

/// The command lines of a text: lines of its blocks, and what stands in backticks.
fn commands_in(text: &str, top: &BTreeSet<String>) -> Vec<Vec<String>> {
    let joined = text.replace("\\\n", " ");
    let mut lines: Vec<&str> = Vec::new();
    let mut fenced = false;
    for line in joined.lines() {
        if line.trim_start().starts_with("```") {
            fenced = line.trim_start().starts_with("```sh");
        } else if fenced || line.starts_with("    ") {
            lines.push(line);
        } else {
            lines.extend(line.split('`').skip(1).step_by(2));
        }
    }
    let mut commands = Vec::new();
    for line in lines {
        let line = line.split(" #").next().unwrap_or_default();
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        // At the beginning, or behind another program that runs it.
        let begins = |at: &usize| {
            let named = words[*at] == "duraft" || words[*at].ends_with("/duraft");
            let next = words.get(at + 1);
            named && next.is_some_and(|next| *at == 0 || top.contains(next))
        };
        let program = (0..words.len()).find(begins);
        let others = ["--example", "--manifest-path"];
        let cargo = line.contains("cargo run") && !others.iter().any(|other| line.contains(other));
        let cargo = words.iter().position(|word| cargo && word == "--");
        if let Some(at) = cargo.or(program) {
            commands.push(words[at + 1..].to_vec());
        }
    }
    commands
}

/// What is wrong with a command line, if anything. `None` for what is no command of ours.
fn problem(words: &[String], levels: &mut BTreeMap<Vec<String>, Level>) -> Option<String> {
    let mut path: Vec<String> = Vec::new();
    let mut after_flag = false;
    for word in words {
        let here = levels.entry(path.clone()).or_insert_with(|| level(&path));
        let word = word.trim_matches(|c| c == '"' || c == '\'' || c == ',');
        if let Some(flag) = word.strip_prefix("--") {
            let flag = flag.split('=').next().unwrap_or_default();
            let known = flag.is_empty() || HIDDEN.contains(&flag) || here.flags.contains(flag);
            if !known {
                return Some(format!("duraft {} has no --{flag}", path.join(" ")));
            }
            after_flag = true;
        } else if here.commands.contains(word) && !after_flag {
            path.push(word.to_owned());
        } else if ["|", ">", "&&", ";", "&", "<"].contains(&word) || word.starts_with('>') {
            break;
        } else {
            let plain = |c: char| c.is_ascii_lowercase() || c == '-';
            let name = !word.is_empty() && word.chars().all(plain);
            if HIDDEN.contains(&word) && path.is_empty() {
                break;
            }
            if path.is_empty() && name && !after_flag {
                return Some(format!("there is no duraft {word}"));
            }
            if !here.commands.is_empty() && name && !after_flag {
                return Some(format!("duraft {} has no {word}", path.join(" ")));
            }
            after_flag = false;
        }
    }
    None
}

#[test]
fn every_command_line_in_the_documents_exists() {
    // A runbook whose command does not exist is found out at the worst moment.
    let mut levels = BTreeMap::new();
    let top = level(&[]).commands;
    let mut checked = 0;
    let mut wrong = Vec::new();
    for (name, text) in texts() {
        for words in commands_in(&text, &top) {
            checked += 1;
            if let Some(problem) = problem(&words, &mut levels) {
                wrong.push(format!("{name}: duraft {}: {problem}", words.join(" ")));
            }
        }
    }
    assert!(checked > 50, "{checked} command lines");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn command_lines_that_do_not_exist_are_noticed() {
    let mut levels = BTreeMap::new();
    let top = level(&[]).commands;
    let mut of = |text: &str| {
        let commands = commands_in(text, &top);
        assert_eq!(commands.len(), 1, "{text}");
        problem(&commands[0], &mut levels)
    };
    assert_eq!(of("`duraft bench disk --seconds 3`"), None);
    assert_eq!(
        of("```sh\nduraft bench wal --clients 4 \\\n  --batch 2\n```"),
        None
    );
    assert_eq!(of("```sh\ncargo run --release -- bench --dir x\n```"), None);
    assert!(of("`duraft bench dsik`").is_some());
    assert!(of("`duraft bench disk --minutes 3`").is_some());
    assert!(of("`duraft repair`").is_some());
    assert!(of("```sh\nduraft accept-loss --dir data \\\n  --from 3\n```").is_some());
}

#[test]
fn configurations_of_the_deployment_files_can_be_used() {
    let deploy = root().join("docs/deploy");
    let manifest = std::fs::read_to_string(deploy.join("kubernetes.yml")).expect("a manifest");
    let block = manifest
        .split("duraft.toml: |\n")
        .nth(1)
        .and_then(|rest| rest.split("\n---").next())
        .expect("the configuration in the manifest");
    let lines = block.lines().map(|line| line.trim_start());
    let text: Vec<&str> = lines.collect();
    let of_manifest = Path::new(env!("CARGO_TARGET_TMPDIR")).join("of-manifest.toml");
    std::fs::write(&of_manifest, text.join("\n")).expect("written");
    for file in [deploy.join("duraft.toml"), of_manifest] {
        for id in 1..=3 {
            let file = file.to_str().expect("a plain path");
            let set = format!("id={id}");
            let args = ["serve", "--config", file, "--set", &set, "--print-config"];
            let (ok, text) = duraft(&args);
            assert!(ok && text.contains(&format!("id = {id}")), "{file}: {text}");
        }
    }
}
