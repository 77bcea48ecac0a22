//! The way to a running bearerd: where it is, how it is trusted, and what its refusals mean for a person.

use std::{
    error::Error,
    fmt, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use http::Uri;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_types::StatusExt;

use super::output::{Answer, Exit, Failure};
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
    /// The certificates to trust for https, as PEM; without it, those of the system
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
    /// Send the token without TLS to another host; who listens on the way can use it
    #[arg(long)]
    insecure: bool,
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
            self.keep_token_from_others()?;
            request.metadata_mut().insert("authorization", authorization(&token)?);
        }
        Ok(request)
    }

    /// A token goes to another host through TLS only, unless it is wanted otherwise.
    fn keep_token_from_others(&self) -> Result<(), Failure> {
        if self.insecure || self.address.is_private() {
            return Ok(());
        }
        let what =
            format!("the token would go to {} without TLS, and who listens on the way could use it", self.address);
        Err(Failure::new(Exit::Usage, what).hint("write https:// with --ca FILE, or --insecure if nobody can listen"))
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
        let mut tls = match &self.ca {
            Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trusted(file)?)),
            None => ClientTlsConfig::new().ca_certificates(authorities_of_system()?),
        };
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            tls = tls.identity(Identity::from_pem(read("--cert", cert)?, read("--key", key)?));
        }
        endpoint.tls_config(tls).map_err(|error| Failure::new(Exit::Configuration, root_cause(&error)))
    }
}

fn trusted(file: &Path) -> Result<Vec<u8>, Failure> {
    let pem = read("--ca", file)?;
    // Without this look a file of something else would show as an untrusted server.
    let good = CertificateDer::pem_slice_iter(&pem).next().is_some_and(|first| first.is_ok());
    if good { Ok(pem) } else { Err(unusable("--ca", file, "it holds no PEM certificate")) }
}

