//! Who calls the admin API, and whether they may: tokens with roles, sessions of browsers, and pages
//! elsewhere that would make a browser ask.

use crate::admin::http::connections::Admitted;
use crate::admin::http::error::Failure;
use crate::admin::http::html::{login_page, wants_html};
use crate::admin::http::session;
use crate::admin::state::AdminState;
use crate::config::plan::{Token, TokenRole};
use crate::experiment::identity::{bearer_token, cookie_value};
use crate::experiment::key_ring::KeyRing;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{
    AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;

/// How long whoever has shown too many wrong tokens is told to wait, in seconds.
const RETRY_S: &str = "60";

/// Where sessions end: everybody may end their own.
pub const LOGOUT: &str = "/admin/logout";

/// The caller of the admin API.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name of the token; `None` where none is required.
    pub name: Option<Arc<str>>,
    /// What they may do.
    pub role: TokenRole,
    /// How, if it is by a browser that sends it unasked.
    pub ambient: Option<Ambient>,
}

/// What a browser sends unasked, for which forms must carry a proof.
#[derive(Clone, Debug)]
pub struct Ambient {
    keys: KeyRing,
    session: String,
    /// When the session is over, and its nonce; `None` where no token is asked for.
    ends: Option<(u64, String)>,
    /// Whether the browser says that the request comes from a page of the admin API.
    is_from_here: bool,
}

impl Ambient {
    /// Ends the session: here at once, and at other replicas as soon as the store knows.
    pub async fn end(&self, state: &AdminState) {
        if let Some((until_s, nonce)) = &self.ends {
            state.ended().add(*until_s, nonce.clone());
            state.exchange_ended().await;
        }
    }
}

impl Caller {
    /// What the forms of pages for this caller carry.
    pub fn form(&self) -> String {
        let carried = |ambient: &Ambient| session::form(&ambient.keys, &ambient.session);
        self.ambient.as_ref().map_or(String::new(), carried)
    }

    /// Whether a form is from a page for this caller.
    pub fn is_own_form(&self, brought: &str) -> bool {
        self.ambient
            .as_ref()
            .is_none_or(|it| session::is_form(&it.keys, &it.session, brought))
    }

    /// Whether it is a browser that has shown a token before.
    pub fn has_session(&self) -> bool {
        self.name.is_some() && self.ambient.is_some()
    }

    /// Whether only a form's proof can rule out a forged request (CSRF). Where no token is required,
    /// programs send requests, too, which name no origin.
    pub fn must_prove(&self) -> bool {
        let ambient = self.ambient.as_ref();
        ambient.is_some_and(|it| !it.session.is_empty() && !it.is_from_here)
    }

    /// As decisions name who made them.
    pub fn by(&self, said: Option<&str>) -> String {
        match (self.name.as_deref(), said) {
            (Some(name), Some(said)) if name != said => format!("{said} ({name})"),
            (Some(name), _) => name.to_owned(),
            (None, Some(said)) => said.to_owned(),
            (None, None) => "the admin door".to_owned(),
        }
    }
}

