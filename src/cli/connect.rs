//! The way to a running bearerd: where it is, how it is trusted, and what its refusals mean for a person.

use std::{
    error::Error,
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use clap::Args;
use http::Uri;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_types::StatusExt;

use super::output::{Exit, Failure};
use crate::{
    proto::{grant_admin_client::GrantAdminClient, token_service_client::TokenServiceClient},
    secret::{ExposeSecret, SecretString},
};

/// The longest deadline: a person at a shell waits no longer, and every value fits the `grpc-timeout` header.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// How to reach bearerd.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Where bearerd listens: http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:/PATH
    #[arg(long, env = "BEARERD_ADDRESS", default_value = "http://127.0.0.1:7443", value_name = "ADDRESS")]
    address: Address,
    /// The certificates to trust for https, as PEM
    #[arg(long, env = "BEARERD_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate to show, with its chain, as PEM
    #[arg(long, env = "BEARERD_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The private key of --cert, as PEM
    #[arg(long, env = "BEARERD_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The file with the token to show; without it, the variable BEARERD_TOKEN
    #[arg(long, env = "BEARERD_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The longest wait for an answer
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = timeout)]
    timeout: Duration,
}

impl Connection {
    /// Connects, for the rpcs about tokens.
    pub async fn tokens(&self) -> Result<TokenServiceClient<Channel>, Failure> {
        // The service already bounds what it reads from an upstream, so a second bound here would only get in the way.
        Ok(TokenServiceClient::new(self.channel().await?).max_decoding_message_size(usize::MAX))
    }

    /// Connects, for the rpcs about grants.
    pub async fn grants(&self) -> Result<GrantAdminClient<Channel>, Failure> {
        Ok(GrantAdminClient::new(self.channel().await?))
    }

    /// A request with the deadline and the token.
    pub fn request<T>(&self, message: T) -> Result<Request<T>, Failure> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        if let Some(token) = self.token()? {
            request.metadata_mut().insert("authorization", authorization(&token)?);
        }
        Ok(request)
    }

    fn token(&self) -> Result<Option<SecretString>, Failure> {
        let Some(file) = &self.token_file else {
            let variable = std::env::var("BEARERD_TOKEN").ok().filter(|token| !token.is_empty());
            return Ok(variable.map(SecretString::from));
        };
        let text = read("--token-file", file)?;
        let text = std::str::from_utf8(&text).map_err(|_| unusable("--token-file", file, "it is no text"))?;
        Ok(Some(SecretString::from(text.trim_end())))
    }

    async fn channel(&self) -> Result<Channel, Failure> {
        self.endpoint()?.connect().await.map_err(|error| {
            let address = &self.address;
            Failure::new(Exit::Unavailable, format!("cannot reach bearerd at {address}: {}", root_cause(&error)))
                .hint(format!("is `bearerd serve` running at {address}?"))
        })
    }

    fn endpoint(&self) -> Result<Endpoint, Failure> {
        let Address::Network(uri) = &self.address else {
            let endpoint = Endpoint::from_shared(self.address.to_string());
            return endpoint.map_err(|error| Failure::new(Exit::Usage, root_cause(&error)));
        };
        let endpoint = Endpoint::from(uri.clone()).connect_timeout(self.timeout);
        if uri.scheme_str() != Some("https") {
            return Ok(endpoint);
        }
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.trusted()?));
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            tls = tls.identity(Identity::from_pem(read("--cert", cert)?, read("--key", key)?));
        }
        endpoint.tls_config(tls).map_err(|error| Failure::new(Exit::Configuration, root_cause(&error)))
    }

    fn trusted(&self) -> Result<Vec<u8>, Failure> {
        let file = self.ca.as_ref().ok_or_else(|| {
            Failure::new(Exit::Usage, "an https address needs --ca FILE or BEARERD_CA: the certificates to trust")
        })?;
        let pem = read("--ca", file)?;
        // Without this look a file of something else would show as an untrusted server.
        let good = CertificateDer::pem_slice_iter(&pem).next().is_some_and(|first| first.is_ok());
        if good { Ok(pem) } else { Err(unusable("--ca", file, "it holds no PEM certificate")) }
    }
}

fn read(option: &str, file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|error| unusable(option, file, &error.to_string()))
}

fn unusable(option: &str, file: &Path, what: &str) -> Failure {
    Failure::new(Exit::Configuration, format!("{option}: cannot use {}: {what}", file.display()))
}

fn authorization(token: &SecretString) -> Result<MetadataValue<Ascii>, Failure> {
    let value = format!("Bearer {}", token.expose_secret()).parse::<MetadataValue<Ascii>>();
    let mut value = value.map_err(|_| Failure::new(Exit::Configuration, "the token cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The address of a bearerd, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Network(Uri),
    Unix(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Without the "/" that the URI ends with.
            Self::Network(uri) => f.write_str(uri.to_string().trim_end_matches('/')),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "expected http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:/PATH";
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.to_owned())) } else { Err(SHAPE) };
        }
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = with_scheme.parse().map_err(|_| SHAPE)?;
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let place = uri.host().is_some_and(|host| !host.is_empty()) && uri.port_u16().is_some();
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if scheme && place && bare { Ok(Self::Network(uri)) } else { Err(SHAPE) }
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= MAX_TIMEOUT => Ok(duration),
        Ok(_) => Err("at most 24h".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        failure(&status, "an [[allow]] table in bearerd.toml must name this caller, credential and action")
    }
}

