//! What replicas share through the store, as JSON. PURE.

use crate::config::plan::{AcmeChallenge, AcmeSettings};
use crate::store::acme::AcmeEntries;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;

const CERTIFICATE: &str = "certificate:";
const HTTP: &str = "http-01:";
const ALPN: &str = "tls-alpn-01:";

/// A change of one entry; `None` removes it.
pub(super) type EntryChange = (String, Option<String>);

/// The names of the entries of one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryNames {
    /// The certificate for these names of this authority.
    pub certificate: String,
    /// The account at this authority.
    pub account: String,
    /// The last attempt, if it failed.
    pub attempt: String,
}

impl EntryNames {
    /// Returns the names for a configuration. Replicas with the same file have the same.
    pub(super) fn of(settings: &AcmeSettings) -> EntryNames {
        let account = settings.external_account.as_ref();
        let account = account.map_or("", |(id, _)| id);
        let directory = [&*settings.directory, account];
        let names = settings.names.iter().map(|name| &**name);
        let all: Vec<&str> = directory.into_iter().chain(names).collect();
        EntryNames {
            certificate: format!("{CERTIFICATE}{}", digest(&all)),
            account: format!("account:{}", digest(&directory)),
            attempt: format!("attempt:{}", digest(&all)),
        }
    }
}

fn digest(texts: &[&str]) -> String {
    // No text has a line end.
    let digest = Sha256::digest(texts.join("\n"));
    digest[..12]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CertificateEntry {
    /// The certificate and its chain, in PEM.
    pub chain: String,
    /// Its private key, in PEM.
    pub key: String,
    /// When it was obtained, in Unix milliseconds.
    pub obtained_ms: u64,
    /// What the authority says of its renewal.
    #[serde(default)]
    pub renewal: Option<Renewal>,
}

impl fmt::Debug for CertificateEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a certificate of {}", self.obtained_ms)
    }
}

/// What the authority says of the renewal of a certificate (RFC 9773).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Renewal {
    /// When it is due, in Unix milliseconds; `None` if the authority does not say.
    pub at_ms: Option<u64>,
    /// When the authority is asked again.
    pub ask_ms: u64,
}

/// An account at an authority.
#[derive(Serialize, Deserialize)]
pub(super) struct AccountEntry<Credentials> {
    /// The address of mail that the authority has.
    pub email: Option<String>,
    /// Its URL and its key.
    pub credentials: Credentials,
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FailedAttempt {
    /// How many failed in a row.
    pub failures: u32,
    /// When the next one may begin, in Unix milliseconds.
    pub next_ms: u64,
    /// Why it failed.
    pub why: String,
}

/// Reads an entry. One that cannot be read, as of another version, is none.
pub(super) fn read<T: DeserializeOwned>(entries: &AcmeEntries, name: &str) -> Option<T> {
    serde_json::from_str(entries.get(name)?).ok()
}

/// Returns the change that writes an entry.
pub(super) fn written<T: Serialize>(name: &str, value: &T) -> EntryChange {
    (name.to_owned(), serde_json::to_string(value).ok())
}

/// Returns the certificate that was obtained last, of whatever configuration.
pub(super) fn latest_certificate(entries: &AcmeEntries) -> Option<CertificateEntry> {
    let names = entries.keys().filter(|name| name.starts_with(CERTIFICATE));
    let all = names.filter_map(|name| read::<CertificateEntry>(entries, name));
    all.max_by_key(|entry| entry.obtained_ms)
}

/// Returns the names of certificates of other configurations that were obtained before this time.
pub(super) fn old_certificates(
    entries: &AcmeEntries,
    own: &str,
    before_ms: u64,
) -> Vec<EntryChange> {
    let others = entries.keys().filter(|name| name.starts_with(CERTIFICATE));
    let others = others.filter(|name| *name != own);
    let old = others.filter(|name| {
        let entry: Option<CertificateEntry> = read(entries, name);
        entry.is_none_or(|entry| entry.obtained_ms < before_ms)
    });
    old.map(|name| (name.clone(), None)).collect()
}

/// The answers to challenges: what they are asked by (a token or a name), and the key authorization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ChallengeAnswers {
    /// By token.
    pub http: BTreeMap<String, String>,
    /// By name.
    pub alpn: BTreeMap<String, String>,
}

