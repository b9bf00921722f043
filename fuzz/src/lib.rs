//! What the fuzz targets share: a way to cut bytes into reads, a stream that brings them so, a plan, and
//! a second reader of HTTP/1 to compare the proxy's with.

pub mod fixed;
pub mod http1;
pub mod memory;
pub mod pieces;
pub mod plan;

/// The first byte of an input says how the rest is cut.
pub fn split(input: &[u8]) -> Option<(pieces::Cutter, &[u8])> {
    let (&seed, bytes) = input.split_first()?;
    Some((pieces::Cutter::new(seed), bytes))
}
