//! Authentication and authorization: tokens with roles, browser sessions, and protection against
//! requests that pages of other sites make browsers send (CSRF).

use crate::admin::http::connections::Admitted;
use crate::admin::http::error::Failure;
use crate::admin::http::gate::GATE;
use crate::admin::http::html::{login_page, wants_html};
use crate::admin::http::session;
use crate::admin::state::AdminState;
use crate::admin::view::html::Viewer;
use crate::config::plan::{Token, TokenRole};
use crate::experiment::http_view::HeaderView;
use crate::experiment::identity::bearer_token;
use crate::experiment::key_ring::KeyRing;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{
    AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;

/// `Retry-After` of a client that sent too many wrong tokens, in seconds.
const RETRY_S: &str = "60";

/// The path that ends a session. Every role may end its own.
pub(crate) const LOGOUT: &str = "/admin/logout";
/// The beginning of the paths of experiments.
const EXPERIMENTS: &str = "/admin/experiments/";

/// The caller of the admin API.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The name of the token; `None` where none is required.
    pub name: Option<Arc<str>>,
    /// Its permissions.
    pub role: TokenRole,
    /// Credentials that a browser attaches by itself; `None` for a token in a header.
    pub ambient: Option<Ambient>,
}

/// Credentials that a browser attaches by itself, so that forms must carry a token against CSRF.
#[derive(Clone, Debug)]
pub(crate) struct Ambient {
    keys: KeyRing,
    /// The session cookie; empty if no token is configured.
    session: String,
    /// The expiry of the session in Unix seconds and its nonce; `None` if no token is configured.
    expires: Option<(u64, String)>,
    /// Whether a header of the browser shows that the request comes from a page of the admin API.
    is_same_origin: bool,
}

impl Ambient {
    /// Ends the session: on this replica at once, on others once the store has it.
    pub(crate) async fn end(&self, state: &AdminState) {
        if let Some((until_s, nonce)) = &self.expires {
            state.ended().add(*until_s, nonce.clone());
            state.exchange_ended().await;
        }
    }
}

impl Caller {
    /// Returns the person that a page is for.
    pub(crate) fn viewer(&self) -> Viewer<'_> {
        Viewer {
            name: self.name.as_deref(),
            may_operate: self.role >= TokenRole::Operate,
            form: self.form(),
        }
    }

    /// Returns the form token of pages for this caller; empty if none is needed.
    pub(crate) fn form(&self) -> String {
        let token = |ambient: &Ambient| session::form(&ambient.keys, &ambient.session);
        self.ambient.as_ref().map_or(String::new(), token)
    }

    /// Whether a form token belongs to this caller's session.
    pub(crate) fn is_own_form(&self, form_token: &str) -> bool {
        self.ambient
            .as_ref()
            .is_none_or(|it| session::is_form(&it.keys, &it.session, form_token))
    }

    /// Whether the caller is a browser that has logged in.
    pub(crate) fn has_session(&self) -> bool {
        self.name.is_some() && self.ambient.is_some()
    }

    /// Whether only a form token can rule out a forged request (CSRF). Without configured tokens none
    /// is needed, because programs call the API, too, and send no `Origin`.
    pub(crate) fn needs_form_token(&self) -> bool {
        let ambient = self.ambient.as_ref();
        ambient.is_some_and(|it| !it.session.is_empty() && !it.is_same_origin)
    }

    /// Returns the author that the audit log names: the author that the caller states, with the name
    /// of its token.
    pub(crate) fn by(&self, stated: Option<&str>) -> String {
        match (self.name.as_deref(), stated) {
            (Some(name), Some(stated)) if name != stated => format!("{stated} ({name})"),
            (Some(name), _) => name.to_owned(),
            (None, Some(stated)) => stated.to_owned(),
            (None, None) => "the admin API".to_owned(),
        }
    }
}

