//! The page that a request belongs to: scripts, pictures, calls and forms follow the version of their page.

use super::http_view::{FieldName, HeaderView, RequestView, without_port};
use super::normal_path::normal_path;
use http::Method;
use std::borrow::Cow;
use std::net::IpAddr;

const ACCEPT: FieldName = FieldName::new("accept");
const REFERER: FieldName = FieldName::new("referer");
/// What browsers say of a request: how its response is used.
pub const FETCH_MODE: FieldName = FieldName::new("sec-fetch-mode");
/// What the response becomes.
pub const FETCH_DEST: FieldName = FieldName::new("sec-fetch-dest");
const FETCH_SITE: FieldName = FieldName::new("sec-fetch-site");

/// What browsers call frames.
const FRAMES: [&[u8]; 5] = [b"iframe", b"frame", b"embed", b"object", b"fencedframe"];
/// Ends of paths whose files load others.
const LOADING: [&str; 3] = [".css", ".js", ".mjs"];

/// A request as if it asked for the page that it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct PageView<'a, R> {
    request: R,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a, R: RequestView<'a>> PageView<'a, R> {
    /// Returns the page of a request that is a part of a page of the same host, or a form or call of one;
    /// `None` for a page itself.
    pub fn of(request: R) -> Option<PageView<'a, R>> {
        request.fields().field(REFERER)?;
        if is_page(request) {
            return None;
        }
        let (path, query) = referring_page(request)?;
        Some(PageView {
            request,
            path,
            query,
        })
    }
}

/// Whether a request asks for a page, or comes from another site.
fn is_page<'a>(request: impl RequestView<'a>) -> bool {
    !PageRequest::of(request).belongs
}

fn is_safe<'a>(request: impl RequestView<'a>) -> bool {
    let mut safe = [Method::GET, Method::HEAD].iter();
    safe.any(|it| request.has_method(it))
}

/// Whether the response becomes a page of its own in the browser: by a link, an address or a form.
fn is_navigation<'a>(request: impl RequestView<'a>) -> bool {
    let fields = request.fields();
    match fields.field(FETCH_MODE) {
        Some(mode) => mode == b"navigate",
        // Old browsers, and other clients.
        None => {
            let accepts = fields.field(ACCEPT).unwrap_or_default();
            accepts
                .windows(9)
                .any(|it| it.eq_ignore_ascii_case(b"text/html"))
        }
    }
}

/// What a request is to the pages that a browser has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Whether the response becomes a page of its own.
    pub opens: bool,
    /// Whether the response becomes a frame of the page that is open.
    pub frames: bool,
    /// Whether it is a part, form or call of a page that is open.
    pub belongs: bool,
}

impl PageRequest {
    /// Whether it is a form of a page that is open, whose response becomes a page.
    pub fn is_form(&self) -> bool {
        self.belongs && (self.opens || self.frames)
    }

    /// Reads the method, and what browsers say of their requests.
    pub fn of<'a>(request: impl RequestView<'a>) -> PageRequest {
        let fields = request.fields();
        let site = fields.field(FETCH_SITE);
        let is_same_site = site.is_none_or(|site| site == b"same-origin");
        // A frame is a part of the page around it, if that is of this site.
        let is_frame = || {
            fields
                .field(FETCH_DEST)
                .is_some_and(|to| FRAMES.contains(&to))
        };
        let navigates = is_navigation(request);
        let frames = navigates && is_same_site && is_frame();
        let opens = navigates && !frames;
        PageRequest {
            opens,
            frames,
            belongs: is_same_site && !(opens && is_safe(request)),
        }
    }
}

/// Whether a path in `Referer` is of a file that belongs to a page itself, such as a stylesheet that needs a font.
fn is_part(path: &str) -> bool {
    let ends = |end: &&str| {
        let at = path.len().checked_sub(end.len());
        at.and_then(|at| path.get(at..))
            .is_some_and(|it| it.eq_ignore_ascii_case(end))
    };
    LOADING.iter().any(ends)
}

