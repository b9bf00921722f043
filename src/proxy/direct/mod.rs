//! Requests and responses as HTTP/1 writes them, read where they stand and written on from there.
//!
//! [`connection`] serves a client's connection. [`request`], [`answer`] and [`lines`] know heads
//! and are pure; [`going`] finds what a request means, [`exchange`] asks an upstream, [`upload`]
//! takes the request's body there, and [`relay`] gives the rest of the answer to the client. A
//! request of HTTP/2 is written down as one of HTTP/1 and goes the same way, in its [`stream`].

mod answer;
mod connection;
mod exchange;
mod forwarded;
mod going;
mod lines;
mod own;
mod partial;
mod relay;
mod request;
mod rest;
mod rooms;
mod stream;
mod streamed;
mod transcript;
mod upload;

pub use connection::{Ended, Left, Straight, last_call};
pub use request::Request;
pub use rooms::Rooms;
pub use stream::Asker;
pub use streamed::Streamed;
pub use upload::Source;

/// What the fuzzer reads through: private in every other build.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::answer::{
        Answer, Edited, Follows, HEAD_BYTES_MAX, Head, More, Read as AnswerRead, To,
        read as read_answer,
    };
    pub use super::forwarded::Ours;
    pub use super::lines::Lines;
    pub use super::partial::Partial;
    pub use super::request::{Body, Request, read as read_request};
    pub use super::rest::{Framed, Rest};
    pub use super::transcript::write as write_transcript;
}
