//! The head of a response that is compared.

use crate::experiment::http_view::HeaderView as _;
use crate::experiment::response_comparison::ComparedResponse;
use crate::proxy::h1::response_head::ResponseHead;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};

/// What is compared of a response, but for its body.
pub(super) fn compared(head: &ResponseHead<'_>) -> ComparedResponse {
    let value = |name| head.first(name).map(Box::from);
    ComparedResponse {
        status: head.status,
        content_type: value(&CONTENT_TYPE),
        location: value(&LOCATION),
        body: Vec::new(),
        is_cut: false,
    }
}

/// Whether the body of a response can be compared: it is there, and not compressed.
pub(super) fn is_comparable(head: &ResponseHead<'_>) -> bool {
    let mut encodings = head.all(&CONTENT_ENCODING);
    let is_encoded = encodings.any(|it| !it.trim_ascii().eq_ignore_ascii_case(b"identity"));
    !is_encoded && head.status != 304
}
