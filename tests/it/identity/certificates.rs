//! Mutual TLS: which certificates make somebody a caller, and what becomes of all others.

use std::{sync::Arc, time::Duration};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, date_time_ymd};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Door,
    authority::{Authority, Shown, ending_after, uri, workload},
    connections::{GREETING, says_goodbye},
    is_another, is_unproven,
};
const API: &str = "spiffe://acme/ns/billing/sa/api";

const REQUIRED: &str = "[server.tls]\ncertificate = { file = \"@DIR@/tls.crt\" }\nkey = { file = \"@DIR@/tls.key\" }\n\
                        client_ca = { file = \"@DIR@/ca.crt\" }\ntrust_domain = \"acme\"\n";

const OPTIONAL: &str = "client_certificates = \"optional\"\n";

async fn door(caller: &str, lines: &str, authority: &Authority) -> Door {
    let server = authority.server();
    let files = [("tls.crt", server.certificate.as_str()), ("tls.key", &server.key), ("ca.crt", authority.pem())];
    Door::open(caller, &format!("{REQUIRED}{lines}"), &files).await
}

#[tokio::test]
async fn a_workload_is_called_by_its_spiffe_id() {
    let authority = Authority::new("acme");
    for lines in ["", OPTIONAL] {
        let door = door(API, lines, &authority).await;
        door.encrypted(&authority, Some(&authority.workload())).get().await.unwrap();
        let mut other = workload();
        other.subject_alt_names = vec![uri("spiffe://acme/ns/billing/sa/batch")];
        is_another(door.encrypted(&authority, Some(&authority.sign(&other))).get().await, "another workload");
    }
}

#[tokio::test]
async fn without_a_certificate_a_caller_is_whoever_its_connection_or_token_says() {
    let authority = Authority::new("acme");
    let door = door("local", OPTIONAL, &authority).await;
    door.encrypted(&authority, None).get().await.unwrap();
    let workload = authority.workload();
    let client = door.encrypted(&authority, Some(&workload));
    is_another(client.get().await, "a workload is not local");
    is_unproven(client.get_as("made-up").await, "a good certificate does not make up for a bad token");
}

type Spoil = fn(&mut CertificateParams);

/// Each is one change to a good certificate.
const WRONG: [(&str, Spoil); 15] = [
    ("expired", |p| p.not_after = date_time_ymd(2020, 1, 1)),
    ("not valid yet", |p| p.not_before = date_time_ymd(2090, 1, 1)),
    ("for servers only", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
    ("no names", |p| p.subject_alt_names.clear()),
    ("the ID in the common name", |p| {
        p.subject_alt_names.clear();
        p.distinguished_name.push(DnType::CommonName, API);
    }),
    ("the ID in a DNS name", |p| p.subject_alt_names = vec![SanType::DnsName("billing.acme".try_into().unwrap())]),
    ("two URIs", |p| p.subject_alt_names.push(uri("https://acme/"))),
    ("two SPIFFE IDs", |p| p.subject_alt_names.push(uri("spiffe://acme/ns/billing/sa/batch"))),
    ("another trust domain", |p| p.subject_alt_names = vec![uri("spiffe://acme.evil/ns/billing/sa/api")]),
    ("the trust domain itself", |p| p.subject_alt_names = vec![uri("spiffe://acme")]),
    ("another scheme", |p| p.subject_alt_names = vec![uri("https://acme/ns/billing/sa/api")]),
    ("a path that climbs", |p| p.subject_alt_names = vec![uri("spiffe://acme/ns/x/../billing/sa/api")]),
    ("an authority", |p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
    ("may sign certificates", |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)),
    ("not for signatures", |p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
];

#[tokio::test]
async fn case_22_and_23_every_other_certificate_ends_in_the_handshake() {
    let authority = Authority::new("acme");
    let elsewhere = Authority::new("elsewhere");
    for lines in ["", OPTIONAL] {
        // Whoever got in without its certificate would be local, and allowed.
        let door = door("*", lines, &authority).await;
        let mut all: Vec<(&str, Shown)> = WRONG
            .map(|(name, spoil)| {
                let mut params = workload();
                spoil(&mut params);
                (name, authority.sign(&params))
            })
            .into();
        all.push(("of another authority", elsewhere.workload()));
        all.push(("the authority's own", authority.itself()));
        for (name, shown) in &all {
            let status = door.encrypted(&authority, Some(shown)).get().await.expect_err(name);
            assert!(
                std::error::Error::source(&status).is_some(),
                "{name}: no answer came, not even a refusal: {status:?}"
            );
        }
        let nobody = door.encrypted(&authority, None).get().await;
        assert_eq!(nobody.is_ok(), lines == OPTIONAL, "{nobody:?}");
        let refused = all.len() + usize::from(lines.is_empty());
        let metrics = door.metrics().await;
        let count = metrics.split("connections_refused_total{cause=\"handshake\"} ").nth(1).unwrap();
        // A client may try more than once.
        assert!(count.lines().next().unwrap().parse::<usize>().unwrap() >= refused, "{metrics}");
    }
}

/// A client that may resume its sessions, and speaks HTTP/2 as far as a greeting.
async fn greet(door: &Door, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", door.port())).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await.unwrap();
    stream.write_all(GREETING).await.unwrap();
    stream
}

fn client_config(authority: &Authority, shown: &Shown) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let chain = CertificateDer::pem_slice_iter(shown.certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

#[tokio::test]
async fn case_28_a_connection_ends_with_its_certificate() {
    let authority = Authority::new("acme");
    let door = door(API, "", &authority).await;
    let brief = authority.sign(&ending_after(Duration::from_secs(3), workload()));
    assert!(says_goodbye(greet(&door, &client_config(&authority, &brief)).await).await);
}

#[tokio::test]
async fn case_28_no_session_is_resumed() {
    let authority = Authority::new("acme");
    let door = door(API, "", &authority).await;
    let config = client_config(&authority, &authority.workload());
    for _ in 0..3 {
        let mut stream = greet(&door, &config).await;
        // The server's first frame comes after all tickets that it may have sent.
        stream.read_u8().await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}
