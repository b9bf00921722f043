//! The cookies of a request. They are read by hand because they are bytes (the `cookie` crate wants UTF-8), and on
//! every request. PURE.

use super::UserId;
use memchr::memchr;

/// Where a cookie stands in the value of its `Cookie` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookiePlace {
    /// Where its name begins.
    pub name: usize,
    /// Where its `=` is.
    pub equals: usize,
    /// Where its value ends, with spaces behind it.
    pub end: usize,
}

/// The cookies in the value of a `Cookie` field, in order; what has no `=` is none.
pub fn places(line: &[u8]) -> impl Iterator<Item = CookiePlace> {
    let mut next = 0;
    std::iter::from_fn(move || {
        while let Some(rest) = line.get(next..).filter(|rest| !rest.is_empty()) {
            let name = line.len() - rest.trim_ascii_start().len();
            // Names are short.
            let mut bytes = line[name..].iter();
            let place = name + bytes.position(|byte| matches!(byte, b'=' | b';'))?;
            if line[place] == b';' {
                next = place + 1;
                continue;
            }
            let end = memchr(b';', &line[place..]).map_or(line.len(), |end| place + end);
            next = end + 1;
            return Some(CookiePlace {
                name,
                equals: place,
                end,
            });
        }
        None
    })
}

/// The names and values in the value of a `Cookie` field.
pub fn pairs(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    places(line).map(|place| {
        let value = line[place.equals + 1..place.end].trim_ascii_end();
        (&line[place.name..place.equals], value)
    })
}

/// The value of a cookie as an ID. RFC 6265, 4.1.1: it may stand in quotation marks.
pub fn unquoted(value: &[u8]) -> &[u8] {
    UserId::trim(match value {
        [b'"', inside @ .., b'"'] => inside,
        value => value,
    })
}

/// The `Set-Cookie` of a cookie that is for watershed alone, for so many seconds.
pub fn own_cookie(name: &str, value: &str, seconds: u64, over_tls: bool) -> String {
    let secure = if over_tls { "; Secure" } else { "" };
    format!("{name}={value}; Path=/; Max-Age={seconds}; SameSite=Lax; HttpOnly{secure}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cookies_are_read_as_they_came() {
        let all = |line: &str| -> Vec<(String, String)> {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let pairs = pairs(line.as_bytes());
            pairs
                .map(|(name, value)| (text(name), text(value)))
                .collect()
        };
        for (line, expected) in [
            ("", &[][..]),
            (";", &[]),
            ("a", &[]),
            ("a=", &[("a", "")]),
            ("a=1;b=2", &[("a", "1"), ("b", "2")]),
            ("  a=1 ;\tb=2 ", &[("a", "1"), ("b", "2")]),
            ("a;b=2;;c=x=y; d", &[("b", "2"), ("c", "x=y")]),
            ("a =1;=2", &[("a ", "1"), ("", "2")]),
        ] {
            let expected = expected.iter();
            let expected: Vec<_> = expected.map(|(a, b)| ((*a).into(), (*b).into())).collect();
            assert_eq!(all(line), expected, "{line:?}");
        }
    }

    proptest! {
        /// The same as of the obvious reading.
        #[test]
        fn cookies_are_those_between_semicolons(line in "[a-c=; \"]{0,30}") {
            let obvious = line.split(';').filter_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                Some((name.trim_start().as_bytes(), value.trim_end().as_bytes()))
            });
            let obvious: Vec<_> = obvious.collect();
            prop_assert_eq!(pairs(line.as_bytes()).collect::<Vec<_>>(), obvious);
        }
    }
}
