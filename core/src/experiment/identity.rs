//! Who the visitor is: the first source that holds an ID wins; a visitor without one is given
//! an ID in a cookie, which is signed ([`minted`]).

use super::UserId;
use super::cookies::unquoted;
use super::http_view::{HeaderView, RequestView};
use super::key_ring::KeyRing;
use super::minted::{self, Origin};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{AUTHORIZATION, HeaderName};
use sha2::Sha256;
use std::borrow::Cow;
use std::fmt;
use uuid::Uuid;

/// Where IDs are read from and how a new one is given.
#[derive(Clone, Debug)]
pub struct Identity {
    /// In the order of the file; the minted cookie is read after all of them.
    pub sources: Vec<IdSource>,
    /// An ID longer than this is refused as an ID (never cut: a cut one could be another
    /// user's); the next source is asked.
    pub id_bytes_max: usize,
    /// The cookie given to a visitor without an ID.
    pub mint: Mint,
    /// Whether the cookie's ID is read beside a known one: it decides the group then, and what a
    /// minted one brought counts for the first known ID that comes with it.
    pub join: bool,
    /// What is kept of an ID.
    pub keep: IdStorage,
    /// Signs minted IDs.
    pub keys: KeyRing,
    /// Whether the file gives these keys, and not the secret that is kept with the store.
    pub keys_from_file: bool,
}

/// What is kept of an ID, in the journal and the store.
#[derive(Clone, Debug)]
pub enum IdStorage {
    /// The ID as it came.
    Raw,
    /// A keyed hash of it, from which nobody without the key can tell whose it is.
    Hashed(HashKey),
}

/// The key of [`IdStorage::Hashed`].
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

impl IdStorage {
    /// What is kept of this ID.
    pub fn of<'a>(&self, user: UserId<'a>) -> StoredId<'a> {
        match self {
            IdStorage::Raw => StoredId::AsItCame(user),
            IdStorage::Hashed(key) => StoredId::Hashed(key.hash(user.as_bytes())),
        }
    }

    /// What logs and results may show of an ID that is not theirs to name: the first letters of the ID, at
    /// most half of it, and its length, or the first digits of its hash.
    pub fn shown(&self, user: UserId<'_>) -> String {
        match self.of(user) {
            StoredId::Hashed(hash) => format!("{}…", String::from_utf8_lossy(&hash[..8])),
            StoredId::AsItCame(user) => {
                let bytes = user.as_bytes();
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(16)]);
                let letters = text.chars().take((bytes.len() / 2).min(4));
                let letters: String = letters.filter(|letter| !letter.is_control()).collect();
                format!("{letters}… ({} bytes)", bytes.len())
            }
        }
    }
}

/// What is kept of one ID.
#[derive(Clone, Copy, Debug)]
pub enum StoredId<'a> {
    /// The ID.
    AsItCame(UserId<'a>),
    /// Its hash, in hex.
    Hashed([u8; 32]),
}

impl StoredId<'_> {
    /// As an ID to count by.
    pub fn id(&self) -> UserId<'_> {
        match self {
            StoredId::AsItCame(user) => *user,
            StoredId::Hashed(hash) => UserId::of_nonempty(hash),
        }
    }
}

/// One place in a request where an ID may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdSource {
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

/// Whose request it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor<'a> {
    id: Cow<'a, [u8]>,
    /// The cookie's ID, where a source has a known one.
    beside: Option<Cow<'a, [u8]>>,
    /// Where the cookie's ID comes from; of a known ID alone, it says nothing.
    origin: Origin,
    /// Whether the response gives the visitor the cookie.
    gives_cookie: bool,
    /// Whether the ID was minted for this request.
    is_new: bool,
    /// Whether a source of the file names the visitor.
    is_configured: bool,
}

