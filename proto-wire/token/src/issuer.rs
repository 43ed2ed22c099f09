//! The private key, held by the logic tier alone.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use pem::{EncodeConfig, LineEnding, Pem};

use crate::{Claims, KeyError, WireClaims, key_id};

/// What stands before the 32 bytes of an Ed25519 public key in its SubjectPublicKeyInfo (RFC 8410).
pub(crate) const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// An Ed25519 key that mints tokens.
pub struct IssuerKey {
    pair: Ed25519KeyPair,
    /// The token's first part with its dot: the same for every token of this key.
    head: String,
}

impl fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuerKey({})", key_id(self.pair.public_key().as_ref()))
    }
}

impl IssuerKey {
    /// A new random key.
    pub fn generate() -> Self {
        // AWS-LC ends the process itself when the kernel gives no random bytes; what is left is a failed
        // allocation of 100 bytes.
        Self::new(Ed25519KeyPair::generate().expect("memory for one key"))
    }

    /// Reads a PKCS#8 key, as `to_pem` or `openssl genpkey -algorithm ed25519` writes it.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let block = pem::parse(text).map_err(|_| KeyError::Pem)?;
        if block.tag() != "PRIVATE KEY" {
            return Err(KeyError::Kind);
        }
        Ed25519KeyPair::from_pkcs8(block.contents()).map(Self::new).map_err(|_| KeyError::Kind)
    }

    /// The private key as PKCS#8 (version 1) in PEM. Whoever reads it can be any user.
    pub fn to_pem(&self) -> String {
        let document = self.pair.to_pkcs8v1().expect("a key in memory has a DER form");
        encode("PRIVATE KEY", document.as_ref())
    }

    /// The public key as SubjectPublicKeyInfo in PEM, for gateways.
    pub fn public_pem(&self) -> String {
        encode("PUBLIC KEY", &[&SPKI_PREFIX, self.pair.public_key().as_ref()].concat())
    }

    /// Signs what `claims` say.
    pub fn mint(&self, claims: &Claims) -> String {
        let body =
            serde_json::to_vec(&WireClaims::from(claims)).expect("strings and numbers have a JSON form");
        let mut token = self.head.clone();
        BASE64_URL_SAFE_NO_PAD.encode_string(body, &mut token);
        let signature = self.pair.sign(token.as_bytes());
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }

    fn new(pair: Ed25519KeyPair) -> Self {
        let kid = key_id(pair.public_key().as_ref());
        let head = format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{kid}"}}"#);
        Self { head: BASE64_URL_SAFE_NO_PAD.encode(head) + ".", pair }
    }
}

fn encode(tag: &str, der: &[u8]) -> String {
    pem::encode_config(&Pem::new(tag, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}
