//! Who the visitor is: the first source that holds an ID wins; a visitor without one is given
//! an ID in a cookie.

use super::UserId;
use super::asked::{Asked, Fields};
use super::key_ring::KeyRing;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{AUTHORIZATION, COOKIE, HeaderName};
use memchr::memchr;
use sha2::Sha256;
use std::borrow::Cow;
use std::fmt;
use uuid::Uuid;

/// Where IDs are read from and how a new one is given.
#[derive(Clone, Debug)]
pub struct Identity {
    /// In the order of the file; the minted cookie is read after all of them.
    pub sources: Vec<Source>,
    /// An ID longer than this is refused as an ID (never cut: a cut one could be another
    /// user's); the next source is asked.
    pub id_bytes_max: usize,
    /// The cookie given to a visitor without an ID.
    pub mint: Mint,
    /// Whether a minted ID and one of a source, on the same request, are one person, who keeps
    /// the group of the minted one.
    pub join: bool,
    /// What is kept of an ID.
    pub keep: Keep,
    /// Signs minted IDs.
    pub keys: KeyRing,
    /// Whether the file gives these keys, and not the secret that is kept with the store.
    pub keys_from_file: bool,
}

/// What is kept of an ID, in the journal and the ledger.
#[derive(Clone, Debug)]
pub enum Keep {
    /// The ID as it came.
    Raw,
    /// A keyed hash of it, from which nobody without the key can tell whose it is.
    Hashed(HashKey),
}

/// The key of [`Keep::Hashed`].
#[derive(Clone)]
pub struct HashKey(Hmac<Sha256>);

impl HashKey {
    /// A key of any length; 32 random bytes are best.
    pub fn new(secret: &[u8]) -> HashKey {
        // RFC 2104 takes keys of any length.
        HashKey(Hmac::new_from_slice(secret).expect("a key of any length"))
    }

    /// The first 16 bytes of HMAC-SHA-256 (RFC 2104) of these, in hex.
    fn hash(&self, bytes: &[u8]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(bytes);
        let mut text = [0; 32];
        let sum = mac.finalize().into_bytes();
        for (pair, byte) in text.chunks_exact_mut(2).zip(sum) {
            pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        text
    }
}

impl fmt::Debug for HashKey {
    /// Tells keys apart without telling them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = self.hash(b"watershed/key");
        write!(f, "HashKey({})", String::from_utf8_lossy(&sign[..8]))
    }
}

impl Keep {
    /// What is kept of this ID.
    pub fn of<'a>(&self, user: UserId<'a>) -> Kept<'a> {
        match self {
            Keep::Raw => Kept::AsItCame(user),
            Keep::Hashed(key) => Kept::Hashed(key.hash(user.0)),
        }
    }
}

/// What is kept of one ID.
#[derive(Clone, Copy, Debug)]
pub enum Kept<'a> {
    /// The ID.
    AsItCame(UserId<'a>),
    /// Its hash, in hex.
    Hashed([u8; 32]),
}

impl Kept<'_> {
    /// As an ID to count by.
    pub fn id(&self) -> UserId<'_> {
        match self {
            Kept::AsItCame(user) => *user,
            Kept::Hashed(hash) => UserId(hash),
        }
    }
}

/// One place in a request where an ID may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The value of this cookie, as it came.
    Cookie(Box<str>),
    /// The value of this header.
    Header(HeaderName),
    /// The value of this query parameter, percent-decoded.
    Query(Box<str>),
    /// A claim of a JSON Web Token. Its signature is *not* checked: like a cookie, it only
    /// decides a group.
    Jwt {
        /// The claim, such as `sub`; strings and whole numbers are IDs.
        claim: Box<str>,
        /// The cookie that carries the token; `None` reads `Authorization: Bearer`.
        cookie: Option<Box<str>>,
    },
}

/// The cookie of a minted ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mint {
    /// The cookie's name.
    pub cookie: Box<str>,
    /// Its `Max-Age`, in seconds.
    pub max_age_s: u64,
    /// Its `Domain`; `None` keeps it to the host.
    pub domain: Option<Box<str>>,
    /// Its `Path`.
    pub path: Box<str>,
    /// Its `SameSite`: `Lax`, `Strict` or `None`.
    pub same_site: Box<str>,
    /// `Secure`: always, never, or (`None`) where the visitor came over TLS.
    pub secure: Option<bool>,
    /// `HttpOnly`.
    pub http_only: bool,
}

/// A visitor's ID and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor<'a> {
    id: Cow<'a, [u8]>,
    /// True when the ID was made for this request and must be given in the answer.
    pub minted: bool,
    also: Option<Cow<'a, [u8]>>,
}

impl Visitor<'_> {
    /// The ID; `find` and `mint` never make an empty one.
    pub fn user(&self) -> UserId<'_> {
        UserId(&self.id)
    }

    /// Another ID of the same person, that came along: `user` is the one the visitor had first.
    pub fn also(&self) -> Option<UserId<'_>> {
        self.also.as_deref().map(UserId)
    }

    /// The visitor with an ID of its own, for keeping past the request.
    pub fn into_owned(self) -> Visitor<'static> {
        Visitor {
            id: Cow::Owned(self.id.into_owned()),
            minted: self.minted,
            also: self.also.map(|also| Cow::Owned(also.into_owned())),
        }
    }
}

