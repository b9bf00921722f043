//! Signed browser sessions, and the form tokens that belong to them. PURE.
//!
//! A session is `<until>.<nonce>.<tag>.<name>`: its expiry in Unix seconds, 16 random bytes and the tag
//! in unpadded base64url, and the name of its token. The tag signs all of these and the token's digest
//! with keys from the store. A session therefore ends when its token changes, every replica of a store
//! accepts it, and a reader of the routes file cannot forge one.

use crate::config::plan::{Admin, Token};
use crate::experiment::key_ring::KeyRing;
use crate::store::ENDED_SESSIONS_MAX;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::BTreeSet;

/// The name of the session cookie.
pub(crate) use crate::config::plan::SESSION_COOKIE as COOKIE;
/// The longest time until the expiry of a valid session, in seconds.
pub(crate) const SECONDS_MAX: u64 = 12 * 3600;
/// The most by which the clock of the replica that started a session may be ahead, in seconds.
const AHEAD_S: u64 = 300;
/// The duration of a session, in seconds.
pub(crate) const SECONDS: u64 = SECONDS_MAX - AHEAD_S;
/// The number of random bytes that make a session unique.
pub(crate) const NONCE_BYTES: usize = 16;

/// A session whose tag is valid and that has not expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session<'a> {
    /// Its expiry, in Unix seconds.
    pub until_s: u64,
    /// Its random bytes in base64url; unique.
    pub nonce: &'a str,
}

/// Creates a session of this token that expires at `until_s`. Returns the value of the cookie.
pub(crate) fn sign(
    keys: &KeyRing,
    token: &Token,
    until_s: u64,
    nonce: [u8; NONCE_BYTES],
) -> String {
    let (until, nonce) = (until_s.to_string(), URL_SAFE_NO_PAD.encode(nonce));
    let tag = keys.sign(&signed(token, &until, &nonce));
    let tag = URL_SAFE_NO_PAD.encode(tag);
    format!("{until}.{nonce}.{tag}.{}", token.name)
}

/// Returns the token of a valid session and the session itself; `None` if the tag is wrong or the
/// session has expired. The tag is compared in constant time.
pub(crate) fn verify<'a, 'b>(
    admin: &'a Admin,
    session: &'b str,
    now_s: u64,
) -> Option<(&'a Token, Session<'b>)> {
    let mut parts = session.splitn(4, '.');
    let (until, nonce) = (parts.next()?, parts.next()?);
    let (tag, name) = (parts.next()?, parts.next()?);
    let token = admin.tokens.iter().find(|token| &*token.name == name)?;
    let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
    admin
        .session_keys
        .verify(&signed(token, until, nonce), &tag)?;
    let until_s: u64 = until.parse().ok()?;
    let lasts = now_s < until_s && until_s <= now_s.saturating_add(SECONDS_MAX);
    lasts.then_some((token, Session { until_s, nonce }))
}

fn signed<'a>(token: &'a Token, until: &'a str, nonce: &'a str) -> [&'a [u8]; 5] {
    let (name, digest) = (token.name.as_bytes(), &token.digest[..]);
    [b"session", until.as_bytes(), nonce.as_bytes(), name, digest]
}

/// Returns the form token of a session. Pages of other sites do not know it.
pub(crate) fn form(keys: &KeyRing, session: &str) -> String {
    URL_SAFE_NO_PAD.encode(keys.sign(&[b"form", session.as_bytes()]))
}

/// Whether a form token belongs to this session. Compared in constant time.
pub(crate) fn is_form(keys: &KeyRing, session: &str, form_token: &str) -> bool {
    let tag = URL_SAFE_NO_PAD.decode(form_token).unwrap_or_default();
    keys.verify(&[b"form", session.as_bytes()], &tag).is_some()
}

/// Sessions that were ended before they expired: at most [`ENDED_SESSIONS_MAX`].
#[derive(Debug, Default)]
pub struct EndedSessions(BTreeSet<(u64, String)>);

impl EndedSessions {
    /// Adds a session. At the limit, the one that expires first is dropped.
    pub fn add(&mut self, until_s: u64, nonce: String) {
        self.0.insert((until_s, nonce));
        if self.0.len() > ENDED_SESSIONS_MAX {
            self.0.pop_first();
        }
    }

    /// Whether a session was ended. At the limit, every session that expires before the kept ones also
    /// counts as ended, so that a dropped one does not become valid again.
    pub fn holds(&self, session: Session<'_>) -> bool {
        let is_full = self.0.len() >= ENDED_SESSIONS_MAX;
        let first = self.0.first().filter(|_| is_full);
        first.is_some_and(|(until_s, _)| session.until_s <= *until_s)
            || self
                .0
                .contains(&(session.until_s, session.nonce.to_owned()))
    }

