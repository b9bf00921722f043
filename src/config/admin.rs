//! `admin:`: the admin API and its tokens.

use super::name::check_name;
use super::plan::{Admin, AdminTls, Origins, Secret, Token, TokenRole};
use super::privacy;
use super::reader::Node;
use super::tls::{self, Watched};
use crate::experiment::key_ring::KeyRing;
use crate::tls::{MinVersion, PresentedCertificates, ServerSettings};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

const ROLES: &[(&str, TokenRole)] = &[
    ("flags", TokenRole::Flags),
    ("read", TokenRole::Read),
    ("operate", TokenRole::Operate),
];
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);
/// A shorter token can be found by trying.
const LONG: usize = 16;
const TOKEN: &str = "a long random text, such as `watershed token` prints";
const HASH: &str = "sha256: and 64 hexadecimal digits, such as `watershed token` prints";

/// Reads the admin API, which listens at another address than `public`.
pub(super) fn read(
    root: &Node<'_>,
    public: SocketAddr,
    session_keys: KeyRing,
    watched: &mut Watched,
) -> Admin {
    let node = root.get("admin");
    if let Some(node) = &node {
        node.keys(&[
            ("listen", "an address and a port, such as 127.0.0.1:9900"),
            (
                "health",
                "an address and a port, such as 0.0.0.0:9901, for health and metrics without a token",
            ),
            ("token", "a text; or ${NAME}, or file:PATH"),
            ("tokens", "{ NAME: { role: read, hash: sha256:… } }"),
            ("flags", "{ origins: [ … ] }: whose pages may evaluate flags (OFREP)"),
            ("tls", "{ cert: FILE, key: FILE }: the certificate of https:// at `listen`"),
        ]);
    }
    let below = |key: &str| node.as_ref().and_then(|node| node.get(key));
    let written = below("listen");
    let listen = written
        .as_ref()
        .and_then(|node| node.listen_address())
        .unwrap_or(DEFAULT);
    let (one, several) = (below("token"), below("tokens"));
    let one_digest = one.as_ref().and_then(plain);
    let mut tokens: Vec<Token> = one_digest
        .map(|(digest, short)| Token {
            name: "admin".into(),
            role: TokenRole::Operate,
            digest,
            short,
        })
        .into_iter()
        .collect();
    for (name, node) in several.iter().flat_map(|node| node.named("token")) {
        check_name(&node, &name);
        let token = token(&name, &node);
        if let Some(token) = token {
            if tokens.iter().any(|other| other.digest == token.digest) {
                node.problem(
                    "another name has the same token",
                    "use a different token for each name",
                );
            }
            tokens.push(token);
        }
    }
    if let Some(node) = written {
        let asked = one.is_some() || several.is_some_and(|node| !node.named("token").is_empty());
        check_listen(&node, listen, public, asked);
    }
    let health = below("health").and_then(|node| health(root, &node, public, listen));
    Admin {
        listen,
        health,
        tokens,
        session_keys,
        flag_origins: below("flags").map_or(Origins::Listed([].into()), |node| origins(&node)),
        tls: below("tls").and_then(|node| admin_tls(&node, watched)),
    }
}

/// Checks the written address: beyond loopback a token is asked for, and the site has another one.
fn check_listen(node: &Node<'_>, listen: SocketAddr, public: SocketAddr, asks_token: bool) {
    if !listen.ip().is_loopback() && !asks_token {
        let hint = "write `admin: { listen: …, token: … }`, or listen on 127.0.0.1";
        node.problem(
            format!("{listen} is not a loopback address, and there is no token"),
            hint,
        );
    }
    if listen == public && listen.port() != 0 {
        node.problem(
            format!("{listen} is already the address of `listen`"),
            "write another port",
        );
    }
}

/// How a command reaches the admin API of a running process.
#[derive(Clone, Debug)]
pub struct AdminAccess {
    /// The address of the admin API.
    pub listen: SocketAddr,
    /// The address of health checks, if they have their own.
    pub health: Option<SocketAddr>,
    /// A token, if the file has one that is no hash: rather one that may decide.
    pub token: Option<Secret>,
    /// The PEM file of its certificate, if it has TLS.
    pub certificate: Option<PathBuf>,
}

