//! TLS between nodes, with the certificates of `duraft cert dev`: who is let in, who is not, and what
//! is said to whom; and that nothing goes to another machine in plain text unasked.

use super::common::{Cluster, PATIENCE, bulk, http_answer, is_error, ok};
use crate::common::{duraft, path, said, shown};
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Instant;

/// Certificates for three nodes of the cluster that `cluster init --local` makes, of an authority of
/// their own.
fn certificates(cluster: &Cluster, folder: &str) -> PathBuf {
    let folder = cluster.dir.path().join(folder);
    let made = duraft([
        "cert",
        "dev",
        "--cluster",
        "local",
        "--out",
        &shown(&folder),
    ]);
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    folder
}

/// Node `id` trusts the authority of `trusted` and shows the certificate of `shows` in `folder`.
fn give(cluster: &Cluster, id: usize, trusted: &PathBuf, folder: &PathBuf, shows: usize) {
    let quoted = |folder: &PathBuf, name: &str| format!("{:?}", path(folder, name));
    cluster.edit(id, "authorities", &quoted(trusted, "ca.pem"));
    cluster.edit(
        id,
        "certificate",
        &quoted(folder, &format!("node-{shows}.pem")),
    );
    cluster.edit(id, "key", &quoted(folder, &format!("node-{shows}.key")));
}

fn secured(set: &[&str]) -> (Cluster, PathBuf) {
    let cluster = Cluster::make(3, set);
    let certs = certificates(&cluster, "certs");
    (1..=3).for_each(|id| give(&cluster, id, &certs, &certs, id));
    (cluster, certs)
}

fn refusals(cluster: &Cluster, id: usize, reason: &str) -> u64 {
    let metrics = cluster.get(id, "/metrics").1;
    let begin = format!("duraft_transport_tls_refusals_total{{reason=\"{reason}\"}} ");
    let count = metrics.lines().find_map(|line| line.strip_prefix(&begin));
    count.and_then(|n| n.parse().ok()).expect("a count")
}

#[test]
fn three_nodes_serve_over_tls_and_a_stranger_is_refused_with_the_reason() {
    let (mut cluster, certs) = secured(&[]);
    (1..=3).for_each(|id| cluster.restart(id));
    assert_eq!(cluster.connect(1).ask(&["SET", "k", "old"]), ok());
    for id in 1..=3 {
        assert_eq!(cluster.connect(id).ask(&["GET", "k"]), bulk("old"), "{id}");
    }

    // The right name from an authority that nobody knows.
    cluster.kill(3);
    let others = certificates(&cluster, "others");
    give(&cluster, 3, &certs, &others, 3);
    cluster.restart(3);
    cluster.wait_for_log(1, "not signed by an authority that this node trusts");
    assert!(refusals(&cluster, 1, "unknown_issuer") > 0);
    // The two others go on, and the stranger hears of nothing.
    assert_eq!(cluster.connect(1).ask(&["SET", "k", "new"]), ok());
    assert_eq!(cluster.connect(2).ask(&["GET", "k"]), bulk("new"));
    let mut stranger = cluster.connect(3);
    assert_eq!(stranger.ask(&["READONLY"]), ok());
    assert_ne!(stranger.ask(&["GET", "k"]), bulk("new"));
    assert_eq!(cluster.get(3, "/readyz").0, 503);

    // No certificate at all.
    cluster.kill(3);
    for field in ["authorities", "certificate", "key"] {
        cluster.edit(3, field, "\"\"");
    }
    cluster.restart(3);
    cluster.wait_for_log(1, "does not speak TLS 1.3");
    assert!(refusals(&cluster, 1, "other") > 0);

    // Its own again: it is back.
    cluster.kill(3);
    give(&cluster, 3, &certs, &certs, 3);
    cluster.restart(3);
    assert_eq!(cluster.connect(3).ask(&["GET", "k"]), bulk("new"));
}

