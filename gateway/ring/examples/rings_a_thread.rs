//! One pinned thread a ring, or few threads that drive several rings each?
//!
//! A ring's table of direct descriptors is capped by RLIMIT_NOFILE, so a million connections take 53 rings where that is
//! 20 000 and cannot be raised. With 53 pinned threads on two cores each beat wakes a thread of its own. Here the same
//! connections and the same pings go through these arrangements, in turn:
//!
//! - `threads`: one thread a ring, which waits in it. Threads are pinned to the cores in turn.
//! - `shared`: one thread a core, which waits in a ring of its own for the doorbells of its share of the rings
//!   ([`Ring::ring_for_work`]) and enters those that have work. A ring with DEFER_TASKRUN makes its completions only when
//!   its thread enters it: a poll of its own descriptor is never told that work waits, an eventfd is, and the poll of
//!   that ends each time, multishot or not (Linux 6.18: a ring's wake-up may not feed a ring without end).
//! - `gathered`: the same, but the wait gathers for 1 ms (`min_wait`), so that one wake-up does for several rings.
//! - `few`: one thread and one ring a core, for all connections: what could be had if the limit were higher.
//!
//! Method: every server end is served as the gateway serves an idle phone's beat: multishot poll, receive into a provided
//! buffer, two bytes back without a completion; threads wait for at most 250 ms, as a shard's timers make it. One more
//! thread, on the last core, is all clients: it pings connections chosen at random at exponential intervals. CPU is what
//! the scheduler says of each thread (`schedstat`), latency counts from the intended time, switches are the servers'
//! voluntary ones. The rounds interleave the arrangements; at the end: medians.
//!
//! `cargo run --release -p gateway-ring --example rings_a_thread -- [rings] [connections a ring] [pings a second] [seconds] [rounds]`

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use gateway_ring::*;

const ACCEPT: u8 = 1;
const POLL: u8 = 2;
const RECV: u8 = 3;
const SEND: u8 = 4;

const PING: &[u8] = &[1, 0];
const GATHER: Duration = Duration::from_millis(1);
const IDLE: Duration = Duration::from_millis(250);
/// Without a bound a look at a ring need not end.
const COMPLETIONS_MAX: usize = 1024;
const TURNS_OF_A_LOOK_MAX: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Threads,
    Shared,
    Gathered,
    Few,
}

const WAYS: [Way; 4] = [Way::Threads, Way::Shared, Way::Gathered, Way::Few];

fn main() {
    let args: Vec<u32> = std::env::args().skip(1).map(|arg| arg.parse().expect("a number")).collect();
    let arg = |at: usize, default| args.get(at).copied().unwrap_or(default);
    let (rings, connections, rate) = (arg(0, 53), arg(1, 300), arg(2, 4_200));
    let time = Duration::from_secs(arg(3, 5).into());
    println!("{rings} rings of {connections} connections, {rate} pings a second");
    let mut rounds = vec![Vec::new(); WAYS.len()];
    for _ in 0..arg(4, 3) {
        for (way, figures) in WAYS.into_iter().zip(&mut rounds) {
            figures.push(run(way, rings, connections, rate.into(), time));
            println!("{way:?}: {}", told(&figures[figures.len() - 1..]));
        }
    }
    println!("medians");
    WAYS.iter().zip(&rounds).for_each(|(way, figures)| println!("{way:?}: {}", told(figures)));
}

/// us of CPU a ping: of the servers, of all; us of latency: p50, p99; switches of the servers a ping; pings lost.
type Figures = [f64; 6];

