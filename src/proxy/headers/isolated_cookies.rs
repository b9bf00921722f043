//! Cookies that each version has for itself: the browser keeps them under names with the version's mark,
//! and the version sees their plain names. PURE.
//!
//! | | the version sees | the browser has |
//! | --- | --- | --- |
//! | set by a version | `sid` | `w1f2e3d4c-sid` |
//! | with a prefix that browsers check | `__Host-sid` | `__Host-w1f2e3d4c-sid` |
//! | set by a script or before, and shared | `theme` | `theme` |

use crate::experiment::version_rules::CookieIsolation;
use crate::proxy::h1::header_block::HeaderBlock;
use crate::proxy::headers::version_mark::{MARK_BYTES, VersionMark, is_marked};
use memchr::memchr;
use smallvec::SmallVec;
use std::cell::Cell;
use std::time::UNIX_EPOCH;

/// Prefixes of names that browsers check (RFC 6265bis, 4.1.3). They ignore case.
const PREFIXES: [&[u8]; 2] = [b"__Host-", b"__Secure-"];
/// What the names of watershed's own cookies begin with.
const OWN_NAMES: &[u8] = b"watershed_";
/// Browsers refuse a cookie whose name and value are longer, in bytes (RFC 6265bis, 5.6).
const NAME_AND_VALUE_MAX: usize = 4096;

/// Whether versions have the cookie of this name for themselves. A name is the prefix that browsers check, and the rest.
#[inline]
fn isolates(isolation: &CookieIsolation, name: CookieName<'_>) -> bool {
    let (prefix, rest) = name;
    // Both begin with it.
    if rest.first() == Some(&b'w') {
        let is_own = prefix.is_empty() && rest.starts_with(OWN_NAMES);
        if is_own || is_marked(rest) {
            return false;
        }
    }
    is_listed(isolation, name)
}

/// Whether the file isolates this name. The name must be neither watershed's own nor marked.
fn is_listed(isolation: &CookieIsolation, (prefix, rest): CookieName<'_>) -> bool {
    let (name_bytes, first) = (prefix.len() + rest.len(), prefix.first().or(rest.first()));
    let is = |known: &[u8]| {
        // Most have another length or begin with another letter.
        let is_like = known.len() == name_bytes && known.first() == first;
        is_like && known.starts_with(prefix) && known.ends_with(rest)
    };
    let has = |names: &[Box<str>]| names.iter().any(|known| is(known.as_bytes()));
    isolation.isolated.as_deref().is_none_or(has) && !has(&isolation.shared)
}

/// The prefix that browsers check, and the rest.
type CookieName<'a> = (&'a [u8], &'a [u8]);

/// Names of isolated cookies that came without a mark, and may be a version's from before: each with a `;` behind it.
pub(crate) type PlainCookies = SmallVec<[u8; 32]>;

/// What a version gets of the cookies of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeenCookies {
    /// The line that it gets, empty for none; `None` if it gets the lines as they came.
    pub line: Option<Vec<u8>>,
    /// Whether that line may have cookies of watershed itself.
    pub has_own_names: bool,
    /// What came without a mark.
    pub plain: PlainCookies,
}

thread_local! {
    /// Room for the next line on this thread.
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How much room is kept, in bytes.
const KEPT_MAX: usize = 4096;

/// Gives back the room of a line that was written.
pub(crate) fn give(line: Vec<u8>) {
    if line.capacity() <= KEPT_MAX {
        LINE.set(line);
    }
}

/// A cookie that a version may see.
#[derive(Clone, Copy)]
struct Visible<'a> {
    /// Name and value, as they came.
    pair: &'a [u8],
    /// How long the prefix of its name is that browsers check.
    prefix_bytes: u8,
    /// How long the mark of the version is that follows; 0 where it came without.
    mark_bytes: u8,
    /// How long the rest of its name is.
    name_bytes: u32,
}

impl<'a> Visible<'a> {
    /// Whether it came with the mark of the version.
    fn is_own(&self) -> bool {
        self.mark_bytes > 0
    }

    /// The prefix, and what follows the mark.
    fn parts(&self) -> (&'a [u8], &'a [u8]) {
        let (prefix, rest) = self.pair.split_at(usize::from(self.prefix_bytes));
        (prefix, &rest[usize::from(self.mark_bytes)..])
    }

