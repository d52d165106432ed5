//! Mutual TLS 1.3 between nodes, each bound to its node and cluster by its certificate's name.
//!
//! A certificate is issued for one DNS name, [`tls_name`]: `node-<id>.<cluster, in hex>.duraft`. It is
//! never looked up anywhere; it says who may speak. Whoever opens a connection checks that the one
//! who answers has the name of the node that was called; whoever accepts it checks that the one who
//! called has the name of the node that its hello claims. A certificate that speaks for more than
//! one node proves nothing and is refused.
//!
//! The files are read once, when the options are made: new certificates come with a restart.

use super::channel::{ChannelError, Socket};
use super::security::{Names, TlsRefusal};
use duraft_core::NodeId;
use duraft_storage::ClusterId;
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error, RootCertStore, ServerConfig,
    ServerConnection, StreamOwned,
};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Bytes that wait for encryption at most; more are written in several steps.
const BUFFER_BYTES: usize = 1 << 20;

/// The name that a node's certificate must be issued for.
///
/// ```
/// use duraft::{ClusterId, NodeId, tls_name};
///
/// let name = tls_name(ClusterId(*b"my first cluster"), NodeId(2));
/// assert_eq!(name, "node-2.6d7920666972737420636c7573746572.duraft");
/// ```
pub fn tls_name(cluster: ClusterId, node: NodeId) -> String {
    format!("node-{node}.{}", cluster_name(cluster.0))
}

fn cluster_name(cluster: [u8; 16]) -> String {
    let hex: String = cluster.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}.duraft")
}

/// A node's certificate and key, and whom it trusts. Cheap to clone. From PEM texts or files.
#[derive(Clone)]
pub struct TlsOptions {
    loaded: Arc<Loaded>,
}

struct Loaded {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    own: CertificateDer<'static>,
}

/// Why certificates and keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsSetupError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A text is not what it should be.
    #[error("the {what} cannot be used: {message}")]
    Invalid {
        /// Which text.
        what: &'static str,
        /// The reason.
        message: String,
    },
}

fn invalid(what: &'static str, reason: impl fmt::Display) -> TlsSetupError {
    TlsSetupError::Invalid {
        what,
        message: reason.to_string(),
    }
}

impl TlsOptions {
    /// From the files of the trusted authorities, of the node's certificate (followed by those
    /// between it and an authority, if any) and of its key.
    pub fn from_pem_files(
        authorities: impl AsRef<Path>,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<TlsOptions, TlsSetupError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| TlsSetupError::Read {
                path: path.display().to_string(),
                source,
            })
        };
        TlsOptions::from_pem(
            &read(authorities.as_ref())?,
            &read(certificate.as_ref())?,
            &read(key.as_ref())?,
        )
    }

    /// The same from texts in memory.
    pub fn from_pem(
        authorities: &[u8],
        certificate: &[u8],
        key: &[u8],
    ) -> Result<TlsOptions, TlsSetupError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates("authorities", authorities)? {
            roots
                .add(authority)
                .map_err(|e| invalid("authorities", e))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates("certificate", certificate)?;
        let own = chain[0].clone();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| invalid("key", e))?;
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|e| invalid("authorities", e))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| invalid("TLS version", e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|e| invalid("certificate and its key", e))?;
        // Connections live for long; and who dials reads nothing after the greeting.
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| invalid("TLS version", e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|e| invalid("certificate and its key", e))?;
        client.resumption = Resumption::disabled();
        Ok(TlsOptions {
            loaded: Arc::new(Loaded {
                client: Arc::new(client),
                server: Arc::new(server),
                own,
            }),
        })
    }

    /// Is the certificate for this node of this cluster?
    pub fn check_own(&self, cluster: ClusterId, node: NodeId) -> Result<(), TlsRefusal> {
        check_names(
            Some(std::slice::from_ref(&self.loaded.own)),
            cluster.0,
            node,
        )
    }

    /// Opens the secure part of a connection to a node, and checks that it is that node.
    pub(super) fn connect(
        &self,
        mut socket: Socket,
        cluster: [u8; 16],
        peer: NodeId,
    ) -> Result<StreamOwned<ClientConnection, Socket>, ChannelError> {
        let name = server_name(tls_name(ClusterId(cluster), peer))?;
        let client = Arc::clone(&self.loaded.client);
        let mut connection = ClientConnection::new(client, name).map_err(|e| refusal(&e))?;
        connection.set_buffer_limit(Some(BUFFER_BYTES));
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).map_err(refused)?;
        }
        check_names(connection.peer_certificates(), cluster, peer)?;
        Ok(StreamOwned::new(connection, socket))
    }

    /// Takes the secure part of a connection on. Who it is must be checked when it has said so.
    pub(super) fn accept(
        &self,
        mut socket: Socket,
    ) -> Result<StreamOwned<ServerConnection, Socket>, ChannelError> {
        let server = Arc::clone(&self.loaded.server);
        let mut connection = ServerConnection::new(server).map_err(|e| refusal(&e))?;
        connection.set_buffer_limit(Some(BUFFER_BYTES));
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).map_err(refused)?;
        }
        Ok(StreamOwned::new(connection, socket))
    }
}

