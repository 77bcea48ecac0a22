//! `[server]`: where bearerd listens and what it takes from a connection.

use std::{net::SocketAddr, time::Duration};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{
    key::Key,
    reader::{Reader, Value},
    value::{Wrong, boolean, bytes, parsed, some_time},
};
use crate::secret::{ExposeSecret, SecretString};

pub(super) const KEYS: &[Key] = &[
    Key::new("listen"),
    Key::new("admin_listen"),
    Key::hidden("tls"),
    Key::new("plaintext"),
    Key::new("reflection"),
    Key::new("shutdown_timeout"),
    Key::new("max_message_bytes"),
];

pub(super) const TLS_KEYS: &[Key] = &[Key::hidden("certificate"), Key::hidden("key")];

/// The listeners.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where gRPC is served.
    pub listen: SocketAddr,
    /// Where HTTP is served for probes and metrics.
    pub admin_listen: SocketAddr,
    /// The server's certificate, if connections are encrypted here.
    pub tls: Option<ServerTls>,
    /// Whether another listener than loopback may go without TLS, because something in front of it encrypts.
    pub plaintext: bool,
    /// Whether the gRPC reflection service is offered.
    pub reflection: bool,
    /// How long running requests may take to end after the signal to stop.
    pub shutdown_timeout: Duration,
    /// The largest gRPC message that is taken or sent, in bytes.
    pub max_message_bytes: usize,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The certificate chain in PEM (RFC 7468), the server's own first.
    pub certificate: String,
    /// The private key in PEM.
    pub key: SecretString,
}

/// Reads the table.
pub(super) fn read(reader: &Reader<'_>) -> Server {
    let server = Server {
        listen: reader.optional("listen", address).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7443))),
        admin_listen: reader.optional("admin_listen", address).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7480))),
        tls: reader.optional_table("tls", TLS_KEYS).and_then(|reader| tls(&reader)),
        plaintext: reader.optional("plaintext", boolean).unwrap_or(false),
        reflection: reader.optional("reflection", boolean).unwrap_or(true),
        shutdown_timeout: reader.optional("shutdown_timeout", some_time).unwrap_or(Duration::from_secs(20)),
        max_message_bytes: reader
            .optional("max_message_bytes", bytes(4096..=256 * 1024 * 1024))
            .unwrap_or(4 * 1024 * 1024),
    };
    fit(reader, &server);
    server
}

fn fit(reader: &Reader<'_>, server: &Server) {
    let encrypted = reader.value("tls").is_some();
    if encrypted && server.plaintext {
        reader.misfit("plaintext", "does not go with [server.tls]", "leave one of them out");
    }
    if !encrypted && !server.plaintext && !server.listen.ip().is_loopback() {
        reader.misfit(
            "listen",
            "is not a loopback address and would serve tokens unencrypted",
            "add [server.tls], or plaintext = true if something in front of it encrypts",
        );
    }
    if server.listen == server.admin_listen && server.listen.port() != 0 {
        reader.misfit("admin_listen", "is the same address as listen", "write another port");
    }
}

fn address(value: &Value<'_>) -> Result<SocketAddr, Wrong> {
    let right = "write an IP address and a port, for example \"127.0.0.1:7443\" or \"[::]:7443\"";
    parsed(value, "is not an address to listen on", |text| text.parse().map_err(|_| right))
}

fn tls(reader: &Reader<'_>) -> Option<ServerTls> {
    let certificate = reader.required_secret("certificate");
    let key = reader.required_secret("key");
    let (certificate, key) = (certificate?, key?);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.expose_secret().as_bytes()).collect();
    if chain.is_ok_and(|chain| !chain.is_empty()) {
        let key_read = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes());
        if key_read.is_ok() {
            return Some(ServerTls { certificate: certificate.expose_secret().to_owned(), key });
        }
        pem_wrong(reader, "key", "refers to no private key", "it must be PEM: -----BEGIN PRIVATE KEY-----");
    } else {
        pem_wrong(reader, "certificate", "refers to no certificate", "it must be PEM: -----BEGIN CERTIFICATE-----");
    }
    None
}

fn pem_wrong(reader: &Reader<'_>, key: &str, what: &str, right: &str) {
    if let Some(value) = reader.value(key) {
        reader.wrong(key, Wrong::new(value, what, right));
    }
}