impl AdminAccess {
    /// Reads `admin`; `None` if its addresses are invalid. A token that cannot be read is none.
    pub(super) fn read(root: &Node<'_>) -> Option<AdminAccess> {
        let node = root.get("admin");
        let below = |key: &str| node.as_ref().and_then(|node| node.get(key));
        let address = |key: &str| below(key).map(|node| node.listen_address());
        let listen = match address("listen") {
            Some(listen) => listen?,
            None => DEFAULT,
        };
        let health = match address("health") {
            Some(health) => Some(health?),
            None => None,
        };
        let several = below("tokens");
        let several = several.iter().flat_map(|node| node.named("token"));
        let several = several.filter_map(|(_, node)| {
            let role = node.get("role").and_then(|role| role.word(ROLES))?;
            Some((role == TokenRole::Read, node.get("token")?))
        });
        let one = below("token").map(|node| (false, node));
        let mut all: Vec<(bool, Node<'_>)> = one.into_iter().chain(several).collect();
        all.sort_by_key(|(only_reads, _)| *only_reads);
        let tls = below("tls");
        let certificate = tls.map(|tls| {
            let cert = tls.get("cert").and_then(|cert| {
                let path = cert.text(tls::CERTIFICATE)?;
                Some(cert.file(path))
            });
            if cert.is_none() {
                tls.missing("cert", tls::CERTIFICATE);
            }
            cert
        });
        let certificate = match certificate {
            Some(certificate) => Some(certificate?),
            None => None,
        };
        let mut readable = all.iter().filter_map(|(_, node)| node.secret("a text"));
        Some(AdminAccess {
            listen,
            health,
            token: readable.next(),
            certificate,
        })
    }
}

/// Reads TLS of the admin API.
fn admin_tls(node: &Node<'_>, watched: &mut Watched) -> Option<AdminTls> {
    if !node.keys(&[("cert", tls::CERTIFICATE), ("key", tls::KEY)]) {
        return None;
    }
    let (pair, certificate) = tls::certified(node, watched)?;
    let settings = ServerSettings {
        certificates: Arc::new(PresentedCertificates {
            of_files: vec![pair],
            obtained: None,
        }),
        min_version: MinVersion::Tls12,
        ciphers: None,
        clients: None,
        protocols: vec![b"http/1.1".to_vec()],
    };
    match crate::tls::server(settings) {
        Ok(config) => Some(AdminTls {
            config: Arc::new(config),
            certificate,
        }),
        Err(error) => {
            node.problem(format!("TLS is not possible: {error}"), tls::CERTIFICATE);
            None
        }
    }
}

/// Reads whose pages may evaluate flags.
fn origins(node: &Node<'_>) -> Origins {
    node.keys(&[(
        "origins",
        "origins of pages, such as https://example.com, or \"*\" for all",
    )]);
    let mut listed = Vec::new();
    for item in node.get("origins").iter().flat_map(Node::items) {
        let allowed = "an origin, such as https://shop.example, or \"*\" for all";
        let read = item.read(allowed, |text| match text {
            "*" => Some(None),
            text => privacy::origin(text).map(Some),
        });
        match read {
            Some(None) => return Origins::All,
            Some(Some(origin)) => listed.push(origin),
            None => {}
        }
    }
    Origins::Listed(listed.into())
}

/// Reads the address of health checks and metrics. It must not be the address of another listener.
fn health(
    root: &Node<'_>,
    node: &Node<'_>,
    public: SocketAddr,
    admin: SocketAddr,
) -> Option<SocketAddr> {
    let health = node.listen_address()?;
    let secure = root.get("tls").and_then(|tls| tls.get("listen"));
    let secure = secure.as_ref().and_then(|node| node.listen_address());
    let others = [
        ("listen", Some(public)),
        ("tls.listen", secure),
        ("admin.listen", Some(admin)),
    ];
    for (key, other) in others {
        if other.is_some_and(|other| overlap(health, other)) {
            let found = format!("{health} is already the address of `{key}`");
            node.problem(found, "write another port, such as 9901");
        }
    }
    Some(health)
}

/// Whether two listeners cannot both bind these addresses.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let all = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (all || one.ip() == other.ip())
}

fn token(name: &str, node: &Node<'_>) -> Option<Token> {
    if !node.keys(&[
        ("role", "flags, read or operate"),
        ("hash", HASH),
        ("token", "a text; or ${NAME}, or file:PATH"),
    ]) {
        return None;
    }
    let role = match node.get("role") {
        Some(role) => role.word(ROLES),
        None => {
            node.missing("role", "flags, read or operate");
            None
        }
    };
    let known = match (node.get("hash"), node.get("token")) {
        (Some(node), None) => {
            let text = node.secret(HASH)?;
            let digest = text.reveal().strip_prefix("sha256:").and_then(digest);
            if digest.is_none() {
                node.problem("this is not a hash", HASH);
            }
            digest.map(|digest| (digest, false))
        }
        (None, Some(node)) => plain(&node),
        (Some(_), Some(node)) => {
            node.problem("both `hash` and `token` are written", "delete `token`");
            None
        }
        (None, None) => {
            node.missing("hash", HASH);
            None
        }
    };
    let (digest, short) = known?;
    Some(Token {
        name: name.into(),
        role: role?,
        digest,
        short,
    })
}

/// Reads a token. Only its digest is kept, and whether it is short.
fn plain(node: &Node<'_>) -> Option<([u8; 32], bool)> {
    let token = node.secret("a text")?;
    if token.reveal().is_empty() {
        node.problem("the token is empty", TOKEN);
        return None;
    }
    let token = token.reveal();
    Some((Sha256::digest(token).into(), token.len() < LONG))
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let mut digest = [0; 32];
    if pairs.len() != digest.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        let digit = |letter: u8| char::from(letter).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(digest)
}
