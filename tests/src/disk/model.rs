//! A file system that knows what is on its disk: files and names as they are, and as they were synced.
//!
//! Stricter than most: a name is on the disk only when its directory was synced after it was given, whatever was
//! synced of the file. What is strict here is allowed by POSIX, and journals of file systems differ in what they
//! give on top.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::contents::{Contents, Survival};

pub type Ino = u64;

pub const ROOT: Ino = 1;

#[derive(Debug, Clone)]
pub struct Model {
    inodes: HashMap<Ino, Inode>,
    last: Ino,
    /// Changes of names since their directories were synced, in order.
    pending: Vec<NameChange>,
    /// What may still be written before the disk is full; none: as much as one likes.
    pub room: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct Inode {
    pub kind: Kind,
    pub mode: u32,
    pub changed: SystemTime,
    opened: u32,
}

#[derive(Debug, Clone)]
pub enum Kind {
    File(Contents),
    Directory(Directory),
}

#[derive(Debug, Clone, Default)]
pub struct Directory {
    pub names: BTreeMap<OsString, Ino>,
    synced: BTreeMap<OsString, Ino>,
}

/// Happens as a whole or not at all.
#[derive(Debug, Clone)]
struct NameChange(Vec<(Ino, OsString, Option<Ino>)>);

/// Which of the pending changes of names outlive a cut.
#[derive(Debug, Clone, Copy)]
enum Names {
    None,
    /// The first ones, as a journal of metadata keeps them.
    First(usize),
    Each(f64),
}

impl Model {
    pub fn new(mode: u32) -> Self {
        let root = Inode::new(Kind::Directory(Directory::default()), mode);
        Self { inodes: HashMap::from([(ROOT, root)]), last: ROOT, pending: Vec::new(), room: None }
    }

    pub fn inode(&self, ino: Ino) -> Result<&Inode, Errno> {
        self.inodes.get(&ino).ok_or(Errno::ESTALE)
    }

    pub fn directory(&self, ino: Ino) -> Result<&Directory, Errno> {
        match &self.inode(ino)?.kind {
            Kind::Directory(directory) => Ok(directory),
            Kind::File(_) => Err(Errno::ENOTDIR),
        }
    }

    pub fn file(&self, ino: Ino) -> Result<&Contents, Errno> {
        match &self.inode(ino)?.kind {
            Kind::File(contents) => Ok(contents),
            Kind::Directory(_) => Err(Errno::EISDIR),
        }
    }

    fn inode_mut(&mut self, ino: Ino) -> Result<&mut Inode, Errno> {
        let inode = self.inodes.get_mut(&ino).ok_or(Errno::ESTALE)?;
        inode.changed = SystemTime::now();
        Ok(inode)
    }

    fn file_mut(&mut self, ino: Ino) -> Result<&mut Contents, Errno> {
        match &mut self.inode_mut(ino)?.kind {
            Kind::File(contents) => Ok(contents),
            Kind::Directory(_) => Err(Errno::EISDIR),
        }
    }

    fn directory_mut(&mut self, ino: Ino) -> Result<&mut Directory, Errno> {
        match &mut self.inode_mut(ino)?.kind {
            Kind::Directory(directory) => Ok(directory),
            Kind::File(_) => Err(Errno::ENOTDIR),
        }
    }

