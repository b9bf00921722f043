//! `tls.acme:`: a certificate of an authority that speaks ACME.

use super::plan::{Acme, AcmeChallenge, AcmeSettings, Secret};
use super::reader::Node;
use super::tls::{self, Watched};
use crate::features::Feature;
use crate::tls::{CHALLENGE_PROTOCOL, ChallengeProofs, MinVersion, Obtained, ServerSettings};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::pki_types::ServerName;
use std::sync::Arc;

/// The directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// The most names in a certificate of Let's Encrypt.
const NAMES_MAX: usize = 100;

const NAMES: &str = "the names of the site, such as [ example.com, www.example.com ]";
const DIRECTORY: &str =
    "the https:// URL of the authority's ACME directory; that of Let's Encrypt unless given";
const AGREE: &str = "true, once you have read the terms of service of the authority";
const ACCOUNT: &str =
    "{ id, key }: the account that the authority has given you (external account binding)";
const ACCOUNT_KEY: &str = "the HMAC key of the account in base64url; or ${NAME}, or file:PATH";
const EMAIL: &str = "an address of mail, such as ops@example.com";

const CHALLENGES: &[(&str, AcmeChallenge)] = &[
    ("http-01", AcmeChallenge::Http01),
    ("tls-alpn-01", AcmeChallenge::TlsAlpn01),
];

/// Reads how a certificate is obtained.
pub(super) fn read(node: &Node<'_>, watched: &mut Watched) -> Option<Acme> {
    if !node.keys(&[
        ("directory", DIRECTORY),
        ("email", "whom the authority writes to"),
        ("names", NAMES),
        (
            "challenge",
            "how the authority checks the names: http-01 (unless given), which needs port 80, or tls-alpn-01, which needs port 443",
        ),
        ("agree_terms", AGREE),
        (
            "ca",
            "a PEM file with the certificates to trust of the authority's server; the system's roots unless given",
        ),
        ("external_account", ACCOUNT),
    ]) {
        return None;
    }
    node.needs(Feature::Acme, "`certificates` in its place");
    let directory = match node.get("directory") {
        Some(directory) => directory.read(DIRECTORY, directory_url),
        None => Some(LETS_ENCRYPT.into()),
    };
    let email = node.get("email").map(|it| it.read(EMAIL, address));
    let names = names(node);
    let challenge = match node.get("challenge") {
        Some(challenge) => challenge.word(CHALLENGES),
        None => Some(AcmeChallenge::Http01),
    };
    let agrees = agrees(node);
    let external_account = node.get("external_account").map(|it| account(&it));
    let ca = node.get("ca");
    let trust = tls::trust(node, ca.as_ref(), "tls.acme.ca", watched);
    let client = match crate::tls::client(trust?, None) {
        Ok(client) => client,
        Err(error) => {
            let hint = "other certificates at `tls.acme.ca`";
            node.problem(format!("TLS is not possible: {error}"), hint);
            return None;
        }
    };
    // All of them are read first, so that all their problems are reported.
    if matches!(email, Some(None)) || matches!(external_account, Some(None)) || !agrees {
        return None;
    }
    let obtained = Arc::<Obtained>::default();
    let challenge = challenge?;
    Some(Acme {
        settings: Arc::new(AcmeSettings {
            directory: directory?,
            email: email.flatten(),
            names: names?,
            challenge,
            client: Arc::new(client),
            external_account: external_account.flatten(),
        }),
        proofs: match challenge {
            AcmeChallenge::Http01 => None,
            AcmeChallenge::TlsAlpn01 => Some(proofs(&obtained)?),
        },
        obtained,
    })
}

/// Makes the TLS of challenges, whose clients present no certificate and negotiate one protocol only.
fn proofs(obtained: &Arc<Obtained>) -> Option<Arc<rustls::ServerConfig>> {
    let settings = ServerSettings {
        certificates: Arc::new(ChallengeProofs(Arc::clone(obtained))),
        min_version: MinVersion::Tls12,
        ciphers: None,
        clients: None,
        protocols: vec![CHALLENGE_PROTOCOL.to_vec()],
    };
    // The library has cipher suites of both versions.
    crate::tls::server(settings).ok().map(Arc::new)
}

/// Reads whether the terms of the authority are agreed to. Nobody else can do that.
fn agrees(node: &Node<'_>) -> bool {
    match node.get("agree_terms") {
        Some(agrees) => match agrees.boolean() {
            Some(false) => {
                agrees.problem("no authority gives certificates without that", AGREE);
                false
            }
            agrees => agrees.unwrap_or(false),
        },
        None => {
            node.missing("agree_terms", AGREE);
            false
        }
    }
}

fn directory_url(text: &str) -> Option<Box<str>> {
    let url = url::Url::parse(text).ok()?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    (url.scheme() == "https" && url.has_host() && is_plain).then(|| text.into())
}

fn address(text: &str) -> Option<Box<str>> {
    let (user, host) = text.split_once('@')?;
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_one = !text.contains([',', ';', '<', '>', ':', '?', '#']);
    let is_host = !host.is_empty() && !host.contains('@');
    (!user.is_empty() && is_host && is_plain && is_one).then(|| text.into())
}

/// Reads the names, in lower case and sorted, so that the order in the file does not matter.
fn names(node: &Node<'_>) -> Option<Box<[Box<str>]>> {
    let Some(list) = node.get("names") else {
        node.missing("names", NAMES);
        return None;
    };
    let read: Vec<Option<Box<str>>> = list.items().iter().map(name).collect();
    let mut names: Vec<Box<str>> = read.into_iter().collect::<Option<_>>()?;
    names.sort();
    if names.is_empty() || names.len() > NAMES_MAX {
        list.problem(
            format!("found {} names", names.len()),
            format!("1 to {NAMES_MAX} names"),
        );
        return None;
    }
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        list.problem(
            format!("the name {:?} stands here twice", twice[0]),
            "each name once",
        );
        return None;
    }
    Some(names.into())
}

fn name(node: &Node<'_>) -> Option<Box<str>> {
    const NAME: &str = "the name of a host, such as example.com (xn--… for one with other letters)";
    let text = node.text(NAME)?;
    if text.starts_with("*.") {
        node.problem(
            "http-01 and tls-alpn-01 cannot prove a wildcard",
            "each name of its own; or a certificate of another ACME client at `certificates`",
        );
        return None;
    }
    let name = text.to_ascii_lowercase();
    match ServerName::try_from(name.clone()) {
        Ok(ServerName::DnsName(_)) if !name.ends_with('.') => Some(name.into()),
        Ok(ServerName::IpAddress(_)) => {
            node.problem("this is an address, and not a name", NAME);
            None
        }
        _ => {
            node.problem(format!("found {text:?}"), NAME);
            None
        }
    }
}

/// Reads the account at the authority.
fn account(node: &Node<'_>) -> Option<(Box<str>, Secret)> {
    if !node.keys(&[("id", "the ID of the account (kid)"), ("key", ACCOUNT_KEY)]) {
        return None;
    }
    let (Some(id), Some(key)) = (node.get("id"), node.get("key")) else {
        node.problem("`id` or `key` is missing", "both: { id: …, key: … }");
        return None;
    };
    let id = id.text("the ID of the account (kid)");
    let secret = key.secret(ACCOUNT_KEY)?;
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(secret.reveal().trim_end_matches('='));
    if !bytes.is_ok_and(|bytes| !bytes.is_empty()) {
        key.problem("this is not base64url", ACCOUNT_KEY);
        return None;
    }
    Some((id?.into(), secret))
}
