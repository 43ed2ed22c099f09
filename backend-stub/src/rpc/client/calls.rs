//! Calls whose ends are awaited: a place for each, used again and again.

use std::mem;
use std::task::{Context, Poll, Waker};

use proto_wire::rpc::client::End;
use proto_wire::rpc::method::Answer;
use proto_wire::status::Status;

/// How a call over one connection ended: with an answer, or with what its caller is told and what the policy is.
pub type Ended = Result<Answer, (Status, End)>;

/// The places; `R` is what a call comes back with.
pub struct Calls<R> {
    places: Vec<Place<R>>,
    free: Vec<u32>,
}

enum Place<R> {
    Free,
    Waiting(Option<Waker>),
    Ended(R),
}

impl<R> Default for Calls<R> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<R> Calls<R> {
    /// A place for a call that begins.
    pub fn begin(&mut self) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::Free);
            (self.places.len() - 1) as u32
        });
        self.places[at as usize] = Place::Waiting(None);
        at
    }

    /// The call has ended: wakes whoever waits.
    pub fn end(&mut self, at: u32, ended: R) {
        if let Place::Waiting(Some(waker)) = mem::replace(&mut self.places[at as usize], Place::Ended(ended))
        {
            waker.wake();
        }
    }

    /// Takes the end, and the place is free again; or remembers whom to wake.
    pub fn poll(&mut self, at: u32, context: &mut Context<'_>) -> Poll<R> {
        match &mut self.places[at as usize] {
            Place::Waiting(waker) => {
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    *waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
            place => match mem::replace(place, Place::Free) {
                Place::Ended(ended) => {
                    self.free.push(at);
                    Poll::Ready(ended)
                }
                _ => unreachable!("a place is polled only by the call that has it"),
            },
        }
    }

    /// Nobody waits any more.
    pub fn give_up(&mut self, at: u32) {
        self.places[at as usize] = Place::Free;
        self.free.push(at);
    }
}
