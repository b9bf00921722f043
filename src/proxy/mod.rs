//! The proxy: one worker per core accepts connections, forwards requests and records exposures.
//! Read [`pipeline`] first: it has the phases that every request runs through.
//!
//! [`h1`] and [`h2`] are the two protocols at the edge, [`headers`] what is added to and removed
//! from heads, and [`observe`] what is journaled, logged and exported.

mod acme_challenge;
mod acquire;
mod attempts;
mod beacon;
mod buffer_pool;
mod changes;
mod client;
mod connection;
mod connection_limits;
mod error_response;
mod exchange;
mod forward;
#[allow(unreachable_pub, reason = "fuzz targets reach parsers")]
mod h1;
#[allow(unreachable_pub, reason = "fuzz targets reach parsers")]
mod h2;
#[allow(unreachable_pub, reason = "fuzz targets reach parsers")]
mod headers;
mod last_hop;
mod local_response;
mod min_rate;
mod mirror;
mod observe;
mod open_page;
mod pipeline;
mod policy;
#[allow(unreachable_pub, reason = "fuzz targets reach parsers")]
mod protocol_detect;
mod request_body;
mod respond;
mod returned_ids;
mod robot_cache;
mod send;
mod snapshot;
mod socket;
mod timer;
mod tunnel;
mod upstream_read;
pub mod worker;

/// What fuzz targets reach: private in every other build.
#[cfg(any(fuzzing, test))]
pub mod fuzzing {
    pub use super::buffer_pool::BufferPool;
    pub use super::client::{ClientInfo, Protocol};
    pub use super::error_response::ErrorCode;
    pub use super::h1::body::{BodyReader, ClientFraming};
    pub use super::h1::framing::{Bounds, Framing};
    pub use super::h1::header_block::HeaderBlock;
    pub use super::h1::partial_head::PartialHead;
    pub use super::h1::request_head::{Body, Request, read as read_request};
    pub use super::h1::response_head::{
        BodyFraming, ClientContext, EditableHead, ExtraHeaders, HeadWriter, ParsedHead,
        ResponseContext, ResponseHead, ResponseLimits, read as read_answer,
    };
    pub use super::h2::translate::write as write_transcript;
    pub use super::headers::believed_client::believed_client;
    pub use super::headers::forwarding::Forwarding;
    pub use super::headers::plan_headers as headers;
    pub use super::headers::reserved::ReservedNames;
    pub use super::observe::trace_context::Correlation;
    pub use super::protocol_detect::{first, is_http2, speaks_for};
}

pub use changes::find_route;
pub use headers::believed_client::believed_client;
pub use headers::plan_headers::FALLBACK;
pub use observe::log_lines;
pub use pipeline::assign;
pub use snapshot::{SharedState, Snapshot, Worker};
