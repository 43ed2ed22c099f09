//! A backup that is brought back, and backups that are refused.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use bytes::Bytes;
use proto_wire::pb;

use super::world::{Dir, World, tool};
use crate::keys;
use crate::offline::backup::Manifest;
use crate::offline::restore::{RestoreError, restore};

/// What a phone holds: the newest state of each item, and its cursor.
#[derive(Default)]
struct Phone {
    items: BTreeMap<(u64, u64), pb::Change>,
    cursor: pb::Cursor,
    snapshots: u32,
}

impl Phone {
    /// Pulls until it has all, as the phone of the client protocol does: it refuses an epoch below its own.
    fn pull(&mut self, world: &mut World, user: u64) {
        let mut snapshot_at = Bytes::new();
        loop {
            let page = world.pull(user, self.cursor, snapshot_at.clone());
            assert!(page.log_epoch >= self.cursor.log_epoch, "phones refuse a lower epoch");
            if page.snapshot {
                self.snapshots += u32::from(snapshot_at.is_empty());
                if snapshot_at.is_empty() {
                    self.items.clear();
                }
            } else {
                assert!(self.cursor.number == 0 || page.log_epoch == self.cursor.log_epoch);
                assert_eq!(page.after, self.cursor.number);
            }
            for change in page.changes {
                let item = change.item.expect("an item");
                let newest = self.items.entry((item.origin, item.number)).or_insert_with(|| change.clone());
                if change.version >= newest.version {
                    *newest = change;
                }
            }
            snapshot_at = page.snapshot_next;
            if snapshot_at.is_empty() {
                self.cursor = pb::Cursor { log_epoch: page.log_epoch, number: page.upto };
            }
            if !page.more {
                return;
            }
        }
    }

    fn states(&self) -> Vec<&Option<pb::change::Body>> {
        self.items.values().map(|change| &change.body).collect()
    }
}

