//! Heads on their way in and out. PURE.

use crate::config::plan::{CacheRules, PRIVATE_COOKIES, Plan};
use crate::experiment::cookies::own_cookie;
use crate::experiment::http_view::HeaderView;
use crate::experiment::identity::{self, Visitor};
use crate::experiment::kept_groups::GROUPS_COOKIE;
use crate::experiment::override_token::OVERRIDE_COOKIE;
use crate::experiment::resolve::{AssignedBy, Assignment};
use crate::experiment::served_pages::VersionDigest;
use crate::experiment::{Experiment, ExperimentIndex, Group, GroupIndex};
use crate::proxy::headers::cache_control::{self, CacheHeaders};
use crate::proxy::headers::edit::Edit;
use crate::proxy::headers::hop_by_hop;
use crate::proxy::headers::reserved::ReservedNames;
use crate::proxy::headers::version_headers::VersionHeaders;
use http::header::{HeaderName, SET_COOKIE, VIA};
use http::{HeaderValue, Version};
use std::rc::Rc;

/// Says that control answered in the place of a group whose upstream is down.
pub const FALLBACK: HeaderName = HeaderName::from_static("watershed-fallback");
const GROUP: HeaderName = HeaderName::from_static("watershed-group");

/// Header values that are the same for every request of a plan, made once.
#[derive(Debug)]
pub struct PlanHeaders {
    /// By experiment and group: `new-site=control`.
    groups: Vec<Vec<HeaderValue>>,
    /// By experiment and group; empty where no experiment follows open pages.
    digests: Box<[Box<[Option<VersionDigest>]>]>,
    /// What keeps versions apart.
    pub versions: VersionHeaders,
    /// What caches are told.
    pub caches: CacheHeaders,
    /// The names that the proxy sets or relies on.
    pub reserved: Rc<ReservedNames>,
}

impl PlanHeaders {
    /// The words of a plan.
    pub fn new(plan: &Plan) -> PlanHeaders {
        let of = |experiment: &Experiment| {
            let value = |group: &Group| {
                // Names are letters, digits and `_.-`, which the configuration checks.
                let text = format!("{}={}", experiment.name, group.name);
                HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
            };
            experiment.groups.iter().map(value).collect()
        };
        PlanHeaders {
            groups: plan.experiments.iter().map(of).collect(),
            digests: digests(plan),
            versions: VersionHeaders::new(plan),
            caches: CacheHeaders::new(plan),
            reserved: Rc::new(ReservedNames::new(plan)),
        }
    }

    /// Whether some experiment follows open pages.
    pub fn follows_open_pages(&self) -> bool {
        !self.digests.is_empty()
    }

    /// The version of a group of an experiment that follows open pages.
    pub fn digest(&self, experiment: ExperimentIndex, group: GroupIndex) -> Option<VersionDigest> {
        self.digests.get(experiment.0)?[group.0]
    }

    /// The group that a version is of.
    pub fn group_of(&self, version: VersionDigest) -> Option<(ExperimentIndex, GroupIndex)> {
        let mut all = self.digests.iter().enumerate();
        all.find_map(|(experiment, groups)| {
            let group = groups.iter().position(|it| *it == Some(version))?;
            Some((ExperimentIndex(experiment), GroupIndex(group)))
        })
    }

    /// `new-site=control`.
    pub fn group(&self, experiment: ExperimentIndex, group: GroupIndex) -> &HeaderValue {
        &self.groups[experiment.0][group.0]
    }
}

/// The versions of experiments that follow open pages.
fn digests(plan: &Plan) -> Box<[Box<[Option<VersionDigest>]>]> {
    let follows = |own: &Experiment| own.versions.skew_s.is_some();
    if !plan.experiments.iter().any(follows) {
        return Box::default();
    }
    let of = |own: &Experiment| {
        let digest = |group: &Group| {
            let upstream = plan.upstream(group.upstream?);
            follows(own).then(|| VersionDigest::of(&own.name, &group.name, &upstream.name))
        };
        own.groups.iter().map(digest).collect()
    };
    plan.experiments.iter().map(of).collect()
}

/// A token that a client brought, and whether it came in the query of a link.
#[derive(Debug, PartialEq, Eq)]
pub struct OverrideToken {
    /// The token, not yet verified.
    pub token: Vec<u8>,
    /// Whether the answer must set the cookie.
    pub by_link: bool,
}

/// Completes an answer that came in this version: the cookie of an ID, `cookies`, what caches must know,
/// `Via`.
pub fn finish<'c>(
    (plan, words): (&Plan, &PlanHeaders),
    (version, headers): (Version, &mut impl Edit),
    visitor: Option<&Visitor<'_>>,
    (visit, cache): (&Assignment, CacheRules),
    (cookies, is_uncounted, stands_in): (impl Iterator<Item = &'c String>, bool, bool),
    over_tls: bool,
) {
    headers.append(VIA, hop_by_hop::via(version));
    // What is the same in every version and for everybody stays cacheable.
    let is_shared = cache.is_shared
        || visit.varies_by.user_for_upstream && cache_control::is_immutable(headers);
    let visitor = visitor.filter(|_| !is_shared);
    let given = visitor.and_then(|visitor| identity::set_cookie(&plan.identity, visitor, over_tls));
    // What a token chose is nobody else's. A robot's or a prefetched page has no cookie to tell it from that of
    // a new visitor, who must come here to get an ID.
    let mut personal = visit
        .inside
        .iter()
        .any(|inside| inside.by == AssignedBy::Override);
    personal |= is_uncounted && visit.varies_by.user_for_upstream && !is_shared;
    // What another version serves while that of the user fails must not outlast the failure.
    personal |= stands_in && !cache.is_shared;
    let given = given.iter().map(Vec::as_slice);
    for cookie in given.chain(cookies.map(|it| it.as_bytes())) {
        if let Ok(cookie) = HeaderValue::from_bytes(cookie) {
            headers.append(SET_COOKIE, cookie);
            personal = true;
        }
    }
    if personal || !is_shared {
        let rules = (&words.caches, cache);
        cache_control::finish(rules, headers, &visit.varies_by, personal);
    }
    if plan.show_group {
        for inside in &visit.inside {
            let group = words.group(inside.experiment, inside.group);
            headers.append(GROUP, group.clone());
        }
    }
}

/// The `Set-Cookie` that keeps an override for the rest of its life.
pub fn override_cookie(token: &[u8], seconds: u64, over_tls: bool) -> String {
    let token = String::from_utf8_lossy(token);
    own_cookie(OVERRIDE_COOKIE, &token, seconds, over_tls)
}

/// The `Set-Cookie` that keeps a user's groups, with the attributes of the minted cookie.
pub fn groups_cookie(plan: &Plan, value: &str, over_tls: bool) -> String {
    let attributes = identity::cookie_attributes(&plan.identity.mint, over_tls);
    format!("{GROUPS_COOKIE}={value}{attributes}")
}

/// Whether a request has a cookie that is for watershed alone.
pub fn has_private_cookie<'a>(fields: impl HeaderView<'a>) -> bool {
    fields.all_cookies().any(|(name, _)| is_private_name(name))
}

/// Whether a cookie of this name is for watershed alone.
pub fn is_private_name(name: &[u8]) -> bool {
    // Compared at once where the name is known: most cookies are others. Some servers ignore spaces before
    // the `=`.
    name.starts_with(b"watershed_")
        && PRIVATE_COOKIES
            .iter()
            .any(|private| name.trim_ascii_end() == private.as_bytes())
}
