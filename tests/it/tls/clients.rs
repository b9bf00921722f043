//! What is asked of clients: versions, ciphers, certificates, and TLS at all.

use super::{Curl, curl};
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::until;
use crate::wire::sent;
use crate::wire::tls::{Authority, tls_address};
use serde_json::Value;
use std::net::SocketAddr;

/// An authority, a site with its certificate, and curl's options to reach it.
struct Site {
    authority: Authority,
    origin: Origin,
    proxy: Proxy,
    address: SocketAddr,
}

impl Site {
    /// Starts a site. `{}` in `tls` is replaced by the folder of the authority.
    fn start(tls: &str, more: &str) -> Site {
        let authority = Authority::new();
        authority.certify("site", &["site.test"]);
        authority.certify("ann", &["ann.test"]);
        let origin = Origin::start("current");
        let proxy = Proxy::start(&routes(&authority, &origin, tls, more));
        let address = tls_address(&proxy);
        Site {
            authority,
            origin,
            proxy,
            address,
        }
    }

    fn curl(&self, words: &[&str]) -> Curl {
        let resolve = format!("site.test:{}:127.0.0.1", self.address.port());
        let (ca, url) = (
            self.authority.file("ca.pem"),
            format!("https://site.test:{}/", self.address.port()),
        );
        let all = ["--cacert", &ca, "--resolve", &resolve, &url];
        curl(&[&all, words].concat())
    }

    /// What the upstream got.
    #[track_caller]
    fn upstream_got(&self, words: &[&str]) -> Value {
        let curl = self.curl(words);
        serde_json::from_str(&curl.body).unwrap_or_else(|error| panic!("{error}: {curl:?}"))
    }

    fn identity(&self, name: &str) -> [String; 4] {
        let file = |end: &str| self.authority.file(&format!("{name}.{end}"));
        [
            "--cert".to_owned(),
            file("pem"),
            "--key".to_owned(),
            file("key"),
        ]
    }
}

fn routes(authority: &Authority, origin: &Origin, tls: &str, more: &str) -> String {
    let pair = format!(
        "{{ cert: {}, key: {} }}",
        authority.file("site.pem"),
        authority.file("site.key")
    );
    let tls = tls.replace("{}", authority.file("").trim_end_matches('/'));
    format!(
        "workers: 1\nupstreams: {{ current: \"http://{}\" }}\ntls: {{ listen: 127.0.0.1:0, certificates: {pair}, {tls} }}\n{more}",
        origin.address
    )
}

const FORGED: [&str; 10] = [
    "-H",
    "X-Forwarded-Client-Cert: Hash=00;Subject=\"CN=root\"",
    "-H",
    "Client-Cert: :AAAA:",
    "-H",
    "X_Forwarded_Client_Cert: Hash=00",
    "-H",
    "client_cert: :AAAA:",
    "-H",
    "Connection: client-cert, x-forwarded-client-cert",
];

#[track_caller]
fn no_forgery(said: &Value) {
    let lines = said["headers"].as_array().unwrap();
    let of_certificates = lines.iter().filter(|line| {
        let name = line[0].as_str().unwrap().replace('_', "-");
        name == "client-cert" || name == "x-forwarded-client-cert"
    });
    let kept: Vec<&Value> = of_certificates.collect();
    assert!(
        kept.iter().all(|line| line[1].as_str().unwrap().len() > 64),
        "{kept:?}"
    );
}

#[test]
fn verified_client_certificate_is_told_to_the_upstream() {
    let site = Site::start(
        "client_certificates: { ca: \"{}/ca.pem\", header: [ x-forwarded-client-cert, client-cert ] }",
        "trust: [ 127.0.0.0/8 ]",
    );
    let ann = site.identity("ann");
    let ann: Vec<&str> = ann.iter().map(String::as_str).collect();
    for version in ["--http1.1", "--http2"] {
        let said = site.upstream_got(&[&ann[..], &[version], &FORGED].concat());
        no_forgery(&said);
        let told = sent(&said, "x-forwarded-client-cert");
        assert_eq!(told.len(), 1, "{said:#}");
        let (hash, names) = told[0].split_once(';').unwrap();
        assert_eq!(hash.len(), "Hash=".len() + 64);
        assert_eq!(names, "Subject=\"CN=ann\";DNS=ann.test");
        let pem = std::fs::read_to_string(site.authority.file("ann.pem")).unwrap();
        let base64: String = pem
            .lines()
            .filter(|line| !line.starts_with("---"))
            .map(|line| line.trim_end_matches('\r'))
            .collect();
        assert_eq!(sent(&said, "client-cert"), [format!(":{base64}:")]);
    }
    // Required: clients without a certificate, or with one of somebody else, get no response.
    let stranger = Authority::new();
    stranger.certify("ann", &["ann.test"]);
    let (cert, key) = (stranger.file("ann.pem"), stranger.file("ann.key"));
    for words in [&[][..], &["--cert", &cert, "--key", &key]] {
        let refused = site.curl(words);
        assert!(refused.code != 0 && refused.body.is_empty(), "{refused:?}");
    }
    // Without TLS nothing is verified, also where the peer is believed for other headers.
    let url = format!("http://{}/", site.proxy.public);
    let plain = curl(&[&[&*url], &FORGED[..]].concat());
    let said: Value = serde_json::from_str(&plain.body).unwrap();
    assert_eq!(sent(&said, "x-forwarded-client-cert"), [""; 0]);
    no_forgery(&said);
}

