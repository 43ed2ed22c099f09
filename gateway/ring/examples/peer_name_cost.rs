//! What does it cost to ask for the peer's address of a direct descriptor?
//!
//! Method: a ring holds both ends of 256 loopback connections. In batches of 64, each one enter, either a poll that is
//! armed and found ready is taken for each (what any request costs), or the peer's name is asked for. Rounds of both
//! alternate; printed are the medians in ns a request.
//!
//! `cargo run --release -p gateway-ring --example peer_name_cost -- [rounds]`

use std::os::fd::AsFd;
use std::time::Instant;

use gateway_ring::*;

const OTHER: u8 = 1;
const CONNECTIONS: u32 = 256;
const BATCH: u32 = 64;
/// Batches of a round.
const BATCHES: u32 = 500;

fn main() {
    let rounds = std::env::args().nth(1).map_or(21, |arg| arg.parse::<usize>().expect("a number"));
    let mut ring = connected();
    let (mut polls, mut names) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        // A socket that has room to send is ready at once.
        polls.push(round(&mut ring, |ring, slot| ring.poll_one(slot, PollEvents::OUT, token(slot))));
        names.push(round(&mut ring, |ring, slot| ring.peer_name(slot, Family::V4, token(slot))));
    }
    println!("a ready poll    {:6.0} ns", median(&mut polls));
    println!("a peer's name   {:6.0} ns", median(&mut names));
}

fn token(slot: Slot) -> Token {
    Token::new(OTHER, 0, slot.0)
}

fn round(ring: &mut Ring, request: impl Fn(&mut Ring, Slot) -> Result<(), Full>) -> f64 {
    let started = Instant::now();
    for batch in 0..BATCHES {
        for at in 0..BATCH {
            request(ring, Slot(CONNECTIONS + (batch * BATCH + at) % CONNECTIONS)).expect("room");
        }
        let mut done = 0;
        while done < BATCH {
            ring.submit_and_wait(BATCH - done, None).expect("enter");
            done += ring.completions(BATCH as usize).inspect(|c| assert!(c.result.is_ok())).count() as u32;
        }
    }
    started.elapsed().as_nanos() as f64 / f64::from(BATCH * BATCHES)
}

/// Slots 0..n are the clients' ends, n..2n the servers'.
fn connected() -> Ring {
    let config = RingConfig {
        direct_slots: 2 * CONNECTIONS,
        automatic_slots: Some(CONNECTIONS..2 * CONNECTIONS),
        ..Default::default()
    };
    let mut ring = Ring::new(config).expect("a ring");
    let listener =
        listener("127.0.0.1:0".parse().expect("an address"), &ListenOptions::default()).expect("a port");
    let addr = listener.local_addr().expect("bound");
    for slot in 0..CONNECTIONS {
        let socket = client_socket(Family::V4, &ClientOptions::default()).expect("a socket");
        ring.install(Slot(slot), socket).expect("a slot");
        ring.connect(Slot(slot), addr, Token::new(OTHER, 0, 0)).expect("room");
        ring.accept_one(listener.as_fd(), Token::new(OTHER, 0, 0)).expect("room");
        let mut done = 0;
        while done < 2 {
            ring.submit_and_wait(1, None).expect("enter");
            done += ring.completions(2).inspect(|c| assert!(c.result.is_ok())).count();
        }
    }
    ring
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
