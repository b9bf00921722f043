//! What becomes of a client's body, seen by those who wait for the upstream's answer.

use super::hops;
use super::line::Line;
use super::reply::Reason;
use crate::upstream::Listener;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

/// A body on its way.
#[derive(Debug)]
pub struct Upload {
    line: Option<Rc<Line>>,
    fault: Cell<Option<Reason>>,
    /// Everything of it has been taken.
    through: Cell<bool>,
    bytes: Cell<u64>,
    /// Something moved since this was last asked.
    moved: Cell<bool>,
    /// The client asked first (`Expect`), and the upstream has said yes.
    go: Cell<bool>,
    cancelled: Cell<bool>,
    /// The head of the answer has come.
    answered: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Upload {
    /// A body that comes over `line`, if that is HTTP/1; with `ask`, only when the upstream wants
    /// it.
    pub fn new(line: Option<Rc<Line>>, ask: bool) -> Upload {
        Upload {
            line,
            fault: Cell::new(None),
            through: Cell::new(false),
            bytes: Cell::new(0),
            moved: Cell::new(false),
            go: Cell::new(!ask),
            cancelled: Cell::new(false),
            answered: Cell::new(false),
            waker: RefCell::default(),
        }
    }

    /// What the client did wrong.
    pub fn fault(&self) -> Option<Reason> {
        self.fault.get()
    }

    /// The client did this wrong.
    pub fn fail(&self, fault: Reason) {
        self.fault.set(Some(fault));
    }

    /// Whether all of it has been taken.
    pub fn is_through(&self) -> bool {
        self.through.get()
    }

    /// All of it has been taken.
    pub fn finish(&self) {
        self.through.set(true);
    }

    /// A piece of so many bytes has been taken.
    pub fn moved(&self, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
        self.moved.set(true);
    }

    /// How much has been taken.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether pieces have been taken since this was last asked, and more are to come.
    pub fn is_moving(&self) -> bool {
        self.moved.replace(false) && !self.through.get()
    }

    /// Whether the client need not wait any more.
    pub fn may_go(&self) -> bool {
        self.go.get()
    }

    /// The client need not wait any more.
    pub fn go(&self) {
        self.go.set(true);
        self.wake();
    }

    /// The head of the answer has come.
    pub fn answer(&self) {
        self.answered.set(true);
    }

    /// Whether the head of the answer has come.
    pub fn is_answered(&self) -> bool {
        self.answered.get()
    }

    /// The upstream's answer has ended: what is left of the body is for nobody.
    pub fn cancel(&self) {
        if !self.through.get() {
            self.cancelled.set(true);
            self.wake();
        }
    }

    /// Whether nobody wants the rest.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// Remembers whom to wake.
    pub fn listen(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        let same = |waker: &Waker| waker.will_wake(context.waker());
        if !waker.as_ref().is_some_and(same) {
            *waker = Some(context.waker().clone());
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

impl Listener for Upload {
    fn interim(&self, status: u16, head: &[u8]) {
        match (status, &self.line) {
            // hyper says so to the client as soon as its body is asked for.
            (100, _) => self.go(),
            (_, Some(line)) => line.interim(status, head),
            (_, None) => {}
        }
    }
}

impl Listener for Line {
    fn interim(&self, status: u16, head: &[u8]) {
        // An old client takes it for the answer (RFC 9110, 15.2). That a request may continue is
        // only news to one who asked.
        if status != 100
            && !self.delimited.get()
            && let Some(head) = hops::interim(head)
        {
            self.say(&head);
        }
    }
}
