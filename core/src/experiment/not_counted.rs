//! Requests that are served but not counted, because nobody looks at what they bring or because they are
//! not to be counted. PURE.

use super::http_view::{FieldName, HeaderView, NameMarks, RequestView};
use super::identity::Visitor;
use super::page_view::{FETCH_DEST, FETCH_MODE};
use super::pattern::ValueTest;
use super::robots::{ClientKind, Robots};
use super::{ExperimentIndex, UpstreamIndex, UserId};
use http::Method;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, COOKIE, HeaderName, ORIGIN};
use ipnet::IpNet;
use smallvec::SmallVec;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");
const USER_AGENT: FieldName = FieldName::new("user-agent");
/// What browsers sent before `Sec-Purpose`.
const PURPOSE: HeaderName = HeaderName::from_static("purpose");
const X_MOZ: HeaderName = HeaderName::from_static("x-moz");
/// The fields by which browsers say what a request is for.
const PURPOSES: NameMarks = NameMarks::of(b"sec-purpose")
    .and(NameMarks::of(b"purpose"))
    .and(NameMarks::of(b"x-moz"))
    .and(FETCH_DEST.marks());

/// Why a request is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotCounted {
    /// A CORS preflight: the browser asks, not the user.
    Preflight,
    /// TRACE.
    Trace,
    /// HEAD: nobody sees a page.
    Head,
    /// A page that is fetched or rendered in advance, which the user may never see.
    Prefetch,
    /// The manifest of a web app, which browsers fetch without cookies.
    Manifest,
    /// A font, script, style or report that the browser fetches without cookies.
    WithoutCookies,
    /// A robot.
    Robot,
    /// The file excludes it.
    Excluded,
}

impl NotCounted {
    /// All reasons.
    pub const ALL: [NotCounted; 8] = [
        NotCounted::Preflight,
        NotCounted::Trace,
        NotCounted::Head,
        NotCounted::Prefetch,
        NotCounted::Manifest,
        NotCounted::WithoutCookies,
        NotCounted::Robot,
        NotCounted::Excluded,
    ];

    /// Returns the name that results and metrics use.
    pub fn name(self) -> &'static str {
        match self {
            NotCounted::Preflight => "preflight",
            NotCounted::Trace => "trace",
            NotCounted::Head => "head",
            NotCounted::Prefetch => "prefetch",
            NotCounted::Manifest => "manifest",
            NotCounted::WithoutCookies => "without_cookies",
            NotCounted::Robot => "robot",
            NotCounted::Excluded => "excluded",
        }
    }

    /// Explains the reason in a few words.
    pub fn explained(self) -> &'static str {
        match self {
            NotCounted::Preflight => "a CORS preflight",
            NotCounted::Trace => "TRACE",
            NotCounted::Head => "HEAD",
            NotCounted::Prefetch => "fetched or rendered in advance",
            NotCounted::Manifest => "the manifest of a web app",
            NotCounted::WithoutCookies => "a part of a page that is fetched without cookies",
            NotCounted::Robot => "a robot",
            NotCounted::Excluded => "excluded by the file",
        }
    }

    /// Finds a reason by its name.
    pub fn named(name: &str) -> Option<NotCounted> {
        NotCounted::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Whether the user's group serves such a request by default. Otherwise control does.
    fn follows_group(self) -> bool {
        !matches!(
            self,
            NotCounted::Preflight | NotCounted::Robot | NotCounted::Excluded
        )
    }
}

/// A request that is not counted, and the experiments that it would have taken part in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UncountedRequest {
    /// The reason.
    pub why: NotCounted,
    /// The experiments.
    pub experiments: SmallVec<[ExperimentIndex; 2]>,
}

/// What the file says about who is counted.
#[derive(Clone, Debug, Default)]
pub struct CountingRules {
    /// How robots are recognized; `None` counts them as people.
    pub robots: Option<Robots>,
    /// Whether robots with an ID get their group's version. Otherwise they get control's.
    pub robots_follow_group: bool,
    /// Networks of robots.
    pub robot_networks: Box<[IpNet]>,
    /// Who is left out.
    pub exclusions: Box<[Exclusion]>,
    /// Whose version answers CORS preflights; `None` for the default upstream.
    pub preflight: Option<UpstreamIndex>,
}

