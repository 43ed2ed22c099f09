//! A connection for each call: made, used once, closed.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use proto_wire::rpc::caller::{CallerConfig, Request};
use proto_wire::rpc::client::{Address, End};
use proto_wire::status::{Code, Status};

use super::calls::Ended;
use super::limits;
use super::link::{Beside, Link, Watcher};
use crate::clock::Clock;

/// The connections of single calls to one endpoint that stand now.
pub(super) struct Shorts {
    address: Address,
    config: CallerConfig,
    clock: Clock,
    made: Cell<u64>,
    links: RefCell<Vec<Rc<Link>>>,
    /// A call whose connection does not come about goes elsewhere at once: there is no other to wait for.
    watcher: Rc<dyn Watcher>,
}

impl Shorts {
    pub fn new(address: Address, config: CallerConfig, clock: Clock) -> Rc<Self> {
        Rc::new(Self {
            address,
            config,
            clock,
            made: Cell::new(0),
            links: RefCell::default(),
            watcher: Rc::new(Beside),
        })
    }

    pub async fn call(&self, request: &Request<'_>) -> Ended {
        if self.calls() >= limits::MAX_SHORT {
            let text = format!("too many connections to {}", self.address);
            return Err((Status::new(Code::Overloaded, text), End::NotSent(Code::Overloaded)));
        }
        let seed = self.made.replace(self.made.get() + 1);
        let watcher: Weak<dyn Watcher> = Rc::downgrade(&self.watcher);
        let link = Link::start(0, self.address.clone(), self.config.clone(), seed, self.clock, watcher);
        self.links.borrow_mut().push(link.clone());
        // Also when the call is given up: the callee sees the end of the connection.
        let standing = Standing { shorts: self, link };
        standing.link.call(request)?.await
    }

    pub fn calls(&self) -> usize {
        self.links.borrow().len()
    }

    pub fn handle_timeout(&self, now_ms: u64) {
        // A call that ends here wakes its task, which takes its connection away later.
        self.links.borrow().iter().for_each(|link| link.handle_timeout(now_ms));
    }

    pub fn poll_timeout(&self) -> u64 {
        self.links.borrow().iter().map(|link| link.poll_timeout()).min().unwrap_or(u64::MAX)
    }

    pub fn close(&self) {
        self.links.borrow().iter().for_each(|link| link.close());
    }
}

struct Standing<'a> {
    shorts: &'a Shorts,
    link: Rc<Link>,
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.link.close();
        if let Ok(mut links) = self.shorts.links.try_borrow_mut() {
            links.retain(|link| !Rc::ptr_eq(link, &self.link));
        }
    }
}