impl<'a> Visitor<'a> {
    /// The user with an ID that somebody gives; `None` for a text that is no ID.
    pub fn named(id: &'a [u8]) -> Option<Visitor<'a>> {
        (!is_no_id(id)).then(|| Visitor::known(Cow::Borrowed(id)))
    }

    /// Whether the ID was minted for this request. Nobody knows yet whether the client keeps it.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether a source of the file names the visitor.
    pub fn is_configured(&self) -> bool {
        self.is_configured
    }

    /// Whether the minted ID that came with this request may have been shown only once, on a request that
    /// took part in an experiment (see [`mint`]).
    pub fn may_have_been_seen_once(&self, now_ms: u64) -> bool {
        // The bit is looked at first: most requests need no more.
        let last = self.assigned_by().as_bytes().last();
        let digit = last.and_then(|&digit| char::from(digit).to_digit(16));
        let is_minted = self.origin == Origin::Minted && !self.is_new;
        let took_part = is_minted && digit.is_some_and(|digit| digit & 1 == 1);
        let minted_ms = || self.minted_ms();
        took_part && minted_ms().is_some_and(|at_ms| now_ms.saturating_sub(at_ms) <= SEEN_ONCE_MS)
    }

    /// The ID that counts: the known one where there is one.
    pub fn user(&self) -> UserId<'_> {
        UserId::of_nonempty(&self.id)
    }

    /// The ID that decides groups: the cookie's where there is one. So nobody is moved by logging
    /// in.
    pub fn assigned_by(&self) -> UserId<'_> {
        UserId::of_nonempty(self.beside.as_ref().unwrap_or(&self.id))
    }

    /// The minted ID that came with a known one.
    pub fn minted_beside(&self) -> Option<UserId<'_>> {
        let minted = self.beside.as_deref();
        minted
            .filter(|_| self.origin == Origin::Minted)
            .map(UserId::of_nonempty)
    }

    /// When the visitor's ID was minted, in Unix milliseconds; `None` where it was not.
    pub fn minted_ms(&self) -> Option<u64> {
        let id = self.assigned_by().as_bytes();
        let minted = Uuid::try_parse_ascii(id).ok()?;
        let (seconds, nanos) = minted.get_timestamp()?.to_unix();
        let is_own = self.origin == Origin::Minted;
        is_own.then_some(seconds * 1000 + u64::from(nanos) / 1_000_000)
    }

    /// The visitor with an ID of its own, for keeping past the request.
    pub fn into_owned(self) -> Visitor<'static> {
        Visitor {
            id: Cow::Owned(self.id.into_owned()),
            beside: self.beside.map(|id| Cow::Owned(id.into_owned())),
            origin: self.origin,
            gives_cookie: self.gives_cookie,
            is_new: self.is_new,
            is_configured: self.is_configured,
        }
    }

    fn known(id: Cow<'a, [u8]>) -> Visitor<'a> {
        Visitor {
            id,
            beside: None,
            origin: Origin::Old,
            gives_cookie: false,
            is_new: false,
            is_configured: true,
        }
    }
}

/// The visitor that the request names, or `None` when no source holds a usable ID.
pub fn find<'a>(identity: &Identity, request: impl RequestView<'a>) -> Option<Visitor<'a>> {
    let usable = |id: &[u8]| !is_no_id(id) && id.len() <= identity.id_bytes_max;
    let known = identity
        .sources
        .iter()
        .find_map(|source| read(source, request, usable));
    if !identity.join
        && let Some(known) = known
    {
        return Some(Visitor::known(known));
    }
    let own = request
        .fields()
        .cookies(&identity.mint.cookie)
        .find_map(|value| {
            minted::read(&identity.keys, unquoted(value)).filter(|own| usable(own.id))
        });
    let Some(own) = own else {
        return known.map(Visitor::known);
    };
    let (id, beside) = match known {
        None => (Cow::Borrowed(own.id), None),
        Some(known) if *known == *own.id => return Some(Visitor::known(known)),
        Some(known) => (known, Some(Cow::Borrowed(own.id))),
    };
    Some(Visitor {
        id,
        is_configured: beside.is_some(),
        beside,
        origin: own.origin,
        gives_cookie: !own.is_current,
        is_new: false,
    })
}

/// How long a minted ID that was shown once may still come back, in milliseconds: 30 days.
pub const SEEN_ONCE_MS: u64 = 30 * 24 * 3_600_000;

/// A new visitor: a UUIDv7 of this time (Unix milliseconds) and these random bytes. The last bit says
/// whether the request may take part in an experiment, so that only such visitors are looked for when
/// their ID comes back.
pub fn mint(now_ms: u64, random: &[u8; 10], in_experiment: bool) -> Visitor<'static> {
    let mut random = *random;
    random[9] = random[9] & !1 | u8::from(in_experiment);
    let id = uuid::Builder::from_unix_timestamp_millis(now_ms, &random).into_uuid();
    let mut text = Uuid::encode_buffer();
    let id = id.hyphenated().encode_lower(&mut text).as_bytes().to_vec();
    Visitor {
        id: Cow::Owned(id),
        beside: None,
        origin: Origin::Minted,
        gives_cookie: true,
        is_new: true,
        is_configured: false,
    }
}

