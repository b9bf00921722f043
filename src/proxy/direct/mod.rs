//! The straight way, which most requests go: read where they stand in the client's bytes, written
//! to the upstream from there, and their answers likewise.
//!
//! [`connection`] holds a client's connection while its requests are plain. The first one that is
//! not goes to hyper, with the connection and all that was read of it. [`request`], [`answer`] and
//! [`lines`] know heads and are pure; [`exchange`] asks an upstream, [`relay`] gives the rest of
//! its answer to the client. Plain requests of HTTP/2 go the same way, each in its [`stream`].

mod answer;
mod connection;
mod exchange;
mod going;
mod lines;
mod partial;
mod relay;
mod request;
mod rest;
mod rooms;
mod stream;
mod streamed;
mod transcript;

pub use connection::{Ended, Left, Straight};
pub use rooms::Rooms;
pub use stream::Asker;
pub use streamed::Streamed;

/// What the fuzzer reads through: private in every other build.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::answer::{
        Answer, Edited, Follows, HEAD_BYTES_MAX, Head, More, Read as AnswerRead,
        read as read_answer,
    };
    pub use super::lines::Lines;
    pub use super::partial::Partial;
    pub use super::request::{Ours, Read as RequestRead, Request, read as read_request};
    pub use super::rest::Rest;
    pub use super::transcript::write as write_transcript;
}

#[cfg(test)]
mod agreement;
