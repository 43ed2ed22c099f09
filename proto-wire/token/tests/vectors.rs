//! `spec/vectors/tokens.json`: tokens of the key that RFC 8410 prints, and what a verifier says to each.
//!
//! Signatures of Ed25519 are the same each time, so a good token is minted again to the byte.
//! `MOORGATE_WRITE_VECTORS=1 cargo nextest run -p proto-wire-token --test vectors` writes the file anew.

use std::path::Path;
use std::{env, fs};

use proto_wire_token::{Claims, IssuerKey, TokenError, Verifier, Verify};
use serde::{Deserialize, Serialize};

const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                       -----END PRIVATE KEY-----\n";

const NOW_S: u64 = 1_800_000_000;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct File {
    about: String,
    private_pem: String,
    public_pem: String,
    vectors: Vec<Vector>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Vector {
    name: String,
    token: String,
    now_s: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    claims: Option<WireClaims>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    error: Option<String>,
}

/// Ids as decimal strings.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct WireClaims {
    user: String,
    home: u8,
    device: Option<String>,
    issued_s: u64,
    expires_s: u64,
}

impl WireClaims {
    fn of(claims: &Claims) -> Self {
        Self {
            user: claims.user.to_string(),
            home: claims.home,
            device: claims.device.map(|device| device.to_string()),
            issued_s: claims.issued_s,
            expires_s: claims.expires_s,
        }
    }

    fn claims(&self) -> Claims {
        let number = |text: &String| text.parse().expect("a decimal number");
        Claims {
            user: number(&self.user),
            home: self.home,
            device: self.device.as_ref().map(number),
            issued_s: self.issued_s,
            expires_s: self.expires_s,
        }
    }
}

#[test]
fn tokens() {
    let issuer = IssuerKey::from_pem(PRIVATE).expect("the standard's key");
    let verifier = Verifier::from_pems(&[&issuer.public_pem()]).expect("its public key");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/vectors/tokens.json");
    let expected = File {
        about: "The key is printed in RFC 8410: never use it.".to_owned(),
        private_pem: PRIVATE.to_owned(),
        public_pem: issuer.public_pem(),
        vectors: cases(&issuer)
            .into_iter()
            .map(|(name, token, now_s)| vector(name, token, now_s, &verifier))
            .collect(),
    };
    if env::var_os("MOORGATE_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&expected).expect("vectors have a JSON form") + "\n";
        fs::write(&path, text).expect("the file can be written");
    }
    let text = fs::read_to_string(&path).expect("the file is part of the repository");
    let found: File = serde_json::from_str(&text).expect("the file has the form of its vectors");
    assert_eq!(found, expected);
    for Vector { name, token, now_s, claims, error } in found.vectors {
        assert_eq!(claims.is_some(), error.is_none(), "{name}");
        if let Some(claims) = claims {
            assert_eq!(issuer.mint(&claims.claims()), token, "{name}");
            assert_eq!(verifier.verify(token.as_bytes(), now_s), Ok(claims.claims()), "{name}");
        }
    }
}

fn cases(issuer: &IssuerKey) -> Vec<(&'static str, String, u64)> {
    let claims = Claims { user: 7, home: 0, device: Some(9), issued_s: NOW_S, expires_s: NOW_S + 3_600 };
    let good = issuer.mint(&claims);
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let (head, body) = signed.split_once('.').expect("three parts");
    let mut forged = signature.to_owned();
    forged.replace_range(..1, if signature.starts_with('A') { "B" } else { "A" });
    let largest = Claims { user: (1 << 63) - 1, home: 255, device: None, ..claims };
    vec![
        ("for_one_device", good.clone(), NOW_S),
        ("for_any_device", issuer.mint(&largest), NOW_S),
        ("in_its_last_second", good.clone(), NOW_S + 3_599),
        ("expired", good.clone(), NOW_S + 3_600),
        ("from_the_future_within_the_skew", good.clone(), NOW_S - 60),
        ("from_the_future", good.clone(), NOW_S - 61),
        ("of_a_group", issuer.mint(&Claims { user: 1 << 63, ..claims }), NOW_S),
        ("forged", format!("{signed}.{forged}"), NOW_S),
        // {"alg":"none"}
        ("unsigned", format!("eyJhbGciOiJub25lIn0.{body}."), NOW_S),
        ("without_signature", format!("{head}.{body}"), NOW_S),
        ("empty", String::new(), NOW_S),
    ]
}

fn vector(name: &str, token: String, now_s: u64, verifier: &Verifier) -> Vector {
    let (claims, error) = match verifier.verify(token.as_bytes(), now_s) {
        Ok(claims) => (Some(WireClaims::of(&claims)), None),
        Err(error) => (None, Some(error_name(error).to_owned())),
    };
    Vector { name: name.to_owned(), token, now_s, claims, error }
}

fn error_name(error: TokenError) -> &'static str {
    match error {
        TokenError::Malformed => "malformed",
        TokenError::Signature => "signature",
        TokenError::Expired => "expired",
        TokenError::NotYet => "not_yet",
        TokenError::Algorithm => "algorithm",
        TokenError::Claims => "claims",
    }
}