/// Passes a request on if its caller is authenticated and has the permission for it.
pub(crate) async fn authorize(
    State(state): State<AdminState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match authenticate(&state, peer.ip(), request.headers()) {
        Ok(caller) => caller,
        Err(error) => return refusal(error, &request),
    };
    if caller.role < TokenRole::Read && request.uri().path() != LOGOUT {
        let error = "this token has role `flags`: a token with `role: read` is required";
        return Failure::new(StatusCode::FORBIDDEN, error).into_response();
    }
    if !request.method().is_safe() {
        if caller.role < TokenRole::Operate && !is_for_readers(request.uri().path()) {
            let error = "this token has role `read`: a token with `role: operate` is required";
            return Failure::new(StatusCode::FORBIDDEN, error).into_response();
        }
        let cross_site = caller.ambient.is_some() && !is_same_origin(request.headers());
        if cross_site || caller.needs_form_token() && !takes_forms(request.uri().path()) {
            let error = "a page of another site cannot change anything here";
            return Failure::new(StatusCode::FORBIDDEN, error).into_response();
        }
    }
    admit(&request);
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Notes that a request's caller is authenticated.
pub(crate) fn admit(request: &Request) {
    if let Some(admitted) = request.extensions().get::<Admitted>() {
        admitted.set();
    }
}

/// The response to a caller who is not authenticated.
pub(crate) fn refusal(error: AuthError, request: &Request) -> Response {
    match error {
        AuthError::TooManyWrongTokens => too_many_wrong_tokens(),
        AuthError::NoValidToken => unauthorized(request),
        AuthError::NoNonce(error) => no_nonce(&error),
        AuthError::RemotePeer => {
            let error = "without admin.token the admin API accepts requests of this machine only";
            Failure::new(StatusCode::FORBIDDEN, error).into_response()
        }
        AuthError::ForeignHost(host) => {
            let error = format!(
                "the Host {host:?} is not accepted: without admin.token the admin API accepts localhost and IP addresses only"
            );
            Failure::new(StatusCode::MISDIRECTED_REQUEST, error).into_response()
        }
    }
}

/// Why a caller is not authenticated.
#[derive(Debug)]
pub(crate) enum AuthError {
    /// The request has no token or session, or an unknown one.
    NoValidToken,
    /// The client address sent too many wrong tokens.
    TooManyWrongTokens,
    /// No token is configured, and `Host` is a name that another site may have pointed here.
    ForeignHost(String),
    /// No token is configured, and the peer is another machine.
    RemotePeer,
    /// The token is valid, but the system has no random numbers for a session.
    NoNonce(getrandom::Error),
}

/// Whether every role may use all methods of this path: one's own logout, and gates, which change nothing.
pub(crate) fn is_for_readers(path: &str) -> bool {
    path == LOGOUT || path.starts_with(EXPERIMENTS) && path.ends_with(GATE)
}

/// Whether the handler of this path checks a form token itself.
fn takes_forms(path: &str) -> bool {
    path == LOGOUT || path.starts_with(EXPERIMENTS)
}

/// Returns the caller of a request with these headers.
pub(crate) fn authenticate(
    state: &AdminState,
    peer: IpAddr,
    headers: &HeaderMap,
) -> Result<Caller, AuthError> {
    let plan = state.plan();
    let tokens = &plan.admin.tokens;
    if tokens.is_empty() {
        // A file that listens beyond loopback needs a token, but an inherited socket (`LISTEN_FDS`)
        // can have any address.
        if !peer.to_canonical().is_loopback() {
            return Err(AuthError::RemotePeer);
        }
        return match foreign_host(headers) {
            Some(host) => Err(AuthError::ForeignHost(host)),
            None => Ok(Caller {
                name: None,
                role: TokenRole::Operate,
                ambient: Some(Ambient {
                    keys: plan.admin.session_keys.clone(),
                    session: String::new(),
                    expires: None,
                    is_same_origin: false,
                }),
            }),
        };
    }
    let caller = |token: &Token, ambient| Caller {
        name: Some((*token.name).into()),
        role: token.role,
        ambient,
    };
    let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    if let Some(presented) = authorization.and_then(bearer_token) {
        return try_token(state, tokens, peer, presented).map(|token| caller(token, None));
    }
    // The scheme Basic may also be for a proxy in front of the admin API.
    if let Some(token) = authorization.and_then(|it| basic_token(tokens, it)) {
        let role = TokenRole::Read;
        return Ok(Caller {
            role,
            ..caller(token, None)
        });
    }
    let cookie = headers.cookies(session::COOKIE).next();
    let cookie = cookie.and_then(|value| std::str::from_utf8(value).ok());
    let cookie = cookie.ok_or(AuthError::NoValidToken)?;
    let found = session::verify(&plan.admin, cookie, now_s());
    let found = found.filter(|(_, session)| !state.ended().holds(*session));
    let (token, session) = found.ok_or(AuthError::NoValidToken)?;
    let ambient = Ambient {
        keys: plan.admin.session_keys.clone(),
        session: cookie.to_owned(),
        expires: Some((session.until_s, session.nonce.to_owned())),
        is_same_origin: names_origin(headers) && is_same_origin(headers),
    };
    Ok(caller(token, Some(ambient)))
}

/// Returns the configured token that equals the presented one. After too many wrong tokens of an
/// address, short tokens are refused without a comparison result; long ones, which cannot be guessed,
/// are still accepted, so that others at the same address cannot lock out their owners.
fn try_token<'a>(
    state: &AdminState,
    tokens: &'a [Token],
    peer: IpAddr,
    presented: &[u8],
) -> Result<&'a Token, AuthError> {
    let now = Instant::now();
    let may_try = state.rates.may_try(peer, now);
    let digest: [u8; 32] = Sha256::digest(presented).into();
    // Compares with every token, each in constant time.
    let mut found = None;
    for token in tokens {
        if bool::from(token.digest.ct_eq(&digest)) {
            found = Some(token);
        }
    }
    if let Some(token) = found.filter(|token| may_try || !token.short) {
        return Ok(token);
    }
    if !may_try {
        return Err(AuthError::TooManyWrongTokens);
    }
    state.rates.failed(peer, now);
    tracing::warn!(%peer, "the admin API received an unknown token");
    Err(AuthError::NoValidToken)
}