fn told(all: &[Figures]) -> String {
    let median = |at: usize| {
        let mut values: Vec<f64> = all.iter().map(|figures| figures[at]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let [server, whole, p50, p99, switches, lost] = std::array::from_fn(median);
    format!(
        "{server:.2} us of CPU a ping ({whole:.2} with the clients'), p50 {p50} us, p99 {p99} us, \
         {switches:.2} switches a ping, {lost} lost"
    )
}

fn run(way: Way, rings: u32, connections: u32, pings_per_s: f64, time: Duration) -> Figures {
    let (cores, all) = (available_cores(), rings * connections);
    let rings = if way == Way::Few { cores.len() as u32 } else { rings };
    let threads = if way == Way::Threads { rings } else { rings.min(cores.len() as u32) };
    let connections = all.div_ceil(rings);
    let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (tell, told) = channel();
    let servers: Vec<_> = (0..threads)
        .map(|at| {
            let (stop, accepted, tell) = (stop.clone(), accepted.clone(), tell.clone());
            let (core, count) = (cores[at as usize % cores.len()], (rings - at).div_ceil(threads));
            thread::spawn(move || {
                pin_current_thread(core).expect("a core of our own list");
                let rings = (0..count).map(|_| Server::new(connections, &accepted, &tell)).collect();
                serve(way, rings, &stop);
            })
        })
        .collect();
    drop(tell);
    let (mut addrs, mut tasks) = (Vec::new(), Vec::new());
    for (addr, task) in told.iter().take(rings as usize) {
        addrs.push(addr);
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    let client = thread::spawn(move || {
        pin_current_thread(*cores.last().expect("a core")).expect("a core of our own list");
        let mut clients = Clients::connect(&addrs, connections);
        while accepted.load(Ordering::Relaxed) < addrs.len() as u32 * connections {
            thread::sleep(Duration::from_millis(10));
        }
        clients.measure(pings_per_s, time, &tasks)
    });
    let figures = client.join().expect("the clients end");
    stop.store(true, Ordering::Relaxed);
    servers.into_iter().for_each(|server| server.join().expect("a server ends"));
    figures
}

fn serve(way: Way, mut rings: Vec<Server>, stop: &AtomicBool) {
    let config = RingConfig { direct_slots: 0, ..Default::default() };
    let mut parent = (way == Way::Shared || way == Way::Gathered).then(|| Ring::new(config).expect("a ring"));
    let doorbells: Vec<_> = rings.iter().map(|_| Doorbell::new().expect("an eventfd")).collect();
    let wait_for = |parent: &mut Ring, at: usize| {
        let token = Token::new(POLL, 0, at as u32);
        parent.poll_one(doorbells[at].as_fd(), PollEvents::IN, token).expect("room");
    };
    if let Some(parent) = &mut parent {
        for (at, server) in rings.iter_mut().enumerate() {
            server.ring.ring_for_work(&doorbells[at]).expect("the kernel takes it");
            wait_for(parent, at);
            server.look();
        }
    }
    while !stop.load(Ordering::Relaxed) {
        match &mut parent {
            Some(parent) => {
                let gathers = way == Way::Gathered;
                let (min_complete, min_wait) = if gathers { (64, Some(GATHER)) } else { (1, None) };
                parent.wait(Wait { min_complete, timeout: Some(IDLE), min_wait }).expect("enter");
                for _ in 0..COMPLETIONS_MAX {
                    let Some(completion) = parent.next_completion() else { break };
                    let at = completion.token.slot() as usize;
                    rings[at].look();
                    // What it did itself rang as well; what came since is seen without a system call.
                    doorbells[at].clear();
                    rings[at].look();
                    wait_for(parent, at);
                }
            }
            None => {
                let server = &mut rings[0];
                server.ring.submit_and_wait(1, Some(IDLE)).expect("enter");
                server.reap();
            }
        }
    }
}

/// A ring that answers pings.
struct Server {
    ring: Ring,
    buffers: BufferRing,
    accepted: Arc<AtomicU32>,
    /// Its multishot accept names it.
    _listener: TcpListener,
}

impl Server {
    fn new(connections: u32, accepted: &Arc<AtomicU32>, tell: &Sender<(SocketAddr, PathBuf)>) -> Self {
        let mut ring =
            Ring::new(RingConfig { direct_slots: connections, ..Default::default() }).expect("a ring");
        let buffers = ring.buffer_ring(64, 64).expect("buffers");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        ring.accept_multi(listener.as_fd(), Token::new(ACCEPT, 0, 0)).expect("room");
        ring.submit().expect("enter");
        let task = PathBuf::from("/proc").join(fs::read_link("/proc/thread-self").expect("a thread"));
        tell.send((listener.local_addr().expect("bound"), task)).expect("somebody listens");
        Self { ring, buffers, accepted: accepted.clone(), _listener: listener }
    }

    /// Does what waits, without waiting. No system call when nothing does.
    fn look(&mut self) {
        for _ in 0..TURNS_OF_A_LOOK_MAX {
            self.ring.submit().expect("enter");
            if !self.reap() && self.ring.queued() == 0 {
                return;
            }
        }
    }

    /// Handles what is there; true when there was something.
    fn reap(&mut self) -> bool {
        for done in 0..COMPLETIONS_MAX {
            let Some(completion) = self.ring.next_completion() else { return done > 0 };
            let slot = completion.token.slot();
            match (completion.token.op(), completion.result) {
                (ACCEPT, Ok(slot)) => {
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                    let events = PollEvents::IN | PollEvents::RDHUP;
                    queue(&mut self.ring, |ring| {
                        ring.poll_multi(Slot(slot), events, Token::new(POLL, 0, slot))
                    });
                }
                (POLL, Ok(_)) => {
                    let group = self.buffers.group();
                    queue(&mut self.ring, |ring| ring.recv(Slot(slot), group, Token::new(RECV, 0, slot)));
                }
                (RECV, Ok(1..)) => {
                    self.buffers.recycle(completion.buffer.expect("the ping"));
                    queue(&mut self.ring, |ring| ring.send_now(Slot(slot), PING, Token::new(SEND, 0, slot)));
                }
                _ => {}
            }
        }
        true
    }
}

fn queue(ring: &mut Ring, mut request: impl FnMut(&mut Ring) -> Result<(), Full>) {
    while request(ring).is_err() {
        ring.submit().expect("enter");
    }
}

/// All clients: one ring, one thread.
struct Clients {
    ring: Ring,
    buffers: BufferRing,
    /// The intended time of the ping under way, in us; 0: none.
    pinged_us: Vec<u64>,
    random: u64,
}

impl Clients {
    fn connect(addrs: &[SocketAddr], connections: u32) -> Self {
        let all = addrs.len() as u32 * connections;
        let mut ring = Ring::new(RingConfig { direct_slots: all, ..Default::default() }).expect("a ring");
        let buffers = ring.buffer_ring(1024, 64).expect("buffers");
        for slot in 0..all {
            let stream = TcpStream::connect(addrs[slot as usize % addrs.len()]).expect("connected");
            stream.set_nodelay(true).expect("an option");
            ring.install(Slot(slot), OwnedFd::from(stream)).expect("a slot");
        }
        let mut clients = Self { ring, buffers, pinged_us: vec![0; all as usize], random: 1 };
        (0..all).for_each(|slot| clients.arm(slot));
        clients
    }

    fn arm(&mut self, slot: u32) {
        let group = self.buffers.group();
        queue(&mut self.ring, |ring| ring.recv_multi(Slot(slot), group, Token::new(RECV, 0, slot)));
    }

    fn measure(&mut self, pings_per_s: f64, time: Duration, servers: &[PathBuf]) -> Figures {
        self.drive(pings_per_s, Duration::from_secs(1));
        let here = [PathBuf::from("/proc/thread-self")];
        let before = [spent(servers), spent(&here)];
        let (mut latencies_us, lost) = self.drive(pings_per_s, time);
        let after = [spent(servers), spent(&here)];
        latencies_us.sort_unstable();
        let pings = latencies_us.len();
        let at = |share: f64| latencies_us[((pings - 1) as f64 * share) as usize] as f64;
        let [cpu, clients_cpu, switches] = [(0, 0), (1, 0), (0, 1)]
            .map(|(whose, what)| (after[whose][what] - before[whose][what]) / pings as f64);
        [cpu, cpu + clients_cpu, at(0.5), at(0.99), switches, lost as f64]
    }

    /// Pings for that time and gives the latencies, and how many pings had no answer a second after it.
    fn drive(&mut self, pings_per_s: f64, time: Duration) -> (Vec<u64>, usize) {
        let (start, mut latencies_us) = (Instant::now(), Vec::new());
        // From 1 on, since 0 says that none is under way.
        let now_us = || start.elapsed().as_micros() as u64 + 1;
        let (end_us, mut next_us) = (time.as_micros() as u64, 1.0);
        let mut under_way = 0_usize;
        loop {
            while next_us <= now_us() as f64 && next_us <= end_us as f64 {
                let slot = (self.draw() * self.pinged_us.len() as f64) as usize;
                if self.pinged_us[slot] == 0 {
                    self.pinged_us[slot] = next_us as u64;
                    under_way += 1;
                    let slot = slot as u32;
                    queue(&mut self.ring, |ring| ring.send_now(Slot(slot), PING, Token::new(SEND, 0, slot)));
                }
                next_us -= (1.0 - self.draw()).ln() * 1e6 / pings_per_s;
            }
            let is_over = now_us() > end_us;
            if is_over && (under_way == 0 || now_us() > end_us + 1_000_000) {
                self.pinged_us.fill(0);
                return (latencies_us, under_way);
            }
            let wait_us = if is_over { 1_000 } else { (next_us - now_us() as f64).max(0.0) as u64 };
            self.ring
                .submit_and_wait(u32::from(wait_us > 0), Some(Duration::from_micros(wait_us)))
                .expect("enter");
            for _ in 0..COMPLETIONS_MAX {
                let Some(completion) = self.ring.next_completion() else { break };
                let slot = completion.token.slot();
                if let Some(id) = completion.buffer {
                    self.buffers.recycle(id);
                    let pinged_us = std::mem::take(&mut self.pinged_us[slot as usize]);
                    latencies_us.push(now_us() - pinged_us);
                    under_way -= 1;
                }
                if completion.token.op() == RECV && !completion.more {
                    self.arm(slot);
                }
            }
        }
    }

    /// From 0 to below 1.
    fn draw(&mut self) -> f64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What the scheduler says of some threads: us on a core, and how often they gave it up.
fn spent(tasks: &[PathBuf]) -> [f64; 2] {
    let of = |task: &PathBuf, file: &str, start: &str| -> f64 {
        let text = fs::read_to_string(task.join(file)).expect("the kernel tells it");
        let line = text.lines().find_map(|line| line.strip_prefix(start)).expect("such a line");
        line.split_whitespace().next().and_then(|count| count.parse().ok()).expect("a number")
    };
    let sum = |file, start| tasks.iter().map(|task| of(task, file, start)).sum::<f64>();
    [sum("schedstat", "") / 1e3, sum("status", "voluntary_ctxt_switches:")]
}
