//! Heads on their way in and out. PURE.

use super::cache::{self, CacheWords};
use super::edit::Edit;
use super::grammar;
use super::hops::{self, Way};
use super::reply::{Reason, Refusal};
use super::reserved::Reserved;
use crate::config::plan::{Plan, SESSION_COOKIE};
use crate::experiment::asked::Fields;
use crate::experiment::forced::{OVERRIDE_COOKIE, OVERRIDE_HEADER};
use crate::experiment::identity::{self, Visitor};
use crate::experiment::visit::{By, Visit};
use crate::experiment::{Experiment, ExperimentIndex, Group, GroupIndex};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderName, SET_COOKIE, VIA};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Method, Version, response};
use smallvec::SmallVec;
use std::net::IpAddr;
use std::rc::Rc;

const USER: HeaderName = HeaderName::from_static("watershed-user");
const EXPERIMENT: HeaderName = HeaderName::from_static("watershed-experiment");
/// Says that control answered in the place of a group whose upstream is down.
pub const FALLBACK: HeaderName = HeaderName::from_static("watershed-fallback");
const GROUP: HeaderName = HeaderName::from_static("watershed-group");

/// Header values that are the same for every request of a plan, made once.
#[derive(Debug)]
pub struct Words {
    /// By experiment and group: `new-site=control`.
    groups: Vec<Vec<HeaderValue>>,
    /// What caches are told.
    pub caches: CacheWords,
    /// The names that the proxy sets or relies on.
    pub reserved: Rc<Reserved>,
}

impl Words {
    /// The words of a plan.
    pub fn new(plan: &Plan) -> Words {
        let of = |experiment: &Experiment| {
            let value = |group: &Group| {
                // Names are letters, digits and `_.-`, which the configuration checks.
                let text = format!("{}={}", experiment.name, group.name);
                HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
            };
            experiment.groups.iter().map(value).collect()
        };
        Words {
            groups: plan.experiments.iter().map(of).collect(),
            caches: CacheWords::new(plan),
            reserved: Rc::new(Reserved::new(plan)),
        }
    }

    /// `new-site=control`.
    pub fn group(&self, experiment: ExperimentIndex, group: GroupIndex) -> &HeaderValue {
        &self.groups[experiment.0][group.0]
    }
}

/// A token that a client brought, and whether it came in the query of a link.
#[derive(Debug, PartialEq, Eq)]
pub struct Brought {
    /// The token, not yet verified.
    pub token: Vec<u8>,
    /// Whether the answer must set the cookie.
    pub by_link: bool,
}

/// Checks a request's head and takes out what is not for the upstream: hop-by-hop fields, the
/// client's copies of `Watershed-*`, reserved names in disguise, and an override token, which is
/// returned. With `bare`, the target was `http://host`, without even a slash.
pub fn admit(
    plan: &Plan,
    reserved: &Reserved,
    head: &mut Parts,
    peer: IpAddr,
    bare: bool,
) -> Result<Option<Brought>, Refusal> {
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > plan.limits.target_bytes {
        return Err(Refusal::new(Reason::TargetTooLong));
    }
    // hyper bounds what it buffers, which is a little more than what may be forwarded.
    let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    if target + head.headers.iter().map(field).sum::<usize>() > plan.limits.head_bytes {
        return Err(Refusal::new(Reason::HeadTooLong));
    }
    let path = head.uri.path();
    let rooted = path.starts_with('/') || (path == "*" && head.method == Method::OPTIONS);
    if head.method == Method::CONNECT || !rooted || !is_whole(&head.uri, head.version) {
        return Err(Refusal::new(Reason::Target));
    }
    admit_host(head, bare)?;
    admit_length(&head.headers)?;
    join_cookies(head);
    admit_count(plan, head)?;
    let brought = take_override(head);
    let trusted = trusts(plan, peer);
    let nominated = |name: &str| reserved.may_be_nominated(name);
    hops::strip(&mut head.headers, Way::Request, nominated, |name| {
        is_ours(name)
            || (!trusted && name.starts_with("x-forwarded-"))
            || reserved.is_disguised(name.as_bytes())
    });
    Ok(brought)
}

