//! bearerd as a server of `GetToken` for tokens that are not in its memory: many grants are asked about in turn, and there is
//! room for one token.

use std::time::Duration;

use prost::Message;

use super::{
    Answered, How, Server, Sizes,
    provider::Provider,
    replica::{Replica, get_token, token_of},
    settings::{Settings, refresh_token},
};
use crate::{
    bench::Bench,
    crowd::{Crowd, subject},
    error::Error,
};

/// How many grants.
const GRANTS: usize = 1_000;

/// When its turn comes, the one token that is in memory may be found there. So many calls must have been another's for each
/// such call.
const OTHERS: u64 = 500;

/// A running `bearerd serve` with its grants, and their provider.
pub struct Scattered {
    replica: Replica,
    sizes: Sizes,
    _provider: Provider,
}

impl Scattered {
    /// Starts one beside this port's Redis, and has it get all tokens, by calls that are not measured.
    pub fn start(bench: &Bench, how: &How, redis: u16) -> Result<Self, Error> {
        let provider = Provider::start(bench, Duration::ZERO, Duration::from_secs(86_400))?;
        let credential = refresh_token(&provider.token_url());
        let settings = Settings { redis: Some(redis), tls: None, cache: "max_tokens = 1", credential: &credential };
        let replica = Replica::start(bench, how, &settings)?;
        let last = subject(GRANTS - 1);
        let answer = bench.runtime.block_on(async {
            let crowd = Crowd::connect(&[&replica], 1).await?;
            crowd.import(0..GRANTS, 1).await?;
            crowd.get_tokens(0..GRANTS, 1).await?;
            get_token(crowd.channel(0)?, &last).await
        })?;
        let sizes = Sizes { request: token_of(&last).encoded_len(), response: answer.encoded_len() };
        Ok(Self { replica, sizes, _provider: provider })
    }

    /// How long a call's messages are.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }
}

impl Server for Scattered {
    fn url(&self) -> String {
        self.replica.get_token_url()
    }

    fn requests(&self) -> Vec<Vec<u8>> {
        (0..GRANTS).map(|number| token_of(&subject(number)).encode_to_vec()).collect()
    }

    /// As `/metrics` says it.
    fn answered(&self) -> Result<Answered, Error> {
        let (read, stayed) = (self.replica.lookups("store")?, self.replica.lookups("memory")?.well);
        let stayed = stayed.min(1 + read.well / OTHERS);
        Ok(Answered { well: read.well + stayed, elsewhere: read.elsewhere - stayed, ..read })
    }

    fn cpu(&self) -> Result<Duration, Error> {
        self.replica.process().cpu()
    }

    fn stop(self) -> Result<(), Error> {
        self.replica.stop()
    }
}
