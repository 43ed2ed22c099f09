//! The works: who stands against whom, and what is done.

use proto_wire::frame::Class;

use super::{CompareError, MESSAGE_BYTES, Stage};
use crate::peers::floor::How;
use crate::peers::load::{Cast, Work};
use crate::peers::report::{Comparison, Raw};
use crate::peers::side::{Deed, Side};
use crate::peers::standin::Telling;
use crate::peers::stats;

const FORWARD_BYTES: usize = 64;
const PIECES_A_SECOND: f64 = 8.0;
/// Messages to all, where the search begins.
const FANOUTS_A_SECOND: f64 = 2.0;

impl Stage<'_> {
    pub(super) fn memory(&mut self, report: &mut Comparison) -> Result<(), CompareError> {
        self.say("memory: idle connections, each with its subscription");
        let cast = Cast { each_hears: true, ..self.cast(self.options.clients) };
        let peer = self.mosquitto(cast.clone());
        let Some(mut peer) = self.or_skipped(peer, &["memory_vs_mosquitto"], report)? else { return Ok(()) };
        let mut ours = self.moorgate(cast)?;
        let mut bytes = [0.0; 2];
        for (side, bytes) in [&mut ours, &mut peer].into_iter().zip(&mut bytes) {
            let warm = (self.options.clients / 10).clamp(1, 1_000);
            side.connect(warm)?;
            let before = settled(side.as_ref());
            side.connect(self.options.clients)?;
            let after = settled(side.as_ref());
            *bytes = after.saturating_sub(before) as f64 / f64::from((self.options.clients - warm).max(1));
        }
        report.add(Raw::of_bytes("memory_vs_mosquitto", bytes, self.options.clients));
        Ok(())
    }

    pub(super) fn heartbeat(&mut self, report: &mut Comparison) -> Result<(), CompareError> {
        self.say("heartbeat: pings of all connections in turn");
        let clients = self.options.clients;
        let keys = ["heartbeat_vs_mosquitto"];
        let peer = self.mosquitto(Cast { each_hears: true, ..self.cast(clients) });
        let mut peer = self.or_skipped(peer, &keys, report)?;
        let mut ours = self.moorgate(self.cast(clients))?;
        let (mut uring, mut epoll) = (self.floor(How::Uring, clients)?, self.floor(How::Epoll, clients)?);
        let ping = Deed::Clients(Work::Ping);
        let mut all = vec![&mut ours, &mut uring, &mut epoll];
        all.extend(peer.as_mut());
        self.connect_all(&mut all)?;
        let mut sides: Vec<_> = all.into_iter().map(|side| (side, ping)).collect();
        let rate = self.rate(&mut sides, 10_000.0, 1.0)?;
        let rounds = self.rounds(&mut sides, rate, 1.0)?;
        let cost = |at: usize| {
            stats::median(&rounds[at].iter().map(|round| round.cpu_us_per_unit).collect::<Vec<_>>())
                .unwrap_or(f64::INFINITY)
        };
        let (floor, name) = if cost(1) <= cost(2) { (1, "floor-uring") } else { (2, "floor-epoll") };
        let is_floor = rounds.get(3).is_none_or(|_| cost(3) >= cost(floor));
        report.floor = Some(format!(
            "{name}: {:.2} us (io_uring {:.2}, epoll {:.2}){}",
            cost(floor),
            cost(1),
            cost(2),
            if is_floor { "" } else { "; a peer's ping costs less in this run, so it is no floor" }
        ));
        report.add(Raw::of_rounds("heartbeat_vs_floor", [&rounds[0], &rounds[floor]], name, rate, clients));
        if let Some(peer) = rounds.get(3) {
            report.add(Raw::of_rounds(
                "heartbeat_vs_mosquitto",
                [&rounds[0], peer],
                "mosquitto",
                rate,
                clients,
            ));
        }
        Ok(())
    }

    pub(super) fn forward(&mut self, report: &mut Comparison) -> Result<(), CompareError> {
        self.say("forward: round trips of 64 bytes through the proxy");
        let clients = self.options.proxied_clients;
        let cast = Cast { payload_bytes: FORWARD_BYTES, ..self.cast(clients) };
        let echo = self.echo("echo", "uring", self.bench_core)?;
        let peer = self.haproxy(cast.clone(), &echo);
        let Some(mut peer) = self.or_skipped(peer, &["forward_vs_haproxy"], report)? else { return Ok(()) };
        let mut ours = self.moorgate(cast)?;
        self.connect_all(&mut [&mut ours, &mut peer])?;
        let deed = Deed::Clients(Work::Echo);
        let mut sides = [(&mut ours, deed), (&mut peer, deed)];
        let rate = self.rate(&mut sides, 5_000.0, 1.0)?;
        let rounds = self.rounds(&mut sides, rate, 1.0)?;
        report.add(Raw::of_rounds("forward_vs_haproxy", [&rounds[0], &rounds[1]], "haproxy", rate, clients));
        Ok(())
    }

    pub(super) fn fanout(&mut self, report: &mut Comparison) -> Result<(), CompareError> {
        self.say("fanout: one message of 100 bytes to all");
        let clients = self.options.clients;
        // One more connection tells the others.
        let told = Cast { all_hear: true, has_teller: true, ..self.cast(clients + 1) };
        let mut ours = self.moorgate(self.cast(clients))?;
        let units = f64::from(clients);
        let tell = Deed::Logic(Telling::ToAll { bytes: MESSAGE_BYTES });
        self.connect_all(&mut [&mut ours])?;
        for (key, name) in [("fanout_vs_mosquitto", "mosquitto"), ("fanout_vs_nats", "nats")] {
            let peer = if name == "nats" { self.nats(told.clone()) } else { self.mosquitto(told.clone()) };
            let Some(mut peer) = self.or_skipped(peer, &[key], report)? else { continue };
            self.connect_all(&mut [&mut peer])?;
            let mut sides = [(&mut ours, tell), (&mut peer, Deed::Clients(Work::Fanout))];
            let rate = self.rate(&mut sides, FANOUTS_A_SECOND, units)?;
            let rounds = self.rounds(&mut sides, rate, units)?;
            report.add(Raw::of_rounds(key, [&rounds[0], &rounds[1]], name, rate * units, clients));
        }
        Ok(())
    }

    pub(super) fn coalesced(&mut self, report: &mut Comparison) -> Result<(), CompareError> {
        self.say("coalesced: 8 pieces of news a connection within a second");
        let clients = self.options.clients;
        let told = Cast { each_hears: true, has_teller: true, ..self.cast(clients + 1) };
        let peer = self.mosquitto(told);
        let Some(mut peer) = self.or_skipped(peer, &["coalesced_vs_mosquitto"], report)? else {
            return Ok(());
        };
        let mut ours = self.moorgate(self.cast(clients))?;
        self.connect_all(&mut [&mut ours, &mut peer])?;
        // The key's: the 8 pieces of a connection come in one go, once a second. Beside it, spread over the second.
        for (key, burst) in [("coalesced_vs_mosquitto", 8), ("coalesced_spread_vs_mosquitto", 1)] {
            let of_rate = |rate: f64| ((rate / PIECES_A_SECOND) as u32).clamp(1, clients);
            let deeds = |of: u32| {
                let (class, bytes) = (Class::Now, MESSAGE_BYTES);
                [
                    Deed::Logic(Telling::Pieces { of, burst, class, bytes }),
                    Deed::Clients(Work::Pieces { of, burst }),
                ]
            };
            let [ours_deed, peer_deed] = deeds(clients);
            let mut sides = [(&mut ours, ours_deed), (&mut peer, peer_deed)];
            let most = f64::from(clients) * PIECES_A_SECOND;
            let rate = self.rate(&mut sides, 10_000.0_f64.min(most), 1.0)?.min(most);
            let [ours_deed, peer_deed] = deeds(of_rate(rate));
            let mut sides = [(&mut ours, ours_deed), (&mut peer, peer_deed)];
            let rounds = self.rounds(&mut sides, rate, 1.0)?;
            report.add(Raw::of_rounds(key, [&rounds[0], &rounds[1]], "mosquitto", rate, of_rate(rate)));
        }
        Ok(())
    }
}

/// Its memory, when it no longer changes.
fn settled(side: &dyn Side) -> u64 {
    let mut last = side.rss_bytes();
    for _ in 0..crate::limits::SETTLE_ROUNDS_MAX {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = side.rss_bytes();
        if now == last {
            break;
        }
        last = now;
    }
    last
}