/// Returns the configured token that is the password of the scheme Basic, which callers use who can only
/// configure an address. Browsers may attach such a password by themselves, so it only reads. Short
/// tokens, which could be guessed, are not accepted.
fn basic_token<'a>(tokens: &'a [Token], authorization: &[u8]) -> Option<&'a Token> {
    let (scheme, encoded) = authorization.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let digest: [u8; 32] = Sha256::digest(&decoded[colon + 1..]).into();
    // Compares with every token, each in constant time.
    let mut found = None;
    for token in tokens {
        if bool::from(token.digest.ct_eq(&digest)) {
            found = Some(token);
        }
    }
    found.filter(|token| !token.short)
}

/// Starts a session for a presented token. Returns the value of its cookie.
pub(crate) fn open_session(
    state: &AdminState,
    peer: IpAddr,
    presented: &str,
) -> Result<String, AuthError> {
    let plan = state.plan();
    let token = try_token(state, &plan.admin.tokens, peer, presented.as_bytes())?;
    let mut nonce = [0; session::NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(AuthError::NoNonce)?;
    let until_s = now_s() + session::SECONDS;
    let keys = &plan.admin.session_keys;
    Ok(session::sign(keys, token, until_s, nonce))
}

/// The response without a valid token: the login page for browsers, an error for programs.
fn unauthorized(request: &Request) -> Response {
    let headers = request.headers();
    let is_browser = wants_html(headers) && !headers.contains_key(AUTHORIZATION);
    if is_browser && request.method() == Method::GET {
        return login_page(StatusCode::UNAUTHORIZED, false);
    }
    let hint = "send a token of `admin.token` or `admin.tokens`: Authorization: Bearer TOKEN";
    let mut refused = Failure::new(StatusCode::UNAUTHORIZED, hint).into_response();
    let bearer = HeaderValue::from_static("Bearer");
    refused.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    refused
}

/// The response after too many wrong tokens of one address.
pub(crate) fn too_many_wrong_tokens() -> Response {
    let error = "too many wrong tokens from this address: wait a minute";
    let mut refused = Failure::new(StatusCode::TOO_MANY_REQUESTS, error).into_response();
    let seconds = HeaderValue::from_static(RETRY_S);
    refused.headers_mut().insert(RETRY_AFTER, seconds);
    refused
}

/// The response if the system has no random numbers.
pub(crate) fn no_nonce(error: &getrandom::Error) -> Response {
    let error = format!("the system has no random numbers for a session: {error}");
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, error).into_response()
}

