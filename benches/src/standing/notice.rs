//! One notice for everybody: the logic tier is asked once, each gateway gets one call, every phone that is connected
//! gets an EVENT frame. How long until the last has it, and what does it cost?

use std::sync::atomic::{AtomicU64, Ordering};

use proto_wire::pb::{self, notice::What};
use serde::Serialize;

use crate::fleet::{App, Fleet, Now, wait_until};
use crate::limits;
use crate::report::share;
use crate::servers::{Part, Servers};
use crate::session::Session;

#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Broadcast {
    /// Phones that were connected when it left.
    pub asked: u64,
    pub delivered: u64,
    /// Phones that got it once more.
    pub twice: u64,
    /// Gateways that the logic tier called.
    pub gateways: u64,
    /// From the request to the logic tier until the last phone had it.
    pub seconds: f64,
    /// The gateway's.
    pub cpu_us_per_phone: Option<f64>,
    /// Why none was sent.
    pub trouble: Option<String>,
}

/// The notice that is out, and who has it; shared by all threads.
#[derive(Debug, Default)]
pub struct Heard {
    /// Counts notices; 0 is none.
    number: AtomicU64,
    intended_us: AtomicU64,
    count: AtomicU64,
    twice: AtomicU64,
    last_us: AtomicU64,
}

impl Heard {
    /// From here on phones are to hear the next one. Gives its text.
    fn begin(&self, intended_us: u64) -> String {
        self.intended_us.store(intended_us, Ordering::Relaxed);
        for counter in [&self.count, &self.twice, &self.last_us] {
            counter.store(0, Ordering::Relaxed);
        }
        let number = self.number.fetch_add(1, Ordering::Release) + 1;
        format!("{} #{number}", limits::BROADCAST_TEXT)
    }

    /// Looks at what a phone was told. `last` is the phone's own. Gives the intended time of the notice that is out, when
    /// it is that one and the phone had not heard it.
    pub fn note(&self, notice: &pb::Notice, last: &mut u8, now: Now) -> Option<u64> {
        let Some(What::Announcement(told)) = &notice.what else { return None };
        let number: u64 = told.text.strip_prefix(limits::BROADCAST_TEXT)?.strip_prefix(" #")?.parse().ok()?;
        if number != self.number.load(Ordering::Acquire) {
            return None;
        }
        if std::mem::replace(last, number as u8) == number as u8 {
            self.twice.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.last_us.fetch_max(now.us, Ordering::Relaxed);
        Some(self.intended_us.load(Ordering::Relaxed))
    }
}

/// Sends one to all phones of the fleet, and waits until they have it; `beside` is looked after meanwhile.
pub fn to_all<A: App>(
    fleet: &Fleet<A>,
    session: &mut Session,
    heard: &Heard,
    intended_us: u64,
    beside: &mut dyn FnMut(&mut Session),
) -> Broadcast {
    let asked = fleet.totals().up;
    let cpu_before = session.usage()[0];
    let text = heard.begin(intended_us);
    let began_us = session.clock.now_us();
    let gateways = match session.servers.broadcast(&text) {
        Ok(gateways) => gateways,
        Err(trouble) => return Broadcast { asked, trouble: Some(trouble), ..Broadcast::default() },
    };
    let delivered = || heard.count.load(Ordering::Relaxed);
    wait_until(fleet, limits::BROADCAST_WITHIN_MS, || {
        beside(session);
        delivered() >= asked
    });
    let ended_us = heard.last_us.load(Ordering::Relaxed).max(began_us);
    let cpu_us = cpu_before.zip(session.usage()[0]).map(|(from, to)| to.cpu_us.saturating_sub(from.cpu_us));
    Broadcast {
        asked,
        delivered: delivered(),
        twice: heard.twice.load(Ordering::Relaxed),
        gateways,
        seconds: (ended_us - began_us) as f64 / 1e6,
        cpu_us_per_phone: share(cpu_us, asked),
        trouble: None,
    }
}

impl Broadcast {
    /// Of several: the sums, the slowest, and what a phone cost on average.
    pub fn of_all<'a>(all: impl Iterator<Item = &'a Broadcast>) -> Self {
        let mut sum = Self::default();
        let mut cpu_us = None;
        for one in all {
            sum.asked += one.asked;
            sum.delivered += one.delivered;
            sum.twice += one.twice;
            sum.gateways = sum.gateways.max(one.gateways);
            sum.seconds = sum.seconds.max(one.seconds);
            sum.trouble = sum.trouble.or_else(|| one.trouble.clone());
            if let Some(us) = one.cpu_us_per_phone {
                *cpu_us.get_or_insert(0.0) += us * one.asked as f64;
            }
        }
        sum.cpu_us_per_phone = cpu_us.map(|us| us / sum.asked.max(1) as f64);
        sum
    }

