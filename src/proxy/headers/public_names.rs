//! Responses of an upstream that knows itself by another name or path: their URLs and cookies become
//! those of the public site. PURE.

use crate::config::plan::UpstreamSite;
use crate::experiment::http_view::without_port;
use crate::experiment::path_rewrite::RewrittenPath;
use crate::proxy::headers::edit::{Edit, map_values};
use http::header::{CONTENT_LOCATION, LOCATION, REFRESH, SET_COOKIE};
use std::borrow::Cow;
use std::net::IpAddr;

/// The public name of what an upstream calls by its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublicNames<'a> {
    /// The names of the upstream, where it has some of its own.
    pub site: Option<&'a UpstreamSite>,
    /// The path that the upstream got, where that is another one than the client's.
    pub path: Option<&'a RewrittenPath>,
    /// The host that the client asks for, with its port, if it names one.
    pub host: Option<&'a str>,
    /// Whether the client uses TLS.
    pub over_tls: bool,
}

/// Changes the URLs and cookies of a response.
pub(crate) fn restore(head: &mut impl Edit, names: &PublicNames<'_>) {
    for name in [LOCATION, CONTENT_LOCATION] {
        map_values(head, &name, |url| names.url(text(url)?));
    }
    map_values(head, &REFRESH, |value| names.refresh(text(value)?));
    map_values(head, &SET_COOKIE, |cookie| names.cookie(text(cookie)?));
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

impl PublicNames<'_> {
    /// The public form of a URL, where that is another one.
    fn url(&self, url: &str) -> Option<String> {
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) if is_http(scheme) => (Some(scheme), rest),
            _ => match url.strip_prefix("//") {
                Some(rest) => (None, rest),
                // Of the server that answers.
                None => return self.target(url),
            },
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let is_public = self
            .host
            .is_some_and(|host| host.eq_ignore_ascii_case(authority));
        let is_own = self
            .site
            .is_some_and(|site| site.is_named(&plain(authority)));
        if is_public {
            let target = self.target(target)?;
            let scheme = scheme.map_or(String::new(), |scheme| format!("{scheme}:"));
            return Some(format!("{scheme}//{authority}{target}"));
        }
        if !is_own {
            return None;
        }
        let target = match self.target(target) {
            Some(target) => target,
            // Outside of what is public.
            None if self.is_below_prefix() && !target.is_empty() => return None,
            None => target.to_owned(),
        };
        let public = if self.over_tls { "https" } else { "http" };
        let scheme = scheme.map_or(String::new(), |_| format!("{public}:"));
        Some(match self.host {
            Some(host) => format!("{scheme}//{host}{target}"),
            None => one_slash(&target).into_owned(),
        })
    }

    /// Whether the upstream's pages have another path than the public ones.
    fn is_below_prefix(&self) -> bool {
        self.path.is_some_and(RewrittenPath::has_prefixes)
    }

    /// The public form of a path with its query and fragment, where that is another one.
    fn target(&self, target: &str) -> Option<String> {
        let end = target.find(['?', '#']).unwrap_or(target.len());
        let (path, rest) = target.split_at(end);
        let public = self.path?.public(path)?;
        Some(format!("{}{rest}", one_slash(&public)))
    }

    /// `5; url=https://…`, also with quotation marks, as browsers read it.
    fn refresh(&self, value: &str) -> Option<String> {
        let at = value.find([';', ','])? + 1;
        let (seconds, rest) = value.split_at(at);
        let trimmed = rest.trim_start();
        let name = trimmed
            .get(..3)
            .filter(|name| name.eq_ignore_ascii_case("url"))?;
        let (_, url) = trimmed[name.len()..].split_once('=')?;
        let url = url.trim();
        // HTML, 4.2.5.3: what follows the second quotation mark is ignored.
        let bare = match url.chars().next() {
            Some(mark @ ('"' | '\'')) => url[1..].split(mark).next()?,
            _ => url,
        };
        let restored = self.url(bare)?;
        Some(format!("{seconds} url={restored}"))
    }

    /// A cookie whose `Domain` and `Path` are public.
    fn cookie(&self, cookie: &str) -> Option<String> {
        let mut changed = false;
        let mut attributes = cookie.split(';');
        let mut text = attributes.next()?.to_owned();
        for attribute in attributes {
            let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            let (name, value) = (name.trim(), value.trim());
            let restored = if name.eq_ignore_ascii_case("domain") {
                self.domain(value)
            } else if name.eq_ignore_ascii_case("path") {
                self.cookie_path(value)
                    .map(|path| format!("; {name}={path}"))
            } else {
                None
            };
            changed |= restored.is_some();
            match restored {
                Some(restored) => text.push_str(&restored),
                None => {
                    text.push(';');
                    text.push_str(attribute);
                }
            }
        }
        changed.then_some(text)
    }

    /// The whole site stays the whole site.
    fn cookie_path(&self, path: &str) -> Option<String> {
        let path = Some(path).filter(|path| *path != "/")?;
        self.path?.public(path)
    }

    /// The attribute in the place of a `Domain` that means the upstream, and not the public host.
    fn domain(&self, domain: &str) -> Option<String> {
        let domain = domain.strip_prefix('.').unwrap_or(domain);
        if psl::suffix(domain.as_bytes()).is_some_and(|suffix| suffix == domain.as_bytes()) {
            // Browsers refuse it, and so they should the cookie.
            return None;
        }
        let mut names = self.site?.names.iter();
        let public = without_port(self.host.unwrap_or_default());
        if !names.any(|name| is_within(name, domain)) || is_within(public, domain) {
            return None;
        }
        // Cookies of addresses have no domain.
        let is_address = public.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        Some(match is_address || public.is_empty() {
            true => String::new(),
            false => format!("; Domain={public}"),
        })
    }
}