impl CountingRules {
    /// Why a request is not counted, if it is not. `visitor` is the user whom it names. `kind`
    /// returns what a `User-Agent` says by the rules, and is asked only if needed.
    pub fn not_counted<'a>(
        &self,
        request: impl RequestView<'a>,
        visitor: Option<&Visitor<'_>>,
        kind: impl FnOnce(&Robots, &[u8]) -> ClientKind,
    ) -> Option<NotCounted> {
        if let Some(kind) = by_kind(request, visitor.is_some()) {
            return Some(kind);
        }
        let fields = request.fields();
        let client = request.client();
        let user = visitor.map(Visitor::user);
        if !self.exclusions.is_empty() {
            let mut exclusions = self.exclusions.iter();
            if exclusions.any(|exclusion| exclusion.has(fields, client, user)) {
                return Some(NotCounted::Excluded);
            }
        }
        let robot = self.robots.as_ref().is_some_and(|rules| {
            let user_agent = fields.field(USER_AGENT);
            match user_agent.map(|user_agent| kind(rules, user_agent)) {
                None | Some(ClientKind::Person) => false,
                Some(ClientKind::PerhapsRobot) => !visitor.is_some_and(Visitor::is_configured),
                Some(ClientKind::Robot) => true,
            }
        });
        let of_robots = |network: &IpNet| client.is_some_and(|client| network.contains(&client));
        let robot = robot || self.robot_networks.iter().any(of_robots);
        robot.then_some(NotCounted::Robot)
    }

    /// Whether the file excludes the user of this ID, whatever the request.
    pub fn excludes_id(&self, user: UserId<'_>) -> bool {
        let has =
            |it: &Exclusion| matches!(it, Exclusion::Ids(ids) if ids.contains(user.as_bytes()));
        self.exclusions.iter().any(has)
    }

    /// Whether the user's group serves a request that is not counted. Otherwise control does.
    pub fn follows_group(&self, why: NotCounted) -> bool {
        match why {
            NotCounted::Robot => self.robots_follow_group,
            why => why.follows_group(),
        }
    }
}

/// A condition that leaves a request out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// The client's address is in this network.
    Network(IpNet),
    /// The value of a header.
    Header(HeaderName, ValueTest),
    /// The value of a cookie, as it came.
    Cookie(Box<str>, ValueTest),
    /// The user has one of these IDs.
    Ids(Arc<BTreeSet<Box<[u8]>>>),
}

impl Exclusion {
    /// Whether a request of this client and user is left out.
    pub fn has<'a>(
        &self,
        fields: impl HeaderView<'a>,
        client: Option<IpAddr>,
        user: Option<UserId<'_>>,
    ) -> bool {
        match self {
            Exclusion::Network(network) => client.is_some_and(|client| network.contains(&client)),
            Exclusion::Header(name, test) => test.holds(fields.all(name)),
            Exclusion::Cookie(name, test) => test.holds(fields.cookie_texts(name)),
            Exclusion::Ids(ids) => user.is_some_and(|user| ids.contains(user.as_bytes())),
        }
    }
}

