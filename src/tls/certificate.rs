//! What is read from a certificate besides its key.

use x509_cert::certificate::{CertificateInner, Raw, Version};
use x509_cert::der::{Decode, Error};
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, BasicConstraints};
use x509_cert::time::Time;

/// Facts of one certificate.
pub struct CertificateFacts {
    /// When it begins to be valid, in Unix seconds.
    pub not_before_s: i64,
    /// When it expires, in Unix seconds.
    pub not_after_s: i64,
    /// Whether it may be that of an authority, which signs others.
    pub may_sign: bool,
}

impl CertificateFacts {
    /// Reads a certificate in DER.
    pub fn read(der: &[u8]) -> Result<CertificateFacts, Error> {
        // Serial numbers of private authorities break the rules of RFC 5280 often: they are not
        // checked.
        let certificate = CertificateInner::<Raw>::from_der(der)?;
        let body = certificate.tbs_certificate();
        let constraints = body.get_extension::<BasicConstraints>()?;
        Ok(CertificateFacts {
            not_before_s: unix_s(body.validity().not_before),
            not_after_s: unix_s(body.validity().not_after),
            // Before version 3 no certificate could state that it is an authority's.
            may_sign: body.version() != Version::V3 || constraints.is_some_and(|(_, it)| it.ca),
        })
    }
}

/// Returns the identifier of the authority's key in a certificate in DER, and the bytes of its serial
/// number.
pub fn identifier(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let certificate = CertificateInner::<Raw>::from_der(der).ok()?;
    let body = certificate.tbs_certificate();
    let authority = body.get_extension::<AuthorityKeyIdentifier>().ok()??.1;
    let key = authority.key_identifier?.into_bytes();
    Some((key.into_vec(), body.serial_number().as_bytes().to_vec()))
}

fn unix_s(time: Time) -> i64 {
    time.to_unix_duration().as_secs() as i64
}