    /// Its name, in two parts.
    fn name(&self) -> CookieName<'a> {
        let (prefix, rest) = self.parts();
        (prefix, &rest[..self.name_bytes as usize])
    }
}

/// Returns what the version with this mark sees of the cookies of a request.
pub(crate) fn seen(
    fields: &HeaderBlock<'_>,
    mark: &VersionMark,
    isolation: &CookieIsolation,
) -> SeenCookies {
    let mut seen = SeenCookies::default();
    let mut visible: SmallVec<[Visible<'_>; 12]> = SmallVec::new();
    let (mut has_marked, mut bytes) = (false, 0);
    fields.each_cookie(|pair, equals| {
        let full = match &pair[..equals] {
            full @ [.., last] if *last > b' ' => full,
            full => full.trim_ascii_end(),
        };
        let (prefix, rest) = bare(full);
        let mut cookie = Visible {
            pair,
            prefix_bytes: prefix.len() as u8,
            mark_bytes: 0,
            name_bytes: rest.len() as u32,
        };
        bytes += pair.len() + 2;
        // Marks and watershed's own names begin with it.
        if rest.first() == Some(&b'w') {
            let own = mark.strip(rest);
            if own.is_some() || is_marked(rest) {
                has_marked = true;
                // Another version's.
                let Some(rest) = own else {
                    return;
                };
                // Browsers have not checked a prefix behind the mark, so anybody may have set it.
                let is_unchecked = !bare(rest).0.is_empty();
                if is_unchecked || !isolates(isolation, (prefix, rest)) {
                    return;
                }
                cookie.mark_bytes = MARK_BYTES as u8;
                cookie.name_bytes = rest.len() as u32;
                return visible.push(cookie);
            }
            seen.has_own_names |= rest.starts_with(OWN_NAMES);
        }
        if isolates(isolation, (prefix, rest)) {
            seen.plain.extend_from_slice(full);
            seen.plain.push(b';');
        }
        visible.push(cookie);
    });
    if has_marked {
        seen.line = Some(line(&visible, bytes, !seen.plain.is_empty()));
    }
    seen
}

/// The line of these cookies, of about so many bytes. `may_be_replaced` says whether some without a mark are isolated.
fn line(visible: &[Visible<'_>], bytes: usize, may_be_replaced: bool) -> Vec<u8> {
    // One from before the version has set its own is not seen any more.
    let is_replaced = |cookie: &Visible<'_>| {
        let is_same = |own: &Visible<'_>| {
            let has_length = own.is_own() && own.name_bytes == cookie.name_bytes;
            has_length && own.name() == cookie.name()
        };
        !cookie.is_own() && visible.iter().any(is_same)
    };
    let mut line = LINE.take();
    line.clear();
    line.reserve(bytes);
    for cookie in visible {
        if may_be_replaced && is_replaced(cookie) {
            continue;
        }
        if !line.is_empty() {
            line.extend_from_slice(b"; ");
        }
        let (prefix, rest) = cookie.parts();
        if !prefix.is_empty() {
            line.extend_from_slice(prefix);
        }
        line.extend_from_slice(rest);
    }
    line
}

/// Returns the values of `Set-Cookie` that a browser gets for one of the version with this mark, none for one that may not
/// be set; `None` leaves it as it is. `plain` are the names that came without a mark, as in [`SeenCookies`]: a version that deletes its cookie
/// deletes the one from before, too, which it would otherwise see again.
pub(crate) fn set(
    cookie: &[u8],
    mark: &VersionMark,
    isolation: &CookieIsolation,
    plain: &[u8],
    now_ms: u64,
) -> Option<SmallVec<[Vec<u8>; 2]>> {
    let pair = cookie
        .split(|&byte| byte == b';')
        .next()
        .unwrap_or_default();
    let full = name(pair.trim_ascii());
    let (prefix, rest) = bare(full);
    if is_marked(rest) {
        // What has a mark is watershed's to set: it could be another version's.
        return Some(SmallVec::new());
    }
    if full.is_empty() || !isolates(isolation, (prefix, rest)) {
        return None;
    }
    let behind = &cookie.trim_ascii_start()[full.len()..];
    let mut set = SmallVec::new();
    if pair.len() + MARK_BYTES > NAME_AND_VALUE_MAX {
        // It stays as it is, and the marked one from before must not hide it.
        let attributes = &cookie[pair.len().min(cookie.len())..];
        set.push(
            [
                prefix,
                mark.as_bytes(),
                rest,
                b"=",
                attributes,
                b"; Max-Age=0",
            ]
            .concat(),
        );
        set.push(cookie.to_vec());
        return Some(set);
    }
    set.push([prefix, mark.as_bytes(), rest, behind].concat());
    let mut plain = plain.split(|&byte| byte == b';');
    if plain.any(|it| it == full) && deletes(cookie, now_ms) {
        set.push(cookie.to_vec());
    }
    Some(set)
}

