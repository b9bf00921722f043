//! The language that a user prefers (RFC 9110, 12.5.4).

use super::http_view::HeaderView;
use http::header::ACCEPT_LANGUAGE;
use std::fmt;

/// More languages of one request are not looked at.
const LANGUAGES_MAX: usize = 32;

/// As the file writes it.
impl fmt::Display for LanguageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A range of languages in the file: `de` is also `de-AT` (RFC 4647, 3.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageRange(Box<str>);

impl LanguageRange {
    /// Returns `None` for what is no language tag, such as `de_AT`.
    pub fn new(text: &str) -> Option<LanguageRange> {
        let mut parts = text.split('-');
        let is_sound = |part: &str| (1..=8).contains(&part.len());
        let first = parts.next()?;
        let is_tag = is_sound(first)
            && first.bytes().all(|byte| byte.is_ascii_alphabetic())
            && parts
                .all(|part| is_sound(part) && part.bytes().all(|it| it.is_ascii_alphanumeric()));
        is_tag.then(|| LanguageRange(text.into()))
    }

    /// Whether a language is in the range.
    pub fn has(&self, language: &[u8]) -> bool {
        let range = self.0.as_bytes();
        let Some((begin, rest)) = language.split_at_checked(range.len()) else {
            return false;
        };
        begin.eq_ignore_ascii_case(range) && matches!(rest.first(), None | Some(b'-'))
    }

    /// Whether every language of `other` is in this range.
    pub fn contains(&self, other: &LanguageRange) -> bool {
        self.has(other.0.as_bytes())
    }
}

/// Returns the language with the highest weight, the first of several, and `None` where the request names
/// none. `*` is no language.
pub fn preferred<'a>(fields: impl HeaderView<'a>) -> Option<&'a [u8]> {
    let lines = fields.all(&ACCEPT_LANGUAGE);
    let items = lines.flat_map(|line| line.split(|&byte| byte == b','));
    let mut best = None;
    let mut best_weight = 0;
    for item in items.take(LANGUAGES_MAX) {
        let mut parts = item.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let language = parts.next().filter(|it| !it.is_empty() && *it != b"*");
        let weight = match parts.next() {
            None => Some(1000),
            Some(parameter) => weight(parameter),
        };
        if let (Some(language), Some(weight)) = (language, weight)
            && weight > best_weight
        {
            best_weight = weight;
            best = Some(language);
        }
    }
    best
}

/// Reads `q=0.8`, in thousandths (RFC 9110, 12.4.2).
fn weight(parameter: &[u8]) -> Option<u16> {
    let (name, value) = parameter.split_at_checked(2)?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let (whole, decimals) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let digits = [
        *whole,
        digit(decimals, 0),
        digit(decimals, 1),
        digit(decimals, 2),
    ];
    let sum = digits.into_iter().try_fold(0, |sum: u16, digit| {
        let digit = char::from(digit).to_digit(10)?;
        Some(sum * 10 + digit as u16)
    });
    sum.filter(|&sum| sum <= 1000)
}

fn digit(decimals: &[u8], place: usize) -> u8 {
    decimals.get(place).copied().unwrap_or(b'0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    #[track_caller]
    fn check(lines: &[&'static str], expected: Option<&str>) {
        let mut fields = HeaderMap::new();
        for line in lines {
            fields.append(ACCEPT_LANGUAGE, line.parse().unwrap());
        }
        let found = preferred(&fields).map(|it| String::from_utf8_lossy(it).into_owned());
        assert_eq!(found.as_deref(), expected, "{lines:?}");
    }

    #[test]
    fn language_with_the_highest_weight_is_preferred() {
        check(&[], None);
        check(&["de-AT"], Some("de-AT"));
        check(&["de-AT,de;q=0.9,en;q=0.8"], Some("de-AT"));
        check(&["en;q=0.8, de;q=0.9"], Some("de"));
        check(&["en;q=0.8", "fr"], Some("fr"));
        check(&["en, de"], Some("en"));
        check(&["de;q=0, en;q=0.1"], Some("en"));
        check(&["de;q=0"], None);
        check(&["*, de;q=0.5"], Some("de"));
        check(&["de;q=2, en;q=0.5"], Some("en"));
        check(&["de;q=0.1234, en;q=0.5"], Some("en"));
        check(&["de;q=1.000, en"], Some("de"));
        check(&["de;Q=0.3 , en ; q=0.300"], Some("de"));
        check(&[",,;q=1, ,it"], Some("it"));
    }

    #[test]
    fn range_has_its_regions_and_no_longer_words() {
        let range = |text| LanguageRange::new(text).unwrap();
        assert!(range("de").has(b"de") && range("de").has(b"DE-at"));
        assert!(!range("de").has(b"den") && !range("de-AT").has(b"de"));
        assert!(range("de").contains(&range("de-AT")) && !range("de-AT").contains(&range("de")));
        for text in [
            "",
            "de_AT",
            "de-",
            "*",
            "de-*",
            "d\u{e9}",
            "123",
            "toolonglanguage",
        ] {
            assert_eq!(LanguageRange::new(text), None, "{text}");
        }
    }
}
