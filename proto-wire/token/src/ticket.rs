//! Resume tickets: a gateway's own word, for the next HELLO of a phone it has welcomed, that its token was good.
//!
//! A ticket costs two HMACs where a token costs a signature check, so phones that sleep and come back, and a storm of
//! them, cost next to nothing. It is bound to user, home and device, ends with the token it stands for, and is good
//! for one to two epochs at most: each epoch's key is derived from the root by its number. `spec/token.md` has the
//! bytes.

use aws_lc_rs::hmac;

use crate::{Claims, KeyError, TokenError, limits};

/// version u8, epoch u32, user u64, device u64, home u8, until u64, mac 16 bytes; numbers little-endian.
pub const TICKET_BYTES: usize = SIGNED_BYTES + MAC_BYTES;

const VERSION: u8 = 1;
const SIGNED_BYTES: usize = 1 + 4 + 8 + 8 + 1 + 8;
/// A forger has one try a connection: 128 bits leave none.
const MAC_BYTES: usize = 16;

/// Root keys: the first mints, all verify, so that gateways can be given a new one before it is used.
pub struct TicketKeys {
    roots: Vec<hmac::Key>,
}

impl std::fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketKeys({})", self.roots.len())
    }
}

impl TicketKeys {
    pub fn new(root: [u8; limits::TICKET_KEY_BYTES]) -> Self {
        Self { roots: vec![hmac::Key::new(hmac::HMAC_SHA256, &root)] }
    }

    /// Reads keys as 64 hex digits a line; empty lines and those that begin with `#` are skipped.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let roots: Vec<_> = lines
            .map(|line| Some(hmac::Key::new(hmac::HMAC_SHA256, &from_hex(line)?)))
            .collect::<Option<_>>()
            .ok_or(KeyError::Ticket)?;
        match roots.len() {
            0 => Err(KeyError::None),
            1..=limits::MAX_KEYS => Ok(Self { roots }),
            _ => Err(KeyError::TooMany),
        }
    }

    /// The text that [`TicketKeys::from_text`] reads.
    pub fn to_text(root: &[u8; limits::TICKET_KEY_BYTES]) -> String {
        root.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n"
    }

    /// A ticket for a device whose token, or older ticket, said `claims`.
    pub fn mint(&self, claims: &Claims, device: u64, now_s: u64) -> [u8; TICKET_BYTES] {
        let epoch = epoch_of(now_s);
        let mut ticket = [0; TICKET_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            ticket[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&[VERSION]);
        put(&epoch.to_le_bytes());
        put(&claims.user.to_le_bytes());
        put(&device.to_le_bytes());
        put(&[claims.home]);
        put(&claims.expires_s.to_le_bytes());
        let mac = mac(&self.roots[0], epoch, &ticket[..SIGNED_BYTES]);
        ticket[SIGNED_BYTES..].copy_from_slice(&mac);
        ticket
    }

    /// How long a ticket that is minted now is good, in seconds.
    pub fn good_for_s(claims: &Claims, now_s: u64) -> u64 {
        let end_s = (u64::from(epoch_of(now_s)) + 2) * limits::TICKET_EPOCH_S;
        end_s.min(claims.expires_s).saturating_sub(now_s)
    }

    /// What a ticket says; `device` of the claims is the one it is bound to.
    pub fn verify(&self, ticket: &[u8], now_s: u64) -> Result<Claims, TokenError> {
        let ticket: &[u8; TICKET_BYTES] = ticket.try_into().map_err(|_| TokenError::Malformed)?;
        if ticket[0] != VERSION {
            return Err(TokenError::Malformed);
        }
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&ticket[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let epoch = u32::from_le_bytes([ticket[1], ticket[2], ticket[3], ticket[4]]);
        // The key first: what is not ours learns nothing of why it is refused.
        let signed = &ticket[..SIGNED_BYTES];
        let ours = |root: &hmac::Key| {
            aws_lc_rs::constant_time::verify_slices_are_equal(
                &mac(root, epoch, signed),
                &ticket[SIGNED_BYTES..],
            )
            .is_ok()
        };
        if !self.roots.iter().any(ours) {
            return Err(TokenError::Signature);
        }
        let now = epoch_of(now_s);
        if epoch > now.saturating_add(1) {
            return Err(TokenError::NotYet);
        }
        let expires_s = number(22);
        if epoch.saturating_add(1) < now || expires_s <= now_s {
            return Err(TokenError::Expired);
        }
        Ok(Claims { user: number(5), home: ticket[21], device: Some(number(13)), issued_s: now_s, expires_s })
    }
}

/// Of the clock of whoever mints: a gateway whose clock is behind may meet the next epoch.
fn epoch_of(now_s: u64) -> u32 {
    u32::try_from(now_s / limits::TICKET_EPOCH_S).unwrap_or(u32::MAX)
}

fn mac(root: &hmac::Key, epoch: u32, signed: &[u8]) -> [u8; MAC_BYTES] {
    let mut label = *b"moorgate ticket \0\0\0\0";
    label[16..].copy_from_slice(&epoch.to_le_bytes());
    let key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(root, &label).as_ref());
    let tag = hmac::sign(&key, signed);
    let mut short = [0; MAC_BYTES];
    short.copy_from_slice(&tag.as_ref()[..MAC_BYTES]);
    short
}

