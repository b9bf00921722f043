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
/// How long the start waits for the store's secrets.
const START_WITHIN: Duration = Duration::from_secs(3);

/// What is known of the secrets. The first one signs, all of them verify.
#[derive(Clone, Debug)]
pub struct Secrets {
    file: PathBuf,
    known: Vec<String>,
    /// Whether the file may be written: another version's stays as it is.
    is_ours: bool,
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
        // What the store has no room for still verifies what was signed here.
        let own: Vec<_> = self.known.iter().filter(|it| !known.contains(it)).collect();
        let own: Vec<_> = own.into_iter().cloned().collect();
        known.extend(own);
        let changed = known != self.known;
        self.known = known;
        Ok(changed)
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
    match serde_json::from_slice::<Contents>(&bytes) {
        Ok(contents) => (contents.secrets, true),
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
        for damaged in ["", "{", "[]", r#"{"version":1}"#, "\0\0\0"] {
            fs::write(&file, damaged).unwrap();
            assert_eq!(read(&file), (Vec::new(), true), "{damaged:?}");
            let aside = fs::read_to_string(folder.path().join("secrets.damaged"));
            assert_eq!(aside.unwrap(), damaged);
            assert!(!file.exists());
        }
    }
}
