//! `duraft cluster`: what operators do.

use super::common::{Cluster, PATIENCE, bulk, http, int, ok};
use crate::common::{duraft, text};
use std::time::Instant;

fn cluster_of(cluster: &Cluster, id: usize, args: &[&str]) -> (Option<i32>, String, String) {
    let admin = cluster.admin(id);
    let mut all = vec!["cluster"];
    all.extend(args);
    all.extend(["--admin", &admin]);
    let output = duraft(&all);
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn voters(cluster: &Cluster, id: usize) -> Vec<u64> {
    let status: serde_json::Value =
        serde_json::from_str(&cluster.get(id, "/v1/status").1).expect("JSON");
    let voters = status["voters"].as_array().expect("a list");
    voters
        .iter()
        .filter_map(serde_json::Value::as_u64)
        .collect()
}

/// Asks again and again, each time over a new connection, until it is so.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}: not in time");
    }
}

/// Makes the store and the configuration of a node that the first three do not know.
fn join(cluster: &Cluster, id: usize) -> Vec<String> {
    let folder = cluster.dir.path().join(format!("node-{id}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    let template = std::fs::read_to_string(cluster.file(1)).expect("a file");
    let data = |id: usize| {
        cluster
            .dir
            .path()
            .join(format!("node-{id}/data"))
            .display()
            .to_string()
    };
    let config = template
        .replacen("id = 1\n", &format!("id = {id}\n"), 1)
        .replace(&data(1), &data(id));
    let addresses = [
        cluster.peer(id),
        cluster.client(id),
        cluster.http(id),
        cluster.admin(id),
    ];
    let [peer, client, http, admin] = &addresses;
    let node = format!(
        "\n[[node]]\nid = {id}\npeer = \"{peer}\"\nclient = \"{client}\"\nhttp = \"{http}\"\n\
         admin = \"{admin}\"\n"
    );
    std::fs::write(cluster.file(id), config + &node).expect("a file");
    let file = cluster.file(id).display().to_string();
    let made = duraft(&["cluster", "init", "--config", &file, "--join"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let flags = [
        "--peer",
        peer,
        "--client",
        client,
        "--http",
        http,
        "--new-admin",
        admin,
    ];
    flags.map(String::from).to_vec()
}

#[test]
fn nodes_are_added_promoted_replaced_and_removed_while_clients_write() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let follower = leader % 3 + 1;
    let mut redis = cluster.connect(follower);
    assert_eq!(redis.ask(&["SET", "k", "v"]), ok());

    let flags = join(&cluster, 4);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut add = vec!["add", "4"];
    add.extend(&flags);
    // Asked of a follower, it goes to the leader by itself.
    let (code, out, err) = cluster_of(&cluster, follower, &add);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("node 4 is a learner"), "{out}");
    cluster.restart(4);
    wait_for("the learner has the state", || {
        cluster.get(4, "/v1/kv/k?consistency=stale") == (200, "v".into())
    });
    let (code, _, err) = cluster_of(&cluster, follower, &add);
    assert_eq!(code, Some(1), "twice");
    assert!(err.contains("node 4 is a member already"), "{err}");
    let (code, _, err) = cluster_of(&cluster, leader, &["promote", "4"]);
    assert_eq!(code, Some(0), "{err}");
    wait_for("node 4 votes", || voters(&cluster, leader) == [1, 2, 3, 4]);
    assert_eq!(redis.ask(&["INCR", "n"]), int(1));

    // A new node in the place of a voter that is gone for good.
    let gone = (1..=3)
        .find(|id| *id != leader && *id != follower)
        .expect("a third");
    cluster.kill(gone);
    let flags = join(&cluster, 5);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let old = gone.to_string();
    let mut replace = vec!["replace", &old, "5"];
    replace.extend(&flags);
    let (code, _, err) = cluster_of(&cluster, leader, &replace);
    assert_eq!(code, Some(0), "{err}");
    cluster.restart(5);
    wait_for("node 5 votes in its place", || {
        let voters = voters(&cluster, leader);
        voters.contains(&5) && !voters.contains(&(gone as u64))
    });
    assert_eq!(redis.ask(&["INCR", "n"]), int(2));

    // A node that restarts knows the others from the log, not from its file.
    cluster.kill(follower);
    cluster.restart(follower);
    let mut redis = cluster.connect(follower);
    assert_eq!(redis.ask(&["INCR", "n"]), int(3));
    let (code, _, err) = cluster_of(&cluster, leader, &["remove", "4"]);
    assert_eq!(code, Some(0), "{err}");
    wait_for("node 4 is gone", || !voters(&cluster, leader).contains(&4));
    assert_eq!(cluster.connect(5).ask(&["GET", "n"]), bulk("3"));
}

#[test]
fn leadership_moves_where_it_is_sent_and_snapshots_are_taken() {
    let cluster = Cluster::start(3, &[]);
    let to = cluster.leader() % 3 + 1;
    wait_for("it leads", || {
        let leader = cluster.leader();
        if leader == to {
            return true;
        }
        let (code, out, err) = cluster_of(&cluster, leader, &["transfer", &to.to_string()]);
        match code {
            Some(0) => assert!(out.contains(&format!("to node {to}")), "{out}"),
            // On a loaded machine the others may elect somebody at any time.
            _ => assert!(
                err.contains("look who leads now") || err.contains("does not lead"),
                "{err}"
            ),
        }
        false
    });
    let (code, _, err) = cluster_of(&cluster, to, &["transfer", "9"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("not another voter"), "{err}");
    let (code, out, err) = cluster_of(&cluster, to, &["snapshot"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("has a snapshot up to"), "{out}");
}

#[test]
fn status_is_a_table_or_json_and_its_code_says_whether_all_is_well() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    wait_for("all answer", || {
        cluster_of(&cluster, leader, &["status"]).0 == Some(0)
    });
    let (_, table, _) = cluster_of(&cluster, leader, &["status"]);
    assert!(
        table.starts_with(&format!("node {leader} leads in term ")),
        "{table}"
    );
    assert_eq!(table.lines().count(), 5, "{table}");
    let (_, json, _) = cluster_of(&cluster, leader, &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["leader"].as_u64(), Some(leader as u64));
    let dead = leader % 3 + 1;
    cluster.kill(dead);
    let (code, table, _) = cluster_of(&cluster, leader, &["status"]);
    assert_eq!(code, Some(1), "{table}");
    assert!(table.contains("no answer"), "{table}");
    let (code, _, err) = cluster_of(&cluster, dead, &["status"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("Is `duraft serve` running"), "{err}");
}

#[test]
fn the_admin_address_takes_no_requests_that_a_browser_sends_by_itself() {
    let cluster = Cluster::start(1, &[]);
    cluster.leader();
    let ask = |headers: &str, body: &str| {
        http(
            &cluster.admin(1),
            "POST",
            "/v1/cluster/snapshot",
            headers,
            body,
        )
    };
    assert_eq!(ask("", "{}").0, 415);
    assert_eq!(ask("content-type: text/plain\r\n", "{}").0, 415);
    let json = "content-type: application/json\r\n";
    assert_eq!(ask(json, "{\"ids\": 1}").0, 400);
    let foreign = format!("{json}origin: http://elsewhere.example\r\n");
    assert_eq!(ask(&foreign, "{}").0, 403);
    assert_eq!(ask(json, "{}").0, 200);
}
