//! `duraft accept-loss`.

use crate::common::{flip, image, json_file, program, run, said, scratch, unchanged};
use crate::nodes::{
    CLUSTER, COMMANDS, Lines, begin, bootstrap, expected, lines_of, options, propose, stop, stores,
    text_of,
};
use duraft::{Membership, Node, NodeId};
use std::path::Path;
use std::process::Output;

const DANGER: &str = "--i-accept-that-acknowledged-commands-are-gone";

fn accept(dir: &Path, more: &[&str]) -> Output {
    let mut accept = program();
    accept.args(["accept-loss", "--cluster", CLUSTER, "--node", "1", "--dir"]);
    run(accept.arg(dir.join("1")).args(more))
}

/// A node of its own that has applied all commands, stopped.
fn one_store(dir: &Path) {
    let options = options(dir, 1);
    let membership = Membership::new([NodeId(1)], []).expect("one voter");
    bootstrap(&options, &membership);
    let node = begin(options);
    for i in 0..COMMANDS {
        assert!(propose(&node, i), "command {i}");
    }
    stop(node);
}

/// Flips a bit of this command, wherever node 1's log holds it.
fn damage(dir: &Path, i: u64) {
    flip(&dir.join("1/wal"), text_of(i).as_bytes());
}

#[test]
fn a_single_node_goes_on_without_what_it_has_lost() {
    let dir = scratch();
    one_store(dir.path());
    let lost = COMMANDS / 2 + 3;
    damage(dir.path(), lost);
    let refused = Node::start(options(dir.path(), 1), Box::<Lines>::default());
    let refused = refused.expect_err("a damaged store is not served");
    assert!(refused.to_string().contains("cannot be read"), "{refused}");

    // A report alone changes no byte and says what is lost.
    let before = image(dir.path());
    let scrap = scratch();
    let json = scrap.path().join("report");
    let json_flag = json.display().to_string();
    let dry = accept(dir.path(), &["--json", &json_flag]);
    assert_eq!(dry.status.code(), Some(2), "{}", said(&dry));
    for part in ["NOTHING WAS CHANGED", DANGER, "--first", "intact entries"] {
        assert!(said(&dry).contains(part), "{part}: {}", said(&dry));
    }
    assert!(!said(&dry).contains("HAS PEERS"), "{}", said(&dry));
    unchanged(dir.path(), &before);
    let found = json_file(&json);
    assert_eq!(found["done"], false);
    let index = |name: &str| found["loss"][name].as_u64().expect("an index");
    let (first, last) = (index("first"), index("last"));
    // Entry 1 begins the term; each command was proposed alone.
    assert_eq!(first, lost + 2, "{}", said(&dry));
    assert_eq!(found["after"]["last"]["index"], first - 1);

    // Who names another range has not read what is lost.
    let (first, last, other) = (first.to_string(), last.to_string(), (last + 1).to_string());
    for range in [
        &["--first", &first, "--last", &other, DANGER][..],
        &[DANGER][..],
    ] {
        let wrong = accept(dir.path(), range);
        assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
        unchanged(dir.path(), &before);
    }

    let range = ["--first", &first, "--last", &last];
    let done = accept(
        dir.path(),
        &[&range[..], &[DANGER, "--json", &json_flag]].concat(),
    );
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(said(&done).starts_with("THE LOSS WAS ACCEPTED"));
    let note = format!("loss of indices {first} to {last} accepted");
    assert!(said(&done).contains(&note), "{}", said(&done));
    let after = json_file(&json);
    assert_eq!(after["done"], true);
    assert_eq!(after["loss"], found["loss"], "what was announced");

    let node = begin(options(dir.path(), 1));
    let mut lines = expected(lost);
    assert_eq!(lines_of(&node), lines, "what was before the loss, no more");
    assert!(propose(&node, lost), "it serves");
    lines.push(text_of(lost));
    assert_eq!(lines_of(&node), lines);
    stop(node);

    // The note stays, and asking again changes nothing.
    let again = accept(dir.path(), &[&range[..], &[DANGER]].concat());
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
    assert!(
        said(&again).starts_with("NOTHING IS LOST"),
        "{}",
        said(&again)
    );
    assert!(said(&again).contains(&note), "{}", said(&again));
}

#[test]
fn a_node_with_peers_is_told_to_ask_them() {
    let dir = scratch();
    stores(dir.path(), 3);
    damage(dir.path(), COMMANDS / 2 + 5);
    let before = image(dir.path());
    let dry = accept(dir.path(), &[]);
    assert_eq!(dry.status.code(), Some(2), "{}", said(&dry));
    assert!(said(&dry).contains("THIS NODE HAS PEERS"), "{}", said(&dry));
    unchanged(dir.path(), &before);
}

#[test]
fn a_store_that_has_lost_nothing_or_is_not_there_is_left_alone() {
    let (dir, empty) = (scratch(), scratch());
    one_store(dir.path());
    let before = image(dir.path());
    let fine = accept(dir.path(), &["--first", "3", "--last", "9", DANGER]);
    assert_eq!(fine.status.code(), Some(0), "{}", said(&fine));
    assert!(
        said(&fine).starts_with("NOTHING IS LOST"),
        "{}",
        said(&fine)
    );
    unchanged(dir.path(), &before);
    let nowhere = accept(empty.path(), &[]);
    assert_eq!(nowhere.status.code(), Some(2), "{}", said(&nowhere));
    assert!(image(empty.path()).is_empty(), "no store was begun");
}

#[test]
fn the_help_is_loud() {
    let output = run(program().args(["accept-loss", "--help"]));
    let help = said(&output);
    for part in ["DANGEROUS", "ARE GONE FOR ALL", DANGER] {
        assert!(help.contains(part), "{part} is missing in:\n{help}");
    }
}
