//! What the file changes in a request and its response: for the upstream, the route and the user's groups.

use crate::config::plan::{
    HttpsRedirect, OtherVersion, Plan, RouteAnswer, RouteIndex, UpstreamHost, UpstreamSite,
};
use crate::experiment::http_view::{HeaderView as _, RequestView, without_port};
use crate::experiment::message_edits::{GroupAction, MessageEdits, Redirect};
use crate::experiment::path_rewrite::RewrittenPath;
use crate::experiment::resolve::{Assignment, VariesBy};
use crate::experiment::{ExperimentIndex, Group, GroupIndex, UpstreamIndex};
use crate::proxy::h1::grammar;
use crate::proxy::h1::request_head::Request;
use crate::proxy::headers::edit::Edit;
use crate::proxy::headers::forwarding::RequestChanges;
use crate::proxy::headers::hop_by_hop::FORWARDED_HOST;
use crate::proxy::headers::public_names::{self, PublicNames};
use crate::proxy::headers::version_headers::VersionHeaders;
use crate::proxy::headers::version_mark::VersionMark;
use http::header::LOCATION;
use http::{HeaderValue, Response, StatusCode};
use std::borrow::Cow;
use std::cell::RefCell;

/// What the changes of one exchange depend on.
#[derive(Debug)]
pub(super) struct Changes<'b> {
    /// The host that the client asks for, with its port.
    public_host: Option<&'b str>,
    /// The path of the client, in normal form.
    normal_path: Box<str>,
    /// The route that matches, where no experiment chooses the upstream.
    pub route: Option<RouteIndex>,
    /// The path that the upstream got, if that is another one.
    sent: RefCell<Option<RewrittenPath>>,
}

/// Whose version answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServedBy<'a> {
    /// The upstream, unless watershed answers itself.
    pub upstream: Option<UpstreamIndex>,
    /// The version that serves in the place of the group's.
    pub fallback: Option<OtherVersion>,
    /// Whether that is because the group's version fails.
    pub stands_in: bool,
    /// The user's groups.
    pub assignment: &'a Assignment,
}

