//! What keeps the versions of a site apart on the way to an upstream and back: marked ETags, and cookies
//! of each version. PURE.

use crate::config::plan::Plan;
use crate::experiment::http_view::{HeaderView as _, NameMarks};
use crate::experiment::version_rules::CookieIsolation;
use crate::experiment::{Experiment, UpstreamIndex};
use crate::proxy::h1::header_block::HeaderBlock;
use crate::proxy::headers::edit::Edit;
use crate::proxy::headers::isolated_cookies::{self, PlainCookies};
use crate::proxy::headers::validators::{ReceivedConditions, mark_tag};
use crate::proxy::headers::version_mark::VersionMark;
use http::HeaderValue;
use http::header::{
    COOKIE, ETAG, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE,
    SET_COOKIE,
};
use smallvec::SmallVec;

/// What is the same for all requests of a plan.
#[derive(Debug)]
pub struct VersionHeaders {
    /// By upstream.
    marks: Box<[VersionMark]>,
    /// By upstream: the cookies that its version has for itself. Empty where no experiment isolates any.
    isolation: Box<[Option<CookieIsolation>]>,
}

/// Fields that a request gets in the place of its own.
pub(crate) type VersionFields = SmallVec<[(HeaderName, Vec<u8>); 4]>;

impl VersionHeaders {
    /// Those of a plan.
    pub fn new(plan: &Plan) -> VersionHeaders {
        let marks = plan.upstreams.iter().map(|it| VersionMark::of(&it.name));
        let isolates = |own: &&Experiment| own.versions.isolation.is_some();
        let isolating: Vec<&Experiment> = plan.experiments.iter().filter(isolates).collect();
        let of = |place: usize| {
            let upstream = Some(UpstreamIndex(place));
            let uses = |own: &&&Experiment| own.groups.iter().any(|it| it.upstream == upstream);
            let rules = isolating.iter().filter(uses);
            let rules = rules.filter_map(|own| own.versions.isolation.as_ref());
            merged(rules, &plan.cookies_read)
        };
        let isolation = (0..plan.upstreams.len()).map(of);
        VersionHeaders {
            marks: marks.collect(),
            isolation: match isolating.is_empty() {
                true => Box::default(),
                false => isolation.collect(),
            },
        }
    }

    /// The cookies that the version of this upstream has for itself.
    fn isolation(&self, upstream: UpstreamIndex) -> Option<&CookieIsolation> {
        self.isolation.get(upstream.0)?.as_ref()
    }

    /// The mark of what this upstream serves.
    pub fn mark(&self, upstream: UpstreamIndex) -> &VersionMark {
        &self.marks[upstream.0]
    }

    /// Whether some version has cookies for itself.
    pub fn isolates(&self) -> bool {
        !self.isolation.is_empty()
    }

    /// Takes out of a request for this upstream what is meant for another version, and adds what it gets instead to
    /// `fields`. `mark` is that of ETags, where they have one. Returns the names of cookies that came without a mark, and
    /// whether a `Cookie` among the fields may have cookies of watershed itself.
    pub fn of_request(
        &self,
        upstream: UpstreamIndex,
        mark: Option<&VersionMark>,
        lines: &mut HeaderBlock<'_>,
        fields: &mut VersionFields,
    ) -> (PlainCookies, bool) {
        if let Some(mark) = mark {
            conditions(mark, lines, fields);
        }
        let Some(isolation) = self.isolation(upstream) else {
            return (PlainCookies::new(), false);
        };
        let seen = isolated_cookies::seen(lines, self.mark(upstream), isolation);
        let Some(line) = seen.line else {
            return (seen.plain, false);
        };
        lines.take_cookies();
        fields.push((COOKIE, line));
        (seen.plain, seen.has_own_names)
    }

    /// Marks what the client keeps of a response of this upstream. `plain` are the cookies that came
    /// without a mark.
    pub fn to_response(
        &self,
        (upstream, validator_mark): (UpstreamIndex, Option<&VersionMark>),
        plain: &[u8],
        now_ms: u64,
        head: &mut impl Edit,
    ) {
        let mark = self.mark(upstream);
        if let Some(mark) = validator_mark {
            let marked = head.all(&ETAG).next().and_then(|etag| mark_tag(etag, mark));
            if let Some(Ok(etag)) = marked.map(|it| HeaderValue::from_bytes(&it)) {
                head.insert(ETAG, etag);
            }
        }
        let Some(isolation) = self.isolation(upstream) else {
            return;
        };
        let mut cookies: SmallVec<[Vec<u8>; 4]> = SmallVec::new();
        let mut changed = false;
        for cookie in head.all(&SET_COOKIE) {
            match isolated_cookies::set(cookie, mark, isolation, plain, now_ms) {
                Some(set) => {
                    changed = true;
                    cookies.extend(set);
                }
                None => cookies.push(cookie.to_vec()),
            }
        }
        if changed {
            head.take_out(&SET_COOKIE);
            for cookie in cookies {
                if let Ok(cookie) = HeaderValue::from_bytes(&cookie) {
                    head.append(SET_COOKIE, cookie);
                }
            }
        }
    }
}

/// Replaces the conditions of a request by those that the version with this mark gets.
fn conditions(mark: &VersionMark, lines: &mut HeaderBlock<'_>, fields: &mut VersionFields) {
    // Most requests have none of them.
    const MARKS: NameMarks = NameMarks::of(b"if-match")
        .and(NameMarks::of(b"if-none-match"))
        .and(NameMarks::of(b"if-modified-since"))
        .and(NameMarks::of(b"if-range"));
    if !(&*lines).may_have_any(MARKS) {
        return;
    }
    let names = [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE, RANGE];
    if names[..4].iter().all(|name| lines.first(name).is_none()) {
        return;
    }
    let received = ReceivedConditions {
        if_match: lines.all(&IF_MATCH).collect(),
        if_none_match: lines.all(&IF_NONE_MATCH).collect(),
        if_modified_since: lines.first(&IF_MODIFIED_SINCE),
        if_range: lines.first(&IF_RANGE),
        range: lines.first(&RANGE),
    };
    let sent = received.for_version(mark);
    let values = [
        sent.if_match,
        sent.if_none_match,
        sent.if_modified_since,
        sent.if_range,
        sent.range,
    ];
    for (name, value) in names.into_iter().zip(values) {
        lines.take_named(&name);
        fields.extend(value.map(|value| (name, value)));
    }
}

/// The rules of all experiments of one upstream. What watershed reads itself is shared.
fn merged<'a>(
    rules: impl Iterator<Item = &'a CookieIsolation>,
    read: &[Box<str>],
) -> Option<CookieIsolation> {
    let mut merged: Option<CookieIsolation> = None;
    for rule in rules {
        merged = Some(match merged {
            None => rule.clone(),
            Some(before) => CookieIsolation {
                isolated: before
                    .isolated
                    .zip(rule.isolated.clone())
                    .map(|(one, other)| one.into_iter().chain(other).collect()),
                shared: before
                    .shared
                    .into_iter()
                    .chain(rule.shared.clone())
                    .collect(),
            },
        });
    }
    let mut merged = merged?;
    let shared = merged.shared.iter().chain(read);
    merged.shared = shared.cloned().collect();
    Some(merged)
}
