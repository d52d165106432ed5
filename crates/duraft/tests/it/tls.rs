//! Nodes that speak TLS, and those who are refused.

use crate::common::{
    CLUSTER, DEADLINE, Journal, Reservation, membership, options, reserve, scratch,
};
use bytes::Bytes;
use duraft::wire::{Class, Frame, FrameBuffer, Hello, PROTOCOL_VERSION, Refusal, decode};
use duraft::{
    ClusterId, Network, Node, NodeId, NodeOptions, RoleKind, Security, StartError, TcpOptions,
    TcpTransport, TlsOptions, TlsRefusal, TlsStats, Transport, tls_name,
};
use duraft_core::Incarnation;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;
use tempfile::TempDir;

const OTHER_CLUSTER: ClusterId = ClusterId(*b"another cluster!");

type Authority = CertifiedIssuer<'static, KeyPair>;

/// A certificate and its key, in PEM.
#[derive(Clone)]
struct Identity {
    certificate: String,
    key: String,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params
        .distinguished_name
        .push(DnType::CommonName, "test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("signed")
}

fn issue(authority: &Authority, name: &str) -> Identity {
    issue_until(authority, name, 2096)
}

fn issue_until(authority: &Authority, name: &str, year: i32) -> Identity {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a DNS name");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, authority).expect("signed");
    Identity {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    }
}

fn of_node(authority: &Authority, id: u64) -> Identity {
    issue(authority, &tls_name(CLUSTER, NodeId(id)))
}

fn loaded(authorities: &str, identity: &Identity) -> TlsOptions {
    let Identity { certificate, key } = identity;
    TlsOptions::from_pem(
        authorities.as_bytes(),
        certificate.as_bytes(),
        key.as_bytes(),
    )
    .expect("sound texts")
}

/// Three nodes on free ports.
struct Nodes {
    dir: TempDir,
    peers: BTreeMap<NodeId, String>,
    listeners: BTreeMap<NodeId, TcpListener>,
    _reserved: Vec<Reservation>,
    nodes: BTreeMap<NodeId, Node>,
    journals: BTreeMap<NodeId, Journal>,
}

impl Nodes {
    fn new() -> Nodes {
        let bind = |id| {
            (
                NodeId(id),
                TcpListener::bind("127.0.0.1:0").expect("a free port"),
            )
        };
        let listeners: BTreeMap<_, _> = (1..=3).map(bind).collect();
        let address = |(id, listener): (&NodeId, &TcpListener)| {
            (*id, listener.local_addr().expect("bound").to_string())
        };
        let peers = listeners.iter().map(address).collect();
        let reserved = listeners.values().map(reserve).collect();
        let dir = scratch();
        for id in 1..=3 {
            Node::bootstrap(&options(id, &dir), &membership(3)).expect("bootstrapped");
        }
        Nodes {
            dir,
            peers,
            listeners,
            _reserved: reserved,
            nodes: BTreeMap::new(),
            journals: BTreeMap::new(),
        }
    }

    fn start(&mut self, id: u64, security: Security) {
        let id = NodeId(id);
        let listener = self.listeners.remove(&id).unwrap_or_else(|| {
            TcpListener::bind(&self.peers[&id]).expect("the port is free again")
        });
        let mut tcp = TcpOptions::new(self.peers.clone());
        tcp.security = security;
        let transport = TcpTransport::new(listener, tcp).expect("a transport");
        let mut settings = options(id.0, &self.dir);
        settings.network = Network::Custom(Arc::new(transport));
        let journal = Journal::default();
        let node = Node::start(settings, Box::new(journal.clone())).expect("started");
        self.nodes.insert(id, node);
        self.journals.insert(id, journal);
    }

    fn stop(&mut self, id: u64) {
        self.nodes.remove(&NodeId(id)).expect("it runs").shutdown();
    }

    fn apply(&self, command: &str) {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            for node in self.nodes.values() {
                let is_leader = |s: &duraft::Status| s.role == RoleKind::Leader;
                let leads = node.wait_for(std::time::Duration::from_millis(50), is_leader);
                let command = Bytes::from(command.to_owned());
                if leads.is_some() && node.propose_wait(command, DEADLINE).is_ok() {
                    return;
                }
            }
        }
        panic!("'{command}' was never applied");
    }

    fn wait_for_all(&self, commands: &[&str]) {
        for (id, node) in &self.nodes {
            let journal = &self.journals[id];
            node.wait_for(DEADLINE, |_| journal.commands() == commands)
                .unwrap_or_else(|| panic!("node {id} has {:?}", journal.commands()));
        }
    }

