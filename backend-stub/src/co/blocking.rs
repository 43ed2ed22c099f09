//! A few threads for what blocks for real.

use std::cell::Cell;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use super::{NoWait, is_here, limits, try_wait};
use crate::rt::Waker;

type Work = Box<dyn FnOnce() + Send>;

/// Runs `work` on one of a few threads, while the coroutine waits. For file reads, lookups of names, and whatever else has
/// no other way than to block.
pub fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    if !is_here() {
        return Err(io::Error::other(NoWait::Outside));
    }
    let slot = Arc::new(Slot { output: Mutex::new(None), done: Waker::default() });
    let theirs = slot.clone();
    let work: Work = Box::new(move || {
        let output = panic::catch_unwind(AssertUnwindSafe(work));
        *theirs.output.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
        theirs.done.raise();
    });
    queue()?.try_send(work).map_err(|error| match error {
        TrySendError::Full(_) => io::Error::other("the queue of work that blocks is full"),
        TrySendError::Disconnected(_) => io::Error::other("the threads for work that blocks are gone"),
    })?;
    try_wait(slot.done.wait()).map_err(io::Error::other)?;
    let output = slot.output.lock().unwrap_or_else(PoisonError::into_inner).take();
    match output {
        Some(Ok(output)) => Ok(output),
        Some(Err(panic)) => panic::resume_unwind(panic),
        None => unreachable!("it is raised when the output is there"),
    }
}

struct Slot<T> {
    output: Mutex<Option<thread::Result<T>>>,
    done: Waker,
}

thread_local! {
    /// This thread's end of the queue.
    static QUEUE: Cell<Option<SyncSender<Work>>> = const { Cell::new(None) };
}

/// The threads start with the first work.
fn queue() -> io::Result<SyncSender<Work>> {
    static FIRST: OnceLock<io::Result<SyncSender<Work>>> = OnceLock::new();
    if let Some(sender) = QUEUE.take() {
        QUEUE.set(Some(sender.clone()));
        return Ok(sender);
    }
    let sender = match FIRST.get_or_init(start) {
        Ok(sender) => sender.clone(),
        Err(error) => return Err(io::Error::new(error.kind(), error.to_string())),
    };
    QUEUE.set(Some(sender.clone()));
    Ok(sender)
}

fn start() -> io::Result<SyncSender<Work>> {
    let (sender, receiver) = sync_channel::<Work>(limits::BLOCKING_QUEUE);
    let receiver = Arc::new(Mutex::new(receiver));
    for number in 0..limits::BLOCKING_THREADS {
        let receiver = receiver.clone();
        thread::Builder::new().name(format!("blocking-{number}")).spawn(move || work_on(&receiver))?;
    }
    Ok(sender)
}

fn work_on(receiver: &Mutex<Receiver<Work>>) {
    loop {
        let work = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        // All senders are gone only with the process.
        let Ok(work) = work else { return };
        work();
    }
}
