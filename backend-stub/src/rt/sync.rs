//! Waiting for one another: tasks of one thread, and other threads that wake a task.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};

/// A flag that one task waits for and others of its thread raise. Raised twice before it is seen: once.
#[derive(Clone, Default)]
pub struct Signal(Rc<Raised>);

#[derive(Default)]
struct Raised {
    is_raised: Cell<bool>,
    waiting: RefCell<Option<task::Waker>>,
}

impl Signal {
    pub fn raise(&self) {
        if !self.0.is_raised.replace(true)
            && let Some(waker) = self.0.waiting.take()
        {
            waker.wake();
        }
    }

    pub async fn wait(&self) {
        poll_fn(|context| self.poll_wait(context)).await;
    }

    pub fn poll_wait(&self, context: &mut task::Context<'_>) -> Poll<()> {
        if self.0.is_raised.replace(false) {
            return Poll::Ready(());
        }
        store(&mut self.0.waiting.borrow_mut(), context);
        Poll::Pending
    }
}

pub(super) fn store(waiting: &mut Option<task::Waker>, context: &task::Context<'_>) {
    if !waiting.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
        *waiting = Some(context.waker().clone());
    }
}

/// A flag that any thread raises and one task waits for.
#[derive(Clone, Default)]
pub struct Waker(Arc<Shared>);

#[derive(Default)]
struct Shared {
    is_raised: AtomicBool,
    waiting: Mutex<Option<task::Waker>>,
}

impl Waker {
    /// Costs a write to the loop's eventfd only when the loop sleeps, and nothing when it was raised already.
    pub fn raise(&self) {
        if self.0.is_raised.swap(true, Ordering::AcqRel) {
            return;
        }
        let waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    pub async fn wait(&self) {
        poll_fn(|context| self.poll_wait(context)).await;
    }

    pub fn poll_wait(&self, context: &mut task::Context<'_>) -> Poll<()> {
        if self.take() {
            return Poll::Ready(());
        }
        store(&mut self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner), context);
        // Raised in between: whoever raised it may have found nobody waiting.
        if self.take() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn take(&self) -> bool {
        self.0.is_raised.load(Ordering::Acquire) && self.0.is_raised.swap(false, Ordering::AcqRel)
    }
}

/// Hands values from any thread to a task. Its senders bound what they put in.
pub struct Inbox<T>(Arc<Letters<T>>);

pub struct InboxSender<T>(Arc<Letters<T>>);

struct Letters<T> {
    values: Mutex<Vec<T>>,
    senders: AtomicUsize,
    waker: Waker,
}

pub fn inbox<T>() -> (InboxSender<T>, Inbox<T>) {
    let letters = Letters { values: Mutex::default(), senders: AtomicUsize::new(1), waker: Waker::default() };
    let letters = Arc::new(letters);
    (InboxSender(letters.clone()), Inbox(letters))
}

impl<T> Letters<T> {
    fn values(&self) -> MutexGuard<'_, Vec<T>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> InboxSender<T> {
    pub fn put(&self, value: T) {
        self.0.values().push(value);
        self.0.waker.raise();
    }
}

impl<T> Clone for InboxSender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<T> Drop for InboxSender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.waker.raise();
        }
    }
}

impl<T> Inbox<T> {
    /// All that waits; waits for something when nothing does. `None`: all senders are gone.
    pub async fn take(&mut self) -> Option<Vec<T>> {
        loop {
            let is_last = self.0.senders.load(Ordering::Acquire) == 0;
            let values = mem::take(&mut *self.0.values());
            if !values.is_empty() {
                return Some(values);
            }
            if is_last {
                return None;
            }
            self.0.waker.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::{Executor, spawn};

    #[test]
    fn what_other_threads_put_in_comes_out_once() {
        const EACH: u64 = 20_000;
        let (sender, mut inbox) = inbox::<u64>();
        let executor = Executor::start("inbox", None, move || async move {
            let mut sum = 0;
            while let Some(values) = inbox.take().await {
                sum += values.iter().sum::<u64>();
            }
            sum
        })
        .expect("an executor");
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let sender = sender.clone();
                std::thread::spawn(move || (0..EACH).for_each(|n| sender.put(n)))
            })
            .collect();
        drop(sender);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!(executor.join().expect("no panic"), 4 * EACH * (EACH - 1) / 2);
    }

    #[test]
    fn a_signal_raised_before_it_is_waited_for_is_seen() {
        let executor = Executor::start("signal", None, || async {
            let (ping, pong) = (Signal::default(), Signal::default());
            let (a, b) = (ping.clone(), pong.clone());
            spawn(async move {
                a.wait().await;
                b.raise();
            });
            ping.raise();
            ping.raise();
            pong.wait().await;
            7
        })
        .expect("an executor");
        assert_eq!(executor.join().expect("no panic"), 7);
    }
}
