//! Headers that the proxy adds, removes or relies on.

pub mod believed_client;
pub mod cache_control;
pub mod edit;
pub mod forwarding;
pub mod hop_by_hop;
pub mod isolated_cookies;
pub mod plan_headers;
pub mod public_names;
pub mod reserved;
pub mod validators;
pub mod version_headers;
pub mod version_mark;