/// RFC 9113, 8.3.1: in HTTP/2 a path begins with a slash, where HTTP/1 also has `http://host?query`.
fn is_whole(target: &Uri, version: Version) -> bool {
    let said = target.path_and_query().map(PathAndQuery::as_str);
    version != Version::HTTP_2 || said.is_some_and(|said| said.starts_with(['/', '*']))
}

/// RFC 9110, 8.6: one length of digits. HTTP/1 has been checked for it before.
fn admit_length(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(()),
        (Some(length), None) if grammar::length(length.as_bytes()).is_some() => Ok(()),
        _ => Err(Refusal::new(Reason::Length)),
    }
}

/// The limit of fields, which HTTP/1 has been checked for before. An ID and a trace that this
/// process has given the request are not counted.
fn admit_count(plan: &Plan, head: &Parts) -> Result<(), Refusal> {
    let given = usize::from(plan.tracing.request_id) + usize::from(plan.tracing.start.is_some());
    match head.version == Version::HTTP_2 && head.headers.len() > plan.limits.headers + given {
        true => Err(Refusal::new(Reason::HeadTooLong)),
        false => Ok(()),
    }
}

/// Whether a trusted peer says that the visitor came over TLS, where this listener speaks none.
pub fn over_tls<'a>(fields: impl Fields<'a>) -> bool {
    let said = fields.first(&hops::FORWARDED_PROTO);
    said.is_some_and(|said| said.eq_ignore_ascii_case(b"https"))
}

/// Whether an answer is a stream of events, which are waited for.
pub fn is_of_events<'a>(fields: impl Fields<'a>) -> bool {
    let said = fields.first(&CONTENT_TYPE);
    said.and_then(|said| said.get(..b"text/event-stream".len()))
        .is_some_and(|said| said.eq_ignore_ascii_case(b"text/event-stream"))
}

/// Whether this peer is believed.
pub fn trusts(plan: &Plan, peer: IpAddr) -> bool {
    plan.trust.iter().any(|network| network.contains(&peer))
}

/// Who asks: the peer, or the last address that a trusted peer tells of and does not trust itself.
pub fn asker<'a>(plan: &Plan, fields: impl Fields<'a>, peer: IpAddr) -> IpAddr {
    if !trusts(plan, peer) {
        return peer;
    }
    let said: SmallVec<[_; 4]> = hops::forwarded_for(fields).collect();
    let stranger = said.into_iter().rev().map_while(|said| said);
    let mut last = peer;
    for address in stranger {
        last = address;
        if !trusts(plan, address) {
            break;
        }
    }
    last
}

/// Makes the head what the upstream gets: origin-form, who asked, and which groups.
pub fn prepare(
    plan: &Plan,
    words: &Words,
    head: &mut Parts,
    peer: IpAddr,
    over_tls: bool,
    visitor: Option<&Visitor<'_>>,
    visit: &Visit,
) {
    let headers = &mut head.headers;
    hops::forwarded(headers, peer, trusts(plan, peer), over_tls);
    headers.append(VIA, hops::via(head.version));
    if let Some(user) =
        visitor.and_then(|visitor| HeaderValue::from_bytes(visitor.user().as_bytes()).ok())
    {
        headers.insert(USER, user);
    }
    for &(experiment, group, _) in &visit.inside {
        headers.append(EXPERIMENT, words.group(experiment, group).clone());
    }
}

/// Takes out of an answer what is not for the client (`Watershed-Event` among it), and what only
/// this connection needed.
pub fn strip_answer(head: &mut response::Parts) {
    let nominated = |name: &str| name != CONTENT_LENGTH.as_str();
    hops::strip(&mut head.headers, Way::Answer, nominated, is_ours);
}