#[test]
fn optional_client_certificate_is_verified_if_there_is_one() {
    let site = Site::start(
        "client_certificates: { ca: \"{}/ca.pem\", required: false }",
        "",
    );
    let said = site.upstream_got(&FORGED);
    no_forgery(&said);
    assert_eq!(sent(&said, "x-forwarded-client-cert"), [""; 0]);
    let ann = site.identity("ann");
    let ann: Vec<&str> = ann.iter().map(String::as_str).collect();
    let said = site.upstream_got(&[&ann[..], &FORGED].concat());
    assert_eq!(sent(&said, "x-forwarded-client-cert").len(), 1);
    assert_eq!(sent(&said, "client-cert"), [""; 0], "it was not asked for");
    let stranger = Authority::new();
    stranger.certify("ann", &["ann.test"]);
    let (cert, key) = (stranger.file("ann.pem"), stranger.file("ann.key"));
    let refused = site.curl(&["--cert", &cert, "--key", &key]);
    assert!(refused.code != 0, "{refused:?}");
    // Changed authorities take effect without a restart.
    let ca = std::fs::read(stranger.file("ca.pem")).unwrap();
    let mine = std::fs::read(site.authority.file("ca.pem")).unwrap();
    std::fs::write(site.authority.file("clients.pem"), ca).unwrap();
    let tls = "client_certificates: { ca: \"{}/clients.pem\", required: false }";
    let next = routes(&site.authority, &site.origin, tls, "");
    site.proxy.write(&next);
    until("another authority of clients", || {
        let known = site.curl(&["--cert", &cert, "--key", &key]);
        (known.code == 0).then_some(()).ok_or(known)
    });
    assert!(site.curl(&ann).code != 0);
    std::fs::write(site.authority.file("clients.pem"), mine).unwrap();
    until("the first authority again", || {
        let known = site.curl(&ann);
        (known.code == 0).then_some(()).ok_or(known)
    });
}

#[test]
fn oldest_version_and_ciphers_are_those_of_the_file() {
    let modern = Site::start("min_version: 1.3", "");
    assert_eq!(modern.curl(&[]).code, 0);
    let old = modern.curl(&["--tls-max", "1.2"]);
    assert!(old.code != 0 && old.body.is_empty(), "{old:?}");
    // The certificate has an ECDSA key.
    let one = Site::start(
        "ciphers: [ TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256 ]",
        "",
    );
    let chosen = |words: &[&str]| {
        let curl = one.curl(&[words, &["--verbose", "-o", "/dev/null"]].concat());
        let line = curl.errors.lines().find(|it| it.contains("SSL connection"));
        line.map(|line| line.trim_start_matches("* ").to_owned())
    };
    assert_eq!(
        chosen(&[]).as_deref(),
        Some("SSL connection using TLSv1.3 / TLS_CHACHA20_POLY1305_SHA256")
    );
    assert_eq!(
        chosen(&["--tls-max", "1.2"]).as_deref(),
        Some("SSL connection using TLSv1.2 / ECDHE-ECDSA-AES256-GCM-SHA384")
    );
    let other = one.curl(&[
        "--tls-max",
        "1.2",
        "--ciphers",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    ]);
    assert!(other.code != 0, "{other:?}");
}

#[test]
fn plain_http_on_the_tls_port_is_told_of_https() {
    let site = Site::start("min_version: 1.2", "access_log: stderr");
    let url = format!("http://127.0.0.1:{}/a", site.address.port());
    for version in ["--http1.1", "--http1.0"] {
        let told = curl(&[version, "-w", "%{http_code}", &url]);
        assert!(
            told.body
                .ends_with("use an address that begins with https://\n400"),
            "{told:?}"
        );
    }
    // A request with a body gets the error, too, and the connection is closed.
    let told = curl(&["-d", &"x".repeat(100_000), "-w", "%{http_code}", &url]);
    assert!(told.body.ends_with("https://\n400"), "{told:?}");
    // One letter decides: all methods have capital letters, and no handshake begins with one.
    let mut client = Client::connect(site.address);
    client.say("G").unwrap();
    let answer = client.answer(true).unwrap();
    assert_eq!(
        (answer.status, answer.header("watershed-error")),
        (400, Some("plain_http"))
    );
    assert!(client.is_closed());
    // What is neither is answered by TLS itself.
    let mut client = Client::connect(site.address);
    client.say("\0\0\0\0\0\0\0\0").unwrap();
    let rest = client.rest().unwrap_or_default();
    assert!(!rest.contains("HTTP/"), "{rest:?}");
    assert_eq!(site.curl(&[]).code, 0);
    until("the access log", || {
        let log = site.proxy.log.lock().unwrap().clone();
        log.contains("\"error\":\"plain_http\"")
            .then_some(())
            .ok_or(log)
    });
}