    /// Waits until a node has refused so many connections as `count` says.
    fn wait_refused(&self, id: u64, count: fn(&TlsStats) -> u64) {
        let node = &self.nodes[&NodeId(id)];
        // Refusals change nothing that a node publishes, but its peers' attempts go on.
        let until = Instant::now() + DEADLINE;
        while count(&node.stats().transport.tls) == 0 {
            assert!(Instant::now() < until, "{:?}", node.stats());
            node.wait_for(std::time::Duration::from_millis(10), |_| false);
        }
    }
}

#[test]
fn three_nodes_agree_over_tls_and_certificates_change_with_a_restart() {
    let mut nodes = Nodes::new();
    let old = authority();
    for id in 1..=3 {
        nodes.start(id, Security::Tls(loaded(&old.pem(), &of_node(&old, id))));
    }
    nodes.apply("one");
    // More than one buffer of TLS, more than one record.
    let large = "x".repeat(900_000);
    nodes.apply(&large);
    nodes.wait_for_all(&["one", &large]);
    for node in nodes.nodes.values() {
        assert_eq!(node.stats().transport.tls, TlsStats::default());
        assert!(node.stats().transport.connects >= 4);
    }
    // A new authority, one node after the other: first all trust both, then all are of the new one.
    let new = authority();
    let both = format!("{}{}", old.pem(), new.pem());
    for (trusted, issuer) in [(&both, &old), (&both, &new), (&new.pem(), &new)] {
        for id in 1..=3 {
            nodes.stop(id);
            nodes.start(id, Security::Tls(loaded(trusted, &of_node(issuer, id))));
        }
    }
    nodes.apply("two");
    nodes.wait_for_all(&["one", &large, "two"]);
}

#[test]
fn node_with_a_wrong_certificate_is_refused_until_it_has_the_right_one() {
    let trusted = authority();
    let stranger = authority();
    let own = tls_name(CLUSTER, NodeId(3));
    let expired = issue_until(&trusted, &own, 2021);
    type Count = fn(&TlsStats) -> u64;
    let cases: [(Identity, Count); 2] = [
        (issue(&stranger, &own), |s| s.unknown_issuer),
        (expired, |s| s.expired),
    ];
    for (wrong, count) in cases {
        let mut nodes = Nodes::new();
        for id in 1..=2 {
            nodes.start(
                id,
                Security::Tls(loaded(&trusted.pem(), &of_node(&trusted, id))),
            );
        }
        nodes.apply("without the third");
        nodes.start(3, Security::Tls(loaded(&trusted.pem(), &wrong)));
        // Both when it calls and when it is called.
        nodes.wait_refused(1, count);
        nodes.wait_refused(2, count);
        nodes.wait_refused(3, |s| s.by_peer);
        nodes.apply("still without");
        let third = &nodes.nodes[&NodeId(3)];
        assert_eq!(third.stats().transport.frames_received, 0);
        assert_eq!(nodes.journals[&NodeId(3)].commands(), Vec::<Bytes>::new());
        nodes.stop(3);
        nodes.start(
            3,
            Security::Tls(loaded(&trusted.pem(), &of_node(&trusted, 3))),
        );
        nodes.wait_for_all(&["without the third", "still without"]);
    }
}

#[test]
fn node_behind_a_wrong_name_is_not_talked_to() {
    // Node 3's address is answered by somebody with a certificate for another node or cluster: as
    // when addresses are mixed up, or stolen.
    let trusted = authority();
    type Count = fn(&TlsStats) -> u64;
    let cases: [(String, Count); 3] = [
        (tls_name(CLUSTER, NodeId(2)), |s| s.wrong_node),
        (tls_name(OTHER_CLUSTER, NodeId(3)), |s| s.wrong_cluster),
        (tls_name(CLUSTER, NodeId(3)).replace("node-3", "*"), |s| {
            s.wrong_node
        }),
    ];
    for (name, count) in cases {
        let mut nodes = Nodes::new();
        let listener = nodes.listeners.remove(&NodeId(3)).expect("kept");
        let server = server(&issue(&trusted, &name));
        let answering = std::thread::spawn(move || {
            // Until the node has gone: its last connection attempt ends in an error.
            while let Ok((mut stream, _)) = listener.accept() {
                let mut connection =
                    rustls::ServerConnection::new(Arc::clone(&server)).expect("ok");
                let mut tls = rustls::Stream::new(&mut connection, &mut stream);
                let mut heard = Vec::new();
                let _ = tls.read_to_end(&mut heard);
                if heard == b"enough" {
                    return;
                }
                assert_eq!(heard, b"", "nothing is said to {name}");
            }
        });
        nodes.start(
            1,
            Security::Tls(loaded(&trusted.pem(), &of_node(&trusted, 1))),
        );
        nodes.wait_refused(1, count);
        nodes.stop(1);
        let mut last = Caller::connect(&nodes.peers[&NodeId(3)], None);
        last.say(b"enough");
        drop(last);
        answering.join().expect("nothing was said");
    }
}

