//! Many phones on few threads: each thread has a ring, its phones' machines and nothing that grows with what
//! passes. It moves bytes and time; what phones do is the [`App`]'s, and what they speak is their [`Machine`]'s.

mod cpu;
mod engine;
mod line;
mod machine;
mod meter;
mod sockets;
mod timers;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock::Clock;
use crate::limits;
use crate::sources::Sources;
use gateway_ring::{BufferRingError, EnterError, InstallError, SetupError, SocketError};

pub use line::Phones;
pub use machine::{Ended, Machine, Signal};
pub use meter::{Meter, Totals};

/// What the phones of one thread do.
pub trait App: Send + 'static {
    /// What they speak.
    type Machine: Machine;
    /// The machine of a phone, without a token.
    fn phone(&mut self, phone: u32) -> Self::Machine;
    /// Its token, asked for at its first connect. Most protocols need none.
    fn token(&mut self, _phone: u32) -> Box<[u8]> {
        Box::default()
    }
    /// What the machine tells, but for [`Signal::Connect`] and [`Signal::Disconnect`].
    fn event(
        &mut self,
        phone: u32,
        machine: &mut Self::Machine,
        event: <Self::Machine as Machine>::Event,
        now: Now,
    );
    /// Bytes came and were fed to the machine, among them the answers of so many beats.
    fn heard(&mut self, _phone: u32, _machine: &Self::Machine, _beats: u32, _now: Now) {}
    /// A timer is due since `due_ms`, which is when the machine wanted to be called; it is called after this.
    fn due(&mut self, _phone: u32, _machine: &Self::Machine, _due_ms: u64, _now: Now) {}
    /// Once a turn, before anything leaves. Gives when it wants the next turn at the latest.
    fn turn(&mut self, phones: &mut Phones<'_, Self::Machine>, now: Now) -> u64;
}

/// The time of a turn, in microseconds of the run's clock.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub us: u64,
}

impl Now {
    pub fn ms(self) -> u64 {
        self.us / 1_000
    }
}

/// How a connection waits for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receive {
    /// An armed poll: the least kernel memory, for phones that are mostly silent.
    Poll,
    /// An armed receive: one request less for each arrival, for phones that talk.
    Armed,
}

#[derive(Debug, Clone)]
pub struct FleetConfig {
    pub target: SocketAddr,
    pub phones: u32,
    pub receive: Receive,
    /// Cores that the threads are pinned to in turn; empty: not pinned.
    pub cores: Vec<usize>,
    /// Threads at least; there are more when rings cannot hold all phones.
    pub threads: usize,
    /// Of the threads: those that measure run at 0, and whoever is only there gives way to them.
    pub niceness: u8,
    pub clock: Clock,
    /// How long a turn gathers completions when it has nothing else to do.
    pub gather_us: u64,
    /// Where phones connect from.
    pub sources: Sources,
}

#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Buffers(#[from] BufferRingError),
    #[error(transparent)]
    Enter(#[from] EnterError),
    #[error("cannot open a socket: {0}")]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error("the ring takes no more requests")]
    Stuck,
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error("a thread of the bench panicked")]
    Panicked,
}

/// What the conductor tells the threads.
#[derive(Debug, Default)]
struct Control {
    stop: AtomicBool,
    /// Phones, of all threads, that shall connect.
    connect: AtomicU32,
}

/// A running fleet.
pub struct Fleet<A> {
    threads: Vec<JoinHandle<Result<A, FleetError>>>,
    control: Arc<Control>,
    meters: Vec<Arc<Meter>>,
}

impl<A: App> Fleet<A> {
    /// Makes rings and machines; nothing connects yet. `app` is made for each thread with the range of its phones.
    pub fn start(config: &FleetConfig, mut app: impl FnMut(Range<u32>) -> A) -> Result<Self, FleetError> {
        let ranges = ranges(config.phones, config.threads);
        let control = Arc::new(Control::default());
        let (mut threads, mut meters) = (Vec::new(), Vec::new());
        for (at, range) in ranges.into_iter().enumerate() {
            let meter = Arc::new(Meter::default());
            let (ready, is_ready) = mpsc::sync_channel(1);
            let core = (!config.cores.is_empty()).then(|| config.cores[at % config.cores.len()]);
            let (config, app, shared) = (config.clone(), app(range.clone()), control.clone());
            let metered = meter.clone();
            let run = move || engine::run(config, range, core, app, &shared, &metered, &ready);
            let thread = thread::Builder::new().name(format!("phones-{at}")).spawn(run);
            threads.push(thread.map_err(FleetError::Thread)?);
            meters.push(meter);
            // An error closes the channel instead, and is what the thread ends with.
            if is_ready.recv().is_err() {
                control.stop.store(true, Ordering::Relaxed);
                let failed = threads.pop().map(JoinHandle::join);
                return Err(match failed {
                    Some(Ok(Err(error))) => error,
                    _ => FleetError::Panicked,
                });
            }
        }
        Ok(Self { threads, control, meters })
    }