impl<'a> ServedBy<'a> {
    /// Of a response that watershed makes itself.
    pub(super) fn nobody(assignment: &'a Assignment) -> ServedBy<'a> {
        ServedBy {
            upstream: None,
            fallback: None,
            stands_in: false,
            assignment,
        }
    }

    /// Returns what is different for the user's groups, in file order.
    pub(super) fn actions(self, plan: &'a Plan) -> impl Iterator<Item = &'a GroupAction> {
        self.assignment
            .acting
            .iter()
            .filter_map(move |&(index, group)| self.group(plan, (index, group)).action.as_deref())
    }

    fn group(self, plan: &'a Plan, (index, group): (ExperimentIndex, GroupIndex)) -> &'a Group {
        let group = match self.fallback {
            Some(other) if other.experiment == index => other.group,
            _ => group,
        };
        &plan.experiment(index).groups[group.0]
    }

    /// Returns what names the version in ETags; `None` where they name none. A version is an upstream, with what its
    /// groups have it asked.
    pub(super) fn validator_mark(
        self,
        plan: &'a Plan,
        versions: &'a VersionHeaders,
    ) -> Option<Cow<'a, VersionMark>> {
        let upstream = self.upstream?;
        if !self.assignment.varies_by.marked_validators {
            return None;
        }
        let mut name = String::new();
        for &(index, group) in &self.assignment.acting {
            let experiment = plan.experiment(index);
            let group = self.group(plan, (index, group));
            let is_version = group.action.as_ref().is_some_and(|it| it.is_version());
            if is_version && experiment.versions.marks_validators {
                name = format!("{name}\0{}\0{}", experiment.name, group.name);
            }
        }
        Some(match name.is_empty() {
            true => Cow::Borrowed(versions.mark(upstream)),
            false => {
                let upstream = &plan.upstream(upstream).name;
                Cow::Owned(VersionMark::of(&format!("{upstream}{name}")))
            }
        })
    }

    fn site(self, plan: &'a Plan) -> Option<&'a UpstreamSite> {
        plan.upstream(self.upstream?).site.as_deref()
    }
}

/// Finds the first route that matches a request whose upstream no experiment has chosen.
pub fn find_route<'a>(
    plan: &Plan,
    request: impl RequestView<'a>,
    varies_by: &mut VariesBy,
) -> Option<RouteIndex> {
    let mut routes = plan.routes.iter().enumerate();
    let found = routes.find(|(place, route)| varies_by.add_route(*place, &route.matcher, request));
    found.map(|(place, _)| RouteIndex(place))
}

/// Whether watershed answers a request itself, because the route or a group of the user says so.
pub(super) fn is_answered_here(
    plan: &Plan,
    assignment: &Assignment,
    route: Option<RouteIndex>,
) -> bool {
    let by = ServedBy::nobody(assignment);
    route.is_some_and(|route| plan.route(route).answer.is_own())
        || by.actions(plan).any(|action| action.redirect.is_some())
}

/// Whether a plan changes requests or responses at all.
pub(super) fn has_changes(plan: &Plan) -> bool {
    let mut upstreams = plan.upstreams.iter();
    let of_upstreams = upstreams.any(|upstream| upstream.site.is_some());
    let of_site = of_upstreams || plan.https.redirect.is_some();
    of_site || !plan.routes.is_empty() || plan.experiments.iter().any(|it| it.acts())
}

impl<'b> Changes<'b> {
    /// What is known of a request before its upstream is asked.
    pub(super) fn new(
        request: &Request<'b>,
        trusted: bool,
        route: Option<RouteIndex>,
    ) -> Changes<'b> {
        let forwarded = match trusted && request.forwarded_host {
            true => request.first(&FORWARDED_HOST),
            false => None,
        };
        let first = |hosts: &'b [u8]| hosts.split(|&byte| byte == b',').next();
        let forwarded = forwarded.and_then(first).map(<[u8]>::trim_ascii);
        let host = forwarded.filter(|it| grammar::is_host(it));
        let host = host.or_else(|| request.host_text());
        Changes {
            public_host: host.and_then(|host| std::str::from_utf8(host).ok()),
            normal_path: request.normal_path().into(),
            route,
            sent: RefCell::default(),
        }
    }

    /// What is changed, the most general first.
    fn edits<'a>(
        &self,
        plan: &'a Plan,
        by: ServedBy<'a>,
    ) -> impl Iterator<Item = &'a MessageEdits> {
        let site = by.site(plan).map(|site| &site.edits);
        let route = self.route.map(|route| &plan.route(route).edits);
        let groups = by.actions(plan).map(|action| &action.edits);
        site.into_iter().chain(route).chain(groups)
    }

    /// Returns watershed's own response, where a group of the user redirects or the route answers.
    pub(super) fn own_response(
        &self,
        plan: &Plan,
        assignment: &Assignment,
        query: Option<&str>,
    ) -> Option<Response<Vec<u8>>> {
        let mut actions = ServedBy::nobody(assignment).actions(plan);
        if let Some(redirect) = actions.find_map(|action| action.redirect.as_ref()) {
            return self.redirected(redirect, query);
        }
        match &plan.route(self.route?).answer {
            RouteAnswer::Upstream(_) => None,
            RouteAnswer::Redirect(redirect) => self.redirected(redirect, query),
            RouteAnswer::Respond(fixed) => {
                let mut response = Response::new(fixed.body.to_vec());
                *response.status_mut() = StatusCode::from_u16(fixed.status).ok()?;
                response.headers_mut().extend(fixed.fields.iter().cloned());
                Some(response)
            }
        }
    }

    fn redirected(&self, redirect: &Redirect, query: Option<&str>) -> Option<Response<Vec<u8>>> {
        let location = redirect.location.expand(&self.normal_path)?;
        redirect_to(redirect.status, &with_query(location, query))
    }

    /// Returns the redirect to the same URL with `https`; `None` where the client names no host.
    pub(super) fn to_https(
        &self,
        redirect: HttpsRedirect,
        target: &str,
    ) -> Option<Response<Vec<u8>>> {
        let host = without_port(self.public_host?);
        let port = match redirect.port {
            443 => String::new(),
            port => format!(":{port}"),
        };
        redirect_to(redirect.status, &format!("https://{host}{port}{target}"))
    }

    /// Returns what is changed in the request for whoever serves it.
    pub(super) fn of_request<'a>(&self, plan: &'a Plan, by: ServedBy<'a>) -> RequestChanges<'a> {
        let site = by.site(plan);
        // The public path is changed first, and the upstream's prefix added last.
        let groups = by
            .actions(plan)
            .filter_map(|action| action.edits.path.as_ref());
        let route = self
            .route
            .and_then(|route| plan.route(route).edits.path.as_ref());
        let groups = groups.chain(route);
        let last = site.and_then(|site| site.edits.path.as_ref());
        let mut path: Option<RewrittenPath> = None;
        for rewrite in groups.chain(last) {
            let path = path.get_or_insert_with(|| RewrittenPath::new(&self.normal_path));
            path.apply(rewrite);
        }
        let changes = RequestChanges {
            host: site.map_or(&UpstreamHost::Client, |site| &site.host),
            path: path.as_ref().map(|path| path.path().to_owned()),
            fields: self.edits(plan, by).map(|edits| &edits.request).collect(),
        };
        self.sent.replace(path);
        changes
    }

    /// Changes the response of whoever has served the request.
    pub(super) fn to_response(
        &self,
        plan: &Plan,
        by: ServedBy<'_>,
        over_tls: bool,
        head: &mut impl Edit,
    ) {
        let (site, sent) = (by.site(plan), self.sent.borrow());
        if by.upstream.is_some() && (site.is_some() || sent.is_some()) {
            let names = PublicNames {
                site,
                path: sent.as_ref(),
                host: self.public_host,
                over_tls,
            };
            public_names::restore(head, &names);
        }
        for edits in self.edits(plan, by).map(|edits| &edits.response) {
            for name in edits.replaced() {
                head.take_out(name);
            }
            for (name, value) in edits.added() {
                head.append(name.clone(), value.clone());
            }
        }
    }
}

fn redirect_to(status: u16, location: &str) -> Option<Response<Vec<u8>>> {
    let mut response = Response::new(Vec::new());
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    let location = HeaderValue::try_from(location).ok()?;
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

/// Adds the query of a request to a URL, which may have one, and a fragment.
fn with_query(location: String, query: Option<&str>) -> String {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return location;
    };
    let (url, fragment) = match location.find('#') {
        Some(at) => location.split_at(at),
        None => (&*location, ""),
    };
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}{query}{fragment}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_kept_before_the_fragment() {
        let check = |location: &str, query, expected: &str| {
            assert_eq!(with_query(location.to_owned(), query), expected);
        };
        check("/a", None, "/a");
        check("/a", Some(""), "/a");
        check("/a", Some("b=c"), "/a?b=c");
        check("/a?d", Some("b=c"), "/a?d&b=c");
        check("/a#e", Some("b=c"), "/a?b=c#e");
    }
}
