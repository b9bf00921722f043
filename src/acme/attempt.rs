//! What the replica with the lease does: orders a certificate, or asks when it is to be renewed.

use super::authority::AuthorityClient;
use super::entries::{
    self, AccountEntry, CertificateEntry, ChallengeAnswers, EntryChange, EntryNames, Renewal,
};
use super::error::AcmeError;
use super::order::PendingOrder;
use super::schedule::{Step, Validity};
use crate::config::plan::AcmeSettings;
use crate::store::Store;
use crate::store::acme::{AcmeEntries, AcmeLease};
use crate::tls::{self, CertificateFacts};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{
    Account, AccountBuilder, AccountCredentials, CertificateIdentifier, ExternalAccountKey,
    NewAccount,
};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// How soon other replicas answer a challenge: each looks into the store more often.
const OTHERS_WITHIN: Duration = Duration::from_secs(4);
/// How long a new certificate waits for the store: less than the lease.
const STORE_WITHIN: Duration = Duration::from_secs(25);
/// How often it is tried.
const STORE_AGAIN: Duration = Duration::from_secs(1);
/// How soon an authority is asked again that does not say when a certificate is to be renewed.
const ASK_AGAIN_MS: u64 = 24 * 3_600_000;
/// The soonest and the latest that it is asked again, whatever it says.
const ASK_BOUNDS_MS: (u64, u64) = (3_600_000, 7 * 24 * 3_600_000);
/// After so long, certificates of other configurations are removed from the store. None is valid for
/// longer.
const OLD_MS: u64 = 400 * 24 * 3_600_000;

/// Now, in Unix milliseconds.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

/// The work of the replica that has the lease.
pub(super) struct AcmeAttempt<'a> {
    /// How a certificate is obtained.
    pub settings: &'a AcmeSettings,
    /// Where it is in the store.
    pub names: &'a EntryNames,
    /// The store.
    pub store: &'a dyn Store,
    /// This process, which has the lease.
    pub owner: &'a str,
    /// What the store had when the lease was taken.
    pub entries: &'a AcmeEntries,
    /// Makes this replica answer at once.
    pub answer: &'a (dyn Fn(&ChallengeAnswers) + Send + Sync),
}