impl ChallengeAnswers {
    /// Reads the answers of the store.
    pub(super) fn read(entries: &AcmeEntries) -> ChallengeAnswers {
        let of = |prefix: &str| {
            let named = |(name, text): (&String, &String)| {
                Some((name.strip_prefix(prefix)?.to_owned(), text.clone()))
            };
            entries.iter().filter_map(named).collect()
        };
        ChallengeAnswers {
            http: of(HTTP),
            alpn: of(ALPN),
        }
    }

    /// Adds the answer to one challenge.
    pub(super) fn add(
        &mut self,
        challenge: AcmeChallenge,
        asked: (&str, &str),
        authorization: &str,
    ) {
        let (token, name) = asked;
        let authorization = authorization.to_owned();
        match challenge {
            AcmeChallenge::Http01 => self.http.insert(token.to_owned(), authorization),
            AcmeChallenge::TlsAlpn01 => self.alpn.insert(name.to_owned(), authorization),
        };
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.http.is_empty() && self.alpn.is_empty()
    }

    /// Returns the changes that replace the answers of the store by these.
    pub(super) fn replacing(&self, entries: &AcmeEntries) -> Vec<EntryChange> {
        let is_answer = |name: &&String| name.starts_with(HTTP) || name.starts_with(ALPN);
        let mut changes: BTreeMap<String, Option<String>> = entries
            .keys()
            .filter(is_answer)
            .map(|name| (name.clone(), None))
            .collect();
        let http = self.http.iter().map(|(key, text)| (HTTP, key, text));
        let alpn = self.alpn.iter().map(|(key, text)| (ALPN, key, text));
        for (prefix, key, text) in http.chain(alpn) {
            changes.insert(format!("{prefix}{key}"), Some(text.clone()));
        }
        changes.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(all: &[(&str, &str)]) -> AcmeEntries {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        all.iter().map(owned).collect()
    }

    #[test]
    fn answers_replace_those_of_an_attempt_that_was_given_up() {
        let before = entries(&[
            ("http-01:old", "a"),
            ("account:x", "b"),
            ("http-01:kept", "c"),
        ]);
        let mut answers = ChallengeAnswers::default();
        answers.add(AcmeChallenge::Http01, ("kept", "a.test"), "kept.thumb");
        answers.add(AcmeChallenge::TlsAlpn01, ("token", "a.test"), "token.thumb");
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            answers.replacing(&before),
            [
                ("http-01:kept".to_owned(), text("kept.thumb")),
                ("http-01:old".to_owned(), None),
                ("tls-alpn-01:a.test".to_owned(), text("token.thumb")),
            ]
        );
        assert_eq!(
            ChallengeAnswers::default().replacing(&before),
            [
                ("http-01:kept".to_owned(), None),
                ("http-01:old".to_owned(), None)
            ]
        );
    }

    #[test]
    fn private_keys_are_not_shown() {
        let entry = CertificateEntry {
            chain: "chain".to_owned(),
            key: "private".to_owned(),
            obtained_ms: 5,
            renewal: None,
        };
        assert!(!format!("{entry:?}").contains("private"));
        let (name, text) = written("certificate:a", &entry);
        let all = [
            (name, text.unwrap()),
            ("certificate:b".to_owned(), "{".to_owned()),
        ]
        .into();
        assert_eq!(latest_certificate(&all), Some(entry));
        assert_eq!(
            old_certificates(&all, "certificate:c", 6),
            [
                ("certificate:a".to_owned(), None),
                ("certificate:b".to_owned(), None)
            ]
        );
        assert_eq!(
            old_certificates(&all, "certificate:c", 5),
            [("certificate:b".to_owned(), None)]
        );
    }
}
