//! The cookie of a minted ID: `<ID>.<tag>`, where the ID ends at the first dot. PURE.
//!
//! The tag proves that this site minted the ID, so that no client can choose one. It is the unpadded
//! base64url of a [`key_ring`](super::key_ring) tag. An ID of version 0.1.0 has no tag, so a client may have
//! chosen it. It gets a tag of another kind (`<ID>.0<tag>`), which does not prove its origin, and the ID
//! never counts as minted.

use super::UserId;
use super::key_ring::{KeyRing, TAG_BYTES, Tag};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use memchr::memchr;
use uuid::Uuid;

/// The number of digits of a tag.
const TAG_TEXT_BYTES: usize = 22;
/// The prefix of the tag of an ID of version 0.1.0.
const OLD_MARK: u8 = b'0';

/// The origin of the ID in a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This site minted it: a known ID may absorb it.
    Minted,
    /// Version 0.1.0 made it, or a client chose it: it identifies a user, and no known ID absorbs it.
    Old,
}

impl Origin {
    /// Separates the tags of the two origins.
    fn label(self) -> &'static [u8] {
        match self {
            Origin::Minted => b"minted",
            Origin::Old => b"old",
        }
    }
}

/// The contents of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieId<'a> {
    /// The ID, without its tag; not empty.
    pub id: &'a [u8],
    /// Its origin.
    pub origin: Origin,
    /// Whether the first key signed it. If not, the response sets the cookie again.
    pub is_current: bool,
}

/// Decodes a cookie. `None` for an empty ID or a wrong tag: the cookie is ignored.
pub fn read<'a>(keys: &KeyRing, value: &'a [u8]) -> Option<CookieId<'a>> {
    let Some(end) = memchr(b'.', value) else {
        return (!value.is_empty()).then_some(CookieId {
            id: value,
            origin: Origin::Old,
            is_current: false,
        });
    };
    let id = &value[..end];
    let (origin, tag) = tag(&value[end + 1..])?;
    let key = keys.verify(&[origin.label(), id], &tag)?;
    (!id.is_empty()).then_some(CookieId {
        id,
        origin,
        is_current: key == 0,
    })
}

/// Encodes the cookie of an ID with the first key.
pub fn write(keys: &KeyRing, id: &[u8], origin: Origin) -> Vec<u8> {
    let mut value = Vec::with_capacity(id.len() + 2 + TAG_TEXT_BYTES);
    value.extend_from_slice(id);
    value.push(b'.');
    if origin == Origin::Old {
        value.push(OLD_MARK);
    }
    let tag = URL_SAFE_NO_PAD.encode(keys.sign(&[origin.label(), id]));
    value.extend_from_slice(tag.as_bytes());
    value
}

/// Returns the ID in a text that a person entered: an ID, or the whole value of a cookie. A UUID before
/// something like a tag counts as the ID even if the key is not known.
pub fn id_of<'a>(keys: &KeyRing, given: &'a [u8]) -> &'a [u8] {
    let given = UserId::trim(given);
    let Some(end) = memchr(b'.', given) else {
        return given;
    };
    let (id, rest) = (&given[..end], &given[end + 1..]);
    let looks_so = || tag(rest).is_some() && Uuid::try_parse_ascii(id).is_ok();
    match read(keys, given).is_some() || looks_so() {
        true => id,
        false => given,
    }
}