/// What programs write where they have no ID.
const NO_IDS: &[&[u8]] = &[
    b"undefined",
    b"null",
    b"none",
    b"nan",
    b"nil",
    b"0",
    b"[object object]",
    // As `encodeURIComponent` and forms write the same.
    b"%5bobject%20object%5d",
    b"%5bobject+object%5d",
    b"[object%20object]",
    b"00000000-0000-0000-0000-000000000000",
    b"00000000000000000000000000000000",
];

/// Whether this is what programs write where they have no ID, such as `undefined`.
pub fn is_no_id(id: &[u8]) -> bool {
    // Most IDs are told from all of these by their length and first byte.
    let is = |none: &&[u8]| none.len() == id.len() && none.eq_ignore_ascii_case(id);
    id.is_empty() || NO_IDS.iter().any(is)
}

/// The `Set-Cookie` value that gives a visitor the cookie. `None` for one who has it.
pub fn set_cookie(identity: &Identity, visitor: &Visitor<'_>, over_tls: bool) -> Option<Vec<u8>> {
    if !visitor.gives_cookie {
        return None;
    }
    let mint = &identity.mint;
    let id = visitor.assigned_by().as_bytes();
    let value = minted::write(&identity.keys, id, visitor.origin);
    let attributes = cookie_attributes(mint, over_tls);
    Some([mint.cookie.as_bytes(), b"=", &value, attributes.as_bytes()].concat())
}

/// The attributes of cookies that belong to a user, behind their value.
pub fn cookie_attributes(mint: &Mint, over_tls: bool) -> String {
    let mut line = format!(
        "; Path={}; Max-Age={}; SameSite={}",
        mint.path, mint.max_age_s, mint.same_site
    );
    if let Some(domain) = &mint.domain {
        line += "; Domain=";
        line += domain;
    }
    if mint.http_only {
        line += "; HttpOnly";
    }
    // Browsers refuse SameSite=None without Secure.
    if &*mint.same_site == "None" || mint.secure.unwrap_or(over_tls) {
        line += "; Secure";
    }
    line
}

fn trim(id: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match id {
        Cow::Borrowed(id) => Cow::Borrowed(UserId::trim(id)),
        Cow::Owned(id) => match UserId::trim(&id) {
            trimmed if trimmed.len() == id.len() => Cow::Owned(id),
            trimmed => Cow::Owned(trimmed.to_vec()),
        },
    }
}

/// The ID that stands in a source. Where a cookie or header occurs more than once, the first usable value
/// is the ID.
pub fn read<'a>(
    source: &IdSource,
    request: impl RequestView<'a>,
    usable: impl Fn(&[u8]) -> bool,
) -> Option<Cow<'a, [u8]>> {
    let id = match source {
        IdSource::Cookie(name) => {
            let mut values = request.fields().cookie_texts(name);
            return values.find(|id| usable(id)).map(Cow::Borrowed);
        }
        IdSource::Header(name) => {
            let mut values = request.fields().all(name).map(UserId::trim);
            return values.find(|id| usable(id)).map(Cow::Borrowed);
        }
        IdSource::Query(name) => {
            let mut values = query_values(request.query()?, name).map(trim);
            return values.find(|id| usable(id));
        }
        IdSource::Jwt { claim, cookie } => {
            let token = match cookie {
                Some(cookie) => request.fields().cookies(cookie).next()?,
                None => bearer_token(request.fields().first(&AUTHORIZATION)?)?,
            };
            jwt_claim(token, claim).map(Cow::Owned)
        }
    };
    id.map(trim).filter(|id| usable(id))
}

/// The first query parameter of this name, decoded.
pub fn query_value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    query_values(query, name).next()
}

/// The query parameters of this name, decoded.
fn query_values<'a>(query: &'a str, name: &str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    // The usual parser decodes to UTF-8 and would make one ID of all that are not; so the raw
    // value is looked for, and decoded as bytes.
    let pairs = query.split('&');
    let raw = pairs.filter_map(move |pair| pair.strip_prefix(name)?.strip_prefix('='));
    raw.map(|raw| match raw.contains(['%', '+']) {
        true => Cow::Owned(percent_decode(raw.replace('+', " ").as_bytes())),
        false => Cow::Borrowed(raw.as_bytes()),
    })
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
