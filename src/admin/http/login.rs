//! Login and logout of browsers: a token starts a session, which a cookie carries.

use crate::admin::http::auth::{
    AuthError, Caller, is_same_origin, no_nonce, open_session, too_many_wrong_tokens,
};
use crate::admin::http::connections::OverTls;
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
pub(crate) struct LoginForm {
    /// One of `admin.tokens`.
    token: String,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct LogoutForm {
    /// The session's form token.
    form: String,
}

/// Login page
#[utoipa::path(
    get,
    path = "/admin/login",
    operation_id = "login_page",
    tag = "pages",
    responses((status = 200, description = "A page with the form", content_type = "text/html", body = String))
)]
pub(crate) async fn form() -> Response {
    login_page(StatusCode::OK, false)
}

/// Start a session
#[utoipa::path(
    post,
    path = "/admin/login",
    operation_id = "login",
    tag = "pages",
    request_body(content = inline(LoginForm), content_type = "application/x-www-form-urlencoded"),
    responses(
        (
            status = 303,
            description = "Redirects to the results, with a session cookie for at most twelve hours",
            headers(("location" = String), ("set-cookie" = String)),
        ),
        (status = 400, description = "The form is invalid", body = Refused),
        (
            status = 401,
            description = "The token is unknown; the page shows the form again",
            content_type = "text/html",
            body = String,
        ),
        (status = 403, description = "The request comes from a page of another site", body = Refused),
        (status = 413, description = "The form is too long", body = Refused),
        (status = 415, description = "The body is not a form", body = Refused),
        (status = 422, description = "The form has no `token`", body = Refused),
        (
            status = 429,
            description = "Too many unknown tokens from this address",
            body = Refused,
            headers(("retry-after" = String)),
        ),
    )
)]
pub(crate) async fn log_in(
    State(state): State<AdminState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(here): Extension<OverTls>,
    headers: HeaderMap,
    FormBody(form): FormBody<LoginForm>,
) -> Response {
    if !is_same_origin(&headers) {
        let error = "a page of another site cannot log in here";
        return Failure::new(StatusCode::FORBIDDEN, error).into_response();
    }
    match open_session(&state, peer.ip(), form.token.trim()) {
        Ok(session) => to_results(&headers, here, (&session, session::SECONDS)),
        Err(AuthError::TooManyWrongTokens) => too_many_wrong_tokens(),
        Err(AuthError::NoNonce(error)) => no_nonce(&error),
        Err(_) => login_page(StatusCode::UNAUTHORIZED, true),
    }
}

/// End a session
#[utoipa::path(
    post,
    path = "/admin/logout",
    operation_id = "logout",
    tag = "pages",
    request_body(content = inline(LogoutForm), content_type = "application/x-www-form-urlencoded"),
    responses(
        (
            status = 303,
            description = "Redirects to the results and removes the cookie",
            headers(("location" = String), ("set-cookie" = String)),
        ),
        (status = 400, description = "The form is invalid", body = Refused),
        (
            status = 403,
            description = "The form belongs to another session",
            content_type = "text/html",
            body = String,
        ),
        (status = 413, description = "The form is too long", body = Refused),
        (status = 415, description = "The body is not a form", body = Refused),
        (status = 422, description = "The form has no `form`", body = Refused),
    )
)]
pub(crate) async fn log_out(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Extension(here): Extension<OverTls>,
    headers: HeaderMap,
    FormBody(form): FormBody<LogoutForm>,
) -> Response {
    match caller.is_own_form(&form.form) {
        true => {
            if let Some(ambient) = &caller.ambient {
                ambient.end(&state).await;
            }
            to_results(&headers, here, ("", 0))
        }
        false => stale_form_page(),
    }
}

/// Redirects to the results and sets the session cookie. TLS may end here, or at a proxy in front.
fn to_results(
    headers: &HeaderMap,
    OverTls(here): OverTls,
    (session, seconds): (&str, u64),
) -> Response {
    // The first item of a list is the browser's protocol.
    let protocols = headers.get("x-forwarded-proto");
    let protocols = protocols.and_then(|protocols| protocols.to_str().ok());
    let first = protocols.and_then(|protocols| protocols.split(',').next());
    let in_front = first.is_some_and(|first| first.trim().eq_ignore_ascii_case("https"));
    let over_tls = here || in_front;
    let secure = match over_tls {
        true => "; Secure",
        false => "",
    };
    let name = session::COOKIE;
    let cookie = format!(
        "{name}={session}; Path=/admin; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    );
    let headers = [
        (LOCATION, "/admin/results".to_owned()),
        (SET_COOKIE, cookie),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}