/// Returns the `Host` of a request if it is a name that another site may have pointed here (DNS
/// rebinding): neither `localhost` nor an IP address.
fn foreign_host(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(HOST)?.to_str().unwrap_or("?");
    let authority: Option<http::uri::Authority> = host.parse().ok();
    let own = authority.is_some_and(|authority| {
        let name = authority.host();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        let is_local = |name: &str| name == "localhost" || name.ends_with(".localhost");
        is_local(&name.to_ascii_lowercase()) || address.parse::<IpAddr>().is_ok()
    });
    (!own).then(|| host.to_owned())
}

fn names_origin(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site")
}

/// Whether a request comes from a page of the admin API, or from no page at all.
pub(crate) fn is_same_origin(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
        return false;
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_ascii_lowercase);
    let (origin, host) = (text(origin), headers.get(HOST).and_then(text));
    // Behind a proxy that terminates TLS, the origin is https although http arrives here.
    let origin = origin.as_deref().and_then(|origin| {
        let plain = origin.strip_prefix("http://");
        plain.or_else(|| origin.strip_prefix("https://"))
    });
    origin.is_some() && origin == host.as_deref()
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            let name = axum::http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn request_of_another_origin_is_cross_site() {
        let host = ("host", "admin.test:9900");
        for (pairs, own) in [
            (vec![host], true),
            (vec![host, ("origin", "http://admin.test:9900")], true),
            (vec![host, ("origin", "HTTPS://Admin.test:9900")], true),
            (vec![host, ("origin", "http://admin.test")], false),
            (
                vec![host, ("origin", "http://admin.test:9900.evil.test")],
                false,
            ),
            (vec![host, ("origin", "null")], false),
            (vec![host, ("sec-fetch-site", "same-origin")], true),
            (vec![host, ("sec-fetch-site", "same-site")], false),
            (vec![host, ("sec-fetch-site", "cross-site")], false),
            (vec![("origin", "http://admin.test:9900")], false),
        ] {
            assert_eq!(is_same_origin(&headers(&pairs)), own, "{pairs:?}");
        }
    }

    #[test]
    fn host_other_than_localhost_or_address_is_foreign() {
        for own in [
            "localhost",
            "LOCALHOST:1",
            "a.localhost:80",
            "127.0.0.1:9900",
            "[::1]:9900",
            "10.0.0.1",
        ] {
            assert_eq!(foreign_host(&headers(&[("host", own)])), None, "{own}");
        }
        for other in [
            "evil.test",
            "localhost.evil.test:9900",
            "xlocalhost",
            "127.0.0.1.evil.test",
            "",
        ] {
            assert!(
                foreign_host(&headers(&[("host", other)])).is_some(),
                "{other}"
            );
        }
        assert_eq!(foreign_host(&headers(&[])), None);
    }
}
