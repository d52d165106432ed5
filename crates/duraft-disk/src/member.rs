//! Is a disk that was found after a real crash one of those that the model allows? A model that
//! says no is too kind: it hides states that happen.

use crate::crash::CrashPoint;
use std::collections::BTreeMap;
use std::fmt;

/// Pending changes of names that are tried in all combinations.
const NAME_CHANGES_MAX: usize = 16;

/// Why a found disk is none of those that a crash point may leave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotAllowed {
    /// No combination of pending name changes leaves these names.
    Names {
        /// The names found.
        found: Vec<String>,
        /// The names if all pending changes are lost.
        durable: Vec<String>,
    },
    /// A file has a length that it never had since its last sync.
    Length {
        /// The file.
        file: String,
        /// The length found.
        found: u64,
        /// The lengths that may be.
        allowed: Vec<u64>,
    },
    /// A sector has a content that it never had since its last sync.
    Sector {
        /// The file.
        file: String,
        /// The sector's number in the file.
        sector: u64,
        /// How many contents may be.
        allowed: usize,
    },
    /// There are more pending changes of names than can be tried.
    TooManyNames {
        /// How many there are.
        pending: usize,
    },
}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotAllowed::Names { found, durable } => {
                write!(
                    f,
                    "names {found:?} are not allowed; durable are {durable:?}"
                )
            }
            NotAllowed::Length {
                file,
                found,
                allowed,
            } => write!(f, "{file} has {found} bytes; allowed are {allowed:?}"),
            NotAllowed::Sector {
                file,
                sector,
                allowed,
            } => write!(
                f,
                "{file} sector {sector} has none of the {allowed} contents that are allowed"
            ),
            NotAllowed::TooManyNames { pending } => write!(
                f,
                "{pending} pending changes of names; at most {NAME_CHANGES_MAX} can be tried"
            ),
        }
    }
}

impl std::error::Error for NotAllowed {}

impl CrashPoint {
    /// Is a disk with these files, by name, and no others one that a power loss at this point may
    /// leave? Folders are not compared. Sectors are whole: a torn one is not allowed.
    pub fn allows(&self, files: &BTreeMap<String, Vec<u8>>) -> Result<(), NotAllowed> {
        let pending = self.name_changes();
        if pending > NAME_CHANGES_MAX {
            return Err(NotAllowed::TooManyNames { pending });
        }
        let mut reason = None;
        for subset in 0..1_u32 << pending {
            let names = self.names_after(|change| subset & (1 << change) > 0);
            if !names
                .keys()
                .map(|name| &**name)
                .eq(files.keys().map(String::as_str))
            {
                continue;
            }
            let wrong = names
                .iter()
                .zip(files.values())
                .find_map(|((name, inode), bytes)| self.content_allowed(name, *inode, bytes).err());
            match wrong {
                None => return Ok(()),
                Some(wrong) => reason = reason.or(Some(wrong)),
            }
        }
        Err(reason.unwrap_or_else(|| NotAllowed::Names {
            found: files.keys().cloned().collect(),
            durable: self
                .names_after(|_| false)
                .into_keys()
                .map(String::from)
                .collect(),
        }))
    }

    fn content_allowed(&self, name: &str, inode: usize, bytes: &[u8]) -> Result<(), NotAllowed> {
        let found = bytes.len() as u64;
        let allowed = self.lengths_of(inode);
        if !allowed.contains(&found) {
            return Err(NotAllowed::Length {
                file: name.to_owned(),
                found,
                allowed,
            });
        }
        for (sector, bytes) in (0..).zip(bytes.chunks(self.sector_bytes())) {
            let contents = self.contents_of(inode, sector);
            if !contents.iter().any(|content| content.starts_with(bytes)) {
                return Err(NotAllowed::Sector {
                    file: name.to_owned(),
                    sector,
                    allowed: contents.len(),
                });
            }
        }
        Ok(())
    }
}
