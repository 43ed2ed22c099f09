//! Merging all tables of a store that nobody has open.

use super::directory::{Directory, Version};
use super::{OpenError, Options, open_engine, trim};

/// Writes what is in memory to tables and merges all tables of each partition: deleted and replaced rows give their room
/// back. The store must be there. `each` hears of each partition that begins.
/// The lines are those of `Opened::cut`.
pub fn compact(options: &Options, mut each: impl FnMut(u16, u16)) -> Result<Vec<String>, OpenError> {
    let made = Version { partitions: options.partitions, log_epoch: options.log_epoch, owner_epoch: 0 };
    let directory = Directory::open(&options.dir, made)?;
    directory.name_partitions()?;
    let mut cut = Vec::new();
    for index in 0..directory.partitions {
        each(index, directory.partitions);
        let path = directory.partition(index);
        let (database, keyspace) = open_engine(&path, options, directory.partitions, None, &mut cut)?;
        let damaged = |cause| match cause {
            fjall::Error::Io(cause) => OpenError::Io { dir: path.clone(), cause },
            cause => OpenError::Damaged { dir: path.clone(), cause },
        };
        keyspace.rotate_memtable_and_wait().map_err(damaged)?;
        keyspace.major_compact().map_err(damaged)?;
        drop((keyspace, database));
        // All is in tables now.
        trim::trim(&path).map_err(|cause| OpenError::Io { dir: path, cause })?;
    }
    Ok(cut)
}
