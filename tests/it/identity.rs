//! Who calls, as a caller meets it: every kind of proof over real connections, and every way to lie about it.
//!
//! `case_N_…` is an abuse case of `docs/security.md`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bearerd::{
    app::App,
    config,
    proto::{GetTokenRequest, token_service_client::TokenServiceClient},
};
use tempfile::TempDir;
use tonic::{
    Code, Request, Status,
    metadata::AsciiMetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use self::authority::{Authority, Shown};
use crate::support::house::reason;

pub(crate) mod authority;
mod certificates;
mod connections;
mod floods;
mod headers;
pub(crate) mod kubernetes;
mod reload;
mod review;
mod socket;
mod tokens;

/// bearerd in this process, with one credential, and a directory for the files that its configuration names.
pub struct Door {
    app: App,
    directory: PathBuf,
    _temporary: TempDir,
}

impl Door {
    /// A door for these lines of configuration; `caller` may get the token.
    pub async fn open(caller: &str, lines: &str, files: &[(&str, &str)]) -> Self {
        let temporary = TempDir::with_prefix("bearerd-").unwrap();
        let directory = temporary.path().to_owned();
        files.iter().for_each(|(name, content)| fs::write(directory.join(name), content).unwrap());
        let text = configuration(caller, lines).replace("@DIR@", directory.to_str().unwrap());
        let environment = |name: &str| (name == "S").then(|| "hunter2".to_owned());
        let config = config::parse("test.toml", &text, &environment, Path::new(""))
            .unwrap_or_else(|errors| panic!("{}", errors.render(false)));
        Self { app: App::start(config).await.unwrap(), directory, _temporary: temporary }
    }

    pub fn port(&self) -> u16 {
        self.app.grpc.unwrap().port()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A client of the plaintext listener.
    pub async fn plain(&self) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port())).unwrap();
        Client(endpoint.connect().await.unwrap())
    }

    /// A client over TLS, which connects when it is first asked for something.
    pub fn encrypted(&self, authority: &Authority, shown: Option<&Shown>) -> Client {
        encrypted(self.port(), authority, shown)
    }

    /// All metrics.
    pub async fn metrics(&self) -> String {
        reqwest::get(format!("http://{}/metrics", self.app.admin)).await.unwrap().text().await.unwrap()
    }
}

/// A client over TLS of the bearerd at this port.
pub fn encrypted(port: u16, authority: &Authority, shown: Option<&Shown>) -> Client {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem())).domain_name("localhost");
    let tls = match shown {
        Some(shown) => tls.identity(Identity::from_pem(&shown.certificate, &shown.key)),
        None => tls,
    };
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}")).unwrap().tls_config(tls).unwrap();
    Client(endpoint.connect_lazy())
}

/// A configuration in which one caller may get the token `hunter2` of the credential `key`. Tables in `lines` that are
/// not those of the server come after `[store]`.
pub fn configuration(caller: &str, lines: &str) -> String {
    let (server, others) = lines.split_once("---\n").unwrap_or((lines, ""));
    let listen = if server.contains("listen") { "" } else { "listen = \"127.0.0.1:0\"\n" };
    let admin = if server.contains("admin_listen") { "" } else { "admin_listen = \"127.0.0.1:0\"\n" };
    format!(
        "[server]\n{listen}{admin}{server}\n[store]\nkind = \"embedded\"\npath = \"@DIR@/bearerd.redb\"\n{others}\n\
         [[allow]]\ncaller = \"{caller}\"\ncredentials = [\"key\"]\nactions = [\"get\"]\n\
         [credentials.key]\ngrant = \"static\"\nscheme = \"bearer\"\nsecret = {{ env = \"S\" }}\n"
    )
}

/// Somebody who asks for the token.
#[derive(Clone)]
pub struct Client(Channel);

impl Client {
    pub fn new(channel: Channel) -> Self {
        Self(channel)
    }

    pub async fn get(&self) -> Result<(), Status> {
        self.get_with(&[]).await
    }

    /// The same with metadata.
    pub async fn get_with(&self, headers: &[(&'static str, &str)]) -> Result<(), Status> {
        let mut request = Request::new(GetTokenRequest { credential: "key".to_owned(), ..GetTokenRequest::default() });
        for (name, value) in headers {
            request.metadata_mut().append(*name, AsciiMetadataValue::try_from(*value).unwrap());
        }
        let token = TokenServiceClient::new(self.0.clone()).get_token(request).await?.into_inner().token.unwrap();
        assert_eq!(token.access_token, "hunter2");
        Ok(())
    }

    /// The same with a bearer token.
    pub async fn get_as(&self, token: &str) -> Result<(), Status> {
        self.get_with(&[("authorization", &format!("Bearer {token}"))]).await
    }
}

/// A request whose proof does not hold: told so, and nothing of why.
#[track_caller]
pub fn is_unproven(result: Result<(), Status>, what: &str) {
    let status = result.expect_err(what);
    assert_eq!(reason(&status), (Code::Unauthenticated, "CALLER_UNAUTHENTICATED".to_owned(), None), "{what}");
    assert_eq!(status.message(), "invalid or expired caller credentials", "{what}");
}

/// A request of a caller who is somebody, and not the one who may.
#[track_caller]
pub fn is_another(result: Result<(), Status>, what: &str) {
    let status = result.expect_err(what);
    assert_eq!(reason(&status), (Code::PermissionDenied, "CALLER_NOT_ALLOWED".to_owned(), None), "{what}");
}
