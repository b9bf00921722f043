//! Masks what differs between two responses although they show the same: nonces, tokens, dates, times
//! and white space. PURE.
//!
//! Masking is a guess about text. It may hide a difference between two long random texts, and it may leave a
//! short token in place; it never depends on anything but the text and the time that it is given.

use regex::bytes::{Captures, Regex, RegexBuilder};
use std::borrow::Cow;
use std::sync::LazyLock;

/// Stands in place of what was masked.
pub const MASK: &[u8] = b"(masked)";
/// The shortest text of letters and digits that may be a token, in bytes.
const TOKEN_BYTES_MIN: usize = 16;
/// The shortest token of letters of one case and digits, in bytes.
const PLAIN_TOKEN_BYTES_MIN: usize = 20;
/// Longer texts are images, fonts and the like: content, in bytes.
const TOKEN_BYTES_MAX: usize = 1_024;
/// How far from now a number of seconds is taken for a time: a year.
const EPOCH_WITHIN_S: u64 = 366 * 24 * 3_600;

/// Names of what changes with each response.
const LABEL: &str =
    "csrf|xsrf|nonce|authenticity[_-]?token|requestverificationtoken|viewstate|eventvalidation";

/// Tags of fields with such a name: `<input name="csrf_token" value="…">`.
static LABELLED_TAG: LazyLock<Regex> = LazyLock::new(|| {
    compiled(&format!(
        "<(?:input|meta)[^>]{{0,1000}}(?:{LABEL})[^>]{{0,4000}}>"
    ))
});

/// Attributes of such tags that have the value.
static TAG_VALUE: LazyLock<Regex> =
    LazyLock::new(|| compiled(r#"([\s"'](?:value|content)\s*=\s*)("[^"]*"|'[^']*'|[^\s"'>]+)"#));

/// What is masked in text, each in a group of its own.
static TOKENS: LazyLock<Regex> = LazyLock::new(|| {
    let label = format!(
        r#"(?P<label>(?:{LABEL})[a-z0-9_-]{{0,40}}["']?\s{{0,8}}[:=]\s{{0,8}}["'])[^"'<>\r\n]{{1,4096}}"#
    );
    let policy = "(?P<policy>'nonce-)[a-z0-9+/_=-]{1,512}";
    let rfc_3339 = r"(?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}[t ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?(?:z|[+-][0-9]{2}:?[0-9]{2})?)";
    let http = r"(?P<date>(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6}, [0-9]{1,2}[ -](?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}[ -][0-9]{2,4} [0-9]{2}:[0-9]{2}:[0-9]{2}(?: (?:gmt|utc|[+-][0-9]{4}))?)";
    // Those of versions, that watershed gives pages itself.
    let version = "(?P<version>[a-z0-9_-]{20,90}~[0-9a-f]{9,24})";
    let run = "(?P<run>[a-z0-9_+/-]{10,}={0,2})";
    compiled(&[&*label, policy, rfc_3339, http, version, run].join("|"))
});

static UUID: LazyLock<Regex> =
    LazyLock::new(|| compiled("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"));

fn compiled(pattern: &str) -> Regex {
    let mut builder = RegexBuilder::new(pattern);
    let builder = builder.unicode(false).case_insensitive(true);
    // The patterns are constants, and each is compiled by a test.
    builder.build().expect("a sound pattern")
}

/// Returns a text with everything masked that changes with each response. `now_s` is the time of the responses
/// in Unix seconds.
pub fn mask(text: &[u8], now_s: u64) -> Vec<u8> {
    let tagged = LABELLED_TAG.replace_all(text, |found: &Captures<'_>| {
        let value = |found: &Captures<'_>| [&found[1], b"\"", MASK, b"\""].concat();
        TAG_VALUE.replace_all(&found[0], value).into_owned()
    });
    let masked = TOKENS.replace_all(&tagged, |found: &Captures<'_>| token(found, now_s));
    without_white_space(&masked)
}

/// Whether a part of a path names one thing among many: a number, or something like a token.
pub fn is_identifier(segment: &[u8]) -> bool {
    let runs = segment.split(|byte| !byte.is_ascii_digit());
    let longest = runs.map(<[u8]>::len).max().unwrap_or(0);
    let is_number = !segment.is_empty() && segment.iter().all(u8::is_ascii_digit);
    is_number || longest >= 3 || is_token(segment) || UUID.is_match(segment)
}

/// What stands in the place of one match.
fn token(found: &Captures<'_>, now_s: u64) -> Vec<u8> {
    if let Some(run) = found.name("run") {
        return run_of_letters(run.as_bytes(), now_s).into_owned();
    }
    let before = found.name("label").or(found.name("policy"));
    let before = before.map_or(&b""[..], |it| it.as_bytes());
    [before, MASK].concat()
}

/// Masks tokens in a run of letters, digits and what stands between them in paths and names.
fn run_of_letters(run: &[u8], now_s: u64) -> Cow<'_, [u8]> {
    if is_token(run) {
        return Cow::Borrowed(MASK);
    }
    let run = UUID.replace_all(run, MASK);
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric();
    let mut masked = Vec::with_capacity(run.len());
    let mut rest = &*run;
    while !rest.is_empty() {
        let is_text = is_part(&rest[0]);
        let end = rest.iter().position(|byte| is_part(byte) != is_text);
        let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
        let goes = is_text && (is_token(part) || is_epoch_time(part, now_s));
        masked.extend_from_slice(if goes { MASK } else { part });
        rest = after;
    }
    Cow::Owned(masked)
}

/// Whether a text looks as if chance had made it: hexadecimal digits, or letters and digits without order.
fn is_token(text: &[u8]) -> bool {
    let end = text.iter().rposition(|&byte| byte != b'=');
    let text = &text[..end.map_or(0, |end| end + 1)];
    if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len()) {
        return false;
    }
    let kinds: Vec<Kind> = text.iter().map(|&byte| Kind::of(byte)).collect();
    let count = |kind: Kind| kinds.iter().filter(|it| **it == kind).count();
    let (lower, upper, digits) = (count(Kind::Lower), count(Kind::Upper), count(Kind::Digit));
    let others = text.len() - lower - upper - digits;
    if digits == 0 || lower + upper == 0 {
        return false;
    }
    if others == 0 && text.iter().all(u8::is_ascii_hexdigit) {
        return true;
    }
    let changes = kinds.windows(2).filter(|two| two[0] != two[1]).count();
    let is_restless = 10 * changes >= 4 * (text.len() - 1);
    match lower > 0 && upper > 0 {
        // Base64 has two such characters among 64.
        true => is_restless && 100 * others <= 12 * text.len(),
        false => {
            let has_digits = 100 * digits >= 15 * text.len();
            is_restless && has_digits && others == 0 && text.len() >= PLAIN_TOKEN_BYTES_MIN
        }
    }
}

