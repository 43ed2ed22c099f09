//! Accounts: a name and a password give a token. Names live here only; the rest of the system knows users.

use bytes::Bytes;
use proto_wire::names::GROUP_BIT;
use proto_wire::pb;
use proto_wire::services::account;
use proto_wire::status::{Code, Status};
use proto_wire_token::{Claims, IssuerKey};

use super::{Passwords, Services, limits, mismatch};
use crate::clock::unix_ms;
use crate::logic::limits::MAX_DEVICE_NAME_BYTES;
use crate::logic::{Answer, KvKey, Verb};
use crate::rpc::Call;

/// What the account service is told once.
pub struct AccountsConfig {
    pub issuer: IssuerKey,
    pub token_ttl_s: u64,
}

/// The account service's own part.
pub struct Accounts {
    config: AccountsConfig,
    passwords: Passwords,
}

impl Accounts {
    pub fn new(config: AccountsConfig, passwords: Passwords) -> Self {
        Self { config, passwords }
    }

    /// A token of a device, or of a user whatever the device when that is 0.
    fn token(&self, user: u64, device: u64) -> pb::TokenReply {
        let issued_s = unix_ms() / 1000;
        let expires_s = issued_s + self.config.token_ttl_s;
        let device = (device != 0).then_some(device);
        let claims = Claims { user, home: 0, device, issued_s, expires_s };
        pb::TokenReply {
            user,
            token: self.config.issuer.mint(&claims).into(),
            expires_ms: expires_s * 1000,
            ack: pb::Ack::Local.into(),
        }
    }
}

impl account::Server<Call> for Services {
    async fn sign_up(&self, call: &Call, request: pb::SignUpRequest) -> Result<pb::TokenReply, Status> {
        let key = key_of(&request.name)?;
        check_password(&request.password)?;
        check_device_name(&request.device_name)?;
        let pb::SignUpRequest { device, device_name, .. } = request;
        if let Some(account) = self.account(key.clone()).await? {
            return self.log_in_to(call, Some(account), request.password, device, device_name).await;
        }
        let hash = self.accounts.passwords.hash(request.password.clone(), call.deadline_at_ms).await?;
        let account = Account { user: random_user()?, hash };
        let value = account.to_bytes();
        match self.driver.call(|core, _, token| core.kv_create(token, key, value)).await? {
            Answer::Kv(None) => self.logged_in(account.user, device, device_name).await,
            // Another was faster with this name: perhaps the same person, trying twice.
            Answer::Kv(Some(value)) => {
                let account = Some(Account::from_bytes(&value)?);
                self.log_in_to(call, account, request.password, device, device_name).await
            }
            other => Err(mismatch(&other)),
        }
    }

    async fn log_in(&self, call: &Call, request: pb::LogInRequest) -> Result<pb::TokenReply, Status> {
        let key = key_of(&request.name)?;
        check_password(&request.password)?;
        check_device_name(&request.device_name)?;
        let account = self.account(key).await?;
        self.log_in_to(call, account, request.password, request.device, request.device_name).await
    }

    async fn find(&self, call: &Call, request: pb::FindRequest) -> Result<pb::FindReply, Status> {
        self.admit(call).await?;
        match self.account(key_of(&request.name)?).await? {
            Some(account) => Ok(pb::FindReply { user: account.user }),
            None => Err(Status::new(Code::NotFound, "nobody has this name")),
        }
    }

    async fn refresh(&self, call: &Call, _: pb::RefreshRequest) -> Result<pb::TokenReply, Status> {
        self.admit(call).await?;
        Ok(self.accounts.token(call.user(), call.device()))
    }

    async fn set_profile(
        &self,
        call: &Call,
        request: pb::SetProfileRequest,
    ) -> Result<pb::ChangeReply, Status> {
        let verb = Verb::SetProfile { profile: request.profile.clone().unwrap_or_default() };
        self.upload(call, &account::SET_PROFILE, request.id.clone(), &request_without_id!(request), verb)
            .await
    }

    async fn set_setting(
        &self,
        call: &Call,
        request: pb::SetSettingRequest,
    ) -> Result<pb::ChangeReply, Status> {
        let verb = Verb::SetSetting { key: request.key.clone(), value: request.value.clone() };
        self.upload(call, &account::SET_SETTING, request.id.clone(), &request_without_id!(request), verb)
            .await
    }

    async fn log_out(&self, call: &Call, request: pb::LogOutRequest) -> Result<pb::ChangeReply, Status> {
        let verb = Verb::LogOut { device: request.device };
        self.upload(call, &account::LOG_OUT, request.id.clone(), &request_without_id!(request), verb).await
    }

