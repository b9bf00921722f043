//! Why a part of a route is not done. PURE.

/// Why a part of a route is not done.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteProblem {
    /// The reason, as the API names it.
    pub reason: ProblemReason,
    /// The place in the route, and what is wrong with it.
    pub message: String,
}

/// The reason of a problem, as the API names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemReason {
    /// Something that watershed does not have.
    UnsupportedValue,
    /// A service of another namespace.
    RefNotPermitted,
    /// Something else than a service.
    InvalidKind,
}
