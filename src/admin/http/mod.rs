//! The admin API over HTTP: connections, authentication, routes and their handlers.

pub(crate) mod assets;
pub(crate) mod auth;
pub(crate) mod connections;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod flags_access;
pub(crate) mod gate;
pub(crate) mod health;
pub(crate) mod history;
pub(crate) mod html;
pub(crate) mod login;
pub(crate) mod metrics;
mod new_experiment;
pub(crate) mod ofrep;
pub(crate) mod openapi;
pub(crate) mod response_headers;
pub(crate) mod results;
pub(crate) mod router;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod sse;
pub(crate) mod timeouts;
pub(crate) mod upstreams;
pub(crate) mod users;
