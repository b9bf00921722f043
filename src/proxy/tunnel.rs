//! Connections that have stopped being HTTP: bytes go both ways, until both sides have ended or
//! nothing has moved for too long.

use std::cell::Cell;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// One side: its stream, and what was read of it already.
#[derive(Debug)]
pub struct Side<S> {
    /// The stream.
    pub stream: S,
    /// What was read of it already.
    pub first: Vec<u8>,
}

/// Passes bytes between two sides. An end of one is passed on; `quiet_max` without a byte ends
/// both.
pub async fn run<A, B>(one: Side<A>, other: Side<B>, quiet_max: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (one_reads, one_writes) = tokio::io::split(one.stream);
    let (other_reads, other_writes) = tokio::io::split(other.stream);
    let moved = Cell::new(Instant::now());
    let there = pass(one.first, one_reads, other_writes, &moved);
    let back = pass(other.first, other_reads, one_writes, &moved);
    tokio::select! {
        ended = async { tokio::try_join!(there, back) } => ended.map(drop),
        () = quiet(&moved, quiet_max) => Ok(()),
    }
}

async fn pass(
    first: Vec<u8>,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &Cell<Instant>,
) -> io::Result<()> {
    to.write_all(&first).await?;
    drop(first);
    let mut buffer = Vec::with_capacity(16 << 10);
    loop {
        // What is written is flushed: TLS may keep it otherwise.
        to.flush().await?;
        buffer.clear();
        if from.read_buf(&mut buffer).await? == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer).await?;
        moved.set(Instant::now());
    }
}

async fn quiet(moved: &Cell<Instant>, max: Duration) {
    loop {
        let until = moved.get() + max;
        if until <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}
