//! What does a call cost a running backend?
//!
//! Keeps a window of calls in flight over one connection, as a gateway's shard does, and divides the CPU time
//! of the backend's process by the calls. `send`: messages between phones that are all online here, so
//! that each is committed, delivered and told in a batch of news.
//!
//! `cargo run --release -p backend-stub --example rpc_figures -- ADDR PID echo|send IN_FLIGHT SECONDS [RATE]`

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prost::Message;
use proto_wire::names::{Route, UploadId};
use proto_wire::pb;
use proto_wire::rpc::callee::{Callee, CalleeConfig, Outcome};
use proto_wire::rpc::caller::{Caller, CallerConfig, Request};
use proto_wire::rpc::header::{Identity, Kind, next_header};
use proto_wire::services::{echo, messages, presence};
use proto_wire::status::Code;

const USERS: u64 = 10_000;
const ONLINE_IN_ONE_REPORT: u64 = 500;

struct Load {
    stream: TcpStream,
    caller: Caller<Instant>,
    callee: Callee,
    out: Vec<u8>,
    input: Vec<u8>,
    start: Instant,
    made: u64,
    done: u64,
    failed: u64,
    news: u64,
    notifies: u64,
    latencies_us: Vec<u32>,
    is_send: bool,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [addr, pid, what, window, seconds, rest @ ..] = args.as_slice() else {
        eprintln!("usage: rpc_figures ADDR PID echo|send IN_FLIGHT SECONDS [RATE]");
        std::process::exit(2);
    };
    let window: u64 = window.parse().expect("a number of calls");
    let length = Duration::from_secs(seconds.parse().expect("seconds"));
    let rate: Option<f64> = rest.first().map(|rate| rate.parse().expect("calls a second"));
    let mut load = Load::connect(addr, what == "send");
    load.announce();
    let (cpu_before, begun) = (cpu_us(pid), Instant::now());
    load.latencies_us.clear();
    load.done = 0;
    while begun.elapsed() < length {
        let due = rate.map_or(u64::MAX, |rate| (begun.elapsed().as_secs_f64() * rate) as u64);
        while load.made - load.done - load.failed < window && load.made < due {
            load.call();
        }
        load.turn();
    }
    let (elapsed, cpu_us) = (begun.elapsed(), cpu_us(pid) - cpu_before);
    load.latencies_us.sort_unstable();
    let percentile = |p: f64| load.latencies_us[((load.latencies_us.len() - 1) as f64 * p) as usize];
    println!(
        "{what} in_flight={window} calls_per_second={:.0} failed={} news_per_second={:.0} notifies_per_second={:.0} \
         backend_cpu_us_per_call={:.2} backend_cores={:.2} p50_us={} p99_us={} p999_us={}",
        load.done as f64 / elapsed.as_secs_f64(),
        load.failed,
        load.news as f64 / elapsed.as_secs_f64(),
        load.notifies as f64 / elapsed.as_secs_f64(),
        cpu_us as f64 / load.done as f64,
        cpu_us as f64 / 1e6 / elapsed.as_secs_f64(),
        percentile(0.5),
        percentile(0.99),
        percentile(0.999),
    );
}

impl Load {
    fn connect(addr: &str, is_send: bool) -> Self {
        let stream = TcpStream::connect(addr).expect("the backend listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a socket");
        let mut caller = Caller::new(CallerConfig { initial_credit: 4096, ..CallerConfig::default() }, 7);
        let mut out = Vec::new();
        caller.start(0);
        caller.handle_connected(0, &mut out);
        Self {
            stream,
            caller,
            callee: Callee::new(CalleeConfig::default()),
            out,
            input: Vec::new(),
            start: Instant::now(),
            made: 0,
            done: 0,
            failed: 0,
            news: 0,
            notifies: 0,
            latencies_us: Vec::new(),
            is_send,
        }
    }

    fn announce(&mut self) {
        let mut reports = 0;
        for first in (1..=USERS).step_by(ONLINE_IN_ONE_REPORT as usize) {
            let online = (first..first + ONLINE_IN_ONE_REPORT).map(|user| pb::Online {
                user,
                device: user,
                slot: user as u32,
                generation: 1,
                counter: 1,
                log_epoch: 1,
                applied: 0,
            });
            let request =
                pb::ReportRequest { gateway: 9, shard: 0, online: online.collect(), ..Default::default() };
            let body = request.encode_to_vec();
            let request = Request {
                method: presence::REPORT.id,
                deadline_ms: 20_000,
                body: &body,
                ..Request::default()
            };
            self.begin(&request);
            reports += 1;
        }
        while self.done < reports {
            self.turn();
        }
        self.made = 0;
    }

    fn call(&mut self) {
        self.made += 1;
        let user = 1 + self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15) % USERS;
        let identity = Some(Identity { user, device: user, route: Route::default() });
        let (method, body) = if self.is_send {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
            let mut random = [0; 10];
            random[..8].copy_from_slice(&self.made.to_le_bytes());
            let id = UploadId::new(since.as_millis() as u64, random);
            let to = 1 + (user + 77) % USERS;
            let request = pb::SendRequest {
                id: id.0.to_vec().into(),
                to,
                text: "hello, how are you?".into(),
                ..Default::default()
            };
            (messages::SEND.id, request.encode_to_vec())
        } else {
            (echo::SAY.id, pb::EchoRequest { payload: vec![1; 64].into() }.encode_to_vec())
        };
        let request = Request { method, deadline_ms: 20_000, identity, body: &body, ..Request::default() };
        self.begin(&request);
    }

    fn begin(&mut self, request: &Request<'_>) {
        let now_ms = self.start.elapsed().as_millis() as u64;
        if self.caller.call(request, Instant::now(), now_ms, &mut self.out).is_err() {
            self.failed += 1;
        }
    }

    fn turn(&mut self) {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out).expect("the backend reads");
            self.out.clear();
        }
        let held = self.input.len();
        self.input.resize(held + 256 * 1024, 0);
        let read = self.stream.read(&mut self.input[held..]).unwrap_or(0);
        self.input.truncate(held + read);
        let now_ms = self.start.elapsed().as_millis() as u64;
        let mut at = 0;
        while let Some((header, header_bytes)) = next_header(&self.input[at..]).expect("well-formed frames") {
            let body = at + header_bytes;
            let end = body + header.body_bytes as usize;
            match header.kind {
                Kind::Reply => {
                    let begun =
                        self.caller.handle_reply(&header, now_ms, &mut self.out).expect("a call of ours");
                    if let Some(begun) = begun {
                        self.latencies_us.push(begun.elapsed().as_micros() as u32);
                    }
                    self.done += 1;
                    if header.code() != Code::Ok {
                        self.failed += 1;
                        self.done -= 1;
                    }
                }
                Kind::Call => {
                    let call = self
                        .callee
                        .handle_call(&header, now_ms, &mut self.out)
                        .expect("fine")
                        .expect("admitted");
                    let request = pb::NotifyRequest::decode(&self.input[body..end]).expect("news");
                    self.news += request.news.len() as u64;
                    self.notifies += 1;
                    self.callee.reply(&call, &Outcome::OK, &[], &mut self.out);
                }
                Kind::Cancel | Kind::Ping => drop(self.callee.handle_control(&header, &mut self.out)),
                _ => self.caller.handle_control(&header, now_ms, &mut self.out).expect("fine"),
            }
            at = end;
        }
        self.input.drain(..at);
    }
}

/// CPU time of a process, user and system, in steps of 10 ms.
fn cpu_us(pid: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the backend runs");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    (ticks(11) + ticks(12)) * 10_000
}
