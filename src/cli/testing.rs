//! A bearerd on loopback that speaks the real protocol and answers by the credential's name, for the commands' tests.

use std::{collections::HashMap, future, iter, time::Duration};

use prost_types::{Duration as Span, Timestamp};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt};

use super::{
    output::{Exit, Streams},
    run_on,
};
use crate::proto::{
    CallThroughRequest, CallThroughResponse, DescribeGrantRequest, DescribeGrantResponse, GetTokenRequest,
    GetTokenResponse, GrantState, Header, ImportGrantRequest, ImportGrantResponse, InvalidateTokenOutcome,
    InvalidateTokenRequest, InvalidateTokenResponse, Replay, ResealRecordsRequest, ResealRecordsResponse, RetriedGrant,
    RetryGrantRequest, RetryGrantResponse, RetryOutcome, SealedRecords, Token,
    grant_admin_server::{GrantAdmin, GrantAdminServer},
    import_grant_request::Secret,
    invalidate_token_request::Rejected,
    token_service_server::{TokenService, TokenServiceServer},
};

/// What a command left behind.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    pub exit: Exit,
    pub out: String,
    pub err: String,
}

/// What a command is expected to leave behind.
pub fn ran(exit: Exit, out: &str, err: &str) -> Run {
    Run { exit, out: out.to_owned(), err: err.to_owned() }
}

