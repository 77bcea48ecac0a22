//! Who may vouch for servers: the authorities of the operating system.
//!
//! They stand in hundreds of files, so they are read once for all clients, and not before a server shows its certificate.

use std::sync::{Arc, LazyLock, OnceLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use rustls_platform_verifier::Verifier;

/// The protocols that are offered, the better one first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

static OF_SYSTEM: LazyLock<Arc<OfSystem>> = LazyLock::new(|| {
    let provider = Arc::new(aws_lc_rs::default_provider());
    Arc::new(OfSystem { provider, verifier: OnceLock::new() })
});

/// TLS with servers for which the system's authorities vouch.
///
/// # Errors
///
/// [`Error`], if the cryptography knows no version of TLS.
pub(super) fn trusted_by_system() -> Result<ClientConfig, Error> {
    let authorities = Arc::clone(&OF_SYSTEM);
    let config = ClientConfig::builder_with_provider(Arc::clone(&authorities.provider));
    let verified =
        config.with_safe_default_protocol_versions()?.dangerous().with_custom_certificate_verifier(authorities);
    let mut config = verified.with_no_client_auth();
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

/// The operating system's way to check a certificate, once it was needed.
#[derive(Debug)]
struct OfSystem {
    provider: Arc<CryptoProvider>,
    verifier: OnceLock<Verifier>,
}

impl OfSystem {
    /// What could not be read is tried again the next time.
    fn verifier(&self) -> Result<&Verifier, Error> {
        if let Some(verifier) = self.verifier.get() {
            return Ok(verifier);
        }
        let verifier = Verifier::new(Arc::clone(&self.provider))?;
        Ok(self.verifier.get_or_init(|| verifier))
    }
}

impl ServerCertVerifier for OfSystem {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