/// The name of a pair, without the spaces behind it.
fn name(pair: &[u8]) -> &[u8] {
    pair[..memchr(b'=', pair).unwrap_or(0)].trim_ascii_end()
}

/// The prefix that browsers check, and the rest of a name.
#[inline]
fn bare(name: &[u8]) -> (&[u8], &[u8]) {
    match name {
        [b'_', b'_', ..] => split_prefix(name),
        _ => (&[], name),
    }
}

fn split_prefix(name: &[u8]) -> (&[u8], &[u8]) {
    let begins = |prefix: &&&[u8]| {
        let begin = name.get(..prefix.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
    };
    let prefix = PREFIXES.iter().find(begins);
    name.split_at(prefix.map_or(0, |prefix| prefix.len()))
}

/// Whether a browser deletes the cookie (RFC 6265, 5.3): `Max-Age` goes before `Expires`.
fn deletes(cookie: &[u8], now_ms: u64) -> bool {
    let Ok(text) = std::str::from_utf8(cookie) else {
        return false;
    };
    let (mut max_age, mut expires) = (None, None);
    for attribute in text.split(';').skip(1) {
        let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        let value = value.trim();
        if name.trim().eq_ignore_ascii_case("max-age") {
            max_age = value.parse::<i64>().ok().or(max_age);
        } else if name.trim().eq_ignore_ascii_case("expires") {
            expires = expiry(value).or(expires);
        }
    }
    match max_age {
        Some(seconds) => seconds <= 0,
        None => expires.is_some_and(|at_ms| at_ms <= now_ms),
    }
}

/// A date in one of the forms that servers write, in Unix milliseconds. `-` in the place of a space is an
/// old one.
fn expiry(value: &str) -> Option<u64> {
    let spaced = value.replace('-', " ");
    let read = httpdate::parse_http_date(value).or_else(|_| httpdate::parse_http_date(&spaced));
    let since = read.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    // The beginning of time is written in more ways than are read.
    let is_epoch = value.contains("1970") || value.contains("-70 ");
    let read = since.map(|since| since.as_millis() as u64);
    read.or(is_epoch.then_some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(name: &str) -> VersionMark {
        VersionMark::of(name)
    }

    fn marked(text: &str) -> String {
        let text = text.replace("a:", &mark("a").to_string());
        text.replace("b:", &mark("b").to_string())
    }

    fn all() -> CookieIsolation {
        CookieIsolation {
            isolated: None,
            shared: ["uid".into(), "theme".into()].into(),
        }
    }

    fn of_lines(lines: &[String]) -> SeenCookies {
        let fields = lines.iter().map(|line| format!("Cookie: {line}\r\n"));
        let head = format!("A: 1\r\n{}\r\n", fields.collect::<String>());
        let (fields, _) = HeaderBlock::read(head.as_bytes(), 0, 100).unwrap().unwrap();
        seen(&fields, &mark("a"), &all())
    }

    #[test]
    fn version_sees_its_own_and_shared_cookies_under_plain_names() {
        let check = |lines: &[&str], expected: &str| {
            let lines: Vec<String> = lines.iter().map(|line| marked(line)).collect();
            let seen = of_lines(&lines);
            let line = seen.line.unwrap_or_else(|| lines.join("; ").into_bytes());
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        };
        check(&["a:sid=1; b:sid=2; theme=dark"], "sid=1; theme=dark");
        // No version sets a shared name with a mark.
        check(&["uid=u1; a:uid=u2"], "uid=u1");
        check(&["a:uid=u2"], "");
        check(&["sid=0; a:sid=1"], "sid=1");
        check(&["sid=0; b:sid=2"], "sid=0");
        check(&["a:sid=1", "uid=u1"], "sid=1; uid=u1");
        check(
            &["__Host-a:sid=1; __Host-b:sid=2; __host-a:x=3"],
            "__Host-sid=1; __host-x=3",
        );
        check(&["__Secure-sid=0; __Secure-a:sid=1"], "__Secure-sid=1");
        check(&["b:sid=2"], "");
        check(&["a:sid = \"x=y\" ; flag"], "sid = \"x=y\"; flag");
        check(&["f;a:sid=1;;g ; h;b:sid=2", "i"], "f; sid=1; g; h; i");
        check(&["; a:sid=1;", ""], "sid=1");
        check(&["a:__Host-sid=forged; __Host-a:sid=1"], "__Host-sid=1");
        check(&["a:__secure-sid=forged; a:x=1"], "x=1");
        check(
            &["wide=1; a:sid=2; watershed_id=v"],
            "wide=1; sid=2; watershed_id=v",
        );
        check(&["w123=1; ;watershed_id=v"], "w123=1; ;watershed_id=v");
        // Of those that are isolated, the names that came plain are known.
        let seen = of_lines(&["sid=0; uid=1; theme=2".to_owned()]);
        assert_eq!(&seen.plain[..], b"sid;");
    }

    #[test]
    fn browser_keeps_both_versions_cookies() {
        let now_ms = 1_700_000_000_000;
        let check = |plain: &[&str], cookie: &str, expected: &[&str]| {
            let plain: String = plain.iter().map(|it| format!("{it};")).collect();
            let set = set(
                cookie.as_bytes(),
                &mark("a"),
                &all(),
                plain.as_bytes(),
                now_ms,
            );
            let set = set.map(|set| set.into_vec()).unwrap_or_default();
            let set: Vec<String> = set
                .into_iter()
                .map(|it| String::from_utf8(it).unwrap())
                .collect();
            let expected: Vec<String> = expected.iter().map(|it| marked(it)).collect();
            assert_eq!(set, expected, "{cookie}");
        };
        check(
            &[],
            "sid=1; Path=/; HttpOnly",
            &["a:sid=1; Path=/; HttpOnly"],
        );
        check(&["sid"], "sid=1; Path=/", &["a:sid=1; Path=/"]);
        check(
            &[],
            "__Host-sid=1; Path=/; Secure",
            &["__Host-a:sid=1; Path=/; Secure"],
        );
        check(&[], "__Secure-sid=1; Secure", &["__Secure-a:sid=1; Secure"]);
        check(
            &[],
            "sid=; Max-Age=0; Path=/",
            &["a:sid=; Max-Age=0; Path=/"],
        );
        for over in [
            "sid=; Max-Age=0; Path=/",
            "sid=; max-age=-1",
            "sid=; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
            "sid=; expires=Thu, 01-Jan-1970 00:00:01 GMT",
            "sid=; expires=Thu, 01-Jan-70 00:00:01 GMT",
        ] {
            check(&["sid"], over, &[&format!("a:{over}"), over]);
        }
        let lives = "sid=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT";
        check(&["sid"], lives, &[&format!("a:{lives}")]);
        // Shared, watershed's own, no cookie, and one that would be too long.
        for same in ["uid=1", "theme=x; Path=/", "watershed_id=x", "=x", "x"] {
            check(&[], same, &[]);
        }
        let set_by = |cookie: &str| set(marked(cookie).as_bytes(), &mark("a"), &all(), &[], now_ms);
        assert_eq!(set_by("uid=1"), None);
        for (forbidden, why) in [("a:y=1", "its own mark"), ("__Host-b:sid=1", "another one")] {
            assert_eq!(set_by(forbidden), Some(SmallVec::new()), "{why}");
        }
        // One that would be too long with its mark replaces the marked one from before.
        let long = format!("sid={}; Path=/x; Max-Age=60", "x".repeat(4090));
        check(
            &[],
            &long,
            &["a:sid=; Path=/x; Max-Age=60; Max-Age=0", &long],
        );
        let listed = CookieIsolation {
            isolated: Some(["sid".into()].into()),
            shared: Box::default(),
        };
        let set = |cookie: &[u8]| set(cookie, &mark("a"), &listed, &[], now_ms);
        assert!(set(b"sid=1").is_some() && set(b"other=1").is_none());
    }
}
