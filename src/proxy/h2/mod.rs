//! HTTP/2. hyper reads and writes frames; each request is written as one of HTTP/1 and runs through
//! the same pipeline.

pub mod extended_connect;
mod hpack;
pub mod request_body;
pub mod response_body;
pub mod server;
mod stall_limit;
mod stream;
pub mod streamed_body;
pub mod translate;
mod transport;