/// Completes an answer that came in this version: the cookie of an ID, the override's cookie, what
/// caches must know, `Via`.
pub fn finish(
    (plan, words): (&Plan, &Words),
    (version, headers): (Version, &mut impl Edit),
    visitor: Option<&Visitor<'_>>,
    visit: &Visit,
    override_cookie: Option<String>,
    over_tls: bool,
) {
    headers.append(VIA, hops::via(version));
    let given = visitor.and_then(|visitor| identity::set_cookie(&plan.identity, visitor, over_tls));
    // What a token chose is nobody else's.
    let mut personal = visit.inside.iter().any(|(_, _, by)| *by == By::Override);
    let override_cookie = override_cookie.map(String::into_bytes);
    for cookie in given.into_iter().chain(override_cookie) {
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            headers.append(SET_COOKIE, cookie);
            personal = true;
        }
    }
    cache::finish(plan, &words.caches, headers, &visit.depends, personal);
    if plan.show_group {
        for &(experiment, group, _) in &visit.inside {
            headers.append(GROUP, words.group(experiment, group).clone());
        }
    }
}

/// The `Set-Cookie` that keeps an override for the rest of its life.
pub fn override_cookie(token: &[u8], seconds: u64, over_tls: bool) -> String {
    let secure = if over_tls { "; Secure" } else { "" };
    let token = String::from_utf8_lossy(token);
    format!("{OVERRIDE_COOKIE}={token}; Path=/; Max-Age={seconds}; SameSite=Lax; HttpOnly{secure}")
}

/// RFC 9112, 3.2: one `Host`, or the target's authority in its place.
fn admit_host(head: &mut Parts, bare: bool) -> Result<(), Refusal> {
    if let Some(authority) = head.uri.authority() {
        // RFC 9113, 8.3.1: in HTTP/2 the two must not differ.
        let said = head.headers.get(HOST).map(HeaderValue::as_bytes);
        let same = said.is_none_or(|said| said.eq_ignore_ascii_case(authority.as_str().as_bytes()));
        if head.version == http::Version::HTTP_2 && !same {
            return Err(Refusal::new(Reason::Host));
        }
        // RFC 9112, 3.2.2: the target's host replaces what `Host` says.
        let host =
            HeaderValue::try_from(authority.as_str()).map_err(|_| Refusal::new(Reason::Host))?;
        head.headers.insert(HOST, host);
        let target = match bare {
            // RFC 9112, 3.2.4: what is asked of the server, and of no resource.
            true => Some(PathAndQuery::from_static("*")),
            false => head.uri.path_and_query().cloned(),
        };
        head.uri = Uri::from(target.unwrap_or(PathAndQuery::from_static("/")));
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if grammar::is_host(host.as_bytes()) => Ok(()),
        (None, _) if head.version < http::Version::HTTP_11 => Ok(()),
        _ => Err(Refusal::new(Reason::Host)),
    }
}

/// RFC 9113, 8.2.3: HTTP/2 may send cookies one by one, which HTTP/1 knows as one line only.
fn join_cookies(head: &mut Parts) {
    let mut crumbs = head.headers.get_all(COOKIE).iter();
    if head.version != http::Version::HTTP_2 || crumbs.by_ref().take(2).count() < 2 {
        return;
    }
    let crumbs = head.headers.get_all(COOKIE).iter();
    let crumbs: Vec<&[u8]> = crumbs.map(HeaderValue::as_bytes).collect();
    // Header values joined by `; ` make a header value.
    if let Ok(line) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        head.headers.insert(COOKIE, line);
    }
}

/// What only watershed says.
fn is_ours(name: &str) -> bool {
    name.starts_with("watershed-")
}

/// The override token of a request, taken out of wherever it stands.
fn take_override(head: &mut Parts) -> Option<Brought> {
    let by_header = head
        .headers
        .remove(OVERRIDE_HEADER)
        .map(|token| token.as_bytes().to_vec());
    let by_link = take_from_query(head);
    let by_cookie = take_from_cookies(&mut head.headers);
    let (token, by_link) = match (by_header, by_link, by_cookie) {
        (Some(token), _, _) => (token, false),
        (None, Some(token), _) => (token, true),
        (None, None, Some(token)) => (token, false),
        (None, None, None) => return None,
    };
    Some(Brought { token, by_link })
}

