//! House rules, checked over the tracked files: no leftovers, no over-long files, dependencies as in
//! the architecture, documents whose links and test names resolve, `unsafe` in one module only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest source file, in lines.
const FILE_LINES_MAX: usize = 800;

pub(super) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("the package lies in the root")
        .to_path_buf()
}

/// Tracked files that exist, by name relative to the root.
pub(super) fn tracked() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output()
        .expect("git lists the tracked files");
    assert!(output.status.success(), "git lists the tracked files");
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    let names = names.split('\0').filter(|name| !name.is_empty());
    names
        .filter(|name| root().join(name).is_file())
        .map(String::from)
        .collect()
}

pub(super) fn read(name: &str) -> String {
    let bytes = std::fs::read(root().join(name)).expect("a tracked file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn sources() -> Vec<(String, String)> {
    let is_source = |name: &String| name.ends_with(".rs");
    tracked()
        .into_iter()
        .filter(is_source)
        .map(|name| (name.clone(), read(&name)))
        .collect()
}

/// The code of a line: without its comment, and without what stands in string literals.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut quoted = false;
    let mut previous = ' ';
    for c in line.chars() {
        if c == '"' && previous != '\\' && previous != '\'' {
            quoted = !quoted;
        } else if !quoted {
            if c == '/' && previous == '/' {
                code.pop();
                return code;
            }
            code.push(c);
        }
        previous = c;
    }
    code
}

#[test]
fn tidy_knows_code_from_comments_and_text() {
    assert_eq!(code_of("let x = 1; // dbg!"), "let x = 1; ");
    assert_eq!(code_of("f(\"unsafe {\", y)"), "f(, y)");
    assert_eq!(code_of("/// unsafe"), "");
    assert_eq!(
        code_of("if c == '\"' { unsafe {} }"),
        "if c == '\"' { unsafe {} }"
    );
}

#[test]
fn tidy_no_leftovers_in_sources() {
    // Spelt in two parts, so that this file does not find itself.
    let in_code = [
        concat!("db", "g!("),
        concat!("#[ig", "nore"),
        concat!("thread::sl", "eep"),
        concat!("to", "do!("),
    ];
    let anywhere = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut found = Vec::new();
    for (name, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let code = code_of(line);
            let left = in_code.iter().any(|word| code.contains(word))
                || anywhere.iter().any(|word| line.contains(word));
            if left {
                found.push(format!("{name}:{}: {line}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "leftovers:\n{}", found.join("\n"));
}

#[test]
fn tidy_no_words_about_how_or_where_it_was_made() {
    let banned = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/tmp/", "target"),
        concat!("sub", "agent"),
        concat!("cla", "ude"),
        concat!("anthr", "opic"),
        concat!("chat", "gpt"),
    ];
    let mut found = Vec::new();
    for name in tracked() {
        let text = read(&name).to_lowercase();
        for word in banned {
            if text.contains(word) || name.to_lowercase().contains(word) {
                found.push(format!("{name}: {word}"));
            }
        }
    }
    assert!(found.is_empty(), "banned words:\n{}", found.join("\n"));
}

#[test]
fn tidy_files_are_short_enough_to_read() {
    let long: Vec<String> = sources()
        .into_iter()
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    assert!(
        long.is_empty(),
        "over {FILE_LINES_MAX} lines:\n{}",
        long.join("\n")
    );
}

/// Names of the workspace's crates that a manifest's section names.
fn own_dependencies(manifest: &str, section: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim() == section;
        } else if inside && line.starts_with("duraft") {
            let name = line.split(['.', ' ', '=']).next().expect("a first word");
            found.insert(name.to_string());
        }
    }
    found
}

#[test]
fn tidy_crates_depend_as_the_architecture_draws() {
    // What each crate may use: nothing points left or down in the picture.
    let picture: [(&str, &[&str]); 6] = [
        ("duraft-core", &[]),
        ("duraft-disk", &[]),
        ("duraft-storage", &["duraft-core", "duraft-disk"]),
        ("duraft", &["duraft-core", "duraft-disk", "duraft-storage"]),
        (
            "duraft-sim",
            &["duraft", "duraft-core", "duraft-disk", "duraft-storage"],
        ),
        (
            "duraft-cli",
            &[
                "duraft",
                "duraft-core",
                "duraft-disk",
                "duraft-sim",
                "duraft-storage",
            ],
        ),
    ];
    let must: [(&str, &str); 7] = [
        ("duraft-storage", "duraft-core"),
        ("duraft-storage", "duraft-disk"),
        ("duraft", "duraft-core"),
        ("duraft", "duraft-storage"),
        ("duraft-sim", "duraft"),
        ("duraft-sim", "duraft-core"),
        ("duraft-cli", "duraft"),
    ];
    let mut drawn = BTreeMap::new();
    for (name, allowed) in picture {
        let manifest = read(&format!("crates/{name}/Cargo.toml"));
        let uses = own_dependencies(&manifest, "[dependencies]");
        let extra: Vec<&String> = uses
            .iter()
            .filter(|other| !allowed.contains(&other.as_str()))
            .collect();
        assert!(extra.is_empty(), "{name} must not use {extra:?}");
        drawn.insert(name, uses);
    }
    for (name, other) in must {
        assert!(drawn[name].contains(other), "{name} uses {other}");
    }
    let folders: BTreeSet<String> = tracked()
        .iter()
        .filter_map(|name| {
            name.strip_prefix("crates/")?
                .split('/')
                .next()
                .map(String::from)
        })
        .collect();
    let known: BTreeSet<String> = picture.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(folders, known, "the crates are those of the picture");
}

#[test]
fn tidy_the_core_does_no_io() {
    // No standard library, one dependency, no clock, thread, file or hash-map order.
    let lib = read("crates/duraft-core/src/lib.rs");
    assert!(lib.contains("#![no_std]") && lib.contains("#![forbid(unsafe_code)]"));
    let manifest = read("crates/duraft-core/Cargo.toml");
    let dependencies: Vec<&str> = manifest
        .split("[dependencies]")
        .nth(1)
        .expect("a section")
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.trim().is_empty())
        .collect();
    assert_eq!(dependencies, ["bytes.workspace = true"]);
    let core =
        |name: &String| name.starts_with("crates/duraft-core/src/") && !name.contains("test");
    for (name, text) in sources().into_iter().filter(|(name, _)| core(name)) {
        for line in text.lines().map(code_of) {
            for word in [
                "std::fs",
                "std::net",
                "std::thread",
                "std::time",
                "HashMap",
                "HashSet",
            ] {
                assert!(!line.contains(word), "{name}: {line}");
            }
        }
    }
}

