//! Configuration, help and errors of the command line.

use super::common::Cluster;
use crate::common::{duraft, scratch, text};
use std::path::Path;

#[test]
fn the_reference_page_is_what_the_program_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md");
    let said = text(&duraft(&["serve", "--print-reference"]).stdout);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&page, &said).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&page).expect("docs/config.md");
    assert_eq!(written, said, "run this test with UPDATE=1");
}

#[test]
fn every_problem_of_a_configuration_is_told_and_nothing_starts() {
    let folder = scratch();
    let file = folder.path().join("bad.toml");
    std::fs::write(
        &file,
        "id = 0\nclutser = \"x\"\n[limits]\nvalue_bytes_max = \"1 MB\"\n",
    )
    .expect("a file");
    let file = file.display().to_string();
    let output = duraft(&["serve", "--config", &file, "--set", "raft.tick=9"]);
    assert_eq!(output.status.code(), Some(2));
    let err = text(&output.stderr);
    for told in [
        "id: must be",
        "clutser: ",
        "limits.value_bytes_max: ",
        "raft.tick: ",
    ] {
        assert!(err.contains(told), "{told}: {err}");
    }
    let output = duraft(&["serve", "--config", "/nowhere/duraft.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/nowhere/duraft.toml cannot be read"));
}

#[test]
fn what_is_printed_is_a_file_that_serves() {
    let cluster = Cluster::start(1, &["limits.connections_max=77"]);
    let file = cluster.file(1).display().to_string();
    let set = "limits.connections_max=77";
    let printed = duraft(&["serve", "--config", &file, "--set", set, "--print-config"]);
    let printed = text(&printed.stdout);
    assert!(printed.contains("connections_max = 77\n"), "{printed}");
    let again = cluster.dir.path().join("again.toml");
    std::fs::write(&again, &printed).expect("a file");
    let again = again.display().to_string();
    let reprinted = duraft(&["serve", "--config", &again, "--print-config"]);
    assert_eq!(text(&reprinted.stdout), printed);
}

#[test]
fn a_store_is_made_on_purpose_and_once() {
    // A folder that was wiped by accident must not become a new node by itself.
    let cluster = Cluster::start(1, &[]);
    let file = cluster.file(1).display().to_string();
    let empty = cluster.dir.path().join("empty").display().to_string();
    let elsewhere = [
        "--set",
        &format!("dir={empty}"),
        "--set",
        "listen.peer=127.0.0.1:0",
        "--set",
        "listen.client=127.0.0.1:0",
        "--set",
        "listen.http=127.0.0.1:0",
        "--set",
        "listen.admin=127.0.0.1:0",
    ]
    .map(String::from);
    let mut serve = vec!["serve", "--config", &file];
    serve.extend(elsewhere.iter().map(String::as_str));
    let output = duraft(&serve);
    assert_eq!(output.status.code(), Some(2));
    let err = text(&output.stderr);
    assert!(
        err.contains("there is no store in") && err.contains("cluster init"),
        "{err}"
    );
    let output = duraft(&["cluster", "init", "--config", &file]);
    assert_eq!(output.status.code(), Some(2), "there is one already");
    let output = duraft(&["serve", "--config", &file]);
    assert_eq!(output.status.code(), Some(2), "a second process");
    let err = text(&output.stderr);
    assert!(err.contains("cannot listen on"), "{err}");
}

#[test]
fn help_says_what_the_commands_are_for() {
    let help = text(&duraft(&["serve", "--help"]).stdout);
    for named in [
        "--config",
        "--set",
        "--print-config",
        "READONLY",
        "Exit codes",
    ] {
        assert!(help.contains(named), "{named}: {help}");
    }
    let help = text(&duraft(&["cluster", "--help"]).stdout);
    for named in [
        "init", "status", "add", "promote", "remove", "replace", "transfer", "snapshot",
    ] {
        assert!(help.contains(named), "{named}: {help}");
    }
    for (args, named) in [
        (&["cluster", "init"][..], "--config"),
        (&["cluster", "status"][..], "--admin"),
        (
            &["cluster", "promote", "--admin", "127.0.0.1:1"][..],
            "<ID>",
        ),
        (&["cluster", "init", "--local", "0"][..], "--local"),
    ] {
        let output = duraft(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            text(&output.stderr).contains(named),
            "{}",
            text(&output.stderr)
        );
    }
}
