//! Routes: requests that no experiment claims.

use super::upstream::Upstream;
use crate::config::secret_text::without_credentials;
use crate::experiment::UpstreamIndex;
use crate::experiment::matcher::Matcher;
use crate::experiment::message_edits::{MessageEdits, Redirect};
use crate::experiment::path_rewrite::PathRewrite;
use http::header::{HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The place of a route in the file, from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteIndex(pub usize);

/// What becomes of some requests that no experiment claims.
#[derive(Clone, Debug)]
pub struct Route {
    /// Which requests these are.
    pub matcher: Matcher,
    /// Changes to them and to their responses.
    pub edits: MessageEdits,
    /// Who answers them.
    pub answer: RouteAnswer,
    /// Whether the route has a key that names who answers. Without one, the default upstream does.
    pub names_answer: bool,
}

/// Who answers the requests of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAnswer {
    /// An upstream.
    Upstream(UpstreamIndex),
    /// Watershed, with a redirect.
    Redirect(Redirect),
    /// Watershed, with the same response each time.
    Respond(Arc<FixedResponse>),
}

/// Own pages for errors, by status.
pub type ErrorPages = BTreeMap<u16, Arc<FixedResponse>>;

/// A response of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedResponse {
    /// Its status.
    pub status: u16,
    /// Its header fields.
    pub fields: Box<[(HeaderName, HeaderValue)]>,
    /// Its body.
    pub body: Box<[u8]>,
}

impl Route {
    /// Describes the route in one line, such as `/old/** is redirected to /new/** (302)`.
    pub fn described(&self, upstreams: &[Upstream]) -> String {
        let condition = self.matcher.condition();
        let mut text = match &self.answer {
            RouteAnswer::Upstream(UpstreamIndex(place)) => {
                format!("{condition} to {}", upstreams[*place].name)
            }
            RouteAnswer::Redirect(redirect) => {
                let Redirect { location, status } = redirect;
                let location = location.to_string();
                let location = without_credentials(&location);
                format!("{condition} is redirected to {location} ({status})")
            }
            RouteAnswer::Respond(fixed) => format!("{condition} is answered with {}", fixed.status),
        };
        match &self.edits.path {
            Some(PathRewrite::Replace(template)) => text += &format!(" as {template}"),
            Some(PathRewrite::Prefix { strip, add }) => {
                let words = [("without", strip), ("below", add)];
                for (word, prefix) in words.iter().filter(|(_, it)| !it.is_empty()) {
                    text += &format!(" {word} {}", prefix.as_str());
                }
            }
            None => {}
        }
        text
    }
}

impl RouteAnswer {
    /// Whether watershed answers without an upstream.
    pub fn is_own(&self) -> bool {
        !matches!(self, RouteAnswer::Upstream(_))
    }
}

/// What holds for the whole site where it is reached over TLS.
#[derive(Clone, Debug, Default)]
pub struct HttpsRules {
    /// How requests without TLS are redirected; `None` answers them like others.
    pub redirect: Option<HttpsRedirect>,
    /// `Strict-Transport-Security` of responses over TLS (RFC 6797).
    pub hsts: Option<HeaderValue>,
}

/// A redirect to the same URL with `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpsRedirect {
    /// 301, 302, 307 or 308.
    pub status: u16,
    /// The public port with TLS.
    pub port: u16,
}