/// Is this word used as code, not as part of a longer one?
fn uses_word(code: &str, word: &str) -> bool {
    // What stands in backticks is prose, also in a string that goes over lines.
    let joins = |c: char| c.is_alphanumeric() || c == '_' || c == '`';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(joins) && !after.is_some_and(joins)
    })
}

#[test]
fn tidy_unsafe_stands_in_one_module() {
    let word = concat!("uns", "afe");
    let mut found = BTreeSet::new();
    for (name, text) in sources() {
        if text.lines().any(|line| uses_word(&code_of(line), word)) {
            found.insert(name);
        }
    }
    found.remove("crates/duraft-disk/src/map.rs");
    assert!(
        found.is_empty(),
        "{word} outside the mapping module: {found:?}"
    );
    for name in ["duraft-core", "duraft-storage", "duraft", "duraft-sim"] {
        let lib = read(&format!("crates/{name}/src/lib.rs"));
        assert!(lib.contains("#![forbid(unsafe_code)]"), "{name} forbids it");
    }
}

/// Targets of the links of a Markdown text.
pub(super) fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for part in line.split("](").skip(1) {
            if let Some(target) = part.split([')', ' ']).next() {
                found.push(target.to_string());
            }
        }
    }
    found
}

#[test]
fn tidy_relative_links_of_the_documents_resolve() {
    let mut broken = Vec::new();
    let mut documents = 0;
    for name in tracked().into_iter().filter(|name| name.ends_with(".md")) {
        documents += 1;
        let folder = root().join(&name).parent().expect("a folder").to_path_buf();
        for link in links(&read(&name)) {
            let path = link.split('#').next().expect("a first part");
            let elsewhere = link.contains("://") || link.starts_with("mailto:");
            if !elsewhere && !path.is_empty() && !folder.join(path).exists() {
                broken.push(format!("{name}: {link}"));
            }
        }
    }
    assert!(documents > 0);
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

/// Names of test functions in the sources.
fn tests_in_sources() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, text) in sources() {
        let mut marked = false;
        for line in text.lines().map(str::trim) {
            if line == "#[test]" {
                marked = true;
            } else if marked && line.contains("fn ") {
                let name = line
                    .split("fn ")
                    .nth(1)
                    .and_then(|rest| rest.split('(').next());
                found.extend(name.map(String::from));
                marked = false;
            }
        }
    }
    found
}

