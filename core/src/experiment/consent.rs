//! Whether a user has agreed to be recorded.

use super::http_view::HeaderView;
use super::pattern::ValuePattern;

/// The cookie without which nothing is recorded and control is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// Its name.
    pub cookie: Box<str>,
    /// Its value.
    pub value: ValuePattern,
}

impl Consent {
    /// Whether the user's cookies hold the consent.
    pub fn is_given<'a>(&self, fields: impl HeaderView<'a>) -> bool {
        let value = fields.cookies(&self.cookie).next();
        value.is_some_and(|value| self.value.matches(value))
    }
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
                value: ValuePattern::new(value),
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
