//! The beginning of a response's body, collected for a comparison.

use crate::proxy::error_response::ErrorCode;
use crate::proxy::h1::body::{BodyReader, ClientFraming};
use crate::proxy::h1::response_head::BodyFraming;
use std::cell::{Cell, RefCell};
use tokio::sync::oneshot;

/// How much of a body is compared, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;

/// The beginning of a body, without what frames it.
#[derive(Debug)]
pub(crate) struct BodyPart {
    reader: BodyReader,
    /// Received, and not complete enough to be read.
    framed: Vec<u8>,
    /// Its data.
    pub data: Vec<u8>,
    /// Whether it goes on beyond what is compared.
    pub is_cut: bool,
}

impl BodyPart {
    /// Nothing yet of a body that is framed like this.
    pub(crate) fn new(follows: BodyFraming) -> BodyPart {
        BodyPart {
            reader: BodyReader::new(follows, ClientFraming::Raw),
            framed: Vec::new(),
            data: Vec::new(),
            is_cut: false,
        }
    }

    /// Adds what the upstream has sent.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<(), ErrorCode> {
        if self.is_cut {
            return Ok(());
        }
        self.framed.extend_from_slice(bytes);
        self.reader.copy(&mut self.framed, &mut self.data)?;
        self.cut();
        Ok(())
    }

    /// Adds data, which nothing frames.
    fn add(&mut self, data: &[u8]) {
        if !self.is_cut {
            self.data.extend_from_slice(data);
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.data.len() > BODY_BYTES_MAX {
            self.data.truncate(BODY_BYTES_MAX);
            (self.is_cut, self.framed) = (true, Vec::new());
        }
    }

    /// The upstream has closed. Whether that is the end of the body.
    pub(crate) fn close(&mut self) -> bool {
        self.reader.close().is_some()
    }

    /// Whether all of the body has come.
    pub(crate) fn has_ended(&self) -> bool {
        self.reader.has_ended()
    }

    /// Whether nothing has come behind it.
    pub(crate) fn is_last(&self) -> bool {
        self.framed.is_empty()
    }
}

/// The body that the client gets, collected beside.
pub(crate) struct OriginalBody {
    part: RefCell<Option<BodyPart>>,
    collected: Cell<Option<oneshot::Sender<BodyPart>>>,
}

impl OriginalBody {
    /// Begins to collect a body. The receiver gets it when it is whole, or long enough.
    pub(crate) fn new(part: BodyPart) -> (OriginalBody, oneshot::Receiver<BodyPart>) {
        let (sender, receiver) = oneshot::channel();
        let body = OriginalBody {
            part: RefCell::new(Some(part)),
            collected: Cell::new(Some(sender)),
        };
        (body, receiver)
    }

    /// Adds what the upstream has sent, with what frames it.
    pub(crate) fn receive(&self, bytes: &[u8]) {
        let mut part = self.part.borrow_mut();
        if part.as_mut().is_some_and(|it| it.receive(bytes).is_err()) {
            *part = None;
        }
        drop(part);
        self.give_if_cut();
    }

    /// Adds data of the body.
    pub(crate) fn add(&self, data: &[u8]) {
        if let Some(part) = &mut *self.part.borrow_mut() {
            part.add(data);
        }
        self.give_if_cut();
    }

    /// The exchange ends; `is_whole` if the client got all of the body.
    pub(crate) fn end(&self, is_whole: bool) {
        match is_whole {
            true => self.give(),
            // Whoever waits hears that there is nothing.
            false => drop(self.collected.take()),
        }
    }

    fn give_if_cut(&self) {
        if self.part.borrow().as_ref().is_some_and(|it| it.is_cut) {
            self.give();
        }
    }

    fn give(&self) {
        if let (Some(part), Some(collected)) = (self.part.take(), self.collected.take()) {
            // Nobody waits where the copy has failed.
            let _ = collected.send(part);
        }
    }
}
