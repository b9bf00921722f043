//! The visible part of a secret.

use crate::experiment::secret_names::{HIDDEN, names_secret};
use std::borrow::Cow;

/// Returns a text without the credentials in its addresses: user and password, and parameters whose names say so.
pub(super) fn without_credentials(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let ends = |letter: char| letter.is_whitespace() || "\"'<>(){}[],`".contains(letter);
    // What is hidden already is one character meanwhile, which ends no address.
    let text = text.replace(HIDDEN, "\u{1}");
    let mut shown = String::new();
    let mut rest = &*text;
    while let Some(scheme) = rest.find("://") {
        let (before, address) = rest.split_at(scheme + 3);
        let end = address.find(ends).unwrap_or(address.len());
        let (address, after) = address.split_at(end);
        shown.push_str(before);
        shown.push_str(&address_without_credentials(address));
        rest = after;
    }
    shown.push_str(rest);
    Cow::Owned(shown.replace('\u{1}', HIDDEN))
}

/// The same for what follows the scheme of one address.
fn address_without_credentials(address: &str) -> String {
    let (place, query) = match address.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (address, None),
    };
    // A password may have an unescaped `@`.
    let place = match place.rsplit_once('@') {
        Some((_, place)) => format!("{HIDDEN}@{place}"),
        None => place.to_owned(),
    };
    let Some(query) = query else {
        return place;
    };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if names_secret(name) => format!("{name}={HIDDEN}"),
        _ => pair.to_owned(),
    });
    format!("{place}?{}", pairs.collect::<Vec<_>>().join("&"))
}

fn is_header(name: &str) -> bool {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    !name.is_empty() && name.chars().all(is_part)
}

/// Returns the visible part of a secret: where it is stored, or an address without user and
/// password.
pub(super) fn without_secret(text: &str) -> String {
    let only_name = text
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .filter(|name| !name.contains(['$', '{', '}']));
    if let Some(name) = only_name {
        return match name.split_once(":-") {
            Some((name, _)) => format!("${{{name}:-{HIDDEN}}}"),
            None => text.to_owned(),
        };
    }
    if text.starts_with("file:") {
        return text.to_owned();
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        // A header with its value: the file stays valid.
        return match text.split_once(':') {
            Some((name, _)) if is_header(name) && names_secret(name) => format!("{name}: {HIDDEN}"),
            _ => HIDDEN.to_owned(),
        };
    };
    // The last `@`: a password may contain more of them, unescaped. A query may hold a password, too.
    let rest = match rest.rsplit_once('@') {
        Some((_, host)) => format!("{HIDDEN}@{host}"),
        None => rest.to_owned(),
    };
    // The address of a webhook may be the secret.
    if let ("http" | "https", Some((host, _))) = (scheme, rest.split_once('/')) {
        return format!("{scheme}://{host}/{HIDDEN}");
    }
    let seen = match rest.split_once('?') {
        Some((seen, _)) => format!("{seen}?{HIDDEN}"),
        None => rest,
    };
    format!("{scheme}://{seen}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_addresses_are_hidden() {
        for (text, shown) in [
            ("/a?token=x", "/a?token=x"),
            ("http://a.example:1/b?c=d", "http://a.example:1/b?c=d"),
            (
                "found \"https://u:p@s@h/x?token=T&y=1\", and http://v:w@i",
                "found \"https://(secret)@h/x?token=(secret)&y=1\", and http://(secret)@i",
            ),
        ] {
            assert_eq!(without_credentials(text), shown);
            assert_eq!(without_credentials(shown), shown);
        }
    }

    #[test]
    fn secrets_are_hidden_and_their_locations_are_shown() {
        for (text, seen) in [
            ("hunter2", "(secret)"),
            ("X-Auth-Token: hunter2", "X-Auth-Token: (secret)"),
            ("user:hunter2", "(secret)"),
            ("${TOKEN}", "${TOKEN}"),
            ("${TOKEN:-hunter2}", "${TOKEN:-(secret)}"),
            ("${A}x${B}", "(secret)"),
            ("a${TOKEN}", "(secret)"),
            ("file:token.txt", "file:token.txt"),
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://u:p@127.0.0.1/0", "redis://(secret)@127.0.0.1/0"),
            ("redis://u:p@ss@a", "redis://(secret)@a"),
            ("redis://a?password=x", "redis://a?(secret)"),
        ] {
            assert_eq!(without_secret(text), seen, "{text}");
        }
    }
}
