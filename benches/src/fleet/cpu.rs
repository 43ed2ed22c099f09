//! How busy a thread is: what the scheduler says of it. The time between two waits would not tell, since most of the
//! work (sends, receives) is done inside the call that waits.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use super::Now;
use super::meter::Meter;

/// A reading costs about a microsecond.
const EVERY_US: u64 = 20_000;

/// Of the thread that made it.
pub(super) struct CpuTime {
    /// "time on a core, time waiting for one, slices", in nanoseconds; none where the kernel does not tell.
    schedstat: Option<File>,
    begun: Option<Now>,
    last_us: u64,
}

impl CpuTime {
    pub fn new() -> Self {
        Self { schedstat: File::open("/proc/thread-self/schedstat").ok(), begun: None, last_us: 0 }
    }

    /// Tells the meter, every now and then.
    pub fn meter(&mut self, meter: &Meter, now: Now) {
        if now.us < self.last_us + EVERY_US {
            return;
        }
        self.last_us = now.us;
        let begun_us = self.begun.get_or_insert(now).us;
        meter.lived_us.store(now.us - begun_us, Ordering::Relaxed);
        let mut text = [0; 96];
        let Some(count) = self.schedstat.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()) else {
            return;
        };
        if let Some((cpu_us, core_wait_us)) = parse(&text[..count]) {
            meter.cpu_us.store(cpu_us, Ordering::Relaxed);
            meter.core_wait_us.store(core_wait_us, Ordering::Relaxed);
        }
    }
}

fn parse(text: &[u8]) -> Option<(u64, u64)> {
    let mut words = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
    let mut us = || Some(words.next()?.parse::<u64>().ok()? / 1_000);
    Some((us()?, us()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_is_metered() {
        assert_eq!(parse(b"1234567 5000 17\n"), Some((1_234, 5)));
        assert_eq!(parse(b""), None);
        let (meter, mut cpu) = (Meter::default(), CpuTime::new());
        cpu.meter(&meter, Now { us: 1_000_000 });
        let mut sum = 0u64;
        let is_metered = || meter.read().cpu_us > 0 && meter.read().lived_us > 0;
        while !is_metered() && sum < 1 << 32 {
            sum += 1;
            if sum.is_multiple_of(1 << 20) {
                cpu.meter(&meter, Now { us: 1_000_000 + sum });
            }
        }
        assert!(is_metered());
    }
}
