//! A coroutine beside the one that starts it.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use backend_stacks::Label;

use super::pool::{Pool, RunError};
use super::wait;
use crate::rt::{self, Signal};

/// Runs `body` on a coroutine of the thread's first [`Pool`]. It goes on when the handle is dropped.
pub fn spawn<T: 'static>(body: impl FnOnce() -> T + 'static) -> Result<Handle<T>, RunError> {
    Pool::first().ok_or(RunError::NoStack(0))?.spawn(body)
}

impl Pool {
    /// Runs `body` on a coroutine. It goes on when the handle is dropped.
    pub fn spawn<T: 'static>(&self, body: impl FnOnce() -> T + 'static) -> Result<Handle<T>, RunError> {
        if self.in_use() >= self.stacks() {
            return Err(RunError::NoStack(self.stacks()));
        }
        let shared =
            Rc::new(Shared { output: RefCell::new(None), ended: Signal::default(), over: Signal::default() });
        let running = self.run(Label { service: "co", method: "spawn" }, body);
        let theirs = shared.clone();
        rt::spawn(async move {
            let output = {
                let mut running = pin!(running);
                poll_fn(|context| {
                    if theirs.over.poll_wait(context).is_ready() {
                        return Poll::Ready(None);
                    }
                    running.as_mut().poll(context).map(Some)
                })
                .await
            };
            *theirs.output.borrow_mut() = output;
            theirs.ended.raise();
        });
        Ok(Handle(shared))
    }
}

struct Shared<T> {
    output: RefCell<Option<Result<T, RunError>>>,
    ended: Signal,
    over: Signal,
}

/// A coroutine that was spawned. It is a future too.
pub struct Handle<T>(Rc<Shared<T>>);

impl<T> Handle<T> {
    /// Waits for its end, on a coroutine.
    pub fn join(self) -> Result<T, RunError> {
        wait(self)
    }

    /// Unwinds it where it waits.
    pub fn cancel(self) {
        self.0.over.raise();
    }
}

impl<T> Future for Handle<T> {
    type Output = Result<T, RunError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(output) = self.0.output.borrow_mut().take() {
            return Poll::Ready(output);
        }
        // It is raised once, after the output is there; the output may have come in between.
        if self.0.ended.poll_wait(context).is_ready()
            && let Some(output) = self.0.output.borrow_mut().take()
        {
            return Poll::Ready(output);
        }
        Poll::Pending
    }
}
