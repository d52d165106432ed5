//! `duraft doctor`, `duraft completions` and `duraft man` as a user runs them.

use crate::common::{duraft, json, memory, run, said, scratch, shown};
use std::path::Path;
use std::process::Command;

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a folder");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

#[test]
fn a_folder_on_a_disk_is_examined_and_left_as_it_was() {
    let dir = scratch();
    std::fs::write(dir.path().join("precious"), b"keep me").expect("written");
    let output = duraft(&["doctor", &shown(dir.path()), "--seconds", "1", "--json"]);
    let report = json(&output);
    // What this machine's disk is like is not for a test to say; that the answer hangs together is.
    assert_eq!(report["exit"], output.status.code().expect("an exit code"));
    assert_eq!(report["schema"], 1);
    assert!(
        report["measured"]["syncs"]
            .as_u64()
            .is_some_and(|syncs| syncs > 0)
    );
    let timeout = report["election_timeout_ms"]
        .as_u64()
        .expect("a suggestion");
    assert!(timeout >= 150 && timeout.is_multiple_of(50), "{timeout}");
    let sync = &report["measured"]["write_and_sync"];
    let us = |name: &str| sync[name].as_f64().expect("a latency");
    assert!(us("p50_us") <= us("p99_us") && us("p99_us") <= us("max_us"));
    assert!(timeout as f64 * 1e3 >= (10.0 * us("p99_us")).max(3.0 * us("max_us")));
    assert_eq!(names(dir.path()), ["precious"], "the probe is gone");

    let output = duraft(&["doctor", &shown(dir.path()), "--no-write"]);
    assert!(said(&output).contains("mount"), "{}", said(&output));
    assert!(
        !said(&output).contains("election timeout"),
        "nothing was measured"
    );
}

#[test]
fn a_folder_in_memory_is_not_fit_for_a_log() {
    let Some(dir) = memory() else {
        return;
    };
    let output = duraft(&["doctor", &shown(dir.path()), "--seconds", "1"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("in memory"), "{}", said(&output));
    assert!(
        said(&output).ends_with("NOT FIT FOR A LOG\n"),
        "{}",
        said(&output)
    );
}

#[test]
fn what_cannot_be_examined_is_exit_code_2_with_a_reason() {
    for dir in ["/no/such/folder", "/proc/self/cmdline"] {
        let output = duraft(&["doctor", dir]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(dir), "{}", said(&output));
    }
    let output = duraft(&["doctor", "/proc", "--seconds", "1"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("--no-write"), "{}", said(&output));
    let help = said(&duraft(&["doctor", "--help"]));
    assert!(
        help.contains("Examples:\n") && help.contains("Exit codes"),
        "{help}"
    );
}

#[test]
fn completions_and_manual_pages_know_every_command_and_no_hidden_one() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = duraft(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let script = said(&output);
        for word in ["doctor", "accept-loss", "verify", "--decoder"] {
            let bare = word.trim_start_matches('-');
            assert!(script.contains(bare), "{word} in {shell}");
        }
    }
    assert_eq!(duraft(&["completions", "tcsh"]).status.code(), Some(2));
    let bash = said(&duraft(&["completions", "bash"]));
    let check = run(Command::new("bash").args(["-nc", &bash]));
    assert!(check.status.success(), "{}", said(&check));

    let page = said(&duraft(&["man"]));
    assert!(page.contains(".TH duraft 1"), "{page}");
    let dir = scratch();
    let output = duraft(&["man", "--dir", &shown(dir.path())]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let pages = names(dir.path());
    for page in [
        "duraft.1",
        "duraft-wal.1",
        "duraft-wal-verify.1",
        "duraft-doctor.1",
    ] {
        assert!(pages.iter().any(|name| name == page), "{page} in {pages:?}");
    }
    assert!(!pages.iter().any(|name| name.contains("node")), "{pages:?}");
    let wrong = duraft(&["man", "--dir", "/proc/nowhere"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
}

#[test]
fn the_reference_of_the_command_line_is_current() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference-cli.md");
    let output = duraft(&["reference"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let now = said(&output);
    for command in [
        "duraft wal verify",
        "duraft snapshot import",
        "duraft bench compare",
        "duraft serve",
    ] {
        assert!(now.contains(&format!("\n## {command}\n")), "{command}");
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&page, &now).expect("written");
    }
    let written = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        written == now,
        "docs/reference-cli.md is behind the program: UPDATE=1 cargo test -p duraft-cli reference"
    );
}
