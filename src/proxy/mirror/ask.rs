//! Sends a copy, and reads its response.

use super::collected::BodyPart;
use super::head::{compared, is_comparable};
use crate::experiment::response_comparison::ComparedResponse;
use crate::experiment::{UpstreamIndex, UserId};
use crate::proxy::h1::response_head::{self, ParsedHead, ResponseContext, ResponseLimits};
use crate::proxy::snapshot::Snapshot;
use crate::upstream::{ConnectionRequest, PooledConnection, Protocols};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How often a copy is sent: connections that were idle may have been closed.
const ATTEMPTS_MAX: usize = 3;
/// How many interim responses may come before the final one.
const INTERIM_MAX: usize = 64;

/// A copy of a request, as an upstream gets it.
#[derive(Debug)]
pub(super) struct CopyRequest {
    /// Its head.
    pub head: Vec<u8>,
    /// Where `Host` is missing in it, if it is.
    pub host_at: Option<usize>,
}

/// The response to a copy.
#[derive(Debug)]
pub(super) struct CopyResponse {
    /// What is compared.
    pub compared: ComparedResponse,
    /// The time to its head.
    pub took: Duration,
}

/// Asks an upstream. `None` if it gives no response that can be compared, within `timeouts.response` for all
/// of it.
pub(super) async fn ask(
    snapshot: &Snapshot,
    (upstream, user): (UpstreamIndex, Option<UserId<'_>>),
    request: &CopyRequest,
    to_head: bool,
) -> Option<CopyResponse> {
    let began = Instant::now();
    let asking = async {
        for _ in 0..ATTEMPTS_MAX {
            let wanted = ConnectionRequest {
                upstream,
                need: Protocols::Any,
                user,
            };
            let connection = snapshot.upstreams.acquire_for_copy(wanted).await?;
            let reused = connection.reused;
            let asked = exchange(snapshot, connection, request, (to_head, began)).await;
            if asked.is_some() || !reused {
                return asked;
            }
        }
        None
    };
    let within = snapshot.plan.timeouts.response;
    tokio::time::timeout(within, asking).await.ok().flatten()
}

/// Sends the copy over a connection, and reads the response, as much of it as is compared.
async fn exchange(
    snapshot: &Snapshot,
    mut connection: PooledConnection,
    request: &CopyRequest,
    (to_head, began): (bool, Instant),
) -> Option<CopyResponse> {
    let mut head = request.head.clone();
    if let Some(at) = request.host_at {
        let line = format!("host: {}\r\n", connection.endpoint().address.authority());
        head.splice(at..at, line.into_bytes());
    }
    let stream = &mut connection.stream;
    stream.write_all(&head).await.ok()?;
    stream.flush().await.ok()?;
    let limits = ResponseLimits::from(&snapshot.plan.limits);
    let (mut received, mut interims) = (Vec::new(), 0);
    let (mut compared, mut body, took, keeps) = loop {
        let context = ResponseContext {
            to_head,
            upgrading: false,
            in_chunks: stream.is_in_chunks(),
        };
        let interim = match response_head::read(&received, limits, context).ok()? {
            ParsedHead::More => None,
            ParsedHead::Interim(_, end) => Some(end),
            ParsedHead::Final(head) => {
                // It was asked not to do so.
                if !is_comparable(&head) {
                    return None;
                }
                let mut body = BodyPart::new(head.follows);
                body.receive(&received[head.head_bytes..]).ok()?;
                connection.idle_for = head.idle_for;
                break (compared(&head), body, began.elapsed(), head.keeps);
            }
        };
        match interim {
            Some(end) => {
                received.drain(..end);
                interims += 1;
            }
            None if stream.read_buf(&mut received).await.ok()? > 0 => {}
            None => return None,
        }
        if interims > INTERIM_MAX {
            return None;
        }
    };
    let mut bytes = Vec::new();
    while !body.has_ended() && !body.is_cut {
        bytes.clear();
        match connection.stream.read_buf(&mut bytes).await.ok()? {
            0 if body.close() => {}
            0 => return None,
            _ => body.receive(&bytes).ok()?,
        }
    }
    if keeps && body.has_ended() && body.is_last() {
        connection.release(Instant::now());
    }
    (compared.body, compared.is_cut) = (body.data, body.is_cut);
    Some(CopyResponse { compared, took })
}
