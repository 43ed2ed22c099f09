//! Who the phones of a run are. Every run has users of its own, so that a store which holds earlier runs tells
//! them nothing.

use std::sync::Arc;

use proto_wire::phone::{Device, Phone, PhoneConfig};
use proto_wire_token::{Claims, IssuerKey};

use crate::clock;

/// Phones of one run at most: what is left of a user's id beside the run's number.
const PHONES_BITS: u32 = 24;

/// Tokens live longer than any run.
const TOKEN_S: u64 = 7 * 24 * 3600;

/// The users of a run.
#[derive(Debug, Clone)]
pub struct Identities {
    issuer: Arc<IssuerKey>,
    pub run: u32,
    seed: u64,
    config: Arc<PhoneConfig>,
}

impl Identities {
    pub fn new(issuer: Arc<IssuerKey>, run: u32, seed: u64, config: PhoneConfig) -> Self {
        Self { issuer, run, seed, config: Arc::new(config) }
    }

    /// A number that no other run has, as good as certainly.
    pub fn fresh_run() -> u32 {
        // Bit 31 is left clear, so that a user's top bit is, which marks groups.
        (rand::random::<u32>() >> 1).max(1)
    }

    pub fn user(&self, phone: u32) -> u64 {
        (u64::from(self.run) << PHONES_BITS) | (u64::from(phone) + 1)
    }

    /// The phone of a user; none: not of this run.
    pub fn phone_of(&self, user: u64) -> Option<u32> {
        let phone = (user & ((1 << PHONES_BITS) - 1)).checked_sub(1)?;
        (user >> PHONES_BITS == u64::from(self.run)).then_some(phone as u32)
    }

    pub fn machine(&self, phone: u32) -> Phone {
        self.machine_of(phone, 0)
    }

    /// A further device of the phone's user has a number above 0.
    pub fn machine_of(&self, phone: u32, device: u32) -> Phone {
        let line = u64::from(phone) | u64::from(device) << 32;
        // A user's id ends below bit 56.
        let device = Device { id: self.user(phone) | u64::from(device) << 56, ..Device::default() };
        Phone::new(self.config.clone(), device, self.seed ^ line.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn token(&self, phone: u32) -> Box<[u8]> {
        let now_s = clock::unix_s();
        let user = self.user(phone);
        let claims = Claims { user, home: 0, device: None, issued_s: now_s, expires_s: now_s + TOKEN_S };
        self.issuer.mint(&claims).into_bytes().into_boxed_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_wire::names::GROUP_BIT;
    use proto_wire_token::{Verifier, Verify};

    #[test]
    fn users_and_phones_are_each_others() {
        let issuer = Arc::new(IssuerKey::generate());
        let verifier = Verifier::from_pems(&[&issuer.public_pem()]).expect("a public key");
        let run = Identities::fresh_run();
        let who = Identities::new(issuer.clone(), run, 1, PhoneConfig::default());
        let other = Identities::new(issuer, run ^ 2, 1, PhoneConfig::default());
        for phone in [0, 1, 99_999, 1_000_000] {
            let user = who.user(phone);
            assert_eq!(who.phone_of(user), Some(phone));
            assert_eq!(other.phone_of(user), None);
            assert_eq!(user & GROUP_BIT, 0);
            let claims = verifier.verify(&who.token(phone), clock::unix_s()).expect("a good token");
            assert_eq!(claims.user, user);
        }
        assert_eq!(who.phone_of(u64::from(run) << PHONES_BITS), None);
    }
}
