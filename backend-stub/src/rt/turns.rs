//! The loop of one thread: tasks, what wakes them, and the turns in which they run.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::poller::Poller;

/// Passes over the tasks that are ready, before the kernel is asked again what has come.
const PASSES_OF_A_TURN: usize = 8;

thread_local! {
    static HERE: RefCell<Option<Rc<Turns>>> = const { RefCell::new(None) };
}

/// The loop.
pub struct Turns {
    tasks: RefCell<Tasks>,
    ready: RefCell<VecDeque<u32>>,
    pub poller: Poller,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Tasks {
    places: Vec<Place>,
    free: Vec<u32>,
}

struct Place {
    /// Not there while it is polled, and when the place is free.
    task: Option<Pin<Box<dyn Future<Output = ()>>>>,
    handle: Arc<Handle>,
}

/// What wakers reach. One that outlives its task wakes the next one of its place for nothing, which a task may not mind.
struct Handle {
    place: u32,
    is_queued: AtomicBool,
    bell: Arc<Bell>,
}

/// How other threads reach the loop.
struct Bell {
    woken: Mutex<Vec<u32>>,
    has_woken: AtomicBool,
    /// The loop waits in the kernel, or is about to.
    is_asleep: AtomicBool,
    event: EventFd,
}

impl Turns {
    /// Runs `main` to its end on this thread, and with it all tasks that are spawned meanwhile; what is left of those is
    /// dropped then.
    pub fn run<T: 'static>(main: impl Future<Output = T> + 'static) -> nix::Result<T> {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let poller = Poller::new(&event)?;
        let bell = Bell {
            woken: Mutex::default(),
            has_woken: AtomicBool::new(false),
            is_asleep: AtomicBool::new(false),
            event,
        };
        let turns = Rc::new(Self {
            tasks: RefCell::default(),
            ready: RefCell::default(),
            poller,
            bell: Arc::new(bell),
        });
        HERE.set(Some(turns.clone()));
        let _left = Left;
        let result = Rc::new(Cell::new(None));
        let told = result.clone();
        let bell = turns.bell.clone();
        turns.spawn(async move {
            told.set(Some(main.await));
            // The kernel is not waited for any more: nothing need come of it.
            bell.has_woken.store(true, Ordering::SeqCst);
        });
        loop {
            turns.turn()?;
            if let Some(result) = result.take() {
                return Ok(result);
            }
        }
    }

    pub fn here<R>(with: impl FnOnce(&Rc<Turns>) -> R) -> R {
        HERE.with_borrow(|here| {
            with(here.as_ref().expect("this runs on an executor: it is told so where it is public"))
        })
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let task: Pin<Box<dyn Future<Output = ()>>> = Box::pin(task);
        let mut tasks = self.tasks.borrow_mut();
        let place = tasks.free.pop().unwrap_or_else(|| {
            let place = tasks.places.len() as u32;
            let handle = Handle { place, is_queued: AtomicBool::new(false), bell: self.bell.clone() };
            tasks.places.push(Place { task: None, handle: Arc::new(handle) });
            place
        });
        let at = &mut tasks.places[place as usize];
        at.task = Some(task);
        if !at.handle.is_queued.swap(true, Ordering::AcqRel) {
            self.ready.borrow_mut().push_back(place);
        }
    }

    /// Runs what is ready, then takes what the kernel and other threads have; waits for it when nothing is ready.
    fn turn(&self) -> nix::Result<()> {
        for _ in 0..PASSES_OF_A_TURN {
            let ready = self.ready.borrow().len();
            if ready == 0 {
                break;
            }
            for _ in 0..ready {
                let place = self.ready.borrow_mut().pop_front();
                place.into_iter().for_each(|place| self.step(place));
            }
        }
        let is_idle = self.ready.borrow().is_empty();
        if is_idle {
            self.bell.is_asleep.store(true, Ordering::SeqCst);
        }
        let may_wait = is_idle && !self.bell.has_woken.load(Ordering::SeqCst);
        self.poller.poll(may_wait)?;
        self.bell.is_asleep.store(false, Ordering::Relaxed);
        if self.bell.has_woken.load(Ordering::Acquire) {
            self.bell.has_woken.store(false, Ordering::SeqCst);
            let woken = mem::take(&mut *self.bell.woken());
            self.ready.borrow_mut().extend(woken);
        }
        Ok(())
    }

    fn step(&self, place: u32) {
        let (task, handle) = {
            let at = &mut self.tasks.borrow_mut().places[place as usize];
            // Before the poll: what wakes it in between makes it ready again.
            at.handle.is_queued.store(false, Ordering::Release);
            (at.task.take(), at.handle.clone())
        };
        let Some(mut task) = task else { return };
        let waker = Waker::from(handle);
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.tasks.borrow_mut().places[place as usize].task = Some(task);
            return;
        }
        // Outside of any borrow: its end may wake and spawn.
        drop(task);
        self.tasks.borrow_mut().free.push(place);
    }
}

/// Ends what is left, also when a task has panicked.
struct Left;

impl Drop for Left {
    fn drop(&mut self) {
        let Some(turns) = HERE.with_borrow(Clone::clone) else { return };
        loop {
            let mut tasks = turns.tasks.borrow_mut();
            let left: Vec<_> = tasks.places.iter_mut().filter_map(|place| place.task.take()).collect();
            drop(tasks);
            if left.is_empty() {
                break;
            }
            // Each may spawn at its end, which is dropped in the next round. Tasks that do so for ever do not exist.
            drop(left);
        }
        HERE.set(None);
    }
}

impl Bell {
    fn woken(&self) -> MutexGuard<'_, Vec<u32>> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Handle {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        // An error: the thread ends.
        let is_here = HERE.try_with(|here| match &*here.borrow() {
            Some(turns) if Arc::ptr_eq(&turns.bell, &self.bell) => {
                turns.ready.borrow_mut().push_back(self.place);
                true
            }
            _ => false,
        });
        if !is_here.unwrap_or(false) {
            self.bell.woken().push(self.place);
            self.bell.has_woken.store(true, Ordering::SeqCst);
            if self.bell.is_asleep.swap(false, Ordering::SeqCst) {
                // It fails only when it has been rung 2^64 times and nobody came.
                let _ = self.bell.event.write(1);
            }
        }
    }
}