fn from_hex(line: &str) -> Option<[u8; limits::TICKET_KEY_BYTES]> {
    let digits = line.as_bytes();
    if digits.len() != 2 * limits::TICKET_KEY_BYTES {
        return None;
    }
    let mut key = [0; limits::TICKET_KEY_BYTES];
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| (digit as char).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn claims() -> Claims {
        Claims { user: 42, home: 3, device: None, issued_s: NOW_S - 5, expires_s: NOW_S + 7 * 86_400 }
    }

    #[test]
    fn a_ticket_says_what_its_token_said_and_whom_it_is_bound_to() {
        let keys = TicketKeys::new([7; 32]);
        let ticket = keys.mint(&claims(), 9, NOW_S);
        let told = keys.verify(&ticket, NOW_S + 60).expect("good");
        assert_eq!((told.user, told.home, told.device), (42, 3, Some(9)));
        assert_eq!(told.expires_s, claims().expires_s, "it ends with its token, however often it is renewed");
        assert_eq!(TicketKeys::new([8; 32]).verify(&ticket, NOW_S), Err(TokenError::Signature));
    }

    #[test]
    fn a_ticket_ends_with_its_token_and_with_its_epoch() {
        let keys = TicketKeys::new([7; 32]);
        let soon = Claims { expires_s: NOW_S + 10, ..claims() };
        let ticket = keys.mint(&soon, 9, NOW_S);
        assert!(keys.verify(&ticket, NOW_S + 9).is_ok());
        assert_eq!(keys.verify(&ticket, NOW_S + 10), Err(TokenError::Expired));
        assert_eq!(TicketKeys::good_for_s(&soon, NOW_S), 10);

        let ticket = keys.mint(&claims(), 9, NOW_S);
        let good_s = TicketKeys::good_for_s(&claims(), NOW_S);
        assert!((limits::TICKET_EPOCH_S..=2 * limits::TICKET_EPOCH_S).contains(&good_s));
        assert!(keys.verify(&ticket, NOW_S + good_s - 1).is_ok());
        assert_eq!(keys.verify(&ticket, NOW_S + good_s), Err(TokenError::Expired));
        assert_eq!(keys.verify(&ticket, NOW_S - 3 * limits::TICKET_EPOCH_S), Err(TokenError::NotYet));
        assert!(keys.verify(&ticket, NOW_S - limits::TICKET_EPOCH_S).is_ok(), "a clock that is behind");
    }

    #[test]
    fn a_new_root_is_verified_before_it_mints() {
        let (old, new) = ([1; 32], [2; 32]);
        let both = |first, second| {
            let text = format!("# keys\n{}\n{}", TicketKeys::to_text(first), TicketKeys::to_text(second));
            TicketKeys::from_text(&text).expect("two keys")
        };
        let minted_new = both(&new, &old).mint(&claims(), 9, NOW_S);
        assert!(both(&old, &new).verify(&minted_new, NOW_S).is_ok());
        assert!(TicketKeys::new(old).verify(&minted_new, NOW_S).is_err());
    }

    #[test]
    fn texts_that_hold_no_keys_are_told() {
        assert!(matches!(TicketKeys::from_text("# none\n"), Err(KeyError::None)));
        assert!(matches!(TicketKeys::from_text("abc"), Err(KeyError::Ticket)));
        assert!(matches!(TicketKeys::from_text(&"g".repeat(64)), Err(KeyError::Ticket)));
        let many = TicketKeys::to_text(&[1; 32]).repeat(limits::MAX_KEYS + 1);
        assert!(matches!(TicketKeys::from_text(&many), Err(KeyError::TooMany)));
    }

    proptest! {
        #[test]
        fn one_bit_off_is_no_ticket(bit in 0..TICKET_BYTES * 8) {
            let keys = TicketKeys::new([7; 32]);
            let mut ticket = keys.mint(&claims(), 9, NOW_S);
            ticket[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(keys.verify(&ticket, NOW_S).is_err());
        }

        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(TicketKeys::new([7; 32]).verify(&bytes, NOW_S).is_err());
        }
    }
}
