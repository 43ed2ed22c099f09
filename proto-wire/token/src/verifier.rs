//! The public keys, held by every gateway.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use proto_wire::limits::MAX_TOKEN_BYTES;
use serde::Deserialize;

use crate::issuer::SPKI_PREFIX;
use crate::{Claims, KeyError, TokenError, Verify, WireClaims, key_id, limits};

/// Verifies tokens with several public keys at once, so that keys can be rotated: first every gateway gets
/// the new public key, then the issuer signs with it, and the old one goes when its last token has expired.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: Vec<Key>,
    validation: Validation,
}

#[derive(Debug, Clone)]
struct Key {
    id: String,
    key: DecodingKey,
}

/// What is read of a token's header before its signature: enough to choose the key.
#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
}

impl Verifier {
    /// Reads public keys; each text may hold several PEM blocks.
    pub fn from_pems(texts: &[&str]) -> Result<Self, KeyError> {
        let mut keys: Vec<Key> = Vec::new();
        for text in texts {
            for block in pem::parse_many(text).map_err(|_| KeyError::Pem)? {
                let public = block.contents().strip_prefix(&SPKI_PREFIX).filter(|key| key.len() == 32);
                let public = public.filter(|_| block.tag() == "PUBLIC KEY").ok_or(KeyError::Kind)?;
                keys.push(Key { id: key_id(public), key: DecodingKey::from_ed_der(public) });
            }
        }
        match keys.len() {
            0 => Err(KeyError::None),
            1..=limits::MAX_KEYS => Ok(Self { keys, validation: validation() }),
            _ => Err(KeyError::TooMany),
        }
    }

    fn claims(&self, token: &[u8]) -> Result<WireClaims, TokenError> {
        let head = head(token)?;
        if head.alg != "EdDSA" {
            return Err(TokenError::Algorithm);
        }
        // A token without `kid` comes from another issuer's library: every key is tried.
        let fits = |key: &&Key| head.kid.as_ref().is_none_or(|kid| *kid == key.id);
        let mut error = TokenError::Signature;
        for key in self.keys.iter().filter(fits) {
            match jsonwebtoken::decode::<WireClaims>(token, &key.key, &self.validation) {
                Ok(data) => return Ok(data.claims),
                Err(e) => error = reason(e.kind()),
            }
            if error != TokenError::Signature {
                break;
            }
        }
        Err(error)
    }
}

impl Verify for Verifier {
    fn verify(&self, token: &[u8], now_s: u64) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let claims = self.claims(token)?.parse().ok_or(TokenError::Claims)?;
        if claims.expires_s <= now_s {
            Err(TokenError::Expired)
        } else if claims.issued_s > now_s.saturating_add(limits::CLOCK_SKEW_S) {
            Err(TokenError::NotYet)
        } else {
            Ok(claims)
        }
    }
}

/// Times and audience are not for the library: it would read the machine's clock.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn head(token: &[u8]) -> Result<Head, TokenError> {
    let part = token.split(|&byte| byte == b'.').next().unwrap_or_default();
    let json = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)
}

