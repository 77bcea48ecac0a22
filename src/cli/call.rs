//! `bearerd call`: lets bearerd make an HTTP call with the credential's token.

use std::{fs, path::Path, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use clap::Args as ClapArgs;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::Serialize;

use super::{
    Target,
    connect::Connection,
    output::{Exit, Failure, HeaderJson, Streams, unreadable},
};
use crate::{
    proto::{CallThroughRequest, CallThroughResponse, Header, Replay},
    rejection::{Evidence, Rules, Verdict, Why},
};

/// The example in the help.
pub const EXAMPLE: &str = "Example:\n  bearerd call salesforce POST /services/data/v61.0/sobjects/Account \\\n    \
    -H 'Content-Type: application/json' --data-string '{\"Name\":\"Acme\"}'\n\n\
    The upstream's status is data: with --fail, one of 400 or more makes the exit code 1.";

/// The arguments of `bearerd call`.
#[derive(ClapArgs)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The HTTP method, such as GET
    #[arg(value_name = "METHOD")]
    method: Method,
    /// Path and query under the credential's base_url, beginning with "/"
    #[arg(value_name = "PATH", value_parser = path)]
    path: String,
    #[command(flatten)]
    content: Content,
    /// Never send the request a second time, even if the token was rejected
    #[arg(long)]
    no_replay: bool,
    /// Exit with 1 if the upstream's status is 400 or more
    #[arg(long)]
    fail: bool,
    /// Print the status line and the headers before the body
    #[arg(short, long, conflicts_with = "json")]
    include: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What the request carries.
#[derive(ClapArgs)]
struct Content {
    /// A header to send; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<Header>,
    /// A file with the body, or "-" for standard input
    #[arg(long, value_name = "FILE")]
    data: Option<String>,
    /// The body itself
    #[arg(long, value_name = "TEXT", conflicts_with = "data")]
    data_string: Option<String>,
}

/// Makes the call and prints the upstream's answer.
pub async fn run(args: Args, streams: &mut Streams<'_>) -> Result<Exit, Failure> {
    let body = args.content.body(streams)?;
    let mut client = args.connection.tokens().await?;
    let asked = args.target.asked();
    let Target { credential, subject, scopes, resources } = args.target;
    let request = CallThroughRequest {
        credential,
        subject,
        scopes,
        resources,
        method: args.method.to_string(),
        path: args.path,
        headers: args.content.headers,
        body,
        timeout: None,
        replay: if args.no_replay { Replay::Never } else { Replay::Default }.into(),
    };
    let answer = client.call_through(args.connection.request(request)?).await;
    let answer = answer.map_err(|status| asked.refused(&status))?.into_inner();
    if args.json {
        streams.json(&AnswerJson::new(&answer))?;
    } else {
        let mut data = if args.include { head(&answer).into_bytes() } else { Vec::new() };
        data.extend_from_slice(&answer.body);
        streams.data(&data)?;
    }
    if let Some(why) = not_replaced(&answer) {
        streams.note(&format!("hint: the token was not replaced: {why}"));
    }
    Ok(if args.fail { failed(&answer, streams) } else { Exit::Success })
}

/// Why an answer that is about authorization was not taken for a token rejection, where that may surprise.
fn not_replaced(answer: &CallThroughResponse) -> Option<Why> {
    let challenges = answer.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("www-authenticate"));
    let evidence = Evidence {
        status: u16::try_from(answer.status).ok()?,
        www_authenticate: challenges.map(|header| header.value.as_str()).collect(),
        body: &[],
    };
    match Rules::default().judge(&evidence) {
        Verdict::NotTokenRejected(why) if !answer.refreshed && answer.attempts == 1 => {
            (answer.status == 401 || matches!(why, Why::InsufficientScope { .. })).then_some(why)
        }
        Verdict::NotTokenRejected(_) | Verdict::TokenRejected => None,
    }
}

impl Content {
    fn body(&self, streams: &mut Streams<'_>) -> Result<Bytes, Failure> {
        match (self.data.as_deref(), &self.data_string) {
            (Some("-"), _) => {
                let mut body = Vec::new();
                streams.input.read_to_end(&mut body).map_err(|error| unreadable("standard input", &error))?;
                Ok(body.into())
            }
            (Some(file), _) => fs::read(Path::new(file)).map(Bytes::from).map_err(|error| unreadable(file, &error)),
            (None, text) => Ok(text.clone().unwrap_or_default().into()),
        }
    }
}

fn failed(answer: &CallThroughResponse, streams: &mut Streams<'_>) -> Exit {
    if answer.status < 400 {
        return Exit::Success;
    }
    streams.note(&format!("error: the upstream answered {}", status(answer)));
    Exit::Failure
}

/// The status line and the headers, as `curl -i` prints them.
fn head(answer: &CallThroughResponse) -> String {
    // What reads the output of curl wants a version here, and the upstream's own is not passed on.
    let mut text = format!("HTTP/1.1 {}\r\n", status(answer));
    for header in &answer.headers {
        text.extend([&header.name, ": ", &header.value, "\r\n"]);
    }
    text + "\r\n"
}

/// The status code with its usual phrase, where it has one.
fn status(answer: &CallThroughResponse) -> String {
    let known = u16::try_from(answer.status).ok().and_then(|code| StatusCode::from_u16(code).ok());
    match known.and_then(|code| code.canonical_reason()) {
        Some(phrase) => format!("{} {phrase}", answer.status),
        None => answer.status.to_string(),
    }
}

