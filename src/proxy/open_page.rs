//! Pages that a browser has open: what belongs to one comes from the version that served it, also after a
//! weight, a step or a decision has given its user another version.

use crate::config::plan::{OtherVersion, Plan, RouteIndex};
use crate::experiment::http_view::{FieldName, HeaderView as _, RequestView as _};
use crate::experiment::identity;
use crate::experiment::page_view::{FETCH_DEST, PageRequest, is_of_part, referring_page};
use crate::experiment::resolve::{AssignedBy, Assignment};
use crate::experiment::served_pages::{
    self, PAGES_COOKIE, PageDigest, ServedPage, ServedPages, SignedPages, VERSION_PARAMETER,
    VersionDigest,
};
use crate::experiment::{ExperimentIndex, GroupIndex, Lifecycle};
use crate::proxy::changes::ServedBy;
use crate::proxy::h1::request_head::Request;
use crate::proxy::headers::cache_control;
use crate::proxy::headers::edit::Edit;
use crate::proxy::headers::plan_headers::PlanHeaders;
use crate::proxy::snapshot::Snapshot;
use http::Method;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION};

const PURPOSE: FieldName = FieldName::new("sec-purpose");

/// A version, as a group of an experiment.
type Version = (ExperimentIndex, GroupIndex);

/// What is to be remembered of a request whose response is a page, or belongs to one.
#[derive(Debug)]
pub(super) struct OpenPage {
    /// The page.
    page: PageDigest,
    /// The version that is asked; `None` for a page of no experiment.
    version: Option<Version>,
    /// Whether a page of no experiment is remembered, so that what belongs to it does not follow the page that was opened
    /// before.
    leaves: bool,
    /// What the request is to open pages.
    kind: PageRequest,
    /// Whether that is another one than the user's group has.
    is_pinned: bool,
    /// Whether the client may keep a cookie.
    keeps: bool,
    /// The pages that the client has open.
    known: ServedPages,
    now_s: u32,
}

/// Asks the version of the page that a request belongs to, or that the request names. `route` is that of a
/// request which no experiment chooses an upstream for, and `keeps` says whether the client may keep a cookie.
pub(super) fn follow(
    snapshot: &Snapshot,
    request: &Request<'_>,
    (assignment, route): (&mut Assignment, Option<RouteIndex>),
    (keeps, now_ms): (bool, u64),
) -> Option<Box<OpenPage>> {
    if !snapshot.plan_headers.follows_open_pages() {
        return None;
    }
    let kind = PageRequest::of(request);
    let now_s = (now_ms / 1000) as u32;
    let signed = request.cookies(PAGES_COOKIE).next();
    let signed = signed.and_then(SignedPages::read);
    let digest = |(path, query): (&str, Option<&str>)| PageDigest::of(path, query);
    // Who has no page open, as far as the cookie says, belongs to none.
    let referring = signed.and_then(|_| referring_page(request)).map(digest);
    let page = match kind.opens || kind.frames {
        true => Some(digest((request.path(), request.query()))),
        false => referring,
    };
    let open_pages = OpenPages {
        snapshot,
        request,
        kind,
        now_s,
        signed,
        referring,
        is_of_part: signed.is_some() && is_of_part(request),
    };
    let current = match assignment.chosen {
        Some((experiment, group, _)) => Some((experiment, group)),
        None => open_pages.outside(route),
    };
    let wanted = match kind.opens && !kind.belongs {
        true => page.and_then(|page| open_pages.redirected_to(page)),
        false => open_pages
            .pinned_to()
            .or_else(|| open_pages.served((assignment, current))),
    };
    let wanted = wanted.filter(|version| may_serve(&snapshot.plan, assignment, route, *version));
    if let Some((experiment, group)) = wanted {
        assignment.pin(
            &snapshot.plan.experiments,
            (experiment, group),
            AssignedBy::Pinned,
        );
    }
    let is_pinned = wanted.is_some();
    let is_remembered = kind.opens || kind.frames || (!is_pinned && open_pages.is_old(current));
    let version = wanted.or(current);
    let leaves = version.is_none() && open_pages.is_left();
    if version.is_none() && !leaves && !open_pages.may_be_elsewhere(route) {
        return None;
    }
    let mut inside = assignment.inside.iter();
    let is_forced = inside.any(|inside| {
        let is_own = version.is_some_and(|version| inside.experiment == version.0);
        is_own && inside.by == AssignedBy::Override
    });
    let page = page.filter(|_| is_remembered && !is_forced)?;
    Some(Box::new(OpenPage {
        page,
        version,
        leaves,
        kind,
        is_pinned,
        keeps,
        known: open_pages.known(),
        now_s,
    }))
}

