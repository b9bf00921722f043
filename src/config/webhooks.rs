//! `webhooks:`: who is told of winners, harm and the like.

use super::http_target::{self, BASE64, TargetKey};
use super::plan::{NotificationKind, SigningKey, Webhook};
use super::reader::Node;
use super::tls::Watched;
use base64::Engine;
use sha2::{Digest, Sha256};
use std::fmt::Write;

const URL: &str =
    "an address such as https://hooks.example.com/watershed (or http://); or ${NAME}, or file:PATH";
pub(super) const SECRET: &str = "whsec_ and at least 16 bytes in base64, such as `echo whsec_$(openssl rand -base64 32)` prints";

/// Reads all webhooks.
pub(super) fn read(root: &Node<'_>, watched: &mut Watched) -> Vec<Webhook> {
    let Some(node) = root.get("webhooks") else {
        return Vec::new();
    };
    let mut webhooks: Vec<Webhook> = Vec::new();
    for node in node.items() {
        let Some(webhook) = webhook(&node, watched) else {
            continue;
        };
        if webhooks.iter().any(|it| it.receiver == webhook.receiver) {
            node.problem(
                "another webhook has the same address",
                "one webhook for each address, with all that it receives at `on`",
            );
        }
        webhooks.push(webhook);
    }
    webhooks
}

fn webhook(node: &Node<'_>, watched: &mut Watched) -> Option<Webhook> {
    let is_map = node.keys(&[
        ("url", URL),
        ("secret", SECRET),
        ("on", "a list of what it receives; everything unless given"),
        ("tls", "{ ca, cert, key, name }, for a receiver at https://"),
    ]);
    if !is_map {
        return None;
    }
    // All keys are read, so that all errors are reported.
    let key = node.get("secret").and_then(|node| signing_key(&node));
    let on = kinds(node);
    let url = TargetKey {
        key: "url",
        holds: URL,
        default: None,
    };
    let (uri, target) = http_target::read(node, &url, watched)?;
    Some(Webhook {
        target,
        key,
        on: on.into(),
        receiver: digest(&uri.to_string()),
    })
}

/// Reads the key of signatures.
pub(super) fn signing_key(node: &Node<'_>) -> Option<SigningKey> {
    let text = node.secret(SECRET)?;
    let encoded = text.reveal().trim().strip_prefix("whsec_");
    let bytes = encoded.and_then(|encoded| BASE64.decode(encoded).ok());
    match bytes {
        Some(bytes) if bytes.len() >= 16 => Some(SigningKey::new(bytes)),
        Some(bytes) => {
            let found = format!("the key has {} bytes", bytes.len());
            node.problem(found, SECRET);
            None
        }
        None => {
            node.problem("this is not a secret of a webhook", SECRET);
            None
        }
    }
}

fn kinds(node: &Node<'_>) -> Vec<NotificationKind> {
    let Some(on) = node.get("on") else {
        return NotificationKind::ALL.to_vec();
    };
    let words = NotificationKind::ALL.map(|kind| (kind.name(), kind));
    let items = on.items();
    if items.is_empty() {
        on.problem(
            "the webhook receives nothing",
            "a list such as [winner, harm]",
        );
    }
    items.iter().filter_map(|item| item.word(&words)).collect()
}

/// Names an address without showing it.
fn digest(address: &str) -> Box<str> {
    let digest = Sha256::digest(address);
    let hex = digest[..8].iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    hex.into()
}

#[cfg(test)]
mod tests {
    use crate::config::plan::{NotificationKind, Webhook};
    use std::path::Path;

    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn read(webhooks: &str) -> Result<Vec<Webhook>, Vec<String>> {
        let text = format!("upstreams: {{ a: \"http://127.0.0.1:1\" }}\nwebhooks: {webhooks}");
        let environment = |name: &str| (name == "HOOK").then(|| "http://a/secret-path".to_owned());
        let read = crate::config::parse(&text, Path::new("routes.yaml"), &environment);
        read.map(|plan| plan.webhooks.to_vec()).map_err(|invalid| {
            let diagnostics = invalid.diagnostics.iter();
            diagnostics
                .map(|it| format!("{}: {}", it.key, it.found))
                .collect()
        })
    }

    #[test]
    fn address_key_and_kinds_are_read() {
        let all = read(&format!(
            "[ {{ url: \"http://u:p@[::1]:81/a?b=c\", secret: {KEY}, on: [harm, ramp] }}, {{ url: \"${{HOOK}}\" }} ]"
        ));
        let all = all.unwrap();
        let [first, second] = &all[..] else {
            panic!("{all:?}");
        };
        assert_eq!(
            (&*first.target.endpoint.host, first.target.endpoint.port),
            ("::1", 81)
        );
        assert_eq!(
            (&*first.target.path.to_string(), &first.target.host),
            ("/a?b=c", &"[::1]:81".parse().unwrap())
        );
        assert_eq!(first.target.authorization.as_ref().unwrap(), "Basic dTpw");
        assert_eq!(first.key.as_ref().unwrap().reveal().len(), 24);
        assert_eq!(*first.on, [NotificationKind::Harm, NotificationKind::Ramp]);
        assert_eq!(
            (
                second.target.endpoint.port,
                &*second.target.path.to_string()
            ),
            (80, "/secret-path")
        );
        assert_eq!(*second.on, NotificationKind::ALL);
        assert!(second.key.is_none());
        // One webhook needs no list, and padding is optional.
        let one =
            read("{ url: http://a, secret: whsec_AAAAAAAAAAAAAAAAAAAAAA, on: winner }").unwrap();
        assert_eq!(one[0].key.as_ref().unwrap().reveal().len(), 16);
        assert_eq!(read("[]").unwrap().len(), 0);
    }

    #[test]
    fn all_errors_are_reported_and_no_secret_is_shown() {
        let found = read(
            "[ { url: \"ftp://hidden\", secret: hidden, on: [loser] }, { secret: whsec_aGlkZGVu, on: [] }, \
             { url: http://a:0 }, { url: http://a, tls: { name: b }, ulr: c }, http://a ]",
        );
        assert_eq!(
            found.unwrap_err(),
            [
                "webhooks.0.url: this is not an address",
                "webhooks.0.secret: this is not a secret of a webhook",
                "webhooks.0.on.0: found \"loser\"",
                "webhooks.1: `url` is missing",
                "webhooks.1.secret: the key has 6 bytes",
                "webhooks.1.on: the webhook receives nothing",
                "webhooks.2.url: this is not an address",
                "webhooks.3.tls: the receiver is reached without TLS",
                "webhooks.3.ulr: unknown key",
                "webhooks.4: the text \"http://a\" instead of keys",
            ]
            .map(str::to_owned)
        );
        let twice = read("[ { url: http://a }, { url: http://a, on: harm } ]");
        assert_eq!(
            twice.unwrap_err(),
            ["webhooks.1: another webhook has the same address"]
        );
        let shown = format!(
            "{:?}",
            read(&format!("{{ url: http://a, secret: {KEY} }}")).unwrap()
        );
        assert!(!shown.contains("49, 242"), "{shown}");
    }
}
