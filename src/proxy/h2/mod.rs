//! HTTP/2. The crate h2 reads and writes frames; each request is written as one of HTTP/1 and runs
//! through the same pipeline.

mod extended_connect;
mod hpack;
mod request_body;
mod response_body;
pub mod server;
mod stream;
pub mod translate;
mod transport;
