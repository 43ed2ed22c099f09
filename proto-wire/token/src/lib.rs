//! The token of a user: a JWT signed with Ed25519. The logic tier mints it, gateways verify it with
//! nothing but public keys, so a storm of reconnects asks nobody. `spec/token.md` describes each field.
//!
//! No clock in here: `now_s` comes in, as seconds since 1970.

#![forbid(unsafe_code)]

mod issuer;
mod ticket;
mod verifier;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use issuer::IssuerKey;
pub use ticket::{TICKET_BYTES, TicketKeys};
pub use verifier::Verifier;

/// Maxima, and why they are what they are.
pub mod limits {
    /// Public keys that are valid at once: the current one, the next one, and those of tokens that still
    /// live. A token names its key, so more keys cost nothing but memory.
    pub const MAX_KEYS: usize = 16;
    /// How far the issuer's clock may be ahead of the verifier's.
    pub const CLOCK_SKEW_S: u64 = 60;
    /// The root of the keys of resume tickets.
    pub const TICKET_KEY_BYTES: usize = 32;
    /// A ticket is good for the rest of its epoch and the next: long enough for a phone that sleeps through a
    /// night, short enough that a stolen one is soon worth nothing.
    pub const TICKET_EPOCH_S: u64 = 12 * 3600;
}

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    /// `sub`. Never 0, and never a group's id.
    pub user: u64,
    /// `home`: the IDC that the user belongs to.
    pub home: u8,
    /// `dev`: the only device that may use the token; none: any.
    pub device: Option<u64>,
    /// `iat`.
    pub issued_s: u64,
    /// `exp`: the first second at which the token is no longer good.
    pub expires_s: u64,
}

/// Checks tokens. A trait, so that a gateway may be given another way to know its users.
pub trait Verify {
    fn verify(&self, token: &[u8], now_s: u64) -> Result<Claims, TokenError>;

    /// A ticket for the next HELLO of a device whose claims were found good, and for how many seconds it is.
    /// None: there are no tickets here.
    fn ticket(&self, _claims: &Claims, _device: u64, _now_s: u64) -> Option<([u8; TICKET_BYTES], u64)> {
        None
    }

    /// What a ticket says.
    fn resume(&self, _ticket: &[u8], _now_s: u64) -> Result<Claims, TokenError> {
        Err(TokenError::Signature)
    }
}

/// Knows users by the tokens of an issuer, and by the tickets that gateways with the same root key gave.
#[derive(Debug)]
pub struct Resuming<V> {
    pub tokens: V,
    pub tickets: TicketKeys,
}

impl<V: Verify> Verify for Resuming<V> {
    fn verify(&self, token: &[u8], now_s: u64) -> Result<Claims, TokenError> {
        self.tokens.verify(token, now_s)
    }

    fn ticket(&self, claims: &Claims, device: u64, now_s: u64) -> Option<([u8; TICKET_BYTES], u64)> {
        Some((self.tickets.mint(claims, device, now_s), TicketKeys::good_for_s(claims, now_s)))
    }

    fn resume(&self, ticket: &[u8], now_s: u64) -> Result<Claims, TokenError> {
        self.tickets.verify(ticket, now_s)
    }
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    #[error("this is no token")]
    Malformed,
    #[error("the token's signature is by no key that is trusted here")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is from the future")]
    NotYet,
    #[error("the token is not signed with EdDSA")]
    Algorithm,
    #[error("the token's claims are incomplete or out of range")]
    Claims,
}

/// Why a key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    #[error("this is no PEM text")]
    Pem,
    #[error("this PEM block is no Ed25519 key of the kind expected here")]
    Kind,
    #[error("there is no key in it")]
    None,
    #[error("there are more than {max} keys", max = limits::MAX_KEYS)]
    TooMany,
    #[error("a ticket key is 64 hex digits, one key a line")]
    Ticket,
}

/// The claims as they stand in JSON. Ids are decimal strings: a JSON number holds only 53 bits everywhere.
#[derive(Serialize, Deserialize)]
struct WireClaims {
    sub: String,
    home: u8,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    dev: Option<String>,
    iat: u64,
    exp: u64,
}

impl From<&Claims> for WireClaims {
    fn from(claims: &Claims) -> Self {
        Self {
            sub: claims.user.to_string(),
            home: claims.home,
            dev: claims.device.map(|device| device.to_string()),
            iat: claims.issued_s,
            exp: claims.expires_s,
        }
    }
}

impl WireClaims {
    fn parse(self) -> Option<Claims> {
        let user = decimal(&self.sub)?;
        let device = match self.dev {
            Some(text) => Some(decimal(&text)?),
            None => None,
        };
        let named = user != 0 && user & proto_wire::names::GROUP_BIT == 0 && self.iat <= self.exp;
        named.then_some(Claims { user, home: self.home, device, issued_s: self.iat, expires_s: self.exp })
    }
}

/// A u64 in its one decimal form: no sign, no leading zero.
fn decimal(text: &str) -> Option<u64> {
    let value: u64 = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

/// The first 8 bytes of a public key in hex: names the key in a token's header.
fn key_id(public: &[u8]) -> String {
    public.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
