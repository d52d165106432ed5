//! Damage at rest: durable bytes that change behind the program's back.

use crate::disk::{DiskError, DiskOp};
use crate::fault::{FaultDisk, Life, checked_file};
use crate::image::Image;
use crate::state::noise;
use std::io;
use std::sync::Arc;

/// One damage to one file, or between two places of two files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Damage {
    /// One bit is inverted.
    FlipBit {
        /// The byte.
        offset: u64,
        /// The bit in it, counted from 0; taken modulo 8.
        bit: u8,
    },
    /// A sector reads as zeros.
    ZeroSector {
        /// Its number.
        sector: u64,
    },
    /// A sector holds what it held before its last durable change: a write that was reported and
    /// never happened.
    StaleSector {
        /// Its number.
        sector: u64,
    },
    /// A sector holds arbitrary bytes.
    GarbageSector {
        /// Its number.
        sector: u64,
        /// What the bytes are made from.
        seed: u64,
    },
    /// Two sectors have changed places.
    SwapSectors {
        /// The number of the one.
        sector: u64,
        /// The file of the other; may be the same file.
        other_file: String,
        /// The number of the other.
        other: u64,
    },
    /// The last write of a sector went to another place: its own place is stale, and the other
    /// place has its bytes.
    Misdirect {
        /// Where it belonged.
        sector: u64,
        /// The file it went to; may be the same file.
        other_file: String,
        /// The sector it went to.
        other: u64,
    },
}

impl FaultDisk {
    /// Damages the durable content of a file, and what reads return of it. Pending content is not
    /// touched and still replaces what is damaged when it is synced. Returns whether any byte
    /// changed: zeroing zeros damages nothing.
    ///
    /// Fails with `NotFound` for a file that is not there and `InvalidInput` for a place past its
    /// end. Counts as no operation, and works on crashed disks.
    pub fn damage(&self, file: &str, damage: &Damage) -> Result<bool, DiskError> {
        let mut life = self.life();
        let size = life.options.sector_bytes as u64;
        let own = |sector: u64| Place { file, sector };
        match damage {
            Damage::FlipBit { offset, bit } => {
                let place = own(offset / size);
                let mut bytes = life.durable_sector(place)?;
                let inside = usize::try_from(offset % size).expect("a sector is a few KiB");
                bytes[inside] ^= 1 << (bit % 8);
                life.overwrite(place, &bytes)
            }
            Damage::ZeroSector { sector } => {
                let bytes = vec![0; life.durable_sector(own(*sector))?.len()];
                life.overwrite(own(*sector), &bytes)
            }
            Damage::StaleSector { sector } => {
                let bytes = life.prior_sector(own(*sector))?;
                life.overwrite(own(*sector), &bytes)
            }
            Damage::GarbageSector { sector, seed } => {
                let len = life.durable_sector(own(*sector))?.len();
                life.overwrite(own(*sector), &noise(*seed, len))
            }
            Damage::SwapSectors {
                sector,
                other_file,
                other,
            } => {
                let place = Place {
                    file: other_file,
                    sector: *other,
                };
                let there = life.durable_sector(place)?;
                let here = life.durable_sector(own(*sector))?;
                let changed = life.overwrite(place, &here)?;
                Ok(life.overwrite(own(*sector), &there)? || changed)
            }
            Damage::Misdirect {
                sector,
                other_file,
                other,
            } => {
                let place = Place {
                    file: other_file,
                    sector: *other,
                };
                let here = life.durable_sector(own(*sector))?;
                let stale = life.prior_sector(own(*sector))?;
                let changed = life.overwrite(place, &here)?;
                if place == own(*sector) {
                    return Ok(changed);
                }
                Ok(life.overwrite(own(*sector), &stale)? || changed)
            }
        }
    }

    /// Number of sectors of a file's durable content.
    pub fn sectors(&self, file: &str) -> Result<u64, DiskError> {
        let life = self.life();
        let size = life.options.sector_bytes as u64;
        let id = life.damaged_file(file)?;
        Ok(life.state.inode(id).durable.len().div_ceil(size))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Place<'a> {
    file: &'a str,
    sector: u64,
}

impl Life {
    fn damaged_file(&self, name: &str) -> Result<usize, DiskError> {
        checked_file(DiskOp::Write, name)?;
        self.file(DiskOp::Write, name)
    }

    fn sector_of(
        &self,
        place: Place<'_>,
        of: impl Fn(&crate::state::Inode) -> &Image,
    ) -> Result<Vec<u8>, DiskError> {
        let size = self.options.sector_bytes;
        let id = self.damaged_file(place.file)?;
        let inode = self.state.inode(id);
        if place.sector >= inode.durable.len().div_ceil(size as u64) {
            let kind = io::ErrorKind::InvalidInput;
            return Err(DiskError::new(DiskOp::Write, place.file, kind.into()));
        }
        Ok(of(inode).sector(size, place.sector).to_vec())
    }

    fn durable_sector(&self, place: Place<'_>) -> Result<Vec<u8>, DiskError> {
        self.sector_of(place, |inode| &inode.durable)
    }

    fn prior_sector(&self, place: Place<'_>) -> Result<Vec<u8>, DiskError> {
        self.sector_of(place, |inode| &inode.prior)
    }

    fn overwrite(&mut self, place: Place<'_>, bytes: &[u8]) -> Result<bool, DiskError> {
        let size = self.options.sector_bytes;
        let before = self.durable_sector(place)?;
        let id = self.damaged_file(place.file)?;
        let inode = self.state.inode_mut(id);
        Arc::make_mut(&mut inode.durable).put_sector(size, place.sector, bytes);
        if !inode.sectors.contains_key(&place.sector) {
            Arc::make_mut(&mut inode.live).put_sector(size, place.sector, bytes);
        }
        // Compared after the fact: bytes past the end of the file were not written.
        Ok(self.durable_sector(place)? != before)
    }
}