    /// Removes sessions that have expired.
    pub fn remove_expired(&mut self, now_s: u64) {
        self.0.retain(|(until_s, _)| *until_s > now_s);
    }

    /// Returns the expiry and the nonce of each session, the earliest expiry first.
    pub fn all(&self) -> impl Iterator<Item = &(u64, String)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::{Origins, TokenRole};

    const NOW: u64 = 1_800_000_000;

    fn token(name: &str, byte: u8) -> Token {
        Token {
            name: name.into(),
            role: TokenRole::Read,
            digest: [byte; 32],
            short: false,
        }
    }

    fn keys(secrets: &[&[u8]]) -> KeyRing {
        KeyRing::new("sessions", secrets[0], secrets[1..].iter().copied())
    }

    fn admin(tokens: &[Token], secrets: &[&[u8]]) -> Admin {
        Admin {
            listen: ([127, 0, 0, 1], 1).into(),
            health: None,
            tokens: tokens.to_vec(),
            session_keys: keys(secrets),
            flag_origins: Origins::All,
            tls: None,
        }
    }

    #[test]
    fn session_is_valid_for_its_token_until_it_expires() {
        let tokens = [token("a", 1), token("b.c", 2)];
        let here = admin(&tokens, &[b"kept"]);
        let of = |session: &str, now_s| {
            verify(&here, session, now_s).map(|(token, _)| token.name.to_string())
        };
        let until_s = NOW + SECONDS;
        let session = sign(&here.session_keys, &tokens[1], until_s, [7; 16]);
        assert_eq!(of(&session, NOW).as_deref(), Some("b.c"));
        assert_eq!(of(&session, until_s - 1).as_deref(), Some("b.c"));
        assert_eq!(of(&session, until_s), None, "it has expired");
        let later = session.replacen(&until_s.to_string(), &(until_s + 1).to_string(), 1);
        assert_eq!(of(&later, NOW), None);
        assert_eq!(of(&session.replace("b.c", "a"), NOW), None);
        for other in [
            admin(&[token("a", 1), token("b.c", 3)], &[b"kept"]),
            admin(&[token("a", 1)], &[b"kept"]),
            admin(&tokens, &[b"other"]),
        ] {
            assert!(verify(&other, &session, NOW).is_none(), "{other:?}");
        }
        // A replica that knows both secrets accepts sessions of either.
        let both = admin(&tokens, &[b"other", b"kept"]);
        assert!(verify(&both, &session, NOW).is_some());
        for malformed in [
            "",
            ".",
            "...",
            "1800000100...a",
            "x.y.z.a",
            "1800000100.AAAA.AAAA.a",
        ] {
            assert_eq!(of(malformed, NOW), None, "{malformed}");
        }
    }

    #[test]
    fn signed_session_of_more_than_twelve_hours_is_refused() {
        let here = admin(&[token("a", 1)], &[b"kept"]);
        for (seconds, is_valid) in [
            (1, true),
            (SECONDS, true),
            (SECONDS_MAX, true),
            (SECONDS_MAX + 1, false),
            (10 * 365 * 24 * 3600, false),
            (u64::MAX - NOW, false),
        ] {
            let session = sign(&here.session_keys, &here.tokens[0], NOW + seconds, [0; 16]);
            assert_eq!(
                verify(&here, &session, NOW).is_some(),
                is_valid,
                "{seconds}"
            );
        }
    }

    #[test]
    fn form_token_is_valid_for_one_session() {
        let (kept, other) = (keys(&[b"kept"]), keys(&[b"other"]));
        let form_token = form(&kept, "session");
        assert!(is_form(&kept, "session", &form_token));
        for (keys, session, other) in [
            (&other, "session", &*form_token),
            (&kept, "other", &form_token),
            (&kept, "session", ""),
            (&kept, "session", &form_token[1..]),
        ] {
            assert!(!is_form(keys, session, other));
        }
    }

    #[test]
    fn ended_sessions_stay_ended_at_the_limit() {
        let mut ended = EndedSessions::default();
        let session = |until_s, nonce| Session { until_s, nonce };
        ended.add(NOW + 5, "a".to_owned());
        assert!(ended.holds(session(NOW + 5, "a")));
        assert!(
            !ended.holds(session(NOW + 5, "b")),
            "another session of the same second"
        );
        for place in 0..2 * ENDED_SESSIONS_MAX as u64 {
            ended.add(NOW + 10 + place, "x".to_owned());
        }
        assert_eq!(ended.all().count(), ENDED_SESSIONS_MAX);
        assert!(ended.holds(session(NOW + 5, "a")), "it stays ended");
        let last = NOW + 10 + 2 * ENDED_SESSIONS_MAX as u64;
        assert!(
            !ended.holds(session(last, "b")),
            "newer sessions stay valid"
        );
        ended.remove_expired(last);
        assert_eq!(ended.all().count(), 0);
    }
}