fn reason(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAlgorithm => TokenError::Algorithm,
        // The header was read before, so this is the body of a token whose signature is good.
        ErrorKind::Json(_) | ErrorKind::Utf8(_) => TokenError::Claims,
        _ => TokenError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IssuerKey;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use proptest::prelude::*;
    use serde_json::json;

    const NOW_S: u64 = 1_800_000_000;

    fn claims() -> Claims {
        Claims { user: 42, home: 3, device: Some(u64::MAX), issued_s: NOW_S - 10, expires_s: NOW_S + 3600 }
    }

    fn pair() -> (IssuerKey, Verifier) {
        let issuer = IssuerKey::generate();
        let verifier = Verifier::from_pems(&[&issuer.public_pem()]).expect("a public key");
        (issuer, verifier)
    }

    /// A token that the JWT library makes, with any claims.
    fn foreign_made(issuer: &IssuerKey, claims: serde_json::Value) -> String {
        let key = EncodingKey::from_ed_pem(issuer.to_pem().as_bytes()).expect("the library reads our PEM");
        encode(&Header::new(Algorithm::EdDSA), &claims, &key).expect("a token")
    }

    #[test]
    fn a_minted_token_says_what_was_minted() {
        let (issuer, verifier) = pair();
        assert_eq!(verifier.verify(issuer.mint(&claims()).as_bytes(), NOW_S), Ok(claims()));
        let any_device = Claims { device: None, ..claims() };
        assert_eq!(verifier.verify(issuer.mint(&any_device).as_bytes(), NOW_S), Ok(any_device));
    }

    #[test]
    fn a_key_survives_its_pem() {
        let (issuer, verifier) = pair();
        let again = IssuerKey::from_pem(&issuer.to_pem()).expect("our own PEM");
        assert_eq!(again.public_pem(), issuer.public_pem());
        assert_eq!(verifier.verify(again.mint(&claims()).as_bytes(), NOW_S), Ok(claims()));
        assert_eq!(IssuerKey::from_pem(&issuer.public_pem()).map(|_| ()), Err(KeyError::Kind));
        assert_eq!(Verifier::from_pems(&[&issuer.to_pem()]).map(|_| ()), Err(KeyError::Kind));
        assert_eq!(Verifier::from_pems(&[""]).map(|_| ()), Err(KeyError::None));
        assert!(!format!("{issuer:?}").contains(issuer.to_pem().lines().nth(1).expect("a line")));
    }

    /// RFC 8410, section 10: a private key and its public key as any other tool writes them.
    #[test]
    fn keys_have_the_form_that_the_standard_gives() {
        let private = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                       -----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\n\
                      MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                      -----END PUBLIC KEY-----\n";
        let issuer = IssuerKey::from_pem(private).expect("the standard's key");
        assert_eq!((issuer.to_pem().as_str(), issuer.public_pem().as_str()), (private, public));
    }

    #[test]
    fn times_are_kept_to_the_second() {
        let (issuer, verifier) = pair();
        let token = issuer.mint(&claims());
        let at = |now_s| verifier.verify(token.as_bytes(), now_s).err();
        assert_eq!(at(NOW_S + 3599), None);
        assert_eq!(at(NOW_S + 3600), Some(TokenError::Expired));
        assert_eq!(at(NOW_S - 10 - limits::CLOCK_SKEW_S), None);
        assert_eq!(at(NOW_S - 11 - limits::CLOCK_SKEW_S), Some(TokenError::NotYet));
    }

    #[test]
    fn a_foreign_key_is_refused_with_and_without_its_name() {
        let (issuer, _) = pair();
        let (_, verifier) = pair();
        assert_eq!(verifier.verify(issuer.mint(&claims()).as_bytes(), NOW_S), Err(TokenError::Signature));
        let unnamed = foreign_made(&issuer, json!({"sub": "42", "home": 0, "iat": NOW_S, "exp": NOW_S + 9}));
        assert_eq!(verifier.verify(unnamed.as_bytes(), NOW_S), Err(TokenError::Signature));
    }

    #[test]
    fn the_algorithm_is_ours_to_choose() {
        let (issuer, verifier) = pair();
        let body = json!({"sub": "42", "home": 0, "iat": NOW_S, "exp": NOW_S + 9});
        for alg in ["none", "None", "NONE"] {
            let head = BASE64_URL_SAFE_NO_PAD.encode(json!({"alg": alg, "typ": "JWT"}).to_string());
            let token = format!("{head}.{}.", BASE64_URL_SAFE_NO_PAD.encode(body.to_string()));
            assert_eq!(verifier.verify(token.as_bytes(), NOW_S), Err(TokenError::Algorithm));
        }
        // The public key is public: as the secret of an HMAC it would let anyone sign.
        for secret in [issuer.public_pem().into_bytes(), issuer.public_pem().trim_end().as_bytes().to_vec()] {
            let token = encode(&Header::new(Algorithm::HS256), &body, &EncodingKey::from_secret(&secret));
            assert_eq!(
                verifier.verify(token.expect("a token").as_bytes(), NOW_S),
                Err(TokenError::Algorithm)
            );
        }
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_refused() {
        let (issuer, verifier) = pair();
        let token = issuer.mint(&claims()).into_bytes();
        for cut in 0..token.len() {
            assert!(verifier.verify(&token[..cut], NOW_S).is_err(), "cut at {cut}");
        }
        for at in 0..token.len() {
            let mut changed = token.clone();
            changed[at] ^= 1;
            assert!(verifier.verify(&changed, NOW_S).is_err(), "byte {at} changed");
        }
        assert_eq!(verifier.verify(&[b'a'; MAX_TOKEN_BYTES + 1], NOW_S), Err(TokenError::Malformed));
    }

    #[test]
    fn old_and_new_keys_are_good_together() {
        let (old, new) = (IssuerKey::generate(), IssuerKey::generate());
        let both = old.public_pem() + &new.public_pem();
        let verifier = Verifier::from_pems(&[&both]).expect("two keys in one text");
        for issuer in [&old, &new] {
            assert_eq!(verifier.verify(issuer.mint(&claims()).as_bytes(), NOW_S), Ok(claims()));
            let unnamed =
                foreign_made(issuer, json!({"sub": "42", "home": 0, "iat": NOW_S, "exp": NOW_S + 9}));
            assert_eq!(verifier.verify(unnamed.as_bytes(), NOW_S).map(|claims| claims.user), Ok(42));
        }
        let only_new = Verifier::from_pems(&[&new.public_pem()]).expect("one key");
        assert_eq!(only_new.verify(old.mint(&claims()).as_bytes(), NOW_S), Err(TokenError::Signature));
        let many = new.public_pem().repeat(limits::MAX_KEYS + 1);
        assert_eq!(Verifier::from_pems(&[&many]).map(|_| ()), Err(KeyError::TooMany));
    }

    #[test]
    fn claims_out_of_range_are_refused() {
        let (issuer, verifier) = pair();
        for body in [
            json!({"home": 0, "iat": NOW_S, "exp": NOW_S + 9}),
            json!({"sub": 42, "home": 0, "iat": NOW_S, "exp": NOW_S + 9}),
            json!({"sub": "0", "home": 0, "iat": NOW_S, "exp": NOW_S + 9}),
            json!({"sub": "007", "home": 0, "iat": NOW_S, "exp": NOW_S + 9}),
            json!({"sub": "+7", "home": 0, "iat": NOW_S, "exp": NOW_S + 9}),
            json!({"sub": (1u64 << 63).to_string(), "home": 0, "iat": NOW_S, "exp": NOW_S + 9}),
            json!({"sub": "7", "home": 256, "iat": NOW_S, "exp": NOW_S + 9}),
            json!({"sub": "7", "home": 0, "dev": "x", "iat": NOW_S, "exp": NOW_S + 9}),
            json!({"sub": "7", "home": 0, "iat": NOW_S}),
            json!({"sub": "7", "home": 0, "iat": NOW_S + 1, "exp": NOW_S}),
            json!({"sub": "7", "home": 0, "iat": -1, "exp": NOW_S + 9}),
        ] {
            let token = foreign_made(&issuer, body.clone());
            assert_eq!(verifier.verify(token.as_bytes(), NOW_S), Err(TokenError::Claims), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400), dots: bool) {
            let (_, verifier) = pair();
            let mut token = bytes;
            if dots {
                token = BASE64_URL_SAFE_NO_PAD.encode(&token).into_bytes();
                for at in [token.len() / 3, token.len() * 2 / 3] {
                    if let Some(byte) = token.get_mut(at) { *byte = b'.' }
                }
            }
            prop_assert!(verifier.verify(&token, NOW_S).is_err());
        }

        #[test]
        fn any_good_head_with_any_body_is_refused(body in ".{0,200}", signature in proptest::collection::vec(any::<u8>(), 0..80)) {
            let (issuer, verifier) = pair();
            let head = issuer.mint(&claims());
            let head = head.split('.').next().expect("a first part");
            let (body, signature) = (BASE64_URL_SAFE_NO_PAD.encode(body), BASE64_URL_SAFE_NO_PAD.encode(signature));
            let token = format!("{head}.{body}.{signature}");
            prop_assert!(verifier.verify(token.as_bytes(), NOW_S).is_err());
        }
    }
}
