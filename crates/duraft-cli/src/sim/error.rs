//! Why a simulation could not be run.

use std::path::PathBuf;

/// What went wrong, where.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SimError {
    #[error("cannot write to '{}': {source}", path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot read '{}': {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("'{}' is no result of 'duraft sim swarm': {source}", path.display())]
    NoResult {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("these parts make no swarm: {0}")]
    Parts(String),
    #[error("cannot write the result as JSON: {0}")]
    Json(serde_json::Error),
    #[error("cannot read the facts of this machine: {0}")]
    Facts(std::io::Error),
    #[error("no such run: {0}")]
    Scenario(String),
}
