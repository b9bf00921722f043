//! Requests to the authority.

use crate::tasks;
use http::header::HOST;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one request may take, from the connection to the end of the response.
const WITHIN: Duration = Duration::from_secs(30);
/// The longest response that is read, in bytes.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Sends requests to the authority, each on a connection of its own: there are few.
pub(super) struct AuthorityClient {
    /// TLS to the authority.
    pub tls: Arc<ClientConfig>,
}

impl HttpClient for AuthorityClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        Box::pin(async move {
            let uri = request.uri().clone();
            let sent = tokio::time::timeout(WITHIN, send(tls, request)).await;
            let sent =
                sent.unwrap_or_else(|_| Err(format!("no response within {WITHIN:?}").into()));
            sent.map_err(|error| {
                let place = uri.authority().map_or("", |authority| authority.as_str());
                Error::Other(format!("{place}: {}", crate::store::chain(&*error)).into())
            })
        })
    }
}

async fn send(
    tls: TlsConnector,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<BytesResponse, Failure> {
    let uri = request.uri().clone();
    let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(
            format!("the authority names {uri}, which does not begin with https://").into(),
        );
    };
    let host = authority.host();
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(443);
    let fields = request.headers_mut();
    fields.insert(HOST, HeaderValue::try_from(authority.as_str())?);
    // Whoever serves a path is asked for the path alone.
    let path = uri.path_and_query().cloned();
    *request.uri_mut() = path.map_or(Uri::from_static("/"), Uri::from);
    let stream = TcpStream::connect((name, port)).await?;
    let name = ServerName::try_from(name.to_owned())?;
    let stream = tls.connect(name, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the response, or when `sender` is dropped with this future.
    tasks::spawn("acme-connection", connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await?;
    Ok(BytesResponse {
        parts,
        body: Box::new(body.to_bytes()),
    })
}