/// Lets a request in whose caller may do what it asks for.
pub async fn admit(
    State(state): State<AdminState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match known(&state, peer.ip(), request.headers()) {
        Ok(caller) => caller,
        Err(Unknown::TooMany) => return too_many(),
        Err(Unknown::Nobody) => return nobody(&request),
        Err(Unknown::NoNonce(error)) => return no_nonce(&error),
        Err(Unknown::Remote) => {
            let said = "without admin.token this door is for this machine only";
            return Failure::new(StatusCode::FORBIDDEN, said).into_response();
        }
        Err(Unknown::Elsewhere(host)) => {
            let said = format!(
                "{host:?} is not this door's own name: without admin.token it answers to localhost and to addresses of this machine only"
            );
            return Failure::new(StatusCode::MISDIRECTED_REQUEST, said).into_response();
        }
    };
    if !request.method().is_safe() {
        if caller.role < TokenRole::Operate && request.uri().path() != LOGOUT {
            let said = "this token may read only: a token with `role: operate` may do that";
            return Failure::new(StatusCode::FORBIDDEN, said).into_response();
        }
        let elsewhere = caller.ambient.is_some() && !is_same_origin(request.headers());
        if elsewhere || caller.must_prove() && !takes_forms(request.uri().path()) {
            let said = "a page of another site must not operate this door";
            return Failure::new(StatusCode::FORBIDDEN, said).into_response();
        }
    }
    if let Some(admitted) = request.extensions().get::<Admitted>() {
        admitted.set();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Why nobody knows who asks.
#[derive(Debug)]
pub enum Unknown {
    /// There is no token, or an unknown one.
    Nobody,
    /// There were too many unknown ones.
    TooMany,
    /// Asked for by a name that may be anybody's.
    Elsewhere(String),
    /// From another machine, and no token is asked for.
    Remote,
    /// Known, but the system has no random numbers for a session.
    NoNonce(getrandom::Error),
}

/// Where forms are sent, which prove themselves where they are read.
fn takes_forms(path: &str) -> bool {
    path == LOGOUT || path.starts_with("/admin/experiments/")
}

/// Who asks, by what they bring.
pub fn known(state: &AdminState, peer: IpAddr, headers: &HeaderMap) -> Result<Caller, Unknown> {
    let plan = state.plan();
    let tokens = &plan.admin.tokens;
    if tokens.is_empty() {
        // The file asks for a token beyond loopback; but the socket may be another one's choice
        // (`LISTEN_FDS`).
        if !peer.to_canonical().is_loopback() {
            return Err(Unknown::Remote);
        }
        return match foreign_host(headers) {
            Some(host) => Err(Unknown::Elsewhere(host)),
            None => Ok(Caller {
                name: None,
                role: TokenRole::Operate,
                ambient: Some(Ambient {
                    keys: plan.admin.session_keys.clone(),
                    session: String::new(),
                    ends: None,
                    is_from_here: false,
                }),
            }),
        };
    }
    let caller = |token: &Token, ambient| Caller {
        name: Some((*token.name).into()),
        role: token.role,
        ambient,
    };
    // Other schemes are for a proxy in front of the admin API.
    let brought = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    if let Some(brought) = brought.and_then(bearer_token) {
        return try_token(state, tokens, peer, brought).map(|token| caller(token, None));
    }
    let cookie = cookie_value(headers, session::COOKIE);
    let cookie = cookie.and_then(|value| std::str::from_utf8(value).ok());
    let cookie = cookie.ok_or(Unknown::Nobody)?;
    let found = session::verify(&plan.admin, cookie, now_s());
    let found = found.filter(|(_, session)| !state.ended().holds(*session));
    let (token, session) = found.ok_or(Unknown::Nobody)?;
    let ambient = Ambient {
        keys: plan.admin.session_keys.clone(),
        session: cookie.to_owned(),
        ends: Some((session.until_s, session.nonce.to_owned())),
        is_from_here: says_where(headers) && is_same_origin(headers),
    };
    Ok(caller(token, Some(ambient)))
}

/// Whose token this is. Whoever has shown too many wrong ones is not told any more, but for a long
/// one, which nobody finds by trying: others at its address cannot shut it out.
fn try_token<'a>(
    state: &AdminState,
    tokens: &'a [Token],
    peer: IpAddr,
    brought: &[u8],
) -> Result<&'a Token, Unknown> {
    let now = Instant::now();
    let may_try = state.rates.may_try(peer, now);
    let digest: [u8; 32] = Sha256::digest(brought).into();
    // All are compared, each in the same time.
    let mut found = None;
    for token in tokens {
        if bool::from(token.digest.ct_eq(&digest)) {
            found = Some(token);
        }
    }
    let let_in = found.filter(|token| may_try || !token.short);
    if let_in.is_none() && !may_try {
        return Err(Unknown::TooMany);
    }
    if let_in.is_none() {
        state.rates.failed(peer, now);
        tracing::warn!(%peer, "an unknown token was shown at the admin door");
    }
    let_in.ok_or(Unknown::Nobody)
}

/// A session for whoever brings a token, as a cookie's value.
pub fn open_session(state: &AdminState, peer: IpAddr, brought: &str) -> Result<String, Unknown> {
    let plan = state.plan();
    let token = try_token(state, &plan.admin.tokens, peer, brought.as_bytes())?;
    let mut nonce = [0; session::NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(Unknown::NoNonce)?;
    let until_s = now_s() + session::SECONDS;
    let keys = &plan.admin.session_keys;
    Ok(session::sign(keys, token, until_s, nonce))
}

fn nobody(request: &Request) -> Response {
    let asked = request.headers();
    if wants_html(asked) && request.method() == Method::GET && !asked.contains_key(AUTHORIZATION) {
        return login_page(StatusCode::UNAUTHORIZED, false);
    }
    let hint = "send a token of `admin.token` or `admin.tokens`: Authorization: Bearer TOKEN";
    let mut refused = Failure::new(StatusCode::UNAUTHORIZED, hint).into_response();
    let bearer = HeaderValue::from_static("Bearer");
    refused.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    refused
}

/// What whoever has shown too many unknown tokens is told.
pub fn too_many() -> Response {
    let said = "too many wrong tokens from this address: wait a minute";
    let mut refused = Failure::new(StatusCode::TOO_MANY_REQUESTS, said).into_response();
    let seconds = HeaderValue::from_static(RETRY_S);
    refused.headers_mut().insert(RETRY_AFTER, seconds);
    refused
}

/// The response where the system has no random numbers.
pub fn no_nonce(error: &getrandom::Error) -> Response {
    let why = format!("the system has no random numbers for a session: {error}");
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

/// The name that a request was sent to, if it may be one of another site that was made to lead
/// here (DNS rebinding).
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

fn says_where(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site")
}

/// Whether a request is from a page of the admin API, or from no page at all.
pub fn is_same_origin(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
        return false;
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_ascii_lowercase);
    let (origin, host) = (text(origin), headers.get(HOST).and_then(text));
    // Behind a proxy that ends TLS, the origin is https although http arrives here.
    let origin = origin.as_deref().and_then(|origin| {
        let plain = origin.strip_prefix("http://");
        plain.or_else(|| origin.strip_prefix("https://"))
    });
    origin.is_some() && origin == host.as_deref()
}

pub fn now_s() -> u64 {
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
    fn pages_elsewhere_are_told_by_their_origin() {
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
    fn a_name_that_may_be_anybodys_is_foreign() {
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
