//! The stacks of one service on one thread, and a function that runs on one of them.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Once;
use std::task::{Context, Poll};

use backend_stacks::{Arena, ArenaConfig, ArenaError, Coroutine, Label, ticks};
use proto_wire::rpc::method::{Method, Runner};
use proto_wire::status::{Code, Status};
use thiserror::Error;

use super::limits;
use super::watch::{Blocked, Watch};

/// What a pool holds.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Of each stack, its guard page included.
    pub stack_bytes: usize,
    /// Coroutines at once. A call beyond it ends in `Code::Overloaded`.
    pub stacks: usize,
    /// What stacks that nobody uses may keep.
    pub keep_bytes: usize,
    /// What runs longer than this without waiting has blocked its thread.
    pub blocked_after_us: u64,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            stack_bytes: limits::STACK_BYTES,
            stacks: limits::STACKS,
            keep_bytes: limits::KEEP_BYTES,
            blocked_after_us: limits::BLOCKED_AFTER_US,
        }
    }
}

/// Why a function did not run to its end.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RunError {
    #[error("all {0} coroutines are in use")]
    NoStack(usize),
    #[error("{service}.{method} panicked: {text}", service = .0.service, method = .0.method, text = .1)]
    Panicked(Label, String),
}

/// Stacks of one size for one thread. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Rc<Shared>);

struct Shared {
    arena: Rc<Arena>,
    watch: Watch,
    refused: Cell<u64>,
    panics: Cell<u64>,
}

thread_local! {
    /// The pool of `co::spawn`: the thread's first that still lives.
    static FIRST: RefCell<Weak<Shared>> = const { RefCell::new(Weak::new()) };
}

impl Pool {
    /// Takes address space for all stacks, and no memory. The thread's first pool is also that of [`super::spawn`].
    pub fn new(config: &PoolConfig) -> Result<Self, ArenaError> {
        print_panics_on_the_loop_s_stack();
        let arena = Arena::new(&ArenaConfig {
            stack_bytes: config.stack_bytes,
            stacks: config.stacks,
            keep_bytes: config.keep_bytes,
            guard: None,
        })?;
        let watch = Watch::new(config.blocked_after_us);
        let pool = Rc::new(Shared { arena, watch, refused: Cell::new(0), panics: Cell::new(0) });
        FIRST.with_borrow_mut(|first| {
            if first.strong_count() == 0 {
                *first = Rc::downgrade(&pool);
            }
        });
        Ok(Self(pool))
    }

    /// The thread's first pool.
    pub(super) fn first() -> Option<Self> {
        FIRST.with_borrow(Weak::upgrade).map(Self)
    }

    /// Runs `body` on a coroutine once the future is polled, to its end. Dropped before, `body` is unwound where it
    /// waits.
    pub fn run<T: 'static>(&self, label: Label, body: impl FnOnce() -> T + 'static) -> Running<T> {
        let Some(stack) = self.0.arena.take(label) else {
            self.0.refused.set(self.0.refused.get() + 1);
            return Running(State::NoStack(self.stacks()));
        };
        Running(State::On { coroutine: Coroutine::new(stack, body), pool: self.clone(), label })
    }

    /// Coroutines that run or wait.
    pub fn in_use(&self) -> usize {
        self.0.arena.taken()
    }

    /// Coroutines at once.
    pub fn stacks(&self) -> usize {
        self.0.arena.stacks()
    }

    /// Calls that found no stack.
    pub fn refused(&self) -> u64 {
        self.0.refused.get()
    }

    /// Functions that ended in a panic.
    pub fn panics(&self) -> u64 {
        self.0.panics.get()
    }

    /// What has blocked the thread, by name, the most often first.
    pub fn blocked(&self) -> Vec<Blocked> {
        self.0.watch.blocked()
    }
}

/// A function on its coroutine.
#[must_use = "it runs when it is polled"]
pub struct Running<T>(State<T>);

enum State<T> {
    NoStack(usize),
    On { coroutine: Coroutine<T>, pool: Pool, label: Label },
    Ended,
}

impl<T: 'static> Future for Running<T> {
    type Output = Result<T, RunError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let state = &mut self.get_mut().0;
        let ended = match state {
            State::NoStack(stacks) => Err(RunError::NoStack(*stacks)),
            State::On { coroutine, pool, label } => {
                let began_ticks = ticks();
                let polled = coroutine.poll(context);
                pool.0.watch.ran(*label, began_ticks);
                match polled {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(value)) => Ok(value),
                    Poll::Ready(Err(panic)) => {
                        pool.0.panics.set(pool.0.panics.get() + 1);
                        Err(RunError::Panicked(*label, text_of(&*panic)))
                    }
                }
            }
            State::Ended => panic!("polled after its end"),
        };
        // The stack goes back now, and not when the owner gets round to it.
        *state = State::Ended;
        Poll::Ready(ended)
    }
}

impl Runner for Pool {
    async fn run<T: 'static>(
        &self,
        method: &'static Method,
        handler: impl FnOnce() -> Result<T, Status> + 'static,
    ) -> Result<T, Status> {
        let label = Label { service: method.service, method: method.name };
        match self.run(label, handler).await {
            Ok(result) => result,
            Err(error @ RunError::Panicked(..)) => Err(Status::new(Code::Internal, error.to_string())),
            Err(error @ RunError::NoStack(_)) => {
                let jitter =
                    (self.refused() as u32).wrapping_mul(2_654_435_761) % limits::NO_STACK_RETRY_JITTER_MS;
                let retry_after_ms = limits::NO_STACK_RETRY_MS + jitter;
                Err(Status { retry_after_ms, ..Status::new(Code::Overloaded, error.to_string()) })
            }
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".to_owned())
}

/// What prints a panic may walk the stack and read the program's symbols: more than a coroutine's stack holds.
fn print_panics_on_the_loop_s_stack() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| backend_stacks::on_parent(|| print(info))));
    });
}
