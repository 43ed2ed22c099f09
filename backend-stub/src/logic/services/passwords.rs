//! Hashes passwords on threads of their own: a hash takes 30 ms, which no loop may stand still for.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::{io, thread};

use ahash::AHashMap;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
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
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { number, password, hash, deadline_at_ms }) = job else { return };
        let outcome = if clock.now_ms() >= deadline_at_ms {
            Err(Status::new(Code::Deadline, "too many sign-ups and log-ins at once"))
        } else {
            match hash {
                None => hash_of(&password).map(Hashed::Hash),
                // The time is spent all the same, so that nobody can tell which names exist.
                Some(hash) if hash.is_empty() => hash_of(&password).map(|_| Hashed::Verified(false)),
                Some(hash) => is_password_of(&password, &hash).map(Hashed::Verified),
            }
        };
        sender.put((number, outcome));
    }
}

fn hash_of(password: &str) -> Result<String, Status> {
    let failed = |what: String| Status::new(Code::Internal, format!("cannot hash a password: {what}"));
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| failed(error.to_string()))?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| failed(error.to_string()))?;
    let params = Params::new(limits::HASH_MEMORY_KIB, limits::HASH_PASSES, 1, None)
        .map_err(|error| failed(error.to_string()))?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(password.as_bytes(), &salt)
        .map(|hash| hash.to_string())
        .map_err(|error| failed(error.to_string()))
}

fn is_password_of(password: &str, hash: &str) -> Result<bool, Status> {
    let hash = PasswordHash::new(hash)
        .map_err(|error| Status::new(Code::Internal, format!("the stored hash cannot be read: {error}")))?;
    Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_by_its_hash_only() {
        let hash = hash_of("correct horse").expect("hashed");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_eq!(is_password_of("correct horse", &hash), Ok(true));
        assert_eq!(is_password_of("wrong horse", &hash), Ok(false));
        assert!(is_password_of("correct horse", "no hash").is_err());
    }
}