    pub fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Ino, Errno> {
        self.directory(parent)?.names.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub fn create(&mut self, parent: Ino, name: &OsStr, mode: u32) -> Result<Ino, Errno> {
        self.make(parent, name, Kind::File(Contents::default()), mode)
    }

    pub fn make_directory(&mut self, parent: Ino, name: &OsStr, mode: u32) -> Result<Ino, Errno> {
        self.make(parent, name, Kind::Directory(Directory::default()), mode)
    }

    fn make(&mut self, parent: Ino, name: &OsStr, kind: Kind, mode: u32) -> Result<Ino, Errno> {
        if self.lookup(parent, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        self.last += 1;
        self.inodes.insert(self.last, Inode::new(kind, mode));
        self.change_names(vec![(parent, name.to_owned(), Some(self.last))])?;
        Ok(self.last)
    }

    pub fn unlink(&mut self, parent: Ino, name: &OsStr) -> Result<(), Errno> {
        let ino = self.lookup(parent, name)?;
        if self.directory(ino).is_ok_and(|directory| !directory.names.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        self.change_names(vec![(parent, name.to_owned(), None)])
    }

    pub fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr)) -> Result<(), Errno> {
        let ino = self.lookup(from.0, from.1)?;
        self.change_names(vec![(from.0, from.1.to_owned(), None), (to.0, to.1.to_owned(), Some(ino))])
    }

    fn change_names(&mut self, changes: Vec<(Ino, OsString, Option<Ino>)>) -> Result<(), Errno> {
        for (parent, name, ino) in &changes {
            let names = &mut self.directory_mut(*parent)?.names;
            match ino {
                Some(ino) => names.insert(name.clone(), *ino),
                None => names.remove(name),
            };
        }
        self.pending.push(NameChange(changes));
        Ok(())
    }

    pub fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let needed = self.file(ino)?.would_allocate(offset, bytes.len());
        if let Some(room) = &mut self.room {
            *room = room.checked_sub(needed).ok_or(Errno::ENOSPC)?;
        }
        self.file_mut(ino)?.write(offset, bytes);
        Ok(())
    }

    pub fn set_size(&mut self, ino: Ino, size: u64) -> Result<(), Errno> {
        let file = self.file_mut(ino)?;
        let before = file.allocated();
        file.set_size(size);
        let freed = before - file.allocated();
        self.give_back(freed);
        Ok(())
    }

    pub fn set_mode(&mut self, ino: Ino, mode: u32) -> Result<(), Errno> {
        self.inode_mut(ino)?.mode = mode;
        Ok(())
    }

    pub fn opened(&mut self, ino: Ino) -> Result<(), Errno> {
        self.inodes.get_mut(&ino).ok_or(Errno::ESTALE)?.opened += 1;
        Ok(())
    }

    pub fn closed(&mut self, ino: Ino) {
        // One that was opened before a cut may be gone.
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.opened = inode.opened.saturating_sub(1);
        }
        self.forget_unnamed();
    }

    /// What was written to the file is on the disk; its name need not be.
    pub fn sync(&mut self, ino: Ino) -> Result<(), Errno> {
        match &mut self.inodes.get_mut(&ino).ok_or(Errno::ESTALE)?.kind {
            Kind::File(contents) => contents.sync(),
            Kind::Directory(_) => return self.sync_names(ino),
        }
        Ok(())
    }

