//! Tells a handler that its call is over: its time ran out, its caller gave it up, or the connection broke.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{self, Context, Poll};

use super::Call;

/// Set once.
#[derive(Default)]
pub struct Over {
    is_over: Cell<bool>,
    waiting: RefCell<Option<task::Waker>>,
}

impl Over {
    pub(super) fn set(&self) {
        self.is_over.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_over.get() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waiting = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Call {
    /// Whether nobody wants the answer any more.
    pub fn is_over(&self) -> bool {
        self.over.is_over.get()
    }

    /// Runs `handler` as long as its answer is wanted, and drops it then: a coroutine is unwound where it waits. None: it
    /// did not end.
    pub async fn while_wanted<F: Future>(&self, handler: F) -> Option<F::Output> {
        let mut handler = pin!(handler);
        poll_fn(|context| {
            if self.is_over() {
                return Poll::Ready(None);
            }
            match handler.as_mut().poll(context) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending => self.over.poll(context).map(|()| None),
            }
        })
        .await
    }
}
