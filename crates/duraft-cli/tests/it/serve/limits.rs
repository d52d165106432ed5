//! What the server refuses, and that it goes on serving.

use super::common::{Cluster, PATIENCE, bulk, int, is_error, ok};
use redis_protocol::resp3::types::OwnedFrame;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::TcpStream;

/// All that comes until the connection ends.
fn rest(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let mut answer = Vec::new();
    // A reset ends it as well.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn malformed_requests_are_told_why_and_cut_off_and_the_server_goes_on() {
    let cluster = Cluster::start(1, &["limits.arguments_max=16"]);
    let cases: &[(&str, &str)] = &[
        ("*1\r\n:5\r\n", "expected '$', got ':'"),
        ("*1\r\n$x\r\n", "a length is not a number"),
        (
            "*17\r\n",
            "17 arguments are more than limits.arguments_max = 16",
        ),
        (
            "*2\r\n$3\r\nGET\r\n$2000000\r\n",
            "2000000 bytes is over the limit of 1048576",
        ),
        ("*1\r\n$4\r\nPINGxx", "expected '\\r', got 'x'"),
        ("\"unclosed\r\n", "quotes are not closed"),
    ];
    for (request, told) in cases {
        let mut stream = TcpStream::connect(cluster.client(1)).expect("a server");
        // What stands before the mistake is answered.
        stream.write_all(b"PING\r\n").expect("it takes it");
        stream.write_all(request.as_bytes()).expect("it takes it");
        let answer = rest(&mut stream);
        assert!(
            answer.starts_with("+PONG\r\n-ERR Protocol error"),
            "{answer}"
        );
        assert!(answer.contains(told), "{told}: {answer}");
        cluster.wait_for_log(1, told);
    }
    assert_eq!(cluster.connect(1).ask(&["SET", "k", "v"]), ok());
    let metrics = cluster.get(1, "/metrics").1;
    let counted = format!("duraft_serve_bad_requests_total {}\n", cases.len());
    assert!(metrics.contains(&counted), "{metrics}");
}

