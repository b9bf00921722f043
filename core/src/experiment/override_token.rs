//! QA overrides: a signed token that puts its bearer into a group.
//!
//! A token is `v1.<expires>.<experiment>.<group>.<signature>`: `expires` in Unix seconds, names
//! in unpadded base64url, the signature HMAC-SHA-256 (RFC 2104) over everything before its dot,
//! keyed with `overrides.secret`.

use super::{Experiment, GroupIndex};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use http::header::HeaderName;
use sha2::Sha256;

/// The header that carries a token.
pub const OVERRIDE_HEADER: HeaderName = HeaderName::from_static("watershed-override");
/// The cookie, and the query parameter of a link, that carries a token.
pub const OVERRIDE_COOKIE: &str = "watershed_override";

/// The contents of a valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The experiment's name.
    pub experiment: String,
    /// The group's name.
    pub group: String,
    /// When the token expires, in Unix seconds.
    pub expires_s: u64,
}

impl Override {
    /// Returns the group of this override, if it is for this experiment.
    pub fn group_in(&self, experiment: &Experiment) -> Option<GroupIndex> {
        (*experiment.name == *self.experiment).then(|| experiment.group_named(&self.group))?
    }
}

/// Why a token is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// It is not a token, or another secret signed it.
    #[error("not signed with this secret")]
    Forged,
    /// It has expired.
    #[error("expired")]
    Stale,
}

/// Makes a token that puts its bearer into a group until `expires_s` (Unix seconds).
pub fn sign(secret: &[u8], forced: &Override) -> String {
    let body = format!(
        "v1.{}.{}.{}",
        forced.expires_s,
        URL_SAFE_NO_PAD.encode(&forced.experiment),
        URL_SAFE_NO_PAD.encode(&forced.group),
    );
    let signature = mac(secret, body.as_bytes()).finalize().into_bytes();
    format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Decodes a token, if it is signed with this secret and has not expired. Signatures are compared in constant
/// time.
pub fn verify(secret: &[u8], token: &[u8], now_s: u64) -> Result<Override, OverrideError> {
    let forced = opened(secret, token).ok_or(OverrideError::Forged)?;
    if forced.expires_s <= now_s {
        Err(OverrideError::Stale)
    } else {
        Ok(forced)
    }
}

fn opened(secret: &[u8], token: &[u8]) -> Option<Override> {
    let token = std::str::from_utf8(token).ok()?;
    let (body, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    mac(secret, body.as_bytes()).verify_slice(&signature).ok()?;
    let mut parts = body.split('.');
    if parts.next()? != "v1" {
        return None;
    }
    let expires_s = parts.next()?.parse().ok()?;
    let name = |text: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok();
    Some(Override {
        expires_s,
        experiment: name(parts.next()?)?,
        group: name(parts.next()?)?,
    })
}

fn mac(secret: &[u8], body: &[u8]) -> Hmac<Sha256> {
    // HMAC takes a key of any length (RFC 2104, 2): the error of `new_from_slice` is for others.
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret).expect("HMAC takes any key");
    mac.update(body);
    mac
}