#[test]
fn a_phone_that_is_beyond_a_restored_log_takes_a_snapshot_and_loses_nothing_that_was_in_the_backup() {
    let (dir, copy, anew) = (Dir::new(), Dir::new(), Dir::new());
    let copy_name = copy.0.to_str().expect("a plain path");
    World::lived_in(&dir.0, 3);
    let issuer = keys::open(&dir.join("keys")).expect("made").public_pem();
    tool(&["backup", copy_name], &dir.0).expect("taken");

    let mut world = World::open(&dir.0, 3);
    let mut phone = Phone::default();
    phone.pull(&mut world, 1);
    let in_backup = phone.items.clone();
    let at_backup = phone.cursor;
    for text in ["after", "the", "backup"] {
        world.send(1, 2, text);
    }
    phone.pull(&mut world, 1);
    assert!(phone.cursor.number > at_backup.number && phone.snapshots == 0);
    drop(world);

    let said = tool(&["restore", copy_name], &anew.0).expect("restored");
    assert!(said.contains("log_epoch was 1 and is"), "{said}");
    assert_eq!(keys::open(&anew.join("keys")).expect("copied").public_pem(), issuer);
    let mode = fs::metadata(anew.join("keys/issuer.pem")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    tool(&["check"], &anew.0).expect("whole");

    let mut world = World::open(&anew.0, 3);
    // The log goes beyond the phone's cursor again: only the epoch tells that it is another.
    for _ in 0..6 {
        world.send(1, 3, "another life");
    }
    phone.pull(&mut world, 1);
    assert_eq!((phone.snapshots, phone.cursor.log_epoch > 1), (1, true));
    for (item, change) in &in_backup {
        assert_eq!(phone.items.get(item).map(|held| &held.body), Some(&change.body), "{item:?}");
    }
    let mut fresh = Phone::default();
    fresh.pull(&mut world, 1);
    assert_eq!(fresh.states(), phone.states());
}

#[test]
fn each_restore_begins_a_higher_epoch_whichever_backup_it_is_of() {
    let (dir, copy) = (Dir::new(), Dir::new());
    World::lived_in(&dir.0, 1);
    tool(&["backup", copy.0.to_str().expect("a plain path")], &dir.0).expect("taken");
    let mut epochs = Vec::new();
    // By a clock that stands, by one that goes on, and by one that is years behind.
    for unix_ms in [1_800_000_000_000, 1_800_000_001_000, 0] {
        let anew = Dir::new();
        let restored = restore(&copy.0, &anew.0, unix_ms).expect("restored");
        assert_eq!(anew.store().log_epoch, restored.log_epoch);
        assert_eq!(restored.manifest.log_epoch, 1);
        epochs.push(restored.log_epoch);
    }
    assert_eq!(epochs, [32_774_400, 32_774_401, 2]);
}

#[test]
fn a_backup_that_is_damaged_or_not_whole_is_refused_by_name_and_nothing_is_written() {
    let (dir, copy) = (Dir::new(), Dir::new());
    World::lived_in(&dir.0, 2);
    keys::open(&dir.join("keys")).expect("made");
    tool(&["backup", copy.0.to_str().expect("a plain path")], &dir.0).expect("taken");
    let refused = |name: &str, bytes: &[u8]| {
        let path = copy.join(name);
        let whole = fs::read(&path).expect("a file of the backup");
        fs::write(&path, bytes).expect("written");
        let anew = Dir::new();
        let error = restore(&copy.0, &anew.0, 0).expect_err("damaged");
        assert!(!anew.join("store").exists() && !anew.join("keys").exists());
        fs::write(&path, whole).expect("written");
        error.to_string()
    };
    let whole = fs::read(copy.join("p1.rows")).expect("rows");
    for at in [0, 20, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        let error = refused("p1.rows", &bytes);
        assert!(error.contains("p1.rows is damaged") && error.contains("nothing was restored"), "{error}");
    }
    assert!(refused("p1.rows", &whole[..whole.len() / 2]).contains("p1.rows is damaged"));
    assert!(refused("p1.rows", &[&whole[..], b"x"].concat()).contains("something follows its end"));
    let other = fs::read(copy.join("p0.rows")).expect("rows");
    assert!(
        refused("p1.rows", &other).contains("p1.rows is damaged: a row in it belongs to another partition")
    );
    assert!(refused("keys/issuer.pem", b"no key").contains("issuer.pem is damaged"));
    let manifest = fs::read_to_string(copy.join("MANIFEST")).expect("text");
    let changed = manifest.replace("\"partitions\": 2", "\"partitions\": 1");
    assert!(refused("MANIFEST", changed.as_bytes()).contains("MANIFEST is damaged: its checksum is wrong"));
    let json =
        manifest.rsplit_once("\nblake3").expect("a checksum").0.replace("\"format\": 1", "\"format\": 2");
    let newer = format!("{json}\nblake3 {}\n", blake3::hash(json.as_bytes()));
    assert!(refused("MANIFEST", newer.as_bytes()).contains("has format 2, and this program knows 1"));
    fs::remove_file(copy.join("p0.rows")).expect("removed");
    let anew = Dir::new();
    let missing = restore(&copy.0, &anew.0, 0).expect_err("a file is missing").to_string();
    assert!(missing.contains("p0.rows is damaged: No such file"), "{missing}");
    fs::remove_file(copy.join("MANIFEST")).expect("removed");
    let error = restore(&copy.0, &anew.0, 0);
    assert!(matches!(error, Err(RestoreError::NoManifest(_))), "{error:?}");
}

#[test]
fn a_backup_of_a_store_in_use_and_one_over_another_are_refused() {
    let (dir, copy) = (Dir::new(), Dir::new());
    let copy_name = copy.0.to_str().expect("a plain path");
    World::lived_in(&dir.0, 1);
    let held = World::open(&dir.0, 1);
    let error = tool(&["backup", copy_name], &dir.0).expect_err("in use");
    assert!(error.contains("in use by another process"), "{error}");
    drop(held);
    tool(&["backup", copy_name], &dir.0).expect("taken");
    let error = tool(&["backup", copy_name], &dir.0).expect_err("there is one");
    assert!(error.contains("holds something already"), "{error}");
    let error = tool(&["restore", copy_name], &dir.0).expect_err("a store is there");
    assert!(error.contains("is not empty"), "{error}");
}

#[test]
fn a_restore_that_was_killed_is_done_again() {
    let (dir, copy, anew) = (Dir::new(), Dir::new(), Dir::new());
    let copy_name = copy.0.to_str().expect("a plain path");
    World::lived_in(&dir.0, 1);
    keys::open(&dir.join("keys")).expect("made");
    tool(&["backup", copy_name], &dir.0).expect("taken");
    // As it is when the store is all there and lacks its name.
    tool(&["restore", copy_name], &anew.0).expect("restored");
    fs::rename(anew.join("store"), anew.join("store.restoring")).expect("renamed");
    let config = crate::config::BackendConfig { data: anew.0.clone(), ..Default::default() };
    let refused = crate::embedded::start(config).err().expect("no backend begins on it").to_string();
    assert!(refused.contains("a restore into this data directory was killed"), "{refused}");
    tool(&["restore", copy_name], &anew.0).expect("restored");
    tool(&["check"], &anew.0).expect("whole");
    assert!(!anew.join("store.restoring").exists());
}

#[test]
fn a_manifest_says_what_is_in_the_backup() {
    let (dir, copy) = (Dir::new(), Dir::new());
    World::lived_in(&dir.0, 2);
    tool(&["backup", copy.0.to_str().expect("a plain path")], &dir.0).expect("taken");
    let text = fs::read_to_string(copy.join("MANIFEST")).expect("text");
    let manifest: Manifest =
        serde_json::from_str(text.rsplit_once("\nblake3").expect("a checksum").0).expect("JSON");
    let store = dir.store();
    let rows: u64 = (0..2).map(|partition| store.all(partition).count() as u64).sum();
    assert_eq!((manifest.format, manifest.partitions, manifest.rows), (1, 2, rows));
    for file in &manifest.files {
        let bytes = fs::read(copy.join(&file.name)).expect("there");
        assert_eq!((bytes.len() as u64, blake3::hash(&bytes).to_string()), (file.bytes, file.blake3.clone()));
    }
}
