//! Certificates that the program trusts as a TLS client. It sends nothing to servers with others.

use super::tls::{Authority, origin_over_tls, over, provider};
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, How, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

/// A listener without TLS that keeps all readable bytes.
struct Eavesdropper {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Eavesdropper {
    fn start() -> Eavesdropper {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let all = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, all) = (stream.unwrap(), Arc::clone(&all));
                std::thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut bytes) {
                        all.lock().unwrap().extend_from_slice(&bytes[..read]);
                        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        let _ = stream.write_all(answer.as_bytes());
                    }
                });
            }
        });
        Eavesdropper { address, heard }
    }

    /// Fails if it received anything but TLS.
    #[track_caller]
    fn heard_nothing(&self) {
        let heard = self.heard.lock().unwrap();
        // The first byte of a TLS handshake.
        let readable = heard.first().is_some_and(|first| *first != 0x16);
        assert!(!readable, "{:?}", String::from_utf8_lossy(&heard));
    }
}

/// The environment variables of certificate roots; unset if `None`.
#[derive(Clone, Debug, Default)]
struct Roots {
    file: Option<String>,
    dir: Option<String>,
}

impl Roots {
    fn of(file: Option<&str>, dir: Option<&str>) -> Roots {
        let owned = |text: &str| text.to_owned();
        Roots {
            file: file.map(owned),
            dir: dir.map(owned),
        }
    }