impl AcmeAttempt<'_> {
    /// Does what is to be done.
    pub(super) async fn run(&self, step: Step) -> Result<(), AcmeError> {
        match (step, self.run_once(step).await) {
            (Step::AskRenewal, Err(error)) if error.is_of_authority() => {
                tracing::debug!("the authority cannot be asked when to renew: {error}");
                self.put_off_question().await
            }
            (_, done) => done,
        }
    }

    async fn run_once(&self, step: Step) -> Result<(), AcmeError> {
        let account = match self.known_account().await {
            Some(Err(error)) if error.is_of_unknown_account() => self.new_account().await?,
            Some(account) => account?,
            None => self.new_account().await?,
        };
        match self.run_with(&account, step).await {
            Err(error) if error.is_of_unknown_account() => {
                tracing::warn!(
                    "the authority does not know the account any more: a new one is made"
                );
                self.run_with(&self.new_account().await?, step).await
            }
            done => done,
        }
    }

    async fn run_with(&self, account: &Account, step: Step) -> Result<(), AcmeError> {
        let present: Option<CertificateEntry> =
            entries::read(self.entries, &self.names.certificate);
        match (step, present) {
            (Step::Wait, _) => Ok(()),
            (Step::AskRenewal, Some(present)) => self.ask_renewal(account, present).await,
            (Step::AskRenewal, None) => Ok(()),
            (Step::Order, present) => self.order(account, present.as_ref()).await,
        }
    }

    /// Writes entries, as long as this process has the lease.
    async fn write(&self, changes: &[EntryChange]) -> Result<(), AcmeError> {
        let lease = AcmeLease {
            owner: self.owner,
            now_ms: now_ms(),
            for_ms: 0,
        };
        match self.store.write_acme(lease, changes).await? {
            true => Ok(()),
            false => Err(AcmeError::Superseded),
        }
    }

    /// The same, again and again while the store is away: the authority gives only a few certificates a week.
    async fn write_patiently(&self, changes: &[EntryChange]) -> Result<(), AcmeError> {
        let deadline = Instant::now() + STORE_WITHIN;
        loop {
            match self.write(changes).await {
                Err(AcmeError::Store(error)) if Instant::now() < deadline => {
                    let error = error.with_advice();
                    tracing::debug!("tls.acme: a new certificate waits for the store: {error}");
                    tokio::time::sleep(STORE_AGAIN).await;
                }
                done => return done,
            }
        }
    }

    fn builder(&self) -> AccountBuilder {
        Account::builder_with_http(Box::new(AuthorityClient {
            tls: Arc::clone(&self.settings.client),
        }))
    }

    fn contact(&self) -> Option<String> {
        let email = self.settings.email.as_ref();
        email.map(|email| format!("mailto:{email}"))
    }

    /// Returns the account that replicas share, if there is one.
    async fn known_account(&self) -> Option<Result<Account, AcmeError>> {
        let known: AccountEntry<AccountCredentials> =
            entries::read(self.entries, &self.names.account)?;
        let email = known.email;
        let account = match self.builder().from_credentials(known.credentials).await {
            Ok(account) => account,
            Err(error) => return Some(Err(error.into())),
        };
        if email.as_deref() != self.settings.email.as_deref() {
            return Some(self.update_contact(&account).await.map(|()| account));
        }
        Some(Ok(account))
    }

    /// Tells the authority of a changed address of mail.
    async fn update_contact(&self, account: &Account) -> Result<(), AcmeError> {
        let contact = self.contact();
        let contacts: Vec<&str> = contact.iter().map(String::as_str).collect();
        account.update_contacts(&contacts).await?;
        let known: Option<AccountEntry<serde_json::Value>> =
            entries::read(self.entries, &self.names.account);
        let Some(known) = known else {
            return Ok(());
        };
        let changed = AccountEntry {
            email: self.settings.email.as_ref().map(|it| it.to_string()),
            ..known
        };
        let change = entries::written(&self.names.account, &changed);
        self.write(&[change]).await
    }

    async fn new_account(&self) -> Result<Account, AcmeError> {
        let contact = self.contact();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let external = self.settings.external_account.as_ref();
        let external = external.map(|(id, key)| {
            // The file was checked.
            let key = BASE64_URL_SAFE_NO_PAD.decode(key.reveal().trim_end_matches('='));
            ExternalAccountKey::new(id.to_string(), &key.unwrap_or_default())
        });
        let directory = self.settings.directory.to_string();
        let made = self.builder().create(&new, directory, external.as_ref());
        let (account, credentials) = made.await?;
        let entry = AccountEntry {
            email: self.settings.email.as_ref().map(|it| it.to_string()),
            credentials,
        };
        let change = entries::written(&self.names.account, &entry);
        self.write(&[change]).await?;
        tracing::info!(
            "tls.acme: an account was made at {}",
            self.settings.directory
        );
        Ok(account)
    }

    async fn order(
        &self,
        account: &Account,
        present: Option<&CertificateEntry>,
    ) -> Result<(), AcmeError> {
        let says_renewal = present.and_then(|it| it.renewal?.at_ms).is_some();
        let replaces = present.filter(|_| says_renewal).and_then(identifier);
        let order = PendingOrder::begin(account, self.settings, replaces).await?;
        self.write(&order.answers.replacing(self.entries)).await?;
        (self.answer)(&order.answers);
        if !order.answers.is_empty() && self.store.replicas(now_ms()).await?.len() > 1 {
            tokio::time::sleep(OTHERS_WITHIN).await;
        }
        let answers = order.answers.clone();
        let ordered = order.finish().await;
        (self.answer)(&ChallengeAnswers::default());
        let certificate = match ordered {
            Ok(certificate) => certificate,
            Err(error) => {
                self.write(&forgotten(&answers)).await?;
                return Err(error);
            }
        };
        let entry = CertificateEntry {
            chain: certificate.chain,
            key: certificate.key,
            obtained_ms: now_ms(),
            renewal: None,
        };
        tls::identity(entry.chain.as_bytes(), entry.key.as_bytes())
            .map_err(|error| AcmeError::Unusable(error.to_string()))?;
        validity(&entry).ok_or_else(|| AcmeError::Unusable("its dates cannot be read".into()))?;
        let mut changes = forgotten(&answers);
        let old_ms = now_ms().saturating_sub(OLD_MS);
        let own = &self.names.certificate;
        changes.extend(entries::old_certificates(self.entries, own, old_ms));
        changes.push(entries::written(own, &entry));
        changes.push((self.names.attempt.clone(), None));
        self.write_patiently(&changes).await?;
        tracing::info!(
            "tls.acme: {} has given a certificate for {}",
            self.settings.directory,
            self.settings.names.join(", ")
        );
        Ok(())
    }

    /// Asks later when the certificate is to be renewed: it is renewed in time without an answer.
    async fn put_off_question(&self) -> Result<(), AcmeError> {
        let present: Option<CertificateEntry> =
            entries::read(self.entries, &self.names.certificate);
        let Some(present) = present else {
            return Ok(());
        };
        let renewal = Some(Renewal {
            at_ms: present.renewal.and_then(|renewal| renewal.at_ms),
            ask_ms: now_ms() + ASK_BOUNDS_MS.0,
        });
        let entry = CertificateEntry { renewal, ..present };
        let change = entries::written(&self.names.certificate, &entry);
        self.write(&[change]).await
    }

    /// Asks when the certificate is to be renewed. An authority that does not say is no error.
    async fn ask_renewal(
        &self,
        account: &Account,
        present: CertificateEntry,
    ) -> Result<(), AcmeError> {
        let unknown = Renewal {
            at_ms: present.renewal.and_then(|renewal| renewal.at_ms),
            ask_ms: now_ms() + ASK_AGAIN_MS,
        };
        let renewal = match identifier(&present) {
            Some(identifier) => match account.renewal_info(&identifier).await {
                Ok((info, again)) => {
                    let (start, end) = (info.suggested_window.start, info.suggested_window.end);
                    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0) * 1000;
                    let (from_ms, to_ms) = (ms(start.unix_timestamp()), ms(end.unix_timestamp()));
                    let again_ms = u64::try_from(again.as_millis()).unwrap_or(u64::MAX);
                    Renewal {
                        // RFC 9773, 4.2: at random, so that not all renew at once.
                        at_ms: Some(fastrand::u64(from_ms..=to_ms.max(from_ms))),
                        ask_ms: now_ms() + again_ms.clamp(ASK_BOUNDS_MS.0, ASK_BOUNDS_MS.1),
                    }
                }
                Err(error) => {
                    tracing::debug!("the authority does not say when to renew: {error}");
                    unknown
                }
            },
            None => unknown,
        };
        let entry = CertificateEntry {
            renewal: Some(renewal),
            ..present
        };
        let change = entries::written(&self.names.certificate, &entry);
        self.write(&[change]).await
    }
}

/// Returns when a certificate is valid; `None` for one that cannot be read.
pub(super) fn validity(entry: &CertificateEntry) -> Option<Validity> {
    let chain = tls::certificates(entry.chain.as_bytes())?;
    let facts = CertificateFacts::read(chain.first()?).ok()?;
    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    Some(Validity {
        from_ms: ms(facts.not_before_s),
        until_ms: ms(facts.not_after_s),
        obtained_ms: entry.obtained_ms,
    })
}

/// Returns the changes that remove answers.
fn forgotten(answers: &ChallengeAnswers) -> Vec<EntryChange> {
    let given: AcmeEntries = answers
        .replacing(&AcmeEntries::new())
        .into_iter()
        .filter_map(|(name, text)| Some((name, text?)))
        .collect();
    ChallengeAnswers::default().replacing(&given)
}

/// Returns how the authority calls a certificate (RFC 9773, 4.1).
fn identifier(entry: &CertificateEntry) -> Option<CertificateIdentifier<'static>> {
    let chain = tls::certificates(entry.chain.as_bytes())?;
    let (authority, serial) = tls::identifier(chain.first()?)?;
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes).into();
    Some(CertificateIdentifier {
        authority_key_identifier: encode(&authority),
        serial: encode(&serial),
    })
}
