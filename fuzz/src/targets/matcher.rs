//! Who is eligible: patterns against what a request names. The input's lines are, in order: a
//! pattern of paths, one of hosts, the target, and `Host`.

use http::header::{HOST, HeaderName, HeaderValue};
use watershed::experiment::http_view::RequestView;
use watershed::experiment::matcher::{HostPattern, Matcher, PathPattern, ValuePattern};

/// Tries one input.
pub fn try_input(bytes: &[u8]) {
    let mut lines = bytes.splitn(4, |&byte| byte == b'\n');
    let mut text = || lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let (Some(path), Some(host), Some(target), Some(named)) = (text(), text(), text(), text())
    else {
        return;
    };
    // Patterns come from the file, where they begin with `/`; a long one is the operator's own.
    if path.len() > 64 || !path.starts_with('/') {
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
    let pattern = PathPattern::new(path);
    let hosts = HostPattern::new(host);
    let asked = head.uri.path().to_owned();
    match &pattern {
        PathPattern::Exact(exact) => assert_eq!(pattern.matches(&asked), **exact == *asked),
        PathPattern::Under(base) => {
            assert!(pattern.matches(base) && pattern.matches(&format!("{base}/x")));
            assert!(!pattern.matches(&format!("{base}x")));
        }
        PathPattern::Glob(_) => {
            pattern.matches(&asked);
        }
    }
    assert_eq!(
        hosts.matches(&found),
        hosts.matches(&found.to_ascii_uppercase()),
        "hosts have no case"
    );
    let matcher = Matcher {
        path: Some(pattern.clone()),
        host: Some(hosts.clone()),
        methods: Vec::new(),
        headers: vec![ValuePattern {
            name: HeaderName::from_static("host"),
            value: None,
        }],
        query: vec![ValuePattern {
            name: "a".into(),
            value: Some("b c".into()),
        }],
    };
    if matcher.matches(&head) {
        assert!(pattern.matches(&asked) && hosts.matches(&found));
        assert!(head.uri.query().is_some_and(|query| query.contains('=')));
    }
}
