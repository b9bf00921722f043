//! The Gateway API of Kubernetes as a source of routes and weights: `HTTPRoute`s become upstreams, experiments and
//! routes of a routes file. [`http_route`] has what is read of the API, and [`translate`] what becomes of it;
//! [`status`] is what the API is told. The command `kubernetes` asks the API. PURE.

pub mod http_route;
mod matches;
pub mod problem;
mod rule;
pub mod status;
pub mod translate;