/// Decodes a tag, and returns its origin; `None` for a malformed one.
fn tag(text: &[u8]) -> Option<(Origin, Tag)> {
    let (origin, digits) = match text {
        [OLD_MARK, digits @ ..] if digits.len() == TAG_TEXT_BYTES => (Origin::Old, digits),
        digits if digits.len() == TAG_TEXT_BYTES => (Origin::Minted, digits),
        _ => return None,
    };
    let mut tag = [0; TAG_BYTES];
    let bytes = URL_SAFE_NO_PAD.decode_slice(digits, &mut tag).ok()?;
    (bytes == TAG_BYTES).then_some((origin, tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secrets: &[&'static [u8]]) -> KeyRing {
        KeyRing::new("identity", secrets[0], secrets[1..].iter().copied())
    }

    #[track_caller]
    fn check(keys: &KeyRing, value: &[u8], expected: Option<(&[u8], Origin, bool)>) {
        let found = read(keys, value).map(|own| (own.id, own.origin, own.is_current));
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(value));
    }

    #[test]
    fn tag_proves_id_and_origin() {
        let (new, old): (&[u8], &[u8]) = (b"a new secret of ours", b"an old secret of ours");
        let ring = keys(&[new, old]);
        for origin in [Origin::Minted, Origin::Old] {
            let value = write(&ring, b"m1", origin);
            check(&ring, &value, Some((b"m1", origin, true)));
            check(&keys(&[old, new]), &value, Some((b"m1", origin, false)));
            check(&keys(&[old]), &value, None);
            let bytes = write(&ring, b"\xff\x01,\"", origin);
            check(&ring, &bytes, Some((b"\xff\x01,\"", origin, true)));
        }
        check(&ring, b"m1", Some((b"m1", Origin::Old, false)));
    }

    #[test]
    fn tag_cannot_be_changed_moved_or_relabelled() {
        let ring = keys(&[b"a secret of ours"]);
        let minted = write(&ring, b"m1", Origin::Minted);
        let tag = &minted[3..];
        for place in 0..minted.len() {
            for byte in 0..=255 {
                let mut changed = minted.clone();
                changed[place] = byte;
                let may = byte == minted[place] || (place == 2 && byte != b'.');
                // Without its dot, it is an untagged ID.
                let origin = read(&ring, &changed).map(|own| own.origin);
                let expected = may.then_some(match place {
                    2 if byte != b'.' => Origin::Old,
                    _ => Origin::Minted,
                });
                assert_eq!(origin, expected, "{}", String::from_utf8_lossy(&changed));
            }
        }
        // An untagged ID that was given a tag does not become a minted one.
        let old = write(&ring, b"m1", Origin::Old);
        check(&ring, &[b"m1.", &old[4..]].concat(), None);
        check(&ring, &[b"m1.0", tag].concat(), None);
        for wrong in [
            [b"m2.", tag].concat(),
            [b".", tag].concat(),
            [b"m1..", tag].concat(),
            [b"m1.x.", tag].concat(),
            [b"m1.", tag, b"."].concat(),
            [b"m1.", tag, b"=="].concat(),
            [b"m1.", &tag[1..]].concat(),
            [b"m1.", &tag.to_ascii_uppercase()[..]].concat(),
            [&b"x".repeat(8000), &b"."[..], tag].concat(),
            b"m1.".to_vec(),
            b".".to_vec(),
            b"..".to_vec(),
            b"".to_vec(),
        ] {
            check(&ring, &wrong, None);
        }
        // The same sixteen bytes in other digits: the last digit has four bits that say nothing.
        let last = tag[TAG_TEXT_BYTES - 1];
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let others = digits.iter().filter(|&&digit| digit != last);
        for &other in others {
            let mut value = minted.clone();
            *value.last_mut().unwrap() = other;
            check(&ring, &value, None);
        }
    }

    #[test]
    fn pasted_cookie_is_its_id() {
        let ring = keys(&[b"a secret of ours"]);
        let uuid = b"019341e2-7d4c-7bbb-8ccc-0123456789ab";
        for origin in [Origin::Minted, Origin::Old] {
            assert_eq!(id_of(&ring, &write(&ring, b"m1", origin)), b"m1");
            let of_another = write(&keys(&[b"another secret"]), uuid, origin);
            assert_eq!(id_of(&ring, &of_another), uuid);
        }
        for id in [&b"u1"[..], b"ann.lee@example.com", b"m1.", b".", b""] {
            assert_eq!(id_of(&ring, id), id);
        }
        let not_ours = write(&keys(&[b"another secret"]), b"ann", Origin::Minted);
        assert_eq!(id_of(&ring, &not_ours), not_ours);
    }
}