#[test]
fn an_oversized_value_is_refused_and_the_connection_goes_on() {
    let cluster = Cluster::start(
        1,
        &["limits.value_bytes_max=1000", "limits.key_bytes_max=10"],
    );
    let mut redis = cluster.connect(1);
    let refused = redis.ask(&["SET", "k", &"x".repeat(1001)]);
    assert!(
        is_error(&refused, "limits.value_bytes_max = 1000"),
        "{refused:?}"
    );
    let refused = redis.ask(&["GET", &"x".repeat(11)]);
    assert!(
        is_error(&refused, "limits.key_bytes_max = 10"),
        "{refused:?}"
    );
    assert_eq!(redis.ask(&["SET", "k", &"x".repeat(1000)]), ok());
    let refused = redis.ask(&["APPEND", "k", "y"]);
    assert!(
        is_error(&refused, "longer than limits.value_bytes_max"),
        "{refused:?}"
    );
    assert_eq!(redis.ask(&["STRLEN", "k"]), int(1000));
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_the_log_says_so() {
    // Its replies would pile up in memory for ever.
    let cluster = Cluster::start(1, &["clients.slow_client_timeout=200ms"]);
    let mut good = cluster.connect(1);
    assert_eq!(good.ask(&["SET", "k", &"x".repeat(500_000)]), ok());
    let before = memory(cluster.pid(1));
    let mut slow = cluster.connect(1);
    for _ in 0..200 {
        slow.send(&["GET", "k"]);
    }
    let line = cluster.wait_for_log(1, "slow client");
    assert!(line.contains("clients.slow_client_timeout"), "{line}");
    let grown = memory(cluster.pid(1)).saturating_sub(before);
    assert!(grown < 64 << 20, "100 MB of replies took {grown} bytes");
    assert_eq!(
        good.ask(&["STRLEN", "k"]),
        int(500_000),
        "others are served"
    );
    let metrics = cluster.get(1, "/metrics").1;
    assert!(
        metrics.contains("duraft_serve_slow_clients_total 1\n"),
        "{metrics}"
    );
}

#[test]
fn half_requests_are_given_up_and_their_memory_is_bounded() {
    let cluster = Cluster::start(
        1,
        &[
            "clients.partial_request_timeout=300ms",
            "limits.request_memory_bytes_max=1 MiB",
        ],
    );
    // Two of them need more than there is; one is refused, in whichever order they are read.
    let big = "x".repeat(900_000);
    let half = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$900001\r\n{big}");
    let mut streams: Vec<TcpStream> = (0..2)
        .map(|_| TcpStream::connect(cluster.client(1)).expect("a server"))
        .collect();
    for stream in &mut streams {
        // The refused one may be closed before it has sent all.
        let _ = stream.write_all(half.as_bytes());
    }
    cluster.wait_for_log(1, "limits.request_memory_bytes_max");
    let mut stream = TcpStream::connect(cluster.client(1)).expect("a server");
    stream
        .write_all(b"*2\r\n$3\r\nGET\r\n")
        .expect("it takes it");
    cluster.wait_for_log(1, "clients.partial_request_timeout");
    assert_eq!(rest(&mut stream), "");
    drop(streams);
    assert_eq!(cluster.connect(1).ask(&["SET", "k", "v"]), ok());
}

#[test]
fn a_connection_too_many_is_told_so() {
    let cluster = Cluster::start(1, &["limits.connections_max=2"]);
    let mut one = cluster.connect(1);
    let two = cluster.connect(1);
    let mut three = TcpStream::connect(cluster.client(1)).expect("a server");
    assert!(rest(&mut three).contains("max number of clients"));
    cluster.wait_for_log(1, "limits.connections_max = 2");
    drop(two);
    assert_eq!(one.ask(&["SET", "k", "v"]), ok());
}

#[test]
#[allow(clippy::print_stderr)]
fn ten_thousand_idle_connections_take_little_memory_and_hold_nobody_up() {
    const CONNECTIONS: usize = 10_000;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("the hard limit can be used");
    if limit
        .maximum
        .is_some_and(|max| max < CONNECTIONS as u64 + 500)
    {
        eprintln!(
            "SKIPPED: this system lets a process have {:?} open files",
            limit.maximum
        );
        return;
    }
    let cluster = Cluster::start(1, &[]);
    let mut redis = cluster.connect(1);
    assert_eq!(redis.ask(&["SET", "k", "v"]), ok());
    let before = memory(cluster.pid(1));
    let mut idle = Vec::with_capacity(CONNECTIONS);
    while idle.len() < CONNECTIONS {
        // Each has been used, so none is merely a place in the listener's queue, and each has had buffers.
        let begun = idle.len();
        for _ in 0..100 {
            let mut stream = TcpStream::connect(cluster.client(1)).expect("room");
            stream.write_all(b"PING\r\n").expect("it takes it");
            idle.push(stream);
        }
        for stream in &mut idle[begun..] {
            let mut pong = [0; 7];
            stream.read_exact(&mut pong).expect("it answers");
        }
    }
    let info = redis.ask(&["INFO", "clients"]);
    let OwnedFrame::BlobString { data, .. } = info else {
        panic!("{info:?}");
    };
    let info = String::from_utf8_lossy(&data).into_owned();
    let open = info
        .lines()
        .find_map(|line| line.strip_prefix("connected_clients:"));
    let open: usize = open.and_then(|n| n.parse().ok()).expect("a number");
    assert!(open >= CONNECTIONS, "{open} of {CONNECTIONS}");
    let grown = memory(cluster.pid(1)).saturating_sub(before);
    let each = grown / CONNECTIONS as u64;
    assert!(each < 8 << 10, "{each} bytes for each idle connection");
    for _ in 0..100 {
        assert_eq!(redis.ask(&["SET", "k", "w"]), ok());
        assert_eq!(redis.ask(&["GET", "k"]), bulk("w"));
    }
}

/// Bytes of a process that are in memory.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number")
        << 10
}