/// Whether a version that a client was served before may serve this request, and would not anyway. A draft
/// is for those with an override only, and these see what their token says.
fn may_serve(
    plan: &Plan,
    assignment: &Assignment,
    route: Option<RouteIndex>,
    (index, group): Version,
) -> bool {
    let experiment = plan.experiment(index);
    let is_public = !matches!(
        experiment.lifecycle,
        Lifecycle::Draft | Lifecycle::Scheduled
    );
    let mut inside = assignment.inside.iter();
    let is_forced = inside.any(|it| it.by == AssignedBy::Override);
    let is_free = match assignment.chosen {
        Some((chosen, current, _)) => chosen == index && current != group,
        // What a route says is not for a client to change.
        None => route.is_none() && experiment.groups[group.0].upstream != Some(plan.default),
    };
    is_public && !is_forced && is_free
}

/// The pages that a client has open, as one request names them.
struct OpenPages<'a> {
    snapshot: &'a Snapshot,
    request: &'a Request<'a>,
    kind: PageRequest,
    now_s: u32,
    /// The cookie, not yet verified: most requests need not know.
    signed: Option<SignedPages<'a>>,
    /// The page that `Referer` names, where there is a cookie.
    referring: Option<PageDigest>,
    /// Whether the request is for what files of a page load.
    is_of_part: bool,
}