/// The failure that a status is; `row` says which row is missing where the policy denies.
pub fn failure(status: &Status, row: &'static str) -> Failure {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    let fields = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    let mut failure = Failure::new(exit(status.code()), message(status, &reason));
    for violation in fields {
        failure = failure.hint(format!("{}: {}", violation.field, violation.description));
    }
    match advice(&reason, row).or_else(|| advice_without_reason(status)) {
        Some(text) => failure.hint(text),
        None => failure,
    }
}

fn message(status: &Status, reason: &str) -> String {
    let mut text = match status.message() {
        "" => status.code().description().to_owned(),
        text => text.to_owned(),
    };
    if !reason.is_empty() {
        text = format!("{text} [{reason}]");
    }
    match status.get_details_retry_info().and_then(|info| info.retry_delay) {
        // Rounded up, so that whoever waits as long as it says has waited long enough.
        Some(wait) => format!("{text}; retry in {} s", wait.as_millis().div_ceil(1000)),
        None => text,
    }
}

fn exit(code: Code) -> Exit {
    match code {
        Code::InvalidArgument => Exit::Usage,
        Code::Unavailable => Exit::Unavailable,
        Code::PermissionDenied | Code::Unauthenticated => Exit::NotAllowed,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => Exit::Failure,
    }
}

/// What a person can do about a reason; nothing where the message already says it.
fn advice(reason: &str, row: &'static str) -> Option<&'static str> {
    match reason {
        "REAUTHORIZATION_REQUIRED" => Some("hand over a new refresh token: bearerd grant import NAME"),
        "CREDENTIAL_NOT_FOUND" => Some("the names are those of the [credentials.NAME] tables in bearerd.toml"),
        "CALLER_UNAUTHENTICATED" => {
            Some("is the token (--token-file, BEARERD_TOKEN) the right one? bearerd's log says what is wrong with it")
        }
        "CALLER_NOT_ALLOWED" => Some(row),
        "CLIENT_CONFIGURATION_REJECTED" => Some("compare client_id, client_secret and token_url with the provider's"),
        "RECORD_UNREADABLE" => Some("is the key that sealed it still among [seal] keys?"),
        _ => None,
    }
}

/// What a person can do when the answer did not come from bearerd's own code.
fn advice_without_reason(status: &Status) -> Option<&'static str> {
    // A deadline that passes on this side shows as CANCELLED, on the other side as DEADLINE_EXCEEDED.
    if matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded) {
        return Some("there was no answer in time; --timeout sets how long to wait");
    }
    // A status with a source was made on this side, because what came over the connection was no answer.
    let no_answer = status.code() == Code::Unimplemented || status.source().is_some();
    no_answer.then_some("is it bearerd's gRPC port, of this version, and does the address say https if it has TLS?")
}

fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn addresses() {
        for (text, uri) in [
            ("127.0.0.1:7443", Some("http://127.0.0.1:7443")),
            ("localhost:1", Some("http://localhost:1")),
            ("[::1]:7443", Some("http://[::1]:7443")),
            ("https://bearerd.example:443", Some("https://bearerd.example:443")),
            ("http://h:1/", Some("http://h:1")),
            ("unix:/run/bearerd/bearerd.sock", Some("unix:/run/bearerd/bearerd.sock")),
            ("unix:bearerd.sock", None),
            ("unix:", None),
            ("localhost", None),
            ("http://h", None),
            ("ftp://h:1", None),
            ("http://h:1/path", None),
            ("http://h:1/?q", None),
            ("http://:1", None),
            ("h:99999", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Address>().ok().map(|address| address.to_string()).as_deref(), uri, "{text}");
        }
    }

    #[test]
    fn timeouts_are_bounded() {
        assert_eq!(timeout("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(timeout("99999999999years").is_err());
        assert!(timeout("25h").is_err());
        assert!(timeout("-1s").is_err());
    }

    #[test]
    fn https_needs_certificates_to_trust() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let cases = [
            (None, Exit::Usage),
            (Some(PathBuf::from("/no/such/file")), Exit::Configuration),
            (Some(file.path().into()), Exit::Configuration),
        ];
        for (ca, exit) in cases {
            let address: Address = "https://localhost:1".parse().unwrap();
            let connection =
                Connection { address, ca: ca.clone(), cert: None, key: None, token_file: None, timeout: MAX_TIMEOUT };
            assert_eq!(connection.endpoint().unwrap_err().exit(), exit, "{ca:?}");
        }
    }

    #[test]
    fn a_status_becomes_one_line_with_reason_wait_and_advice() {
        let mut details = ErrorDetails::with_error_info("REFRESH_IN_PROGRESS", "bearerd", HashMap::new());
        details.set_retry_info(Some(Duration::from_millis(2100)));
        let cases = [
            (
                Status::with_error_details(Code::Unavailable, "wait", details),
                Exit::Unavailable,
                "error: wait [REFRESH_IN_PROGRESS]; retry in 3 s",
            ),
            (Status::not_found(""), Exit::Failure, "error: Some requested entity was not found"),
            (
                Status::with_error_details(
                    Code::InvalidArgument,
                    "bad",
                    ErrorDetails::with_bad_request_violation("path", "must begin with /"),
                ),
                Exit::Usage,
                "error: bad\nhint: path: must begin with /",
            ),
            (Status::unauthenticated("who"), Exit::NotAllowed, "error: who"),
            (
                Status::deadline_exceeded("late"),
                Exit::Failure,
                "error: late\nhint: there was no answer in time; --timeout sets how long to wait",
            ),
        ];
        for (status, exit, text) in cases {
            let failure = Failure::from(status);
            assert_eq!((failure.exit(), failure.to_string().as_str()), (exit, text));
        }
    }
}