    async fn get_profile(
        &self,
        call: &Call,
        request: pb::GetProfileRequest,
    ) -> Result<pb::GetProfileReply, Status> {
        self.admit(call).await?;
        match self.driver.call(|core, _, token| core.profile(token, request.user)).await? {
            Answer::Profile(profile) => Ok(pb::GetProfileReply { profile: Some(profile) }),
            other => Err(mismatch(&other)),
        }
    }
}

impl Services {
    async fn account(&self, key: KvKey) -> Result<Option<Account>, Status> {
        match self.driver.call(|core, _, token| core.kv_get(token, key)).await? {
            Answer::Kv(value) => value.map(|value| Account::from_bytes(&value)).transpose(),
            other => Err(mismatch(&other)),
        }
    }

    /// A name that nobody has takes as long as a wrong password, and is answered the same.
    async fn log_in_to(
        &self,
        call: &Call,
        account: Option<Account>,
        password: String,
        device: u64,
        device_name: String,
    ) -> Result<pb::TokenReply, Status> {
        let (user, hash) = account.map_or((0, String::new()), |account| (account.user, account.hash));
        if self.accounts.passwords.verify(password, hash, call.deadline_at_ms).await? && user != 0 {
            self.logged_in(user, device, device_name).await
        } else {
            Err(Status::new(Code::Denied, "the name or the password is wrong"))
        }
    }

    /// A token, once the device stands in its user's list. A caller that names none gets one for the user.
    async fn logged_in(&self, user: u64, device: u64, name: String) -> Result<pb::TokenReply, Status> {
        if device == 0 {
            return Ok(self.accounts.token(user, 0));
        }
        match self.driver.call(|core, at, token| core.log_in(at, token, user, device, &name)).await? {
            Answer::Done => Ok(self.accounts.token(user, device)),
            other => Err(mismatch(&other)),
        }
    }
}

/// An account as it is stored: version (1), user (u64), the hash as a PHC string.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub user: u64,
    hash: String,
}

const VERSION: u8 = 1;

/// The kind of an account's key in the key-value area.
pub(crate) const ACCOUNT: u8 = b'A';

impl Account {
    fn to_bytes(&self) -> Bytes {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.user.to_le_bytes());
        bytes.extend_from_slice(self.hash.as_bytes());
        bytes.into()
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Status> {
        let unreadable = || Status::new(Code::Internal, "the stored account cannot be read");
        let ([VERSION, user @ ..], hash) = bytes.split_first_chunk::<9>().ok_or_else(unreadable)? else {
            return Err(unreadable());
        };
        let hash = String::from_utf8(hash.to_vec()).map_err(|_| unreadable())?;
        Ok(Self { user: u64::from_le_bytes(*user), hash })
    }
}

/// Where the account of a name is stored: by the hash of the name, so that names spread over sections.
pub(crate) fn key_of(name: &str) -> Result<KvKey, Status> {
    let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-');
    if !limits::NAME_BYTES.contains(&name.len()) || !name.bytes().all(is_plain) {
        return Err(Status::invalid("a name has 3 to 32 of the characters a-z, 0-9, '_', '.' and '-'"));
    }
    let hash = blake3::hash(name.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
    let owner = u64::from_le_bytes([a, b, c, d, e, f, g, h]) & !GROUP_BIT;
    Ok(KvKey { owner, kind: ACCOUNT, name: Bytes::copy_from_slice(name.as_bytes()) })
}

fn check_password(password: &str) -> Result<(), Status> {
    if limits::PASSWORD_CHARS.contains(&password.chars().count()) {
        return Ok(());
    }
    Err(Status::invalid("a password has 8 to 128 characters"))
}

fn check_device_name(name: &str) -> Result<(), Status> {
    if name.len() > MAX_DEVICE_NAME_BYTES {
        return Err(Status::invalid("the name of a device has at most 64 bytes"));
    }
    Ok(())
}

/// 63 random bits. Two users with the same ones are not to be expected before there are billions.
fn random_user() -> Result<u64, Status> {
    let random = getrandom::u64()
        .map_err(|error| Status::new(Code::Internal, format!("the kernel gives no random bytes: {error}")))?;
    Ok((random & !GROUP_BIT).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_characters_or_lengths_are_refused() {
        for name in ["ab", "", "Alice", "a b c", "ärger", "abc/def", &"a".repeat(33)] {
            assert!(key_of(name).is_err(), "{name}");
        }
        for name in ["bob", "a.b-c_9", &"a".repeat(32)] {
            assert!(key_of(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn an_account_keeps_its_bytes_and_damage_is_told() {
        let account = Account { user: 77, hash: "$argon2id$x".to_owned() };
        assert_eq!(Account::from_bytes(&account.to_bytes()), Ok(account));
        for bad in [&b""[..], b"\x01abc", b"\x02123456789", b"\x0112345678\xff"] {
            assert_eq!(Account::from_bytes(bad).expect_err("damaged").code, Code::Internal);
        }
    }
}
