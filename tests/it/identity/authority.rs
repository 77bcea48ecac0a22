//! An authority that signs certificates, good ones and bad ones.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd, string::Ia5String,
};

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    own: Shown,
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Shown {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// An authority of this name, with a SPIFFE ID of its own, as SPIRE's have.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = vec![uri("spiffe://acme/authority")];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let own = Shown { certificate, key: key.serialize_pem() };
        Self { issuer: Issuer::new(params, key), own }
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.own.certificate
    }

    /// Its certificate and key, as somebody shows them who pretends to be a workload.
    pub fn itself(&self) -> Shown {
        self.own.clone()
    }

    /// Signs.
    pub fn sign(&self, params: &CertificateParams) -> Shown {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Shown { certificate, key: key.serialize_pem() }
    }

    /// A certificate for a server at localhost.
    pub fn server(&self) -> Shown {
        self.sign(&CertificateParams::new(vec!["localhost".to_owned()]).unwrap())
    }

    /// A good X.509-SVID.
    pub fn workload(&self) -> Shown {
        self.sign(&workload())
    }
}

/// What stands in a good X.509-SVID of `spiffe://acme/ns/billing/sa/api`.
pub fn workload() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![uri("spiffe://acme/ns/billing/sa/api")];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// A URI among the names of a certificate.
pub fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

/// The same certificate, but only good for this long from now.
pub fn ending_after(span: Duration, mut params: CertificateParams) -> CertificateParams {
    params.not_after = date_time_ymd(1970, 1, 1) + SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + span;
    params
}
