//! Why a benchmark could not run.

use std::path::PathBuf;

/// What went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("cannot use the folder '{}': {source}; choose another with --dir", path.display())]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the folder '{}' is not empty; name a new one with --dir or remove it", path.display())]
    FolderInUse { path: PathBuf },
    #[error("cannot write the result to '{}': {source}", path.display())]
    Json {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{0} is for `bench cluster` and `bench wal`; this benchmark has its own load and result"
    )]
    Flag(&'static str),
    #[error("'{}' is no result of a benchmark: {problem}", path.display())]
    NoResult { path: PathBuf, problem: String },
    #[error("the results are not alike, with --unlike they are compared all the same:\n  {}", .0.join("\n  "))]
    Unlike(Vec<String>),
    #[error(transparent)]
    Disk(#[from] duraft_disk::DiskError),
    #[error("{0}")]
    Storage(String),
    #[error("{0}")]
    Cluster(String),
    #[error("child process of node {node}: {source}")]
    Child { node: u64, source: std::io::Error },
    #[error("{what} did not happen within {seconds} s")]
    Deadline { what: &'static str, seconds: u64 },
}

impl BenchError {
    /// Something about the cluster went wrong.
    pub(crate) fn cluster(error: impl std::fmt::Display) -> BenchError {
        BenchError::Cluster(error.to_string())
    }
}
