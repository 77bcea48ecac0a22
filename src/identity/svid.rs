//! X.509-SVIDs: certificates whose one URI says which workload they belong to. Neither a common name nor a DNS name
//! counts for anything.
//!
//! Whether a certificate is signed by a trusted authority and within its time was decided before, in the handshake.

use std::time::{Duration, SystemTime};

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::caller::{SpiffeId, TrustDomain};

/// A workload and how long its certificate says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Svid {
    /// The workload.
    pub id: SpiffeId,
    /// The last moment of the certificate (`notAfter`, RFC 5280 §4.1.2.5).
    pub not_after: SystemTime,
}

/// Why a certificate is no X.509-SVID of the trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Malformed,
    /// It has no URI or several (X509-SVID §2).
    #[error("the certificate does not have exactly one URI")]
    NotOneUri,
    /// Its URI is no workload's SPIFFE ID (X509-SVID §4.1).
    #[error("the certificate's URI is no workload's SPIFFE ID")]
    NotSpiffe,
    /// It belongs to another trust domain.
    #[error("the certificate is of another trust domain")]
    OtherTrustDomain,
    /// It may sign certificates or revocation lists (X509-SVID §4.1, §4.3, §5.2).
    #[error("the certificate is one of an authority")]
    Authority,
    /// It is not for signatures, or not for clients (X509-SVID §4.3, §4.4).
    #[error("the certificate is not meant to authenticate a client")]
    Usage,
}

/// Reads a leaf certificate (DER) by the rules of the X509-SVID specification.
///
/// # Errors
///
/// [`SvidError`] for every certificate that is none, or not of this trust domain.
pub fn read(der: &[u8], domain: &TrustDomain) -> Result<Svid, SvidError> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| SvidError::Malformed)?;
    if !rest.is_empty() {
        return Err(SvidError::Malformed);
    }
    may_authenticate(&certificate)?;
    let id = SpiffeId::new(only_uri(&certificate)?).map_err(|_| SvidError::NotSpiffe)?;
    if !id.is_of(domain) {
        return Err(SvidError::OtherTrustDomain);
    }
    let not_after = u64::try_from(certificate.validity().not_after.timestamp()).map_err(|_| SvidError::Malformed)?;
    Ok(Svid { id, not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(not_after) })
}

/// A reader that took the wrong one of two extensions of a kind would be fooled, so asking for one fails on several.
fn may_authenticate(certificate: &X509Certificate<'_>) -> Result<(), SvidError> {
    let constraints = certificate.basic_constraints().map_err(|_| SvidError::Malformed)?;
    if constraints.is_some_and(|extension| extension.value.ca) {
        return Err(SvidError::Authority);
    }
    let usage = certificate.key_usage().map_err(|_| SvidError::Malformed)?.ok_or(SvidError::Usage)?.value;
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(SvidError::Authority);
    }
    let extended = certificate.extended_key_usage().map_err(|_| SvidError::Malformed)?;
    let for_clients = extended.is_none_or(|extension| extension.value.client_auth);
    if usage.digital_signature() && for_clients { Ok(()) } else { Err(SvidError::Usage) }
}

fn only_uri<'c>(certificate: &'c X509Certificate<'_>) -> Result<&'c str, SvidError> {
    let names =
        certificate.subject_alternative_name().map_err(|_| SvidError::Malformed)?.ok_or(SvidError::NotOneUri)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        // It may have been meant as a URI, and whoever reads less strictly would then see two.
        GeneralName::Invalid(..) => Some(""),
        GeneralName::OtherName(..)
        | GeneralName::RFC822Name(_)
        | GeneralName::DNSName(_)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::IPAddress(_)
        | GeneralName::RegisteredID(_) => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri),
        (None | Some(_), _) => Err(SvidError::NotOneUri),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
        string::Ia5String,
    };

    use super::*;

    fn uri(text: &str) -> SanType {
        SanType::URI(Ia5String::try_from(text).unwrap())
    }

    fn good() -> CertificateParams {
        let mut params = CertificateParams::new(vec!["spiffe.acme".to_owned()]).unwrap();
        params.subject_alt_names.push(uri("spiffe://acme/ns/billing/sa/api"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params
    }

    fn read_made(params: CertificateParams) -> Result<Svid, SvidError> {
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        read(certificate.der(), &TrustDomain::new("acme").unwrap())
    }

    #[test]
    fn a_workloads_certificate_names_it_and_its_end() {
        let mut params = good();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let svid = read_made(params).unwrap();
        assert_eq!(svid.id.as_str(), "spiffe://acme/ns/billing/sa/api");
        assert_eq!(svid.not_after, SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000));
        assert!(read_made(good()).is_ok(), "extended usages may be absent");
    }

    #[test]
    fn every_other_certificate_is_refused() {
        type Spoil = fn(&mut CertificateParams);
        let cases: [(&str, Spoil, SvidError); 12] = [
            ("no names", |p| p.subject_alt_names.clear(), SvidError::NotOneUri),
            ("a DNS name alone", |p| p.subject_alt_names.truncate(1), SvidError::NotOneUri),
            ("two URIs", |p| p.subject_alt_names.push(uri("https://a.example/")), SvidError::NotOneUri),
            ("the same twice", |p| p.subject_alt_names.push(uri("spiffe://acme/a")), SvidError::NotOneUri),
            ("another scheme", |p| p.subject_alt_names = vec![uri("https://acme/a")], SvidError::NotSpiffe),
            ("no path", |p| p.subject_alt_names = vec![uri("spiffe://acme")], SvidError::NotSpiffe),
            ("a climbing path", |p| p.subject_alt_names = vec![uri("spiffe://acme/a/../b")], SvidError::NotSpiffe),
            ("other domain", |p| p.subject_alt_names = vec![uri("spiffe://acme.evil/a")], SvidError::OtherTrustDomain),
            ("CA", |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), SvidError::Authority),
            ("signs", |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign), SvidError::Authority),
            ("no usage", |p| p.key_usages.clear(), SvidError::Usage),
            ("servers only", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], SvidError::Usage),
        ];
        for (name, spoil, error) in cases {
            let mut params = good();
            spoil(&mut params);
            assert_eq!(read_made(params), Err(error), "{name}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let domain = TrustDomain::new("acme").unwrap();
        let der = good().self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        assert_eq!(read(&[], &domain), Err(SvidError::Malformed));
        assert_eq!(read(&der[..der.len() / 2], &domain), Err(SvidError::Malformed));
        assert_eq!(read(&[der.as_slice(), b"x"].concat(), &domain), Err(SvidError::Malformed));
    }
}
