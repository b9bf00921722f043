//! The normal form of a path (RFC 3986, 6.2.2), in which conditions and metrics compare paths. What is
//! forwarded stays as it came.

use std::borrow::Cow;
use std::cell::OnceCell;

/// Always to be rewritten: `%`, and what no URL may contain.
const REWRITTEN: u8 = 1;
/// To be rewritten after a slash: another slash, and a dot, which may be a dot segment.
const AFTER_SLASH: u8 = 2;

/// What the scan for paths in normal form looks for.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'%' => REWRITTEN,
            b'/' | b'.' => AFTER_SLASH,
            byte if is_illegal(byte) => REWRITTEN,
            _ => 0,
        };
        byte += 1;
    }
    classes
}

/// Whether a byte may not stand in a path (RFC 3986, 3.3), except `[`, `]`, `?` and `#`.
pub const fn is_illegal(byte: u8) -> bool {
    byte <= b' '
        || byte >= 0x7f
        || matches!(
            byte,
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
        )
}

/// Returns the normal form: unreserved characters decoded, what no URL may contain encoded, encodings in
/// capitals, without double slashes and dot segments. It does not allocate for a path in normal form.
pub fn normal_path(path: &str) -> Cow<'_, str> {
    match is_normal(path.as_bytes()) {
        true => Cow::Borrowed(path),
        false => Cow::Owned(without_dot_segments(&normal_encoding(path, is_illegal))),
    }
}

/// Whether a path is certainly in normal form.
fn is_normal(path: &[u8]) -> bool {
    let (mut found, mut mask) = (0, REWRITTEN);
    for &byte in path {
        found |= CLASSES[usize::from(byte)] & mask;
        mask = REWRITTEN | u8::from(byte == b'/') << 1;
    }
    found == 0
}

/// Decodes unreserved characters, writes other encodings in capitals, and encodes bytes for which
/// `is_encoded` holds. A `%` without two hexadecimal digits stays.
pub fn normal_encoding(text: &str, is_encoded: impl Fn(u8) -> bool) -> String {
    let mut normal = String::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((&byte, rest)) = bytes.split_first() {
        bytes = rest;
        if byte != b'%' {
            match is_encoded(byte) {
                true => encode(byte, &mut normal),
                false => normal.push(char::from(byte)),
            }
            continue;
        }
        let Some((digits, after)) = rest.split_first_chunk::<2>() else {
            normal.push('%');
            continue;
        };
        let digit = |digit: u8| char::from(digit).to_digit(16);
        match (digit(digits[0]), digit(digits[1])) {
            (Some(high), Some(low)) => {
                let byte = (high * 16 + low) as u8;
                match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    true => normal.push(char::from(byte)),
                    false => encode(byte, &mut normal),
                }
                bytes = after;
            }
            _ => normal.push('%'),
        }
    }
    normal
}

fn encode(byte: u8, normal: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |digit: u8| char::from(DIGITS[usize::from(digit)]);
    normal.extend(['%', digit(byte >> 4), digit(byte & 15)]);
}

/// RFC 3986, 5.2.4, and double slashes become one.
fn without_dot_segments(path: &str) -> String {
    let Some(rest) = path.strip_prefix('/') else {
        // `OPTIONS *`
        return path.to_owned();
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_slash = true;
    for segment in rest.split('/') {
        ends_in_slash = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let mut normal = String::with_capacity(path.len());
    for segment in kept {
        normal.push('/');
        normal.push_str(segment);
    }
    if ends_in_slash || normal.is_empty() {
        normal.push('/');
    }
    normal
}

/// A path whose normal form is made when it is first asked for.
#[derive(Clone, Debug)]
pub struct LazyPath<'a> {
    raw: &'a str,
    normal: OnceCell<Cow<'a, str>>,
}

impl<'a> LazyPath<'a> {
    /// The path as it came.
    pub fn new(raw: &'a str) -> LazyPath<'a> {
        LazyPath {
            raw,
            normal: OnceCell::new(),
        }
    }

    /// Returns the normal form.
    pub fn normal(&self) -> &str {
        self.normal.get_or_init(|| normal_path(self.raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        assert_eq!(normal_path(path), expected, "{path}");
    }

    #[test]
    fn equivalent_paths_have_one_normal_form() {
        for normal in [
            "/",
            "/a",
            "/a/",
            "/a.b/c-d_e~f",
            "/a%2Fb",
            "/%C3%A9",
            "/a/b...c/d",
            "*",
            "/a;b=c,d/@:!$&'()*+[]",
        ] {
            check(normal, normal);
        }
        check("/%7Euser/%61%2d%2E%5f", "/~user/a-._");
        check("/a%2fb%c3%a9", "/a%2Fb%C3%A9");
        check(
            "/caf\u{e9} \"<>^`{|}\\",
            "/caf%C3%A9%20%22%3C%3E%5E%60%7B%7C%7D%5C",
        );
        check("//a///b//", "/a/b/");
        check("/a/./b/../c", "/a/c");
        check("/a/..", "/");
        check("/a/b/..", "/a/");
        check("/a/.", "/a/");
        check("/../../a", "/a");
        check("/a/%2e%2E/b", "/b");
        check("/.", "/");
        check("//", "/");
        check("/.well-known/x", "/.well-known/x");
        check("/a/...", "/a/...");
        check("/%", "/%");
        check("/%4", "/%4");
        check("/%zz%41", "/%zzA");
        check("/%25zz", "/%25zz");
        check("/%2541", "/%2541");
        check("/\u{7f}\u{1}", "/%7F%01");
    }

    #[test]
    fn paths_in_normal_form_are_not_copied() {
        for path in ["/", "/shop/checkout/step-2", "/a%"] {
            let is_borrowed = matches!(normal_path(path), Cow::Borrowed(_));
            assert_eq!(is_borrowed, !path.contains('%'), "{path}");
        }
    }

    proptest! {
        #[test]
        fn normal_form_is_stable_and_clean(path in "(/|\\.|%2e|%2F|%4|%|a|B|\u{e9}|\\||%7c|~){0,12}") {
            let path = format!("/{path}");
            let normal = normal_path(&path).into_owned();
            prop_assert_eq!(normal_path(&normal), &*normal, "{}", path);
            prop_assert!(normal.is_ascii() && normal.starts_with('/') && !normal.contains("//"));
            prop_assert!(normal.split('/').all(|it| it != "." && it != ".."), "{}", normal);
        }

        #[test]
        fn encoding_more_changes_nothing(path in "/[a-c.~/-]{0,12}", at in 0usize..12) {
            let mut encoded = path.clone().into_bytes();
            let at = at % encoded.len();
            if encoded[at] != b'/' {
                let byte = encoded[at];
                encoded.splice(at..=at, format!("%{byte:02x}").into_bytes());
            }
            let encoded = String::from_utf8(encoded).unwrap();
            prop_assert_eq!(normal_path(&encoded), normal_path(&path));
        }
    }
}
