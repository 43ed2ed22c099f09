//! A store that is torn, damaged, of a newer version, or in use.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::seq::IndexedRandom;
use tests::{Launch, System, limits};

use crate::cold::Cold;
use crate::run::{Hit, Run, Scenario};

/// Bytes of a record that was being written.
const TORN_MAX: usize = 4_000;

/// Behind a damaged byte so many others are written: it is not the last record that is hit.
const BEFORE_TAIL_BYTES: usize = 20_000;

/// The file that says of what version a store is.
const VERSION: &str = "data/store/VERSION";

pub struct TornTail;

impl Scenario for TornTail {
    fn name(&self) -> &'static str {
        "torn-tail"
    }

    fn system(&mut self) -> Result<System> {
        Ok(System::new("faults-torn-tail")?)
    }

    fn round(&mut self, run: &mut Run) -> Result<Hit> {
        let in_flight = run.kill_backend()?;
        let journal = newest_journal(run)?;
        let mut bytes = fs::read(&journal)?;
        let end = written_end(&bytes);
        // The beginning of a record, whose rest never came to the disk.
        let mut torn: Vec<u8> =
            (0..run.random.random_range(20..TORN_MAX)).map(|_| run.random.random()).collect();
        torn[0] = 1;
        let last = torn.len() - 1;
        torn[last] |= 1;
        bytes.resize(bytes.len().max(end + torn.len()), 0);
        bytes[end..end + torn.len()].copy_from_slice(&torn);
        fs::write(&journal, &bytes)?;
        run.start_backend()?;
        let log = run.backend().running().log();
        ensure!(log.contains("cut the torn tail of"), "the cut was not told:\n{log}");
        Ok(Hit { what: "tail", in_flight })
    }
}

pub struct Damage;

impl Scenario for Damage {
    fn name(&self) -> &'static str {
        "damage"
    }

    fn system(&mut self) -> Result<System> {
        Ok(System::new("faults-damage")?)
    }

    fn round(&mut self, run: &mut Run) -> Result<Hit> {
        let in_flight = run.kill_backend()?;
        let journal = newest_journal(run)?;
        let good = fs::read(&journal)?;
        let end = written_end(&good);
        ensure!(end > BEFORE_TAIL_BYTES, "the journal has only {end} bytes");
        let at = run.random.random_range(0..end - BEFORE_TAIL_BYTES);
        let mut damaged = good.clone();
        damaged[at] ^= 0x41;
        fs::write(&journal, &damaged)?;
        let said = run.start_refused()?;
        for part in [journal.to_string_lossy().as_ref(), "is damaged at byte", "restore a backup"] {
            ensure!(said.contains(part), "byte {at} was damaged; {part:?} was not told:\n{said}");
        }
        ensure!(fs::read(&journal)? == damaged, "a journal that is damaged was changed");
        fs::write(&journal, &good)?;
        run.start_backend()?;
        Ok(Hit { what: "journal", in_flight })
    }
}

#[derive(Default)]
pub struct DamagedValue {
    cold: Option<Cold>,
}

impl Scenario for DamagedValue {
    fn name(&self) -> &'static str {
        "damaged-value"
    }

    fn system(&mut self) -> Result<System> {
        Ok(System::new("faults-damaged-value")?)
    }

    fn begin(&mut self, run: &mut Run) -> Result<()> {
        self.cold = Some(Cold::fill(run)?);
        Ok(())
    }

    fn round(&mut self, run: &mut Run) -> Result<Hit> {
        let cold = self.cold.as_mut().context("filled")?;
        cold.switch_off(run);
        let in_flight = run.kill_backend()?;
        // A row in the middle of a log, as its table holds it.
        let (table, at, text) = row_in_a_table(run)?;
        let good = fs::read(&table)?;
        let mut damaged = good.clone();
        damaged[at + text.len() + 100] ^= 0x41;
        fs::write(&table, &damaged)?;
        run.start_backend()?;
        let mut hurt = Vec::new();
        for phone in cold.phones.clone() {
            let user = run.fleet.user(phone);
            if let Err((status, said)) = cold.read_log(run, user)? {
                ensure!(said.contains(&format!("the log of user {user}")), "{status:?}: {said}");
                hurt.push(user);
            }
        }
        ensure!(hurt.len() == 1, "one row is damaged, and these logs cannot be read: {hurt:?}");
        let log = run.backend().running().log();
        let told = format!("the log of user {} cannot be read", hurt[0]);
        ensure!(log.contains(&told), "{told:?} is not in the log:\n{log}");
        // The rest works, with the damage in place.
        let before = run.fleet.history.acknowledged_in_all();
        run.drain(before)?;
        run.kill_backend()?;
        fs::write(&table, &good)?;
        run.start_backend()?;
        let healed = cold.read_log(run, hurt[0])?;
        ensure!(healed.is_ok(), "the log of user {} after the damage is gone: {healed:?}", hurt[0]);
        cold.phones.iter().for_each(|&phone| run.fleet.connect(phone));
        Ok(Hit { what: "value", in_flight })
    }
}

