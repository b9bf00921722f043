//! What shared caches are told, so that they mix neither versions nor visitors. PURE.

use crate::config::plan::{CacheRule, CacheRules, Plan};
use crate::experiment::identity::IdSource;
use crate::experiment::matcher::Matcher;
use crate::experiment::resolve::VariesBy;
use crate::proxy::headers::edit::Edit;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, VARY};
use smallvec::SmallVec;

/// Names of request fields that answers depend on, made once for a plan.
#[derive(Debug)]
pub struct CacheHeaders {
    /// Those that say who asks.
    user: Vec<String>,
    user_line: HeaderValue,
    /// Those in the conditions of each experiment.
    conditions: Vec<Vec<String>>,
    /// Those in the conditions of each route.
    routes: Vec<Vec<String>>,
}

impl CacheHeaders {
    /// The names of a plan.
    pub fn new(plan: &Plan) -> CacheHeaders {
        // Minted IDs and overrides are cookies.
        let mut user = vec!["cookie".to_owned()];
        let units = plan.units.iter().map(|unit| &unit.source);
        for source in plan.identity.sources.iter().chain(units) {
            let name = match source {
                IdSource::Header(name) => name.as_str(),
                IdSource::Jwt { cookie: None, .. } => "authorization",
                // The query is part of what a cache keys by anyway.
                IdSource::Cookie(_) | IdSource::Query(_) | IdSource::Jwt { .. } => continue,
            };
            if !user.iter().any(|known| known == name) {
                user.push(name.to_owned());
            }
        }
        let read = |matcher: &Matcher| {
            let fields = matcher.fields().iter();
            fields.map(|name| name.as_str().to_owned()).collect()
        };
        let conditions = plan.experiments.iter().map(|it| read(&it.matcher));
        let routes = plan.routes.iter().map(|it| read(&it.matcher));
        CacheHeaders {
            // Header names make a header value.
            user_line: HeaderValue::try_from(user.join(", "))
                .unwrap_or(HeaderValue::from_static("*")),
            user,
            conditions: conditions.collect(),
            routes: routes.collect(),
        }
    }
}

const PRIVATE: HeaderValue = HeaderValue::from_static("private");

/// Completes an answer: with a `personal` one, which sets a visitor's cookie or shows a version by
/// a token, no shared cache may do anything.
pub(crate) fn finish(
    (words, by_file): (&CacheHeaders, CacheRules),
    headers: &mut impl Edit,
    depends: &VariesBy,
    personal: bool,
) {
    let rule = |depends: bool, rule| if depends { rule } else { CacheRule::Off };
    let by_fields = !(depends.headers.is_empty() && depends.routes.is_empty());
    let by_upstream = depends.user_for_upstream || by_fields;
    let rules = [
        rule(by_upstream, by_file.upstream),
        rule(depends.user_for_headers, by_file.told),
    ];
    if rules.iter().any(|rule| *rule != CacheRule::Off) {
        vary(words, headers, depends);
    }
    // No field names the client's address, or the version of a page, to a cache.
    let by_address = (depends.address || depends.page) && by_file.upstream != CacheRule::Off;
    if personal || by_address || rules.contains(&CacheRule::Private) {
        private(headers);
    }
}

/// Whether a response never changes as long as it is fresh (RFC 8246), so that versions do not differ in it.
pub(crate) fn is_immutable(headers: &impl Edit) -> bool {
    let field = CACHE_CONTROL;
    let mut lines = headers.all(&field).peekable();
    if lines.peek().is_none() {
        return false;
    }
    let mut is_immutable = false;
    for directive in lines.flat_map(directives) {
        let is = |word: &str| directive.eq_ignore_ascii_case(word.as_bytes());
        if is("private") || is("no-store") || is("no-cache") {
            return false;
        }
        is_immutable |= is("immutable");
    }
    is_immutable
}

