//! The secret that signs minted IDs and sessions. It is random, and kept in the store, where replicas share
//! it, and in a private file beside the journal, for starts without the store.

use crate::config::plan::Plan;
use crate::private_file;
use crate::regular_file;
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The version of the file. A newer one is not read.
const VERSION: u32 = 1;
/// The bytes of a secret.
const SECRET_BYTES: usize = 32;
/// The number of its hexadecimal digits.
const DIGITS: usize = 2 * SECRET_BYTES;
/// How long the start waits for the secrets of the store.
const START_WITHIN: Duration = Duration::from_secs(3);

/// The secrets. The first one signs, all of them verify.
#[derive(Clone, Debug)]
pub(super) struct Secrets {
    file: PathBuf,
    known: Vec<String>,
    /// Why the file must not be written: it is of a newer version, or cannot be read.
    in_the_way: Option<String>,
    /// The error of writing the file.
    unwritten: Option<String>,
    /// The problem with those in the store.
    of_store: Option<String>,
    telemetry: Arc<Telemetry>,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    version: u32,
    secrets: Vec<String>,
}

/// The field that every version of the file has.
#[derive(Deserialize)]
struct Format {
    version: serde_json::Value,
}

impl Secrets {
    /// Loads the secrets of the store, or those that this machine knew last, or makes a new one.
    pub(super) async fn open(
        plan: &Plan,
        store: &dyn Store,
        telemetry: &Arc<Telemetry>,
    ) -> anyhow::Result<Secrets> {
        let mut secrets = Secrets {
            file: plan.journal.path.join("secrets.json"),
            known: Vec::new(),
            in_the_way: None,
            unwritten: None,
            of_store: None,
            telemetry: Arc::clone(telemetry),
        };
        secrets.recall();
        // A new secret is made only if the store has none, so that replicas agree that start one after
        // the other.
        let exchanged = tokio::time::timeout(START_WITHIN, secrets.exchange(store)).await;
        if secrets.known.is_empty() {
            secrets.known.push(random()?);
            if exchanged.is_ok_and(|changed| changed.is_ok()) {
                // An error is retried while serving.
                let again = tokio::time::timeout(START_WITHIN, secrets.exchange(store)).await;
                tracing::debug!(agreed = matches!(again, Ok(Ok(_))), "a new secret was made");
            }
        }
        secrets.remember();
        secrets.report();
        Ok(secrets)
    }

    /// Exchanges secrets with the store. Returns whether that changed the secrets here.
    pub(super) async fn refresh(&mut self, store: &dyn Store) -> bool {
        let before = self.known.clone();
        // The obstacle may be gone.
        let was_in_the_way = self.in_the_way.is_some();
        if was_in_the_way {
            self.recall();
        }
        let exchanged = self.exchange(store).await;
        if exchanged.is_ok_and(|changed| changed) || was_in_the_way || self.unwritten.is_some() {
            self.remember();
        }
        self.report();
        self.known != before
    }

    /// Returns the secrets; never empty.
    pub(super) fn known(&self) -> &[String] {
        &self.known
    }

    async fn exchange(&mut self, store: &dyn Store) -> Result<bool, StoreError> {
        let mut known = match store.secrets(&self.known).await {
            Ok(known) => known,
            Err(error) => {
                tracing::debug!("secrets are not shared: {}", error.with_advice());
                // Ingestion reports an unavailable store.
                self.of_store = error.is_of_one_experiment().then(|| {
                    let error = error.with_advice();
                    format!(
                        "the store cannot share the secrets that sign IDs and sessions: {error}"
                    )
                });
                return Err(error);
            }
        };
        let all = known.len();
        known.retain(|secret| is_secret(secret));
        self.of_store = ignored(all - known.len());
        // A secret that the store has no room for still verifies what was signed with it.
        let own: Vec<_> = self.known.iter().filter(|it| !known.contains(it)).collect();
        let own: Vec<_> = own.into_iter().cloned().collect();
        known.extend(own);
        let changed = known != self.known;
        self.known = known;
        Ok(changed)
    }

    /// Reads the file, or notes why it must not be written.
    fn recall(&mut self) {
        match read(&self.file) {
            Ok(known) => {
                let more = known.into_iter().filter(|it| !self.known.contains(it));
                let more: Vec<_> = more.collect();
                self.known.extend(more);
                self.in_the_way = None;
            }
            Err(why) => self.in_the_way = Some(why),
        }
    }

