//! Room for what is read and written, used again by one connection after the other: one that is
//! idle holds none.

use std::cell::RefCell;

/// What most heads and answers need, in bytes.
pub(super) const ROOM_BYTES: usize = 16 << 10;
/// For bodies that do not end soon.
pub(super) const WIDE_BYTES: usize = 256 << 10;
/// How much is kept for others.
const ROOMS_MAX: usize = 64;
const WIDE_MAX: usize = 4;

/// The buffers of one worker.
#[derive(Debug, Default)]
pub struct BufferPool {
    usual: RefCell<Vec<Vec<u8>>>,
    wide: RefCell<Vec<Vec<u8>>>,
}

impl BufferPool {
    /// An empty room of the usual size.
    pub fn take(&self) -> Vec<u8> {
        let kept = self.usual.borrow_mut().pop();
        kept.unwrap_or_else(|| Vec::with_capacity(ROOM_BYTES))
    }

    /// An empty wide one.
    pub fn take_wide(&self) -> Vec<u8> {
        let kept = self.wide.borrow_mut().pop();
        kept.unwrap_or_else(|| Vec::with_capacity(WIDE_BYTES))
    }

    /// Gives a room back. One that has grown beyond its size is not kept.
    pub fn give(&self, mut room: Vec<u8>) {
        room.clear();
        let (kept, max) = match room.capacity() {
            ROOM_BYTES => (&self.usual, ROOMS_MAX),
            WIDE_BYTES => (&self.wide, WIDE_MAX),
            _ => return,
        };
        let mut kept = kept.borrow_mut();
        if kept.len() < max {
            kept.push(room);
        }
    }
}
