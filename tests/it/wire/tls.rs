//! TLS to clients and to upstreams, HTTP/2 to upstreams.

use super::http2::{run, text, whole};
use crate::support::origin::Origin;
use crate::support::proxy::{How, Proxy};
use crate::support::raw::Raw;
use crate::support::until;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, CertifiedIssuer, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate authority, with a folder of its certificates.
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name = called("the authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { folder, issuer }
    }

    pub fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Writes `FILE.pem` and `FILE.key` for these names.
    pub fn certify(&self, file: &str, names: &[&str]) {
        self.certify_until(file, names, (2050, 1, 1));
    }

    /// The same, with this expiry.
    pub fn certify_until(&self, file: &str, names: &[&str], (year, month, day): (i32, u8, u8)) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(year, month, day);
        // OpenSSL takes a certificate whose issuer is called like its subject for a self-signed one.
        params.distinguished_name = called(file);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file(&format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.file("ca.pem")).unwrap();
        roots.add(ca).unwrap();
        roots
    }

    fn client(&self, protocols: &[&str]) -> TlsConnector {
        let builder = rustls::ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut config = builder
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    /// Configures a server with this certificate; with `asks`, it requires a client certificate.
    pub fn server(&self, file: &str, protocols: &[&str], asks: bool) -> TlsAcceptor {
        let builder = rustls::ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match asks {
            true => {
                let roots = Arc::new(self.roots());
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider());
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
            false => builder.with_no_client_auth(),
        };
        let chain = vec![CertificateDer::from_pem_file(self.file(&format!("{file}.pem"))).unwrap()];
        let key = PrivateKeyDer::from_pem_file(self.file(&format!("{file}.key"))).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Starts a proxy with TLS. Returns it with the address of its TLS listener.
fn secure(upstream: &str, certificates: &str) -> (Proxy, SocketAddr) {
    let proxy = Proxy::start(&format!(
        "upstreams: {{ current: {upstream} }}\ntls: {{ listen: 127.0.0.1:0, certificates: {certificates} }}"
    ));
    let address = tls_address(&proxy);
    (proxy, address)
}

/// The address of a proxy's TLS listener.
pub fn tls_address(proxy: &Proxy) -> SocketAddr {
    until("TLS", || {
        let log = proxy.log.lock().unwrap().clone();
        let address = log.split("serving TLS on https://").nth(1);
        let address = address.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        address.ok_or(log)
    })
}

async fn connect(
    connector: &TlsConnector,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    connector.connect(name, stream).await
}

async fn say(stream: &mut TlsStream<tokio::net::TcpStream>, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

const ASK: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

#[test]
fn clients_are_served_over_tls() {
    let authority = Authority::new();
    authority.certify("a", &["a.test"]);
    authority.certify("b", &["b.test", "*.b.test"]);
    let origin = Origin::start("current");
    let pair = |name: &str| {
        let (cert, key) = (
            authority.file(&format!("{name}.pem")),
            authority.file(&format!("{name}.key")),
        );
        format!("{{ cert: {cert}, key: {key} }}")
    };
    let (_proxy, address) = secure(
        &format!("\"http://{}\"", origin.address),
        &format!("[ {}, {} ]", pair("a"), pair("b")),
    );
    run(async {
        let http1 = authority.client(&["http/1.1"]);
        // Each name gets its own certificate.
        for name in ["a.test", "b.test", "x.b.test"] {
            let mut stream = connect(&http1, address, name).await.unwrap();
            let answer = say(&mut stream, ASK).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(
                answer.contains("[\"x-forwarded-proto\",\"https\"]"),
                "{answer}"
            );
        }
        assert!(connect(&http1, address, "c.test").await.is_err());
        // A malformed request is refused over TLS, too.
        let mut stream = connect(&http1, address, "a.test").await.unwrap();
        let answer = say(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        // HTTP/2, as negotiated by ALPN.
        let both = authority.client(&["h2", "http/1.1"]);
        let stream = connect(&both, address, "a.test").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let request = Request::get("https://a.test/x").body(whole("")).unwrap();
        let answer = text(sender.send_request(request).await.unwrap()).await;
        assert!(
            answer.contains("[\"x-forwarded-proto\",\"https\"]"),
            "{answer}"
        );
        // Clients without TLS do not affect others.
        let mut plain = tokio::net::TcpStream::connect(address).await.unwrap();
        plain.write_all(ASK.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = plain.read_to_end(&mut rest).await;
        assert!(rest.starts_with(b"HTTP/1.1 400 "), "{rest:?}");
    });
}

#[test]
fn changed_certificates_are_reloaded() {
    let authority = Authority::new();
    authority.certify("site", &["old.test"]);
    let origin = Origin::start("current");
    let pair = format!(
        "{{ cert: {}, key: {} }}",
        authority.file("site.pem"),
        authority.file("site.key")
    );
    let (proxy, address) = secure(&format!("\"http://{}\"", origin.address), &pair);
    let client = authority.client(&[]);
    run(async {
        let mut stream = connect(&client, address, "old.test").await.unwrap();
        assert!(say(&mut stream, ASK).await.contains(" 200 OK"));
    });
    // A certificate without its new key changes nothing.
    let key = std::fs::read(authority.file("site.key")).unwrap();
    authority.certify("site", &["new.test"]);
    let new_key = std::fs::read(authority.file("site.key")).unwrap();
    std::fs::write(authority.file("site.key"), key).unwrap();
    until("the refusal", || {
        let log = proxy.log.lock().unwrap().clone();
        log.contains("does not belong to the certificate")
            .then_some(())
            .ok_or(log)
    });
    run(async { assert!(connect(&client, address, "old.test").await.is_ok()) });
    std::fs::write(authority.file("site.key"), new_key).unwrap();
    until("the new certificate", || {
        run(async { connect(&client, address, "new.test").await.map(drop) })
    });
    run(async { assert!(connect(&client, address, "old.test").await.is_err()) });
}

/// An upstream with TLS and HTTP/1.1, on a thread of its own.
pub fn origin_over_tls(acceptor: TlsAcceptor) -> SocketAddr {
    serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret";
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
}

pub fn serve<F>(with: impl Fn(tokio::net::TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let (told, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(with(stream));
            }
        });
    });
    address.recv().unwrap()
}

pub fn over(upstream: &str) -> Proxy {
    Proxy::start(&format!("workers: 1\nupstreams: {{ current: {upstream} }}"))
}

#[test]
fn upstream_needs_a_trusted_certificate() {
    let authority = Authority::new();
    authority.certify("origin", &["localhost"]);
    authority.certify("us", &["proxy.test"]);
    let stranger = Authority::new();
    let plain = origin_over_tls(authority.server("origin", &[], false));
    let asking = origin_over_tls(authority.server("origin", &[], true));
    let ca = |authority: &Authority| authority.file("ca.pem");
    let identity = format!(
        "cert: {}, key: {}",
        authority.file("us.pem"),
        authority.file("us.key")
    );
    let check = |host: &str, address: SocketAddr, tls: &str, expected: Option<&str>| {
        let upstream = format!(
            "{{ endpoints: [\"https://{host}:{}\"], tls: {{ {tls} }} }}",
            address.port()
        );
        // The system's roots do not contain the authority.
        let how = How {
            env: vec![("SSL_CERT_FILE".to_owned(), ca(&stranger))],
            ..How::default()
        };
        let routes = format!("workers: 1\nupstreams: {{ current: {upstream} }}");
        let proxy = Proxy::start_how(&routes, how);
        let answer = proxy.client().get("/", "");
        match expected {
            None => assert_eq!(
                (answer.status, &*answer.text()),
                (200, "secret"),
                "{upstream}"
            ),
            Some(token) => assert_eq!(
                (answer.status, answer.header("watershed-error")),
                (502, Some(token)),
                "{upstream}"
            ),
        }
    };
    check("localhost", plain, &format!("ca: {}", ca(&authority)), None);
    check(
        "127.0.0.1",
        plain,
        &format!("ca: {}, name: localhost", ca(&authority)),
        None,
    );
    // A wrong name, an untrusted authority, and the system's roots.
    check(
        "127.0.0.1",
        plain,
        &format!("ca: {}", ca(&authority)),
        Some("upstream_distrusted"),
    );
    check(
        "localhost",
        plain,
        &format!("ca: {}", ca(&stranger)),
        Some("upstream_distrusted"),
    );
    check(
        "localhost",
        plain,
        "name: localhost",
        Some("upstream_distrusted"),
    );
    // An upstream that requires a client certificate.
    check(
        "localhost",
        asking,
        &format!("ca: {}, {identity}", ca(&authority)),
        None,
    );
    let refused = Raw::start(|mut peer| peer.say("HTTP/1.1 400 Bad Request\r\n\r\n"));
    check(
        "localhost",
        refused.address,
        &format!("ca: {}", ca(&authority)),
        Some("upstream_distrusted"),
    );
}

/// A service over HTTP/2 like gRPC: a body, with the outcome in trailers.
async fn call(request: Request<Incoming>) -> Result<Response<super::http2::Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    assert_eq!(head.version, http::Version::HTTP_2);
    let said = format!("{} {} {:?}", head.method, head.uri, head.headers.get("te"));
    let body = body.collect().await?.to_bytes();
    let frames = [
        Ok(Frame::data(Bytes::from(said))),
        Ok(Frame::data(body)),
        Ok(Frame::trailers(
            [("grpc-status".parse().unwrap(), "0".parse().unwrap())]
                .into_iter()
                .collect(),
        )),
    ];
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames)).boxed();
    Ok(Response::new(body))
}