/// The answer in JSON; a body that is no text is there in base64.
#[derive(Serialize)]
struct AnswerJson<'a> {
    status: u32,
    headers: Vec<HeaderJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    attempts: u32,
    refreshed: bool,
    generation: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trailers: Vec<HeaderJson<'a>>,
}

impl<'a> AnswerJson<'a> {
    fn new(answer: &'a CallThroughResponse) -> Self {
        let body = str::from_utf8(&answer.body).ok();
        Self {
            status: answer.status,
            headers: HeaderJson::list(&answer.headers),
            body,
            body_base64: body.is_none().then(|| STANDARD.encode(&answer.body)),
            attempts: answer.attempts,
            refreshed: answer.refreshed,
            generation: answer.generation,
            trailers: HeaderJson::list(&answer.trailers),
        }
    }
}

fn path(text: &str) -> Result<String, &'static str> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("a path begins with \"/\"") }
}

fn header(text: &str) -> Result<Header, &'static str> {
    let (name, value) = text.split_once(':').ok_or("expected \"Name: value\"")?;
    let value = value.trim_matches([' ', '\t']);
    HeaderName::from_str(name).map_err(|_| "this is no header name")?;
    HeaderValue::from_str(value).map_err(|_| "this is no header value")?;
    Ok(Header { name: name.to_owned(), value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Run, bearerd, ran},
        *,
    };

    async fn call(args: &str, stdin: &str) -> Run {
        bearerd(&["call", "salesforce"].into_iter().chain(args.split_whitespace()).collect::<Vec<_>>(), stdin).await
    }

    #[tokio::test]
    async fn the_body_comes_out_as_it_is() {
        assert_eq!(call("GET /200?q=1", "").await, ran(Exit::Success, "GET /200?q=1 ", ""));
        assert_eq!(call("PATCH /200 --data -", "in\n").await, ran(Exit::Success, "PATCH /200 in\n", ""));
        assert_eq!(call("PUT /200 --data-string text", "").await, ran(Exit::Success, "PUT /200 text", ""));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "file").unwrap();
        let args = format!("POST /200 --data {}", file.path().display());
        assert_eq!(call(&args, "").await, ran(Exit::Success, "POST /200 file", ""));
    }

    #[tokio::test]
    async fn the_upstreams_status_is_data_unless_fail_is_asked_for() {
        assert_eq!(call("GET /404", "").await, ran(Exit::Success, "GET /404 ", ""));
        let complaint = "error: the upstream answered 404 Not Found\n";
        assert_eq!(call("GET /404 --fail", "").await, ran(Exit::Failure, "GET /404 ", complaint));
        assert_eq!(call("GET /399 --fail", "").await, ran(Exit::Success, "GET /399 ", ""));
        assert_eq!(call("GET /400 --fail --json", "").await.exit, Exit::Failure);
    }

    #[tokio::test]
    async fn a_401_that_replaced_no_token_comes_with_the_line_that_would() {
        let hint = "hint: the token was not replaced: the answer is a 401 without a readable Bearer challenge; \
                    `rejected_when = [\"401\"]` in the credential's configuration would take it for a token rejection\n";
        assert_eq!(call("GET /401 --no-replay", "").await, ran(Exit::Success, "GET /401 ", hint));
        // After a refresh the token is not what is wrong.
        assert_eq!(call("GET /401", "").await, ran(Exit::Success, "GET /401 ", ""));
        assert_eq!(call("GET /404 --no-replay", "").await, ran(Exit::Success, "GET /404 ", ""));
    }

    #[tokio::test]
    async fn include_prints_status_and_headers_as_curl_does() {
        let out = "HTTP/1.1 200 OK\r\nX-A: 1\r\nX-B: 2\r\n\r\nGET /200 ";
        assert_eq!(call("GET /200 -i -H X-A:1 --header X-B:2", "").await, ran(Exit::Success, out, ""));
        assert!(call("GET /299 -i", "").await.out.starts_with("HTTP/1.1 299\r\n"));
    }

    #[tokio::test]
    async fn json_holds_text_as_text_and_bytes_in_base64() {
        let json = r#"{"status":200,"headers":[{"name":"X-A","value":"1"}],"body":"GET /200 é","attempts":2,"refreshed":true,"generation":8}"#;
        let run = call("GET /200 -H X-A:1 --data - --json", "é").await;
        assert_eq!(run, ran(Exit::Success, &format!("{json}\n"), ""));
        let json = r#"{"status":200,"headers":[],"body_base64":"/w==","attempts":1,"refreshed":false,"generation":8}"#;
        let run = call("GET /200?binary --no-replay --json", "").await;
        assert_eq!(run, ran(Exit::Success, &format!("{json}\n"), ""));
    }

    #[test]
    fn headers_are_checked_before_they_are_sent() {
        for (text, pair) in [
            ("Accept: a/b", Some(("Accept", "a/b"))),
            ("X:1:2", Some(("X", "1:2"))),
            ("X:", Some(("X", ""))),
            ("X", None),
            (": v", None),
            ("X Y: v", None),
            ("X: a\nB: c", None),
        ] {
            let parsed = header(text).ok();
            assert_eq!(parsed.as_ref().map(|header| (header.name.as_str(), header.value.as_str())), pair, "{text}");
        }
    }
}
