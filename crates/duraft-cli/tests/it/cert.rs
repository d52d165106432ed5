//! `duraft cert` as a user runs it.

use crate::common::{duraft, scratch, text};
use duraft::{ClusterId, NodeId, TlsOptions, tls_name};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

fn usable(dir: &Path, cluster: ClusterId, node: u64) {
    let file = |end: &str| dir.join(format!("node-{node}.{end}"));
    let tls = TlsOptions::from_pem_files(dir.join("ca.pem"), file("pem"), file("key"));
    let own = tls.expect("sound").check_own(cluster, NodeId(node));
    own.expect("it is this node's");
    // As a peer sees it: from the authority to the name.
    let pem = |file: &Path| CertificateDer::from_pem_file(file).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(pem(&dir.join("ca.pem"))).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    let name = ServerName::try_from(tls_name(cluster, NodeId(node))).expect("a name");
    let seen = verifier.build().expect("it trusts").verify_server_cert(
        &pem(&file("pem")),
        &[],
        &name,
        &[],
        UnixTime::now(),
    );
    seen.expect("peers take it");
}

#[test]
fn development_set_is_made_added_to_and_renewed() {
    let folder = scratch();
    let dir = folder.path().join("certs");
    let out = dir.display().to_string();
    let mut cluster = [0; 16];
    cluster[..4].copy_from_slice(b"shop");
    let cluster = ClusterId(cluster);
    let dev = |more: &[&str]| {
        let mut args = vec!["cert", "dev", "--cluster", "shop", "--out", &out];
        args.extend(more);
        let output = duraft(&args);
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, said, complained) = dev(&[]);
    assert_eq!(code, Some(0), "{complained}");
    assert!(said.contains("3 certificates made"), "{said}");
    (1..=3).for_each(|node| usable(&dir, cluster, node));
    for key in ["ca.key", "node-1.key"] {
        let mode = fs::metadata(dir.join(key))
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    // A node more: nothing that is there changes.
    let read = |name: &str| fs::read(dir.join(name)).expect("it is there");
    let (ca, first) = (read("ca.pem"), read("node-1.pem"));
    let (code, said, _) = dev(&["--nodes", "1-4"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("1 certificates made"), "{said}");
    usable(&dir, cluster, 4);
    assert_eq!(
        (ca.clone(), first.clone()),
        (read("ca.pem"), read("node-1.pem"))
    );
    // New ones on demand, from the same authority.
    let (code, _, _) = dev(&["--nodes", "1", "--renew", "--days", "7"]);
    assert_eq!(code, Some(0));
    usable(&dir, cluster, 1);
    assert_eq!(ca, read("ca.pem"));
    assert_ne!(first, read("node-1.pem"));
    // Half an authority is not one.
    fs::remove_file(dir.join("ca.key")).expect("it is there");
    let (code, _, complained) = dev(&[]);
    assert_eq!(code, Some(2));
    assert!(
        complained.contains("ca.key") && complained.contains("needs both"),
        "{complained}"
    );
}

#[test]
fn names_and_mistakes() {
    let name = duraft(&[
        "cert",
        "name",
        "--cluster",
        "my first cluster",
        "--nodes",
        "2",
    ]);
    let expected = "node-2.6d7920666972737420636c7573746572.duraft";
    assert_eq!(text(&name.stdout).trim(), expected);
    for (args, named) in [
        (&["cert", "dev", "--cluster", "x"][..], "--out"),
        (&["cert", "dev", "--cluster", "", "--out", "x"], "--cluster"),
        (
            &[
                "cert",
                "dev",
                "--cluster",
                "x",
                "--out",
                "x",
                "--nodes",
                "3-1",
            ],
            "--nodes",
        ),
        (
            &["cert", "dev", "--cluster", "x", "--out", "x", "--days", "0"],
            "--days",
        ),
        (
            &["cert", "dev", "--cluster", "x", "--out", "/dev/null/x"],
            "/dev/null/x",
        ),
        (&["cert"], "Usage"),
    ] {
        let output = duraft(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = text(&output.stderr);
        assert!(said.contains(named), "{args:?}: {said}");
    }
}
