//! The secret that signs minted IDs and sessions: random, kept in the store, where replicas share
//! it, and in a private file beside the journal, for starts without the store.

use crate::config::plan::Plan;
use crate::ledger::{Ledger, chain};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The version of the file that this program writes. It reads no newer one.
const VERSION: u32 = 1;
/// The bytes of a secret.
const SECRET_BYTES: usize = 32;
/// The digits that they are written in.
const DIGITS: usize = 2 * SECRET_BYTES;
/// How long the start waits for the store's secrets.
const START_WITHIN: Duration = Duration::from_secs(3);

/// What is known of the secrets. The first one signs, all of them verify.
#[derive(Clone, Debug)]
pub struct Secrets {
    file: PathBuf,
    known: Vec<String>,
    /// Whether the file may be written: another version's stays as it is.
    is_ours: bool,
    /// How many entries of the store are none, as last reported.
    ignored: usize,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    version: u32,
    secrets: Vec<String>,
}

/// What every version of the file holds.
#[derive(Deserialize)]
struct Format {
    version: u32,
}

impl Secrets {
    /// The secrets of the store, or those that this machine knew last, or a new one.
    pub async fn open(plan: &Plan, ledger: &dyn Ledger) -> anyhow::Result<Secrets> {
        let file = plan.journal.path.join("secrets.json");
        let (known, is_ours) = read(&file);
        let mut secrets = Secrets {
            file,
            known,
            is_ours,
            ignored: 0,
        };
        // A new secret is made only where the store has none, so that replicas which are started
        // one after the other agree.
        let exchanged = tokio::time::timeout(START_WITHIN, secrets.exchange(ledger)).await;
        if secrets.known.is_empty() {
            secrets.known.push(random()?);
            if exchanged.is_ok_and(|changed| changed.is_ok()) {
                // An error is retried while serving.
                let again = tokio::time::timeout(START_WITHIN, secrets.exchange(ledger)).await;
                tracing::debug!(agreed = matches!(again, Ok(Ok(_))), "a new secret was made");
            }
        }
        secrets.remember();
        Ok(secrets)
    }

    /// Gives the store what is known here, and learns what others know. Says whether that changed
    /// anything here.
    pub async fn refresh(&mut self, ledger: &dyn Ledger) -> bool {
        match self.exchange(ledger).await {
            Ok(true) => {
                self.remember();
                true
            }
            Ok(false) => false,
            Err(error) => {
                // Ingestion reports an unavailable store.
                tracing::debug!("secrets are not shared: {error}");
                false
            }
        }
    }

    /// The secrets; never empty.
    pub fn known(&self) -> &[String] {
        &self.known
    }

    async fn exchange(&mut self, ledger: &dyn Ledger) -> Result<bool, String> {
        let shared = ledger.secrets(&self.known).await;
        let mut known = shared.map_err(|error| chain(&error))?;
        let all = known.len();
        known.retain(|secret| is_secret(secret));
        self.report_ignored(all - known.len());
        // What the store has no room for still verifies what was signed here.
        let own: Vec<_> = self.known.iter().filter(|it| !known.contains(it)).collect();
        let own: Vec<_> = own.into_iter().cloned().collect();
        known.extend(own);
        let changed = known != self.known;
        self.known = known;
        Ok(changed)
    }

    /// Logs when the store holds another number of entries that are no secrets.
    fn report_ignored(&mut self, ignored: usize) {
        if ignored > 0 && ignored != self.ignored {
            tracing::error!(
                "{ignored} of the secrets in the store are not {DIGITS} hexadecimal digits: they are ignored, since they could be guessed; find out who wrote them, and delete them from the store"
            );
        }
        self.ignored = ignored;
    }

    fn remember(&self) {
        if !self.is_ours {
            return;
        }
        if let Err(error) = write(&self.file, &self.known) {
            tracing::warn!(
                "secrets cannot be kept at {}: {error}; while the store is away, a restart makes new ones: sessions end, and visitors without an ID of yours get new ones",
                self.file.display()
            );
        }
    }
}

