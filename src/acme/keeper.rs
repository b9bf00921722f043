//! The task of each replica: presents the certificate of the store, answers challenges, and obtains a
//! certificate when it is due.

use super::attempt::{AcmeAttempt, now_ms, validity};
use super::entries::{
    self, CertificateEntry, ChallengeAnswers, EntryNames, FailedAttempt, latest_certificate,
};
use super::error::AcmeError;
use super::kept;
use super::schedule::{self, Step};
use crate::config::plan::{Acme, Plan};
use crate::store::acme::{AcmeEntries, AcmeLease};
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;
use crate::tls::{self, ObtainedNow};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

/// How often a replica looks into the store: for challenges, which must be answered soon.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a replica has the lease after it has vanished.
const LEASE: Duration = Duration::from_secs(30);
/// How often it is prolonged.
const PROLONG: Duration = Duration::from_secs(8);
/// How long the start waits for the certificate of the store.
const START_WITHIN: Duration = Duration::from_secs(3);
/// The longest report of a failure, in characters.
const WORDS_MAX: usize = 600;
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
    answers: ChallengeAnswers,
    /// The last attempt of this process, if it failed: the store may not know it.
    failed: Option<(EntryNames, FailedAttempt)>,
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
            answers: ChallengeAnswers::default(),
            failed: None,
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
        if self.next_step(&entries, &names) == Step::Wait {
            return;
        }
        match self.lease(LEASE).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tracing::debug!("no lease: {}", error.with_advice()),
        }
        match self.with_lease(acme, &names).await {
            Ok(()) => self.failed = None,
            Err(error) => self.note_failure(&names, &error).await,
        }
        // The attempt answered before the others, and may have been given up.
        self.answers = ChallengeAnswers::default();
        self.publish(|now| answer(now, &ChallengeAnswers::default()));
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
        let step = self.next_step(&entries, names);
        if step == Step::Order {
            self.telemetry.acme.orders.fetch_add(1, Ordering::Relaxed);
        }
        let answer = |answers: &ChallengeAnswers| self.publish(|now| answer(now, answers));
        let attempt = AcmeAttempt {
            settings: &acme.settings,
            names,
            store: &*self.store,
            owner: &self.owner,
            entries: &entries,
            answer: &answer,
        };
        tokio::select! {
            done = attempt.run(step) => done,
            error = self.prolong() => Err(error),
        }
    }

    /// Prolongs the lease. Ends when it is lost, or nobody knows whether it is.
    async fn prolong(&self) -> AcmeError {
        let mut until = Instant::now() + LEASE;
        loop {
            tokio::time::sleep(PROLONG).await;
            let asked = Instant::now();
            match self.lease(LEASE).await {
                Ok(true) => until = asked + LEASE,
                Ok(false) => return AcmeError::Superseded,
                Err(error) if asked >= until => return error.into(),
                Err(error) => tracing::debug!("the lease: {}", error.with_advice()),
            }
        }
    }

    /// Decides what is to be done. An attempt that failed here counts also where the store does not know it.
    fn next_step(&self, entries: &AcmeEntries, names: &EntryNames) -> Step {
        let certificate: Option<CertificateEntry> = entries::read(entries, &names.certificate);
        let shared: Option<FailedAttempt> = entries::read(entries, &names.attempt);
        let own = self.own_failure(names).cloned();
        let failed = shared.into_iter().chain(own).max_by_key(|it| it.next_ms);
        let validity = certificate.as_ref().and_then(validity);
        let renewal = certificate.and_then(|certificate| certificate.renewal);
        schedule::step(now_ms(), validity, renewal, failed.as_ref())
    }

    fn own_failure(&self, names: &EntryNames) -> Option<&FailedAttempt> {
        let own = self.failed.as_ref().filter(|(of, _)| of == names);
        own.map(|(_, failed)| failed)
    }

    /// Notes for all replicas that an attempt has failed, and when the next one may begin.
    async fn note_failure(&mut self, names: &EntryNames, error: &AcmeError) {
        self.telemetry.acme.failures.fetch_add(1, Ordering::Relaxed);
        let before = self.store.acme_entries().await;
        let before = before.ok();
        let before: Option<FailedAttempt> =
            before.and_then(|it| entries::read(&it, &names.attempt));
        let before = before.or_else(|| self.own_failure(names).cloned());
        let is_counted = error.is_counted();
        // The authority chose the words.
        let words = error.to_string();
        let words = words.chars().filter(|it| !it.is_control());
        let why = words.take(WORDS_MAX).collect();
        let failed = schedule::after_failure(now_ms(), before.as_ref(), is_counted, why);
        let lease = AcmeLease {
            owner: &self.owner,
            now_ms: now_ms(),
            for_ms: 0,
        };
        let change = entries::written(&names.attempt, &failed);
        self.failed = Some((names.clone(), failed));
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
        let answers = ChallengeAnswers::read(entries);
        if answers != self.answers {
            self.publish(|now| answer(now, &answers));
            self.answers = answers;
        }
        let failed: Option<FailedAttempt> = entries::read(entries, &names.attempt);
        let problem = failed.map(|failed| {
            let meanwhile = match self.presented {
                Some(_) => "the certificate that is there stays in use",
                None => "there is no TLS meanwhile",
            };
            format!(
                "no certificate by tls.acme ({} in a row failed): {}; {meanwhile}",
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

/// Makes these the answers to challenges.
fn answer(now: &mut ObtainedNow, answers: &ChallengeAnswers) {
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
    let private = PrivatePkcs8KeyDer::from(key.serialize_der());
    let signer = tls::provider()
        .key_provider
        .load_private_key(private.into())?;
    // The library takes such a certificate for unsound, because it does not know its extension.
    Ok(Arc::new(CertifiedKey::new(
        vec![certificate.der().clone()],
        signer,
    )))
}
