//! What clients are answered.

use super::common::{Cluster, bulk, http, int, is_error, ok};
use redis_protocol::resp3::types::OwnedFrame;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

#[test]
fn every_node_serves_reads_and_writes_and_tells_the_same() {
    // A follower must pass writes on and answer reads with everything that was acknowledged.
    let cluster = Cluster::start(3, &[]);
    let mut last = 0;
    for round in 0..4 {
        for id in 1..=3 {
            let mut redis = cluster.connect(id);
            last += 1;
            assert_eq!(
                redis.ask(&["INCR", "n"]),
                int(last),
                "round {round}, node {id}"
            );
            for other in 1..=3 {
                let seen = cluster.connect(other).ask(&["GET", "n"]);
                assert_eq!(
                    seen,
                    bulk(&last.to_string()),
                    "node {other} after node {id}"
                );
            }
        }
    }
    let mut redis = cluster.connect(1);
    assert_eq!(redis.ask(&["CAS", "n", "0", "1"]), int(0));
    assert_eq!(redis.ask(&["CAS", "n", "12", "13"]), int(1));
    assert_eq!(
        redis.ask(&["SET", "n", "14", "IFEQ", "12"]),
        OwnedFrame::Null
    );
    assert_eq!(redis.ask(&["MSET", "a", "1", "b", "2"]), ok());
    let values = OwnedFrame::Array {
        data: vec![bulk("1"), bulk("2"), OwnedFrame::Null],
        attributes: None,
    };
    assert_eq!(redis.ask(&["MGET", "a", "b", "c"]), values);
    assert_eq!(redis.ask(&["DBSIZE"]), int(3));
    assert!(is_error(
        &redis.ask(&["SET", "a", "1", "EX", "9"]),
        "do not expire"
    ));
}

#[test]
fn a_long_pipeline_is_answered_in_order_as_a_single_machine_would() {
    // Batching must not show: each command sees exactly those before it.
    let cluster = Cluster::start(1, &["limits.pipeline_max=100"]);
    let mut redis = cluster.connect(1);
    let mut model: BTreeMap<String, i64> = BTreeMap::new();
    let mut state = 5_u64;
    let mut expected = Vec::new();
    let mut lines = Vec::new();
    for _ in 0..3000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let key = format!("k{}", (state >> 40) % 5);
        let held = model.get(&key).copied();
        let (words, reply) = match (state >> 33) % 6 {
            0 | 1 => {
                let next = held.unwrap_or(0) + 1;
                model.insert(key.clone(), next);
                (vec!["INCR".to_string(), key], int(next))
            }
            2 => {
                let there = i64::from(model.remove(&key).is_some());
                (vec!["DEL".to_string(), key], int(there))
            }
            3 => (
                vec!["DBSIZE".to_string()],
                int(i64::try_from(model.len()).expect("small")),
            ),
            4 => (vec!["ECHO".to_string(), key.clone()], bulk(&key)),
            _ => {
                let reply = held.map_or(OwnedFrame::Null, |n| bulk(&n.to_string()));
                (vec!["GET".to_string(), key], reply)
            }
        };
        lines.push(words);
        expected.push(reply);
    }
    for words in &lines {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        redis.send(&words);
    }
    for (place, (reply, words)) in expected.into_iter().zip(lines).enumerate() {
        assert_eq!(redis.receive(), Some(reply), "command {place}: {words:?}");
    }
}

#[test]
fn what_was_acknowledged_survives_sigkill_of_the_leader_and_of_all() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let mut redis = cluster.connect(leader);
    for n in 0..50 {
        assert_eq!(redis.ask(&["SET", &format!("k{n}"), &n.to_string()]), ok());
    }
    cluster.kill(leader);
    let other = leader % 3 + 1;
    let mut redis = cluster.connect(other);
    assert_eq!(
        redis.ask(&["SET", "after", "1"]),
        ok(),
        "the others elect a leader"
    );
    (1..=3)
        .filter(|id| *id != leader)
        .for_each(|id| cluster.kill(id));
    (1..=3).for_each(|id| cluster.restart(id));
    for id in 1..=3 {
        let mut redis = cluster.connect(id);
        assert_eq!(redis.ask(&["GET", "after"]), bulk("1"), "node {id}");
        for n in 0..50 {
            let seen = redis.ask(&["GET", &format!("k{n}")]);
            assert_eq!(seen, bulk(&n.to_string()), "node {id}");
        }
    }
    assert_eq!(cluster.end(other), Some(0), "asked to end, it ends well");
}

