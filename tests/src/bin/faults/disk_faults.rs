//! Disks that fail, fill up, are slow, or cannot be read. All of them are disks of our own.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rand::Rng;
use tests::disk::Faults;
use tests::{System, limits};

use crate::cold::Cold;
use crate::run::{Hit, Run, Scenario};

/// What a backend keeps free by itself.
const RESERVE_BYTES: u64 = 64 << 20;

/// Others go on: so many messages are acknowledged meanwhile.
const MEANWHILE: u64 = 200;

/// A slow disk's syncs take this long, in microseconds.
const SLOW_SYNC_US: (u64, u64) = (2_000, 120_000);

/// The sentence of a store that cannot write.
const STOPPED: &str = "the store cannot write";

pub struct SyncFails;

impl Scenario for SyncFails {
    fn name(&self) -> &'static str {
        "sync-fails"
    }

    fn system(&mut self) -> Result<System> {
        Ok(System::on_disk("faults-sync-fails")?)
    }

    fn round(&mut self, run: &mut Run) -> Result<Hit> {
        run.write_a_while();
        run.system.disk().set_faults(Faults { failing_syncs: true, ..Faults::default() });
        let in_flight = write_until_stopped(run)?;
        run.system.disk().set_faults(Faults::default());
        let seed = run.random.random();
        println!("  {}", run.system.disk().cut(seed));
        run.start_backend()?;
        Ok(Hit { what: "fdatasync", in_flight })
    }
}

/// Writes until the backend has ended by itself with the reason. Gives what was in flight.
fn write_until_stopped(run: &mut Run) -> Result<usize> {
    let has_ended = run.write_until(limits::SOON_MS, |run| run.backend().running().status().is_some());
    ensure!(has_ended, "the backend goes on, though it cannot write");
    let log = run.backend().running().log();
    ensure!(log.contains(STOPPED), "the backend ended without the reason:\n{log}");
    Ok(run.fleet.in_flight())
}

pub struct SlowDisk;

impl Scenario for SlowDisk {
    fn name(&self) -> &'static str {
        "slow-disk"
    }

    fn system(&mut self) -> Result<System> {
        Ok(System::on_disk("faults-slow-disk")?)
    }

    fn begin(&mut self, run: &mut Run) -> Result<()> {
        run.system.disk().set_faults(Faults { sync_us: Some(SLOW_SYNC_US), ..Faults::default() });
        Ok(())
    }

    /// What is acknowledged while its sync is under way is not there after the cut.
    fn round(&mut self, run: &mut Run) -> Result<Hit> {
        run.write_a_while();
        run.look_away();
        run.backend().running().signal(Signal::SIGKILL)?;
        run.system.disk().power_off();
        run.backend().kill()?;
        let in_flight = run.fleet.in_flight();
        println!("  {}", run.system.disk().cut_to_synced());
        run.start_backend()?;
        Ok(Hit { what: "slow disk", in_flight })
    }
}

pub struct DiskFull;

impl Scenario for DiskFull {
    fn name(&self) -> &'static str {
        "disk-full"
    }

    fn system(&mut self) -> Result<System> {
        Ok(System::on_disk("faults-disk-full")?)
    }

    fn round(&mut self, run: &mut Run) -> Result<Hit> {
        run.write_a_while();
        run.fleet.refused.clear();
        // Some of the reserve is left.
        let left = run.random.random_range(RESERVE_BYTES / 2..RESERVE_BYTES);
        run.system.disk().set_room(Some(left));
        let is_refused = run.write_until(limits::SOON_MS, |run| {
            run.fleet.refused.keys().any(|said| said.contains("no_room") && said.contains("disk is full"))
        });
        ensure!(is_refused, "writes are taken on a full disk; refused: {:?}", run.fleet.refused);
        // What was taken before is answered; then nothing is taken any more.
        run.write_for(limits::RESEND_AFTER_MS);
        let (taken, in_flight) = (run.fleet.history.acknowledged_in_all(), run.fleet.in_flight());
        run.write_for(3 * limits::RESEND_AFTER_MS);
        let more = run.fleet.history.acknowledged_in_all() - taken;
        ensure!(more == 0, "{more} messages were acknowledged on a full disk");
        ensure!(run.system.disk().room() > Some(0), "the reserve was used up");
        let told = run.backend().metric("moorgate_backend_disk_full");
        ensure!(told == Some(1), "the backend's page says {told:?} of a full disk");
        // Reads and connections go on.
        let mut cold = Cold::none();
        let user = crate::load::FIRST_USER;
        let read = cold.read_log(run, user)?;
        ensure!(read.as_ref().is_ok_and(|changes| *changes > 0), "a log on a full disk: {read:?}");
        run.system.disk().set_room(None);
        Ok(Hit { what: "room", in_flight })
    }
}

#[derive(Default)]
pub struct ReadErrors {
    cold: Option<Cold>,
}

impl Scenario for ReadErrors {
    fn name(&self) -> &'static str {
        "read-errors"
    }

    fn system(&mut self) -> Result<System> {
        let mut system = System::on_disk("faults-read-errors")?;
        // Every read that memory does not answer goes to the disk.
        system.configure_backend("[store]\ncache_bytes = 0\n")?;
        Ok(system)
    }

    fn begin(&mut self, run: &mut Run) -> Result<()> {
        // Of two ids of one millisecond the backend asks the disk whether it knows the second.
        run.load.burst_max = 1;
        self.cold = Some(Cold::fill(run)?);
        Ok(())
    }

    fn round(&mut self, run: &mut Run) -> Result<Hit> {
        let cold = self.cold.as_mut().context("filled")?;
        cold.switch_off(run);
        // With an empty memory, but for those who are there.
        run.kill_backend()?;
        run.start_backend()?;
        let up = run.phones();
        let is_up = run.write_until(limits::SOON_MS, |run| run.fleet.up() == up);
        ensure!(is_up, "not all came back");
        let before = run.fleet.history.acknowledged_in_all();
        let is_going = run.write_until(limits::SOON_MS, |run| {
            run.fleet.history.acknowledged_in_all() >= before + MEANWHILE
        });
        ensure!(is_going, "no load before the disk fails");
        run.system.disk().set_faults(Faults { unreadable: Some("tables/".to_owned()), ..Faults::default() });
        for phone in cold.phones.clone() {
            let user = run.fleet.user(phone);
            let Err((status, text)) = cold.read_log(run, user)? else {
                anyhow::bail!("the log of user {user} was read from a disk that cannot be read")
            };
            ensure!(text.contains(&format!("user {user}")), "{status:?}: {text}");
        }
        let before = run.fleet.history.acknowledged_in_all();
        let in_flight = run.fleet.in_flight();
        let go_on = run.write_until(limits::SOON_MS, |run| {
            run.fleet.history.acknowledged_in_all() >= before + MEANWHILE
        });
        ensure!(go_on, "the others do not go on: {:?}", run.fleet.refused);
        run.system.disk().set_faults(Faults::default());
        cold.phones.iter().for_each(|&phone| run.fleet.connect(phone));
        for phone in cold.phones.clone() {
            let user = run.fleet.user(phone);
            let read = cold.read_log(run, user)?;
            ensure!(read.is_ok(), "the log of user {user} with a good disk: {read:?}");
        }
        Ok(Hit { what: "reads", in_flight })
    }
}
