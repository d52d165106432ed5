use super::*;

const THREE: &str = r#"
id = 2
dir = "data"
[[node]]
id = 1
peer = "127.0.0.1:1"
client = "127.0.0.1:2"
http = "127.0.0.1:3"
[[node]]
id = 2
peer = "127.0.0.1:4"
client = "127.0.0.1:5"
http = "127.0.0.1:6"
admin = "127.0.0.1:7"
"#;

fn told(text: &str, flags: &[&str]) -> Vec<String> {
    let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
    match from_text(text, &flags) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn every_default_is_a_value_of_its_field_and_every_field_is_one_of_its_own() {
    let mut config = Config::default();
    for field in FIELDS {
        let set = (field.slot)(&mut config).set_text(field.default);
        assert_eq!(set, Ok(()), "{}", field.path);
        assert!(!field.doc.is_empty(), "{}", field.path);
    }
    // Two names for one place would go unnoticed otherwise.
    for field in FIELDS {
        let mut changed = Config::default();
        let other = match (field.slot)(&mut changed) {
            Slot::Text(_) => "other".to_string(),
            Slot::Word(_, words) => words[usize::from(words[0] == field.default)].into(),
            Slot::Switch(_) => "true".into(),
            Slot::Count(_, min, max) | Slot::Bytes(_, min, max) => {
                let shown = min.to_string();
                if shown == field.default {
                    max.to_string()
                } else {
                    shown
                }
            }
            Slot::Time(_, min, _) => units::show_time(min),
        };
        (field.slot)(&mut changed)
            .set_text(&other)
            .expect(field.path);
        let differ: Vec<&str> = FIELDS
            .iter()
            .filter(|f| (f.slot)(&mut changed).show() != (f.slot)(&mut Config::default()).show())
            .map(|f| f.path)
            .collect();
        assert_eq!(differ, [field.path]);
    }
}

#[test]
fn what_is_printed_gives_the_same_configuration() {
    let flags = ["limits.connections_max=7".into(), "raft.tick=10ms".into()];
    let config = from_text(THREE, &flags).expect("a good file");
    assert_eq!(config.limits.connections_max, 7);
    let again = from_text(&print(&config), &[]).expect("what is printed can be read");
    assert_eq!(again, config);
}

#[test]
fn every_problem_of_a_file_is_told_at_once() {
    let text = r#"
id = "one"
clutser = "x"
limits = 3
[limits]
value_bytes_max = "1 MB"
connections_max = 0
[raft]
tick = 25
election_tick = 10
snapshot_log_bytes = 3
[security]
plaintext = "perhaps"
[[node]]
id = 1
peer = 7
pier = "a:1"
"#;
    // TOML itself refuses a name that is there twice; the rest is told with it out of the way.
    assert_eq!(told(text, &[]).len(), 1);
    let text = text.replace("limits = 3\n", "log = 2026-01-01\n");
    let problems = told(&text, &["nonsense", "dir"]);
    let expected = [
        "id: must be a whole number",
        "clutser: there is no such field; `cluster` is meant?",
        "log: must be a text, a whole number, or true or false",
        "limits.value_bytes_max: must be a size, as 65536 or 64 KiB",
        "limits.connections_max: must be 1 to 1000000",
        "raft.tick: must be a time, as 250ms or 10s",
        "raft.election_tick: there is no such field; `raft.election_ticks` is meant?",
        "raft.snapshot_log_bytes: there is no such field; `storage.snapshot_log_bytes` is meant?",
        "security.plaintext: must be true or false",
        "node[0].peer: must be an address, as \"host:port\"",
        "node[0].pier: there is no such field; a node has id, peer, client, http, admin",
        "nonsense: must be written as field=value",
        "dir: must be written as field=value",
    ];
    for line in expected {
        assert!(problems.iter().any(|p| p == line), "{line}\n{problems:#?}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn rules_between_fields_are_told_together() {
    let problems = told(
        THREE,
        &[
            "id=3",
            "cluster=a name that is far too long",
            "limits.value_bytes_max=1 MiB",
            "limits.request_memory_bytes_max=1 MiB",
            "raft.batch_bytes_max=1025 KiB",
            "raft.heartbeat_ticks=7",
            "storage.slot_bytes=100000",
            "clients.request_timeout=1s",
            "listen.client=0.0.0.0:6379",
            "listen.admin=[::]:7",
            "listen.http=host",
        ],
    );
    for field in [
        "id",
        "cluster",
        "limits.value_bytes_max",
        "limits.request_memory_bytes_max",
        "raft.election_ticks",
        "storage.slot_bytes",
        "clients.request_timeout",
        "listen.client",
        "listen.http",
    ] {
        let start = format!("{field}: ");
        let of = problems.iter().filter(|p| p.starts_with(&start)).count();
        assert_eq!(of, 1, "{field}\n{problems:#?}");
    }
    let admin = problems.iter().filter(|p| p.starts_with("listen.admin: "));
    assert_eq!(admin.count(), 2, "{problems:#?}");
    let twice = THREE
        .replace("127.0.0.1:4", "127.0.0.1:1")
        .replace("id = 1", "id = 2");
    let problems = told(&twice, &[]);
    assert_eq!(problems.len(), 2, "{problems:#?}");
}

#[test]
fn only_this_machine_reaches_a_loopback_address() {
    for address in ["127.0.0.1:1", "127.9.8.7:1", "[::1]:1", "localhost:1"] {
        assert!(rules::is_loopback(address), "{address}");
    }
    for address in [
        "0.0.0.0:1",
        "[::]:1",
        "10.0.0.1:1",
        "node-1:1",
        "localhost.example:1",
    ] {
        assert!(!rules::is_loopback(address), "{address}");
    }
    let tls = ["security.certificate=a.pem", "listen.peer=0.0.0.0:4"];
    let problems = told(THREE, &tls).join("\n");
    assert!(
        problems.contains("security.key: must be given"),
        "{problems}"
    );
    assert!(
        problems.contains("security.authorities: must be given"),
        "{problems}"
    );
    assert!(!problems.contains("listen.peer"), "{problems}");
    let remote = [
        "security.plaintext=true",
        "security.remote_admin=true",
        "listen.admin=0.0.0.0:7",
    ];
    assert_eq!(told(THREE, &remote), Vec::<String>::new());
}

#[test]
fn commands_are_passed_on_in_plain_text_only_where_nodes_have_no_certificates() {
    let mut config = Config::default();
    let (near, far) = ("127.0.0.1:7201", "10.0.0.1:7201");
    assert!(config.may_pass_on_to(near) && !config.may_pass_on_to(far));
    config.security.plaintext = true;
    assert!(config.may_pass_on_to(near) && config.may_pass_on_to(far));
    config.security.certificate = "node-1.pem".into();
    assert!(config.may_pass_on_to(near) && !config.may_pass_on_to(far));
}
