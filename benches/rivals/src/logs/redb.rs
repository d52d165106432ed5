//! redb: a table from index to entry, one transaction per batch with `Durability::Immediate`, its default.

use super::Log;
use crate::Result;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::ops::RangeBounds;
use std::path::Path;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

pub(super) fn open(dir: &Path) -> Result<Box<dyn Log>> {
    std::fs::create_dir_all(dir)?;
    Ok(Box::new(Database::create(dir.join("log.redb"))?))
}

fn remove(database: &Database, indices: impl RangeBounds<u64> + 'static) -> Result<()> {
    let write = database.begin_write()?;
    write.open_table(LOG)?.retain_in(indices, |_, _| false)?;
    Ok(write.commit()?)
}

impl Log for Database {
    fn append(&self, _appender: u64, batch: &[&[u8]]) -> Result<()> {
        let write = self.begin_write()?;
        let mut table = write.open_table(LOG)?;
        let next = table.last()?.map_or(1, |(last, _)| last.value() + 1);
        for (index, entry) in (next..).zip(batch) {
            table.insert(index, *entry)?;
        }
        drop(table);
        Ok(write.commit()?)
    }

    fn bounds(&self) -> Result<(u64, u64)> {
        let table = self.begin_read()?.open_table(LOG)?;
        let first = table.first()?.ok_or("an empty log")?.0.value();
        Ok((first, table.last()?.ok_or("an empty log")?.0.value()))
    }

    fn read(&self, first: u64, last: u64) -> Result<u64> {
        let table = self.begin_read()?.open_table(LOG)?;
        let mut bytes = 0;
        for entry in table.range(first..=last)? {
            bytes += entry?.1.value().to_vec().len() as u64;
        }
        Ok(bytes)
    }

    fn truncate(&self, from: u64) -> Result<()> {
        remove(self, from..)
    }

    fn purge(&self, upto: u64) -> Result<()> {
        remove(self, ..=upto)
    }
}
