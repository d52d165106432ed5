//! What a node measures of itself.

use crate::transport::TcpStats;

/// What a node has measured of itself in this life, as an owned copy.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// The transport between nodes.
    pub transport: TcpStats,
}