fn take_from_query(head: &mut Parts) -> Option<Vec<u8>> {
    let query = head.uri.query()?;
    let token = identity::query_value(query, OVERRIDE_COOKIE)?.into_owned();
    let rest: Vec<&str> = query
        .split('&')
        .filter(|pair| !is_override(pair.as_bytes()))
        .collect();
    let path = head.uri.path();
    let target = if rest.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", rest.join("&"))
    };
    // What is left of a sound target is sound; if not, the token stays where it is.
    if let Ok(target) = Uri::try_from(target) {
        head.uri = target;
    }
    Some(token)
}

/// Takes out all cookies that are for watershed alone, and returns the override token.
fn take_from_cookies(headers: &mut HeaderMap) -> Option<Vec<u8>> {
    if !has_private_cookie(&*headers) {
        return None;
    }
    let token = identity::cookie_value(&*headers, OVERRIDE_COOKIE).map(<[u8]>::to_vec);
    let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for line in lines {
        let kept: Vec<&[u8]> = line
            .as_bytes()
            .split(|&byte| byte == b';')
            .filter(|pair| !is_private_cookie(pair.trim_ascii_start()))
            .collect();
        let kept = kept.join(&b';');
        if let Ok(line) = HeaderValue::from_bytes(kept.trim_ascii_start())
            && !line.is_empty()
        {
            headers.append(COOKIE, line);
        }
    }
    token
}

/// Whether a request has a cookie that is for watershed alone.
pub fn has_private_cookie<'a>(fields: impl Fields<'a>) -> bool {
    let shortest = OVERRIDE_COOKIE.len().min(SESSION_COOKIE.len());
    identity::has_cookie(fields, shortest, is_private_cookie)
}

/// Whether this begins with a cookie that is for watershed alone: an override token, or a session
/// of the admin API.
fn is_private_cookie(pair: &[u8]) -> bool {
    // Compared at once where the name is known: most cookies are others.
    pair.starts_with(b"watershed_")
        && [OVERRIDE_COOKIE, SESSION_COOKIE].iter().any(|name| {
            let rest = pair.strip_prefix(name.as_bytes());
            // Some servers ignore spaces before the `=`.
            rest.is_some_and(|rest| rest.trim_ascii_start().starts_with(b"="))
        })
}

fn is_override(pair: &[u8]) -> bool {
    pair.strip_prefix(OVERRIDE_COOKIE.as_bytes())
        .is_some_and(|rest| rest.starts_with(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&str], kept: &[&str], token: Option<&str>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::try_from(*line).unwrap());
        }
        let taken = take_from_cookies(&mut headers);
        let taken = taken.map(|token| String::from_utf8(token).unwrap());
        assert_eq!(taken.as_deref(), token, "{lines:?}");
        let left: Vec<_> = headers.get_all(COOKIE).iter().collect();
        assert_eq!(left, kept, "{lines:?}");
    }

    #[test]
    fn private_cookies_are_removed_and_others_keep_their_bytes() {
        check(&["a=1; b=2"], &["a=1; b=2"], None);
        check(&["a=1;b=\"x, y\" ;;c"], &["a=1;b=\"x, y\" ;;c"], None);
        check(&["watershed_session=x"], &[], None);
        check(&["watershed_session=x; a=1"], &["a=1"], None);
        check(&["a=1;  watershed_session=x;b= 2"], &["a=1;b= 2"], None);
        check(&["a=1; watershed_session=x"], &["a=1"], None);
        check(&["a=1; watershed_session=; b"], &["a=1; b"], None);
        check(&["a=1; watershed_session =x; b"], &["a=1; b"], None);
        let several = [
            "z=0",
            "watershed_session=x; a=1; watershed_session=y",
            "watershed_session=z",
            "b= =2",
        ];
        check(&several, &["z=0", "a=1", "b= =2"], None);
        let both = ["watershed_session=x; a=1; watershed_override=t; b=2"];
        check(&both, &["a=1; b=2"], Some("t"));
        for other in [
            "watershed_id=u1",
            "watershed_sessions=x",
            "xwatershed_session=x",
            "a=watershed_session=x",
            "Watershed_Session=x",
            "watershed_session",
        ] {
            check(&[other], &[other], None);
        }
    }
}
