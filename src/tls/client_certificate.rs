//! The headers that describe a client's verified certificate to upstreams. PURE.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderName;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A header that tells upstreams of a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificateHeader {
    /// `X-Forwarded-Client-Cert` of Envoy: fingerprint, subject, URIs and DNS names.
    ForwardedClientCert,
    /// `Client-Cert` of RFC 9440: the whole certificate.
    ClientCert,
}

/// The names of all such headers. Requests that clients send with them are taken for forged.
pub static CLIENT_CERTIFICATE_HEADERS: [HeaderName; 2] = [
    HeaderName::from_static("x-forwarded-client-cert"),
    HeaderName::from_static("client-cert"),
];

impl ClientCertificateHeader {
    /// Writes the header lines of a certificate in DER. A certificate that cannot be read has a
    /// fingerprint only.
    pub fn lines(headers: &[ClientCertificateHeader], der: &[u8]) -> Box<[u8]> {
        let mut lines = String::new();
        for header in headers {
            // Writing to a String cannot fail.
            let _ = match header {
                ClientCertificateHeader::ForwardedClientCert => {
                    write!(lines, "x-forwarded-client-cert: {}\r\n", elements(der))
                }
                ClientCertificateHeader::ClientCert => {
                    // A byte sequence of RFC 8941, 3.3.5.
                    write!(lines, "client-cert: :{}:\r\n", BASE64_STANDARD.encode(der))
                }
            };
        }
        lines.into_bytes().into()
    }
}

/// `Hash=…;Subject="…";URI=…;DNS=…`, as Envoy writes it.
fn elements(der: &[u8]) -> String {
    let mut text = "Hash=".to_owned();
    for byte in Sha256::digest(der) {
        let _ = write!(text, "{byte:02x}");
    }
    let Ok(certificate) = CertificateInner::<Raw>::from_der(der) else {
        return text;
    };
    let body = certificate.tbs_certificate();
    // The text of RFC 4514 has a backslash before each quotation mark, which Envoy relies on, too.
    let subject = printable(&body.subject().to_string());
    let _ = write!(text, ";Subject=\"{subject}\"");
    let names = body.get_extension::<SubjectAltName>();
    let names = names
        .ok()
        .flatten()
        .map_or(Vec::new(), |(_, names)| names.0);
    for name in &names {
        if let GeneralName::UniformResourceIdentifier(uri) = name {
            let _ = write!(text, ";URI={}", quoted(uri.as_str()));
        }
    }
    for name in &names {
        if let GeneralName::DnsName(name) = name {
            let _ = write!(text, ";DNS={}", quoted(name.as_str()));
        }
    }
    text
}

/// A value, in quotation marks where it could be taken for more than one.
fn quoted(value: &str) -> String {
    let value = printable(value);
    match value.contains([',', ';', '=', '"', '\\', ' ']) {
        true => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
        false => value,
    }
}

/// Writes what a header cannot hold as RFC 4514 does: a backslash and two hexadecimal digits for each
/// byte.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' => printable.push(char::from(byte)),
            byte => {
                let _ = write!(printable, "\\{byte:02x}");
            }
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate(common_name: &str, names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Shop");
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[track_caller]
    fn check(common_name: &str, names: Vec<SanType>, expected: &str) {
        let der = certificate(common_name, names);
        let hash: String = Sha256::digest(&der)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let headers = [ClientCertificateHeader::ForwardedClientCert];
        let lines = ClientCertificateHeader::lines(&headers, &der);
        assert_eq!(
            String::from_utf8(lines.to_vec()).unwrap(),
            format!("x-forwarded-client-cert: Hash={hash};{expected}\r\n")
        );
    }

    #[test]
    fn values_of_certificates_cannot_add_elements_or_lines() {
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
        check("ann", vec![], "Subject=\"CN=ann,O=Shop\"");
        check(
            "ann",
            vec![dns("a.test"), uri("spiffe://shop/ann"), dns("b.test")],
            "Subject=\"CN=ann,O=Shop\";URI=spiffe://shop/ann;DNS=a.test;DNS=b.test",
        );
        check(
            "a\",O=b;Hash=0",
            vec![uri("x:a;Subject=\"b\"")],
            r#"Subject="CN=a\"\,O=b\;Hash=0,O=Shop";URI="x:a;Subject=\"b\"""#,
        );
        check(
            "a\r\nx-user: b\u{e9}",
            vec![uri("x:\r\nx-user:b")],
            r#"Subject="CN=a\0d\0ax-user: b\c3\a9,O=Shop";URI="x:\\0d\\0ax-user:b""#,
        );
    }

    #[test]
    fn whole_certificate_is_a_byte_sequence() {
        let headers = [ClientCertificateHeader::ClientCert];
        assert_eq!(
            &*ClientCertificateHeader::lines(&headers, b"abc"),
            b"client-cert: :YWJj:\r\n"
        );
        // What is no certificate can have been verified by nobody, but it must not cause a panic.
        let both = [
            ClientCertificateHeader::ForwardedClientCert,
            ClientCertificateHeader::ClientCert,
        ];
        let lines = ClientCertificateHeader::lines(&both, b"abc");
        assert!(lines.starts_with(b"x-forwarded-client-cert: Hash=ba7816bf"));
    }
}
