//! A closure on a stack of its own, which stops where it waits.

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::ptr::{self, NonNull};
use std::task::{Context, Poll};
use std::thread;

use corosensei::{CoroutineResult, Yielder};
use thiserror::Error;

use crate::arena::Stack;
use crate::limits::READY_IN_A_ROW_MAX;

/// What a panic carried.
pub type Panic = Box<dyn Any + Send>;

/// Why nothing can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoWait {
    /// The code runs on the loop's own stack.
    #[error("this code does not run on a coroutine, so it cannot wait: start it with `co::spawn`")]
    Outside,
    /// The coroutine is being unwound: its call is over, or it panics.
    #[error("the coroutine ends: a destructor cannot wait any more")]
    Unwinding,
}

/// A closure that runs on its own stack. Its owner polls it as it would a future.
///
/// Dropped before its end it is unwound from where it waits, and its destructors run.
pub struct Coroutine<T> {
    /// `None` only while it is dropped.
    inner: Option<corosensei::Coroutine<(), Waiting, T, Stack>>,
    /// What it waits for. It lies on the coroutine's own stack.
    waiting: Option<Waiting>,
    /// Where it waits; null before it first does.
    yielder: *const Here,
}

type Here = Yielder<(), Waiting>;

/// What a coroutine waits for, in its frame of `wait`. Valid while the coroutine is suspended there. One word, so that it
/// passes a switch in a register.
#[derive(Clone, Copy)]
struct Waiting(NonNull<Step>);

/// Polls what it is the beginning of.
struct Step(unsafe fn(NonNull<Step>, &mut Context<'_>) -> Poll<()>);

/// A future that is waited for, with what came of it.
#[repr(C)]
struct Waits<'a, F: Future> {
    // First: a pointer to it is one to the whole.
    step: Step,
    future: Pin<&'a mut F>,
    output: Option<Result<F::Output, Panic>>,
}

impl<F: Future> Waits<'_, F> {
    /// # Safety
    ///
    /// `at` is that of a `Waits<F>`, which nobody else uses meanwhile.
    unsafe fn step(at: NonNull<Step>, context: &mut Context<'_>) -> Poll<()> {
        // SAFETY: as the caller says.
        let waits = unsafe { at.cast::<Self>().as_mut() };
        // A panic belongs to the coroutine that waits, not to the loop that polls.
        match catch_unwind(AssertUnwindSafe(|| waits.future.as_mut().poll(context))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(value)) => waits.output = Some(Ok(value)),
            Err(panic) => waits.output = Some(Err(panic)),
        }
        Poll::Ready(())
    }
}

thread_local! {
    /// The coroutine that runs on this thread; null: none does.
    static CURRENT: Cell<*const Here> = const { Cell::new(ptr::null()) };
}

impl<T: 'static> Coroutine<T> {
    /// Prepares `body` to run on `stack`; nothing of it runs before the first poll.
    pub fn new(stack: Stack, body: impl FnOnce() -> T + 'static) -> Self {
        let inner = corosensei::Coroutine::with_stack(stack, move |yielder: &Here, ()| {
            CURRENT.set(yielder);
            body()
        });
        Self { inner: Some(inner), waiting: None, yielder: ptr::null() }
    }

    /// Runs it until it waits for something that is not ready, or to its end. A panic in it ends here, as an error.
    ///
    /// Must not be called again after it has ended.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<T, Panic>> {
        for _ in 0..READY_IN_A_ROW_MAX {
            if let Some(waiting) = self.waiting {
                // SAFETY: the coroutine stands in `wait`, whose frame holds what this points to and waits for it to be
                // polled; it can run on only by the `resume` below.
                if unsafe { (waiting.0.as_ref().0)(waiting.0, context) }.is_pending() {
                    return Poll::Pending;
                }
                self.waiting = None;
            }
            match self.resume() {
                Ok(CoroutineResult::Yield(waiting)) => self.waiting = Some(waiting),
                Ok(CoroutineResult::Return(value)) => return Poll::Ready(Ok(value)),
                Err(panic) => return Poll::Ready(Err(panic)),
            }
        }
        // It always finds ready what it waits for: others have their turn first.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn resume(&mut self) -> Result<CoroutineResult<Waiting, T>, Panic> {
        // `inner` is taken by `drop` alone.
        let Some(inner) = &mut self.inner else { unreachable!("polled while it is dropped") };
        let outer = CURRENT.replace(self.yielder);
        let resumed = catch_unwind(AssertUnwindSafe(|| inner.resume(())));
        self.yielder = CURRENT.replace(outer);
        resumed
    }
}

impl<T> Drop for Coroutine<T> {
    fn drop(&mut self) {
        let Some(mut inner) = self.inner.take() else { return };
        if inner.done() {
            return;
        }
        // What its destructors do must not wait, neither here nor where the owner itself is a coroutine.
        let outer = CURRENT.replace(ptr::null());
        // Its code may catch the unwinding and panic anew; that ends here, its message has been printed.
        let _ = catch_unwind(AssertUnwindSafe(|| inner.force_unwind()));
        CURRENT.set(outer);
    }
}

/// Waits for a future: the coroutine that calls this is suspended until it is ready.
pub fn wait<F: Future>(future: F) -> Result<F::Output, NoWait> {
    let here = CURRENT.get();
    if thread::panicking() {
        return Err(NoWait::Unwinding);
    }
    if here.is_null() {
        return Err(NoWait::Outside);
    }
    let future = pin!(future);
    let mut waits = Waits { step: Step(Waits::<F>::step), future, output: None };
    // Nothing else touches `waits` until the coroutine goes on.
    let waiting = Waiting(NonNull::from(&mut waits).cast());
    // SAFETY: `CURRENT` is set by `Coroutine` around its running alone, so this is the yielder of the coroutine that this
    // code runs on, and it lives at the bottom of that stack.
    unsafe { (*here).suspend(waiting) };
    match waits.output {
        Some(Ok(value)) => Ok(value),
        Some(Err(panic)) => resume_unwind(panic),
        // It is resumed only after its step was ready.
        None => unreachable!("a coroutine went on before what it waited for was there"),
    }
}

/// Whether this code runs on a coroutine.
pub fn is_here() -> bool {
    !CURRENT.get().is_null()
}

/// Runs `work` on the stack from which this coroutine is polled, which is that of a plain thread; outside of a coroutine
/// it runs where it stands. For what needs much of a stack and does not wait.
pub fn on_parent<R>(work: impl FnOnce() -> R) -> R {
    let here = CURRENT.get();
    if here.is_null() {
        return run_here(work);
    }
    let restore = Restore(CURRENT.replace(ptr::null()));
    let work = SameThread(work);
    // SAFETY: as in `wait`: the yielder of the coroutine that this code runs on.
    let result = unsafe { (*here).on_parent_stack(move || work.run()) };
    drop(restore);
    result
}

/// Apart, lest the frame of the work becomes part of a frame on the coroutine's stack.
#[inline(never)]
fn run_here<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Work for the parent's stack, which is one of the same thread.
struct SameThread<F>(F);

// SAFETY: `on_parent_stack` asks for `Send` lest the work gets at the yielder; it stands in `CURRENT` alone, which is null
// meanwhile. No other thread is involved.
unsafe impl<F> Send for SameThread<F> {}

impl<R, F: FnOnce() -> R> SameThread<F> {
    fn run(self) -> R {
        (self.0)()
    }
}

/// Puts the current coroutine back, also when the work panicked.
struct Restore(*const Here);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}