impl OpenPages<'_> {
    fn words(&self) -> &PlanHeaders {
        &self.snapshot.plan_headers
    }

    /// How long the pages of an experiment are followed.
    fn skew_s(&self, experiment: ExperimentIndex) -> u32 {
        let experiment = self.snapshot.plan.experiment(experiment);
        experiment.versions.skew_s.unwrap_or_default()
    }

    fn is_genuine(&self) -> bool {
        let keys = &self.snapshot.plan.identity.keys;
        self.signed.is_some_and(|it| it.is_genuine(keys))
    }

    /// The pages that may still be followed, with their versions, the latest first. Not yet verified.
    fn live(&self) -> impl Iterator<Item = (ServedPage, Version)> {
        let pages = self.signed.into_iter().flat_map(SignedPages::pages);
        pages.filter_map(|page| {
            let version = self.words().group_of(page.version)?;
            let is_live = page.is_live(self.now_s, self.skew_s(version.0));
            is_live.then_some((page, version))
        })
    }

    /// The pages that are to be remembered, if they are to be believed.
    fn known(&self) -> ServedPages {
        if !self.is_genuine() {
            return ServedPages::new();
        }
        let is_live = |page: &ServedPage| match self.words().group_of(page.version) {
            Some(version) => page.is_live(self.now_s, self.skew_s(version.0)),
            None => page.version == VersionDigest::NONE,
        };
        let pages = self.signed.into_iter().flat_map(SignedPages::pages);
        pages.filter(is_live).collect()
    }

    /// The version of the page that was opened last: `None` within for a page of no experiment.
    fn latest(&self) -> Option<VersionDigest> {
        let pages = self.signed.into_iter().flat_map(SignedPages::pages);
        let mut pages = pages.filter(|page| !page.is_redirect);
        pages.next().map(|page| page.version)
    }

    /// Whether a page of no experiment is opened behind one of an experiment.
    fn is_left(&self) -> bool {
        let fields = self.request;
        // What is only fetched for later, and a frame of another site's page, is no page that is looked at.
        let is_document = || fields.field(FETCH_DEST).is_none_or(|to| to == b"document");
        let is_ahead = || fields.field(PURPOSE).is_some();
        let is_get = self.request.has_method(&Method::GET);
        let opens = self.kind.opens && is_get && is_document() && !is_ahead();
        let is_version = self.latest().is_some_and(|it| it != VersionDigest::NONE);
        opens && is_version && self.live().next().is_some() && self.is_genuine()
    }

    /// Whether another version than the default one may serve a page, because the default one does not have it.
    fn may_be_elsewhere(&self, route: Option<RouteIndex>) -> bool {
        let follows = self.snapshot.plan.experiments.follows_pages();
        follows && self.kind.opens && route.is_none()
    }

    /// The version whose redirect has led to a page.
    fn redirected_to(&self, page: PageDigest) -> Option<Version> {
        let mut live = self.live();
        let found = live.find(|(it, _)| it.is_redirect && it.page == page);
        found
            .map(|(_, version)| version)
            .filter(|_| self.is_genuine())
    }

    /// The version that a user gets whom the experiment that matches a page does not admit.
    fn outside(&self, route: Option<RouteIndex>) -> Option<Version> {
        let plan = &self.snapshot.plan;
        if !self.kind.opens || route.is_some() {
            return None;
        }
        let upstream = Some(plan.default);
        let mut matching = plan.experiments.candidates(self.request);
        matching.find_map(|(index, experiment)| {
            let mut groups = experiment.groups.iter();
            let group = GroupIndex(groups.position(|it| it.upstream == upstream)?);
            let follows = experiment.versions.skew_s.is_some();
            (follows && experiment.matcher.matches(self.request)).then_some((index, group))
        })
    }

    /// The version that a header or the query names.
    fn pinned_to(&self) -> Option<Version> {
        let request = self.request;
        let in_query = || identity::query_value(request.query()?, VERSION_PARAMETER);
        let token = request.version_token().map(Into::into).or_else(in_query)?;
        let keys = &self.snapshot.plan.identity.keys;
        let (version, period) = served_pages::version_of_token(keys, &token)?;
        let (experiment, group) = self.words().group_of(version)?;
        let at = (self.now_s, self.skew_s(experiment));
        served_pages::is_valid_period(period, at).then_some((experiment, group))
    }

    /// The version that served the page of a request, if it is another one than `current`. What names no page
    /// that is known, such as the font of a stylesheet, belongs to the latest one.
    fn served(&self, (assignment, current): (&Assignment, Option<Version>)) -> Option<Version> {
        // Most requests come without the cookie, or from other sites.
        if !self.kind.belongs || self.signed.is_none() {
            return None;
        }
        let chosen = assignment.chosen.map(|(experiment, ..)| experiment);
        let is_one = |(page, version): &(ServedPage, Version)| {
            !page.is_redirect && chosen.is_none_or(|chosen| chosen == version.0)
        };
        let is_referring = |page: &ServedPage| Some(page.page) == self.referring;
        let mut of_page = self.live().filter(is_one);
        let of_page = of_page.find(|(it, _)| is_referring(it));
        // A page of no experiment was opened since.
        let is_left = || self.latest() == Some(VersionDigest::NONE);
        let of_latest = || self.live().find(is_one).filter(|_| !is_left());
        let (page, version) = of_page.or_else(of_latest)?;
        let is_page = is_referring(&page) || self.is_of_part;
        let is_free = chosen.is_some() || self.may_follow(version.0, is_page);
        // Only what makes a difference is verified.
        (is_free && Some(version) != current && self.is_genuine()).then_some(version)
    }

    /// Whether a request that no experiment chooses an upstream for follows a page of this one. `is_page` says
    /// whether it names that page, or a file of one.
    fn may_follow(&self, experiment: ExperimentIndex, is_page: bool) -> bool {
        let experiment = self.snapshot.plan.experiment(experiment);
        (is_page && experiment.versions.follows_assets) || experiment.matcher.matches(self.request)
    }

    /// Whether the page of a request is in use, and should be remembered anew before it is forgotten.
    fn is_old(&self, current: Option<Version>) -> bool {
        let Some(current) = current.filter(|_| self.kind.belongs && self.signed.is_some()) else {
            return false;
        };
        let fresh_s = self.skew_s(current.0) / 4;
        self.live().any(|(it, version)| {
            let is_page = Some(it.page) == self.referring && !it.is_redirect;
            is_page && version == current && !it.is_live(self.now_s, fresh_s)
        })
    }
}

impl OpenPage {
    /// The token of the version that serves this page, which its upstream gets.
    pub(super) fn token(&self, snapshot: &Snapshot, by: ServedBy<'_>) -> Option<String> {
        let (experiment, group) = self
            .served_by(by)
            .filter(|_| self.kind.opens || self.kind.frames)?;
        let digest = snapshot.plan_headers.digest(experiment, group)?;
        let skew_s = snapshot.plan.experiment(experiment).versions.skew_s?;
        let keys = &snapshot.plan.identity.keys;
        Some(served_pages::token(keys, digest, (self.now_s, skew_s)))
    }

