//! `domain:` of a cookie: browsers drop a cookie whose Domain they refuse, without a word.

use super::conditions::punycode;
use super::reader::Node;
use std::net::IpAddr;

const DOMAIN: &str = "a domain of the site, such as example.com";
const WITHOUT: &str = "leave `domain` out: the cookie then belongs to the host";

/// Reads the Domain of a cookie (RFC 6265, 5.2.3). The dot that old browsers wanted in front is removed.
pub(super) fn read(node: &Node<'_>) -> Option<Box<str>> {
    let text = node.text(DOMAIN)?;
    let domain = text.strip_prefix('.').unwrap_or(text);
    match fault(domain) {
        None => Some(domain.to_ascii_lowercase().into()),
        Some((why, allowed)) => {
            node.problem(
                format!("browsers refuse the domain {text:?}: {why}"),
                allowed,
            );
            None
        }
    }
}

/// Why browsers refuse a domain, and what to write instead.
fn fault(domain: &str) -> Option<(&'static str, String)> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_letter);
    let bare = domain.trim_start_matches('[').trim_end_matches(']');
    let of = |why, allowed: &str| Some((why, allowed.to_owned()));
    if !domain.is_ascii() {
        let sent = punycode(domain).map_or(DOMAIN.to_owned(), |sent| format!("write {sent}"));
        return Some(("it is not in Punycode", sent));
    }
    if domain.contains('/') {
        return of("it is no URL", DOMAIN);
    }
    if bare.parse::<IpAddr>().is_ok() {
        return of("it is an address", WITHOUT);
    }
    if domain.contains(':') {
        return of("it has no port", DOMAIN);
    }
    if domain.contains('*') {
        return of(
            "it has no `*`",
            "write the domain alone: its cookies are also sent to all hosts below it",
        );
    }
    if domain.len() > 253 || !domain.split('.').all(is_label) {
        return of("it is no name of a host", DOMAIN);
    }
    if !domain.contains('.') {
        return of("it is a single label", WITHOUT);
    }
    if is_public_suffix(domain) {
        return of(
            "it is a public suffix, whose hosts have different owners",
            WITHOUT,
        );
    }
    None
}

/// Whether the public suffix list has this domain.
fn is_public_suffix(domain: &str) -> bool {
    let domain = domain.to_ascii_lowercase();
    let suffix = psl::suffix(domain.as_bytes());
    suffix.is_some_and(|suffix| suffix.is_known() && suffix.as_bytes() == domain.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_that_browsers_refuse_are_faults() {
        for domain in [
            "example.com",
            "shop.example.co.uk",
            "my-site.github.io",
            "a_b.example",
            "Example.COM",
        ] {
            assert_eq!(fault(domain), None, "{domain}");
        }
        for (domain, why) in [
            ("com", "single label"),
            ("localhost", "single label"),
            ("co.uk", "public suffix"),
            ("CO.UK", "public suffix"),
            ("github.io", "public suffix"),
            ("xn--p1ai", "single label"),
            ("127.0.0.1", "an address"),
            ("[::1]", "an address"),
            ("::1", "an address"),
            ("example.com:8080", "no port"),
            ("https://example.com", "no URL"),
            ("example.com/", "no URL"),
            (".example.com", "no name"),
            ("example..com", "no name"),
            ("example.com.", "no name"),
            ("", "no name"),
            ("exa mple.com", "no name"),
            ("example.com; Path=/", "no URL"),
            ("a=b.com", "no name"),
            ("*.example.com", "no `*`"),
            ("m\u{fc}nchen.example", "Punycode"),
        ] {
            let found = fault(domain).map(|(why, _)| why);
            assert!(
                found.is_some_and(|found| found.contains(why)),
                "{domain} {found:?}"
            );
        }
        let (_, allowed) = fault("m\u{fc}nchen.example").unwrap();
        assert_eq!(allowed, "write xn--mnchen-3ya.example");
    }
}
