//! Who is eligible: patterns against what a request names. The input's lines are, in order: a
//! pattern of paths, one of hosts, the target, and `Host`.

use http::header::{HOST, HeaderName, HeaderValue};
use watershed::experiment::http_view::RequestView;
use watershed::experiment::matcher::{Condition, Matcher};
use watershed::experiment::normal_path::normal_path;
use watershed::experiment::path_regex::PathRegex;
use watershed::experiment::pattern::{HostPattern, PathPattern, ValuePattern, ValueTest};

/// Tries one input.
pub fn try_input(bytes: &[u8]) {
    let mut lines = bytes.splitn(4, |&byte| byte == b'\n');
    let mut text = || lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let (Some(path), Some(host), Some(target), Some(named)) = (text(), text(), text(), text())
    else {
        return;
    };
    // Patterns come from the file; a long one is the operator's own.
    if path.len() > 64 {
        return;
    }
    let Ok(request) = http::Request::builder().uri(target).body(()) else {
        return;
    };
    let (mut head, ()) = request.into_parts();
    if let Ok(named) = HeaderValue::from_str(named) {
        head.headers.insert(HOST, named);
    }
    let found = (&head).host().to_owned();
    let asked = (&head).normal_path().into_owned();
    assert_eq!(normal_path(&asked), asked, "the normal form has no other");
    let Ok(pattern) = PathPattern::new(path) else {
        if let Ok(regex) = PathRegex::new(path) {
            regex.matches(&asked);
        }
        return;
    };
    match &pattern {
        PathPattern::Exact(exact) => {
            assert_eq!(normal_path(exact), **exact, "a path that can match");
            assert_eq!(pattern.matches(&asked), **exact == *asked);
        }
        PathPattern::Under(base) => {
            assert!(pattern.matches(base) && pattern.matches(&format!("{base}/x")));
            assert!(!pattern.matches(&format!("{base}x")));
        }
        PathPattern::Glob(_) | PathPattern::Regex(_) => {
            pattern.matches(&asked);
        }
    }
    let Ok(hosts) = HostPattern::new(host) else {
        return;
    };
    assert_eq!(
        hosts.matches(&found),
        hosts.matches(&found.to_ascii_uppercase()),
        "hosts have no case"
    );
    let of_query = ValueTest::OneOf([ValuePattern::new("b c")].into());
    let conditions = [
        Condition::Header(HeaderName::from_static("host"), ValueTest::Present),
        Condition::Query("a".into(), of_query),
        Condition::Path(pattern.clone()),
        Condition::Host(hosts.clone()),
    ];
    let matcher = Matcher::new(Condition::All(conditions.into()));
    if matcher.matches(&head) {
        assert!(pattern.matches(&asked) && hosts.matches(&found));
        assert!(head.uri.query().is_some_and(|query| query.contains('=')));
    }
}
