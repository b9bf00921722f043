//! A small HTTP client for commands: one request, one text.

use super::Hinted;
use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// What an address answers to a GET.
pub async fn fetch(url: &str, token: Option<&str>) -> anyhow::Result<String> {
    ask(http::Method::GET, url, token, String::new()).await
}

/// What an address answers to a POST of JSON.
pub async fn post(url: &str, token: Option<&str>, json: String) -> anyhow::Result<String> {
    ask(http::Method::POST, url, token, json).await
}

async fn ask(
    method: http::Method,
    url: &str,
    token: Option<&str>,
    body: String,
) -> anyhow::Result<String> {
    let uri: http::Uri = url
        .parse()
        .with_context(|| format!("{url:?} is not an address"))?;
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let mut request = http::Request::builder().method(method).uri(uri);
    if let Some(token) = token {
        request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let answered = client.request(request.body(Full::from(body))?).await;
    let response = answered.map_err(|error| {
        let hint = "is watershed running? give its admin address with --url (the default file has http://127.0.0.1:9900)";
        Hinted::new(format!("{url} does not answer: {error}"), hint)
    })?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    if !status.is_success() {
        let said = format!("{url} answered {status}: {}", text.trim());
        if status != http::StatusCode::UNAUTHORIZED {
            anyhow::bail!(said);
        }
        return Err(Hinted::new(said, "give the token of admin.token with --token").into());
    }
    Ok(text)
}