    fn tell(&self, command: &mut Command) {
        for (name, value) in [("SSL_CERT_FILE", &self.file), ("SSL_CERT_DIR", &self.dir)] {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }

    /// For a proxy, to whose environment variables can only be added.
    fn how(&self) -> How {
        let tell = |(name, value): (&str, &Option<String>)| {
            let value = value.clone().unwrap_or("/nonexistent".to_owned());
            (name.to_owned(), value)
        };
        How {
            env: [("SSL_CERT_FILE", &self.file), ("SSL_CERT_DIR", &self.dir)]
                .map(tell)
                .to_vec(),
            ..How::default()
        }
    }
}

/// Environments without certificate roots.
fn without_roots(folder: &TempDir) -> Vec<Roots> {
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (empty, text) = (file("empty.pem", ""), file("text.pem", "no certificate\n"));
    let key = file("key.pem", &KeyPair::generate().unwrap().serialize_pem());
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let damaged = file("damaged.pem", damaged);
    let bare = folder.path().join("bare");
    std::fs::create_dir(&bare).unwrap();
    let bare = bare.to_str().unwrap();
    let nowhere = Some("/nonexistent");
    let mut all = vec![
        Roots::of(nowhere, None),
        Roots::of(None, nowhere),
        Roots::of(nowhere, nowhere),
        Roots::of(None, Some(bare)),
        Roots::of(Some(""), None),
        Roots::of(Some(bare), None),
    ];
    all.extend([empty, text, key, damaged].map(|file| Roots::of(Some(&file), None)));
    all
}

fn call(words: &[&str], roots: &Roots) -> Output {
    let mut command = Command::new(BINARY);
    command.args(words);
    roots.tell(&mut command);
    command.output().unwrap()
}

#[track_caller]
fn refuses(output: &Output, says: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for words in says {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
}

#[test]
fn tls_without_roots_is_refused_and_nothing_is_sent_in_cleartext() {
    let folder = TempDir::new().unwrap();
    let ear = Eavesdropper::start();
    let at = ear.address;
    let plain = "upstreams: { current: \"http://127.0.0.1:9\" }\n";
    let routes = [
        (
            "upstreams.current",
            format!("upstreams: {{ current: \"https://{at}\" }}\n"),
            "upstreams.current.tls.ca",
        ),
        (
            "upstreams.current",
            format!(
                "upstreams: {{ current: {{ endpoints: [ \"https://{at}\", \"HTTPS://{at}\" ], health: /up }} }}\n"
            ),
            "upstreams.current.tls.ca",
        ),
        (
            "trace.otlp",
            format!("{plain}trace: {{ otlp: \"https://{at}\" }}\n"),
            "trace.otlp.tls.ca",
        ),
        (
            "store",
            format!("{plain}store: \"rediss://user:secret@{at}\"\n"),
            "store.ca",
        ),
        (
            "store",
            format!("{plain}store: {{ url: \"valkeys+sentinel://{at}/site\" }}\n"),
            "store.ca",
        ),
    ];
    let file = folder.path().join("routes.yaml");
    let file = file.to_str().unwrap();
    for (key, text, ca) in routes {
        let text = format!("listen: 127.0.0.1:0\nadmin: {{ listen: 127.0.0.1:0 }}\n{text}");
        std::fs::write(file, text).unwrap();
        let fix = format!("`{ca}`");
        let says = [key, "no CA certificates", "`ca-certificates`", &fix];
        for roots in without_roots(&TempDir::new().unwrap()) {
            refuses(&call(&["check", "-c", file], &roots), &says);
        }
        let nobody = Roots::of(Some("/nonexistent"), Some("/nonexistent"));
        let mut command = Command::new(BINARY);
        command.args(["run", "-c", file]).stderr(Stdio::piped());
        command.env("RUST_LOG", "info");
        nobody.tell(&mut command);
        refuses(&ends(command.spawn().unwrap(), &ear), &says);
    }
    ear.heard_nothing();
}

/// Returns how a `watershed run` ends. If it serves, sends a request so that it contacts its upstream.
fn ends(mut child: Child, ear: &Eavesdropper) -> Output {
    let mut errors = child.stderr.take().unwrap();
    let (mut log, mut bytes) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = errors.read(&mut bytes) {
        log.extend_from_slice(&bytes[..read]);
        let text = String::from_utf8_lossy(&log).into_owned();
        let serving = text.split("serving on http://").nth(1);
        let address = serving.and_then(|rest| rest.split(' ').next()?.parse().ok());
        if let Some(address) = address {
            let mut client = Client::connect(address);
            client.get("/", "Authorization: Bearer secret\r\n");
            child.kill().unwrap();
            ear.heard_nothing();
            panic!("it serves:\n{text}");
        }
    }
    let status = child.wait().unwrap();
    Output {
        status,
        stdout: Vec::new(),
        stderr: log,
    }
}

#[test]
fn reload_without_roots_keeps_the_running_plan() {
    let origin = Origin::start("current");
    let ear = Eavesdropper::start();
    let plain = format!("upstreams: {{ current: \"http://{}\" }}\n", origin.address);
    let proxy = Proxy::start_how(&plain, Roots::default().how());
    proxy.write(&format!(
        "upstreams: {{ current: \"https://{}\" }}\n",
        ear.address
    ));
    let refused = Client::admin(proxy.admin).post("/admin/reload", "", "");
    let said = refused.text();
    assert_eq!(refused.status, 422, "{said}");
    for words in ["no CA certificates", "`upstreams.current.tls.ca`"] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(proxy.client().get("/", "").status, 200);
    ear.heard_nothing();
}

#[test]
fn certificate_roots_of_the_environment_are_used() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.certify("origin", &["localhost"]);
    let origin = origin_over_tls(authority.server("origin", &[], false));
    let folder = TempDir::new().unwrap();
    let directory = |name: &str, authority: &Authority| {
        let place = folder.path().join(name);
        std::fs::create_dir(&place).unwrap();
        // A folder as `openssl rehash` leaves it, with a dangling link.
        std::os::unix::fs::symlink(authority.file("ca.pem"), place.join("0a1b2c3d.0")).unwrap();
        std::os::unix::fs::symlink("/nonexistent", place.join("4e5f6a7b.0")).unwrap();
        place.display().to_string()
    };
    let (ours, theirs) = (
        directory("ours", &authority),
        directory("theirs", &stranger),
    );
    let (our_file, their_file) = (authority.file("ca.pem"), stranger.file("ca.pem"));
    let both = format!("{theirs}:{ours}");
    let check = |file: Option<&str>, dir: Option<&str>, trusted: bool| {
        let routes = format!(
            "workers: 1\nupstreams: {{ current: \"https://localhost:{}\" }}\n",
            origin.port()
        );
        let proxy = Proxy::start_how(&routes, Roots::of(file, dir).how());
        let status = proxy.client().get("/", "").status;
        assert_eq!(status, if trusted { 200 } else { 502 }, "{file:?} {dir:?}");
    };
    check(Some(&our_file), None, true);
    check(None, Some(&ours), true);
    check(None, Some(&both), true);
    check(Some(&their_file), Some(&ours), true);
    check(Some(&our_file), Some(&theirs), true);
    check(Some(&their_file), Some(&theirs), false);
}

/// A self-signed certificate in files of a folder.
struct Own {
    certificate: Certificate,
    key: KeyPair,
    folder: TempDir,
}

impl Own {
    /// With CA:TRUE, as `openssl req -x509` makes it.
    fn new(change: impl FnOnce(&mut CertificateParams)) -> Own {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("own.pem"), certificate.pem()).unwrap();
        Own {
            certificate,
            key,
            folder,
        }
    }