/// A table, where in it a text of a cold user lies, and the text.
fn row_in_a_table(run: &mut Run) -> Result<(PathBuf, usize, Vec<u8>)> {
    let store = run.system.dir.join("data/store");
    let mut tables = Vec::new();
    files_below(&store, &mut tables)?;
    tables.retain(|path| path.parent().is_some_and(|dir| dir.ends_with("tables")));
    let mut found = Vec::new();
    for table in tables {
        let bytes = fs::read(&table)?;
        // "m1234 xxxx", and more of it than any block but its own can hold.
        for (at, window) in bytes.windows(64).enumerate() {
            if window[0] == b'm' && window[1].is_ascii_digit() && window.ends_with(&[b'x'; 48]) {
                let text = window.split(|byte| *byte == b' ').next().unwrap_or_default().to_vec();
                found.push((table.clone(), at, text));
            }
        }
    }
    // Neither the first nor the last rows: the tail is read for more than pages.
    let middle = &found[found.len() / 4..found.len() * 3 / 4];
    middle.choose(&mut run.random).cloned().context("no row of a cold user is in a table")
}

pub struct NewerVersion;

impl Scenario for NewerVersion {
    fn name(&self) -> &'static str {
        "newer-version"
    }

    fn system(&mut self) -> Result<System> {
        Ok(System::new("faults-newer-version")?)
    }

    fn round(&mut self, run: &mut Run) -> Result<Hit> {
        let in_flight = run.kill_backend()?;
        let version = run.system.dir.join(VERSION);
        let known = fs::read_to_string(&version)?;
        let newer = run.random.random_range(2..1_000);
        fs::write(&version, known.replace("moorgate-store 1", &format!("moorgate-store {newer}")))?;
        let said = run.start_refused()?;
        for part in ["written by a newer version", &format!("store version {newer}"), "run that version"] {
            ensure!(said.contains(part), "{part:?} was not told:\n{said}");
        }
        fs::write(&version, known)?;
        run.start_backend()?;
        Ok(Hit { what: "version", in_flight })
    }
}

pub struct SecondProcess;

impl Scenario for SecondProcess {
    fn name(&self) -> &'static str {
        "second-process"
    }

    fn system(&mut self) -> Result<System> {
        Ok(System::new("faults-second-process")?)
    }

    fn round(&mut self, run: &mut Run) -> Result<Hit> {
        run.write_a_while();
        let any = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"];
        let launch = Launch::of("moorgate-backend", &run.system.dir)?.log_as("second").args(any);
        let mut second = launch.arg(run.system.dir.join("data")).start()?;
        let has_ended = run.write_until(limits::SOON_MS, |_| second.status().is_some());
        let in_flight = run.fleet.in_flight();
        ensure!(has_ended, "a second process runs on the store");
        let ended = second.wait_for_end(limits::SOON_MS)?;
        let said = second.log();
        ensure!(!ended.success() && said.contains("in use by another process"), "{ended}: {said}");
        // The first must not have lost its hold: another try after a kill, with nobody there.
        if run.random.random_bool(0.5) {
            run.kill_backend()?;
            run.start_backend()?;
        }
        Ok(Hit { what: "lock", in_flight })
    }
}

fn newest_journal(run: &Run) -> Result<PathBuf> {
    let mut files = Vec::new();
    files_below(&run.system.dir.join("data/store/p0"), &mut files)?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jnl"));
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    files.into_iter().max_by_key(number).context("the store has a journal")
}

/// Behind the last byte that is not zero.
fn written_end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn files_below(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files_below(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