/// Whether a request is for what files of a page load: its `Referer` names such a file, or nothing, or it is for a font, which
/// only stylesheets load.
pub fn is_of_part<'a>(request: impl RequestView<'a>) -> bool {
    let is_font = || request.fields().field(FETCH_DEST) == Some(b"font");
    referring_page(request).is_none_or(|(path, _)| is_part(path)) || is_font()
}

/// Returns the path and query of the page that a request names in `Referer`.
pub fn referring_page<'a>(request: impl RequestView<'a>) -> Option<(&'a str, Option<&'a str>)> {
    let referer = std::str::from_utf8(request.fields().field(REFERER)?).ok()?;
    let (scheme, rest) = referer.split_once("://")?;
    if !["http", "https"]
        .iter()
        .any(|it| scheme.eq_ignore_ascii_case(it))
    {
        return None;
    }
    let rest = rest.split('#').next().unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    if !without_port(authority).eq_ignore_ascii_case(request.host()) {
        return None;
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    Some((if path.is_empty() { "/" } else { path }, query))
}

impl<'a, R: RequestView<'a>> RequestView<'a> for PageView<'a, R> {
    type Headers = R::Headers;
    type NormalPath = Cow<'a, str>;

    fn has_method(self, method: &Method) -> bool {
        *method == Method::GET
    }

    fn path(self) -> &'a str {
        self.path
    }

    fn normal_path(self) -> Cow<'a, str> {
        normal_path(self.path)
    }

    fn query(self) -> Option<&'a str> {
        self.query
    }

    fn target_host(self) -> Option<&'a str> {
        self.request.target_host()
    }

    fn fields(self) -> R::Headers {
        self.request.fields()
    }

    fn client(self) -> Option<IpAddr> {
        self.request.client()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn parts_and_forms_have_a_page() {
        let check = |method: &str, fields: &[(&str, &str)], expected: Option<&str>| {
            let mut request = Request::builder().method(method).uri("/a");
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let page = PageView::of(&parts).map(|page| match page.query {
                Some(query) => format!("{}?{query}", page.path),
                None => page.path.to_owned(),
            });
            assert_eq!(page.as_deref(), expected, "{method} {fields:?}");
        };
        let host = ("host", "shop.test:8080");
        let page = ("referer", "https://shop.test/checkout/pay?step=2#top");
        let of_page = Some("/checkout/pay?step=2");
        let same = ("sec-fetch-site", "same-origin");
        check(
            "GET",
            &[host, page, same, ("sec-fetch-mode", "no-cors")],
            of_page,
        );
        check(
            "POST",
            &[host, page, same, ("sec-fetch-mode", "navigate")],
            of_page,
        );
        check(
            "GET",
            &[host, page, same, ("sec-fetch-mode", "navigate")],
            None,
        );
        // A frame of the site is a part of its page, and one of another site is a page.
        let frame = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        check("GET", &[host, page, same, frame[0], frame[1]], of_page);
        let other = ("sec-fetch-site", "cross-site");
        check("GET", &[host, page, other, frame[0], frame[1]], None);
        check("GET", &[host, page, ("sec-fetch-site", "cross-site")], None);
        check("GET", &[host, page, ("accept", "image/png")], of_page);
        check("GET", &[host, page, ("accept", "text/html, */*")], None);
        check("GET", &[host, ("accept", "image/png")], None);
        check("GET", &[host, ("referer", "https://shop.test")], Some("/"));
        check(
            "GET",
            &[host, ("referer", "https://shop.test?a")],
            Some("/?a"),
        );
        for other in [
            "https://other.test/checkout",
            "/checkout",
            "about:blank",
            "ftp://shop.test/x",
            "",
        ] {
            check("GET", &[host, ("referer", other)], None);
        }
    }
}
