//! What the fuzz targets share: a way to cut bytes into reads, a stream that gives them so, a plan,
//! and a second reader of HTTP/1 to compare the proxy's with.
//!
//! Built twice: as a crate with libFuzzer's instrumentation (scripts/fuzz), and as a module of the
//! program's unit tests, which replay the stored inputs.

pub mod http1;
pub mod memory;
pub mod pieces;
pub mod plan;
#[cfg(test)]
mod replay;
pub mod targets;

/// The first byte of an input says how the rest is cut.
pub fn split(input: &[u8]) -> Option<(pieces::Cutter, &[u8])> {
    let (&seed, bytes) = input.split_first()?;
    Some((pieces::Cutter::new(seed), bytes))
}