    pub fn is_good(&self) -> bool {
        self.trouble.is_none() && self.delivered == self.asked && self.twice == 0
    }

    pub fn summary(&self) -> String {
        if let Some(trouble) = &self.trouble {
            return format!("broadcast: not sent: {trouble}");
        }
        let us = crate::report::figure(self.cpu_us_per_phone, "us");
        format!(
            "broadcast: {} of {} phones had it after {:.2} s, {us} of the gateway's CPU a phone",
            self.delivered, self.asked, self.seconds
        )
    }
}

impl Servers {
    /// Asks the backend for a notice to everybody. Gives how many gateways hand it out.
    pub fn broadcast(&self, text: &str) -> Result<u64, String> {
        let admin = self.admin(Part::Backend).ok_or("the backend's admin port is not known")?;
        let answer = self.post(admin, "/broadcast", text).map_err(|error| {
            format!("the backend's admin port {admin} does not take it: {error} (say --backend-admin ADDR)")
        })?;
        let answer: serde_json::Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
        match answer["gateways"].as_u64() {
            Some(gateways @ 1..) => Ok(gateways),
            _ => Err("no gateway is connected to the backend".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(text: &str) -> pb::Notice {
        let what = What::Announcement(pb::Announcement { text: text.to_owned() });
        pb::Notice { what: Some(what) }
    }

    #[test]
    fn each_phone_counts_once_and_only_for_the_notice_that_is_out() {
        let heard = Heard::default();
        let (mut one, mut other) = (0, 0);
        let first = announcement(&heard.begin(5_000));
        let at = |us| Now { us };
        assert_eq!(heard.note(&first, &mut one, at(6_000)), Some(5_000));
        assert_eq!(heard.note(&first, &mut one, at(6_500)), None, "twice");
        let second = announcement(&heard.begin(9_000));
        assert_eq!(heard.note(&first, &mut other, at(9_100)), None, "of the one before, late");
        assert_eq!(heard.note(&announcement("high tide"), &mut other, at(9_150)), None, "not ours");
        for phone in [&mut one, &mut other] {
            assert_eq!(heard.note(&second, phone, at(9_200)), Some(9_000));
        }
        let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!((counted(&heard.count), counted(&heard.twice), counted(&heard.last_us)), (2, 0, 9_200));
    }

    #[test]
    fn several_are_summed_and_the_slowest_is_told() {
        let one = |asked, seconds, us| Broadcast {
            asked,
            delivered: asked,
            gateways: 1,
            seconds,
            cpu_us_per_phone: Some(us),
            ..Broadcast::default()
        };
        let all = Broadcast::of_all([one(10, 0.5, 4.0), one(30, 0.2, 8.0)].iter());
        assert_eq!((all.asked, all.delivered, all.gateways, all.seconds), (40, 40, 1, 0.5));
        assert_eq!(all.cpu_us_per_phone, Some(7.0));
        assert!(all.is_good() && Broadcast::of_all([].iter()).cpu_us_per_phone.is_none());
    }

    #[test]
    fn it_is_good_when_each_phone_has_it_once() {
        let good = Broadcast { asked: 5, delivered: 5, gateways: 1, ..Broadcast::default() };
        assert!(good.is_good());
        for bad in [
            Broadcast { delivered: 4, ..good.clone() },
            Broadcast { twice: 1, ..good.clone() },
            Broadcast { trouble: Some("no gateway".to_owned()), ..good.clone() },
        ] {
            assert!(!bad.is_good(), "{bad:?}");
        }
    }
}