/// Whoever answers under a false name; asks for no certificate.
fn server(identity: &Identity) -> Arc<rustls::ServerConfig> {
    let (chain, key) = parts(identity);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("sound");
    Arc::new(server)
}

fn parts(identity: &Identity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    let chain = chain.collect::<Result<_, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
    (chain, key)
}

/// A client that says what it likes and believes every name.
struct Caller(rustls::StreamOwned<rustls::ClientConnection, TcpStream>);

impl Caller {
    fn connect(address: &str, identity: Option<&Identity>) -> Caller {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible));
        let client = match identity {
            Some(identity) => {
                let (chain, key) = parts(identity);
                builder.with_client_auth_cert(chain, key).expect("sound")
            }
            None => builder.with_no_client_auth(),
        };
        let name = ServerName::try_from("whoever").expect("a name");
        let connection = rustls::ClientConnection::new(Arc::new(client), name).expect("ok");
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        Caller(rustls::StreamOwned::new(connection, stream))
    }

    fn say(&mut self, bytes: &[u8]) {
        // Who is refused hears of it when listening.
        let _ = self.0.write_all(bytes);
        let _ = self.0.flush();
        self.0.conn.send_close_notify();
        let _ = self.0.flush();
    }

    fn hear(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        let _ = self.0.read_to_end(&mut heard);
        heard
    }
}

#[derive(Debug)]
struct Gullible;

impl rustls::client::danger::ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        let provider = rustls::crypto::ring::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn hello(node: u64) -> Vec<u8> {
    let mut buffer = FrameBuffer::default();
    let hello = Frame::Hello(Hello {
        protocol: PROTOCOL_VERSION,
        class: Class::Control,
        max_batch_bytes: 1 << 20,
        cluster: CLUSTER.0,
        node: NodeId(node),
        incarnation: Incarnation(1),
        to: NodeId(1),
    });
    buffer.push(&hello, 1000).expect("small");
    buffer.to_bytes()
}

#[test]
fn caller_is_held_to_the_name_in_its_certificate() {
    let trusted = authority();
    let mut nodes = Nodes::new();
    nodes.start(
        1,
        Security::Tls(loaded(&trusted.pem(), &of_node(&trusted, 1))),
    );
    let address = nodes.peers[&NodeId(1)].clone();
    let call = |identity: Option<&Identity>, say: &[u8]| {
        let mut caller = Caller::connect(&address, identity);
        caller.say(say);
        caller.hear()
    };
    // Its own name is heard.
    let heard = call(Some(&of_node(&trusted, 2)), &hello(2));
    assert!(
        matches!(decode(&heard), Ok(Frame::Accepted(_))),
        "{heard:?}"
    );
    assert_eq!(nodes.nodes[&NodeId(1)].stats().transport.refusals, 0);
    let certificate = Ok(Frame::Refused(Refusal::Certificate));
    // A node that says that it is another one; a node of another cluster; one for all names.
    let heard = call(Some(&of_node(&trusted, 2)), &hello(3));
    assert_eq!(decode(&heard), certificate);
    nodes.wait_refused(1, |s| s.wrong_node);
    let foreign = issue(&trusted, &tls_name(OTHER_CLUSTER, NodeId(2)));
    assert_eq!(decode(&call(Some(&foreign), &hello(2))), certificate);
    nodes.wait_refused(1, |s| s.wrong_cluster);
    let all = issue(
        &trusted,
        &tls_name(CLUSTER, NodeId(2)).replace("node-2", "*"),
    );
    assert_eq!(decode(&call(Some(&all), &hello(2))), certificate);
    // Without a certificate, of a stranger, too late: no answer of the protocol at all.
    assert_eq!(call(None, &hello(2)), b"");
    nodes.wait_refused(1, |s| s.no_certificate);
    assert_eq!(call(Some(&of_node(&authority(), 2)), &hello(2)), b"");
    nodes.wait_refused(1, |s| s.unknown_issuer);
    let expired = issue_until(&trusted, &tls_name(CLUSTER, NodeId(2)), 2021);
    assert_eq!(call(Some(&expired), &hello(2)), b"");
    nodes.wait_refused(1, |s| s.expired);
    // Plain text, of a node that does not know of TLS.
    let mut plain = TcpStream::connect(&address).expect("it listens");
    plain.set_read_timeout(Some(DEADLINE)).expect("set");
    plain.write_all(&hello(2)).expect("written");
    let mut heard = Vec::new();
    let _ = plain.read_to_end(&mut heard);
    assert!(
        decode(&heard).is_err(),
        "an alert of TLS at most: {heard:?}"
    );
    nodes.wait_refused(1, |s| s.other);
    let stats = nodes.nodes[&NodeId(1)].stats().transport;
    assert_eq!(stats.frames_received, 0);
    assert_eq!(stats.tls.wrong_node, 2);
    assert_eq!(stats.tls.total(), 7 + stats.tls.by_peer);
}

