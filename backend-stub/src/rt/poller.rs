//! What the kernel tells the loop: descriptors that can be read or written, and that time has passed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use super::turns::Turns;

/// Events that are taken at once.
const EVENTS: usize = 256;

/// The longest wait; the kernel is then asked again.
const WAIT_MAX_MS: u64 = 60_000;

/// The mark of the bell.
const BELL: u64 = u64::MAX;

/// The kernel's side of a loop.
pub struct Poller {
    epoll: Epoll,
    events: RefCell<Vec<EpollEvent>>,
    sources: RefCell<Sources>,
    /// By when it is due, in us since the start, and a number that tells those of one time apart.
    timers: RefCell<BTreeMap<(u64, u64), Waker>>,
    next_timer: Cell<u64>,
    start: Instant,
}

#[derive(Default)]
struct Sources {
    places: Vec<Option<Rc<Source>>>,
    free: Vec<usize>,
}

/// What is known of a descriptor.
#[derive(Default)]
struct Source {
    read: Side,
    write: Side,
    /// The peer has ended its side, or there is an error: reading does not stop telling so.
    has_ended: Cell<bool>,
}

#[derive(Default)]
struct Side {
    is_ready: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Poller {
    pub fn new(bell: &EventFd) -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // By edges: each ring is told once, and nobody need read it away.
        epoll.add(bell, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, BELL))?;
        Ok(Self {
            epoll,
            events: RefCell::new(vec![EpollEvent::empty(); EVENTS]),
            sources: RefCell::default(),
            timers: RefCell::default(),
            next_timer: Cell::new(0),
            start: Instant::now(),
        })
    }

    /// Wakes whoever has waited for what has come; waits for it, if it may.
    pub fn poll(&self, may_wait: bool) -> nix::Result<()> {
        let mut events = self.events.borrow_mut();
        let came = match self.epoll.wait(&mut events, self.timeout(may_wait)) {
            Err(Errno::EINTR) => 0,
            came => came?,
        };
        for event in events[..came].iter().filter(|event| event.data() != BELL) {
            // None: it was closed after it had happened.
            let source = self.sources.borrow().places.get(event.data() as usize).cloned().flatten();
            if let Some(source) = source {
                source.happened(event.events());
            }
        }
        drop(events);
        self.run_timers();
        Ok(())
    }

    fn timeout(&self, may_wait: bool) -> EpollTimeout {
        if !may_wait {
            return EpollTimeout::ZERO;
        }
        let Some(due_us) = self.timers.borrow().first_key_value().map(|(&(due_us, _), _)| due_us) else {
            return EpollTimeout::NONE;
        };
        let ms = due_us.saturating_sub(self.now_us()).div_ceil(1000).min(WAIT_MAX_MS);
        EpollTimeout::from(ms as u16)
    }

    fn run_timers(&self) {
        if self.timers.borrow().is_empty() {
            return;
        }
        let now_us = self.now_us();
        loop {
            let mut timers = self.timers.borrow_mut();
            let Some(first) = timers.first_entry().filter(|first| first.key().0 <= now_us) else { return };
            let waker = first.remove();
            drop(timers);
            waker.wake();
        }
    }

    fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

impl Source {
    fn happened(&self, events: EpollFlags) {
        if events.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.has_ended.set(true);
        }
        if events.contains(EpollFlags::EPOLLIN) || self.has_ended.get() {
            self.read.set_ready();
        }
        if events.intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.write.set_ready();
        }
    }
}

impl Side {
    fn set_ready(&self) {
        self.is_ready.set(true);
        // Not in a borrow: to wake may be to drop the one that waits.
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_ready.get() {
            return Poll::Ready(());
        }
        super::sync::store(&mut self.waiting.borrow_mut(), context);
        Poll::Pending
    }
}

/// A descriptor that does not block, and tells when it can be read and written. Each side is waited for by one task.
pub struct Watched<T: AsFd> {
    pub io: T,
    source: Rc<Source>,
    place: usize,
    turns: Rc<Turns>,
}

impl<T: AsFd> Watched<T> {
    /// On the thread of the loop that will tell it.
    pub fn new(io: T) -> io::Result<Self> {
        let turns = Turns::here(Rc::clone);
        let (source, place) = turns.poller.watch(&io)?;
        Ok(Self { io, source, place, turns })
    }

    /// Says `op` until it does not say "not now".
    pub fn poll_read<R>(
        &self,
        context: &mut Context<'_>,
        op: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_side(&self.source.read, self.source.has_ended.get(), context, op)
    }

    pub fn poll_write<R>(
        &self,
        context: &mut Context<'_>,
        op: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_side(&self.source.write, false, context, op)
    }

    /// There was less to read than was asked for: the next read waits for more.
    pub fn was_drained(&self) {
        if !self.source.has_ended.get() {
            self.source.read.is_ready.set(false);
        }
    }

    fn poll_side<R>(
        &self,
        side: &Side,
        has_ended: bool,
        context: &mut Context<'_>,
        mut op: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            ready!(side.poll_ready(context));
            match op(&self.io) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    side.is_ready.set(false);
                    // A half-closed peer may still have been read empty; what comes then is an edge of its own.
                    if has_ended {
                        self.source.has_ended.set(false);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl<T: AsFd> Drop for Watched<T> {
    fn drop(&mut self) {
        self.turns.poller.forget(&self.io, self.place);
    }
}

impl Poller {
    fn watch(&self, io: &impl AsFd) -> io::Result<(Rc<Source>, usize)> {
        let mut sources = self.sources.borrow_mut();
        let place = sources.free.pop().unwrap_or_else(|| {
            sources.places.push(None);
            sources.places.len() - 1
        });
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        if let Err(error) = self.epoll.add(io, EpollEvent::new(flags, place as u64)) {
            sources.free.push(place);
            return Err(error.into());
        }
        let source = Rc::new(Source::default());
        sources.places[place] = Some(source.clone());
        Ok((source, place))
    }

    fn forget(&self, io: &impl AsFd, place: usize) {
        // It fails only when it is not watched.
        let _ = self.epoll.delete(io);
        let mut sources = self.sources.borrow_mut();
        sources.places[place] = None;
        sources.free.push(place);
    }
}

/// Ends when its time has come.
pub struct Sleep {
    ms: u64,
    timer: Option<((u64, u64), Rc<Turns>)>,
}

impl Sleep {
    pub fn new(ms: u64) -> Self {
        Self { ms, timer: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some((key, turns)) = &self.timer {
            let mut timers = turns.poller.timers.borrow_mut();
            let Some(waker) = timers.get_mut(key) else { return Poll::Ready(()) };
            waker.clone_from(context.waker());
            return Poll::Pending;
        }
        let turns = Turns::here(Rc::clone);
        let poller = &turns.poller;
        let number = poller.next_timer.replace(poller.next_timer.get() + 1);
        let key = (poller.now_us().saturating_add(self.ms.saturating_mul(1000)), number);
        poller.timers.borrow_mut().insert(key, context.waker().clone());
        self.timer = Some((key, turns));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((key, turns)) = &self.timer {
            turns.poller.timers.borrow_mut().remove(key);
        }
    }
}
