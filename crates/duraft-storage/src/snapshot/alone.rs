//! A snapshot file on its own: whatever folder it lies in, and whichever cluster it is of.
//!
//! For tools. Whoever restores a snapshot reads it through its store, by the identity that the log
//! holds; here the file itself says who it is, and is checked against that.

use super::error::{SnapshotError, SnapshotPart};
use super::format::{
    Checker, FILE_BYTES_MIN, Footer, Geometry, Header, PartProblem, SNAPSHOT_FOOTER_BYTES,
    SNAPSHOT_HEADER_BYTES,
};
use super::name::SnapshotName;
use super::reader::{SnapshotInfo, SnapshotReader, at_rest, read_exact, torn};
use super::store::Sound;
use crate::options::ClusterId;
use duraft_core::{GroupId, Snapshot, SnapshotFile};
use duraft_disk::{Disk, DiskFile};
use std::sync::Arc;

/// What a file says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotFileFacts {
    /// The cluster it is of.
    pub cluster: ClusterId,
    /// The group it is of.
    pub group: GroupId,
    /// The rest.
    pub info: SnapshotInfo,
}

/// What the file of this name, relative to the disk, says of itself by header and footer. Whether its
/// content fits, reading it to the end with [`read_snapshot_file`] finds out.
pub fn inspect_snapshot_file(
    disk: &dyn Disk,
    path: &str,
) -> Result<SnapshotFileFacts, SnapshotError> {
    Ok(inspect(disk, path)?.1)
}

/// The content of the file of this name, checked as it is read; see [`SnapshotReader`].
pub fn read_snapshot_file(
    disk: &dyn Disk,
    path: &str,
) -> Result<(SnapshotFileFacts, SnapshotReader), SnapshotError> {
    let (file, facts) = inspect(disk, path)?;
    let snapshot = &facts.info.snapshot;
    let checker = Checker::new(facts.cluster, facts.group, snapshot);
    let noted = (Sound::default(), SnapshotName::of(snapshot));
    let reader = SnapshotReader::over(file, path.to_owned(), noted, checker)?;
    Ok((facts, reader))
}

pub(super) fn inspect(
    disk: &dyn Disk,
    path: &str,
) -> Result<(Arc<dyn DiskFile>, SnapshotFileFacts), SnapshotError> {
    let opened = disk.open(path);
    let file = opened.map_err(|error| SnapshotError::opening(path, error))?;
    let bytes = file.len().map_err(SnapshotError::disk)?;
    if bytes < FILE_BYTES_MIN {
        return Err(torn(path, FILE_BYTES_MIN, bytes));
    }
    let mut part = vec![0; SNAPSHOT_HEADER_BYTES];
    read_exact(&*file, path, &mut part, 0)?;
    let header = Header::decode(&part)
        .map_err(|problem| at_rest(path, SnapshotPart::Header, PartProblem::of_header(problem)))?;
    part.truncate(SNAPSHOT_FOOTER_BYTES);
    read_exact(
        &*file,
        path,
        &mut part,
        bytes - SNAPSHOT_FOOTER_BYTES as u64,
    )?;
    let footer = Footer::decode(&part)
        .map_err(|problem| at_rest(path, SnapshotPart::Footer, PartProblem::Damaged(problem)))?;
    let geometry = Geometry::of(bytes, header.chunk_bytes)
        .filter(|g| (g.chunks, g.content_bytes) == (footer.chunks, footer.content_bytes));
    if geometry.is_none() {
        let expected = Geometry::file_bytes(footer.chunks, footer.content_bytes);
        return Err(torn(path, expected.unwrap_or(FILE_BYTES_MIN), bytes));
    }
    let info = SnapshotInfo {
        snapshot: Snapshot {
            position: header.position,
            membership: header.membership,
            file: SnapshotFile {
                nonce: header.nonce,
                bytes,
                digest: footer.digest,
            },
        },
        content_bytes: footer.content_bytes,
        chunks: footer.chunks,
        chunk_bytes: header.chunk_bytes,
    };
    let facts = SnapshotFileFacts {
        cluster: header.cluster,
        group: header.group,
        info,
    };
    Ok((file, facts))
}
