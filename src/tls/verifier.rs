//! Verifies the certificate of a server.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use std::sync::Arc;

/// A certificate that is accepted when a server presents exactly it.
#[derive(Debug)]
pub(super) struct Named {
    /// The whole certificate.
    pub certificate: CertificateDer<'static>,
    /// Start of its validity, in Unix seconds.
    pub not_before: i64,
    /// End of its validity, in Unix seconds.
    pub not_after: i64,
    /// Whether it is accepted whatever the server is called.
    pub has_any_name: bool,
}

/// Accepts a certificate that the configuration names, or one with a chain to a root.
///
/// webpki does not accept an authority's certificate as a server's (`CaUsedAsEndEntity`), but
/// `openssl req -x509` makes such certificates. Adding a self-signed certificate to the roots
/// instead would make it an authority. Name, validity and the handshake's signature are checked
/// in both cases.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Accepted when a server presents exactly one of them.
    pub named: Vec<Named>,
    /// Verifies chains; `None` without an authority.
    pub chains: Option<Arc<WebPkiServerVerifier>>,
    /// The accepted signature algorithms.
    pub algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(named) = self.named.iter().find(|it| it.certificate == *shown) {
            // This is later than any certificate can express.
            let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            if seconds < named.not_before {
                return Err(CertificateError::NotValidYet.into());
            }
            if seconds > named.not_after {
                return Err(CertificateError::Expired.into());
            }
            if !named.has_any_name {
                verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match &self.chains {
            Some(chains) => chains.verify_server_cert(shown, intermediates, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, shown, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, shown, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NoTrust, Trust};
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use std::time::Duration;

    const NAME: &str = "shop.test";
    /// Between the two years of every certificate below.
    const NOW: u64 = 1_750_000_000;

    fn params(is_ca: IsCa) -> CertificateParams {
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        params.is_ca = is_ca;
        params.not_before = rcgen::date_time_ymd(2025, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 1);
        params.distinguished_name.push(DnType::CommonName, NAME);
        params
    }

    fn authority() -> IsCa {
        IsCa::Ca(BasicConstraints::Unconstrained)
    }

    fn alone(is_ca: IsCa) -> rcgen::Certificate {
        params(is_ca)
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
    }

    /// Whether a server that shows `shown` is believed where `pem` is trusted.
    fn verify(pem: &str, shown: &CertificateDer<'_>, name: &str, now: u64) -> Result<(), Error> {
        let verifier = Trust::pem(pem.as_bytes()).unwrap().verifier().unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let verified = verifier.verify_server_cert(shown, &[], &name, &[], now);
        verified.map(drop)
    }

    #[test]
    fn self_signed_certificate_is_accepted_as_itself_only() {
        for kind in [authority, || IsCa::NoCa, || IsCa::ExplicitNoCa] {
            let named = alone(kind());
            let ask = |name, now| verify(&named.pem(), named.der(), name, now);
            assert_eq!(ask(NAME, NOW), Ok(()), "{:?}", kind());
            assert!(matches!(
                ask("other.test", NOW).unwrap_err(),
                Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })
            ));
            let late = ask(NAME, NOW + 31_536_000).unwrap_err();
            assert_eq!(late, CertificateError::Expired.into());
            let early = ask(NAME, NOW - 31_536_000).unwrap_err();
            assert_eq!(early, CertificateError::NotValidYet.into());
            // The same in every word, by another key.
            for other in [authority(), IsCa::NoCa] {
                let other = alone(other);
                assert!(verify(&named.pem(), other.der(), NAME, NOW).is_err());
            }
        }
    }

    #[test]
    fn time_bounds_are_inclusive() {
        let named = alone(authority());
        let ask = |now| verify(&named.pem(), named.der(), NAME, now).is_ok();
        // 2025-01-01 and 2026-01-01, both at midnight.
        assert_eq!([1_735_689_599, 1_735_689_600].map(ask), [false, true]);
        assert_eq!([1_767_225_600, 1_767_225_601].map(ask), [true, false]);
    }

    #[test]
    fn only_an_authority_vouches_for_others() {
        let signed = |is_ca: IsCa| {
            let key = KeyPair::generate().unwrap();
            let signer = params(is_ca);
            let pem = signer.self_signed(&key).unwrap().pem();
            let own = KeyPair::generate().unwrap();
            let issuer = Issuer::new(signer, key);
            let mut leaf = params(IsCa::NoCa);
            leaf.distinguished_name.push(DnType::CommonName, "leaf");
            (pem, leaf.signed_by(&own, &issuer).unwrap())
        };
        let (pem, leaf) = signed(authority());
        assert_eq!(verify(&pem, leaf.der(), NAME, NOW), Ok(()));
        assert!(verify(&pem, leaf.der(), "other.test", NOW).is_err());
        for kind in [IsCa::NoCa, IsCa::ExplicitNoCa] {
            let (pem, leaf) = signed(kind);
            let refused = verify(&pem, leaf.der(), NAME, NOW).unwrap_err();
            assert_eq!(refused, CertificateError::UnknownIssuer.into());
        }
        // One that somebody else signed is accepted as itself, too.
        let (_, leaf) = signed(authority());
        assert_eq!(verify(&leaf.pem(), leaf.der(), NAME, NOW), Ok(()));
    }

    #[test]
    fn several_certificates_may_be_named() {
        let (one, two) = (alone(authority()), alone(IsCa::NoCa));
        let both = one.pem() + &two.pem();
        for shown in [&one, &two] {
            assert_eq!(verify(&both, shown.der(), NAME, NOW), Ok(()));
        }
    }

    #[test]
    fn files_without_a_certificate_are_refused() {
        let key = KeyPair::generate().unwrap().serialize_pem();
        let cut = alone(IsCa::NoCa).pem().replacen("END CERT", "", 1);
        for pem in ["", "no PEM", &key, &cut] {
            assert_eq!(
                Trust::pem(pem.as_bytes()).unwrap_err(),
                NoTrust::NoCertificate,
                "{pem}"
            );
        }
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let refused = Trust::pem(nonsense.as_bytes()).unwrap_err();
        assert!(matches!(refused, NoTrust::Unusable(_)), "{refused}");
    }
}
