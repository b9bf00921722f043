//! Which versions served the pages that a browser has open: the cookie and the token of skew protection.
//! PURE.
//!
//! The cookie is `<tag>~<entry>~<entry>…`, the latest page first; an entry is one letter (`p` for a page, `r`
//! for the target of a redirect), the digest of the page's path and query, that of the version, and when it
//! was served (Unix seconds), with 8 hex digits each. A token is `<tag>~<version><period>`. Tags are those of
//! a [`key_ring`](super::key_ring), in unpadded base64url: only who was served by a version can name it.

use super::assign::murmur3_32;
use super::cookies::own_cookie;
use super::key_ring::KeyRing;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::HeaderName;
use smallvec::SmallVec;

/// The name of the cookie.
pub const PAGES_COOKIE: &str = "watershed_pages";
/// The header that pins a request to a version, and gives upstreams the token of the version that they
/// serve a page of.
pub const VERSION_HEADER: HeaderName = HeaderName::from_static("watershed-version");
/// The query parameter that pins a request to a version.
pub const VERSION_PARAMETER: &str = "watershed_version";
/// How many pages a cookie keeps.
pub const PAGES_MAX: usize = 8;
/// How long the target of a redirect is kept, in seconds: browsers follow at once.
const REDIRECT_S: u32 = 60;
/// How far ahead the clock of another replica may be, in seconds.
const AHEAD_MAX_S: u32 = 300;
const ENTRY_BYTES: usize = 25;
/// Separate the tags of cookies and tokens from those of other messages.
const PAGES_LABEL: &[u8] = b"pages";
const VERSION_LABEL: &[u8] = b"version";

/// The digest of a page's path and query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageDigest(u32);

/// The digest of a version: of the names of experiment, group and upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionDigest(u32);

/// A page that a version served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedPage {
    /// Whether a redirect led there that the version answered, and the page itself is still to be asked for.
    pub is_redirect: bool,
    /// The page.
    pub page: PageDigest,
    /// The version.
    pub version: VersionDigest,
    /// When it was served, in Unix seconds.
    pub at_s: u32,
}

/// The value of a cookie that is well formed, but may be forged.
#[derive(Clone, Copy, Debug)]
pub struct SignedPages<'a> {
    tag: &'a str,
    entries: &'a str,
}

/// The pages of a cookie, the latest first.
pub type ServedPages = SmallVec<[ServedPage; PAGES_MAX]>;

impl PageDigest {
    /// The digest of a page.
    pub fn of(path: &str, query: Option<&str>) -> PageDigest {
        PageDigest(match query {
            None => murmur3_32(path.as_bytes()),
            Some(query) => murmur3_32(format!("{path}?{query}").as_bytes()),
        })
    }
}

impl VersionDigest {
    /// Stands for a page that no experiment divides, in the place of a version.
    pub const NONE: VersionDigest = VersionDigest(0);

    /// The digest of a version.
    pub fn of(experiment: &str, group: &str, upstream: &str) -> VersionDigest {
        VersionDigest(murmur3_32(
            format!("{experiment}\0{group}\0{upstream}").as_bytes(),
        ))
    }
}

impl ServedPage {
    /// Whether a request of the page may still follow it. `skew_s` is how long pages are followed.
    pub fn is_live(&self, now_s: u32, skew_s: u32) -> bool {
        let lives_s = match self.is_redirect {
            true => REDIRECT_S.min(skew_s),
            false => skew_s,
        };
        self.at_s <= now_s.saturating_add(AHEAD_MAX_S) && now_s.saturating_sub(self.at_s) < lives_s
    }

    fn read(text: &str) -> Option<ServedPage> {
        let number = |from: usize| u32::from_str_radix(text.get(from..from + 8)?, 16).ok();
        let is_redirect = match text.as_bytes().first()? {
            b'p' => false,
            b'r' => true,
            _ => return None,
        };
        let page = ServedPage {
            is_redirect,
            page: PageDigest(number(1)?),
            version: VersionDigest(number(9)?),
            at_s: number(17)?,
        };
        (text.len() == ENTRY_BYTES).then_some(page)
    }