#[test]
fn an_unknown_outcome_closes_the_connection_without_a_word() {
    // The leader has the command in its log and nobody confirms it: neither OK nor an error is true.
    let mut cluster = Cluster::start(3, &["clients.request_timeout=2s"]);
    let leader = cluster.leader();
    let mut redis = cluster.connect(leader);
    let others: Vec<usize> = (1..=3).filter(|id| *id != leader).collect();
    others.iter().for_each(|id| cluster.stop(*id));
    redis.send(&["PING"]);
    redis.send(&["SET", "k", "v"]);
    assert_eq!(redis.receive(), Some(super::common::word("PONG")));
    assert_eq!(redis.receive(), None);
    cluster.wait_for_log(leader, "the outcome of a command is unknown");
    others.iter().for_each(|id| cluster.go_on(*id));
    cluster.kill(leader);
    let seen = cluster.connect(others[0]).ask(&["SET", "later", "1"]);
    assert_eq!(seen, ok(), "the others go on");
}

#[test]
fn a_write_passed_on_to_a_leader_that_falls_silent_is_not_tried_again() {
    // The silent leader may carry it out when it wakes; a second attempt elsewhere would make it two.
    let cluster = Cluster::start(3, &["clients.request_timeout=3s"]);
    let leader = cluster.leader();
    let follower = leader % 3 + 1;
    let mut redis = cluster.connect(follower);
    assert_eq!(
        redis.ask(&["INCR", "n"]),
        int(1),
        "the way to the leader is open"
    );
    cluster.stop(leader);
    redis.send(&["INCR", "n"]);
    assert_eq!(redis.receive(), None);
    let line = cluster.wait_for_log(follower, "the outcome of a command is unknown");
    assert!(line.contains("no answer in time"), "{line}");
    let mut redis = cluster.connect(follower);
    assert_eq!(
        redis.ask(&["SET", "other", "1"]),
        ok(),
        "another leads by now"
    );
    cluster.go_on(leader);
    assert_eq!(
        redis.ask(&["GET", "n"]),
        bulk("1"),
        "the old leader's copy has no effect"
    );
}

#[test]
fn without_a_majority_only_stale_reads_are_answered() {
    let cluster = Cluster::start(3, &["clients.request_timeout=2s"]);
    let leader = cluster.leader();
    let mut redis = cluster.connect(leader);
    assert_eq!(redis.ask(&["SET", "k", "v"]), ok());
    let alone = leader % 3 + 1;
    assert_eq!(cluster.connect(alone).ask(&["GET", "k"]), bulk("v"));
    for id in (1..=3).filter(|id| *id != alone) {
        cluster.stop(id);
    }
    let mut redis = cluster.connect(alone);
    let refused = redis.ask(&["GET", "k"]);
    assert!(is_error(&refused, "CLUSTERDOWN"), "{refused:?}");
    assert_eq!(redis.ask(&["READONLY"]), ok());
    assert_eq!(redis.ask(&["GET", "k"]), bulk("v"));
    assert_eq!(
        cluster.get(alone, "/healthz").0,
        200,
        "a restart would help nobody"
    );
    assert_eq!(cluster.get(alone, "/readyz").0, 503);
    let stale = "/v1/kv/k?consistency=stale";
    assert_eq!(cluster.get(alone, stale), (200, "v".into()));
    assert_eq!(redis.ask(&["READWRITE"]), ok());
    assert!(is_error(&redis.ask(&["GET", "k"]), "CLUSTERDOWN"));
    for id in (1..=3).filter(|id| *id != alone) {
        cluster.go_on(id);
    }
    assert_eq!(
        redis.ask(&["SET", "k", "w"]),
        ok(),
        "it goes on when they do"
    );
}

#[test]
fn who_asks_for_the_cluster_is_told_where_to_go() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let follower = leader % 3 + 1;
    let mut redis = cluster.connect(follower);
    assert_eq!(redis.ask(&["SET", "foo", "1"]), ok(), "passed on");
    let slots = redis.ask(&["CLUSTER", "SLOTS"]);
    assert!(matches!(slots, OwnedFrame::Array { .. }), "{slots:?}");
    let moved = redis.ask(&["SET", "foo", "2"]);
    let wanted = format!("MOVED 12182 {}", cluster.client(leader));
    assert!(is_error(&moved, &wanted), "{moved:?}, not {wanted}");
    assert_eq!(cluster.connect(leader).ask(&["SET", "foo", "2"]), ok());
    assert_eq!(redis.ask(&["GET", "foo"]), bulk("2"), "reads stay");
}

