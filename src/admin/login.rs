//! Sessions of browsers: a token once, a cookie from then on.

use super::caller::{Caller, Unknown, is_same_origin, open_session, too_many};
use super::{Door, Failure, page, session};
use askama::Template;
use axum::Extension;
use axum::extract::{ConnectInfo, Form, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::net::SocketAddr;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    wrong: bool,
}

#[derive(Deserialize)]
pub struct Brought {
    token: String,
}

#[derive(Deserialize)]
pub struct Proof {
    form: String,
}

/// The page that asks for a token.
pub fn page(status: StatusCode, wrong: bool) -> Response {
    page::answer(status, LoginPage { wrong }.render())
}

/// `GET /admin/login`.
pub async fn ask() -> Response {
    page(StatusCode::OK, false)
}

/// `POST /admin/login`.
pub async fn take(
    State(door): State<Door>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Form(brought): Form<Brought>,
) -> Response {
    if !is_same_origin(&headers) {
        let said = "a page of another site must not log in here";
        return Failure::new(StatusCode::FORBIDDEN, said).into_response();
    }
    match open_session(&door, peer.ip(), brought.token.trim()) {
        Ok(session) => home(&headers, &session, session::SECONDS),
        Err(Unknown::TooMany) => too_many(),
        Err(_) => page(StatusCode::UNAUTHORIZED, true),
    }
}

/// `POST /admin/logout`.
pub async fn leave(
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Form(proof): Form<Proof>,
) -> Response {
    match caller.is_own_form(&proof.form) {
        true => home(&headers, "", 0),
        false => page::stale(),
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