/// Names in backticks that look like tests of the integration suite.
fn tests_named_in(text: &str) -> BTreeSet<String> {
    let kinds = [
        "seed_",
        "scenario_",
        "schedule_",
        "crash_",
        "rule_",
        "quorum_",
        "liveness_",
        "damage_",
        "swarm_",
        "golden_",
        "checks_",
        "tidy_",
    ];
    let looks_like = |word: &&str| {
        let plain = word
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let whole = plain && !word.ends_with('_');
        whole && kinds.iter().any(|kind| word.starts_with(kind))
    };
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(looks_like)
        .map(String::from)
        .collect()
}

/// Names in backticks that are long enough to be a sentence: tests of any crate.
fn sentences_named_in(text: &str) -> BTreeSet<String> {
    let is_sentence = |word: &&str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        word.chars().all(plain) && word.matches('_').count() >= 3
    };
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(is_sentence).map(String::from).collect()
}

#[test]
fn tidy_every_test_named_in_the_maps_exists() {
    let exist = tests_in_sources();
    let maps = ["seeds", "rules", "damage", "correctness"];
    for name in maps.map(|page| format!("docs/{page}.md")) {
        for test in sentences_named_in(&read(&name)) {
            assert!(exist.contains(&test), "{name} names {test}");
        }
    }
}

/// The items of one part of a rule's section: what follows its heading up to the next.
fn items_of(section: &str, heading: &str) -> Vec<String> {
    let Some((_, rest)) = section.split_once(heading) else {
        return Vec::new();
    };
    let part = rest.split("**").next().unwrap_or_default();
    let items = part.split("\n- ").skip(1);
    items.map(|item| item.trim().to_string()).collect()
}

#[test]
fn tidy_every_rule_has_tests_and_was_seen_to_fail() {
    let text = read("docs/rules.md");
    let exist = tests_in_sources();
    let sections: Vec<&str> = text.split("\n## ").skip(1).collect();
    assert_eq!(sections.len(), 26, "a section for each rule");
    for (number, section) in (1..).zip(sections) {
        assert!(section.starts_with(&format!("{number}. ")), "{section}");
        let tests = items_of(section, "**Tests:**");
        let seen = items_of(section, "**Seen to fail:**");
        let waits = |items: &[String]| items.iter().any(|item| item.contains("to be filled"));
        assert!(
            !waits(&tests) && !waits(&seen),
            "rule {number} is not filled"
        );
        let words = tests
            .iter()
            .flat_map(|item| item.split('`').skip(1).step_by(2));
        let named = words.filter(|word| exist.contains(*word)).count();
        assert!(named > 0, "rule {number} has no test");
        assert!(!seen.is_empty(), "rule {number} was never seen to fail");
    }
}

#[test]
fn tidy_every_test_named_in_the_documents_exists() {
    let exist = tests_in_sources();
    let mut named = 0;
    for name in tracked().into_iter().filter(|name| name.ends_with(".md")) {
        for test in tests_named_in(&read(&name)) {
            named += 1;
            assert!(
                exist.contains(&test),
                "{name} names {test}, which does not exist"
            );
        }
    }
    assert!(named > 100, "docs/seeds.md names the tests");
}

#[test]
fn tidy_docs_seeds_lists_every_item_and_every_seed_test() {
    let text = read("docs/seeds.md");
    let named = tests_named_in(&text);
    for test in tests_in_sources() {
        let listed = !test.starts_with("seed_") || named.contains(&test);
        assert!(listed, "docs/seeds.md does not list {test}");
    }
    let first = |line: &str| line.split('|').nth(1).map(|cell| cell.trim().to_string());
    let rows: BTreeSet<String> = text.lines().filter_map(first).collect();
    let numbered = |prefix: &str, upto: u32| -> Vec<String> {
        (1..=upto).map(|n| format!("{prefix}{n}")).collect()
    };
    let mut items = Vec::new();
    items.extend(numbered("r", 11));
    items.extend(numbered("n", 7));
    items.extend(numbered("l", 7));
    items.extend(numbered("s", 6));
    items.extend(numbered("m", 10));
    let more = [
        "r3b",
        "l2b",
        "l6b",
        "m1b",
        "m4b",
        "committed_entry_lost",
        "IS-SIM",
    ];
    items.extend(more.map(String::from));
    items.extend(numbered("RM-T", 8));
    items.extend(numbered("RA-T", 12));
    items.extend(numbered("RB-T", 20));
    items.extend(numbered("LR-T", 2));
    items.extend(numbered("RM-A", 15));
    items.extend(numbered("RA-A", 18));
    items.extend(numbered("RB-A", 18));
    items.extend(numbered("LR-A", 15));
    items.extend(numbered("IS-A", 14));
    for item in items {
        assert!(rows.contains(&item), "docs/seeds.md has no row for {item}");
    }
}
