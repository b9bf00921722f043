//! The addresses in a page.

use regex::bytes::{Captures, Regex};
use std::sync::LazyLock;
use url::{Position, Url};

/// An address of a page or a file, without a fragment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PageAddress(Url);

#[expect(clippy::expect_used, reason = "the text is a constant, and tested")]
static LINKS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?is-u)<(script|link|img|source|form|a|iframe)\b[^>]*?\s(?:src|href|action)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))"#,
    )
    .expect("a sound expression")
});

#[expect(clippy::expect_used, reason = "the text is a constant, and tested")]
static BASE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?is-u)<base\b[^>]*?\shref\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))"#)
        .expect("a sound expression")
});

#[expect(clippy::expect_used, reason = "the text is a constant, and tested")]
static META: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?is-u)<meta\b(?:[^>"']|"[^"]*"|'[^']*')*>"#).expect("a sound expression")
});

/// What a `content` of `<meta http-equiv=refresh>` names.
#[expect(clippy::expect_used, reason = "the text is a constant, and tested")]
static REFRESH: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?is-u)\scontent\s*=\s*["']?\s*[\d.]+\s*[;,]\s*(?:url\s*=\s*)?(?:"([^"]*)"|'([^']*)'|([^"'>]+))"#,
    )
    .expect("a sound expression")
});

#[expect(clippy::expect_used, reason = "the text is a constant, and tested")]
static STYLE_LINKS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?i-u)url\(\s*(?:"([^"]*)"|'([^']*)'|([^\s"'()]+))|@import\s+(?:"([^"]*)"|'([^']*)')"#,
    )
    .expect("a sound expression")
});

/// A link of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PageLink {
    /// Whether the page needs it: a script, a stylesheet or a picture.
    pub is_part: bool,
    /// Where it leads.
    pub address: PageAddress,
}

impl PageAddress {
    /// Reads the address of a site.
    pub(super) fn of_site(text: &str) -> Option<PageAddress> {
        PageAddress::of_url(Url::parse(text).ok()?)
    }

    fn of_url(mut url: Url) -> Option<PageAddress> {
        url.set_fragment(None);
        let has_user = !url.username().is_empty() || url.password().is_some();
        (matches!(url.scheme(), "http" | "https") && !has_user).then_some(PageAddress(url))
    }

    /// Where a link in the page at this address leads; `None` for what is no page or file.
    pub(super) fn join(&self, link: &str) -> Option<PageAddress> {
        let link = link.trim();
        match link.is_empty() || link.starts_with('#') {
            true => None,
            false => PageAddress::of_url(self.0.join(link).ok()?),
        }
    }

    /// Where a browser goes that knows a site by `https` only (RFC 6797 8.3).
    pub(super) fn known_from(self, page: &PageAddress) -> PageAddress {
        let mut upgraded = self.0.clone();
        if page.scheme() != "https" || upgraded.set_scheme("https").is_err() {
            return self;
        }
        match PageAddress(upgraded) {
            upgraded if upgraded.is_same_site(page) => upgraded,
            _ => self,
        }
    }

    /// Whether this is a page of `http`, and `other` the same host with `https`.
    pub(super) fn is_made_secure_by(&self, other: &PageAddress) -> bool {
        let is_same = self.0.host_str() == other.0.host_str();
        is_same && self.scheme() == "http" && other.scheme() == "https"
    }

    /// `http` or `https`.
    pub(super) fn scheme(&self) -> &str {
        self.0.scheme()
    }

    /// The host, with its port if that is not the usual one of the scheme.
    pub(super) fn authority(&self) -> &str {
        self.0.authority()
    }

    /// The path and query.
    pub(super) fn target(&self) -> &str {
        &self.0[Position::BeforePath..]
    }

    /// Whether both have the same host and port.
    pub(super) fn is_same_site(&self, other: &PageAddress) -> bool {
        self.authority() == other.authority()
    }
}

impl std::fmt::Display for PageAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The links of a page, with those of `<base>` and `<meta http-equiv=refresh>`.
pub(super) fn links(page: &PageAddress, text: &str) -> Vec<PageLink> {
    let link = |is_part: bool, address: PageAddress| PageLink { is_part, address };
    // Of several the first one counts (HTML, 4.2.3).
    let base = BASE.captures(text.as_bytes());
    let base = base.and_then(|found| page.join(&address(&found, 1)?));
    let from = base.as_ref().unwrap_or(page);
    let found = LINKS.captures_iter(text.as_bytes()).filter_map(|found| {
        let parts = ["script", "link", "img", "source"];
        let is_tag = |tag: &&str| found[1].eq_ignore_ascii_case(tag.as_bytes());
        let is_part = parts.iter().any(is_tag);
        Some(link(is_part, from.join(&address(&found, 2)?)?))
    });
    let refreshes = META.find_iter(text.as_bytes()).filter_map(|tag| {
        let found = REFRESH.captures(tag.as_bytes())?;
        let is_refresh = contains_word(tag.as_bytes(), b"refresh");
        Some(link(false, from.join(&address(&found, 1)?)?)).filter(|_| is_refresh)
    });
    let all: Vec<PageLink> = found.chain(refreshes).collect();
    let base = base.map(|base| link(false, base));
    base.into_iter().chain(all).collect()
}