#[test]
fn upstream_is_reached_over_http2() {
    let authority = Authority::new();
    authority.certify("origin", &["localhost"]);
    let h2c = serve(|stream| async move {
        let service = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = service
            .serve_connection(TokioIo::new(stream), service_fn(call))
            .await;
    });
    let acceptor = authority.server("origin", &["h2"], false);
    let tls = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = service
                .serve_connection(TokioIo::new(stream), service_fn(call))
                .await;
        }
    });
    // Health checks use TLS, too; if they failed, no request would be sent.
    let health = "health: { path: /up, interval: 20ms, status: 200 }";
    let h2c = (
        format!("{{ endpoints: \"h2c://{h2c}\", {health} }}"),
        "http",
    );
    let tls = format!(
        "{{ endpoints: [\"https://localhost:{}\"], tls: {{ ca: {} }}, {health} }}",
        tls.port(),
        authority.file("ca.pem")
    );
    for (upstream, scheme) in [h2c, (tls, "https")] {
        let proxy = over(&upstream);
        std::thread::sleep(std::time::Duration::from_millis(200));
        // A client of HTTP/1.1.
        let mut client = proxy.client();
        for _ in 0..3 {
            let answer = client.post("/a?b=c", "TE: trailers\r\nConnection: TE\r\n", "hello");
            let expected = format!("POST {scheme}://site.test/a?b=c Some(\"trailers\")hello");
            assert_eq!(answer.text(), expected);
        }
        // gRPC end to end.
        run(async {
            let mut sender = super::http2::connect(proxy.public).await;
            for number in 0..10 {
                let request = Request::post("http://site.test/pkg.Service/Call")
                    .header("te", "trailers")
                    .header("content-type", "application/grpc")
                    .body(
                        Full::new(Bytes::from(format!("{number}")))
                            .map_err(|never| match never {})
                            .boxed(),
                    );
                let answer = sender.send_request(request.unwrap()).await.unwrap();
                let answer = answer.into_body().collect().await.unwrap();
                assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
                assert!(answer.to_bytes().ends_with(number.to_string().as_bytes()));
            }
        });
    }
}

