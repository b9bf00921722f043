//! Waits for more of a response's body, for clients of either protocol.

use super::exchange::ClientStream;
use super::request_body::RequestBody;
use crate::upstream::Stream;
use bytes::BufMut;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

/// A request body that goes on beside the response, and where it goes.
pub(super) type Beside<'a> = Option<(&'a mut RequestBody, &'a mut Stream)>;

/// What waiting for an upstream has brought.
pub(super) enum UpstreamRead {
    /// More of the body.
    More,
    /// The upstream has closed its side.
    Closed,
    /// It broke off, or takes too long.
    Broken,
    /// The client has left, or its request body is at fault.
    Left,
}

/// Reads more of a response's body into `received`, within `pause_max`, beside a request body that
/// goes on. `left` resolves when the client has left.
pub(super) async fn read(
    client: &mut impl ClientStream,
    (stream, mut body): (&mut Stream, Option<&mut RequestBody>),
    received: &mut impl BufMut,
    pause_max: Duration,
    mut left: Pin<&mut impl Future<Output = ()>>,
) -> UpstreamRead {
    let mut waiting = false;
    std::future::poll_fn(|context| {
        if let Some(body) = body.as_deref_mut() {
            body.poll(context, client, stream);
            if body.fault().is_some() {
                return Poll::Ready(UpstreamRead::Left);
            }
        }
        let read = pin!(stream.read_buf(&mut *received)).poll(context);
        if let Poll::Ready(read) = read {
            return Poll::Ready(match read {
                Ok(0) => UpstreamRead::Closed,
                Ok(_) => UpstreamRead::More,
                Err(_) => UpstreamRead::Broken,
            });
        }
        if left.as_mut().poll(context).is_ready() {
            return Poll::Ready(UpstreamRead::Left);
        }
        if !waiting {
            waiting = true;
            client.timer().begin(context, Instant::now(), pause_max);
            return Poll::Pending;
        }
        match client.timer().poll_over(context, pause_max) {
            true => Poll::Ready(UpstreamRead::Broken),
            false => Poll::Pending,
        }
    })
    .await
}
