//! The task of each replica: presents the certificate of the store, answers challenges, and obtains a
//! certificate when it is due.

use super::attempt::{Attempt, now_ms};
use super::entries::{
    self, Answers, CertificateEntry, EntryNames, FailedAttempt, latest_certificate,
};
use super::error::AcmeError;
use super::kept;
use super::schedule::{self, Step, Validity};
use crate::config::plan::{Acme, Plan};
use crate::store::acme::{AcmeEntries, AcmeLease};
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;
use crate::tls::{self, CertificateFacts, ObtainedNow};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// How often a replica looks into the store: for challenges, which must be answered soon.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a replica has the lease after it has vanished.
const LEASE: Duration = Duration::from_secs(30);
/// How often it is prolonged.
const PROLONG: Duration = Duration::from_secs(8);
/// How long the start waits for the certificate of the store.
const START_WITHIN: Duration = Duration::from_secs(3);
/// The problem's subject.
const SUBJECT: &str = "acme";

/// What a replica knows, which survives a panic of its task.
pub struct Keeper {
    plans: watch::Receiver<Arc<Plan>>,
    store: Arc<dyn Store>,
    telemetry: Arc<Telemetry>,
    /// This process, as the lease names it.
    owner: String,
    /// The copy of the certificate; `None` where the store is a file of this machine, too.
    file: Option<PathBuf>,
    /// The certificate that is presented.
    presented: Option<CertificateEntry>,
    /// The answers that are given.
    answers: Answers,
}

impl Keeper {
    /// Presents the certificate that the store has, or that this machine has kept. Without one, the site
    /// has no TLS until one is obtained.
    pub async fn open(
        plans: watch::Receiver<Arc<Plan>>,
        store: Arc<dyn Store>,
        telemetry: Arc<Telemetry>,
    ) -> Keeper {
        let plan = Arc::clone(&plans.borrow());
        let is_shared = store.kind() != "embedded";
        let mut keeper = Keeper {
            file: is_shared.then(|| plan.journal.path.join("acme.json")),
            plans,
            store,
            telemetry,
            owner: uuid::Uuid::now_v7().to_string(),
            presented: None,
            answers: Answers::default(),
        };
        let Some(acme) = plan.tls.as_ref().and_then(|tls| tls.acme.as_ref()) else {
            return keeper;
        };
        let asked = tokio::time::timeout(START_WITHIN, keeper.store.acme_entries()).await;
        let found = match asked {
            Ok(Ok(entries)) => wanted(&entries, &EntryNames::of(&acme.settings)),
            _ => None,
        };
        match found.or_else(|| keeper.recall()) {
            Some(entry) => keeper.present(entry),
            None => tracing::info!(
                "tls.acme: there is no certificate for {} yet: plain HTTP is served, and TLS as soon as there is one",
                acme.settings.names.join(", ")
            ),
        }
        keeper
    }

