//! TLS for gRPC, with the certificates of callers checked in the handshake. What it is made of can be replaced while
//! connections go on; new handshakes use the new.

use std::{fmt, io, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    caller::TrustDomain,
    identity::{Svid, svid},
    secret::{ExposeSecret, SecretString},
};

/// What TLS is made of, all in PEM (RFC 7468).
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// The certificate chain, the server's own first.
    pub certificate: String,
    /// Its private key.
    pub key: SecretString,
    /// What callers' certificates are checked against, if they may show any.
    pub clients: Option<ClientsConfig>,
}

/// Which certificates callers may show.
#[derive(Clone, Debug)]
pub struct ClientsConfig {
    /// The authorities that sign them.
    pub ca: String,
    /// The trust domain that they must be of.
    pub trust_domain: TrustDomain,
    /// Whether every caller must show one.
    pub required: bool,
}

/// What of it does not work.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A text is not what it should be.
    #[error("{0} cannot be read")]
    Unreadable(&'static str),
    /// The authorities cannot be used.
    #[error("client_ca: {0}")]
    ClientCa(String),
    /// The certificate and the key do not work together.
    #[error("{0}")]
    Unusable(#[from] rustls::Error),
}

/// TLS as it is now.
#[derive(Clone)]
pub struct Tls {
    current: Arc<ArcSwap<rustls::ServerConfig>>,
    trust_domain: Option<TrustDomain>,
}

impl Tls {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if no handshake could succeed with it.
    pub fn new(config: &TlsConfig) -> Result<Self, TlsError> {
        let trust_domain = config.clients.as_ref().map(|clients| clients.trust_domain.clone());
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(build(config)?)), trust_domain })
    }

    /// Uses other certificates and keys from now on. The trust domain stays what it was.
    ///
    /// # Errors
    ///
    /// [`TlsError`]; then everything stays as it is.
    pub fn replace(&self, config: &TlsConfig) -> Result<(), TlsError> {
        self.current.store(Arc::new(build(config)?));
        Ok(())
    }

    /// Makes a handshake. What comes out says whose certificate was shown, if one was.
    pub(super) async fn handshake(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Option<Svid>)> {
        let stream = TlsAcceptor::from(self.current.load_full()).accept(stream).await?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let svid = match (leaf, &self.trust_domain) {
            (Some(leaf), Some(domain)) => Some(svid::read(leaf, domain).map_err(io::Error::other)?),
            (None, _) => None,
            // No certificate was asked for.
            (Some(_), None) => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok((stream, svid))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

fn build(config: &TlsConfig) -> Result<rustls::ServerConfig, TlsError> {
    let chain = certificates("certificate", &config.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(config.key.expose_secret().as_bytes())
        .map_err(|_| TlsError::Unreadable("key"))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match &config.clients {
        Some(clients) => builder.with_client_cert_verifier(verifier(clients)?),
        None => builder.with_no_client_auth(),
    };
    let mut tls = builder.with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would bring back a certificate without a look at its time or at today's authorities.
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    Ok(tls)
}

fn verifier(clients: &ClientsConfig) -> Result<Arc<SvidVerifier>, TlsError> {
    let unusable = |error: &dyn fmt::Display| TlsError::ClientCa(error.to_string());
    let mut roots = RootCertStore::empty();
    for authority in certificates("client_ca", &clients.ca)? {
        roots.add(authority).map_err(|error| unusable(&error))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    let chain = builder.build().map_err(|error| unusable(&error))?;
    Ok(Arc::new(SvidVerifier { chain, trust_domain: clients.trust_domain.clone() }))
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    read.ok().filter(|certificates| !certificates.is_empty()).ok_or(TlsError::Unreadable(what))
}

/// Accepts what the chain of signatures and the rules for X.509-SVIDs both accept. It happens in the handshake, so that
/// whoever shows a wrong certificate gets no further, not even as somebody without one.
#[derive(Debug)]
struct SvidVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: TrustDomain,
}

impl ClientCertVerifier for SvidVerifier {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        match svid::read(leaf, &self.trust_domain) {
            Ok(_) => Ok(verified),
            Err(error) => Err(CertificateError::Other(OtherError(Arc::new(error))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