/// What kind of character a byte is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lower,
    Upper,
    Digit,
    Other,
}

impl Kind {
    fn of(byte: u8) -> Kind {
        match byte {
            b'a'..=b'z' => Kind::Lower,
            b'A'..=b'Z' => Kind::Upper,
            b'0'..=b'9' => Kind::Digit,
            _ => Kind::Other,
        }
    }
}

/// Whether digits are a time of about now, in seconds, or in thousandths, millionths or billionths of them.
fn is_epoch_time(digits: &[u8], now_s: u64) -> bool {
    if !matches!(digits.len(), 10 | 13 | 16 | 19) || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let seconds = digits[..10].iter();
    let seconds = seconds.fold(0, |all, digit| all * 10 + u64::from(digit - b'0'));
    seconds.abs_diff(now_s) <= EPOCH_WITHIN_S
}

/// Makes white space one space, and none between tags and at the ends.
fn without_white_space(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut is_pending = false;
    for &byte in text {
        if byte.is_ascii_whitespace() {
            is_pending = true;
            continue;
        }
        let is_between = byte == b'<' && out.last() == Some(&b'>');
        if is_pending && !out.is_empty() && !is_between {
            out.push(b' ');
        }
        is_pending = false;
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    const NOW_S: u64 = 1_795_000_000;

    fn masked(text: &str) -> String {
        String::from_utf8(mask(text.as_bytes(), NOW_S)).unwrap()
    }

    /// Both are the same page.
    #[track_caller]
    fn same(one: &str, other: &str) {
        assert_eq!(masked(one), masked(other));
    }

    /// They are different pages.
    #[track_caller]
    fn differ(one: &str, other: &str) {
        assert_ne!(masked(one), masked(other));
    }

    #[test]
    fn what_changes_with_each_response_is_masked() {
        let known = [
            ("id 019341e2-7d4c-7bbb-8ccc-0123456789ab.", "id (masked)."),
            ("/u/019341e2-7d4c-7bbb-8ccc-0123456789ab/x", "/u/(masked)/x"),
            ("at 2026-11-24T10:00:00.123Z!", "at (masked)!"),
            ("at 2026-11-24 10:00:00+01:00", "at (masked)"),
            ("Sun, 06 Nov 1994 08:49:37 GMT", "(masked)"),
            ("Sunday, 06-Nov-94 08:49:37 GMT", "(masked)"),
            ("t=1795000123&", "t=(masked)&"),
            ("t=1795000123456", "t=(masked)"),
            ("t=1795000123456789", "t=(masked)"),
            ("key 8f3d2a1b9c0e4f5a end", "key (masked) end"),
            ("q9Xk2LmP0aZ7vR3tYb1Nw8Q==", "(masked)"),
            ("a/b+4kZ9xQ2pLm7Rt0Yw3Vs8A=", "(masked)"),
            ("<b nonce=\"k3\">", "<b nonce=\"(masked)\">"),
            ("script-src 'nonce-abc123'", "script-src 'nonce-(masked)'"),
            ("{\"csrfToken\": \"s3\"}", "{\"csrfToken\": \"(masked)\"}"),
            ("var csrf_token = 'a b';", "var csrf_token = '(masked)';"),
            (
                "<input type=\"hidden\" name=\"csrfmiddlewaretoken\" value=\"short\">",
                "<input type=\"hidden\" name=\"csrfmiddlewaretoken\" value=\"(masked)\">",
            ),
            (
                "<input value='short' name='authenticity_token'>",
                "<input value=\"(masked)\" name='authenticity_token'>",
            ),
            (
                "<meta name=\"csrf-token\" content=\"x y\" />",
                "<meta name=\"csrf-token\" content=\"(masked)\" />",
            ),
            (
                "<meta name=\"version\" content=\"aXk2LmP0aZ7vR3tYb1Nw8Q_-aXk2LmP0aZ7vR3tYb1Nw~83bc306479cd6\">",
                "<meta name=\"version\" content=\"(masked)\">",
            ),
            ("<p>\n   a  b\t</p>\n <p>", "<p> a b </p><p>"),
        ];
        for (text, expected) in known {
            assert_eq!(masked(text), expected);
        }
    }

    #[test]
    fn content_stays() {
        for text in [
            "<h1>Blue-T-Shirt-XL-2024-Summer</h1>",
            "<a href=\"/products/summer-dresses/blue-linen-dress\">",
            "document.getElementsByClassName(\"apple-iphone-15-pro-256gb-blue\")",
            "<script src=\"/static/app.8f3d2a1b.js\">",
            "call 2025550123 or 49301234567",
            "on 2026-11-24 at 10:00",
            "EUR 1234567890.00",
            "internationalization",
            "<input name=\"email\" value=\"a@example.com\">",
            "Content-Security-Policy",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn different_pages_differ() {
        differ("<h1>Buy</h1>", "<h1>Buy now</h1>");
        differ("<p>19.90</p>", "<p>18.90</p>");
        differ("<b>a b</b>", "<b>ab</b>");
        differ("nonce=\"a\" class=\"x\"", "nonce=\"b\" class=\"y\"");
        differ("2026-11-24", "2026-11-25");
        same(
            "<i nonce=\"a\">x</i>",
            "<i nonce='b'>x</i>".replace('\'', "\"").as_str(),
        );
    }

    #[test]
    fn times_are_those_of_about_now() {
        let check = |text: &str, expected: bool| {
            assert_eq!(is_epoch_time(text.as_bytes(), NOW_S), expected, "{text}");
        };
        check("1795000000", true);
        check(&(NOW_S - EPOCH_WITHIN_S).to_string(), true);
        check(&(NOW_S - EPOCH_WITHIN_S - 1).to_string(), false);
        check("2025550123", false);
        check("17950000000", false);
        check("1795000000000000000", true);
    }

    #[test]
    fn identifiers_are_numbers_and_tokens() {
        let is = |text: &str| is_identifier(text.as_bytes());
        for text in [
            "17",
            "order-12345",
            "019341e2-7d4c-7bbb-8ccc-0123456789ab",
            "8f3d2a1b9c0e4f5a",
        ] {
            assert!(is(text), "{text}");
        }
        for text in ["", "v2", "checkout", "blue-shirt", "app.js"] {
            assert!(!is(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn masking_is_stable_and_never_grows_without_end(text in ".{0,200}") {
            let once = mask(text.as_bytes(), NOW_S);
            prop_assert_eq!(mask(&once, NOW_S), once.clone());
            prop_assert!(once.len() <= text.len() * MASK.len() + MASK.len());
        }

        #[test]
        fn random_tokens_make_no_difference(one in any::<[u8; 32]>(), other in any::<[u8; 32]>()) {
            let hex = |bytes: &[u8]| bytes.iter().map(|it| format!("{it:02x}")).collect::<String>();
            let page = |token: &str| format!("<p data-id=\"{token}\">text</p>");
            // Few texts of chance look like a word or a number.
            let is_usual = |token: &str| is_token(token.as_bytes());
            for encode in [hex, |it: &[u8]| STANDARD.encode(it), |it: &[u8]| URL_SAFE_NO_PAD.encode(it)] {
                let (one, other) = (encode(&one), encode(&other));
                if is_usual(&one) && is_usual(&other) {
                    prop_assert_eq!(masked(&page(&one)), masked(&page(&other)));
                }
            }
        }

        #[test]
        fn plain_words_are_kept(words in proptest::collection::vec("[a-z]{1,12}", 1..20)) {
            let text = words.join(" ");
            // A word that names a token is no plain one.
            prop_assume!(!text.contains("nonce"));
            prop_assert_eq!(masked(&text), text);
        }
    }

    #[test]
    fn most_random_tokens_are_recognized() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut share = |bytes: usize, encode: &dyn Fn(&[u8]) -> String| {
            let mut found = 0;
            for _ in 0..1000 {
                let token: Vec<u8> = (0..bytes).map(|_| random.u8(..)).collect();
                found += usize::from(is_token(encode(&token).as_bytes()));
            }
            found
        };
        assert!(share(16, &|it| URL_SAFE_NO_PAD.encode(it)) >= 930);
        assert!(share(32, &|it| STANDARD.encode(it)) >= 980);
        assert!(share(64, &|it| STANDARD.encode(it)) >= 995);
    }
}
