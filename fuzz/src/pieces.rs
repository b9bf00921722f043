//! Bytes that come piece by piece.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Sizes of pieces, the same for the same seed.
#[derive(Clone)]
pub struct Cutter(u32);

impl Cutter {
    pub fn new(seed: u8) -> Cutter {
        Cutter(u32::from(seed).wrapping_mul(0x9e37_79b9) | 1)
    }

    /// Mostly a few bytes, sometimes many.
    pub fn size(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        let most = [1, 2, 5, 20, 100, 5000][(self.0 >> 8) as usize % 6];
        1 + (self.0 >> 16) as usize % most
    }

    pub fn cut(&mut self, bytes: &[u8]) -> VecDeque<Vec<u8>> {
        let mut pieces = VecDeque::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(self.size().min(rest.len()));
            pieces.push_back(piece.to_vec());
            rest = after;
        }
        pieces
    }
}

/// A connection whose other side says these pieces, one for each time that it is asked, and then
/// says no more. What is written to it is kept.
#[derive(Debug)]
pub struct Stream {
    pieces: VecDeque<Vec<u8>>,
    rest: bool,
    pub written: Vec<u8>,
}

impl Stream {
    pub fn new(pieces: VecDeque<Vec<u8>>) -> Stream {
        Stream {
            pieces,
            rest: false,
            written: Vec::new(),
        }
    }

    /// Everything at once.
    pub fn whole(bytes: &[u8]) -> Stream {
        let pieces = (!bytes.is_empty()).then(|| bytes.to_vec());
        Stream::new(pieces.into_iter().collect())
    }

    /// What was not read.
    pub fn unread(&self) -> Vec<u8> {
        self.pieces.iter().flatten().copied().collect()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Between two pieces others get their turn, as on a network.
        self.rest = !self.rest;
        if self.rest {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(piece) = self.pieces.front_mut() {
            let read = piece.len().min(room.remaining());
            room.put_slice(&piece[..read]);
            piece.drain(..read);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs this to its end.
pub fn run<T>(what: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
    }
    RUNTIME.with(|runtime| {
        let local = tokio::task::LocalSet::new();
        local.block_on(runtime, what)
    })
}
