//! One order of a certificate.

use super::entries::ChallengeAnswers;
use super::error::AcmeError;
use crate::config::plan::{AcmeChallenge, AcmeSettings};
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use std::time::Duration;

/// How long the authority may take to check names, and to make the certificate.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// A certificate and its key, in PEM.
pub(super) struct NewCertificate {
    /// The certificate and its chain.
    pub chain: String,
    /// Its private key.
    pub key: String,
}

/// An order whose names the authority has not checked yet.
pub(super) struct PendingOrder<'a> {
    settings: &'a AcmeSettings,
    order: Order,
    /// What all replicas must answer before it goes on.
    pub answers: ChallengeAnswers,
}

impl<'a> PendingOrder<'a> {
    /// Begins an order, which may replace a certificate.
    pub(super) async fn begin(
        account: &Account,
        settings: &'a AcmeSettings,
        replaces: Option<CertificateIdentifier<'_>>,
    ) -> Result<PendingOrder<'a>, AcmeError> {
        let names = settings.names.iter().map(|name| name.to_string());
        let identifiers: Vec<Identifier> = names.map(Identifier::Dns).collect();
        let mut order = begin(account, &identifiers, replaces).await?;
        let answers = answers(&mut order, settings.challenge).await?;
        Ok(PendingOrder {
            settings,
            order,
            answers,
        })
    }

    /// Lets the authority check the names, and returns the certificate.
    pub(super) async fn finish(mut self) -> Result<NewCertificate, AcmeError> {
        let order = &mut self.order;
        if !self.answers.is_empty() {
            set_ready(order, self.settings.challenge).await?;
        }
        match order.poll_ready(&PATIENCE).await {
            Ok(OrderStatus::Ready) => {}
            Ok(_) => return Err(refusal(order).await),
            // The challenge says more than the order.
            Err(error @ instant_acme::Error::Api(_)) => {
                return Err(match refusal(order).await {
                    refusal @ AcmeError::Challenge { .. } => refusal,
                    _ => error.into(),
                });
            }
            Err(error) => return Err(error.into()),
        }
        let names = self.settings.names.iter().map(|name| name.to_string());
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.collect::<Vec<_>>())?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key)?;
        order.finalize_csr(request.der()).await?;
        Ok(NewCertificate {
            chain: order.poll_certificate(&PATIENCE).await?,
            key: key.serialize_pem(),
        })
    }
}

/// Begins an order that replaces a certificate, or one that does not, if that fails: it only helps an
/// authority to plan (RFC 9773, 5).
async fn begin(
    account: &Account,
    identifiers: &[Identifier],
    replaces: Option<CertificateIdentifier<'_>>,
) -> Result<Order, AcmeError> {
    if let Some(replaces) = replaces {
        let order = NewOrder::new(identifiers).replaces(replaces);
        match account.new_order(&order).await {
            Ok(order) => return Ok(order),
            Err(error) => tracing::debug!("no order that replaces a certificate: {error}"),
        }
    }
    Ok(account.new_order(&NewOrder::new(identifiers)).await?)
}

/// Returns the answers to the challenges of an order. Names that were checked lately have none.
async fn answers(
    order: &mut Order,
    challenge: AcmeChallenge,
) -> Result<ChallengeAnswers, AcmeError> {
    let mut answers = ChallengeAnswers::default();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let Some(asked) = authorization.challenge(kind(challenge)) else {
            let challenge = word(challenge);
            return Err(AcmeError::NoChallenge { name, challenge });
        };
        let answer = asked.key_authorization();
        answers.add(challenge, (&asked.token, &name), answer.as_str());
    }
    Ok(answers)
}

/// Lets the authority check the names.
async fn set_ready(order: &mut Order, challenge: AcmeChallenge) -> Result<(), AcmeError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Valid
            && let Some(mut asked) = authorization.challenge(kind(challenge))
        {
            asked.set_ready().await?;
        }
    }
    Ok(())
}

/// Finds out which name could not be checked, and why.
async fn refusal(order: &mut Order) -> AcmeError {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = match authorization {
            Ok(authorization) => authorization,
            Err(error) => return error.into(),
        };
        if let Err(error) = authorization.refresh().await {
            return error.into();
        }
        let why = authorization.challenges.iter();
        if let Some(why) = why.filter_map(|challenge| challenge.error.as_ref()).next() {
            let why = format!("the authority could not check this name: {why}");
            let name = authorization.identifier().to_string();
            return AcmeError::Challenge { name, why };
        }
    }
    instant_acme::Error::Str("the authority refuses the order, and does not say why").into()
}

fn kind(challenge: AcmeChallenge) -> ChallengeType {
    match challenge {
        AcmeChallenge::Http01 => ChallengeType::Http01,
        AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

fn word(challenge: AcmeChallenge) -> &'static str {
    match challenge {
        AcmeChallenge::Http01 => "http-01",
        AcmeChallenge::TlsAlpn01 => "tls-alpn-01",
    }
}
