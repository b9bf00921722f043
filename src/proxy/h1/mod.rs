//! HTTP/1: heads are read where their bytes stand, and written on from there.

pub mod body;
pub mod framing;
pub mod grammar;
pub mod header_block;
pub mod partial_head;
pub mod relay;
pub mod request_head;
pub mod response_head;
pub mod server;
mod sixteen_bytes;
