//! An authority, and what it signed for a server and for one workload, in files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, string::Ia5String,
};

use crate::error::{Error, cannot, failed};

/// The trust domain of the workload.
pub const TRUST_DOMAIN: &str = "example.org";

/// The workload's SPIFFE ID.
pub const WORKLOAD: &str = "spiffe://example.org/ns/billing/sa/api";

/// The files, all of them PEM.
#[derive(Clone, Debug)]
pub struct Certificates(PathBuf);

impl Certificates {
    /// Makes them in a directory.
    pub fn make(directory: &Path) -> Result<Self, Error> {
        let written = fs::create_dir_all(directory);
        written.map_err(cannot("make a directory for certificates"))?;
        let certificates = Self(directory.to_owned());
        certificates.sign().map_err(|why| failed(format!("cannot make certificates: {why}")))?;
        Ok(certificates)
    }

    /// Those that another process made.
    pub fn at(directory: &str) -> Self {
        Self(directory.into())
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// What stands in one of them: `ca`, `server`, `server.key`, `client` or `client.key`.
    pub fn read(&self, name: &str) -> Result<String, Error> {
        fs::read_to_string(self.0.join(name)).map_err(cannot(format!("read the certificate {name}")))
    }

    fn sign(&self) -> Result<(), Box<dyn std::error::Error>> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(DnType::CommonName, "bench");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        fs::write(self.0.join("ca"), authority.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(authority, key);

        let mut workload = CertificateParams::new(Vec::new())?;
        workload.subject_alt_names = vec![SanType::URI(Ia5String::try_from(WORKLOAD)?)];
        workload.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        workload.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let server = CertificateParams::new(vec!["localhost".to_owned()])?;
        for (name, params) in [("server", server), ("client", workload)] {
            let key = KeyPair::generate()?;
            fs::write(self.0.join(name), params.signed_by(&key, &issuer)?.pem())?;
            fs::write(self.0.join(format!("{name}.key")), key.serialize_pem())?;
        }
        Ok(())
    }
}
