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
    #[error("cannot read the facts of this machine: {0}")]
    Facts(std::io::Error),
    #[error("no such run: {0}")]
    Scenario(String),
}
