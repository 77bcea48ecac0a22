//! `[server.tls]`: the server's certificate, and the certificates that callers must or may show.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{
    key::Key,
    reader::Reader,
    secret::Source,
    value::{Wrong, parsed},
};
use crate::{caller::TrustDomain, secret::ExposeSecret};

pub(super) const KEYS: &[Key] = &[
    Key::hidden("certificate"),
    Key::hidden("key"),
    Key::hidden("client_ca"),
    Key::new("trust_domain"),
    Key::new("client_certificates"),
];

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The certificate chain in PEM (RFC 7468), the server's own first.
    pub certificate: Source,
    /// The private key in PEM.
    pub key: Source,
    /// What callers' certificates are checked against, if they may show any.
    pub clients: Option<ClientCertificates>,
}

/// Which certificates callers may show.
#[derive(Clone, Debug)]
pub struct ClientCertificates {
    /// The authorities that sign them, in PEM.
    pub ca: Source,
    /// The trust domain of the SPIFFE IDs in them.
    pub trust_domain: TrustDomain,
    /// Whether every caller must show one.
    pub required: bool,
}

/// Reads the table; `None` if no TLS can be made of it.
pub(super) fn read(reader: &Reader<'_>) -> Option<ServerTls> {
    let certificate = reader.required_source("certificate");
    let key = reader.required_source("key");
    let clients = clients(reader);
    let (certificate, key) = (certificate?, key?);
    if !holds_certificates(&certificate) {
        pem_wrong(reader, "certificate", "refers to no certificate", "it must be PEM: -----BEGIN CERTIFICATE-----");
        return None;
    }
    if PrivateKeyDer::from_pem_slice(key.content().expose_secret().as_bytes()).is_err() {
        pem_wrong(reader, "key", "refers to no private key", "it must be PEM: -----BEGIN PRIVATE KEY-----");
        return None;
    }
    Some(ServerTls { certificate, key, clients })
}

fn clients(reader: &Reader<'_>) -> Option<ClientCertificates> {
    let ca = reader.source("client_ca");
    let trust_domain =
        reader.optional("trust_domain", |value| parsed(value, "is not a trust domain", TrustDomain::new));
    let required = reader.choose("client_certificates", &[("required", true), ("optional", false)], Some("required"));
    if reader.value("client_ca").is_none() {
        for key in ["trust_domain", "client_certificates"] {
            if reader.value(key).is_some() {
                reader.misfit(key, "is there without client_ca", "add client_ca = { file = \"/path\" }");
            }
        }
        return None;
    }
    if reader.value("trust_domain").is_none() {
        reader.missing("trust_domain", "\"example.org\", the trust domain of the SPIFFE IDs in the certificates");
    }
    let ca = ca?;
    if !holds_certificates(&ca) {
        pem_wrong(reader, "client_ca", "refers to no certificate", "it must be PEM: -----BEGIN CERTIFICATE-----");
        return None;
    }
    Some(ClientCertificates { ca, trust_domain: trust_domain?, required: required? })
}

/// Whether a text is one certificate or several, in PEM.
pub(super) fn holds_certificates(source: &Source) -> bool {
    let pem = source.content().expose_secret().as_bytes();
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    chain.is_ok_and(|chain| !chain.is_empty())
}

/// Reports a text that is not what its setting says.
pub(super) fn pem_wrong(reader: &Reader<'_>, key: &str, what: &str, right: &str) {
    if let Some(value) = reader.value(key) {
        reader.wrong(key, Wrong::new(value, what, right));
    }
}
