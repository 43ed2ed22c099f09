//! One notice for everybody: the logic tier is asked once, each gateway gets one call, every phone that is connected
//! gets an EVENT frame. How long until the last has it, and what does it cost?

use std::sync::atomic::{AtomicU64, Ordering};

use proto_wire::pb::notice::What;
use proto_wire::phone::PhoneEvent;
use serde::Serialize;

use crate::fleet::{App, Fleet, Now, wait_until};
use crate::limits;
use crate::report::share;
use crate::servers::Part;
use crate::session::Session;

#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Broadcast {
    /// Phones that were connected when it left.
    pub asked: u64,
    pub delivered: u64,
    /// Gateways that the logic tier called.
    pub gateways: u64,
    /// From the request to the logic tier until the last phone had it.
    pub seconds: f64,
    /// The gateway's.
    pub cpu_us_per_phone: Option<f64>,
    /// Why none was sent.
    pub trouble: Option<String>,
}

/// The notices that phones got; shared by all threads.
#[derive(Debug, Default)]
pub struct Heard {
    count: AtomicU64,
    last_us: AtomicU64,
}

impl Heard {
    /// Looks at what a phone was told.
    pub fn note(&self, event: &PhoneEvent, now: Now) {
        if let PhoneEvent::Notice { notice } = event
            && matches!(notice.what, Some(What::Announcement(_)))
        {
            self.count.fetch_add(1, Ordering::Relaxed);
            self.last_us.fetch_max(now.us, Ordering::Relaxed);
        }
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Sends one to all phones of the fleet, and waits until they have it.
pub fn to_all<A: App>(fleet: &Fleet<A>, session: &mut Session, heard: &Heard) -> Broadcast {
    let asked = fleet.totals().up;
    let (count_before, cpu_before) = (heard.count(), session.usage()[0]);
    let began_us = session.clock.now_us();
    let gateways = match session.servers.broadcast(limits::BROADCAST_TEXT) {
        Ok(gateways) => gateways,
        Err(trouble) => return Broadcast { asked, trouble: Some(trouble), ..Broadcast::default() },
    };
    let delivered = || heard.count() - count_before;
    wait_until(fleet, limits::BROADCAST_WITHIN_MS, || delivered() >= asked);
    let ended_us = heard.last_us.load(Ordering::Relaxed).max(began_us);
    let cpu_us = cpu_before.zip(session.usage()[0]).map(|(from, to)| to.cpu_us.saturating_sub(from.cpu_us));
    Broadcast {
        asked,
        delivered: delivered(),
        gateways,
        seconds: (ended_us - began_us) as f64 / 1e6,
        cpu_us_per_phone: share(cpu_us, asked),
        trouble: None,
    }
}

impl Broadcast {
    pub fn is_good(&self) -> bool {
        self.trouble.is_none() && self.delivered == self.asked
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

impl crate::servers::Servers {
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