    fn file(&self) -> String {
        self.folder.path().join("own.pem").display().to_string()
    }

    /// Configures a server with this certificate and key.
    fn served(&self, key: &KeyPair, version: &'static rustls::SupportedProtocolVersion) -> u16 {
        origin_over_tls(self.acceptor(key, version)).port()
    }

    fn acceptor(
        &self,
        key: &KeyPair,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> TlsAcceptor {
        let der = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let signer = provider().key_provider.load_private_key(der).unwrap();
        let chain = vec![CertificateDer::from(self.certificate.der().to_vec())];
        let pair = Arc::new(CertifiedKey::new(chain, signer));
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        TlsAcceptor::from(Arc::new(config))
    }
}

#[test]
fn self_signed_upstream_is_trusted_as_exactly_that_certificate() {
    let own = Own::new(|_| {});
    let twin = Own::new(|_| {});
    let old = Own::new(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let young = Own::new(|params| params.not_before = rcgen::date_time_ymd(4000, 1, 1));
    let check = |host: &str, port: u16, ca: &Own, more: &str, trusted: bool| {
        let proxy = Proxy::start(&format!(
            "workers: 1\nupstreams: {{ current: {{ endpoints: [ \"https://{host}:{port}\" ], tls: {{ ca: {} }} }} }}\n{more}",
            ca.file()
        ));
        let answer = proxy.client().get("/", "");
        let expected = match trusted {
            true => (200, None),
            false => (502, Some("upstream_distrusted")),
        };
        assert_eq!((answer.status, answer.header("watershed-error")), expected);
    };
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let port = own.served(&own.key, version);
        check("localhost", port, &own, "", true);
        // With a total timeout, too.
        check("localhost", port, &own, "timeouts: { total: 30s }\n", true);
        check("127.0.0.1", port, &own, "", false);
        check("localhost", port, &twin, "", false);
        // The certificate without its key.
        check("localhost", own.served(&twin.key, version), &own, "", false);
        for wrong in [&old, &young] {
            check(
                "localhost",
                wrong.served(&wrong.key, version),
                wrong,
                "",
                false,
            );
        }
    }
}

#[test]
fn health_checks_trust_what_requests_trust() {
    let (own, twin) = (Own::new(|_| {}), Own::new(|_| {}));
    let port = own.served(&own.key, &rustls::version::TLS13);
    for (ca, says) in [
        (&own, None),
        (&twin, Some("is unhealthy and gets no requests")),
    ] {
        let proxy = over(&format!(
            "{{ endpoints: [ \"https://localhost:{port}\" ], health: {{ path: /up, interval: 20ms }}, tls: {{ ca: {} }} }}",
            ca.file()
        ));
        match says {
            // The first check decides, but may run after the first request.
            None => until("a check that succeeds", || {
                let answer = proxy.client().get("/", "");
                let log = proxy.log.lock().unwrap().clone();
                (answer.status == 200)
                    .then_some(())
                    .ok_or((answer.text(), log))
            }),
            Some(says) => until("the verdict", || {
                let log = proxy.log.lock().unwrap().clone();
                log.contains(says).then_some(()).ok_or(log)
            }),
        }
    }
}

#[test]
fn uppercase_https_scheme_needs_tls() {
    let ear = Eavesdropper::start();
    let own = Own::new(|_| {});
    let proxy = over(&format!(
        "{{ endpoints: [ \"HTTPS://{}\" ], tls: {{ ca: {} }} }}",
        ear.address,
        own.file()
    ));
    let answer = proxy.client().get("/", "Authorization: Bearer secret\r\n");
    assert_eq!(
        answer.header("watershed-error"),
        Some("upstream_distrusted")
    );
    ear.heard_nothing();
    assert!(!ear.heard.lock().unwrap().is_empty());
}

#[test]
fn command_line_without_roots_sends_nothing_over_https() {
    let ear = Eavesdropper::start();
    let url = format!("https://{}", ear.address);
    let nobody = Roots::of(Some("/nonexistent"), Some("/nonexistent"));
    let said = call(&["results", "--url", &url, "--token", "secret"], &nobody);
    let errors = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{errors}");
    for words in ["no CA certificates", "`ca-certificates`", "SSL_CERT_FILE"] {
        assert!(errors.contains(words), "{errors}");
    }
    ear.heard_nothing();
}

const PLAIN: &str = "workers: 1\nupstreams: { current: \"http://127.0.0.1:9\" }\n";

/// Waits until the store is available, or until `words` are logged.
#[track_caller]
fn store_is_used(store: &str, words: Option<&str>) {
    let proxy = Proxy::start(&format!("{PLAIN}store: {store}\n"));
    until("the store", || {
        let log = proxy.log.lock().unwrap().clone();
        let seen = match words {
            Some(words) => log.contains(words),
            None => {
                proxy.ask("/admin/results").json()["store"]["healthy"] == true
                    && !log.contains("cannot be reached: ")
            }
        };
        seen.then_some(()).ok_or((store.to_owned(), log))
    });
}

fn names(params: &mut CertificateParams) {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let named = CertificateParams::new(names).unwrap();
    params.subject_alt_names = named.subject_alt_names;
}

fn free() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Starts Redis with this certificate on this port, beside its port without TLS.
fn redis_over_tls(own: &Own, port: u16, more: &[&str]) -> Redis {
    let key = own.folder.path().join("own.key");
    std::fs::write(&key, own.key.serialize_pem()).unwrap();
    let (port, file) = (port.to_string(), own.file());
    let arguments = [
        ["--tls-port", &port],
        ["--tls-ca-cert-file", &file],
        ["--tls-cert-file", &file],
        ["--tls-key-file", key.to_str().unwrap()],
        ["--tls-auth-clients", "no"],
    ];
    Redis::with(&[&arguments.concat()[..], more].concat())
}

#[test]
fn self_signed_redis_is_trusted_as_exactly_that_certificate() {
    let (own, twin) = (Own::new(names), Own::new(names));
    let port = free();
    let _redis = redis_over_tls(&own, port, &[]);
    let store = |host: &str, ca: &Own| {
        format!(
            "{{ url: \"rediss://{host}:{port}\", ca: \"{}\" }}",
            ca.file()
        )
    };
    store_is_used(&store("localhost", &own), None);
    store_is_used(&store("127.0.0.1", &own), None);
    let refused = Some("the store is unavailable: Redis");
    store_is_used(&store("localhost", &twin), refused);
    store_is_used(&store("127.0.0.2", &own), refused);
}

#[test]
fn sentinels_and_their_master_are_reached_over_tls() {
    let own = Own::new(names);
    let port = free();
    let master = redis_over_tls(&own, port, &["--tls-replication", "yes"]);
    let monitor = format!("sentinel monitor site 127.0.0.1 {port} 1");
    let at = free();
    let _sentinel = redis_over_tls(&own, at, &["--tls-replication", "yes", &monitor]);
    let ca = own.file();
    let store = |name: &str| {
        format!("{{ url: \"rediss+sentinel://127.0.0.1:1,localhost:{at}/{name}\", ca: \"{ca}\" }}")
    };
    store_is_used(&store("site"), None);
    let keys = master.command(&["KEYS", "*"]).unwrap();
    assert!(keys.contains("ws:"), "{keys}");
    store_is_used(
        &store("other"),
        Some("the Sentinels know no master of that name"),
    );
}

#[test]
fn master_without_tls_gets_no_data() {
    let own = Own::new(names);
    let ear = Eavesdropper::start();
    let port = ear.address.port().to_string();
    let named = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len());
    let acceptor = own.acceptor(&own.key, &rustls::version::TLS13);
    let sentinel = super::tls::serve(move |stream| {
        let (acceptor, named) = (acceptor.clone(), named.clone());
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                let text = String::from_utf8_lossy(&bytes[..read]);
                for command in text.split('*').skip(1) {
                    let answer = match command.contains("GET-MASTER-ADDR-BY-NAME") {
                        true => &named,
                        false => "+OK\r\n",
                    };
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        }
    });
    store_is_used(
        &format!(
            "{{ url: \"rediss+sentinel://user:secret@{sentinel}/site\", ca: \"{}\" }}",
            own.file()
        ),
        Some("the store is unavailable: Redis"),
    );
    ear.heard_nothing();
    assert!(!ear.heard.lock().unwrap().is_empty());
}
