//! Signed sessions of browsers, and what their forms carry. PURE.
//!
//! A session is `<until>.<signature>.<name>`: Unix seconds, and HMAC-SHA-256 (RFC 2104) in unpadded
//! base64url, keyed with the digest of the name's token. So every replica with the same file knows
//! it, and it ends with its token.

use crate::config::plan::Token;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The cookie that carries it.
pub use crate::config::plan::SESSION_COOKIE as COOKIE;
/// How long it lasts, in seconds.
pub const SECONDS: u64 = 12 * 3600;

/// A session of whoever carries this token, until this Unix second.
pub fn sign(token: &Token, until_s: u64) -> String {
    let signature = mac(&token.digest, &["session", &until_s.to_string()]).finalize();
    let signature = URL_SAFE_NO_PAD.encode(signature.into_bytes());
    format!("{until_s}.{signature}.{}", token.name)
}

/// Whose session this is, if it is sound and not over. Compared in constant time.
pub fn verify<'a>(tokens: &'a [Token], session: &str, now_s: u64) -> Option<&'a Token> {
    let mut parts = session.splitn(3, '.');
    let (until, signature, name) = (parts.next()?, parts.next()?, parts.next()?);
    let token = tokens.iter().find(|token| &*token.name == name)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let mac = mac(&token.digest, &["session", until]);
    mac.verify_slice(&signature).ok()?;
    (until.parse::<u64>().ok()? > now_s).then_some(token)
}

/// Until when a session is good, in Unix seconds, if it is one.
pub fn until(session: &str) -> Option<u64> {
    session.split('.').next()?.parse().ok()
}

/// What the forms of a session's pages carry: a page elsewhere does not know it.
pub fn form(key: &[u8], session: &str) -> String {
    let form = mac(key, &["form", session]).finalize();
    URL_SAFE_NO_PAD.encode(form.into_bytes())
}

/// Whether a form carries what it should. Compared in constant time.
pub fn is_form(key: &[u8], session: &str, brought: &str) -> bool {
    let brought = URL_SAFE_NO_PAD.decode(brought).unwrap_or_default();
    mac(key, &["form", session]).verify_slice(&brought).is_ok()
}

fn mac(key: &[u8], said: &[&str]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "RFC 2104 takes keys of any length")]
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes any key");
    for part in said {
        mac.update(part.as_bytes());
        mac.update(b"\0");
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::Role;

    fn token(name: &str, byte: u8) -> Token {
        Token {
            name: name.into(),
            role: Role::Read,
            digest: [byte; 32],
            short: false,
        }
    }

    #[test]
    fn a_session_is_its_tokens_and_ends() {
        let tokens = [token("a", 1), token("b.c", 2)];
        let session = sign(&tokens[1], 1000);
        let of = |session: &str, now_s| verify(&tokens, session, now_s).map(|token| &*token.name);
        assert_eq!(of(&session, 999), Some("b.c"));
        assert_eq!(of(&session, 1000), None, "it is over");
        assert_eq!(of(&session.replacen("1000", "2000", 1), 999), None);
        assert_eq!(of(&session.replace("b.c", "a"), 999), None);
        let changed = [token("a", 1), token("b.c", 3)];
        assert!(verify(&changed, &session, 999).is_none(), "another token");
        for unsound in ["", ".", "..", "1000..a", "x.y.a", "1000.AAAA"] {
            assert_eq!(of(unsound, 0), None, "{unsound}");
        }
    }

    #[test]
    fn a_form_is_of_one_session() {
        let carried = form(b"key", "session");
        assert!(is_form(b"key", "session", &carried));
        for (key, session, brought) in [
            (&b"other"[..], "session", &*carried),
            (b"key", "other", &carried),
            (b"key", "session", ""),
            (b"key", "session", &carried[1..]),
        ] {
            assert!(!is_form(key, session, brought));
        }
    }
}
