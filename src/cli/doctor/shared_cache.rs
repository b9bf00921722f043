//! A shared cache, as a CDN has it: it keeps what it may (RFC 9111), and answers others with it.

use super::browser::Seen;
use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL, EXPIRES, VARY};

/// Responses that the cache keeps.
#[derive(Debug, Default)]
pub(super) struct SharedCache<'a>(Vec<&'a Seen>);

impl<'a> SharedCache<'a> {
    /// Returns what the cache would answer in the place of a response, and keeps that if it may.
    pub(super) fn ask(&mut self, seen: &'a Seen) -> Option<&'a Seen> {
        let mut kept = self.0.iter();
        let found = kept.find(|it| it.address == seen.address && has_same_key(it, &seen.asked));
        if let Some(found) = found {
            return Some(found);
        }
        if may_keep(seen) {
            self.0.push(seen);
        }
        None
    }
}

/// Whether a shared cache may keep a response without asking again.
pub(super) fn may_keep(seen: &Seen) -> bool {
    let lines: Vec<&str> = seen.all(&CACHE_CONTROL).collect();
    let lines = lines.join(",").to_ascii_lowercase();
    let directives: Vec<&str> = lines.split(',').map(str::trim).collect();
    let has = |name: &str| {
        directives
            .iter()
            .any(|it| it.split('=').next() == Some(name))
    };
    let lasts = |name: &str| {
        let mut found = directives
            .iter()
            .filter_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        found
            .next()
            .and_then(|value| value.trim_matches('"').parse::<u64>().ok())
    };
    let lasts = match (lasts("s-maxage"), lasts("max-age")) {
        (Some(seconds), _) | (None, Some(seconds)) => seconds > 0,
        (None, None) => seen.fields.contains_key(EXPIRES) || has("public"),
    };
    let is_final = seen.status.is_success() || seen.status.is_redirection();
    let varies_by_all = seen.all(&VARY).any(|it| it.contains('*'));
    is_final && lasts && !has("private") && !has("no-store") && !has("no-cache") && !varies_by_all
}

/// Whether a cache in front of the proxy has answered already.
pub(super) fn comes_from_a_cache(seen: &Seen) -> Option<u64> {
    let age = seen.all(&AGE).next()?;
    age.trim().parse().ok().filter(|age| *age > 0)
}

fn has_same_key(kept: &Seen, asked: &HeaderMap) -> bool {
    let names: Vec<&str> = kept
        .all(&VARY)
        .flat_map(|it| it.split(','))
        .map(str::trim)
        .collect();
    names
        .iter()
        .all(|name| kept.asked.get(*name) == asked.get(*name))
}

/// A page without what differs from one request to the next: long tokens, and numbers.
pub(super) fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let is_word = |it: char| it.is_ascii_alphanumeric() || "_-+/=".contains(it);
    for word in text.split_inclusive(|it: char| !is_word(it)) {
        let (body, end) = word.split_at(word.trim_end_matches(|it: char| !is_word(it)).len());
        let has_digit = body.contains(|it: char| it.is_ascii_digit());
        match has_digit && (body.len() >= 16 || body.chars().all(|it| it.is_ascii_digit())) {
            true => masked.push('*'),
            false => masked.push_str(body),
        }
        masked.push_str(end);
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::html::PageAddress;
    use http::{HeaderName, HeaderValue, StatusCode};

    fn seen(text: &str, asked: &[(&str, &str)], fields: &[(&str, &str)]) -> Seen {
        let map = |all: &[(&str, &str)]| -> HeaderMap {
            let field = |&(name, value): &(&str, &str)| {
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_str(value).unwrap())
            };
            all.iter().map(field).collect()
        };
        Seen {
            address: PageAddress::of_site("http://a.test/").unwrap(),
            asked: map(asked),
            status: StatusCode::OK,
            fields: map(fields),
            text: text.to_owned(),
        }
    }

    #[test]
    fn cache_keeps_what_it_may() {
        let check = |value: &str, expected: bool| {
            let seen = seen("", &[], &[("cache-control", value)]);
            assert_eq!(may_keep(&seen), expected, "{value}");
        };
        check("public, max-age=60", true);
        check("max-age=60", true);
        check("S-Maxage=\"60\", max-age=0", true);
        check("public", true);
        check("max-age=60, private", false);
        check("max-age=60, no-cache=\"set-cookie\"", false);
        check("s-maxage=0, max-age=60", false);
        check("no-store, max-age=60", false);
        check("", false);
    }

    #[test]
    fn cache_answers_by_the_fields_that_vary() {
        let fields = [
            ("cache-control", "public, max-age=60"),
            ("vary", "Cookie, X-A"),
        ];
        let one = seen("1", &[("cookie", "a=1")], &fields);
        let other = seen("2", &[("cookie", "a=2")], &fields);
        let same = seen("3", &[("cookie", "a=1"), ("x-b", "1")], &fields);
        let mut cache = SharedCache::default();
        assert!(cache.ask(&one).is_none() && cache.ask(&other).is_none());
        assert_eq!(cache.ask(&same).unwrap().text, "1");
    }

    #[test]
    fn what_differs_by_request_is_masked() {
        let check = |one: &str, other: &str, expected: bool| {
            assert_eq!(masked(one) == masked(other), expected, "{one} {other}");
        };
        check("<b>at 12:30</b>", "<b>at 1:07</b>", true);
        check(
            "<i value=\"a8f1c0d2e3f4a5b6c7\">",
            "<i value=\"00f1c0d2e3f4a5b6ff\">",
            true,
        );
        check("<b>old</b>", "<b>new</b>", false);
        check("app.js", "app2.js", false);
    }
}
