//! bearerd as a server of `CallThrough`.

use std::time::Duration;

use bearerd::proto::{CallThroughRequest, token_service_client::TokenServiceClient};
use prost::Message;

use super::{
    Answered, How, Server,
    nginx::PATH,
    replica::Replica,
    settings::{CREDENTIAL, Settings, client_credentials},
};
use crate::{
    bench::Bench,
    error::{Error, failed},
};

/// A running `bearerd serve` before an upstream.
pub struct Through(Replica);

impl Through {
    /// Starts one, and has it make a first call, which gets the token.
    pub fn start(bench: &Bench, token_url: &str, upstream: u16) -> Result<Self, Error> {
        let credential = format!("{}\nbase_url = \"http://127.0.0.1:{upstream}/\"", client_credentials(token_url));
        let settings = Settings { redis: None, tls: None, cache: "", credential: &credential };
        let replica = Replica::start(bench, &How::Plainly, &settings)?;
        let answer = bench.runtime.block_on(async {
            let answer = TokenServiceClient::new(replica.connect().await?).call_through(asked()).await;
            answer.map_err(|status| failed(format!("bearerd makes no call: {status:?}")))
        })?;
        let answer = answer.into_inner();
        if (answer.status, answer.body.len()) != (200, 1024) {
            return Err(failed(format!(
                "the call was answered with {} and {} bytes",
                answer.status,
                answer.body.len()
            )));
        }
        Ok(Self(replica))
    }
}

fn asked() -> CallThroughRequest {
    CallThroughRequest {
        credential: CREDENTIAL.to_owned(),
        method: "GET".to_owned(),
        path: PATH.to_owned(),
        ..CallThroughRequest::default()
    }
}

impl Server for Through {
    fn url(&self) -> String {
        format!("{}/bearerd.v1.TokenService/CallThrough", self.0.address())
    }

    fn requests(&self) -> Vec<Vec<u8>> {
        vec![asked().encode_to_vec()]
    }

    /// As `/metrics` says it.
    fn answered(&self) -> Result<Answered, Error> {
        let metrics = self.0.metrics()?;
        let calls = "bearerd_calls_total{";
        let well = metrics.sum(|series| series.starts_with(calls) && series.contains(r#"result="2xx""#));
        let elsewhere = metrics.sum(|series| series.starts_with(calls)) - well;
        Ok(Answered { well, elsewhere, refused: metrics.refused(), unrecorded: metrics.unrecorded() })
    }

    fn cpu(&self) -> Result<Duration, Error> {
        self.0.process().cpu()
    }

    fn stop(self) -> Result<(), Error> {
        self.0.stop()
    }
}