/// Keys are not for logs.
impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions").finish_non_exhaustive()
    }
}

/// Two are equal where one is a clone of the other.
impl PartialEq for TlsOptions {
    fn eq(&self, other: &TlsOptions) -> bool {
        Arc::ptr_eq(&self.loaded, &other.loaded)
    }
}

impl Eq for TlsOptions {}

fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(invalid(what, "no certificate in PEM form is in it")),
        Ok(all) => Ok(all),
        Err(error) => Err(invalid(what, error)),
    }
}

fn server_name(name: String) -> Result<ServerName<'static>, TlsRefusal> {
    ServerName::try_from(name).map_err(|error| TlsRefusal::Other(error.to_string()))
}

/// Does the first of these certificates, whose signatures are checked already, speak for this node and
/// no other?
pub(super) fn check_names(
    certificates: Option<&[CertificateDer<'_>]>,
    cluster: [u8; 16],
    node: NodeId,
) -> Result<(), TlsRefusal> {
    let Some(certificate) = certificates.and_then(|all| all.first()) else {
        return Err(TlsRefusal::NoCertificate);
    };
    let parsed = ParsedCertificate::try_from(certificate).map_err(|e| refusal(&e))?;
    let name = server_name(tls_name(ClusterId(cluster), node))?;
    verify_server_name(&parsed, &name).map_err(|e| refusal(&e))?;
    // No node has this name, so only a wildcard matches it.
    let nobody = server_name(format!("nobody.{}", cluster_name(cluster)))?;
    if verify_server_name(&parsed, &nobody).is_ok() {
        let presented = Names(vec![format!("*.{}", cluster_name(cluster))]);
        return Err(TlsRefusal::Wildcard { presented });
    }
    Ok(())
}

/// A peer that goes without saying goodbye has gone all the same; frames have lengths of their own.
pub(super) fn end_is_end(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        other => other,
    }
}

/// An error of a handshake: the network's, or a refusal.
fn refused(error: io::Error) -> ChannelError {
    match TlsRefusal::of(&error) {
        Some(refusal) => ChannelError::Tls(refusal),
        None => ChannelError::Io(error),
    }
}

impl TlsRefusal {
    /// The refusal inside an error of a connection, if one is.
    pub(super) fn of(error: &io::Error) -> Option<TlsRefusal> {
        let inner = error.get_ref()?.downcast_ref::<Error>()?;
        Some(refusal(inner))
    }
}

/// What an error of the library means to us.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the enums are the library's"
)]
fn refusal(error: &Error) -> TlsRefusal {
    match error {
        Error::NoCertificatesPresented => TlsRefusal::NoCertificate,
        Error::InvalidCertificate(certificate) => certificate_refusal(certificate),
        Error::AlertReceived(alert) => TlsRefusal::ByPeer(format!("{alert:?}")),
        Error::InvalidMessage(_)
        | Error::PeerIncompatible(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. } => TlsRefusal::NotTls(error.to_string()),
        other => TlsRefusal::Other(other.to_string()),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the enum is the library's")]
fn certificate_refusal(error: &CertificateError) -> TlsRefusal {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            TlsRefusal::UnknownIssuer
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => TlsRefusal::Expired(error.to_string()),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let expected = expected.to_str().into_owned();
            let presented = Names(presented.clone());
            let cluster = expected.split_once('.').map_or("", |(_, cluster)| cluster);
            if presented.0.iter().any(|name| name.contains(cluster)) {
                TlsRefusal::WrongNode {
                    expected,
                    presented,
                }
            } else {
                TlsRefusal::WrongCluster {
                    expected,
                    presented,
                }
            }
        }
        other => TlsRefusal::Other(other.to_string()),
    }
}
