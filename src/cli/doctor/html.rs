//! The addresses in a page.

use regex::bytes::Regex;
use std::sync::LazyLock;

/// An address of a page or a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageAddress {
    /// `http` or `https`.
    pub scheme: String,
    /// The host, with its port if it has one, in lower case.
    pub authority: String,
    /// The path and query.
    pub target: String,
}

#[expect(clippy::expect_used, reason = "the text is a constant, and tested")]
static LINKS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?is-u)<(script|link|img|source|form|a|iframe)\b[^>]*?\s(?:src|href|action)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))"#,
    )
    .expect("a sound expression")
});

/// A link of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageLink {
    /// Whether the page needs it: a script, a stylesheet or a picture.
    pub is_part: bool,
    /// Where it leads.
    pub address: PageAddress,
}

impl PageAddress {
    /// Reads the address of a site.
    pub fn of_site(text: &str) -> Option<PageAddress> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let rest = rest.split('#').next()?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let is_host = !authority.is_empty() && !authority.contains(['@', ' ', '\\']);
        (["http", "https"].contains(&&*scheme) && is_host).then(|| PageAddress {
            scheme,
            authority: authority.to_ascii_lowercase(),
            target: match target {
                "" => "/".to_owned(),
                target if target.starts_with('?') => format!("/{target}"),
                target => target.to_owned(),
            },
        })
    }

    /// Where a link in the page at this address leads; `None` for what is no page or file.
    pub fn join(&self, link: &str) -> Option<PageAddress> {
        let link = link.trim().split('#').next()?;
        if link.is_empty() {
            return None;
        }
        if let Some(rest) = link.strip_prefix("//") {
            return PageAddress::of_site(&format!("{}://{rest}", self.scheme));
        }
        if link.contains("://") {
            return PageAddress::of_site(link);
        }
        let before = link.split(['/', '?']).next().unwrap_or_default();
        if before.contains(':') {
            return None;
        }
        let path = self.target.split('?').next().unwrap_or_default();
        let target = match link.as_bytes()[0] {
            b'/' => link.to_owned(),
            b'?' => format!("{path}{link}"),
            _ => {
                let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
                format!("{folder}{}", link.trim_start_matches("./"))
            }
        };
        Some(PageAddress {
            target,
            ..self.clone()
        })
    }

    /// Whether both have the same host and port.
    pub fn is_same_site(&self, other: &PageAddress) -> bool {
        self.authority == other.authority
    }
}

impl std::fmt::Display for PageAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.target)
    }
}

/// The links of a page.
pub fn links(page: &PageAddress, text: &str) -> Vec<PageLink> {
    let found = LINKS.captures_iter(text.as_bytes()).filter_map(|found| {
        let value = (2..=4).find_map(|place| found.get(place))?.as_bytes();
        let value = String::from_utf8_lossy(value);
        let parts = ["script", "link", "img", "source"];
        Some(PageLink {
            is_part: parts
                .iter()
                .any(|tag| found[1].eq_ignore_ascii_case(tag.as_bytes())),
            address: page.join(&value.replace("&amp;", "&"))?,
        })
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
    fn links_of_a_page_are_found() {
        let page = PageAddress::of_site("http://a.test/").unwrap();
        let text = "<html><SCRIPT async src='/app.js?a=1&amp;b'></script><link rel=x href=/app.css>\
                    <a class=\"b\" href=\"/next\">data-src=\"/no\"</a><form action=/pay><img alt=x>";
        let found = links(&page, text);
        let found: Vec<_> = found
            .iter()
            .map(|it| (it.is_part, &*it.address.target))
            .collect();
        let expected = [
            (true, "/app.js?a=1&b"),
            (true, "/app.css"),
            (false, "/next"),
            (false, "/pay"),
        ];
        assert_eq!(found, expected);
    }
}
