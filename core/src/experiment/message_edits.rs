//! What an upstream, a group or a route changes in requests and responses.

use super::path_rewrite::{PathRewrite, PathTemplate};
use http::header::{HeaderName, HeaderValue};

/// Changes to the header fields of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Fields that are removed.
    pub remove: Box<[HeaderName]>,
    /// Fields that replace all fields of their name.
    pub set: Box<[(HeaderName, HeaderValue)]>,
    /// Fields that are added to those of their name.
    pub add: Box<[(HeaderName, HeaderValue)]>,
}

impl HeaderEdits {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Returns the names whose fields of the message are removed.
    pub fn replaced(&self) -> impl Iterator<Item = &HeaderName> {
        let set = self.set.iter().map(|(name, _)| name);
        self.remove.iter().chain(set)
    }

    /// Returns the fields that the message gets.
    pub fn added(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.set.iter().chain(&self.add)
    }
}

/// Changes to requests and their responses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageEdits {
    /// Fields of requests.
    pub request: HeaderEdits,
    /// Fields of responses.
    pub response: HeaderEdits,
    /// The path of requests; `None` leaves it as it is.
    pub path: Option<PathRewrite>,
}

impl MessageEdits {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty() && self.path.is_none()
    }
}

/// A redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 307 or 308.
    pub status: u16,
    /// A path, or a URL with its scheme.
    pub location: PathTemplate,
}

/// What is different for the users of a group, besides the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupAction {
    /// Changes to requests and responses.
    pub edits: MessageEdits,
    /// Where users are redirected to; `None` serves them.
    pub redirect: Option<Redirect>,
}

impl GroupAction {
    /// Whether the upstream gets other requests, so that its responses are those of another version.
    pub fn is_version(&self) -> bool {
        self.edits.path.is_some() || !self.edits.request.is_empty()
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.redirect.is_none()
    }
}