    fn remember(&mut self) {
        if self.in_the_way.is_some() {
            return;
        }
        self.unwritten = write(&self.file, &self.known).err().map(|error| {
            format!(
                "secrets cannot be kept at {}: {error}; make its folder writable for this user. While the store is unavailable, a restart makes new secrets: sessions end, and users with a minted ID get a new one",
                self.file.display()
            )
        });
    }

    fn report(&self) {
        let all = [&self.in_the_way, &self.unwritten, &self.of_store];
        let all: Vec<_> = all.into_iter().flatten().cloned().collect();
        let problem = (!all.is_empty()).then(|| all.join("; "));
        if self.telemetry.problems.set("secrets", problem.clone())
            && let Some(problem) = problem
        {
            tracing::error!("{problem}");
        }
    }
}

/// Describes a number of entries in the store that are no secrets.
fn ignored(count: usize) -> Option<String> {
    (count > 0).then(|| format!(
        "{count} of the secrets in the store are not {DIGITS} hexadecimal digits: they are ignored, because they could be guessed; find out who wrote them, and delete them from the store"
    ))
}

/// Reads the file; an error says why it must not be written.
fn read(file: &Path) -> Result<Vec<String>, String> {
    let bytes = match regular_file::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(format!(
                "{} cannot be read: {error}; make it a file that this user can read, or move it away",
                file.display()
            ));
        }
    };
    let format: Result<Format, _> = serde_json::from_slice(&bytes);
    if let Ok(Format { version }) = format
        && version != VERSION
    {
        return Err(format!(
            "{} has version {version}, and this program reads {VERSION}: it is left unchanged; run the version that wrote it, or move the file away",
            file.display(),
        ));
    }
    sound(&bytes).or_else(|error| {
        let aside = file.with_extension("damaged");
        let put_aside = fs::rename(file, &aside);
        tracing::error!(
            "{} is damaged: {error}; it is kept as {}, and the secrets of the store replace it",
            file.display(),
            aside.display()
        );
        put_aside.map(|()| Vec::new()).map_err(|error| {
            let file = file.display();
            format!(
                "{file} is damaged, and cannot be moved to {}: {error}; move it away",
                aside.display()
            )
        })
    })
}

/// Decodes the secrets in a file.
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

/// Whether this may sign. Texts that [`random`] does not make could be guessed.
fn is_secret(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Writes the file.
fn write(file: &Path, known: &[String]) -> io::Result<()> {
    let contents = Contents {
        version: VERSION,
        secrets: known.to_vec(),
    };
    private_file::write(file, &serde_json::to_vec(&contents)?)
}

/// Makes a secret in hexadecimal digits.
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
    use crate::store::sqlite::SqliteStore;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn file_is_private_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secrets.json");
        assert_eq!(read(&file), Ok(Vec::new()), "there is none yet");
        let known = vec![random().unwrap(), random().unwrap()];
        assert_ne!(known[0], known[1]);
        // A half-written file that others can read does not prevent the next write.
        fs::write(file.with_extension("next"), "{").unwrap();
        for _ in 0..2 {
            write(&file, &known).unwrap();
            assert_eq!(read(&file), Ok(known.clone()));
            let mode = fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn newer_file_stays_and_damaged_file_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secrets.json");
        for newer in [
            r#"{"version":2,"secrets":["a"]}"#,
            r#"{"version":7,"keys":{}}"#,
            r#"{"version":"2.0","keys":{}}"#,
            r#"{"version":0,"secrets":[]}"#,
        ] {
            fs::write(&file, newer).unwrap();
            assert!(read(&file).unwrap_err().contains("has version"), "{newer}");
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
            assert_eq!(read(&file), Ok(Vec::new()), "{damaged:?}");
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
    async fn invalid_secret_of_the_store_neither_signs_nor_verifies() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("counts.db")).unwrap();
        store.secrets(&guessable()[..5]).await.unwrap();
        let own = random().unwrap();
        let mut secrets = Secrets {
            file: folder.path().join("secrets.json"),
            known: vec![own.clone()],
            in_the_way: None,
            unwritten: None,
            of_store: None,
            telemetry: Arc::new(Telemetry::new(1)),
        };
        secrets.refresh(&store).await;
        assert_eq!(secrets.known(), std::slice::from_ref(&own));
        let problems = secrets.telemetry.problems.all().concat();
        assert!(problems.starts_with("5 of the secrets"), "{problems}");
        let stored = store.secrets(&[]).await.unwrap();
        assert_eq!(stored[..5], guessable()[..5], "none was offered again");
        assert!(stored[5..].iter().all(|secret| *secret == own));
    }
}
