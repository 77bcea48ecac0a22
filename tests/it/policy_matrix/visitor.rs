//! Callers of every kind, each with the proof that makes it one, at a house that takes all proofs.

use std::{
    iter,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    os::unix::fs::MetadataExt,
};

use bearerd::{
    caller::{Caller, ServiceAccount, SpiffeId, TokenName, UnixUser},
    identity::{hex, sha256},
    proto::{grant_admin_client::GrantAdminClient, token_service_client::TokenServiceClient},
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{
    identity::{
        authority::Authority,
        kubernetes::{ACCOUNT, ISSUER, Signer, claims, jwks},
    },
    support::house::House,
};

/// Whom a good X.509-SVID of the tests' authority names.
const WORKLOAD: &str = "spiffe://acme/ns/billing/sa/api";

const TOKEN: &str = "bearerd_Zm9yIHRlc3RzIG9ubHksIG5vdCBhIHNlY3JldCE";

const SERVER: &str = "unix_socket = \"{directory}/bearerd.sock\"\n[server.tls]\n\
                      certificate = { file = \"{directory}/tls.crt\" }\nkey = { file = \"{directory}/tls.key\" }\n\
                      client_ca = { file = \"{directory}/ca.crt\" }\ntrust_domain = \"acme\"\n\
                      client_certificates = \"optional\"";

/// The kind of caller after this one: whoever adds one has to put it into the row.
fn next(kind: Option<&Caller>) -> Option<Caller> {
    match kind {
        None => Some(Caller::Local),
        Some(Caller::Local) => Some(Caller::Anonymous),
        Some(Caller::Anonymous) => Some(Caller::Spiffe(SpiffeId::new(WORKLOAD).unwrap())),
        Some(Caller::Spiffe(_)) => Some(Caller::ServiceAccount(ServiceAccount::new(ACCOUNT).unwrap())),
        Some(Caller::ServiceAccount(_)) => Some(Caller::Token(TokenName::new("ci").unwrap())),
        Some(Caller::Token(_)) => Some(Caller::UnixUser(UnixUser::new(own_uid()))),
        Some(Caller::UnixUser(_)) => None,
    }
}

/// One caller of each kind.
pub fn kinds() -> Vec<Caller> {
    iter::successors(next(None), |kind| next(Some(kind))).collect()
}

fn own_uid() -> u32 {
    tempfile::tempdir().unwrap().path().metadata().unwrap().uid()
}

/// An address of this host that is not loopback. Nothing is sent to find it.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("203.0.113.1:9").expect("the host needs a network interface besides loopback");
    socket.local_addr().unwrap().ip()
}

/// Puts a bearer token onto every request, if there is one.
#[derive(Clone)]
pub struct Badge(Option<MetadataValue<Ascii>>);

impl Badge {
    fn of(token: &str) -> Self {
        Self(Some(format!("Bearer {token}").parse().unwrap()))
    }
}

impl Interceptor for Badge {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// A caller at a house of its own.
pub struct Visitor {
    pub tokens: TokenServiceClient<InterceptedService<Channel, Badge>>,
    pub grants: GrantAdminClient<InterceptedService<Channel, Badge>>,
    _house: House,
}

impl Visitor {
    /// This caller, at a house with these lines of configuration.
    pub async fn new(caller: &Caller, lines: &str) -> Self {
        let (authority, signer) = (Authority::new("acme"), Signer::es256("key"));
        let house = open(&authority, &signer, lines).await;
        let (channel, badge) = shown(caller, &house, &authority, &signer);
        Self {
            tokens: TokenServiceClient::with_interceptor(channel.clone(), badge.clone()),
            grants: GrantAdminClient::with_interceptor(channel, badge),
            _house: house,
        }
    }
}

/// A house that is reached over every address and a socket, and takes every proof.
async fn open(authority: &Authority, signer: &Signer, lines: &str) -> House {
    let identity = format!(
        "[identity.kubernetes]\nissuer = \"{ISSUER}\"\naudience = \"bearerd\"\n\
         jwks = {{ file = \"{{directory}}/jwks.json\" }}\n\
         [[identity.token]]\nname = \"ci\"\nsha256 = \"{}\"\n{lines}",
        hex(&sha256(TOKEN))
    );
    let (server, keys) = (authority.server(), jwks(&[signer]));
    let files = [
        ("tls.crt", server.certificate.as_str()),
        ("tls.key", &server.key),
        ("ca.crt", authority.pem()),
        ("jwks.json", &keys),
    ];
    House::served(Ipv4Addr::UNSPECIFIED.into(), SERVER, &files, &identity).await
}

/// The way on which a caller of this kind comes, and what it carries.
fn shown(caller: &Caller, house: &House, authority: &Authority, signer: &Signer) -> (Channel, Badge) {
    let tls = trusting(authority);
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    match caller {
        Caller::Local => (encrypted(here, house, tls), Badge(None)),
        Caller::Anonymous => (encrypted(own_address(), house, tls), Badge(None)),
        Caller::Spiffe(_) => {
            let workload = authority.workload();
            let tls = tls.identity(Identity::from_pem(workload.certificate, workload.key));
            (encrypted(here, house, tls), Badge(None))
        }
        Caller::ServiceAccount(_) => (encrypted(here, house, tls), Badge::of(&signer.sign(&claims()))),
        Caller::Token(_) => (encrypted(here, house, tls), Badge::of(TOKEN)),
        Caller::UnixUser(_) => {
            let socket = format!("unix:{}", house.directory().join("bearerd.sock").display());
            (Endpoint::from_shared(socket).unwrap().connect_lazy(), Badge(None))
        }
    }
}

fn trusting(authority: &Authority) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem())).domain_name("localhost")
}

fn encrypted(address: IpAddr, house: &House, tls: ClientTlsConfig) -> Channel {
    let url = format!("https://{address}:{}", house.port());
    Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap().connect_lazy()
}