    /// Looks into the store again and again. Ends when there can be no more plans.
    pub async fn keep(keeper: Arc<Mutex<Keeper>>) {
        let mut keeper = keeper.lock().await;
        let mut plans = keeper.plans.clone();
        loop {
            let acme = {
                let plan = plans.borrow_and_update();
                plan.tls.as_ref().and_then(|tls| tls.acme.clone())
            };
            let Some(acme) = acme else {
                keeper.telemetry.problems.set(SUBJECT, None);
                match plans.changed().await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            };
            keeper.look(&acme).await;
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                changed = plans.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    /// Looks once, and does what is due.
    async fn look(&mut self, acme: &Acme) {
        let names = EntryNames::of(&acme.settings);
        let entries = match self.store.acme_entries().await {
            Ok(entries) => entries,
            // Ingestion reports an unavailable store. What is presented stays.
            Err(error) => {
                let error = error.with_advice();
                return tracing::debug!("certificates are not shared: {error}");
            }
        };
        self.adopt(&entries, &names);
        if next_step(&entries, &names) == Step::Wait {
            return;
        }
        match self.lease(LEASE).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tracing::debug!("no lease: {}", error.with_advice()),
        }
        let outcome = self.with_lease(acme, &names).await;
        if let Err(error) = &outcome {
            self.note_failure(&names, error).await;
        }
        // It expires anyway.
        let _ = self.lease(Duration::ZERO).await;
        if let Ok(entries) = self.store.acme_entries().await {
            self.adopt(&entries, &names);
        }
    }

    /// Takes, prolongs, or gives back the lease.
    async fn lease(&self, time: Duration) -> Result<bool, StoreError> {
        let lease = AcmeLease {
            owner: &self.owner,
            now_ms: now_ms(),
            for_ms: time.as_millis() as u64,
        };
        self.store.lease_acme(lease).await
    }

    /// Does what is due, if it still is: another replica may have done it.
    async fn with_lease(&self, acme: &Acme, names: &EntryNames) -> Result<(), AcmeError> {
        let entries = self.store.acme_entries().await?;
        let step = next_step(&entries, names);
        if step == Step::Order {
            self.telemetry.acme.orders.fetch_add(1, Ordering::Relaxed);
        }
        let answer = |answers: &Answers| self.publish(|now| answer(now, answers));
        let attempt = Attempt {
            settings: &acme.settings,
            names,
            store: &*self.store,
            owner: &self.owner,
            entries: &entries,
            answer: &answer,
        };
        let prolonging = async {
            loop {
                tokio::time::sleep(PROLONG).await;
                match self.lease(LEASE).await {
                    Ok(true) => {}
                    Ok(false) => return AcmeError::Superseded,
                    Err(error) => return error.into(),
                }
            }
        };
        tokio::select! {
            done = attempt.run(step) => done,
            error = prolonging => Err(error),
        }
    }

    /// Notes for all replicas that an attempt has failed, and when the next one may begin.
    async fn note_failure(&self, names: &EntryNames, error: &AcmeError) {
        self.telemetry.acme.failures.fetch_add(1, Ordering::Relaxed);
        let before = self.store.acme_entries().await;
        let before = before.ok();
        let before: Option<FailedAttempt> =
            before.and_then(|it| entries::read(&it, &names.attempt));
        let is_counted = error.is_counted();
        let failed =
            schedule::after_failure(now_ms(), before.as_ref(), is_counted, error.to_string());
        let lease = AcmeLease {
            owner: &self.owner,
            now_ms: now_ms(),
            for_ms: 0,
        };
        let change = entries::written(&names.attempt, &failed);
        if let Err(error) = self.store.write_acme(lease, &[change]).await {
            tracing::debug!("a failure is not shared: {}", error.with_advice());
        }
    }

    /// Presents what the store has, and reports what went wrong.
    fn adopt(&mut self, entries: &AcmeEntries, names: &EntryNames) {
        let found = wanted(entries, names);
        match found.filter(|entry| self.presented.as_ref() != Some(entry)) {
            Some(entry) => self.present(entry),
            None => self.restore(),
        }
        let answers = Answers::read(entries);
        if answers != self.answers {
            self.publish(|now| answer(now, &answers));
            self.answers = answers;
        }
        let failed: Option<FailedAttempt> = entries::read(entries, &names.attempt);
        let problem = failed.map(|failed| {
            format!(
                "no certificate by tls.acme ({} in a row failed): {}; the certificate that is there stays in use",
                failed.failures, failed.why
            )
        });
        if self.telemetry.problems.set(SUBJECT, problem.clone())
            && let Some(problem) = problem
        {
            tracing::error!("{problem}");
        }
    }

    /// Presents a certificate, and keeps it on this machine.
    fn present(&mut self, entry: CertificateEntry) {
        match tls::identity(entry.chain.as_bytes(), entry.key.as_bytes()) {
            Ok(pair) => {
                self.publish(|now| now.certificate = Some(pair));
                let is_other = |known: &CertificateEntry| known.chain != entry.chain;
                if self.presented.as_ref().is_none_or(is_other) {
                    self.remember(&entry);
                }
            }
            Err(error) => tracing::error!("the store's certificate cannot be used: {error}"),
        }
        self.presented = Some(entry);
    }

    /// Presents the same certificate again where the file was loaded anew, with ACME for the first time.
    fn restore(&mut self) {
        let plan = Arc::clone(&self.plans.borrow());
        let acme = plan.tls.as_ref().and_then(|tls| tls.acme.as_ref());
        if acme.is_some_and(|acme| acme.obtained.certificate().is_none())
            && let Some(entry) = self.presented.take()
        {
            self.present(entry);
        }
    }

    /// Changes what the plan of now presents and answers.
    fn publish(&self, change: impl FnOnce(&mut ObtainedNow)) {
        let plan = Arc::clone(&self.plans.borrow());
        if let Some(acme) = plan.tls.as_ref().and_then(|tls| tls.acme.as_ref()) {
            let mut now = ObtainedNow::clone(&acme.obtained.now());
            change(&mut now);
            acme.obtained.replace(Arc::new(now));
        }
    }

    fn recall(&self) -> Option<CertificateEntry> {
        let read = kept::read(self.file.as_ref()?);
        read.unwrap_or_else(|error| {
            tracing::error!("{error}");
            None
        })
    }

    fn remember(&self, entry: &CertificateEntry) {
        if let Some(file) = &self.file
            && let Err(error) = kept::write(file, entry)
        {
            tracing::error!("{error}");
        }
    }
}

/// Returns the certificate of this configuration, or else the latest of another one, as long as there is
/// none.
fn wanted(entries: &AcmeEntries, names: &EntryNames) -> Option<CertificateEntry> {
    entries::read(entries, &names.certificate).or_else(|| latest_certificate(entries))
}

fn next_step(entries: &AcmeEntries, names: &EntryNames) -> Step {
    let certificate: Option<CertificateEntry> = entries::read(entries, &names.certificate);
    let failed: Option<FailedAttempt> = entries::read(entries, &names.attempt);
    let validity = certificate.as_ref().and_then(validity);
    let renewal = certificate.and_then(|certificate| certificate.renewal);
    schedule::step(now_ms(), validity, renewal, failed.as_ref())
}

/// Returns when a certificate is valid; `None` for one that cannot be read, in whose place another one is
/// ordered.
fn validity(entry: &CertificateEntry) -> Option<Validity> {
    let chain = tls::certificates(entry.chain.as_bytes())?;
    let facts = CertificateFacts::read(chain.first()?).ok()?;
    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    Some(Validity {
        from_ms: ms(facts.not_before_s),
        until_ms: ms(facts.not_after_s),
    })
}

/// Makes these the answers to challenges.
fn answer(now: &mut ObtainedNow, answers: &Answers) {
    now.answers.clone_from(&answers.http);
    let proofs = answers.alpn.iter().filter_map(|(name, authorization)| {
        let proof = proof(name, authorization);
        let proof = proof.inspect_err(|error| {
            tracing::error!("a challenge for {name} cannot be answered: {error}");
        });
        Some((name.clone(), proof.ok()?))
    });
    now.proofs = proofs.collect::<BTreeMap<_, _>>();
}

/// Makes the certificate that proves a key authorization (RFC 8737, 3).
fn proof(
    name: &str,
    authorization: &str,
) -> Result<Arc<CertifiedKey>, Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    let digest = Sha256::digest(authorization);
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let pair = tls::identity(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())?;
    Ok(pair)
}