#[test]
fn redis_2_clients_and_people_are_answered_in_their_own_way() {
    let cluster = Cluster::start(1, &[]);
    let mut stream = TcpStream::connect(cluster.client(1)).expect("a server");
    let typed = b"set greeting \"hello world\"\r\nget greeting\r\nget none\r\nquit\r\n";
    stream.write_all(typed).expect("it takes it");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    assert_eq!(answer, "+OK\r\n$11\r\nhello world\r\n$-1\r\n+OK\r\n");
}

#[test]
fn http_serves_keys_status_and_metrics() {
    let cluster = Cluster::start(3, &["limits.value_bytes_max=64 KiB"]);
    let leader = cluster.leader();
    let follower = cluster.http(leader % 3 + 1);
    let ask = |method: &str, path: &str, body: &str| http(&follower, method, path, "", body);
    assert_eq!(ask("PUT", "/v1/kv/a%2Fb", "1").0, 204);
    assert_eq!(ask("GET", "/v1/kv/a%2Fb", ""), (200, "1".into()));
    assert_eq!(ask("PUT", "/v1/kv/a%2Fb?if=absent", "2").0, 412);
    assert_eq!(ask("PUT", "/v1/kv/a%2Fb?expected=1", "3").0, 204);
    assert_eq!(ask("PUT", "/v1/kv/x?if=present", "3").0, 412);
    assert_eq!(ask("GET", "/v1/kv/x", "").0, 404);
    assert_eq!(ask("DELETE", "/v1/kv/a%2Fb", "").0, 204);
    assert_eq!(ask("DELETE", "/v1/kv/a%2Fb", "").0, 404);
    assert_eq!(ask("POST", "/v1/kv/a", "").0, 405);
    assert_eq!(ask("GET", "/v1/kv/%zz", "").0, 400);
    assert_eq!(ask("GET", "/nothing", "").0, 404);
    let long = "x".repeat((64 << 10) + 1);
    assert_eq!(ask("PUT", "/v1/kv/a", &long).0, 413);
    assert_eq!(
        ask("POST", "/v1/cluster/remove", "{}").0,
        403,
        "not at this address"
    );
    assert_eq!(ask("GET", "/readyz", "").0, 200);
    let all: serde_json::Value =
        serde_json::from_str(&ask("GET", "/v1/cluster/status", "").1).expect("JSON");
    let members = all["members"].as_array().expect("a list");
    assert_eq!(members.len(), 3);
    assert!(
        members.iter().all(|m| m["status"]["term"] == all["term"]),
        "{all:#}"
    );
    let metrics = ask("GET", "/metrics", "").1;
    check_metrics(&metrics);
    let synced = metrics
        .lines()
        .find_map(|l| l.strip_prefix("duraft_stage_seconds_count{stage=\"sync\"} "));
    assert!(synced.is_some_and(|n| n != "0"), "{metrics}");
}

/// The text format: every sample belongs to a family that was announced, and is a number.
fn check_metrics(text: &str) {
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a kind");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(!families.contains(&name), "{name} twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            families.push(name);
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            let name = name.split('{').next().expect("a first part");
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .fold(name, |name, end| name.strip_suffix(end).unwrap_or(name));
            assert!(families.contains(&family), "{line}");
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        }
    }
    assert!(families.len() > 20, "{families:?}");
}

#[test]
fn a_scan_returns_every_key_once() {
    let cluster = Cluster::start(1, &[]);
    let mut redis = cluster.connect(1);
    (0..300).for_each(|n| redis.send(&["SET", &format!("user:{n}"), "x"]));
    (0..300).for_each(|_| assert_eq!(redis.receive(), Some(ok())));
    assert_eq!(redis.ask(&["SET", "other", "x"]), ok());
    let mut cursor = "0".to_string();
    let mut seen = Vec::new();
    loop {
        let reply = redis.ask(&["SCAN", &cursor, "MATCH", "user:*", "COUNT", "50"]);
        let OwnedFrame::Array { data, .. } = reply else {
            panic!("{reply:?}");
        };
        let [
            OwnedFrame::BlobString { data: next, .. },
            OwnedFrame::Array { data: keys, .. },
        ] = &data[..]
        else {
            panic!("{data:?}");
        };
        seen.extend(keys.iter().map(|key| format!("{key:?}")));
        cursor = String::from_utf8_lossy(next).into_owned();
        if cursor == "0" {
            break;
        }
    }
    let found = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((found, seen.len()), (300, 300));
}