#[test]
fn a_certificate_of_another_node_is_refused_by_its_owner_and_by_who_dials_it() {
    let (mut cluster, certs) = secured(&[]);
    // By the process that is given it, before anything listens.
    give(&cluster, 3, &certs, &certs, 2);
    let file = shown(&cluster.file(3));
    let refused = duraft(["serve", "--config", &file]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    let reason = said(&refused);
    assert!(
        reason.contains("node-2.") && reason.contains("expected node-3."),
        "{reason}"
    );

    // By node 1, which dials node 3 and finds node 2 there.
    cluster.set.push(format!("listen.peer={}", cluster.peer(3)));
    cluster.restart(2);
    cluster.set.pop();
    cluster.restart(1);
    let line = cluster.wait_for_log(1, "which is not that node");
    assert!(
        line.contains("node-2.") && line.contains("expected node-3."),
        "{line}"
    );
    assert!(refusals(&cluster, 1, "wrong_node") > 0);
}

#[test]
fn plain_text_off_loopback_has_to_be_asked_for_by_name() {
    let cluster = Cluster::make(1, &[]);
    let file = shown(&cluster.file(1));
    for field in ["listen.peer", "listen.client", "listen.http"] {
        let set = format!("{field}=0.0.0.0:0");
        let refused = duraft(["serve", "--config", &file, "--set", &set]);
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        let reason = said(&refused);
        assert!(
            reason.contains(field) && reason.contains("security.plaintext = true"),
            "{reason}"
        );
    }
}

/// An address of this machine that is no loopback address, where it has one.
fn own_address() -> Option<IpAddr> {
    // Nothing is sent: the system only says which address it would send from.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[test]
#[allow(clippy::print_stderr)]
fn nodes_with_certificates_pass_no_command_on_in_plain_text() {
    let Some(address) = own_address() else {
        eprintln!("SKIPPED: this machine has loopback addresses only");
        return;
    };
    let (mut cluster, _) = secured(&[]);
    // Clients are told another address of every node than the one it listens on: of a network.
    let port = |client: &str| client.rsplit_once(':').expect("a port").1.to_owned();
    for id in 1..=3 {
        let mut text = std::fs::read_to_string(cluster.file(id)).expect("the file");
        for other in 1..=3 {
            let near = cluster.client(other);
            assert_eq!(text.matches(&near).count(), 1, "{text}");
            text = text.replace(&near, &format!("{address}:{}", port(&near)));
        }
        std::fs::write(cluster.file(id), text).expect("written");
        cluster
            .set
            .push(format!("listen.client={}", cluster.client(id)));
        cluster.restart(id);
        cluster.set.pop();
    }
    let leads = |id: &usize| {
        cluster
            .get(*id, "/v1/status")
            .1
            .contains("\"role\":\"leader\"")
    };
    let until = Instant::now() + PATIENCE;
    let asked = (1..=3).cycle().take_while(|_| Instant::now() < until);
    let leader = asked.into_iter().find(leads).expect("somebody leads");
    assert_eq!(cluster.connect(leader).ask(&["SET", "k", "v"]), ok());
    let follower = leader % 3 + 1;
    let mut redis = cluster.connect(follower);
    let port = port(&cluster.client(leader));
    let told = redis.ask(&["SET", "k", "w"]);
    assert!(
        is_error(&told, "MOVED ") && is_error(&told, &format!(" {address}:{port}")),
        "{told:?}"
    );
    assert_eq!(
        redis.ask(&["GET", "k"]),
        bulk("v"),
        "reads go by TLS between the nodes"
    );
    let answer = http_answer(
        &cluster.http(follower),
        "PUT",
        "/v1/kv/k?if=present",
        "",
        "w",
    );
    assert!(answer.starts_with("HTTP/1.1 307"), "{answer}");
    let place = format!("http://{}/v1/kv/k?if=present\r\n", cluster.http(leader));
    assert!(answer.contains(&place), "{answer}");
    assert!(
        cluster
            .get(follower, "/metrics")
            .1
            .contains("duraft_serve_passed_on_total 0\n")
    );
}
