//! Waiting for several things at once.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use super::wait;

/// Waits until all are ready, whatever order they come in; the outputs stand in the order of the futures. A handler that
/// calls others at once makes its calls with the async clients and waits for them here.
pub fn wait_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    wait(all(futures))
}

/// As [`wait_all`], for async code.
pub async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<One<F>> = futures.into_iter().map(|future| One::Waits(Box::pin(future))).collect();
    poll_fn(|context| {
        let mut is_done = true;
        for one in &mut all {
            if let One::Waits(future) = one {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *one = One::Done(output),
                    Poll::Pending => is_done = false,
                }
            }
        }
        if is_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let output = |one| match one {
        One::Done(output) => output,
        One::Waits(_) => unreachable!("it was waited for"),
    };
    all.into_iter().map(output).collect()
}

enum One<F: Future> {
    Waits(Pin<Box<F>>),
    Done(F::Output),
}
