//! Keys that sign what clients carry, such as minted IDs and sessions. PURE.
//!
//! A tag is the first 16 bytes of HMAC-SHA-256 (RFC 2104). Each secret is bound to one purpose
//! first, so that a tag of one purpose is invalid for another.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::sync::Arc;

/// The size of a tag, in bytes.
pub const TAG_BYTES: usize = 16;

/// Proves that one of the keys signed a message.
pub type Tag = [u8; TAG_BYTES];

/// At least one key: the first one signs, all of them verify. To replace a key, write the new one before
/// it, and remove the old one when nothing that it signed is needed any more.
#[derive(Clone)]
pub struct KeyRing {
    first: Hmac<Sha256>,
    others: Arc<[Hmac<Sha256>]>,
}

impl KeyRing {
    /// Derives keys for a purpose from secrets. Secrets may have any length; 32 random bytes are best.
    pub fn new<'a>(
        purpose: &str,
        first: &[u8],
        others: impl IntoIterator<Item = &'a [u8]>,
    ) -> KeyRing {
        let key = |secret: &[u8]| {
            let mut derived = keyed(secret);
            derived.update(b"watershed/");
            derived.update(purpose.as_bytes());
            keyed(&derived.finalize().into_bytes())
        };
        KeyRing {
            first: key(first),
            others: others.into_iter().map(key).collect(),
        }
    }

    /// Signs a message with the first key. The boundaries of its parts are signed, too: ["ab", "c"] and
    /// ["a", "bc"] are different messages.
    pub fn sign(&self, parts: &[&[u8]]) -> Tag {
        let mut tag = [0; TAG_BYTES];
        let whole = message(&self.first, parts).finalize().into_bytes();
        tag.copy_from_slice(&whole[..TAG_BYTES]);
        tag
    }

    /// Returns the index of the key that signed a message with this tag; `None` if none did. Tags are compared
    /// in constant time.
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> Option<usize> {
        if tag.len() != TAG_BYTES {
            return None;
        }
        let mut keys = std::iter::once(&self.first).chain(&*self.others);
        keys.position(|key| message(key, parts).verify_truncated_left(tag).is_ok())
    }

    /// The same for a tag in unpadded base64url.
    pub fn verify_text(&self, parts: &[&[u8]], tag: &str) -> Option<usize> {
        let mut bytes = [0; TAG_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(tag, &mut bytes).ok()?;
        self.verify(parts, bytes.get(..length)?)
    }
}

impl fmt::Debug for KeyRing {
    /// Shows the number of keys, and no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", 1 + self.others.len())
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "RFC 2104 takes keys of any length")]
    <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes any key")
}

fn message(key: &Hmac<Sha256>, parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = key.clone();
    for part in parts {
        mac.update(&(part.len() as u32).to_le_bytes());
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &[u8] = b"a new secret";
    const OLD: &[u8] = b"an old secret";

    fn ring(purpose: &str, secrets: &[&[u8]]) -> KeyRing {
        KeyRing::new(purpose, secrets[0], secrets[1..].iter().copied())
    }

    #[test]
    fn every_key_verifies_and_the_first_signs() {
        let before = ring("a", &[OLD]).sign(&[b"id"]);
        let rotated = ring("a", &[NEW, OLD]);
        assert_eq!(rotated.verify(&[b"id"], &before), Some(1));
        let after = rotated.sign(&[b"id"]);
        assert_eq!(rotated.verify(&[b"id"], &after), Some(0));
        assert_eq!(ring("a", &[NEW]).verify(&[b"id"], &before), None);
        assert_eq!(ring("a", &[OLD]).verify(&[b"id"], &after), None);
    }

    #[test]
    fn a_tag_is_of_one_purpose_one_message_and_its_whole_length() {
        let keys = ring("a", &[NEW]);
        let tag = keys.sign(&[b"ab", b"c"]);
        assert_eq!(keys.verify(&[b"ab", b"c"], &tag), Some(0));
        for parts in [&[&b"a"[..], b"bc"][..], &[b"abc"], &[b"ab", b"c", b""], &[]] {
            assert_eq!(keys.verify(parts, &tag), None, "{parts:?}");
        }
        assert_eq!(ring("b", &[NEW]).verify(&[b"ab", b"c"], &tag), None);
        for length in [0, 1, TAG_BYTES - 1] {
            assert_eq!(keys.verify(&[b"ab", b"c"], &tag[..length]), None);
        }
        for bit in 0..8 * TAG_BYTES {
            let mut changed = tag;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys.verify(&[b"ab", b"c"], &changed), None, "bit {bit}");
        }
    }

    /// Computed with Python's hmac: HMAC(HMAC(secret, "watershed/identity"), 02000000 "id"), cut
    /// to 16 bytes.
    #[test]
    fn the_tag_is_the_documented_one() {
        let tag = ring("identity", &[b"secret"]).sign(&[b"id"]);
        let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "ae6ce61cbea8f7a87bc2fd7964c3bf47");
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", ring("a", &[NEW, OLD])), "KeyRing(2 keys)");
    }
}