/// The certificates that the system trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
fn authorities_of_system() -> Result<Vec<Certificate>, Failure> {
    let found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() {
        let failure = Failure::new(Exit::Configuration, "the system has no certificates to trust for https");
        return Err(failure.hint("install ca-certificates, or name a file: --ca FILE or BEARERD_CA"));
    }
    let pem = |der: &CertificateDer<'_>| {
        let base64 = STANDARD.encode(der);
        Certificate::from_pem(format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n"))
    };
    Ok(found.iter().map(pem).collect())
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

impl Address {
    /// Whether what is sent there is encrypted or stays on this host.
    fn is_private(&self) -> bool {
        let Self::Network(uri) = self else { return true };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let here = host.parse::<IpAddr>().map_or(host == "localhost", |address| address.to_canonical().is_loopback());
        uri.scheme_str() == Some("https") || here
    }
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

/// What the policy must have for most commands.
const ROW: &str = "an [[allow]] table in bearerd.toml must name this caller, credential and action";

/// What a command asks about, as its hints name it.
pub struct Asked {
    /// The credential.
    pub credential: String,
    /// On whose behalf; empty for the service itself.
    pub subject: String,
}

impl Asked {
    /// The failure that a status is.
    pub fn refused(&self, status: &Status) -> Failure {
        failure(status, ROW, Some(self))
    }

    /// The command that brings in a grant.
    fn import(&self) -> String {
        let credential = shell_word(&self.credential);
        match self.subject.as_str() {
            "" => format!("bearerd grant import {credential}"),
            subject => format!("bearerd grant import {credential} --subject {}", shell_word(subject)),
        }
    }
}

/// A text as one word of a shell's command line.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@:/+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The failure that a status is; `row` says which row is missing where the policy denies.
pub fn failure(status: &Status, row: &'static str, asked: Option<&Asked>) -> Failure {
    let (reason, mut metadata) =
        status.get_details_error_info().map(|info| (info.reason, info.metadata)).unwrap_or_default();
    let fields = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let answer = Answer {
        reason: Some(reason).filter(|reason| !reason.is_empty()),
        cause: metadata.remove("cause"),
        // Rounded up, so that whoever waits as long as it says has waited long enough.
        retry_after_seconds: wait.map(|wait| u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)),
        trace_id: metadata.remove("trace_id"),
    };
    let mut failure = Failure::new(exit(status.code(), &answer), message(status, &answer));
    for violation in fields {
        failure = failure.hint(format!("{}: {}", violation.field, violation.description));
    }
    match advice(&answer, row, asked).or_else(|| advice_without_reason(status).map(str::to_owned)) {
        Some(text) => failure.hint(text),
        None => failure,
    }
    .answer(answer)
}

fn message(status: &Status, answer: &Answer) -> String {
    let mut text = match status.message() {
        "" => status.code().description().to_owned(),
        text => text.to_owned(),
    };
    if let Some(reason) = &answer.reason {
        text = format!("{text} [{reason}]");
    }
    match answer.retry_after_seconds {
        Some(seconds) => format!("{text}; retry in {seconds} s"),
        None => text,
    }
}

fn exit(code: Code, answer: &Answer) -> Exit {
    match answer.reason.as_deref() {
        Some("REAUTHORIZATION_REQUIRED") if answer.cause.as_deref() == Some(NO_GRANT) => return Exit::NotFound,
        Some("REAUTHORIZATION_REQUIRED") => return Exit::GrantEnded,
        Some("CLIENT_CONFIGURATION_REJECTED") => return Exit::Configuration,
        Some(_) | None => {}
    }
    match code {
        Code::InvalidArgument => Exit::Usage,
        Code::Unavailable => Exit::Unavailable,
        Code::PermissionDenied | Code::Unauthenticated => Exit::NotAllowed,
        Code::NotFound => Exit::NotFound,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
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

/// The cause of `REAUTHORIZATION_REQUIRED` where nothing was ever imported.
const NO_GRANT: &str = "GRANT_NOT_FOUND";

/// What a person can do about a reason; nothing where the message already says it.
fn advice(answer: &Answer, row: &'static str, asked: Option<&Asked>) -> Option<String> {
    let import = || asked.map_or_else(|| "bearerd grant import".to_owned(), Asked::import);
    let advice = match answer.reason.as_deref()? {
        "REAUTHORIZATION_REQUIRED" if answer.cause.as_deref() == Some(NO_GRANT) => {
            return Some(format!("import one: {}", import()));
        }
        "REAUTHORIZATION_REQUIRED" => return Some(format!("import a new refresh token: {}", import())),
        "CREDENTIAL_NOT_FOUND" => "the names are those of the [credentials.NAME] tables in bearerd.toml",
        "CALLER_UNAUTHENTICATED" => {
            "is the token (--token-file, BEARERD_TOKEN) the right one? bearerd's log says what is wrong with it"
        }
        "CALLER_NOT_ALLOWED" => row,
        "CLIENT_CONFIGURATION_REJECTED" => {
            "compare client_id, client_secret and token_url with the provider's; bearerd's log has the provider's answer"
        }
        "RECORD_UNREADABLE" => "is the key that sealed it still among [seal] keys?",
        _ => return None,
    };
    Some(advice.to_owned())
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

    /// LOW 21.
    #[test]
    fn a_token_goes_unencrypted_to_no_other_host_unless_that_is_wanted() {
        for (address, kept) in [
            ("http://127.0.0.1:7443", true),
            ("localhost:7443", true),
            ("[::1]:7443", true),
            ("unix:/run/bearerd.sock", true),
            ("https://bearerd.example:7443", true),
            ("http://bearerd.example:7443", false),
            ("10.0.0.1:7443", false),
            ("http://localhost.example:7443", false),
            ("http://[2001:db8::1]:7443", false),
        ] {
            for insecure in [false, true] {
                let connection = Connection {
                    address: address.parse().unwrap(),
                    ca: None,
                    cert: None,
                    key: None,
                    token_file: None,
                    insecure,
                    timeout: Duration::from_secs(1),
                };
                assert_eq!(connection.keep_token_from_others().is_ok(), kept || insecure, "{address}");
            }
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
    fn a_file_of_certificates_to_trust_must_hold_some() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (ca, exit) in [
            (Some(PathBuf::from("/no/such/file")), Exit::Configuration),
            (Some(file.path().into()), Exit::Configuration),
        ] {
            let address: Address = "https://localhost:1".parse().unwrap();
            let connection = Connection {
                address,
                ca: ca.clone(),
                cert: None,
                key: None,
                token_file: None,
                insecure: false,
                timeout: MAX_TIMEOUT,
            };
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
            (Status::not_found(""), Exit::NotFound, "error: Some requested entity was not found"),
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
            let failure = asked("crm", "").refused(&status);
            assert_eq!((failure.exit(), failure.to_string().as_str()), (exit, text));
        }
    }

    fn asked(credential: &str, subject: &str) -> Asked {
        Asked { credential: credential.to_owned(), subject: subject.to_owned() }
    }

    fn refusal(reason: &str, metadata: &[(&str, &str)]) -> Status {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let metadata: HashMap<_, _> = metadata.iter().map(owned).collect();
        let details = ErrorDetails::with_error_info(reason, "bearerd", metadata);
        Status::with_error_details(Code::FailedPrecondition, "refused", details)
    }

    /// N8: a hint is a command that can be run as it stands.
    #[test]
    fn hints_name_the_credential_and_the_subject() {
        let ended = refusal("REAUTHORIZATION_REQUIRED", &[]);
        let absent = refusal("REAUTHORIZATION_REQUIRED", &[("cause", "GRANT_NOT_FOUND")]);
        for (status, subject, exit, hint) in [
            (&ended, "", Exit::GrantEnded, "import a new refresh token: bearerd grant import crm"),
            (&ended, "ada@x.example", Exit::GrantEnded, "bearerd grant import crm --subject ada@x.example"),
            (
                &absent,
                "o'neil b",
                Exit::NotFound,
                "hint: import one: bearerd grant import crm --subject 'o'\\''neil b'",
            ),
        ] {
            let failure = asked("crm", subject).refused(status);
            assert_eq!(failure.exit(), exit);
            assert!(failure.to_string().ends_with(hint), "{failure}");
        }
        let refused = asked("crm", "").refused(&refusal("CLIENT_CONFIGURATION_REJECTED", &[]));
        assert_eq!(refused.exit(), Exit::Configuration);
    }

    /// N5: what leads from an error to the log.
    #[test]
    fn the_trace_id_is_shown_as_a_line_and_in_json() {
        let failure = asked("crm", "").refused(&refusal("INSUFFICIENT_SCOPE", &[("trace_id", "0af7")]));
        let lines = "error: refused [INSUFFICIENT_SCOPE]\ntrace_id: 0af7 (in bearerd's log and audit log)";
        assert_eq!(failure.to_string(), lines);
        let json = r#"{"error":{"message":"refused [INSUFFICIENT_SCOPE]","exit_code":1,"reason":"INSUFFICIENT_SCOPE","trace_id":"0af7"}}"#;
        assert_eq!(failure.json(), json);
    }
}