    /// Returns the `Set-Cookie` that keeps the page, or the target of a redirect, if it must be kept.
    pub(super) fn cookie(
        &self,
        snapshot: &Snapshot,
        by: ServedBy<'_>,
        (status, over_tls): (u16, bool),
        head: &impl Edit,
    ) -> Option<String> {
        let plan = &snapshot.plan;
        by.upstream.filter(|_| self.keeps)?;
        let version = self.served_by(by);
        let digest = match version {
            Some((experiment, group)) => snapshot.plan_headers.digest(experiment, group)?,
            None => VersionDigest::NONE,
        };
        if cache_control::is_immutable(head) {
            return None;
        }
        let is_redirect = (300..400).contains(&status) && status != 304;
        let page = match is_redirect {
            false => self.page,
            // Forms lead to the version that got them; other redirects to that of the user's group.
            true => {
                let leads = self.is_pinned || self.kind.is_form();
                target(head.all(&LOCATION).next().filter(|_| leads)?)?
            }
        };
        let page = ServedPage {
            is_redirect,
            page,
            version: digest,
            at_s: self.now_s,
        };
        let must_keep = match version {
            Some((experiment, _)) => is_redirect || self.must_keep(snapshot, &page, experiment),
            // A page of no experiment is remembered as soon as it has opened.
            None => self.leaves && !is_redirect && is_shown(status, head),
        };
        if !must_keep {
            return None;
        }
        let mut pages = self.known.clone();
        served_pages::add(&mut pages, page, self.kind.frames);
        let known = pages.iter().filter_map(|page| {
            let (experiment, _) = snapshot.plan_headers.group_of(page.version)?;
            plan.experiment(experiment).versions.skew_s
        });
        let (keys, skew_s) = (&plan.identity.keys, known.max()?);
        Some(served_pages::cookie(keys, &pages, skew_s, over_tls))
    }

    /// The version that serves the page in the end.
    fn served_by(&self, by: ServedBy<'_>) -> Option<Version> {
        by.upstream?;
        let is_of_experiment = |other: &OtherVersion| {
            let is_same = |version: Version| version.0 == other.experiment;
            self.version.is_none_or(is_same)
        };
        let other = by.fallback.filter(is_of_experiment);
        other.map(|it| (it.experiment, it.group)).or(self.version)
    }

    /// Whether the cookie has to be set: where versions may differ, and it does not say so already.
    fn must_keep(
        &self,
        snapshot: &Snapshot,
        page: &ServedPage,
        experiment: ExperimentIndex,
    ) -> bool {
        let of_experiment = |it: &&ServedPage| {
            let version = snapshot.plan_headers.group_of(it.version);
            version.is_some_and(|version| version.0 == experiment)
        };
        let mut others = self.known.iter().filter(of_experiment);
        let has_other = others.any(|it| it.version != page.version);
        let experiment = snapshot.plan.experiment(experiment);
        // A decision for good leaves pages to caches.
        let is_for_now = experiment.lifecycle == Lifecycle::Paused;
        if !has_other && !is_for_now && !experiment.divides_users() {
            return false;
        }
        let fresh_s = experiment.versions.skew_s.unwrap_or_default() / 4;
        let is_kept = |it: &ServedPage| {
            let is_same = it.page == page.page && it.version == page.version && !it.is_redirect;
            is_same && it.is_live(self.now_s, fresh_s)
        };
        let is_left = self
            .known
            .first()
            .is_some_and(|it| it.version == VersionDigest::NONE);
        match (has_other || is_left) && self.kind.opens {
            // It is the latest one, too.
            true => !self.known.first().is_some_and(is_kept),
            false => !self.known.iter().any(is_kept),
        }
    }
}

/// Whether a browser shows the response as a page: it neither keeps it as a file nor stays where it is.
fn is_shown(status: u16, head: &impl Edit) -> bool {
    let kept = head.all(&CONTENT_DISPOSITION).next();
    let is_file = kept.is_some_and(|it| {
        it.trim_ascii()
            .to_ascii_lowercase()
            .starts_with(b"attachment")
    });
    let kind = head.all(&CONTENT_TYPE).next();
    let is_html = kind.is_none_or(|it| it.to_ascii_lowercase().windows(4).any(|it| it == b"html"));
    !matches!(status, 204 | 205 | 304) && !is_file && is_html
}

/// The page that a `Location` leads to, of whichever host: only a request to this one can bring the cookie.
fn target(location: &[u8]) -> Option<PageDigest> {
    let location = std::str::from_utf8(location).ok()?;
    let location = location.split('#').next().unwrap_or_default();
    let target = match location.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => location,
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    path.starts_with('/').then(|| PageDigest::of(path, query))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_pages() {
        let check = |location: &str, expected: Option<(&str, Option<&str>)>| {
            let expected = expected.map(|(path, query)| PageDigest::of(path, query));
            assert_eq!(target(location.as_bytes()), expected, "{location}");
        };
        check("/thanks?id=1#top", Some(("/thanks", Some("id=1"))));
        check("https://shop.test/thanks", Some(("/thanks", None)));
        check("https://shop.test", Some(("/", None)));
        check("thanks", None);
        check("", None);
    }
}