/// Runs a command line without a server of its own.
pub async fn run_alone(args: &[&str], stdin: &str) -> Run {
    let (mut input, mut out, mut err) = (stdin.as_bytes(), Vec::new(), Vec::new());
    let mut streams = Streams { input: &mut input, out: &mut out, err: &mut err };
    let exit = run_on(iter::once("bearerd").chain(args.iter().copied()), &mut streams).await;
    Run { exit, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

/// Runs a command line against a fresh server.
pub async fn bearerd(args: &[&str], stdin: &str) -> Run {
    if matches!(args[0], "keygen" | "completions") {
        return run_alone(args, stdin).await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("--address={}", listener.local_addr().unwrap());
    let server = Server::builder()
        .add_service(TokenServiceServer::new(Fake))
        .add_service(GrantAdminServer::new(Fake))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let run = run_alone(&args.iter().copied().chain(iter::once(address.as_str())).collect::<Vec<_>>(), stdin).await;
    server.abort();
    run
}

struct Fake;

fn refusal(credential: &str) -> Result<(), Status> {
    let (code, reason, wait) = match credential {
        "dead" => (Code::FailedPrecondition, "REAUTHORIZATION_REQUIRED", None),
        "gone" => (Code::NotFound, "CREDENTIAL_NOT_FOUND", None),
        "hidden" => (Code::PermissionDenied, "CALLER_NOT_ALLOWED", None),
        "down" => (Code::Unavailable, "PROVIDER_UNAVAILABLE", Some(Duration::from_millis(2500))),
        "unimplemented" => return Err(Status::unimplemented("")),
        _ => return Ok(()),
    };
    let mut details = ErrorDetails::with_error_info(reason, "bearerd", HashMap::new());
    details.set_retry_info(wait);
    Err(Status::with_error_details(code, "refused", details))
}

/// What the provider said of the grant that is broken.
const ADVICE: &str = "invalid_grant (HTTP 400) from as.example/token";

#[tonic::async_trait]
impl TokenService for Fake {
    async fn get_token(&self, request: Request<GetTokenRequest>) -> Result<Response<GetTokenResponse>, Status> {
        let GetTokenRequest { credential, subject, scopes, resources, min_remaining, refused_generation } =
            request.into_inner();
        refusal(&credential)?;
        if credential == "silent" {
            future::pending::<()>().await;
        }
        let header = |name: &str, value: &str| Header { name: name.to_owned(), value: value.to_owned() };
        let token = Token {
            access_token: format!("{credential}/{subject}/{}", resources.join(",")),
            token_type: "Bearer".to_owned(),
            expires_at: min_remaining.map(|Span { seconds, nanos }| Timestamp { seconds, nanos }),
            generation: refused_generation + 1,
            scopes,
            headers: vec![header("Authorization", "Bearer t"), header("X-Org", "7")],
            degraded: credential == "degraded",
        };
        Ok(Response::new(GetTokenResponse { token: (credential != "empty").then_some(token) }))
    }

    async fn invalidate_token(
        &self,
        request: Request<InvalidateTokenRequest>,
    ) -> Result<Response<InvalidateTokenResponse>, Status> {
        let request = request.into_inner();
        let (outcome, detail) = match (request.rejection, request.rejected.unwrap()) {
            (Some(evidence), _) => {
                let challenges = evidence.www_authenticate.join("|");
                let detail = format!("{} {challenges} {}", evidence.http_status, evidence.body.len());
                (InvalidateTokenOutcome::NotATokenRejection, detail)
            }
            (None, Rejected::Generation(8)) => (InvalidateTokenOutcome::HeldBack, "wait".to_owned()),
            (None, Rejected::Generation(7)) => (InvalidateTokenOutcome::Refreshed, String::new()),
            (None, Rejected::AccessToken(text)) if text == "current" => {
                (InvalidateTokenOutcome::Refreshed, String::new())
            }
            (None, _) => (InvalidateTokenOutcome::AlreadyReplaced, String::new()),
        };
        let expires_at = Some(Timestamp::default());
        let token = Token { access_token: "fresh".to_owned(), generation: 8, expires_at, ..Token::default() };
        let token = detail.is_empty().then_some(token);
        let next_attempt_at = (outcome == InvalidateTokenOutcome::HeldBack).then(Timestamp::default);
        let outcome = outcome.into();
        Ok(Response::new(InvalidateTokenResponse { outcome, token, detail, next_attempt_at, generation: 8 }))
    }

    async fn call_through(
        &self,
        request: Request<CallThroughRequest>,
    ) -> Result<Response<CallThroughResponse>, Status> {
        let request = request.into_inner();
        let again = request.replay() != Replay::Never;
        let body = format!("{} {} {}", request.method, request.path, String::from_utf8_lossy(&request.body));
        Ok(Response::new(CallThroughResponse {
            status: request.path[1..4].parse().unwrap(),
            headers: request.headers,
            body: if request.path.ends_with("?binary") { vec![0xff].into() } else { body.into() },
            generation: 8,
            attempts: if again { 2 } else { 1 },
            refreshed: again,
            trailers: Vec::new(),
        }))
    }
}

#[tonic::async_trait]
impl GrantAdmin for Fake {
    async fn import_grant(
        &self,
        request: Request<ImportGrantRequest>,
    ) -> Result<Response<ImportGrantResponse>, Status> {
        let request = request.into_inner();
        let secret = match request.secret.unwrap() {
            Secret::RefreshToken(text) => text.len(),
            Secret::StaticSecret(text) => text.len() + 100,
        };
        let whose = if request.subject == "jane" && request.scopes == ["a", "b"] { 7000 } else { 0 };
        let how = if request.no_verify { 50_000 } else { 0 };
        Ok(Response::new(ImportGrantResponse { generation: secret as u64 + whose + how }))
    }

    async fn describe_grant(
        &self,
        request: Request<DescribeGrantRequest>,
    ) -> Result<Response<DescribeGrantResponse>, Status> {
        let request = request.into_inner();
        refusal(&request.credential)?;
        let broken = request.credential == "broken";
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        Ok(Response::new(DescribeGrantResponse {
            state: if broken { GrantState::Dead } else { GrantState::Active }.into(),
            generation: 7,
            token_expires_at: (!broken).then(|| at(9)),
            scopes: request.scopes,
            last_error: if broken { "REAUTHORIZATION_REQUIRED".to_owned() } else { String::new() },
            next_attempt_at: broken.then(|| at(10)),
            outcome_unknown: broken,
            import_pending: false,
            stored_token_url: String::new(),
            stored_client_id: String::new(),
            provider_status: if broken { 400 } else { 0 },
            provider_error: if broken { "invalid_grant".to_owned() } else { String::new() },
            provider_error_description: String::new(),
            provider_endpoint: if broken { "as.example/token".to_owned() } else { String::new() },
            provider_advice: if broken { ADVICE.to_owned() } else { String::new() },
        }))
    }

    /// Two pages of all.
    async fn retry_grant(&self, request: Request<RetryGrantRequest>) -> Result<Response<RetryGrantResponse>, Status> {
        let RetryGrantRequest { credential, subject, all, page_token, dry_run, per_minute: _ } = request.into_inner();
        refusal(&credential)?;
        let grant = |subject: &str, outcome: RetryOutcome, generation, reason: &str| RetriedGrant {
            subject: subject.to_owned(),
            subject_unknown: outcome == RetryOutcome::LeftOut,
            outcome: outcome.into(),
            generation,
            reason: reason.to_owned(),
        };
        let dead = "REAUTHORIZATION_REQUIRED";
        let (grants, next) = match (all, page_token.as_str()) {
            (false, _) if dry_run => (vec![grant(&subject, RetryOutcome::WouldRetry, 0, dead)], ""),
            (false, _) => (vec![grant(&subject, RetryOutcome::Revived, 8, "")], ""),
            (true, "") => (
                vec![
                    grant("joe", RetryOutcome::Revived, 8, ""),
                    grant("", RetryOutcome::LeftOut, 0, "REFRESH_OUTCOME_LOST"),
                ],
                "2",
            ),
            (true, _) => (vec![grant("jane", RetryOutcome::StillDead, 0, dead)], ""),
        };
        Ok(Response::new(RetryGrantResponse { grants, next_page_token: next.to_owned() }))
    }

    /// Whoever shows a token is refused. Two pages. The old key seals three records until it is resealed, and one of another key stays.
    async fn reseal_records(
        &self,
        request: Request<ResealRecordsRequest>,
    ) -> Result<Response<ResealRecordsResponse>, Status> {
        if request.metadata().contains_key("authorization") {
            refusal("hidden")?;
        }
        let ResealRecordsRequest { page_token, only_count } = request.into_inner();
        let (resealed, unreadable) = if only_count { (0, 0) } else { (3, 1) };
        let row = |key: &str, records, seals| SealedRecords { key: key.to_owned(), records, seals };
        let keys = vec![row("new", 9 + resealed, true), row("old", 3 - resealed, false), row("unknown", 1, false)];
        Ok(Response::new(match page_token.as_str() {
            "" => ResealRecordsResponse { next_page_token: "2".to_owned(), ..ResealRecordsResponse::default() },
            _ => ResealRecordsResponse { next_page_token: String::new(), keys, resealed, unreadable },
        }))
    }
}
