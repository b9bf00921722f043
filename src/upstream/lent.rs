//! The forms in which a connection is kept and lent: hyper speaks on it, or it is bare.

use super::LendError;
use super::endpoint::{Endpoint, Lease, Serving};
use super::stream::Stream;
use super::tap::Ear;
use bytes::Bytes;
use http_body::Body;
use hyper::client::conn::http1;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

/// What a connection must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Carry a request.
    Any,
    /// Be upgraded: HTTP/1 only.
    Http1,
    /// Be written to and read by whoever asks, if it is of HTTP/1.
    Bare,
}

/// A connection that waits for its next request.
#[derive(Debug)]
pub(super) struct Kept<B> {
    pub held: Held<B>,
    pub peer: SocketAddr,
    pub since: Instant,
}

#[derive(Debug)]
pub(super) enum Held<B> {
    Spoken(http1::SendRequest<B>, Rc<Ear>),
    Bare(Stream),
}

/// A connection as it was found.
#[derive(Debug)]
pub(super) enum Lent<B> {
    Spoken(Lease<B>),
    Bare(Bare<B>),
}

/// A connection of HTTP/1 without a parser on it, for one request.
#[derive(Debug)]
pub struct Bare<B> {
    /// To write the request to and read the answer from.
    pub stream: Stream,
    /// Whether it has carried a request before: its endpoint may be closing it just now.
    pub reused: bool,
    pub(super) peer: SocketAddr,
    pub(super) serving: Serving<B>,
}

impl<B> Lent<B> {
    pub fn bare(self) -> Option<Bare<B>> {
        match self {
            Lent::Bare(bare) => Some(bare),
            Lent::Spoken(_) => None,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Lent<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    pub async fn speak(self) -> Result<Lease<B>, LendError> {
        match self {
            Lent::Spoken(lease) => Ok(lease),
            Lent::Bare(bare) => bare.speak().await,
        }
    }
}

impl<B> Bare<B> {
    pub(super) fn new(
        serving: Serving<B>,
        stream: Stream,
        peer: SocketAddr,
        reused: bool,
    ) -> Bare<B> {
        Bare {
            stream,
            reused,
            peer,
            serving,
        }
    }

    /// Whose connection it is.
    pub fn endpoint(&self) -> &Rc<Endpoint<B>> {
        self.serving.endpoint()
    }
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Bare<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Keeps the connection for the next request from `now` on. Only after the answer was read to
    /// its end.
    pub fn give_back(self, now: Instant) {
        let kept = Kept {
            held: Held::Bare(self.stream),
            peer: self.peer,
            since: now,
        };
        self.serving.endpoint().keep(kept);
    }
}
