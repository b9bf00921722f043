//! Whether a user has agreed to be recorded.

use super::http_view::HeaderView;
use super::identity::cookie_value;

/// The cookie without which nothing is recorded and control is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// Its name.
    pub cookie: Box<str>,
    /// Its value, with `*` for any text.
    pub value: Box<str>,
}

impl Consent {
    /// Whether the user's cookies hold the consent.
    pub fn is_given<'a>(&self, fields: impl HeaderView<'a>) -> bool {
        let value = cookie_value(fields, &self.cookie);
        value.is_some_and(|value| matches(self.value.as_bytes(), value))
    }
}

/// Matches a pattern in which only `*` is special: glob crates would interpret braces and brackets, which
/// such values contain.
fn matches(pattern: &[u8], value: &[u8]) -> bool {
    let mut parts = pattern.split(|&byte| byte == b'*');
    let Some(mut rest) = parts.next().and_then(|first| value.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&[u8]> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        let Some(at) = rest.windows(part.len()).position(|found| found == part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    #[test]
    fn consent_follows_the_cookie() {
        let given = |value: &str, cookies: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("cookie", cookies.parse().unwrap());
            let consent = Consent {
                cookie: "cc".into(),
                value: value.into(),
            };
            consent.is_given(&headers)
        };
        assert!(given("*", "cc=1") && given("*", "a=b; cc="));
        assert!(given("yes", "cc=yes") && !given("yes", "cc=yes2") && !given("yes", "xcc=yes"));
        assert!(
            given("*analytics*", r#"cc={"analytics":1}"#) && given("*analytics*", "cc=analytics")
        );
        assert!(
            given("a*b*c", "cc=a1b2c") && given("a*b*c", "cc=abc") && !given("a*b*c", "cc=acb")
        );
        assert!(!given("a*a", "cc=a") && !given("*x*", "cc=y"));
        assert!(!given("*", "other=1"));
    }
}
