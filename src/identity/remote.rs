//! The way to an issuer's servers: whom to trust there, and bearerd's own token for them. Both can be replaced while
//! bearerd runs.

use std::fmt;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use reqwest::{
    Client, RequestBuilder, Response,
    header::{AUTHORIZATION, HeaderValue},
};
use url::Url;

use crate::{
    http::{self, ClientError, read_body},
    secret::{ExposeSecret, SecretString},
};

/// The most bytes of an answer.
const MAX_ANSWER: usize = 1024 * 1024;

/// A client and what it shows.
pub struct Remote {
    client: ArcSwap<Client>,
    token: ArcSwapOption<SecretString>,
    /// The one server that gets the token.
    api_server: Url,
}

impl Remote {
    /// A way to the servers of this authority (PEM), or of those the system trusts.
    pub fn new(ca: Option<&str>, token: Option<SecretString>, api_server: Url) -> Result<Self, ClientError> {
        let client = ArcSwap::from_pointee(http::for_issuers(ca)?);
        Ok(Self { client, token: ArcSwapOption::new(token.map(Into::into)), api_server })
    }

    /// Trusts another authority from now on.
    pub fn trust(&self, ca: &str) -> Result<(), ClientError> {
        self.client.store(http::for_issuers(Some(ca))?.into());
        Ok(())
    }

    /// Shows another token from now on.
    pub fn show(&self, token: SecretString) {
        self.token.store(Some(token.into()));
    }

    /// Asks for a page. The error is a few words.
    pub async fn get(&self, url: &Url) -> Result<Bytes, String> {
        self.send(self.client.load().get(url.clone()), url).await
    }

    /// Sends JSON and reads the answer.
    pub async fn post(&self, url: &Url, json: String) -> Result<Bytes, String> {
        let request = self.client.load().post(url.clone()).header("content-type", "application/json").body(json);
        self.send(request, url).await
    }

    async fn send(&self, request: RequestBuilder, url: &Url) -> Result<Bytes, String> {
        let request = request.header("accept", "application/json");
        let request = match self.token.load().as_deref().filter(|_| url.origin() == self.api_server.origin()) {
            Some(token) => request.header(AUTHORIZATION, header(token)?),
            None => request,
        };
        let response: Response = request.send().await.map_err(|error| root_cause(&error))?;
        if !response.status().is_success() {
            return Err(format!("the answer has status {}", response.status().as_u16()));
        }
        read_body(response, MAX_ANSWER).await.map_err(|error| error.to_string())
    }
}

fn header(token: &SecretString) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
        .map_err(|_| "the token for the API server cannot be sent in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("api_server", &self.api_server.as_str()).finish_non_exhaustive()
    }
}
