//! The machine's clock jumps back a day, and forth again.

use std::fs::File;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use proto_wire::names::UploadId;
use proto_wire::status::Code;
use rand::Rng;
use tests::System;

use crate::Plant;
use crate::cold::{bare, send_as};
use crate::run::{Hit, Run, Scenario};

const DAY_S: u64 = 24 * 3600;

/// What the backend reads the offset of its clock from.
const OFFSET: &str = "MOORGATE_CLOCK_OFFSET_S";

/// The device of a bare phone.
const DEVICE: u64 = 1 << 41;

/// Users that no phone of the load knows.
const SENDER: u64 = 9_001;
const RECEIVER: u64 = 9_002;

#[derive(Default)]
pub struct ClockBack {
    jumps: u64,
}

impl Scenario for ClockBack {
    fn name(&self) -> &'static str {
        "clock-back"
    }

    fn plants(&self) -> &'static [Plant] {
        &[Plant::NoMemory]
    }

    fn system(&mut self) -> Result<System> {
        Ok(System::new("faults-clock-back")?)
    }

    fn round(&mut self, run: &mut Run) -> Result<Hit> {
        self.jumps += 1;
        let device = DEVICE + self.jumps;
        let id = UploadId::new(now_ms()?, [self.jumps as u8; 10]);
        let mut phone = bare(run, SENDER, device)?;
        let (status, first) = send_as(&mut phone, 1, RECEIVER, id)?;
        ensure!(status == Code::Ok, "a message before the jump: {status:?}");
        drop(phone);
        let in_flight = run.kill_backend()?;
        if run.plant == Some(Plant::NoMemory) {
            forget_when(run)?;
        }
        // Back, and at every second jump forth again.
        let back_s = if self.jumps % 2 == 1 { DAY_S + run.random.random_range(0..DAY_S / 2) } else { 0 };
        run.backend().set_env(OFFSET, format!("-{back_s}"));
        run.start_backend()?;
        let said = run.backend().running().log();
        let is_told = said.contains("behind what was written last");
        ensure!(run.plant.is_some() || is_told == (back_s > 0), "the clock is {back_s} s back; told: {said}");
        // A repeat gets the first answer; an id of the machine's own time, a day old now, is as good as any.
        let mut phone = bare(run, SENDER, device + DEVICE)?;
        let (status, again) = send_as(&mut phone, 1, RECEIVER, id)?;
        ensure!(
            status == Code::Ok && again.repeated && again.number == first.number,
            "a repeat after the jump: {status:?}, {again:?} after {first:?}"
        );
        let old = UploadId::new(now_ms()? - back_s * 1000, [self.jumps as u8; 10]);
        let (status, _) = send_as(&mut phone, 2, RECEIVER, old)?;
        ensure!(status == Code::Ok, "an id by the clock that jumped: {status:?}");
        let ancient = UploadId::new(now_ms()? - 8 * DAY_S * 1000, [self.jumps as u8; 10]);
        let (status, _) = send_as(&mut phone, 3, RECEIVER, ancient)?;
        ensure!(status == Code::Expired, "an id of 8 days: {status:?}");
        Ok(Hit { what: "clock", in_flight })
    }
}

fn now_ms() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64)
}

/// The journals say that they were written long ago: the backend cannot know what time it was.
fn forget_when(run: &Run) -> Result<()> {
    let long_ago = SystemTime::now() - Duration::from_secs(30 * DAY_S);
    for entry in std::fs::read_dir(run.system.dir.join("data/store/p0"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            File::options().write(true).open(path)?.set_modified(long_ago)?;
        }
    }
    Ok(())
}
