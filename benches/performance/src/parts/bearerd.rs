//! bearerd as a server of `GetToken`. Its provider is the sandbox, whose tokens live for a day here, so that no refresh is
//! measured.

use std::time::Duration;

use bearerd::sandbox::{Options, Sandbox};
use prost::Message;
use tokio::runtime::Handle;

use super::{
    Answered, How, Server, Sizes,
    certificates::Certificates,
    replica::{Replica, get_token, token_of},
    settings::{Settings, client_credentials},
};
use crate::{
    bench::Bench,
    error::{Error, cannot},
};

/// Where a token comes from in the calls that are measured.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// The cache, as it is by default, before the embedded store.
    Memory,
    /// This port's Redis says each time that the token in memory still is the one: the cache believes nothing.
    Looked(u16),
}

/// A running `bearerd serve`, and its provider.
pub struct Bearerd {
    replica: Replica,
    runtime: Handle,
    _provider: Sandbox,
    source: Source,
}

impl Bearerd {
    /// Starts one and waits until it is ready; with certificates, callers must show theirs.
    pub fn start(bench: &Bench, how: &How, source: Source, tls: Option<&Certificates>) -> Result<Self, Error> {
        let provider = sandbox(bench)?;
        let (redis, cache) = match source {
            Source::Memory => (None, ""),
            Source::Looked(port) => (Some(port), "max_age = \"0s\""),
        };
        let credential = client_credentials(&provider.token_url());
        let replica = Replica::start(bench, how, &Settings { redis, tls, cache, credential: &credential })?;
        Ok(Self { replica, runtime: bench.runtime.handle().clone(), _provider: provider, source })
    }

    /// Has it get its token, by a call that is not measured, and tells how long that call's messages were.
    pub fn prime(&self) -> Result<Sizes, Error> {
        let answer = self.runtime.block_on(async { get_token(self.replica.connect().await?, "").await })?;
        Ok(Sizes { request: token_of("").encoded_len(), response: answer.encoded_len() })
    }
}

/// A provider whose tokens live for a day.
pub fn sandbox(bench: &Bench) -> Result<Sandbox, Error> {
    let options = Options { access_token_lifetime: Duration::from_secs(86_400), ..Options::default() };
    bench.runtime.block_on(Sandbox::start(options)).map_err(cannot("start the sandbox"))
}

impl Server for Bearerd {
    fn url(&self) -> String {
        self.replica.get_token_url()
    }

    fn requests(&self) -> Vec<Vec<u8>> {
        vec![token_of("").encode_to_vec()]
    }

    /// As `/metrics` says it.
    fn answered(&self) -> Result<Answered, Error> {
        self.replica.lookups(match self.source {
            Source::Memory => "memory",
            Source::Looked(_) => "store",
        })
    }

    fn cpu(&self) -> Result<Duration, Error> {
        self.replica.process().cpu()
    }

    fn stop(self) -> Result<(), Error> {
        self.replica.stop()
    }
}
