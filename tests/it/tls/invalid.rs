//! Mistakes in `tls` and `admin.tls`, and what `check` says of them.

use crate::support::proxy::BINARY;
use crate::wire::tls::Authority;
use std::process::Command;

/// Checks a file with this key; `{}` is replaced by a folder with ca.pem, site.pem and site.key.
#[track_caller]
fn check(key: &str, says: &[&str]) {
    let authority = Authority::new();
    authority.certify("site", &["site.test"]);
    let folder = authority.file("");
    let folder = folder.trim_end_matches('/');
    let file = authority.file("routes.yaml");
    let key = key.replace("{}", folder);
    std::fs::write(
        &file,
        format!("upstreams: {{ a: \"http://127.0.0.1:1\" }}\n{key}\n"),
    )
    .unwrap();
    let run = Command::new(BINARY)
        .args(["check", "-c", &file])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr).replace(folder, "{}");
    for expected in says {
        assert!(said.contains(expected), "{expected:?} is not in:\n{said}");
    }
    assert_eq!(
        (said.matches("error: ").count(), run.status.success()),
        (says.len(), says.is_empty()),
        "{said}"
    );
}

/// The same for keys of `tls` beside a certificate.
#[track_caller]
fn check_tls(keys: &str, says: &[&str]) {
    let certificates = "certificates: { cert: \"{}/site.pem\", key: \"{}/site.key\" }";
    check(
        &format!("tls: {{ listen: 127.0.0.1:8443, {certificates}, {keys} }}"),
        says,
    );
}

#[test]
fn versions_and_ciphers_that_cannot_work_are_refused() {
    check_tls("min_version: 1.3", &[]);
    check_tls("min_version: 1.1", &["tls.min_version: found \"1.1\"\n"]);
    check_tls("ciphers: [ TLS_AES_128_GCM_SHA256 ]", &[]);
    check_tls(
        "ciphers: [ TLS_AES_128_GCM_SHA265 ]",
        &["tls.ciphers.0: found \"TLS_AES_128_GCM_SHA265\""],
    );
    check_tls("ciphers: []", &["tls.ciphers: there is no cipher suite"]);
    check_tls(
        "ciphers: [ TLS_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256 ]",
        &["tls.ciphers.1: this cipher suite stands here twice"],
    );
    check_tls(
        "min_version: 1.3, ciphers: [ TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 ]",
        &["tls.ciphers.0: this cipher suite is of TLS 1.2, and `min_version` is 1.3"],
    );
    check_tls(
        "ciphers: [ TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 ]",
        &["tls.ciphers: none of them can be used with the key of {}/site.pem"],
    );
}

#[test]
fn client_certificates_that_cannot_be_verified_are_refused() {
    check_tls("client_certificates: { ca: \"{}/ca.pem\" }", &[]);
    check_tls(
        "client_certificates: { required: false }",
        &["tls.client_certificates: `ca` is missing"],
    );
    check_tls(
        "client_certificates: true",
        &["tls.client_certificates: true instead of keys"],
    );
    check_tls(
        "client_certificates: { ca: \"{}/none.pem\" }",
        &["tls.client_certificates.ca: {}/none.pem cannot be read"],
    );
    check_tls(
        "client_certificates: { ca: \"{}/site.key\" }",
        &["tls.client_certificates.ca: no certificate in this file"],
    );
    check_tls(
        "client_certificates: { ca: \"{}/site.pem\" }",
        &["tls.client_certificates.ca: no certificate in this file is that of an authority"],
    );
    check_tls(
        "client_certificates: { ca: \"{}/ca.pem\", required: maybe, header: x-ssl-cert }",
        &[
            "tls.client_certificates.required: found the text \"maybe\"",
            "tls.client_certificates.header: found \"x-ssl-cert\"",
        ],
    );
}

#[test]
fn admin_tls_needs_a_certificate_and_its_key() {
    check(
        "admin: { tls: { cert: \"{}/site.pem\", key: \"{}/site.key\" } }",
        &[],
    );
    check(
        "admin: { tls: { cert: \"{}/site.pem\" } }",
        &["admin.tls: `cert` or `key` is missing"],
    );
    check(
        "admin: { tls: { cert: \"{}/ca.pem\", key: \"{}/site.key\" } }",
        &["admin.tls.key: the key does not belong to the certificate"],
    );
    check(
        "admin: { tls: on }",
        &["admin.tls: the text \"on\" instead of keys"],
    );
}

/// The same for keys of `tls.acme`.
#[track_caller]
fn check_acme(keys: &str, says: &[&str]) {
    check(
        &format!("tls: {{ listen: 127.0.0.1:8443, acme: {{ {keys} }} }}"),
        says,
    );
}

#[test]
fn acme_that_cannot_work_is_refused_without_a_network() {
    let ca = "ca: \"{}/ca.pem\"";
    let with = |keys: &str, says: &[&str]| {
        check_acme(
            &format!("{ca}, names: [ a.test ], agree_terms: true, {keys}"),
            says,
        );
    };
    with("email: ops@a.test", &[]);
    with("challenge: tls-alpn-01", &[]);
    check_acme(
        ca,
        &[
            "tls.acme: `names` is missing",
            "tls.acme: `agree_terms` is missing",
        ],
    );
    check_acme(
        &format!("{ca}, names: [ a.test ], agree_terms: false"),
        &["tls.acme.agree_terms: no authority gives certificates without that"],
    );
    let names = |names: &str, says: &[&str]| {
        check_acme(&format!("{ca}, agree_terms: true, names: {names}"), says);
    };
    names("a.test", &[]);
    names("[]", &["tls.acme.names: found 0 names"]);
    names(
        "[ A.test, a.test ]",
        &["tls.acme.names: the name \"a.test\" stands here twice"],
    );
    names(
        "[ \"*.a.test\", 192.0.2.1, \"a b\", https://a.test ]",
        &[
            "tls.acme.names.0: http-01 and tls-alpn-01 cannot prove a wildcard",
            "tls.acme.names.1: this is an address, and not a name",
            "tls.acme.names.2: found \"a b\"",
            "tls.acme.names.3: found \"https://a.test\"",
        ],
    );
    with(
        "challenge: dns-01",
        &["tls.acme.challenge: found \"dns-01\""],
    );
    with(
        "directory: \"http://a.test/dir\"",
        &["tls.acme.directory: found \"http://a.test/dir\""],
    );
    with("email: ops", &["tls.acme.email: found \"ops\""]);
    with(
        "external_account: { id: a }",
        &["tls.acme.external_account: `id` or `key` is missing"],
    );
    with(
        "external_account: { id: a, key: \"not base64!\" }",
        &["tls.acme.external_account.key: this is not base64url"],
    );
    check_acme(
        "ca: \"{}/none.pem\", names: [ a.test ], agree_terms: true",
        &["tls.acme.ca: {}/none.pem cannot be read"],
    );
    check(
        "tls: { listen: 127.0.0.1:8443 }",
        &["tls: `certificates` is missing"],
    );
}
