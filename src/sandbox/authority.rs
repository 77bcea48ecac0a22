//! The authority: decides about one token request at a time, and writes every decision into the journal.

use std::collections::VecDeque;

use http::HeaderMap;
use tokio::time::Instant;

use super::{
    Fault, Outcome, TokenRequestEntry,
    assertion::Keys,
    clients::{self, Client},
    form::{Credentials, Form},
    journal::Journal,
    ledger::{Issued, Ledger},
    refusal::{ErrorWord, Refusal},
    scope,
};

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The authorization server without its network.
pub(super) struct Authority {
    pub ledger: Ledger,
    pub journal: Journal,
    pub keys: Keys,
    pub faults: VecDeque<Fault>,
    /// What an assertion may name as its audience: the issuer, or the token endpoint (RFC 7523 §3 item 3).
    pub audiences: [String; 2],
}

/// What the network is to do.
pub(super) enum Answer {
    /// Send the right answer.
    Decided(Result<Issued, Refusal>),
    /// Send this wrong one.
    Faulted(Fault),
    /// Send nothing and close.
    Dropped,
}

impl Authority {
    /// Answers a token request.
    pub fn answer(&mut self, headers: &HeaderMap, body: &[u8], now: Instant) -> Answer {
        let form = Form::read(headers, body);
        let request = form.as_ref().map_err(|refusal| *refusal);
        let credentials = request.and_then(|form| Credentials::read(headers, form));
        let mut entry = self.draft(form.as_ref().ok(), credentials.as_ref().ok());

        let fault = self.faults.pop_front();
        let decision = match fault {
            Some(fault @ (Fault::Status(_) | Fault::Wait { .. } | Fault::ErrorWord(_) | Fault::Body { .. })) => {
                self.journal.record(entry);
                return Answer::Faulted(fault);
            }
            Some(Fault::DropAfterHandling) | None => {
                request.and_then(|form| self.decide(form, credentials?, &mut entry.client_id, now))
            }
        };
        entry.outcome = match &decision {
            Ok(_) => Outcome::Issued,
            Err(refusal) => Outcome::Refused(refusal.error.as_str()),
        };
        self.journal.record(entry);
        if fault.is_some() { Answer::Dropped } else { Answer::Decided(decision) }
    }

    /// Answers a revocation request (RFC 7009 §2.1): a refresh token ends with its whole grant.
    pub fn revoke(&mut self, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
        let form = Form::read(headers, body)?;
        let client = self.identify(Credentials::read(headers, &form)?)?;
        let client = client.ok_or(ErrorWord::InvalidClient.because("no client is named"))?.checked()?;
        self.ledger.revoke_for(form.required("token")?, &client.id)
    }

    fn draft(&self, form: Option<&Form>, credentials: Option<&Credentials>) -> TokenRequestEntry {
        let parameter = |name| form.and_then(|form| form.get(name));
        TokenRequestEntry {
            sequence: 0,
            grant_type: parameter("grant_type").unwrap_or_default().to_owned(),
            client_id: credentials.and_then(Credentials::claimed_id).map(str::to_owned),
            presented: parameter("refresh_token").and_then(|token| self.ledger.position(token)),
            scope: parameter("scope").map(str::to_owned),
            outcome: Outcome::Faulted,
        }
    }

    fn decide(
        &mut self,
        form: &Form,
        credentials: Credentials,
        journaled_client: &mut Option<String>,
        now: Instant,
    ) -> Result<Issued, Refusal> {
        let grant_type = form.required("grant_type")?;
        let client = self.identify(credentials)?;
        if let Some(client) = &client {
            *journaled_client = Some(client.id.clone());
        }
        if grant_type == JWT_BEARER {
            return self.jwt_bearer(form, now);
        }
        let client = client.ok_or(ErrorWord::InvalidClient.because("no client is named"))?.checked()?;
        match grant_type {
            "client_credentials" => self.client_credentials(form, client, now),
            "refresh_token" => self.ledger.refresh(form.required("refresh_token")?, &client.id, form.get("scope"), now),
            _ => Err(ErrorWord::UnsupportedGrantType.because("this grant type is not offered here")),
        }
    }

    fn identify(&mut self, credentials: Credentials) -> Result<Option<Client>, Refusal> {
        let [issuer, token_url] = &self.audiences;
        clients::identify(credentials, &mut self.keys, &[issuer, token_url])
    }

    /// RFC 6749 §4.4: for confidential clients only.
    fn client_credentials(&mut self, form: &Form, client: Client, now: Instant) -> Result<Issued, Refusal> {
        if !client.authenticated {
            return Err(ErrorWord::UnauthorizedClient.because("a public client has no credentials of its own"));
        }
        Ok(self.ledger.issue(&client.id, scope::own(form.get("scope"))?, now))
    }

    /// RFC 7523 §2.1. The assertion is the authorization; whether the client authenticates is up to it (RFC 7521 §4.1).
    fn jwt_bearer(&mut self, form: &Form, now: Instant) -> Result<Issued, Refusal> {
        let jwt = form.required("assertion")?;
        let scopes = scope::own(form.get("scope"))?;
        let [issuer, token_url] = &self.audiences;
        let claims = self.keys.accept(jwt, &[issuer, token_url]).map_err(|why| ErrorWord::InvalidGrant.because(why))?;
        Ok(self.ledger.issue(&claims.sub, scopes, now))
    }
}
