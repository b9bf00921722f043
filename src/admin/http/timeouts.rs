//! Time limits of an admin request: its body, its handling, and each piece of its response. (Its head:
//! see [`crate::admin::http::connections::ConnectionBounds`].)

use crate::admin::http::error::Failure;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::{Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// The time limit of a request's body.
const BODY_WITHIN: Duration = Duration::from_secs(15);
/// The time limit from the end of a request's head to the head of its response.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);
/// The time in which a client must read each piece of a response.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// The size of a piece.
const PIECE_BYTES: usize = 64 << 10;

/// Aborts a request that takes too long.
pub(crate) async fn limit(request: Request, next: Next) -> Response {
    let late = Late::default();
    let sleep = Box::pin(tokio::time::sleep(BODY_WITHIN));
    let body = |body| Body::new(Timed(body, sleep, late.clone()));
    let response = tokio::time::timeout(REQUEST_WITHIN, next.run(request.map(body))).await;
    let is_late = late.0.load(Ordering::Relaxed);
    let mut refused = match response {
        Ok(response) if !is_late => return response,
        _ if is_late => {
            let error = format!(
                "the request's body did not arrive within {} seconds",
                BODY_WITHIN.as_secs()
            );
            Failure::new(StatusCode::REQUEST_TIMEOUT, error).into_response()
        }
        _ => {
            let error = format!(
                "the request took longer than {} seconds; it may still take effect",
                REQUEST_WITHIN.as_secs()
            );
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, error).into_response()
        }
    };
    let close = HeaderValue::from_static("close");
    refused.headers_mut().insert(CONNECTION, close);
    refused
}

/// Whether a body exceeded its time limit.
#[derive(Clone, Default)]
struct Late(Arc<AtomicBool>);

/// A request's body with a time limit.
struct Timed(Body, Pin<Box<Sleep>>, Late);

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Timed(body, sleep, late) = self.get_mut();
        // Checked first, so that a body that keeps trickling is late, too.
        if sleep.as_mut().poll(context).is_ready() {
            late.0.store(true, Ordering::Relaxed);
            let error = io::Error::from(io::ErrorKind::TimedOut);
            return Poll::Ready(Some(Err(axum::Error::new(error))));
        }
        Pin::new(body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// A connection whose client must read responses in time. Each write has `WRITE_WITHIN`, which starts
/// again after every `PIECE_BYTES`.
pub(crate) struct Paced {
    stream: TcpStream,
    within: Duration,
    /// Bytes since the deadline was last reset.
    written_bytes: usize,
    /// Set while a write is pending.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    /// Limits the writes of this connection.
    pub(crate) fn new(stream: TcpStream) -> Paced {
        Paced::within(stream, WRITE_WITHIN)
    }

    fn within(stream: TcpStream, within: Duration) -> Paced {
        Paced {
            stream,
            within,
            written_bytes: 0,
            deadline: None,
        }
    }

    fn progress(&mut self) {
        (self.written_bytes, self.deadline) = (0, None);
    }

    fn watch(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => {
                self.written_bytes += bytes;
                if self.written_bytes >= PIECE_BYTES {
                    self.progress();
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let within = self.within;
                let begin = || Box::pin(tokio::time::sleep(within));
                let deadline = self.deadline.get_or_insert_with(begin);
                ready!(deadline.as_mut().poll(context));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        written
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes after it has written everything.
        self.progress();
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Writes until an error, to a client that reads as `read` does. Returns the error and the bytes
    /// written.
    fn run(within: Duration, read: impl AsyncFnOnce(TcpStream)) -> (io::ErrorKind, usize) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap());
            let (client, accepted) = tokio::join!(client, listener.accept());
            let mut paced = Paced::within(accepted.unwrap().0, within);
            let writing = async {
                let mut total_bytes = 0;
                loop {
                    // Like hyper, flushes only at the end.
                    match paced.write(&[0; 16 << 10]).await {
                        Ok(bytes) => total_bytes += bytes,
                        Err(error) => return (error.kind(), total_bytes),
                    }
                }
            };
            tokio::select! {
                ended = writing => ended,
                () = async { read(client.unwrap()).await; std::future::pending().await } => unreachable!(),
            }
        })
    }

    #[test]
    fn client_that_reads_nothing_is_disconnected() {
        let (kind, _) = run(Duration::from_millis(50), async |client| {
            let _client = client;
            std::future::pending::<()>().await;
        });
        assert_eq!(kind, io::ErrorKind::TimedOut);
    }

    #[test]
    fn client_that_reads_too_slowly_is_disconnected() {
        let (kind, _) = run(Duration::from_millis(200), async |mut client| {
            // Always reads something, but less than a piece in time.
            while client.read_exact(&mut [0; 16]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert_eq!(kind, io::ErrorKind::TimedOut);
    }

    #[test]
    fn client_that_reads_in_time_gets_the_whole_response() {
        let enough = 64 << 20;
        let (kind, total_bytes) = run(Duration::from_secs(20), async |mut client| {
            let (mut read_bytes, mut buffer) = (0, vec![0; 256 << 10]);
            while read_bytes < enough {
                read_bytes += client.read(&mut buffer).await.unwrap();
            }
            drop(client);
        });
        assert_ne!(kind, io::ErrorKind::TimedOut);
        assert!(total_bytes >= enough);
    }
}
