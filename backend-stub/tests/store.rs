//! The embedded store on a real disk: killed, locked, of a newer version, torn.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::{env, process};

use backend_stub::storage::embedded::{Embedded, OpenError, Opened, Options};
use backend_stub::storage::{Batch, ChangeLog, Completion, Query, Read};

/// Names the directory for the child of `killed_at_any_moment`.
const CHILD: &str = "MOORGATE_STORE_CHILD";

/// The same for the child that merges damaged tables.
const MERGING_CHILD: &str = "MOORGATE_STORE_MERGING_CHILD";

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = env::temp_dir().join(format!("moorgate-store-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&dir);
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A store whose completions can be waited for.
struct Store {
    store: Embedded,
    woken: Receiver<()>,
    done: Vec<Completion>,
    owner_epoch: u64,
}

impl Store {
    fn open(dir: &Path, partitions: u16) -> Result<(Self, Opened), OpenError> {
        let (wake, woken) = channel();
        // Small memtables: some rows are in tables, some in the journal.
        let options = Options { partitions, memtable_bytes: 64 << 10, ..Options::new(dir) };
        let (store, opened) = Embedded::open(&options, |_| {
            let wake = wake.clone();
            Box::new(move || {
                // The owner may be gone already.
                let _ = wake.send(());
            })
        })?;
        Ok((Self { store, woken, done: Vec::new(), owner_epoch: opened.owner_epoch }, opened))
    }

    fn next(&mut self) -> Completion {
        loop {
            if !self.done.is_empty() {
                return self.done.remove(0);
            }
            self.store.poll(&mut self.done);
            if self.done.is_empty() {
                self.woken.recv().expect("the store's threads live as long as it does");
            }
        }
    }

    fn submit(&mut self, partition: u16, mut batch: Batch) {
        batch.owner_epoch = self.owner_epoch;
        self.store.submit(partition, batch).expect("few wait");
    }

    fn commit(&mut self, partition: u16, batch: Batch) {
        let wanted = batch.token;
        self.submit(partition, batch);
        assert!(matches!(self.next(), Completion::Committed { token } if token == wanted));
    }

    /// The numbers of all rows in a partition.
    fn numbers(&mut self, partition: u16) -> BTreeSet<u64> {
        let scan = Query::Scan {
            from: vec![],
            to: vec![0xff; 9],
            max_rows: u32::MAX,
            max_bytes: u32::MAX,
            reverse: false,
        };
        self.store.read(partition, Read { token: 1, queries: vec![scan] }).expect("nothing waits");
        let Completion::Read { answer: Ok(rows), .. } = self.next() else { panic!("a read was asked for") };
        rows[0]
            .rows
            .iter()
            .map(|(key, _)| u64::from_be_bytes(key[..8].try_into().expect("8 bytes")))
            .collect()
    }
}

/// Not a test of its own: the process that `a_merge_that_cannot_read_a_table_stops_the_process_with_the_reason` starts.
#[test]
fn child_that_merges() {
    let Ok(dir) = env::var(MERGING_CHILD) else { return };
    let options = Options { memtable_bytes: 64 << 10, ..Options::new(dir) };
    let (wake, woken) = channel();
    let (store, opened) = Embedded::open(&options, |_| {
        let wake = wake.clone();
        Box::new(move || wake.send(()).unwrap_or_default())
    })
    .expect("tables are read when they are needed");
    let mut store = Store { store, woken, done: Vec::new(), owner_epoch: opened.owner_epoch };
    // 4 MB: dozens of tables, and merges of them.
    for token in 0..4_000 {
        let mut batch = Batch::new(token);
        batch.put(&(token * 7919 % 4_000).to_be_bytes(), &[7; 1_000]);
        store.commit(0, batch);
        if token == 1_500 {
            damage_tables(Path::new(&env::var(MERGING_CHILD).expect("it was there")));
        }
    }
    println!("all committed");
}

/// Flips a byte of a value in every table.
fn damage_tables(dir: &Path) {
    for entry in fs::read_dir(dir.join("p0/keyspaces/1/tables")).expect("the engine's tables") {
        let path = entry.expect("an entry").path();
        // One may be merged away meanwhile.
        let (Ok(bytes), Ok(table)) = (fs::read(&path), OpenOptions::new().write(true).open(&path)) else {
            continue;
        };
        if let Some(value) = bytes.windows(100).position(|window| window == [7; 100]) {
            // In place: one may be in the making.
            table.write_all_at(&[8], value as u64 + 50).expect("a table can be written");
        }
    }
}

#[test]
fn a_merge_that_cannot_read_a_table_stops_the_process_with_the_reason() {
    let dir = Dir::new("merge");
    let output = Command::new(env::current_exe().expect("a test runs from a file"))
        .args(["--exact", "child_that_merges", "--nocapture"])
        .env(MERGING_CHILD, &dir.0)
        .output()
        .expect("a process can be started");
    let (said, told) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(!output.status.success() && !told.contains("all committed"), "{told}{said}");
    assert!(said.contains("ChecksumMismatch"), "why the engine ended: {said}");
    assert!(said.contains("the store cannot write"), "and that the process ends: {said}");
}

/// A batch of two rows that belong together, so that half of one would show.
fn batch(token: u64) -> Batch {
    let mut batch = Batch::new(token);
    batch.put(&(2 * token).to_be_bytes(), &[7; 120]);
    batch.put(&(2 * token + 1).to_be_bytes(), &token.to_be_bytes());
    batch
}

fn journal_bytes(dir: &Path) -> u64 {
    fs::metadata(journal(dir)).expect("the engine has a journal").len()
}

#[test]
fn what_is_in_tables_leaves_the_journal_at_the_next_opening_and_nothing_is_lost() {
    let dir = Dir::new("trim");
    let mut rows = 0;
    for round in 1..5u64 {
        let (mut store, _) = Store::open(&dir.0, 1).expect("a directory of its own");
        if round > 1 {
            let bytes = journal_bytes(&dir.0);
            assert!(bytes < 512 << 10, "{bytes} bytes are read again, and five memtables hold 320 KiB");
        }
        assert_eq!(store.numbers(0).len() as u64, rows);
        // 1.5 MB, of which the tables get nearly all.
        for token in rows / 2..rows / 2 + 8_000 {
            store.submit(0, batch(token));
            if token >= rows / 2 + 64 {
                assert!(matches!(store.next(), Completion::Committed { .. }));
            }
        }
        rows += 16_000;
        drop(store);
        assert!(journal_bytes(&dir.0) > 1 << 20, "round {round}");
    }
    assert_eq!(Store::open(&dir.0, 1).expect("it is whole").0.numbers(0).len() as u64, rows);
}

/// A reserve larger than the disk stands for a disk that is nearly full.
#[test]
fn a_merge_without_room_waits_and_reading_goes_on_and_closing_too() {
    let dir = Dir::new("no-room");
    let (wake, woken) = channel();
    let options = Options { memtable_bytes: 64 << 10, reserve_bytes: u64::MAX, ..Options::new(&dir.0) };
    let (store, opened) = Embedded::open(&options, |_| {
        let wake = wake.clone();
        Box::new(move || wake.send(()).unwrap_or_default())
    })
    .expect("a new directory");
    let mut store = Store { store, woken, done: Vec::new(), owner_epoch: opened.owner_epoch };
    assert!(store.store.is_full());
    // Each table meets those before: they have to be merged.
    let mut token = 0;
    while store.store.waited().merges == 0 {
        let mut batch = Batch::new(token);
        batch.put(&(token * 7919 % 4_000).to_be_bytes(), &[7; 1_000]);
        store.commit(0, batch);
        token += 1;
        assert!(token < 4_000, "no merge waited");
    }
    let there = store.numbers(0).len() as u64;
    assert_eq!(there, token, "reads go on");
    // Commits go on, and what still waits at the end is committed then.
    for token in token..token + 200 {
        let mut batch = Batch::new(token);
        batch.owner_epoch = store.owner_epoch;
        batch.put(&(token * 7919 % 4_000).to_be_bytes(), &[7; 1_000]);
        store.store.submit(0, batch).expect("200 are below the bound");
    }
    drop(store);
    let (mut store, _) = Store::open(&dir.0, 1).expect("it is whole");
    assert_eq!(store.numbers(0).len() as u64, token + 200);
}

/// Not a test of its own: the process that `killed_at_any_moment` kills.
#[test]
fn child_that_appends() {
    let Ok(dir) = env::var(CHILD) else { return };
    let (mut store, _) = Store::open(Path::new(&dir), 1).expect("the parent has let go of it");
    let first = store.numbers(0).last().map_or(0, |last| last / 2 + 1);
    let mut out = std::io::stdout();
    for token in first.. {
        store.submit(0, batch(token));
        if token >= first + 16 {
            let Completion::Committed { token } = store.next() else { panic!("only batches were submitted") };
            writeln!(out, "acknowledged {token}").expect("the parent reads");
            out.flush().expect("the parent reads");
        }
    }
}

fn start_child(dir: &Path) -> Child {
    Command::new(env::current_exe().expect("a test runs from a file"))
        .args(["--exact", "child_that_appends", "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process can be started")
}

#[test]
fn killed_at_any_moment_nothing_acknowledged_is_lost() {
    let dir = Dir::new("kill");
    let mut acknowledged = None;
    for round in 0..8u64 {
        let mut child = start_child(&dir.0);
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        let enough = 1 + round * 37;
        let mut seen = 0;
        for line in out.lines().map_while(Result::ok) {
            let Some(token) = line.strip_prefix("acknowledged ") else { continue };
            acknowledged = Some(token.parse::<u64>().expect("a number"));
            seen += 1;
            if seen == enough {
                child.kill().expect("it runs");
            }
        }
        child.wait().expect("it was started here");
        assert!(seen >= enough, "the child did its work");
        let (mut store, _) = Store::open(&dir.0, 1).expect("a killed process holds nothing");
        let numbers = store.numbers(0);
        let last = acknowledged.expect("something was acknowledged");
        let count = numbers.len() as u64;
        assert!(count >= 2 * (last + 1), "all that was acknowledged is there");
        assert_eq!(numbers.last(), Some(&(count - 1)), "and nothing is missing before the last");
        assert_eq!(count % 2, 0, "a batch is there as a whole or not at all");
    }
}

#[test]
fn a_second_process_is_refused_while_the_first_runs() {
    let dir = Dir::new("lock");
    let (store, opened) = Store::open(&dir.0, 2).expect("a new directory");
    assert!(opened.created);
    let error = Store::open(&dir.0, 2).err().expect("it is in use");
    assert!(matches!(error, OpenError::InUse { .. }));
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(store);
    let (_, opened) = Store::open(&dir.0, 7).expect("the first is gone");
    assert!(!opened.created && opened.cut.is_empty() && opened.written_unix_ms > 0, "{opened:?}");
    assert_eq!(opened.partitions, 2, "partitions are fixed when it is made");
}

#[test]
fn each_opening_raises_the_owner_epoch_and_a_batch_of_an_older_one_is_refused() {
    let dir = Dir::new("owner");
    for owner_epoch in 1..4 {
        let (mut store, opened) = Store::open(&dir.0, 1).expect("nobody has it");
        assert_eq!(opened.owner_epoch, owner_epoch);
        store.commit(0, batch(owner_epoch));
        let mut older = batch(100);
        older.owner_epoch = owner_epoch - 1;
        // Between two of the owner's, so that they may come in one group.
        store.submit(0, batch(10 + owner_epoch));
        store.store.submit(0, older).expect("few wait");
        store.submit(0, batch(20 + owner_epoch));
        let (first, refused, last) = (store.next(), store.next(), store.next());
        assert!(
            matches!(first, Completion::Committed { .. }) && matches!(last, Completion::Committed { .. })
        );
        let Completion::Fenced { token: 100, by } = refused else { panic!("{refused:?}") };
        assert_eq!((by.owner_epoch, by.claimed), (owner_epoch - 1, owner_epoch));
        assert_eq!(store.numbers(0).len() as u64, 6 * owner_epoch, "and it is not there");
    }
    let version = fs::read_to_string(dir.0.join("VERSION")).expect("it is there");
    assert_eq!(version, "moorgate-store 1\npartitions 1\nlog_epoch 1\nowner_epoch 3\n");
}

/// As a process does that the lock did not keep out.
#[test]
fn who_had_the_store_before_another_claimed_it_commits_nothing_more() {
    let dir = Dir::new("claimed");
    let (mut store, _) = Store::open(&dir.0, 1).expect("a new directory");
    store.commit(0, batch(0));
    let claim = dir.0.join("VERSION.new");
    fs::write(&claim, "moorgate-store 1\npartitions 1\nlog_epoch 1\nowner_epoch 7\n").unwrap();
    fs::rename(claim, dir.0.join("VERSION")).unwrap();
    store.submit(0, batch(1));
    let ended = store.next();
    let Completion::Fenced { token: 1, by } = ended else { panic!("{ended:?}") };
    assert!(by.to_string().contains("another process claimed the store with owner_epoch 7"), "{by}");
    assert_eq!(store.numbers(0).len(), 2);
    drop(store);
    let (mut store, opened) = Store::open(&dir.0, 1).expect("nobody has it");
    assert_eq!(opened.owner_epoch, 8);
    assert_eq!(store.numbers(0).len(), 2);
    store.commit(0, batch(1));
}

/// A store of before there were owners begins with the first.
#[test]
fn a_version_without_an_owner_epoch_is_taken() {
    let dir = Dir::new("ownerless");
    drop(Store::open(&dir.0, 1).expect("a new directory"));
    fs::write(dir.0.join("VERSION"), "moorgate-store 1\npartitions 1\n").unwrap();
    let (_, opened) = Store::open(&dir.0, 1).expect("it is known");
    assert_eq!((opened.log_epoch, opened.owner_epoch), (1, 1));
}

#[test]
fn a_newer_version_and_a_foreign_directory_are_refused_with_what_to_do() {
    let dir = Dir::new("version");
    drop(Store::open(&dir.0, 1).expect("a new directory"));
    fs::write(dir.0.join("VERSION"), "moorgate-store 2\npartitions 1\nsomething new\n").unwrap();
    let error = Store::open(&dir.0, 1).err().expect("it is newer");
    assert!(
        error.to_string().contains("newer version") && error.to_string().contains("run that version"),
        "{error}"
    );
    fs::write(dir.0.join("VERSION"), "something else\n").unwrap();
    assert!(matches!(Store::open(&dir.0, 1).err(), Some(OpenError::Foreign { .. })));
    fs::remove_file(dir.0.join("VERSION")).unwrap();
    assert!(matches!(Store::open(&dir.0, 1).err(), Some(OpenError::Foreign { .. })));
}

#[test]
fn a_partition_that_is_gone_is_not_made_anew() {
    let dir = Dir::new("missing");
    drop(Store::open(&dir.0, 2).expect("a new directory"));
    fs::rename(dir.0.join("p1"), dir.0.join("elsewhere")).unwrap();
    let error = Store::open(&dir.0, 2).err().expect("half of it is gone");
    assert!(matches!(error, OpenError::NoPartition { .. }) && error.to_string().contains("p1"), "{error}");
    // As a power cut leaves it right after the store was made.
    fs::rename(dir.0.join("elsewhere"), dir.0.join("p1.new")).unwrap();
    let (mut store, opened) = Store::open(&dir.0, 2).expect("it is whole again");
    assert!(!opened.created);
    store.commit(1, batch(0));
}

fn journal(dir: &Path) -> PathBuf {
    fs::read_dir(dir.join("p0"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .expect("the engine has a journal")
}

/// A store of 10 batches, its journal and the journal's written bytes.
fn ten_batches(dir: &Path) -> (PathBuf, Vec<u8>) {
    let (mut store, _) = Store::open(dir, 1).expect("a new directory");
    (0..10).for_each(|token| store.commit(0, batch(token)));
    drop(store);
    let journal = journal(dir);
    let mut bytes = fs::read(&journal).unwrap();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    (journal, bytes)
}

#[test]
fn damage_in_the_middle_of_a_journal_is_refused_with_where_and_what_to_do() {
    let dir = Dir::new("damage");
    let (journal, bytes) = ten_batches(&dir.0);
    // Anywhere but in the last record: lengths, keys, values, checksums, trailers.
    for at in (0..bytes.len() - 400).step_by(97) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x41;
        fs::write(&journal, &damaged).unwrap();
        let error = Store::open(&dir.0, 1).err().expect("acknowledged records follow");
        let OpenError::Journal { journal: named, offset, .. } = &error else { panic!("{error}") };
        assert_eq!(named, &journal);
        // A wrong sequence number shows with the record behind it.
        assert!((*offset as usize).abs_diff(at) < 400, "{error}");
        let text = error.to_string();
        assert!(text.contains("readable records follow") && text.contains("restore a backup"), "{text}");
        assert_eq!(fs::read(&journal).unwrap(), damaged, "nothing was changed");
    }
    fs::write(&journal, &bytes).unwrap();
    assert_eq!(Store::open(&dir.0, 1).expect("it is whole again").0.numbers(0).len(), 20);
}

#[test]
fn a_last_record_torn_anywhere_is_cut_and_told() {
    let dir = Dir::new("torn-anywhere");
    let (journal, bytes) = ten_batches(&dir.0);
    for lost in [1, 4, 13, 100, 200] {
        // Its pages came to the disk out of order: the middle is missing, the end is there.
        let mut torn = bytes.clone();
        let end = torn.len();
        torn[end - lost - 1..end - lost.min(5)].fill(0);
        fs::write(&journal, &torn).unwrap();
        let (mut store, opened) = Store::open(&dir.0, 1).expect("a torn tail is no damage");
        assert_eq!(opened.cut.len(), 1, "{opened:?}");
        assert!(opened.cut[0].contains("torn tail"), "{opened:?}");
        assert_eq!(store.numbers(0).len(), 18);
    }
}

#[test]
fn a_torn_tail_is_cut_and_told() {
    let dir = Dir::new("torn");
    let (mut store, _) = Store::open(&dir.0, 1).expect("a new directory");
    for token in 0..10 {
        store.commit(0, batch(token));
    }
    drop(store);
    let journal = journal(&dir.0);
    // The last batch was being written when the power went: its end is missing.
    let bytes = fs::read(&journal).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    OpenOptions::new().write(true).open(&journal).unwrap().set_len(end - 20).unwrap();
    let (mut store, opened) = Store::open(&dir.0, 1).expect("a torn tail is no damage");
    assert_eq!(opened.cut.len(), 1, "{opened:?}");
    assert!(opened.cut[0].contains("torn tail"), "{opened:?}");
    assert_eq!(store.numbers(0).len(), 18);
    store.commit(0, batch(9));
    drop(store);
    let (mut store, opened) = Store::open(&dir.0, 1).expect("it was mended");
    assert!(opened.cut.is_empty());
    assert_eq!(store.numbers(0).len(), 20);
}

#[test]
fn partitions_keep_apart_and_reads_see_what_was_committed() {
    let dir = Dir::new("partitions");
    let (mut store, _) = Store::open(&dir.0, 3).expect("a new directory");
    for partition in 0..3u16 {
        store.commit(partition, batch(u64::from(partition)));
        assert_eq!(store.numbers(partition).len(), 2);
    }
    let mut delete = Batch::new(9);
    delete.delete(&0u64.to_be_bytes());
    store.commit(0, delete);
    assert_eq!(store.numbers(0).len(), 1);
    assert_eq!(store.numbers(1).len(), 2);
}
