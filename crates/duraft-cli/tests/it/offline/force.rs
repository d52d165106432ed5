//! `duraft force-new-configuration`.

use crate::common::{flip, image, json_file, program, run, said, scratch, unchanged};
use crate::nodes::{
    CLUSTER, COMMANDS, begin, bootstrap_joining, expected, lines_of, options, propose,
    propose_to_any, start_all, stop, stores, text_of,
};
use duraft::{Node, NodeId};
use std::path::Path;
use std::process::Output;

const DANGER: &str = "--i-accept-that-acknowledged-commands-may-be-lost";

fn force(dir: &Path, node: u64, voters: &str, more: &[&str]) -> Output {
    force_in(&dir.join("1"), CLUSTER, node, voters, more)
}

fn force_in(store: &Path, cluster: &str, node: u64, voters: &str, more: &[&str]) -> Output {
    let mut force = program();
    force.args(["force-new-configuration", "--cluster", cluster]);
    force.args(["--node", &node.to_string(), "--voters", voters]);
    run(force.arg("--dir").arg(store).args(more))
}

#[test]
fn one_survivor_of_three_serves_again_and_holds_what_it_held() {
    let dir = scratch();
    stores(dir.path(), 3);
    for lost in ["2", "3"] {
        std::fs::remove_dir_all(dir.path().join(lost)).expect("lost for good");
    }

    // A report alone changes no byte and says what would happen.
    let before = image(dir.path());
    let json = dir.path().with_extension("json").display().to_string();
    let dry = force(dir.path(), 1, "1", &["--json", &json]);
    assert_eq!(dry.status.code(), Some(2), "{}", said(&dry));
    for part in [
        "NOTHING WAS CHANGED",
        "voters 1, 2, 3, learners none",
        "must never come back nodes 2, 3",
        DANGER,
    ] {
        assert!(
            said(&dry).contains(part),
            "{part} is missing in:\n{}",
            said(&dry)
        );
    }
    unchanged(dir.path(), &before);
    let report = json_file(&json);
    assert_eq!(report["done"], false);
    assert_eq!(report["must_never_come_back"], serde_json::json!([2, 3]));
    assert_eq!(report["snapshot"], report["snapshot_readable"]);
    assert!(report["snapshot"]["index"].as_u64().expect("a snapshot") > 0);
    let last = report["last"]["index"].as_u64().expect("a last entry");
    assert!(last >= COMMANDS);
    assert_eq!(report["forced"]["index"], last + 1);

    let done = force(dir.path(), 1, "1", &[DANGER, "--json", &json]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(said(&done).starts_with("A NEW CONFIGURATION WAS FORCED"));
    let after = json_file(&json);
    assert_eq!(after["done"], true);
    assert_eq!(after["forced"], report["forced"], "what was announced");

    let node = begin(options(dir.path(), 1));
    let voters: Vec<NodeId> = node.status().membership.voters().collect();
    assert_eq!(voters, [NodeId(1)]);
    assert_eq!(
        lines_of(&node),
        expected(COMMANDS),
        "nothing it held is gone"
    );
    assert!(propose(&node, COMMANDS), "it serves");
    assert_eq!(lines_of(&node), expected(COMMANDS + 1));
    let busy = force(dir.path(), 1, "1", &[DANGER]);
    assert_eq!(
        busy.status.code(),
        Some(1),
        "the store is in use: {}",
        said(&busy)
    );
    stop(node);
    std::fs::remove_file(json).expect("removed");
}

/// The nodes of a forced cluster: node 1 with the log it has, the others with empty stores.
fn forced_cluster(dir: &Path, ids: &[u64]) -> Vec<Node> {
    for id in &ids[1..] {
        bootstrap_joining(&options(dir, *id));
    }
    start_all(dir, ids)
}

#[test]
fn two_survivors_of_five_and_a_new_node_are_a_cluster_again() {
    // Both survivors tell what they hold; one of them is chosen, the other begins anew.
    let dir = scratch();
    stores(dir.path(), 5);
    for lost in ["3", "4", "5"] {
        std::fs::remove_dir_all(dir.path().join(lost)).expect("lost for good");
    }
    let json = scratch();
    let last_of = |node: u64| {
        let file = json.path().join(node.to_string()).display().to_string();
        let store = dir.path().join(node.to_string());
        let voters = format!("{node},6");
        let dry = force_in(&store, CLUSTER, node, &voters, &["--json", &file]);
        assert_eq!(dry.status.code(), Some(2), "{}", said(&dry));
        let report = json_file(&file);
        let field = |name: &str| report["last"][name].as_u64().expect("an entry");
        (field("term"), field("index"))
    };
    assert!(last_of(1) >= last_of(2), "both have applied everything");
    let done = force(dir.path(), 1, "1,2,6", &[DANGER]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    for part in [
        "voters 1, 2, 6",
        "never come back nodes 3, 4, 5",
        "2, 6 begin with empty",
    ] {
        assert!(said(&done).contains(part), "{part}: {}", said(&done));
    }
    std::fs::remove_dir_all(dir.path().join("2")).expect("emptied");
    let mut nodes = forced_cluster(dir.path(), &[1, 2, 6]);
    propose_to_any(&nodes, COMMANDS);
    for node in &nodes {
        assert_eq!(
            lines_of(node),
            expected(COMMANDS + 1),
            "all hold everything"
        );
    }
    // The survivor has served: the two others go on without it.
    stop(nodes.remove(0));
    propose_to_any(&nodes, COMMANDS + 1);
    for node in &nodes {
        assert_eq!(lines_of(node), expected(COMMANDS + 2));
    }
}

#[test]
fn a_survivor_and_one_new_node_need_each_other() {
    let dir = scratch();
    stores(dir.path(), 3);
    for lost in ["2", "3"] {
        std::fs::remove_dir_all(dir.path().join(lost)).expect("lost for good");
    }
    let done = force(dir.path(), 1, "1,4", &[DANGER]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    let nodes = forced_cluster(dir.path(), &[1, 4]);
    propose_to_any(&nodes, COMMANDS);
    for node in &nodes {
        assert_eq!(lines_of(node), expected(COMMANDS + 1));
        let voters: Vec<NodeId> = node.status().membership.voters().collect();
        assert_eq!(voters, [NodeId(1), NodeId(4)]);
    }
}

#[test]
fn a_damaged_survivor_is_refused_and_left_as_it_is() {
    let dir = scratch();
    stores(dir.path(), 3);
    flip(
        &dir.path().join("1/wal"),
        text_of(COMMANDS / 2 + 5).as_bytes(),
    );
    let before = image(dir.path());
    for more in [&[][..], &[DANGER]] {
        let refused = force(dir.path(), 1, "1", more);
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        let text = said(&refused);
        assert!(text.contains("durable records cannot be read"), "{text}");
        unchanged(dir.path(), &before);
    }
}

/// Store, cluster, node, voters, more flags, and what the refusal says.
type Case<'a> = (&'a Path, &'a str, u64, &'a str, &'a [&'a str], &'a str);

#[test]
fn a_wrong_wish_is_a_usage_error_and_changes_nothing() {
    let dir = scratch();
    stores(dir.path(), 3);
    let before = image(dir.path());
    let (own, empty) = (dir.path().join("1"), scratch());
    let nowhere = dir.path().join("nowhere");
    let cases: &[Case<'_>] = &[
        (&own, CLUSTER, 1, "2,3", &[], "must be one of the voters"),
        (&own, CLUSTER, 2, "2", &[], "node 1"),
        (&own, CLUSTER, 1, "1", &["--group", "7"], "no group 7"),
        (
            &own,
            CLUSTER,
            1,
            "1",
            &["--max-batch-bytes", "4096"],
            "4096",
        ),
        (&own, CLUSTER, 1, "one", &[], "--voters"),
        (&own, "another cluster.", 1, "1", &[], "cluster"),
        (
            &own,
            "a name that is too long",
            1,
            "1",
            &[],
            "1 to 16 bytes",
        ),
        (&nowhere, CLUSTER, 1, "1", &[], "nowhere"),
        (empty.path(), CLUSTER, 1, "1", &[], "no store"),
    ];
    for (store, cluster, node, voters, more, part) in cases {
        let more = [more, &[DANGER][..]].concat();
        let refused = force_in(store, cluster, *node, voters, &more);
        let said = said(&refused);
        assert_eq!(refused.status.code(), Some(2), "{part}: {said}");
        assert!(said.contains(part), "{part} is missing in: {said}");
        unchanged(dir.path(), &before);
    }
    assert!(image(empty.path()).is_empty(), "no store was begun");
}

#[test]
fn the_help_is_loud() {
    let output = run(program().args(["force-new-configuration", "--help"]));
    let help = said(&output);
    for part in ["DANGEROUS", "MAY BE LOST", "THERE ARE TWO CLUSTERS", DANGER] {
        assert!(help.contains(part), "{part} is missing in:\n{help}");
    }
}