/// An upstream of HTTP/2 whose responses have a length and a trailer, announced or not.
fn with_length_and_trailer() -> SocketAddr {
    serve(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut responder))) = connection.accept().await {
            let mut response = Response::builder().header("content-length", 10);
            if request.uri().path() == "/announced" {
                response = response.header("trailer", "sum");
            }
            let mut stream = responder
                .send_response(response.body(()).unwrap(), false)
                .unwrap();
            stream
                .send_data(Bytes::from_static(b"half "), false)
                .unwrap();
            stream
                .send_data(Bytes::from_static(b"half "), false)
                .unwrap();
            let trailers = [("sum".parse().unwrap(), "2".parse().unwrap())];
            stream
                .send_trailers(trailers.into_iter().collect())
                .unwrap();
        }
    })
}

#[test]
fn trailers_after_a_known_length_reach_clients_of_http2() {
    let proxy = over(&format!("\"h2c://{}\"", with_length_and_trailer()));
    for path in ["/", "/announced"] {
        run(async {
            let mut sender = super::http2::connect(proxy.public).await;
            for _ in 0..3 {
                let request = Request::get(format!("http://site.test{path}"));
                let response = sender.send_request(request.body(whole("")).unwrap());
                let response = response.await.unwrap();
                assert_eq!(response.headers()["content-length"], "10");
                let body = response.into_body().collect().await.unwrap();
                assert_eq!(body.trailers().unwrap()["sum"], "2", "{path}");
                assert_eq!(body.to_bytes(), "half half ");
            }
        });
        // In HTTP/1 only chunks have trailers, and the length comes first.
        let mut client = proxy.client();
        for _ in 0..3 {
            let response = client.get(path, "TE: trailers\r\nConnection: TE\r\n");
            assert_eq!(response.header("content-length"), Some("10"), "{path}");
            assert_eq!(response.header("transfer-encoding"), None, "{path}");
            assert_eq!(response.text(), "half half ");
        }
        // The connection stays open: the length tells where the response ends.
        client
            .say(format!(
                "GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
            ))
            .unwrap();
        let response = client.answer(true).unwrap();
        assert_eq!(response.text(), "half half ");
        assert_eq!(response.header("connection"), Some("keep-alive"));
    }
}

#[test]
fn command_line_reaches_admin_api_behind_tls() {
    let authority = Authority::new();
    authority.certify("admin", &["localhost"]);
    let proxy = Proxy::start(
        "upstreams: { a: \"http://127.0.0.1:9\", b: \"http://127.0.0.1:9\" }\n\
         experiments: { site: { control: a, experiment: b, percent: 50 } }\n",
    );
    let files = format!(
        "{{ cert: {}, key: {} }}",
        authority.file("admin.pem"),
        authority.file("admin.key")
    );
    let (_front, secure) = secure(&format!("\"http://{}\"", proxy.admin), &files);
    let url = format!("https://localhost:{}", secure.port());
    let results = |roots: &str| {
        std::process::Command::new(crate::support::proxy::BINARY)
            .args(["results", "--url", &url])
            .env("SSL_CERT_FILE", roots)
            .output()
            .unwrap()
    };
    let said = results(&authority.file("ca.pem"));
    let out = String::from_utf8(said.stdout).unwrap();
    assert!(
        out.starts_with("site (running)\n"),
        "{out} {:?}",
        said.stderr
    );
    let refused = results(&Authority::new().file("ca.pem"));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && said.contains("certificate"),
        "{said}"
    );
}
