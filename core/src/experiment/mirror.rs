//! Copies of requests that go to another version, so that its responses can be compared.

use super::assign::Share;
use super::{GroupIndex, UpstreamIndex};
use http::Method;

/// Which requests of an experiment are copied, and where the copies go.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// The version that gets copies of what other versions serve.
    pub to: UpstreamIndex,
    /// The share of requests that are copied.
    pub share: Share,
    /// Their methods, all of them safe.
    pub methods: Box<[Method]>,
    /// Whether what `to` serves is copied to the other version, so that each group's users are compared alike.
    pub is_both_ways: bool,
}

/// Where the copy of a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyTarget {
    /// The upstream.
    pub upstream: UpstreamIndex,
    /// The group of the experiment that this upstream serves; `None` where it serves none.
    pub group: Option<GroupIndex>,
}

/// Which requests expose users.
#[derive(Clone, Debug)]
pub enum ExposeRule {
    /// All that match the experiment.
    Every,
    /// Those that also meet these conditions.
    Matching(super::matcher::Matcher),
    /// Those whose copy was answered differently, which is known only later.
    Differing,
}
