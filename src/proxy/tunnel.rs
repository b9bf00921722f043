//! Connections that have stopped being HTTP: bytes go both ways, until both sides have ended or
//! nothing has moved for too long.

use crate::config::plan::Timeouts;
use std::cell::Cell;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

/// One side: its stream, and what was read of it already.
#[derive(Debug)]
pub(super) struct TunnelSide<S> {
    /// The stream.
    pub stream: S,
    /// What was read of it already.
    pub first: Vec<u8>,
}

/// How long nothing may move.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdleLimits {
    /// Either way.
    max: Duration,
    /// To a client that does not read what waits for it.
    stall_max: Duration,
}

impl From<&Timeouts> for IdleLimits {
    fn from(timeouts: &Timeouts) -> IdleLimits {
        IdleLimits {
            max: timeouts.tunnel,
            stall_max: timeouts.body,
        }
    }
}

/// Passes bytes between a client and its upstream. An end of one is passed on; both are ended when
/// nothing moves for too long, or when the client does not take what was sent to it.
pub(super) async fn run<A, B>(
    client: TunnelSide<A>,
    upstream: TunnelSide<B>,
    quiet: IdleLimits,
) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (client_reads, client_writes) = tokio::io::split(client.stream);
    let (upstream_reads, upstream_writes) = tokio::io::split(upstream.stream);
    let moved = Cell::new(Instant::now());
    // An upstream that does not read is quiet, if nothing else moves.
    let there = pass(
        (client.first, client_reads),
        upstream_writes,
        &moved,
        quiet.max,
    );
    let back = pass(
        (upstream.first, upstream_reads),
        client_writes,
        &moved,
        quiet.stall_max,
    );
    tokio::select! {
        ended = async { tokio::try_join!(there, back) } => ended.map(drop),
        () = nothing_moves(&moved, quiet.max) => Ok(()),
    }
}

async fn pass(
    (first, mut from): (Vec<u8>, impl AsyncRead + Unpin),
    mut to: impl AsyncWrite + Unpin,
    moved: &Cell<Instant>,
    stall_max: Duration,
) -> io::Result<()> {
    write(&mut to, &first, stall_max).await?;
    drop(first);
    let mut buffer = Vec::with_capacity(16 << 10);
    loop {
        buffer.clear();
        if from.read_buf(&mut buffer).await? == 0 {
            return timeout(stall_max, to.shutdown()).await?;
        }
        write(&mut to, &buffer, stall_max).await?;
        moved.set(Instant::now());
    }
}

/// Writes all of this. Each part of it must be taken in time.
async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    stall_max: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match timeout(stall_max, to.write(bytes)).await?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            taken => bytes = &bytes[taken..],
        }
    }
    // TLS may keep what was written otherwise.
    timeout(stall_max, to.flush()).await?
}

async fn nothing_moves(moved: &Cell<Instant>, max: Duration) {
    loop {
        let until = moved.get() + max;
        if until <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}
