//! The folder a benchmark writes to.

use super::error::BenchError;
use std::path::{Path, PathBuf};

/// Where scratch folders are made when no folder is named: on the disk of the working directory,
/// not in the system's temporary folder, which is often in memory.
const SCRATCH: &str = "duraft-data";

/// A folder for one run.
pub(crate) enum Folder {
    /// Named by the user; kept.
    Named(PathBuf),
    /// Made here; removed when dropped, kept after a failed check.
    Scratch(tempfile::TempDir),
}

impl Folder {
    /// The folder named by `--dir`, which must be new or empty, or a scratch folder.
    pub(crate) fn prepare(named: Option<&Path>) -> Result<Folder, BenchError> {
        let in_folder = |path: &Path| {
            let path = path.to_path_buf();
            move |source| BenchError::Folder { path, source }
        };
        let Some(path) = named else {
            let root = Path::new(SCRATCH);
            std::fs::create_dir_all(root).map_err(in_folder(root))?;
            let scratch = tempfile::Builder::new().prefix("bench-").tempdir_in(root);
            return Ok(Folder::Scratch(scratch.map_err(in_folder(root))?));
        };
        std::fs::create_dir_all(path).map_err(in_folder(path))?;
        let mut entries = std::fs::read_dir(path).map_err(in_folder(path))?;
        if entries.next().is_some() {
            return Err(BenchError::FolderInUse {
                path: path.to_path_buf(),
            });
        }
        Ok(Folder::Named(path.to_path_buf()))
    }

    /// The folder's path.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Folder::Named(path) => path,
            Folder::Scratch(scratch) => scratch.path(),
        }
    }

    /// Keeps the files, as evidence. Returns where they are.
    pub(crate) fn keep(self) -> PathBuf {
        match self {
            Folder::Named(path) => path,
            Folder::Scratch(scratch) => scratch.keep(),
        }
    }
}