/// The address in the first of the three groups from `first` that has one.
fn address(found: &Captures<'_>, first: usize) -> Option<String> {
    let mut groups = first..first + 3;
    let value = groups.find_map(|place| found.get(place))?.as_bytes();
    Some(String::from_utf8_lossy(value).replace("&amp;", "&"))
}

/// Whether a tag has this word, in any case.
fn contains_word(tag: &[u8], word: &[u8]) -> bool {
    tag.windows(word.len())
        .any(|it| it.eq_ignore_ascii_case(word))
}

/// The files that a stylesheet needs.
pub(super) fn style_links(style: &PageAddress, text: &str) -> Vec<PageAddress> {
    let found = STYLE_LINKS.captures_iter(text.as_bytes());
    let found = found.filter_map(|found| {
        let value = (1..=5).find_map(|place| found.get(place))?.as_bytes();
        let value = String::from_utf8_lossy(value);
        style.join(&value)
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_resolved() {
        let page = PageAddress::of_site("https://Shop.test/a/b?c=1#d").unwrap();
        let check = |link: &str, expected: Option<&str>| {
            let found = page.join(link).map(|it| it.to_string());
            assert_eq!(found.as_deref(), expected, "{link}");
        };
        check("/x.js", Some("https://shop.test/x.js"));
        check("x.js", Some("https://shop.test/a/x.js"));
        check("../x.js", Some("https://shop.test/x.js"));
        check("./x.js?v=1", Some("https://shop.test/a/x.js?v=1"));
        check("?q", Some("https://shop.test/a/b?q"));
        check("//cdn.test/x.js", Some("https://cdn.test/x.js"));
        check("http://shop.test", Some("http://shop.test/"));
        check("data:image/png;base64,AA", None);
        check("mailto:a@b.test", None);
        check("#top", None);
        check("", None);
        for other in ["shop.test", "ftp://a.test/", "http://", "http://a@b/", ""] {
            assert_eq!(PageAddress::of_site(other), None, "{other}");
        }
    }

    #[test]
    fn sites_with_https_are_asked_by_https() {
        let check = |page: &str, to: &str, expected: &str| {
            let page = PageAddress::of_site(page).unwrap();
            let to = PageAddress::of_site(to).unwrap().known_from(&page);
            assert_eq!(to.to_string(), expected);
        };
        check("https://a.test/", "http://a.test/b", "https://a.test/b");
        check("https://a.test/", "http://a.test:80/", "https://a.test/");
        check("https://a.test:1/", "http://a.test:1/", "https://a.test:1/");
        check("https://a.test/", "http://b.test/", "http://b.test/");
        check("http://a.test/", "http://a.test/b", "http://a.test/b");
        check("http://a.test/", "https://a.test/b", "https://a.test/b");
    }

    #[test]
    fn files_of_a_stylesheet_are_found() {
        let style = PageAddress::of_site("http://a.test/css/app.css").unwrap();
        let text = "@import 'base.css'; @IMPORT url(\"/theme.css\") screen; .a { background: url( bg.png ) }\
                    @font-face { src: url(f.woff2) format('woff2'), URL('/g.woff2'); } .b { background: url(data:image/png;base64,AA) }";
        let found = style_links(&style, text);
        let found: Vec<_> = found.iter().map(PageAddress::target).collect();
        let expected = [
            "/css/base.css",
            "/theme.css",
            "/css/bg.png",
            "/css/f.woff2",
            "/g.woff2",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn links_of_a_page_are_found() {
        let page = PageAddress::of_site("http://a.test/").unwrap();
        let text = "<html><SCRIPT async src='/app.js?a=1&amp;b'></script><link rel=x href=/app.css>\
                    <a class=\"b\" href=\"/next\">data-src=\"/no\"</a><form action=/pay><img alt=x>";
        let found = links(&page, text);
        let found: Vec<_> = found
            .iter()
            .map(|it| (it.is_part, it.address.target()))
            .collect();
        let expected = [
            (true, "/app.js?a=1&b"),
            (true, "/app.css"),
            (false, "/next"),
            (false, "/pay"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn base_and_refresh_of_a_page_are_links() {
        let page = PageAddress::of_site("http://a.test/b/").unwrap();
        let check = |text: &str, expected: &[(bool, &str)]| {
            let found = links(&page, text);
            let found: Vec<_> = found
                .iter()
                .map(|it| (it.is_part, it.address.to_string()))
                .collect();
            let found: Vec<_> = found.iter().map(|(part, it)| (*part, &**it)).collect();
            assert_eq!(found, expected, "{text}");
        };
        check(
            "<base target=_top href='/v2/'><base href=/no/><script src=app.js></script>",
            &[
                (false, "http://a.test/v2/"),
                (true, "http://a.test/v2/app.js"),
            ],
        );
        check(
            "<base href=http://origin.test:81/><img src=/a.png>",
            &[
                (false, "http://origin.test:81/"),
                (true, "http://origin.test:81/a.png"),
            ],
        );
        check(
            "<META HTTP-EQUIV=\"Refresh\" content=\"0; URL='http://b.test/?a=1&amp;b'\">",
            &[(false, "http://b.test/?a=1&b")],
        );
        check(
            "<meta content='5;url=next' http-equiv=refresh>",
            &[(false, "http://a.test/b/next")],
        );
        check(
            "<meta content=\"0; ../c\" http-equiv=refresh>",
            &[(false, "http://a.test/c")],
        );
        check(
            "<meta http-equiv=refresh content=30><meta name=x content='0; url=/no'>",
            &[],
        );
    }
}
