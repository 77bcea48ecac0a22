//! What is compared with what. Each chapter is a file and a table of `docs/performance.md`.

use crate::{bench::Bench, error::Error, row::Row};

pub mod background;
pub mod cached;
pub mod call_through;
pub mod instructions;
pub mod invalidation;
pub mod mtls;
pub mod scale;
pub mod start;
pub mod store_read;
pub mod storm;

/// One table.
pub struct Chapter {
    /// What `make bench CHAPTERS=…` and the marks in the document call it.
    pub name: &'static str,
    /// What it is about, for whoever waits.
    pub what: &'static str,
    /// Measures.
    pub run: fn(&Bench) -> Result<Vec<Row>, Error>,
}

/// All of them, in the order of the document.
pub const ALL: &[Chapter] = &[
    Chapter { name: "instructions", what: "instructions of one call", run: instructions::run },
    Chapter { name: "cached", what: "a token from memory beside a bare echo", run: cached::run },
    Chapter { name: "mtls", what: "the same with certificates on both sides", run: mtls::run },
    Chapter {
        name: "store_read",
        what: "a token read from Redis beside a bare read and a bare echo",
        run: store_read::run,
    },
    Chapter { name: "call_through", what: "a call through bearerd beside one through Envoy", run: call_through::run },
    Chapter { name: "storm", what: "2,000 callers who want what nobody has", run: storm::run },
    Chapter { name: "invalidation", what: "a report at one replica, seen at another", run: invalidation::run },
    Chapter { name: "scale", what: "many grants, and many tokens in memory", run: scale::run },
    Chapter { name: "start", what: "from exec to the first answer", run: start::run },
    Chapter { name: "background", what: "tokens that are kept alive, for 330 seconds", run: background::run },
];