/// The host and port of an authority, without a user and the dot of a full name.
fn plain(authority: &str) -> Cow<'_, str> {
    let (_, name) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (host, port) = match name.rfind(':') {
        Some(at) if !name.ends_with(']') => name.split_at(at),
        _ => (name, ""),
    };
    match host.strip_suffix('.') {
        Some(host) => Cow::Owned(format!("{host}{port}")),
        None => Cow::Borrowed(name),
    }
}

/// A path with one slash in front: what stands behind two, or behind others that browsers read like them, is a host.
fn one_slash(path: &str) -> Cow<'_, str> {
    let rest = path.trim_start_matches(['/', '\\', '\t', '\n', '\r']);
    match path.len() - rest.len() == 1 && path.starts_with('/') {
        true => Cow::Borrowed(path),
        false => Cow::Owned(format!("/{rest}")),
    }
}

fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// RFC 6265, 5.1.3: whether a host is a domain or below it.
fn is_within(host: &str, domain: &str) -> bool {
    let Some(before) = host.len().checked_sub(domain.len()) else {
        return false;
    };
    let is_end = host
        .get(before..)
        .is_some_and(|end| end.eq_ignore_ascii_case(domain));
    is_end && !domain.is_empty() && (before == 0 || host[..before].ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::experiment::path_rewrite::PathRewrite;
    use http::HeaderMap;
    use http::header::HeaderName;
    use std::path::Path;

    /// The header of a response to a request for `path` of `public`, whose upstream is described so.
    #[track_caller]
    fn check(
        upstream: &str,
        (public, path): (&str, &str),
        name: HeaderName,
        cases: &[(&str, &str)],
    ) {
        let routes = format!("listen: 127.0.0.1:1\nupstreams: {{ a: {upstream} }}\n");
        let plan = config::parse(&routes, Path::new("routes.yaml"), &|_| None).unwrap();
        let site = plan.upstreams[0].site.as_deref().unwrap();
        let mut rewritten = RewrittenPath::new(path);
        let rewrite: Option<&PathRewrite> = site.edits.path.as_ref();
        rewrite.into_iter().for_each(|it| rewritten.apply(it));
        let names = PublicNames {
            site: Some(site),
            path: Some(&rewritten),
            host: Some(public),
            over_tls: true,
        };
        for (value, expected) in cases {
            let mut head = HeaderMap::new();
            head.insert(&name, value.parse().unwrap());
            restore(&mut head, &names);
            assert_eq!(head[&name].to_str().unwrap(), *expected, "{value}");
        }
    }

    const PREVIEW: &str = "{ endpoints: [\"https://10.0.0.1:8443\"], host: v2.preview.test }";
    const BELOW: &str = "{ endpoints: [\"http://10.0.0.1:81\"], host: v2.preview.test, path: /v2 }";
    const STRIPPED: &str = "{ endpoints: [\"http://10.0.0.1:81\"], strip_prefix: /shop }";

    #[test]
    fn urls_of_the_upstream_become_public() {
        let asked = ("shop.test:8443", "/x");
        let cases = [
            (
                "https://v2.preview.test/a?b#c",
                "https://shop.test:8443/a?b#c",
            ),
            ("http://V2.Preview.test:80/a", "https://shop.test:8443/a"),
            ("HTTP://v2.preview.test/a", "https://shop.test:8443/a"),
            ("https://10.0.0.1:8443/a", "https://shop.test:8443/a"),
            ("https://v2.preview.test", "https://shop.test:8443"),
            ("https://v2.preview.test?a", "https://shop.test:8443?a"),
            ("//v2.preview.test/a", "//shop.test:8443/a"),
            ("http://me:pw@v2.preview.test/a", "https://shop.test:8443/a"),
            ("https://v2.preview.test./a", "https://shop.test:8443/a"),
            ("https://v2.preview.test.:443/a", "https://shop.test:8443/a"),
            (
                "https://v2.preview.test:9000/a",
                "https://v2.preview.test:9000/a",
            ),
            (
                "https://v2.preview.test.evil/a",
                "https://v2.preview.test.evil/a",
            ),
            (
                "https://v2.preview.test@evil/a",
                "https://v2.preview.test@evil/a",
            ),
            (
                "https://login.test/?u=https://v2.preview.test/a",
                "https://login.test/?u=https://v2.preview.test/a",
            ),
            ("/a", "/a"),
            ("a/b", "a/b"),
            ("", ""),
        ];
        check(PREVIEW, asked, LOCATION, &cases);
        check(PREVIEW, asked, CONTENT_LOCATION, &cases);
    }

    #[test]
    fn paths_below_a_prefix_become_public() {
        let asked = ("shop.test", "/x");
        let cases = [
            ("https://v2.preview.test/v2/a?b", "https://shop.test/a?b"),
            ("https://v2.preview.test/v2", "https://shop.test/"),
            (
                "https://v2.preview.test/other",
                "https://v2.preview.test/other",
            ),
            ("http://shop.test/v2/a", "http://shop.test/a"),
            ("https://shop.test/a", "https://shop.test/a"),
            ("/v2/a#b", "/a#b"),
            ("/v2", "/"),
            ("/v21", "/v21"),
            // What stands behind two slashes is a host.
            ("/v2//evil.test/a", "/evil.test/a"),
            ("/v2/\\evil.test", "/evil.test"),
            ("/v2/\t/evil.test", "/evil.test"),
            ("/v2///evil.test?b", "/evil.test?b"),
            ("http://v2.preview.test/v2//a", "https://shop.test/a"),
            ("/a", "/a"),
        ];
        check(BELOW, asked, LOCATION, &cases);
        let cases = [
            ("/a?b", "/shop/a?b"),
            ("/", "/shop/"),
            ("http://10.0.0.1:81/a", "https://shop.test/shop/a"),
        ];
        check(STRIPPED, ("shop.test", "/shop/x"), LOCATION, &cases);
        check(STRIPPED, ("shop.test", "/x"), LOCATION, &[("/a?b", "/a?b")]);
    }

    #[test]
    fn refresh_becomes_public() {
        let cases = [
            (
                "5; url=https://v2.preview.test/a",
                "5; url=https://shop.test/a",
            ),
            (
                "0;URL='https://v2.preview.test/a'",
                "0; url=https://shop.test/a",
            ),
            (
                "0; url=\"https://v2.preview.test/a\"; more",
                "0; url=https://shop.test/a",
            ),
            ("5", "5"),
            ("5; url=/a", "5; url=/a"),
            (
                "5; https://v2.preview.test/a",
                "5; https://v2.preview.test/a",
            ),
        ];
        check(PREVIEW, ("shop.test", "/"), REFRESH, &cases);
    }

    #[test]
    fn cookies_get_the_public_domain_and_path() {
        let cases = [
            ("a=1", "a=1"),
            (
                "a=1; Domain=v2.preview.test; Secure",
                "a=1; Domain=shop.test; Secure",
            ),
            ("a=1;domain=.Preview.test", "a=1; Domain=shop.test"),
            ("a=1; Domain=other.test", "a=1; Domain=other.test"),
            ("a=1; Domain=test", "a=1; Domain=test"),
            ("a=1; Domain=", "a=1; Domain="),
            ("a=Domain=v2.preview.test", "a=Domain=v2.preview.test"),
            ("a=1; Path=/v2; HttpOnly", "a=1; Path=/; HttpOnly"),
            ("a=1; path=/v2/a", "a=1; path=/a"),
            ("a=1; Path=/", "a=1; Path=/"),
            ("a=1; Path=/a", "a=1; Path=/a"),
        ];
        check(BELOW, ("shop.test:8443", "/x"), SET_COOKIE, &cases);
        // Both are below it.
        let cases = [("a=1; Domain=preview.test", "a=1; Domain=preview.test")];
        check(BELOW, ("www.preview.test", "/"), SET_COOKIE, &cases);
        let cases = [("a=1; Domain=v2.preview.test; Secure", "a=1; Secure")];
        check(BELOW, ("127.0.0.1:80", "/"), SET_COOKIE, &cases);
        check(BELOW, ("[::1]:80", "/"), SET_COOKIE, &cases);
        let cases = [
            ("a=1; Path=/", "a=1; Path=/"),
            ("a=1; Path=/me", "a=1; Path=/shop/me"),
        ];
        check(STRIPPED, ("shop.test", "/shop/x"), SET_COOKIE, &cases);
    }
}
