//! Override tokens: nothing but what `sign` wrote is honoured, and a body that somebody with the
//! secret signed is read without fault.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use watershed::experiment::override_token::{Override, OverrideError, sign, verify};

const SECRET: &[u8] = b"0123456789abcdef";

/// Tries one input.
pub fn try_input(bytes: &[u8]) {
    assert_eq!(
        verify(SECRET, bytes, 0),
        Err(OverrideError::Forged),
        "forged"
    );
    // A body of any shape, soundly signed.
    let Ok(body) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(SECRET).expect("any key");
    mac.update(bytes);
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    if let Ok(forced) = verify(SECRET, format!("{body}.{signature}").as_bytes(), 5) {
        assert!(forced.expires_s > 5);
        let token = sign(SECRET, &forced);
        assert_eq!(verify(SECRET, token.as_bytes(), 5), Ok(forced.clone()));
        assert_eq!(
            verify(SECRET, token.as_bytes(), forced.expires_s),
            Err(OverrideError::Stale)
        );
        assert_eq!(
            verify(b"other", token.as_bytes(), 5),
            Err(OverrideError::Forged)
        );
    }
    // A sound token, with one byte changed, cut short or grown.
    let forced = Override {
        experiment: body.to_owned(),
        group: body.chars().rev().collect(),
        expires_s: 10,
    };
    let token = sign(SECRET, &forced);
    assert_eq!(verify(SECRET, token.as_bytes(), 9), Ok(forced));
    let at = bytes.iter().map(|&byte| usize::from(byte)).sum::<usize>() % token.len();
    let mut changed = token.clone().into_bytes();
    changed[at] ^= 1 + bytes.len() as u8 % 127;
    assert_eq!(
        verify(SECRET, &changed, 9),
        Err(OverrideError::Forged),
        "{token}"
    );
    assert_eq!(
        verify(SECRET, &token.as_bytes()[..at], 9),
        Err(OverrideError::Forged)
    );
    changed = token.into_bytes();
    changed.extend(bytes);
    if !bytes.is_empty() {
        assert_eq!(verify(SECRET, &changed, 9), Err(OverrideError::Forged));
    }
}
