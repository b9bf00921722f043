//! Heads on their way in and out. PURE.

use super::reply::{Reason, Refusal};
use crate::config::plan::Plan;
use crate::experiment::forced::{OVERRIDE_COOKIE, OVERRIDE_HEADER};
use crate::experiment::identity::{self, Source, Visitor};
use crate::experiment::visit::Visit;
use crate::experiment::{Experiment, ExperimentIndex, Group, GroupIndex};
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, SET_COOKIE, TE,
    TRANSFER_ENCODING, UPGRADE, VARY, VIA,
};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Method, response};
use smallvec::SmallVec;
use std::net::IpAddr;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const USER: HeaderName = HeaderName::from_static("watershed-user");
const EXPERIMENT: HeaderName = HeaderName::from_static("watershed-experiment");
const GROUP: HeaderName = HeaderName::from_static("watershed-group");
const OUR_VIA: HeaderValue = HeaderValue::from_static("1.1 watershed");

/// Header values that are the same for every request of a plan, made once.
#[derive(Debug)]
pub struct Words {
    /// By experiment and group: `new-site=control`.
    groups: Vec<Vec<HeaderValue>>,
    /// The names of the fields that the choice of a version depends on.
    vary: Vec<String>,
    vary_line: HeaderValue,
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
        let mut vary = vec!["cookie".to_owned()];
        for source in &plan.identity.sources {
            match source {
                Source::Header(name) => vary.push(name.as_str().to_owned()),
                Source::Jwt { cookie: None, .. } => vary.push("authorization".to_owned()),
                // The query is part of what a cache keys by anyway.
                Source::Cookie(_) | Source::Query(_) | Source::Jwt { .. } => {}
            }
        }
        // Header names make a header value.
        let vary_line =
            HeaderValue::try_from(vary.join(", ")).unwrap_or(HeaderValue::from_static("*"));
        Words {
            groups: plan.experiments.iter().map(of).collect(),
            vary,
            vary_line,
        }
    }

    fn group(&self, experiment: ExperimentIndex, group: GroupIndex) -> HeaderValue {
        self.groups[experiment.0][group.0].clone()
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
/// client's copies of `Watershed-*`, and an override token, which is returned.
pub fn admit(plan: &Plan, head: &mut Parts) -> Result<Option<Brought>, Refusal> {
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
    if head.method == Method::CONNECT {
        return Err(Refusal::new(Reason::Target));
    }
    admit_host(head)?;
    remove_hop_by_hop(&mut head.headers, true);
    let brought = take_override(head);
    remove_ours(&mut head.headers);
    Ok(brought)
}

/// Whether the visitor came over TLS: this listener speaks none, but a trusted peer in front of it
/// may say so.
pub fn over_tls(plan: &Plan, head: &Parts, peer: IpAddr) -> bool {
    let said = head.headers.get(FORWARDED_PROTO);
    said.is_some_and(|said| said.as_bytes().eq_ignore_ascii_case(b"https")) && trusts(plan, peer)
}

fn trusts(plan: &Plan, peer: IpAddr) -> bool {
    plan.trust.iter().any(|network| network.contains(&peer))
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
    let trusted = trusts(plan, peer);
    let headers = &mut head.headers;
    let address = HeaderValue::try_from(peer.to_string()).ok();
    let before = headers.get(&FORWARDED_FOR).filter(|_| trusted);
    let forwarded = match (before, &address) {
        (Some(before), Some(address)) => {
            HeaderValue::from_bytes(&[before.as_bytes(), b", ", address.as_bytes()].concat()).ok()
        }
        _ => address,
    };
    if let Some(forwarded) = forwarded {
        headers.insert(FORWARDED_FOR, forwarded);
    }
    if !trusted || !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(
            FORWARDED_PROTO,
            HeaderValue::from_static(if over_tls { "https" } else { "http" }),
        );
    }
    if !trusted || !headers.contains_key(&FORWARDED_HOST) {
        match headers.get(HOST).cloned() {
            Some(host) => drop(headers.insert(FORWARDED_HOST, host)),
            None => drop(headers.remove(FORWARDED_HOST)),
        }
    }
    headers.append(VIA, OUR_VIA);
    if let Some(user) =
        visitor.and_then(|visitor| HeaderValue::from_bytes(visitor.user().as_bytes()).ok())
    {
        headers.insert(USER, user);
    }
    for &(experiment, group, _) in &visit.inside {
        headers.append(EXPERIMENT, words.group(experiment, group));
    }
}

/// Takes out of an answer what is not for the client (`Watershed-Event` among it), and what only
/// this connection needed.
pub fn strip_answer(head: &mut response::Parts) {
    remove_hop_by_hop(&mut head.headers, false);
    remove_ours(&mut head.headers);
}

