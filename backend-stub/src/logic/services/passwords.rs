//! Hashes passwords on threads of their own: a hash takes 30 ms, which no loop may stand still for.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;
use std::{io, thread};

use ahash::AHashMap;
use argon2::password_hash::{Output, ParamsString, PasswordHash, Salt, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use proto_wire::status::{Code, Status};

use super::limits;
use crate::clock::Clock;
use crate::rt::{self, Inbox, InboxSender};
use crate::stats::Stats;

/// The way to the workers, on the loop's thread.
pub struct Passwords {
    jobs: SyncSender<Job>,
    waiting: Rc<RefCell<Waiting>>,
    stats: Arc<Stats>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    calls: AHashMap<u64, Wait>,
}

#[derive(Default)]
struct Wait {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

struct Job {
    number: u64,
    password: String,
    /// To verify against; none: hash it. Empty: the account does not exist, take as long.
    hash: Option<String>,
    deadline_at_ms: u64,
}

type Outcome = Result<Hashed, Status>;

enum Hashed {
    Hash(String),
    Verified(bool),
}

impl Passwords {
    /// Starts the workers. They end when this is dropped.
    pub fn start(workers: usize, clock: Clock, stats: Arc<Stats>) -> io::Result<Self> {
        let (jobs, jobs_in) = sync_channel(limits::MAX_HASHES_WAITING);
        let jobs_in = Arc::new(Mutex::new(jobs_in));
        let (sender, inbox) = rt::inbox();
        for index in 0..workers {
            let (jobs, sender) = (jobs_in.clone(), sender.clone());
            thread::Builder::new()
                .name(format!("password-{index}"))
                .spawn(move || work(&jobs, &sender, clock))?;
        }
        let waiting = Rc::new(RefCell::new(Waiting::default()));
        rt::spawn(deliver(inbox, waiting.clone()));
        Ok(Self { jobs, waiting, stats })
    }

    /// The hash of a new password, with its salt and parameters.
    pub async fn hash(&self, password: String, deadline_at_ms: u64) -> Result<String, Status> {
        match self.run(password, None, deadline_at_ms).await? {
            Hashed::Hash(hash) => Ok(hash),
            Hashed::Verified(_) => Err(Status::new(Code::Internal, "a hash was asked for")),
        }
    }

    /// Whether the password is the one of this hash.
    pub async fn verify(&self, password: String, hash: String, deadline_at_ms: u64) -> Result<bool, Status> {
        let hashed = self.run(password, Some(hash), deadline_at_ms).await?;
        Ok(matches!(hashed, Hashed::Verified(true)))
    }

    async fn run(&self, password: String, hash: Option<String>, deadline_at_ms: u64) -> Outcome {
        let number = {
            let mut waiting = self.waiting.borrow_mut();
            waiting.next += 1;
            let number = waiting.next;
            waiting.calls.insert(number, Wait::default());
            number
        };
        let _forgotten = Forget { waiting: &self.waiting, number };
        if self.jobs.try_send(Job { number, password, hash, deadline_at_ms }).is_err() {
            self.stats.hashes_refused.add(1);
            let mut status = Status::new(Code::Overloaded, "too many sign-ups and log-ins at once");
            status.retry_after_ms = limits::HASH_RETRY_AFTER_MS;
            return Err(status);
        }
        poll_fn(|context| {
            let mut waiting = self.waiting.borrow_mut();
            let Some(wait) = waiting.calls.get_mut(&number) else { return Poll::Pending };
            match wait.outcome.take() {
                Some(outcome) => Poll::Ready(outcome),
                None => {
                    wait.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// Removes the wait however it ends.
struct Forget<'a> {
    waiting: &'a Rc<RefCell<Waiting>>,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.borrow_mut().calls.remove(&self.number);
    }
}

async fn deliver(mut inbox: Inbox<(u64, Outcome)>, waiting: Rc<RefCell<Waiting>>) {
    while let Some(outcomes) = inbox.take().await {
        for (number, outcome) in outcomes {
            let mut waiting = waiting.borrow_mut();
            let Some(wait) = waiting.calls.get_mut(&number) else { continue };
            wait.outcome = Some(outcome);
            if let Some(waker) = wait.waker.take() {
                waker.wake();
            }
        }
    }
}

fn work(jobs: &Mutex<Receiver<Job>>, sender: &InboxSender<(u64, Outcome)>, clock: Clock) {
    let mut hasher = Hasher::default();
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(KEEP_MEMORY);
        let job = match next {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => {
                hasher = Hasher::default();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let outcome = if clock.now_ms() >= job.deadline_at_ms {
            Err(Status::new(Code::Deadline, "too many sign-ups and log-ins at once"))
        } else {
            match job.hash {
                None => hasher.hash(&job.password).map(Hashed::Hash),
                // The time is spent all the same, so that nobody can tell which names exist.
                Some(hash) if hash.is_empty() => hasher.hash(&job.password).map(|_| Hashed::Verified(false)),
                Some(hash) => hasher.is_password_of(&job.password, &hash).map(Hashed::Verified),
            }
        };
        sender.put((job.number, outcome));
    }
}

/// How long an idle worker keeps its memory.
const KEEP_MEMORY: Duration = Duration::from_secs(5);

/// One worker's memory. Kept from hash to hash: given back and taken anew each time, the allocator holds
/// on to some hundred MiB of it.
#[derive(Default)]
struct Hasher {
    blocks: Vec<Block>,
}

impl Hasher {
    /// A new hash of a password, as a PHC string.
    fn hash(&mut self, password: &str) -> Result<String, Status> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(failed)?;
        let params = Params::new(limits::HASH_MEMORY_KIB, limits::HASH_PASSES, 1, None).map_err(failed)?;
        let output = self.compute(password, &salt, &params)?;
        let salt = SaltString::encode_b64(&salt).map_err(failed)?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&params).map_err(failed)?,
            salt: Some(salt.as_salt()),
            hash: Some(output),
        };
        Ok(hash.to_string())
    }

    fn is_password_of(&mut self, password: &str, hash: &str) -> Result<bool, Status> {
        let hash = PasswordHash::new(hash).map_err(failed)?;
        let (Some(salt), Some(expected)) = (hash.salt, hash.hash) else {
            return Err(failed("the stored one is not whole"));
        };
        if hash.algorithm != Algorithm::Argon2id.ident() || hash.version != Some(Version::V0x13.into()) {
            return Err(failed("the stored one is of another kind"));
        }
        let params = Params::try_from(&hash).map_err(failed)?;
        let mut bytes = [0; Salt::MAX_LENGTH];
        let salt = salt.decode_b64(&mut bytes).map_err(failed)?;
        // The comparison takes the same time wherever they differ.
        Ok(self.compute(password, salt, &params)? == expected)
    }

    fn compute(&mut self, password: &str, salt: &[u8], params: &Params) -> Result<Output, Status> {
        let bytes = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
        self.blocks.resize(params.block_count(), Block::default());
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
        Output::init_with(bytes, |out| {
            argon2
                .hash_password_into_with_memory(password.as_bytes(), salt, out, &mut self.blocks)
                .map_err(|_| argon2::password_hash::Error::Crypto)
        })
        .map_err(failed)
    }
}

const SALT_BYTES: usize = 16;

fn failed(what: impl std::fmt::Display) -> Status {
    Status::new(Code::Internal, format!("cannot hash a password: {what}"))
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordVerifier;

    use super::*;

    #[test]
    fn a_password_is_known_by_its_hash_only() {
        let mut hasher = Hasher::default();
        let hash = hasher.hash("correct horse").expect("hashed");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_eq!(hasher.is_password_of("correct horse", &hash), Ok(true));
        assert_eq!(hasher.is_password_of("wrong horse", &hash), Ok(false));
        assert_ne!(hasher.hash("correct horse").expect("hashed"), hash, "each has a salt of its own");
        // Another implementation of the same format agrees.
        let parsed = PasswordHash::new(&hash).expect("a PHC string");
        Argon2::default().verify_password(b"correct horse", &parsed).expect("the same");
    }

    #[test]
    fn a_stored_hash_that_cannot_be_used_is_told() {
        let mut hasher = Hasher::default();
        for hash in
            ["no hash", "$argon2id$v=19$m=8,t=1,p=1", "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAA"]
        {
            assert_eq!(hasher.is_password_of("x", hash).expect_err(hash).code, Code::Internal);
        }
    }
}