/// The visitor that the request names, or `None` when no source holds a usable ID. A minted ID
/// beside one of a source comes first: the visitor had it before they were known.
pub fn find<'a>(identity: &Identity, request: impl Asked<'a>) -> Option<Visitor<'a>> {
    let usable = |id: &Cow<'_, [u8]>| !id.is_empty() && id.len() <= identity.id_bytes_max;
    let listed = identity
        .sources
        .iter()
        .filter_map(|source| read(source, request))
        .find(usable);
    let minted = || {
        let value = cookie_value(request.fields(), &identity.mint.cookie).map(Cow::Borrowed);
        value.filter(usable)
    };
    let visitor = |id, also| Visitor {
        id,
        minted: false,
        also,
    };
    match listed {
        None => minted().map(|id| visitor(id, None)),
        Some(listed) if !identity.join => Some(visitor(listed, None)),
        Some(listed) => Some(match minted() {
            Some(first) if first != listed => visitor(first, Some(listed)),
            _ => visitor(listed, None),
        }),
    }
}

/// A new visitor: a UUIDv7 of this time (Unix milliseconds) and these random bytes.
pub fn mint(now_ms: u64, random: &[u8; 10]) -> Visitor<'static> {
    let id = uuid::Builder::from_unix_timestamp_millis(now_ms, random).into_uuid();
    let mut text = Uuid::encode_buffer();
    let id = id.hyphenated().encode_lower(&mut text).as_bytes().to_vec();
    Visitor {
        id: Cow::Owned(id),
        minted: true,
        also: None,
    }
}

/// The `Set-Cookie` value that gives a minted ID to its visitor.
pub fn set_cookie(mint: &Mint, user: UserId<'_>, over_tls: bool) -> String {
    let mut text = format!(
        "{}={}; Path={}; Max-Age={}; SameSite={}",
        mint.cookie,
        String::from_utf8_lossy(user.as_bytes()),
        mint.path,
        mint.max_age_s,
        mint.same_site,
    );
    if let Some(domain) = &mint.domain {
        text.push_str("; Domain=");
        text.push_str(domain);
    }
    if mint.http_only {
        text.push_str("; HttpOnly");
    }
    if mint.secure.unwrap_or(over_tls) {
        text.push_str("; Secure");
    }
    text
}

fn read<'a>(source: &Source, request: impl Asked<'a>) -> Option<Cow<'a, [u8]>> {
    match source {
        Source::Cookie(name) => cookie_value(request.fields(), name).map(Cow::Borrowed),
        Source::Header(name) => Some(Cow::Borrowed(request.fields().first(name)?)),
        Source::Query(name) => query_value(request.query()?, name),
        Source::Jwt { claim, cookie } => {
            let token = match cookie {
                Some(cookie) => cookie_value(request.fields(), cookie)?,
                None => bearer_token(request.fields().first(&AUTHORIZATION)?)?,
            };
            jwt_claim(token, claim).map(Cow::Owned)
        }
    }
}

/// The first cookie of this name, over all `Cookie` headers, as it came. Cookies are read by
/// hand because they are bytes (the `cookie` crate wants UTF-8) and this runs on every request.
pub fn cookie_value<'a>(fields: impl Fields<'a>, name: &str) -> Option<&'a [u8]> {
    for line in fields.all(&COOKIE) {
        let mut rest = line.trim_ascii_start();
        // What is as short as the name holds no value.
        while rest.len() > name.len() {
            if rest[name.len()] == b'='
                && let Some(value) = rest.strip_prefix(name.as_bytes())
            {
                let end = memchr(b';', value).unwrap_or(value.len());
                return Some(value[1..end].trim_ascii_end());
            }
            let Some(end) = memchr(b';', rest) else {
                break;
            };
            rest = rest[end + 1..].trim_ascii_start();
        }
    }
    None
}

/// Whether any cookie is meant, over all `Cookie` headers; `is_meant` is given what begins with the
/// cookie's name.
pub fn has_cookie<'a>(fields: impl Fields<'a>, is_meant: impl Fn(&[u8]) -> bool) -> bool {
    fields.all(&COOKIE).any(|line| {
        let mut rest = line.trim_ascii_start();
        loop {
            if is_meant(rest) {
                return true;
            }
            match memchr(b';', rest) {
                Some(end) => rest = rest[end + 1..].trim_ascii_start(),
                None => return false,
            }
        }
    })
}

/// The first query parameter of this name, decoded.
pub fn query_value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    // The usual parser decodes to UTF-8 and would make one ID of all that are not; so the raw
    // value is looked for, and decoded as bytes.
    let raw = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    if raw.contains(['%', '+']) {
        let spaces = raw.replace('+', " ");
        Some(Cow::Owned(percent_decode(spaces.as_bytes())))
    } else {
        Some(Cow::Borrowed(raw.as_bytes()))
    }
}

fn percent_decode(text: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(text).collect()
}

/// The token of an `Authorization: Bearer …` value. The scheme is case-insensitive and may be
/// followed by several spaces (RFC 9110, 11.1 and 11.4).
pub fn bearer_token(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

fn jwt_claim(token: &[u8], claim: &str) -> Option<Vec<u8>> {
    let payload = token.split(|&byte| byte == b'.').nth(1)?;
    let json = URL_SAFE_NO_PAD.decode(payload.trim_ascii_end()).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&json).ok()?;
    match claims.get(claim)? {
        serde_json::Value::String(text) => Some(text.clone().into_bytes()),
        serde_json::Value::Number(number) if number.is_u64() || number.is_i64() => {
            Some(number.to_string().into_bytes())
        }
        _ => None,
    }
}