#[test]
fn unusable_certificates_are_told_before_the_start() {
    let trusted = authority();
    let good = of_node(&trusted, 1);
    let other = of_node(&trusted, 1);
    let authorities = trusted.pem();
    let tls = |ca: &str, certificate: &str, key: &str| {
        let [ca, certificate, key] = [ca, certificate, key].map(str::as_bytes);
        TlsOptions::from_pem(ca, certificate, key)
            .map(drop)
            .map_err(|e| e.to_string())
    };
    assert_eq!(tls(&authorities, &good.certificate, &good.key), Ok(()));
    let said = [
        (tls("", &good.certificate, &good.key), "authorities"),
        (tls(&authorities, "garbage", &good.key), "certificate"),
        (tls(&authorities, &good.certificate, "garbage"), "key"),
        (
            tls(&authorities, &good.certificate, &other.key),
            "certificate and its key",
        ),
    ];
    for (result, what) in said {
        let error = result.expect_err(what);
        assert!(
            error.contains(&format!("the {what} cannot be used")),
            "{error}"
        );
    }
    let missing = TlsOptions::from_pem_files("/nowhere/ca.pem", "c", "k").map(drop);
    let error = missing.expect_err("there is no such file").to_string();
    assert!(error.contains("/nowhere/ca.pem"), "{error}");

    // For another node or cluster: the options say so, and so does a transport of the caller's own.
    let dir = scratch();
    let with = |name: &str| -> NodeOptions {
        let mut settings = options(1, &dir).with_peers([(NodeId(1), "127.0.0.1:0")]);
        if let Network::Tcp { options, .. } = &mut settings.network {
            options.security = Security::Tls(loaded(&authorities, &issue(&trusted, name)));
        }
        settings
    };
    assert_eq!(with(&tls_name(CLUSTER, NodeId(1))).validate(), []);
    for name in [
        tls_name(CLUSTER, NodeId(2)),
        tls_name(OTHER_CLUSTER, NodeId(1)),
        "x.y".into(),
    ] {
        let problems = with(&name).validate();
        let fields: Vec<&str> = problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, ["network.options.security"]);
        assert!(problems[0].rule.contains(&name), "{problems:?}");
        assert!(
            problems[0].rule.contains(&tls_name(CLUSTER, NodeId(1))),
            "{problems:?}"
        );
    }
    let wrong = loaded(&authorities, &of_node(&trusted, 2));
    let refusal = wrong
        .check_own(CLUSTER, NodeId(1))
        .expect_err("another node's");
    assert!(matches!(refusal, TlsRefusal::WrongNode { .. }), "{refusal}");
    let mut settings = options(1, &dir);
    Node::bootstrap(&settings, &membership(1)).expect("bootstrapped");
    let mut tcp = TcpOptions::new(BTreeMap::new());
    tcp.security = Security::Tls(wrong);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let transport = TcpTransport::new(listener, tcp).expect("bound");
    settings.network = Network::Custom(Arc::new(transport) as Arc<dyn Transport>);
    let error = Node::start(settings, Box::new(Journal::default())).expect_err("not its own");
    assert!(matches!(error, StartError::Io { .. }), "{error}");
}

#[test]
fn plain_text_off_the_machine_needs_its_name() {
    let dir = scratch();
    let peers = [(NodeId(1), "127.0.0.1:0"), (NodeId(2), "10.1.2.3:4")];
    let mut settings = options(1, &dir).with_peers(peers);
    let fields = |settings: &NodeOptions| -> Vec<String> {
        settings.validate().into_iter().map(|p| p.field).collect()
    };
    assert_eq!(fields(&settings), ["network.options.peers"]);
    let listener = || TcpListener::bind("0.0.0.0:0").expect("a free port");
    if let Network::Tcp { listen, options } = &mut settings.network {
        *listen = "0.0.0.0:0".into();
        let error = TcpTransport::new(listener(), options.clone()).map(drop);
        assert_eq!(
            error.map_err(|e| e.kind()),
            Err(std::io::ErrorKind::PermissionDenied)
        );
    }
    assert_eq!(
        fields(&settings),
        ["network.listen", "network.options.peers"]
    );
    if let Network::Tcp { options, .. } = &mut settings.network {
        options.security = Security::InsecurePlaintext;
        assert!(TcpTransport::new(listener(), options.clone()).is_ok());
    }
    assert_eq!(fields(&settings), Vec::<String>::new());
}