fn vary(words: &CacheHeaders, headers: &mut impl Edit, depends: &VariesBy) {
    let by_user = depends.user_for_upstream || depends.user_for_headers;
    let by_fields = !(depends.headers.is_empty() && depends.routes.is_empty());
    if by_user && !by_fields && headers.all(&VARY).next().is_none() {
        headers.append(VARY, words.user_line.clone());
        return;
    }
    let user = words.user.iter().filter(|_| by_user);
    let conditions = depends.headers.iter();
    let conditions = conditions.flat_map(|experiment| &words.conditions[experiment.0]);
    let routes = depends
        .routes
        .iter()
        .flat_map(|&route| &words.routes[route]);
    let conditions = conditions.chain(routes);
    let mut missing: SmallVec<[&str; 4]> = SmallVec::new();
    for name in user.chain(conditions).map(String::as_str) {
        if !says(headers, name) && !missing.contains(&name) {
            missing.push(name);
        }
    }
    if let Ok(value) = HeaderValue::try_from(missing.join(", "))
        && !value.is_empty()
    {
        headers.append(VARY, value);
    }
}

/// Whether `Vary` names this field already.
fn says(headers: &impl Edit, name: &str) -> bool {
    let field = VARY;
    let lines = headers.all(&field);
    let mut names = lines
        .filter_map(|line| std::str::from_utf8(line).ok())
        .flat_map(|line| line.split(','))
        .map(str::trim);
    names.any(|said| said == "*" || said.eq_ignore_ascii_case(name))
}

/// Lets no shared cache keep the answer: what allows it goes, in `Cache-Control` as well as in the
/// fields that some caches believe before that (RFC 9213 and its forerunners).
fn private(headers: &mut impl Edit) {
    headers.discard(is_for_some_caches);
    let mut kept: Vec<u8> = Vec::new();
    for line in headers.all(&CACHE_CONTROL) {
        for directive in directives(line) {
            let name = directive.split(|&byte| byte == b'=').next();
            let name = name.unwrap_or_default().trim_ascii();
            let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
            if is("no-store") {
                // Stricter than anything that could be said here.
                return;
            }
            if !["public", "private", "s-maxage"].into_iter().any(is) {
                kept.extend_from_slice(directive);
                kept.extend_from_slice(b", ");
            }
        }
    }
    kept.extend_from_slice(b"private");
    // Parts of header values make a header value.
    let value = HeaderValue::from_bytes(&kept);
    headers.insert(CACHE_CONTROL, value.unwrap_or(PRIVATE));
}

fn is_for_some_caches(name: &str) -> bool {
    name.ends_with("cdn-cache-control")
        || ["surrogate-control", "edge-control", "x-accel-expires"].contains(&name)
}

/// The parts between commas, but for commas within quotes.
fn directives(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    line.split(move |&byte| {
        quoted ^= byte == b'"';
        byte == b',' && !quoted
    })
    .map(<[u8]>::trim_ascii)
    .filter(|directive| !directive.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    #[track_caller]
    fn check(before: &[(&'static str, &str)], after: &[(&str, &str)]) {
        let mut headers = HeaderMap::new();
        for (name, value) in before {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        private(&mut headers);
        let said = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
        assert_eq!(said.collect::<Vec<_>>(), after);
    }

    #[test]
    fn what_allows_a_shared_cache_to_keep_it_goes() {
        check(&[], &[("cache-control", "private")]);
        check(
            &[
                ("cache-control", "Public, max-age=60,s-maxage=3600"),
                ("cache-control", "must-revalidate"),
                ("cdn-cache-control", "max-age=60"),
                ("x-accel-expires", "60"),
                ("surrogate-control", "max-age=60"),
            ],
            &[("cache-control", "max-age=60, must-revalidate, private")],
        );
        check(
            &[(
                "cache-control",
                "private=\"set-cookie, x\", no-cache=\"a, public\"",
            )],
            &[("cache-control", "no-cache=\"a, public\", private")],
        );
        check(
            &[("cache-control", "no-store, max-age=0")],
            &[("cache-control", "no-store, max-age=0")],
        );
    }
}