    fn text(&self) -> String {
        let kind = if self.is_redirect { 'r' } else { 'p' };
        let (PageDigest(page), VersionDigest(version)) = (self.page, self.version);
        format!("{kind}{page:08x}{version:08x}{:08x}", self.at_s)
    }
}

impl<'a> SignedPages<'a> {
    /// Reads the value of a cookie.
    pub fn read(value: &'a [u8]) -> Option<SignedPages<'a>> {
        let (tag, entries) = std::str::from_utf8(value).ok()?.split_once('~')?;
        let is_short = entries.len() <= PAGES_MAX * (ENTRY_BYTES + 1);
        is_short.then_some(SignedPages { tag, entries })
    }

    /// The pages, which are to be believed only if the cookie [is genuine](Self::is_genuine).
    pub fn pages(self) -> impl Iterator<Item = ServedPage> {
        self.entries.split('~').filter_map(ServedPage::read)
    }

    /// Whether a key of this site signed it.
    pub fn is_genuine(self, keys: &KeyRing) -> bool {
        let parts = [PAGES_LABEL, self.entries.as_bytes()];
        keys.verify_text(&parts, self.tag).is_some()
    }
}

/// Adds a page to those of a cookie, as the latest one unless it is a frame of that. What no longer fits is the oldest page of the same version: pages of
/// other versions are fewer, and need their entries more.
pub fn add(pages: &mut ServedPages, page: ServedPage, is_frame: bool) {
    pages.retain(|it| it.page != page.page || it.is_redirect != page.is_redirect);
    if !page.is_redirect {
        pages.retain(|it| it.page != page.page);
    }
    if page.version == VersionDigest::NONE {
        pages.retain(|it| it.version != VersionDigest::NONE);
    }
    if pages.len() >= PAGES_MAX {
        let same = pages.iter().rposition(|it| it.version == page.version);
        pages.remove(same.unwrap_or(pages.len() - 1));
    }
    let place = usize::from(is_frame).min(pages.len());
    pages.insert(place, page);
}

/// Encodes a cookie with the first key.
pub fn cookie(keys: &KeyRing, pages: &[ServedPage], max_age_s: u32, over_tls: bool) -> String {
    let entries: Vec<String> = pages.iter().map(ServedPage::text).collect();
    let entries = entries.join("~");
    let tag = keys.sign(&[PAGES_LABEL, entries.as_bytes()]);
    let value = format!("{}~{entries}", URL_SAFE_NO_PAD.encode(tag));
    own_cookie(PAGES_COOKIE, &value, max_age_s.into(), over_tls)
}

/// Makes the token of a version, which stays the same for a whole period of `skew_s`, so that caches keep what is asked
/// for with it, and valid for another one.
pub fn token(keys: &KeyRing, version: VersionDigest, (now_s, skew_s): (u32, u32)) -> String {
    let VersionDigest(version) = version;
    let text = format!("{version:08x}{:x}", now_s / skew_s.max(1));
    let tag = keys.sign(&[VERSION_LABEL, text.as_bytes()]);
    format!("{}~{text}", URL_SAFE_NO_PAD.encode(tag))
}

/// Returns the version of a token, and the period in which it was made. `None` if no key of this site signed
/// it.
pub fn version_of_token(keys: &KeyRing, token: &[u8]) -> Option<(VersionDigest, u32)> {
    let (tag, text) = std::str::from_utf8(token).ok()?.split_once('~')?;
    let (version, period) = text.split_at_checked(8)?;
    let version = u32::from_str_radix(version, 16).ok()?;
    let period = u32::from_str_radix(period, 16).ok()?;
    keys.verify_text(&[VERSION_LABEL, text.as_bytes()], tag)?;
    Some((VersionDigest(version), period))
}

/// Whether a token that was made in this period is still valid.
pub fn is_valid_period(period: u32, (now_s, skew_s): (u32, u32)) -> bool {
    let now = now_s / skew_s.max(1);
    // One ahead for the clock of another replica.
    (now.saturating_sub(1)..=now.saturating_add(1)).contains(&period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> KeyRing {
        KeyRing::new("test", b"secret", [])
    }

    fn page(path: &str, version: u32, at_s: u32) -> ServedPage {
        ServedPage {
            is_redirect: false,
            page: PageDigest::of(path, None),
            version: VersionDigest(version),
            at_s,
        }
    }

    fn value(cookie: &str) -> &[u8] {
        let (pair, _) = cookie.split_once(';').unwrap();
        pair.split_once('=').unwrap().1.as_bytes()
    }

    #[test]
    fn cookies_are_read_as_written_and_no_other_is_genuine() {
        let redirect = ServedPage {
            is_redirect: true,
            ..page("/b", 2, 8)
        };
        let pages = [page("/a", 1, 7), redirect];
        let cookie = cookie(&keys(), &pages, 60, true);
        let value = value(&cookie);
        let signed = SignedPages::read(value).unwrap();
        assert!(signed.is_genuine(&keys()) && signed.pages().eq(pages));
        assert!(!signed.is_genuine(&KeyRing::new("test", b"other", [])));
        for place in 0..value.len() {
            let mut forged = value.to_vec();
            forged[place] = if forged[place] == b'0' { b'1' } else { b'0' };
            let is_genuine = SignedPages::read(&forged).is_some_and(|it| it.is_genuine(&keys()));
            assert!(!is_genuine, "{}", String::from_utf8_lossy(&forged));
        }
    }

    #[test]
    fn odd_values_are_no_pages() {
        for value in [
            &b""[..],
            b"~",
            b"a~",
            b"~p",
            b"~p0000000",
            "~pé000000000000000000000".as_bytes(),
            b"~x00000000000000000000000a",
            b"\xff~p",
            b"~~~~",
            b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA~p",
        ] {
            let signed = SignedPages::read(value);
            let is_any = signed.is_some_and(|it| it.pages().next().is_some());
            let is_genuine = signed.is_some_and(|it| it.is_genuine(&keys()));
            assert!(!is_any && !is_genuine, "{value:?}");
            assert_eq!(version_of_token(&keys(), value), None, "{value:?}");
        }
    }

    #[test]
    fn pages_of_another_version_keep_their_place() {
        let mut pages = ServedPages::new();
        add(&mut pages, page("/old", 1, 0), false);
        for number in 0..20 {
            add(&mut pages, page(&format!("/{number}"), 2, number), false);
        }
        assert_eq!(pages.len(), PAGES_MAX);
        assert_eq!(pages[0], page("/19", 2, 19));
        assert_eq!(pages[PAGES_MAX - 1], page("/old", 1, 0));
        // A page is known by its latest version.
        add(&mut pages, page("/old", 2, 30), false);
        let of_old: Vec<_> = pages
            .iter()
            .filter(|it| it.page == PageDigest::of("/old", None))
            .collect();
        assert_eq!(of_old, [&page("/old", 2, 30)]);
    }

    #[test]
    fn pages_and_redirects_live_for_a_time() {
        let check = |is_redirect, now_s, skew_s, expected| {
            let page = ServedPage {
                is_redirect,
                ..page("/", 1, 1_000)
            };
            assert_eq!(page.is_live(now_s, skew_s), expected, "{now_s} {skew_s}");
        };
        check(false, 1_000, 3_600, true);
        check(false, 4_599, 3_600, true);
        check(false, 4_600, 3_600, false);
        check(false, 700, 3_600, true);
        check(false, 699, 3_600, false);
        check(true, 1_059, 3_600, true);
        check(true, 1_060, 3_600, false);
        check(false, 1_000, 0, false);
    }

    #[test]
    fn tokens_are_valid_for_one_to_two_periods() {
        let (keys, version) = (keys(), VersionDigest::of("site", "next", "new"));
        let made = token(&keys, version, (7_300, 3_600));
        assert_eq!(made, token(&keys, version, (10_799, 3_600)));
        assert_ne!(made, token(&keys, version, (10_800, 3_600)));
        let (found, period) = version_of_token(&keys, made.as_bytes()).unwrap();
        assert_eq!(found, version);
        let valid: Vec<u32> = [3_599, 3_600, 7_200, 14_399, 14_400]
            .into_iter()
            .filter(|&now_s| is_valid_period(period, (now_s, 3_600)))
            .collect();
        assert_eq!(valid, [3_600, 7_200, 14_399]);
        assert_ne!(version, VersionDigest::of("site", "nex", "tnew"));
        let mut forged = made.into_bytes();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(version_of_token(&keys, &forged), None);
    }
}