    /// The names of a directory are on the disk.
    pub fn sync_names(&mut self, ino: Ino) -> Result<(), Errno> {
        self.directory(ino)?;
        let mut synced = HashSet::from([ino]);
        // A change of two directories takes the earlier ones of both along.
        loop {
            let before = synced.len();
            for change in &self.pending {
                if change.0.iter().any(|(parent, ..)| synced.contains(parent)) {
                    synced.extend(change.0.iter().map(|(parent, ..)| *parent));
                }
            }
            if synced.len() == before {
                break;
            }
        }
        let (landed, rest) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|change: &NameChange| synced.contains(&change.0[0].0));
        self.pending = rest;
        let landed: Vec<NameChange> = landed;
        landed.iter().for_each(|change| self.land(change));
        self.forget_unnamed();
        Ok(())
    }

    fn land(&mut self, change: &NameChange) {
        for (parent, name, ino) in &change.0 {
            let Some(Inode { kind: Kind::Directory(directory), .. }) = self.inodes.get_mut(parent) else {
                continue;
            };
            match ino {
                Some(ino) => directory.synced.insert(name.clone(), *ino),
                None => directory.synced.remove(name),
            };
        }
    }

    /// The power goes. What was not synced is there, torn, in another order, or not at all, as the seed says.
    pub fn cut(&mut self, seed: u64) -> String {
        let mut random = StdRng::seed_from_u64(seed);
        let survival = match random.random_range(0..8) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            2 => Survival::Some(0.9),
            3 => Survival::Some(0.1),
            _ => Survival::Some(0.5),
        };
        let names = match random.random_range(0..4) {
            0 => Names::None,
            1 => Names::Each(0.5),
            _ => Names::First(random.random_range(0..=self.pending.len())),
        };
        self.cut_as(survival, names, &mut random)
    }

    /// The power goes, and nothing is there but what was synced.
    pub fn cut_to_synced(&mut self) -> String {
        self.cut_as(Survival::Nothing, Names::None, &mut StdRng::seed_from_u64(0))
    }

    fn cut_as(&mut self, survival: Survival, names: Names, random: &mut StdRng) -> String {
        let pending = std::mem::take(&mut self.pending);
        let all = pending.len();
        let mut kept = 0;
        for (at, change) in pending.iter().enumerate() {
            let survives = match names {
                Names::None => false,
                Names::First(count) => at < count,
                Names::Each(chance) => random.random_bool(chance),
            };
            if survives {
                kept += 1;
                self.land(change);
            }
        }
        let mut unsynced = 0;
        // In the order of their numbers, so that a seed gives the same every time.
        let mut inos: Vec<Ino> = self.inodes.keys().copied().collect();
        inos.sort_unstable();
        for ino in inos {
            let Some(inode) = self.inodes.get_mut(&ino) else { continue };
            inode.opened = 0;
            match &mut inode.kind {
                Kind::File(contents) => {
                    unsynced += usize::from(!contents.is_synced());
                    contents.cut(survival, random);
                }
                Kind::Directory(directory) => directory.names = directory.synced.clone(),
            }
        }
        self.forget_unnamed();
        format!("{kept} of {all} unsynced names and {survival:?} of {unsynced} unsynced files survive")
    }

    /// The path of a file below the root.
    pub fn path(&self, ino: Ino) -> Option<PathBuf> {
        self.walk().into_iter().find(|(_, found)| *found == ino).map(|(path, _)| path)
    }

    pub fn find(&self, path: &Path) -> Option<Ino> {
        path.iter().try_fold(ROOT, |parent, name| self.lookup(parent, name).ok())
    }

    /// All files with their sizes.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let sized = |(path, ino)| Some((path, self.file(ino).ok()?.size()));
        self.walk().into_iter().filter_map(sized).collect()
    }

    fn walk(&self) -> Vec<(PathBuf, Ino)> {
        let (mut found, mut at) = (vec![(PathBuf::new(), ROOT)], 0);
        while let Some((path, ino)) = found.get(at).cloned() {
            at += 1;
            if let Ok(directory) = self.directory(ino) {
                found.extend(directory.names.iter().map(|(name, ino)| (path.join(name), *ino)));
            }
        }
        found
    }

    /// Lets go of what has no name, on the disk or off it, and is not open.
    fn forget_unnamed(&mut self) {
        let mut named = HashSet::from([ROOT]);
        named.extend(self.pending.iter().flat_map(|change| change.0.iter().filter_map(|(.., ino)| *ino)));
        for inode in self.inodes.values() {
            if let Kind::Directory(directory) = &inode.kind {
                named.extend(directory.names.values().chain(directory.synced.values()));
            }
        }
        let mut freed = 0;
        self.inodes.retain(|ino, inode| {
            let stays = named.contains(ino) || inode.opened > 0;
            if let (false, Kind::File(contents)) = (stays, &inode.kind) {
                freed += contents.allocated();
            }
            stays
        });
        self.give_back(freed);
    }

    fn give_back(&mut self, bytes: u64) {
        if let Some(room) = &mut self.room {
            *room += bytes;
        }
    }
}