/// What the file holds, and whether it may be written.
fn read(file: &Path) -> (Vec<String>, bool) {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (Vec::new(), true),
        Err(error) => {
            tracing::error!(
                "{} cannot be read: {error}; make it readable for this user, or move it away",
                file.display()
            );
            return (Vec::new(), false);
        }
    };
    let format: Result<Format, _> = serde_json::from_slice(&bytes);
    if let Ok(format) = &format
        && format.version > VERSION
    {
        tracing::error!(
            "{} is of version {}, and this program reads up to {VERSION}: it is left as it is; start the program that wrote it, or move the file away",
            file.display(),
            format.version
        );
        return (Vec::new(), false);
    }
    match sound(&bytes) {
        Ok(secrets) => (secrets, true),
        Err(error) => {
            let aside = file.with_extension("damaged");
            tracing::error!(
                "{} is damaged: {error}; it is kept as {}, and the store's secrets take its place",
                file.display(),
                aside.display()
            );
            (Vec::new(), fs::rename(file, aside).is_ok())
        }
    }
}

/// The secrets in the bytes of a file, or what is wrong with them.
fn sound(bytes: &[u8]) -> Result<Vec<String>, String> {
    let contents = serde_json::from_slice::<Contents>(bytes);
    let Contents { secrets, .. } = contents.map_err(|error| error.to_string())?;
    match secrets.iter().position(|secret| !is_secret(secret)) {
        None => Ok(secrets),
        Some(place) => Err(format!(
            "number {} of its secrets is not {DIGITS} hexadecimal digits",
            place + 1
        )),
    }
}

/// Whether this may sign: anything else than what [`random`] makes could be guessed.
fn is_secret(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Writes the file in one step, readable by its owner only.
fn write(file: &Path, known: &[String]) -> io::Result<()> {
    let contents = Contents {
        version: VERSION,
        secrets: known.to_vec(),
    };
    let next = file.with_extension("next");
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&next)?;
    new.write_all(&serde_json::to_vec(&contents)?)?;
    new.sync_all()?;
    fs::rename(&next, file)
}

/// A secret in hexadecimal digits.
fn random() -> anyhow::Result<String> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret)?;
    Ok(secret.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::sqlite::SqliteLedger;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_is_private_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secrets.json");
        assert_eq!(read(&file), (Vec::new(), true), "there is none yet");
        let known = vec![random().unwrap(), random().unwrap()];
        assert_ne!(known[0], known[1]);
        // A file that was left half-written, and readable by all, is in the way of nothing.
        fs::write(file.with_extension("next"), "{").unwrap();
        for _ in 0..2 {
            write(&file, &known).unwrap();
            assert_eq!(read(&file), (known.clone(), true));
            let mode = fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_newer_file_stays_and_a_damaged_one_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secrets.json");
        for newer in [
            r#"{"version":2,"secrets":["a"]}"#,
            r#"{"version":7,"keys":{}}"#,
        ] {
            fs::write(&file, newer).unwrap();
            assert_eq!(read(&file), (Vec::new(), false), "{newer}");
            assert_eq!(fs::read_to_string(&file).unwrap(), newer);
        }
        let mut all = ["", "{", "[]", r#"{"version":1}"#, "\0\0\0"]
            .map(str::to_owned)
            .to_vec();
        all.extend(guessable().map(|secret| {
            serde_json::json!({"version": 1, "secrets": [random().unwrap(), secret]}).to_string()
        }));
        for damaged in all {
            fs::write(&file, &damaged).unwrap();
            assert_eq!(read(&file), (Vec::new(), true), "{damaged:?}");
            let aside = fs::read_to_string(folder.path().join("secrets.damaged"));
            assert_eq!(aside.unwrap(), damaged);
            assert!(!file.exists());
        }
    }

    /// Texts that are no secrets.
    fn guessable() -> [String; 6] {
        let digits = |count: usize| "a".repeat(count);
        [
            String::new(),
            digits(1),
            digits(63),
            digits(65),
            digits(63) + "g",
            "ä".repeat(32),
        ]
    }

    #[tokio::test]
    async fn what_is_no_secret_in_the_store_neither_signs_nor_verifies() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&folder.path().join("counts.db")).unwrap();
        ledger.secrets(&guessable()[..5]).await.unwrap();
        let own = random().unwrap();
        let mut secrets = Secrets {
            file: folder.path().join("secrets.json"),
            known: vec![own.clone()],
            is_ours: true,
            ignored: 0,
        };
        secrets.refresh(&ledger).await;
        assert_eq!(secrets.known(), std::slice::from_ref(&own));
        assert_eq!(secrets.ignored, 5);
        let stored = ledger.secrets(&[]).await.unwrap();
        assert_eq!(stored[..5], guessable()[..5], "none was offered again");
        assert!(stored[5..].iter().all(|secret| *secret == own));
    }
}
