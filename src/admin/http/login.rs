//! Sessions of browsers: a token once, a cookie from then on.

use crate::admin::http::auth::{Caller, Unknown, is_same_origin, no_nonce, open_session, too_many};
use crate::admin::http::error::{Failure, FormBody, Refused};
use crate::admin::http::html::{login_page, stale_form_page};
use crate::admin::http::session;
use crate::admin::state::AdminState;
use axum::Extension;
use axum::extract::{ConnectInfo, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::net::SocketAddr;
use utoipa::ToSchema;

#[derive(Deserialize, ToSchema)]
pub struct Brought {
    /// One of `admin.tokens`.
    token: String,
}

#[derive(Deserialize, ToSchema)]
pub struct Proof {
    /// What forms of this session carry.
    form: String,
}

/// The page that asks for a token
#[utoipa::path(
    get,
    path = "/admin/login",
    operation_id = "login_page",
    tag = "pages",
    responses((status = 200, description = "A form", content_type = "text/html", body = String))
)]
pub async fn ask() -> Response {
    login_page(StatusCode::OK, false)
}

/// Begin a session
#[utoipa::path(
    post,
    path = "/admin/login",
    operation_id = "login",
    tag = "pages",
    request_body(content = inline(Brought), content_type = "application/x-www-form-urlencoded"),
    responses(
        (
            status = 303,
            description = "To the results, with a cookie for twelve hours",
            headers(("location" = String), ("set-cookie" = String)),
        ),
        (status = 400, description = "The form cannot be read", body = Refused),
        (
            status = 401,
            description = "An unknown token: the form again",
            content_type = "text/html",
            body = String,
        ),
        (status = 403, description = "A page of another site asks", body = Refused),
        (status = 413, description = "The form is too long", body = Refused),
        (status = 415, description = "It is no form", body = Refused),
        (status = 422, description = "The form has no `token`", body = Refused),
        (
            status = 429,
            description = "Too many unknown tokens came from this address",
            body = Refused,
            headers(("retry-after" = String)),
        ),
    )
)]
pub async fn take(
    State(state): State<AdminState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    FormBody(brought): FormBody<Brought>,
) -> Response {
    if !is_same_origin(&headers) {
        let said = "a page of another site must not log in here";
        return Failure::new(StatusCode::FORBIDDEN, said).into_response();
    }
    match open_session(&state, peer.ip(), brought.token.trim()) {
        Ok(session) => home(&headers, &session, session::SECONDS),
        Err(Unknown::TooMany) => too_many(),
        Err(Unknown::NoNonce(error)) => no_nonce(&error),
        Err(_) => login_page(StatusCode::UNAUTHORIZED, true),
    }
}

/// End a session
#[utoipa::path(
    post,
    path = "/admin/logout",
    operation_id = "logout",
    tag = "pages",
    request_body(content = inline(Proof), content_type = "application/x-www-form-urlencoded"),
    responses(
        (
            status = 303,
            description = "To the results; the cookie is taken away",
            headers(("location" = String), ("set-cookie" = String)),
        ),
        (status = 400, description = "The form cannot be read", body = Refused),
        (
            status = 403,
            description = "A form of another session",
            content_type = "text/html",
            body = String,
        ),
        (status = 413, description = "The form is too long", body = Refused),
        (status = 415, description = "It is no form", body = Refused),
        (status = 422, description = "The form has no `form`", body = Refused),
    )
)]
pub async fn leave(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    FormBody(proof): FormBody<Proof>,
) -> Response {
    match caller.is_own_form(&proof.form) {
        true => {
            if let Some(ambient) = &caller.ambient {
                ambient.end(&state).await;
            }
            home(&headers, "", 0)
        }
        false => stale_form_page(),
    }
}

fn home(headers: &HeaderMap, session: &str, seconds: u64) -> Response {
    let over_tls = headers.get("x-forwarded-proto");
    let secure = match over_tls.is_some_and(|said| said == "https") {
        true => "; Secure",
        false => "",
    };
    let name = session::COOKIE;
    let cookie = format!(
        "{name}={session}; Path=/admin; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    );
    let found = [
        (LOCATION, "/admin/results".to_owned()),
        (SET_COOKIE, cookie),
    ];
    (StatusCode::SEE_OTHER, found).into_response()
}