/// Completes an answer: the minted ID, the override's cookie, what caches must know, `Via`.
pub fn finish(
    plan: &Plan,
    words: &Words,
    head: &mut response::Parts,
    visitor: Option<&Visitor<'_>>,
    visit: &Visit,
    override_cookie: Option<String>,
    over_tls: bool,
) {
    let headers = &mut head.headers;
    headers.append(VIA, OUR_VIA);
    let minted = visitor.filter(|visitor| visitor.minted);
    let minted =
        minted.map(|visitor| identity::set_cookie(&plan.identity.mint, visitor.user(), over_tls));
    let mut personal = false;
    for cookie in minted.into_iter().chain(override_cookie) {
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            headers.append(SET_COOKIE, cookie);
            personal = true;
        }
    }
    if personal {
        // A shared cache that kept this answer would give one visitor's ID to all.
        headers.append(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    if visit.chosen.is_some() {
        vary(words, headers);
    }
    if plan.show_group {
        for &(experiment, group, _) in &visit.inside {
            headers.append(GROUP, words.group(experiment, group));
        }
    }
}

/// The `Set-Cookie` that keeps an override for the rest of its life.
pub fn override_cookie(token: &[u8], seconds: u64, over_tls: bool) -> String {
    let secure = if over_tls { "; Secure" } else { "" };
    let token = String::from_utf8_lossy(token);
    format!("{OVERRIDE_COOKIE}={token}; Path=/; Max-Age={seconds}; SameSite=Lax; HttpOnly{secure}")
}

/// Tells caches which request fields the choice of the version depends on.
fn vary(words: &Words, headers: &mut HeaderMap) {
    if !headers.contains_key(VARY) {
        headers.insert(VARY, words.vary_line.clone());
        return;
    }
    let said = |name: &str| {
        let lines = headers
            .get_all(VARY)
            .iter()
            .filter_map(|line| line.to_str().ok());
        let mut names = lines.flat_map(|line| line.split(','));
        names.any(|said| said.trim() == "*" || said.trim().eq_ignore_ascii_case(name))
    };
    let missing: Vec<&str> = words
        .vary
        .iter()
        .map(String::as_str)
        .filter(|name| !said(name))
        .collect();
    if let Ok(value) = HeaderValue::try_from(missing.join(", "))
        && !value.is_empty()
    {
        headers.append(VARY, value);
    }
}

/// RFC 9112, 3.2: one `Host`, or the target's authority in its place.
fn admit_host(head: &mut Parts) -> Result<(), Refusal> {
    if let Some(authority) = head.uri.authority() {
        // RFC 9112, 3.2.2: the target's host replaces what `Host` says.
        let host =
            HeaderValue::try_from(authority.as_str()).map_err(|_| Refusal::new(Reason::Host))?;
        head.headers.insert(HOST, host);
        let target = head
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or(PathAndQuery::from_static("/"));
        head.uri = Uri::from(target);
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => Ok(()),
        (None, _) if head.version < http::Version::HTTP_11 => Ok(()),
        _ => Err(Refusal::new(Reason::Host)),
    }
}

/// RFC 9110, 7.6.1. `TE: trailers` is kept for requests: trailers are forwarded.
fn remove_hop_by_hop(headers: &mut HeaderMap, request: bool) {
    let listed: SmallVec<[HeaderName; 4]> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        // A client must not use it to take out what names the site or frames the body.
        .filter(|name| !matches!(*name, HOST | CONTENT_LENGTH | COOKIE))
        .collect();
    let trailers = request
        && headers
            .get(TE)
            .is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in listed {
        headers.remove(name);
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        // The body is framed anew; a length beside a coding was never meant (RFC 9112, 6.3).
        headers.remove(TRANSFER_ENCODING);
        headers.remove(CONTENT_LENGTH);
    }
    for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, UPGRADE] {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Only watershed says `Watershed-*`.
fn remove_ours(headers: &mut HeaderMap) {
    let ours = headers
        .keys()
        .filter(|name| name.as_str().starts_with("watershed-"));
    let ours: SmallVec<[HeaderName; 4]> = ours.cloned().collect();
    for name in ours {
        headers.remove(name);
    }
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

fn take_from_cookies(headers: &mut HeaderMap) -> Option<Vec<u8>> {
    let token = identity::cookie_value(headers, OVERRIDE_COOKIE)?.to_vec();
    let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for line in lines {
        let kept: Vec<&[u8]> = line
            .as_bytes()
            .split(|&byte| byte == b';')
            .filter(|pair| !is_override(pair.trim_ascii_start()))
            .collect();
        let kept = kept.join(&b';');
        if let Ok(line) = HeaderValue::from_bytes(kept.trim_ascii_start())
            && !line.is_empty()
        {
            headers.append(COOKIE, line);
        }
    }
    Some(token)
}

fn is_override(pair: &[u8]) -> bool {
    pair.strip_prefix(OVERRIDE_COOKIE.as_bytes())
        .is_some_and(|rest| rest.starts_with(b"="))
}