    /// Connects the phones below `count`, as fast as they are welcomed.
    pub fn connect(&self, count: u32) {
        self.control.connect.store(count, Ordering::Relaxed);
    }

    pub fn totals(&self) -> Totals {
        self.meters.iter().map(|meter| meter.read()).sum()
    }

    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Whether a thread has ended, which it does only by an error.
    pub fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// The first thing that went wrong with connections, in words.
    pub fn trouble(&self) -> Option<String> {
        self.meters.iter().find_map(|meter| meter.trouble())
    }

    /// Ends all connections and threads.
    pub fn stop(self) -> Result<Vec<A>, FleetError> {
        self.control.stop.store(true, Ordering::Relaxed);
        let mut apps = Vec::new();
        let mut failed = None;
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(app)) => apps.push(app),
                Ok(Err(error)) => failed = failed.or(Some(error)),
                Err(_) => failed = failed.or(Some(FleetError::Panicked)),
            }
        }
        failed.map_or(Ok(apps), Err)
    }
}

/// Looks at `done` every 20 ms until it holds; false when it does not within the time or a thread has ended.
pub fn wait_until<A: App>(fleet: &Fleet<A>, within_ms: u64, mut done: impl FnMut() -> bool) -> bool {
    let clock = Clock::start();
    loop {
        if done() {
            return true;
        }
        if clock.now_ms() > within_ms || fleet.has_failed() || crate::signals::interrupted() {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The phones of each thread.
fn ranges(phones: u32, threads: usize) -> Vec<Range<u32>> {
    let descriptors = tuning::raise_descriptor_limit().unwrap_or(1024);
    let most = (descriptors as usize)
        .saturating_sub(limits::DESCRIPTORS_RESERVED)
        .clamp(64, limits::PHONES_OF_A_RING_MAX) as u32;
    let threads = (phones.div_ceil(most)).max(threads as u32).clamp(1, phones.max(1));
    (0..threads).map(|at| phones * at / threads..phones * (at + 1) / threads).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI32;

    use proto_wire::phone::{Device, Phone, PhoneConfig, PhoneEvent};
    use rustix::process::getpriority_process;

    use super::*;

    /// A phone that never connects; notes the niceness of its thread.
    struct Noting(Arc<AtomicI32>);

    const NOT_YET: i32 = -100;

    impl App for Noting {
        type Machine = Phone;

        fn phone(&mut self, _phone: u32) -> Phone {
            Phone::new(Arc::new(PhoneConfig::default()), Device::default(), 1)
        }

        fn event(&mut self, _phone: u32, _machine: &mut Phone, _event: PhoneEvent, _now: Now) {}

        fn turn(&mut self, _phones: &mut Phones<'_>, now: Now) -> u64 {
            self.0.store(getpriority_process(None).expect("a niceness"), Ordering::Relaxed);
            now.us + 1_000
        }
    }

    #[test]
    fn its_threads_are_as_nice_as_told_and_nobody_else() {
        let own = getpriority_process(None).expect("a niceness");
        for niceness in [0, 7] {
            let noted = Arc::new(AtomicI32::new(NOT_YET));
            let config = FleetConfig {
                target: ([127, 0, 0, 1], 1).into(),
                phones: 1,
                receive: Receive::Poll,
                cores: Vec::new(),
                threads: 1,
                niceness,
                clock: Clock::start(),
                gather_us: 1_000,
                sources: Sources::default(),
            };
            let fleet = Fleet::start(&config, |_| Noting(noted.clone())).expect("a ring");
            assert!(wait_until(&fleet, 10_000, || noted.load(Ordering::Relaxed) != NOT_YET), "a turn");
            fleet.stop().expect("it ends");
            let expected = if niceness == 0 { own } else { niceness.into() };
            assert_eq!(noted.load(Ordering::Relaxed), expected);
            assert_eq!(getpriority_process(None), Ok(own), "the conductor is as it was");
        }
    }

    #[test]
    fn every_phone_has_one_thread() {
        for (phones, threads) in [(1, 1), (2, 4), (10_000, 1), (100_000, 1), (1_000_003, 2)] {
            let ranges = ranges(phones, threads);
            assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end), (0, phones));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(ranges.iter().all(|range| !range.is_empty() && range.len() <= 19_000));
        }
    }
}
