//! Who may speak to a node: everybody on this machine, everybody, or who has a certificate.

#[cfg(feature = "tls")]
use super::tls::TlsOptions;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// How connections between nodes are protected.
///
/// Whoever can write to a node's port without a certificate can put commands into its log. So plain
/// text is for one machine, or has to be asked for by its name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Security {
    /// Plain text, and only between loopback addresses: other listeners, peers and connections are
    /// refused. For tests, and for clusters on one machine.
    #[default]
    LoopbackOnly,
    /// DANGEROUS: plain text on any network. Whoever reaches the port can read everything, change
    /// everything and destroy the cluster's data. Only where something else (a tunnel, a private
    /// network with nobody else on it) keeps them away.
    InsecurePlaintext,
    /// Mutual TLS: both sides show a certificate for their node of the cluster.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    Tls(TlsOptions),
}

impl Security {
    /// May a connection with this end be in use?
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        match self {
            Security::LoopbackOnly => address.is_loopback(),
            Security::InsecurePlaintext => true,
            #[cfg(feature = "tls")]
            Security::Tls(_) => true,
        }
    }

    /// The same for an address that is not resolved yet: what is not known to be loopback is not.
    pub(crate) fn allows_named(&self, address: &str) -> bool {
        match self {
            Security::LoopbackOnly => {
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']');
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
            Security::InsecurePlaintext => true,
            #[cfg(feature = "tls")]
            Security::Tls(_) => true,
        }
    }
}

/// What is said where plain text meets another machine.
pub(crate) const PLAINTEXT_RULE: &str =
    "on loopback addresses: use Security::Tls, or Security::InsecurePlaintext and its dangers";

/// Why a connection was refused before a word of the protocol was spoken, or with its first.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsRefusal {
    /// The other side shows no certificate.
    #[error("the other side shows no certificate")]
    NoCertificate,
    /// The certificate, or its chain, is not signed by an authority that we trust.
    #[error("the certificate is not signed by an authority that this node trusts")]
    UnknownIssuer,
    /// The certificate is not valid any more, or not yet.
    #[error("the certificate is not valid at this time: {0}")]
    Expired(String),
    /// The certificate is for another cluster.
    #[error("the certificate is for {presented}, which is not this cluster: expected {expected}")]
    WrongCluster {
        /// The name that it had to have.
        expected: String,
        /// The names that it has.
        presented: Names,
    },
    /// The certificate is for another node of this cluster.
    #[error("the certificate is for {presented}, which is not that node: expected {expected}")]
    WrongNode {
        /// The name that it had to have.
        expected: String,
        /// The names that it has.
        presented: Names,
    },
    /// The certificate speaks for every node: no node can prove which one it is.
    #[error("the certificate is for {presented}, which speaks for every node: issue one per node")]
    Wildcard {
        /// The names that it has.
        presented: Names,
    },
    /// The other side refused us, most likely our certificate. Its log says why.
    #[error("the other side refused this node's certificate or connection: {0}")]
    ByPeer(String),
    /// The other side does not speak TLS 1.3.
    #[error("the other side does not speak TLS 1.3: {0}")]
    NotTls(String),
    /// Anything else.
    #[error("the connection could not be made secure: {0}")]
    Other(String),
}

/// Names in a certificate.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names(pub Vec<String>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("no name at all")
        } else {
            f.write_str(&self.0.join(", "))
        }
    }
}

/// Connections that were refused for their certificate, by reason; on both sides of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct TlsStats {
    /// No certificate was shown.
    pub no_certificate: u64,
    /// The issuer is not trusted.
    pub unknown_issuer: u64,
    /// Not valid any more, or not yet.
    pub expired: u64,
    /// For another cluster.
    pub wrong_cluster: u64,
    /// For another node, or for every node.
    pub wrong_node: u64,
    /// The other side refused us.
    pub by_peer: u64,
    /// Anything else, as no TLS at all.
    pub other: u64,
}

impl TlsStats {
    /// All of them together.
    pub fn total(&self) -> u64 {
        self.no_certificate
            + self.unknown_issuer
            + self.expired
            + self.wrong_cluster
            + self.wrong_node
            + self.by_peer
            + self.other
    }
}

/// The counters behind [`TlsStats`].
#[derive(Default)]
pub(super) struct TlsCounters {
    no_certificate: AtomicU64,
    unknown_issuer: AtomicU64,
    expired: AtomicU64,
    wrong_cluster: AtomicU64,
    wrong_node: AtomicU64,
    by_peer: AtomicU64,
    other: AtomicU64,
}

impl TlsCounters {
    pub(super) fn count(&self, refusal: &TlsRefusal) {
        let counter = match refusal {
            TlsRefusal::NoCertificate => &self.no_certificate,
            TlsRefusal::UnknownIssuer => &self.unknown_issuer,
            TlsRefusal::Expired(_) => &self.expired,
            TlsRefusal::WrongCluster { .. } => &self.wrong_cluster,
            TlsRefusal::WrongNode { .. } | TlsRefusal::Wildcard { .. } => &self.wrong_node,
            TlsRefusal::ByPeer(_) => &self.by_peer,
            TlsRefusal::NotTls(_) | TlsRefusal::Other(_) => &self.other,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> TlsStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TlsStats {
            no_certificate: read(&self.no_certificate),
            unknown_issuer: read(&self.unknown_issuer),
            expired: read(&self.expired),
            wrong_cluster: read(&self.wrong_cluster),
            wrong_node: read(&self.wrong_node),
            by_peer: read(&self.by_peer),
            other: read(&self.other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_on_the_machine_unless_asked() {
        let near = ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.9.8.7:1"];
        let far = [
            "0.0.0.0:1",
            "10.0.0.1:1",
            "[::]:1",
            "example.org:1",
            "127.0.0.1.evil:1",
            ":1",
        ];
        for address in near {
            assert!(Security::LoopbackOnly.allows_named(address), "{address}");
        }
        for address in far {
            assert!(!Security::LoopbackOnly.allows_named(address), "{address}");
            assert!(
                Security::InsecurePlaintext.allows_named(address),
                "{address}"
            );
        }
        assert!(Security::LoopbackOnly.allows([127, 1, 2, 3].into()));
        assert!(!Security::LoopbackOnly.allows([10, 0, 0, 1].into()));
        assert!(Security::InsecurePlaintext.allows([10, 0, 0, 1].into()));
    }
}
