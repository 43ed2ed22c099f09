//! What the kernel asks of the disk.

use std::ffi::OsStr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fuser::{
    FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::errno::Errno;

use super::model::{Ino, Inode, Kind, Model, ROOT};
use super::power::{Shared, Step};

/// Nothing is cached: after a cut the kernel asks again.
const TTL: Duration = Duration::ZERO;

const BLOCK_BYTES: u32 = 4096;

/// What a disk without a bound says it has.
const PLENTY_BYTES: u64 = 1 << 40;

const NAME_BYTES_MAX: u32 = 255;

pub(super) struct Files {
    shared: Arc<Shared>,
}

impl Files {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn attributes(&self, ino: Ino) -> Result<FileAttr, Errno> {
        self.shared.look(|state| state.model.inode(ino).map(|inode| attributes(ino, inode)))
    }

    /// The syncs of a file or of a directory, as slow and as honest as the disk is.
    fn sync(&self, step: Step, ino: Ino, reply: ReplyEmpty) {
        let mut state = self.shared.lock();
        let (faults, after_us) = (state.faults.clone(), state.sync_us());
        drop(state);
        let shared = self.shared.clone();
        let sync = move || {
            if faults.failing_syncs {
                return reply.error(fuser::Errno::EIO);
            }
            let done = shared.step(step, |model| if faults.lying_syncs { Ok(()) } else { model.sync(ino) });
            end(reply, done);
        };
        if after_us == 0 {
            return sync();
        }
        // The others go on meanwhile, as with a disk that has a queue.
        thread::spawn(move || {
            thread::sleep(Duration::from_micros(after_us));
            sync();
        });
    }
}

fn attributes(ino: Ino, inode: &Inode) -> FileAttr {
    let (kind, size, allocated) = match &inode.kind {
        Kind::File(contents) => (FileType::RegularFile, contents.size(), contents.allocated()),
        Kind::Directory(_) => (FileType::Directory, 0, 0),
    };
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: allocated / 512,
        atime: inode.changed,
        mtime: inode.changed,
        ctime: inode.changed,
        crtime: inode.changed,
        kind,
        perm: (inode.mode & 0o7777) as u16,
        nlink: 1,
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

fn errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno as i32)
}

fn end(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.shared.look(|state| {
            let ino = state.model.lookup(parent.0, name)?;
            state.model.inode(ino).map(|inode| attributes(ino, inode))
        });
        match found {
            Ok(found) => reply.entry(&TTL, &found, Generation(0)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino.0) {
            Ok(found) => reply.attr(&TTL, &found),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = self.shared.step(Step::SetSize, |model| {
            if let Some(mode) = mode {
                model.set_mode(ino.0, mode)?;
            }
            size.map_or(Ok(()), |size| model.set_size(ino.0, size))?;
            model.inode(ino.0).map(|inode| attributes(ino.0, inode))
        });
        match set {
            Ok(set) => reply.attr(&TTL, &set),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let made = self.shared.step(Step::Create, |model| {
            let ino = model.make_directory(parent.0, name, mode & !umask)?;
            model.inode(ino).map(|inode| attributes(ino, inode))
        });
        match made {
            Ok(made) => reply.entry(&TTL, &made, Generation(0)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        end(reply, self.shared.step(Step::Unlink, |model| model.unlink(parent.0, name)));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.unlink(request, parent, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to_parent: INodeNo,
        to_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let rename = |model: &mut Model| model.rename((parent.0, name), (to_parent.0, to_name));
        end(reply, self.shared.step(Step::Rename, rename));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let made = self.shared.step(Step::Create, |model| {
            let ino = model.create(parent.0, name, mode & !umask)?;
            model.opened(ino)?;
            model.inode(ino).map(|inode| attributes(ino, inode))
        });
        match made {
            Ok(made) => reply.created(&TTL, &made, Generation(0), FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self.shared.look(|_| Ok(())).and_then(|()| self.shared.lock().model.opened(ino.0));
        match opened {
            // Past the page cache: every read comes here, and none is answered with what a cut has taken.
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.shared.lock().model.closed(ino.0);
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.shared.look(|state| {
            if let Some(part) = &state.faults.unreadable
                && state.model.path(ino.0).is_some_and(|path| path.to_string_lossy().contains(part))
            {
                return Err(Errno::EIO);
            }
            Ok(state.model.file(ino.0)?.read(offset, size as usize))
        });
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.shared.step(Step::Write, |model| model.write(ino.0, offset, data)) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(Step::Sync, ino.0, reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(Step::SyncNames, ino.0, reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = self.shared.look(|state| {
            let mut entries = vec![
                (ino.0, FileType::Directory, OsStr::new(".").to_owned()),
                (ROOT, FileType::Directory, OsStr::new("..").to_owned()),
            ];
            for (name, ino) in &state.model.directory(ino.0)?.names {
                let kind = match state.model.inode(*ino)?.kind {
                    Kind::File(_) => FileType::RegularFile,
                    Kind::Directory(_) => FileType::Directory,
                };
                entries.push((*ino, kind, name.clone()));
            }
            Ok(entries)
        });
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => return reply.error(errno(error)),
        };
        for (at, (ino, kind, name)) in entries.into_iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(ino), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let room = self.shared.lock().model.room.unwrap_or(PLENTY_BYTES) / u64::from(BLOCK_BYTES);
        let all = PLENTY_BYTES / u64::from(BLOCK_BYTES);
        reply.statfs(all, room, room, 1 << 20, 1 << 20, BLOCK_BYTES, NAME_BYTES_MAX, BLOCK_BYTES);
    }
}