impl Inode {
    fn new(kind: Kind, mode: u32) -> Self {
        Self { kind, mode, changed: SystemTime::now(), opened: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> &OsStr {
        OsStr::new(name)
    }

    #[test]
    fn a_synced_file_without_a_synced_name_is_gone() {
        let mut disk = Model::new(0o755);
        let ino = disk.create(ROOT, name("a"), 0o644).expect("made");
        disk.write(ino, 0, b"text").expect("written");
        disk.sync(ino).expect("synced");
        let mut cut = disk.clone();
        cut.cut_to_synced();
        assert_eq!(cut.lookup(ROOT, name("a")), Err(Errno::ENOENT));
        disk.sync_names(ROOT).expect("synced");
        disk.cut_to_synced();
        assert_eq!(disk.file(ino).expect("there").read(0, 10), b"text");
    }

    #[test]
    fn a_rename_is_whole_or_not_at_all() {
        let mut disk = Model::new(0o755);
        for (file, text) in [("old", "1"), ("new", "2")] {
            let ino = disk.create(ROOT, name(file), 0o644).expect("made");
            disk.write(ino, 0, text.as_bytes()).expect("written");
            disk.sync(ino).expect("synced");
        }
        disk.sync_names(ROOT).expect("synced");
        disk.rename((ROOT, name("new")), (ROOT, name("old"))).expect("renamed");
        let mut seen = HashSet::new();
        for seed in 0..40 {
            let mut cut = disk.clone();
            cut.cut(seed);
            let text =
                cut.file(cut.lookup(ROOT, name("old")).expect("always there")).expect("a file").read(0, 9);
            let is_both = cut.lookup(ROOT, name("new")).is_ok();
            assert_eq!(is_both, text == b"1", "seed {seed}");
            seen.insert(text);
        }
        assert_eq!(seen.len(), 2, "both come about");
    }

    #[test]
    fn a_full_disk_takes_nothing_more_until_something_goes() {
        let mut disk = Model::new(0o755);
        disk.room = Some(8_192);
        let ino = disk.create(ROOT, name("a"), 0o644).expect("made");
        disk.set_size(ino, 1 << 30).expect("a hole takes no room");
        disk.write(ino, 0, &[1; 8_192]).expect("there is room");
        assert_eq!(disk.write(ino, 8_192, &[1]), Err(Errno::ENOSPC));
        disk.write(ino, 10, b"over what is there").expect("no more room is needed");
        disk.unlink(ROOT, name("a")).expect("gone");
        disk.sync_names(ROOT).expect("synced");
        assert_eq!(disk.room, Some(8_192));
    }

    #[test]
    fn what_is_open_outlives_its_name() {
        let mut disk = Model::new(0o755);
        let ino = disk.create(ROOT, name("a"), 0o644).expect("made");
        disk.opened(ino).expect("there");
        disk.unlink(ROOT, name("a")).expect("gone");
        disk.sync_names(ROOT).expect("synced");
        disk.write(ino, 0, b"x").expect("still there");
        disk.closed(ino);
        assert_eq!(disk.write(ino, 0, b"x"), Err(Errno::ESTALE));
    }

    #[test]
    fn the_same_seed_cuts_the_same() {
        let mut disk = Model::new(0o755);
        for at in 0..20 {
            let ino = disk.create(ROOT, name(&format!("f{at}")), 0o644).expect("made");
            disk.write(ino, 0, &[at; 3_000]).expect("written");
        }
        let left = |seed| {
            let mut cut = disk.clone();
            cut.cut(seed);
            let names = &cut.directory(ROOT).expect("the root").names;
            names
                .iter()
                .map(|(name, ino)| (name.clone(), cut.file(*ino).expect("a file").read(0, 9_000)))
                .collect::<Vec<_>>()
        };
        assert!((0..20).all(|seed| left(seed) == left(seed)));
        assert!((1..20).any(|seed| left(seed) != left(0)));
    }
}
