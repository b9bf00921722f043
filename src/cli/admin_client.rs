//! A small HTTP client of the admin API, for commands.

use crate::regular_file;
use crate::server::ErrorWithHint;
use crate::tasks;
use crate::tls::{self, Trust};
use anyhow::Context;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A response of the admin API.
#[derive(Debug)]
pub(super) struct Reply {
    /// The address without its path.
    place: String,
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub text: String,
}

/// How a command and a server know each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Credentials {
    /// The token of the command, if there is one.
    pub token: Option<String>,
    /// Which servers at https:// are the right ones.
    pub trust: ServerTrust,
}

/// Which servers at https:// are the right ones.
#[derive(Clone, Debug, Default)]
pub(super) enum ServerTrust {
    /// Those that the roots of this machine verify.
    #[default]
    System,
    /// Those that the certificates of a PEM file verify.
    Authorities(PathBuf),
    /// The one that presents the certificate of this PEM file, whatever it is called.
    Exactly(PathBuf),
}

/// Sends a GET request, and returns the body of a successful response.
pub(super) async fn fetch(url: &str, credentials: &Credentials) -> anyhow::Result<String> {
    get(url, credentials).await?.success()
}

/// Posts JSON, and returns the body of a successful response.
pub(super) async fn post(
    url: &str,
    credentials: &Credentials,
    json: String,
) -> anyhow::Result<String> {
    ask(Method::POST, url, credentials, json).await?.success()
}

/// Sends a GET request, and returns any response.
pub(super) async fn get(url: &str, credentials: &Credentials) -> anyhow::Result<Reply> {
    ask(Method::GET, url, credentials, String::new()).await
}

/// Sends any request, and returns any response.
pub(super) async fn respond_to(
    url: &str,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Incoming>> {
    let uri: Uri = url
        .parse()
        .with_context(|| format!("{url:?} is not an address"))?;
    answer(&uri, &ServerTrust::System, request).await
}

/// Sends a GET request for `/`, and returns the status of the response, whatever it is.
pub(super) async fn try_address(url: &str) -> anyhow::Result<StatusCode> {
    let uri: Uri = url
        .parse()
        .with_context(|| format!("{url:?} is not an address"))?;
    let authority = uri.authority().context("it has no host")?;
    let request = Request::builder().uri("/").header(HOST, authority.as_str());
    let request = request.body(Full::default())?;
    let response = answer(&uri, &ServerTrust::System, request).await?;
    Ok(response.status())
}

async fn ask(
    method: Method,
    url: &str,
    credentials: &Credentials,
    body: String,
) -> anyhow::Result<Reply> {
    let uri: Uri = url
        .parse()
        .with_context(|| format!("{url:?} is not an address"))?;
    let place = place(&uri).unwrap_or_else(|| url.to_owned());
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::builder().method(method).uri(target);
    if let Some(authority) = uri.authority() {
        request = request.header(HOST, authority.as_str());
    }
    if let Some(token) = &credentials.token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::from(body))?;
    let answered = answer(&uri, &credentials.trust, request).await;
    let response = answered.map_err(|error| {
        if error.is::<ErrorWithHint>() {
            return error;
        }
        let hint = "is watershed running? give its admin address with --url (the default file has http://127.0.0.1:9900)";
        ErrorWithHint::new(format!("no response from {place}: {error:#}"), hint).into()
    })?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    Ok(Reply {
        place,
        status,
        text,
    })
}

impl Reply {
    /// Returns the body, or the error that another status stands for.
    pub(super) fn success(self) -> anyhow::Result<String> {
        let Reply {
            place,
            status,
            text,
        } = self;
        if status.is_success() {
            return Ok(text);
        }
        let what = format!("{place} responded {status}: {}", why(&text));
        match status {
            StatusCode::UNAUTHORIZED => {
                Err(ErrorWithHint::new(what, "give the token of admin.token with --token").into())
            }
            StatusCode::FORBIDDEN => {
                Err(ErrorWithHint::new(what, "use a token with `role: operate`").into())
            }
            _ => anyhow::bail!(what),
        }
    }
}

/// Returns the text of an error, without its JSON.
fn why(text: &str) -> String {
    let said: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let said = said.and_then(|said| said["error"].as_str().map(str::to_owned));
    said.unwrap_or_else(|| text.trim().to_owned())
}

/// Returns the address without its path.
fn place(uri: &Uri) -> Option<String> {
    Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?))
}

async fn answer(
    uri: &Uri,
    trust: &ServerTrust,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Incoming>> {
    let host = uri.host().context("it has no host")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let (tls, usual) = match uri.scheme_str() {
        Some("http") => (None, 80),
        Some("https") => (Some(TlsConnector::from(trusting(trust)?)), 443),
        _ => anyhow::bail!("it begins with neither http:// nor https://"),
    };
    let port = uri.port_u16().unwrap_or(usual);
    let stream = TcpStream::connect((host, port)).await?;
    let Some(tls) = tls else {
        return send(stream, request).await;
    };
    let name = ServerName::try_from(host.to_owned())?;
    send(tls.connect(name, stream).await?, request).await
}

/// Makes a TLS configuration. The roots of this machine may be those that `SSL_CERT_FILE` and
/// `SSL_CERT_DIR` name.
fn trusting(trust: &ServerTrust) -> anyhow::Result<Arc<ClientConfig>> {
    let (path, is_exact) = match trust {
        ServerTrust::System => {
            let roots = Trust::system();
            let roots =
                roots.map_err(|none| ErrorWithHint::new(none.to_string(), none.fix("--ca")))?;
            return Ok(Arc::new(tls::client(roots, None)?));
        }
        ServerTrust::Authorities(path) => (path, false),
        ServerTrust::Exactly(path) => (path, true),
    };
    let unusable = |why: String| {
        let hint = "give a PEM file with the certificates to trust with --ca";
        ErrorWithHint::new(format!("{}: {why}", path.display()), hint)
    };
    let pem = regular_file::read(path).map_err(|error| unusable(error.to_string()))?;
    let trust = match is_exact {
        true => Trust::exactly(&pem),
        false => Trust::pem(&pem),
    };
    let trust = trust.map_err(|none| unusable(none.to_string()))?;
    Ok(Arc::new(tls::client(trust, None)?))
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The connection task ends with the response.
    tasks::spawn("admin-connection", connection);
    Ok(sender.send_request(request).await?)
}
