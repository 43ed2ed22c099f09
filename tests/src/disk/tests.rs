//! The disk as the kernel shows it. Needs `/dev/fuse`: `with_fuse` in their names says so.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::channel;
use std::thread;

use super::*;
use crate::WorkDir;

fn mounted() -> (WorkDir, Disk) {
    let dir = WorkDir::new("disk").expect("a directory");
    let disk = Disk::mount(dir.path()).expect("mounted");
    // Dropped in the other order.
    (dir, disk)
}

fn write_synced(dir: &WorkDir, name: &str, text: &str) {
    let mut file = File::create(dir.join(name)).expect("made");
    file.write_all(text.as_bytes()).expect("written");
    file.sync_data().expect("synced");
    File::open(dir.path()).expect("a directory").sync_all().expect("synced");
}

#[test]
fn with_fuse_files_are_files_and_a_cut_takes_what_was_not_synced() {
    let (dir, disk) = mounted();
    fs::create_dir(dir.join("sub")).expect("a directory");
    write_synced(&dir, "kept", "text");
    write_synced(&dir, "more", "text");
    let mut more = OpenOptions::new().append(true).open(dir.join("more")).expect("there");
    more.write_all(b" and more").expect("written");
    fs::write(dir.join("unnamed"), "text").expect("written");
    fs::rename(dir.join("kept"), dir.join("moved")).expect("renamed");
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).expect("listed").map(|entry| entry.expect("one").file_name()).collect();
    names.sort();
    assert_eq!(names, ["more", "moved", "sub", "unnamed"]);
    assert_eq!(fs::read_to_string(dir.join("more")).expect("read"), "text and more");
    drop(more);
    disk.cut_to_synced();
    assert_eq!(fs::read_to_string(dir.join("more")).expect("read"), "text");
    assert_eq!(fs::read_to_string(dir.join("kept")).expect("read"), "text");
    assert!(!dir.join("unnamed").exists() && !dir.join("moved").exists());
}

#[test]
fn with_fuse_the_power_goes_at_the_step_that_was_named() {
    let (dir, disk) = mounted();
    write_synced(&dir, "a", "before");
    disk.arm(Trip { step: Some(Step::Sync), count: 2, is_taken: false });
    let (done, is_done) = channel();
    let path = dir.join("a");
    let writer = thread::spawn(move || {
        let file = OpenOptions::new().write(true).open(path).expect("there");
        for text in ["first.", "second"] {
            file.write_all_at(text.as_bytes(), 0).expect("written");
            done.send(file.sync_data().is_ok()).expect("heard");
        }
    });
    assert_eq!(is_done.recv(), Ok(true));
    while !disk.is_frozen() {
        thread::yield_now();
    }
    assert!(is_done.try_recv().is_err(), "the second sync is never answered");
    disk.power_off();
    assert_eq!(is_done.recv(), Ok(false));
    writer.join().expect("ended");
    disk.cut_to_synced();
    assert_eq!(fs::read_to_string(dir.join("a")).expect("read"), "first.");
}

#[test]
fn with_fuse_syncs_fail_lie_and_reads_fail_as_told() {
    let (dir, disk) = mounted();
    write_synced(&dir, "a", "text");
    let mut file = OpenOptions::new().read(true).append(true).open(dir.join("a")).expect("there");
    disk.set_faults(Faults { failing_syncs: true, unreadable: Some("a".to_owned()), ..Faults::default() });
    file.write_all(b"!").expect("written");
    assert!(file.sync_data().is_err());
    assert!(file.read(&mut [0; 8]).is_err());
    disk.set_faults(Faults { lying_syncs: true, ..Faults::default() });
    file.sync_data().expect("it says so");
    drop(file);
    disk.cut_to_synced();
    assert_eq!(fs::read_to_string(dir.join("a")).expect("read"), "text");
}

#[test]
fn with_fuse_a_full_disk_says_so_before_and_when_it_is() {
    let (dir, disk) = mounted();
    disk.set_room(Some(1 << 20));
    let said = nix::sys::statvfs::statvfs(dir.path()).expect("told");
    assert_eq!(said.blocks_available() * said.fragment_size(), 1 << 20);
    let full = fs::write(dir.join("a"), vec![1; 2 << 20]).expect_err("too much");
    assert_eq!(full.raw_os_error(), Some(nix::errno::Errno::ENOSPC as i32));
}

#[test]
fn with_fuse_bytes_are_damaged_behind_the_back() {
    let (dir, disk) = mounted();
    write_synced(&dir, "a", "text");
    assert!(disk.damage(Path::new("a"), |bytes| bytes[1] = b'o'));
    assert!(!disk.damage(Path::new("b"), |_| ()));
    assert_eq!(fs::read_to_string(dir.join("a")).expect("read"), "toxt");
    assert_eq!(disk.files(), [(PathBuf::from("a"), 4)]);
}