/// Why the kind of a request keeps it from being counted, whoever sends it. `has_id` says whether a source
/// of the file or the minted cookie names the user.
pub fn by_kind<'a>(request: impl RequestView<'a>, has_id: bool) -> Option<NotCounted> {
    let fields = request.fields();
    if request.has_method(&Method::HEAD) {
        return Some(NotCounted::Head);
    }
    if request.has_method(&Method::OPTIONS) {
        let is_preflight = fields.first(&ACCESS_CONTROL_REQUEST_METHOD).is_some()
            && fields.first(&ORIGIN).is_some();
        return is_preflight.then_some(NotCounted::Preflight);
    }
    if request.has_method(&Method::TRACE) {
        return Some(NotCounted::Trace);
    }
    // Programs other than browsers say nothing of it.
    if !fields.may_have_any(PURPOSES) {
        return None;
    }
    let is_ahead: [&[u8]; 2] = [b"prefetch", b"prerender"];
    let says_prefetch = |name: &HeaderName| {
        fields.all(name).any(|value| {
            // A structured list: `prefetch;prerender`.
            let mut words = value.split(|byte| b",; ".contains(byte));
            words.any(|word| is_ahead.iter().any(|it| word.eq_ignore_ascii_case(it)))
        })
    };
    if says_prefetch(&SEC_PURPOSE) || says_prefetch(&PURPOSE) || says_prefetch(&X_MOZ) {
        return Some(NotCounted::Prefetch);
    }
    let destination = fields.field(FETCH_DEST)?;
    if destination.eq_ignore_ascii_case(b"manifest") {
        return Some(NotCounted::Manifest);
    }
    let is_anonymous = || {
        let cors = || fields.field(FETCH_MODE) == Some(b"cors");
        // Pages and calls of scripts may bring the first cookie; a part of a page cannot keep one.
        let is_part = !matches!(
            destination,
            b"document" | b"iframe" | b"frame" | b"embed" | b"object" | b"empty"
        );
        is_part && (destination == b"report" || cors()) && fields.first(&COOKIE).is_none()
    };
    (!has_id && is_anonymous()).then_some(NotCounted::WithoutCookies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[track_caller]
    fn check(method: &str, headers: &[(&str, &str)], has_id: bool, expected: Option<NotCounted>) {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(by_kind(&head, has_id), expected, "{method} {headers:?}");
    }

    #[test]
    fn kinds_that_nobody_looks_at_are_not_counted() {
        use NotCounted::*;
        let preflight = [
            ("origin", "https://a.example"),
            ("access-control-request-method", "PUT"),
        ];
        check("OPTIONS", &preflight, true, Some(Preflight));
        check("OPTIONS", &preflight[..1], true, None);
        check("GET", &preflight, true, None);
        check("TRACE", &[], true, Some(Trace));
        check("HEAD", &[], true, Some(Head));
        for value in [
            "prefetch",
            "prefetch;prerender",
            "prefetch;anonymous-client-ip",
            "Prefetch",
            "prerender",
        ] {
            check("GET", &[("sec-purpose", value)], true, Some(Prefetch));
        }
        check("GET", &[("purpose", "prefetch")], true, Some(Prefetch));
        check("GET", &[("x-moz", "prefetch")], true, Some(Prefetch));
        check("GET", &[("sec-purpose", "prefetching")], true, None);
        check(
            "GET",
            &[("sec-fetch-dest", "manifest")],
            true,
            Some(Manifest),
        );
        check("GET", &[], false, None);
        check("POST", &[], false, None);
    }

    #[test]
    fn parts_of_pages_without_cookies_are_not_counted() {
        let of = |dest| [("sec-fetch-dest", dest), ("sec-fetch-mode", "cors")];
        let anonymous = Some(NotCounted::WithoutCookies);
        for dest in ["font", "script", "style", "image", "report"] {
            check("GET", &of(dest), false, anonymous);
            check("GET", &of(dest), true, None);
            let with_cookie = [of(dest)[0], of(dest)[1], ("cookie", "theme=dark")];
            check("GET", &with_cookie, false, None);
        }
        check("POST", &[("sec-fetch-dest", "report")], false, anonymous);
        for dest in ["document", "iframe", "empty"] {
            check("GET", &of(dest), false, None);
        }
        let plain = [("sec-fetch-dest", "script"), ("sec-fetch-mode", "no-cors")];
        check("GET", &plain, false, None);
    }

    #[test]
    fn reasons_have_names_of_their_own() {
        for reason in NotCounted::ALL {
            assert_eq!(NotCounted::named(reason.name()), Some(reason));
        }
        assert_eq!(NotCounted::named("people"), None);
    }
}
