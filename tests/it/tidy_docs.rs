//! House rules of the book: every page is a chapter, every anchor exists, every snippet is compiled.

use super::tidy::{links, read, root, tracked};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// Tracked pages of the book, by name relative to the root, but for its table of contents.
fn pages() -> BTreeSet<String> {
    let is_page = |name: &String| {
        name.starts_with("docs/") && name.ends_with(".md") && name != "docs/SUMMARY.md"
    };
    tracked().into_iter().filter(is_page).collect()
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => plain.push(part),
        }
    }
    plain
}

/// The lines of a Markdown text outside of fenced blocks, and the lines inside with their fence's
/// language.
fn unfenced(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push(line);
        }
    }
    lines
}

/// The anchors of a text's headings, as readers of Markdown make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for line in unfenced(text) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let kept = title.trim().to_lowercase();
        let slug: String = kept
            .chars()
            .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_')
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let times = seen.entry(slug.clone()).or_default();
        anchors.insert(match *times {
            0 => slug,
            n => format!("{slug}-{n}"),
        });
        *times += 1;
    }
    anchors
}

#[test]
fn tidy_anchors_are_made_as_readers_make_them() {
    let text = "# A title, with `code`\n## Why\n```sh\n# no heading\n```\n## Why\n#no heading\n";
    let expected = ["a-title-with-code", "why", "why-1"].map(String::from);
    assert_eq!(anchors(text), BTreeSet::from(expected));
}

#[test]
fn tidy_every_page_is_a_chapter_and_every_chapter_a_page() {
    // A page that the table of contents does not name is read by nobody.
    let mut chapters = BTreeSet::new();
    for link in links(&read("docs/SUMMARY.md")) {
        let page = format!("docs/{link}");
        assert!(chapters.insert(page), "docs/SUMMARY.md names {link} twice");
    }
    let pages = pages();
    let unnamed: Vec<&String> = pages.difference(&chapters).collect();
    assert!(unnamed.is_empty(), "add to docs/SUMMARY.md: {unnamed:?}");
    let missing: Vec<&String> = chapters.difference(&pages).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md names {missing:?}");
}

#[test]
fn tidy_anchors_that_links_name_exist() {
    let mut checked = 0;
    let mut broken = Vec::new();
    for name in tracked().into_iter().filter(|name| name.ends_with(".md")) {
        let text = read(&name);
        for link in links(&text) {
            let Some((path, anchor)) = link.split_once('#') else {
                continue;
            };
            if link.contains("://") {
                continue;
            }
            let folder = root().join(&name).parent().expect("a folder").to_path_buf();
            let target = if path.is_empty() {
                text.clone()
            } else if path.ends_with(".md") {
                std::fs::read_to_string(plain(&folder.join(path))).unwrap_or_default()
            } else {
                continue;
            };
            checked += 1;
            if !anchors(&target).contains(anchor) {
                broken.push(format!("{name}: {link}"));
            }
        }
    }
    assert!(checked > 5, "links with anchors are found");
    assert!(
        broken.is_empty(),
        "anchors without a heading:\n{}",
        broken.join("\n")
    );
}

#[test]
fn tidy_every_rust_snippet_of_the_book_is_compiled() {
    let compiled = read("tests/src/book.rs");
    let mut with_code = 0;
    for name in pages() {
        if read(&name).lines().any(|line| line.starts_with("```rust")) {
            with_code += 1;
            let page = name.strip_prefix("docs/").expect("a page of the book");
            assert!(
                compiled.contains(&format!("\"{page}\"")),
                "tests/src/book.rs does not compile the snippets of {name}"
            );
        }
    }
    assert!(with_code > 5, "the guides have snippets");
}
