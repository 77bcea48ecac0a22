//! What runs during a measurement: real processes on free ports of loopback, gone when they are dropped.

use std::{net::TcpListener, path::PathBuf, process::Command, time::Duration};

use crate::{
    bench::Bench,
    callgrind,
    error::{Error, cannot},
};

pub mod bearerd;
pub mod certificates;
pub mod child;
pub mod echo;
pub mod envoy;
pub mod nginx;
pub mod process;
pub mod provider;
pub mod redis;
pub mod replica;
pub mod scattered;
pub mod settings;
pub mod through;

/// How a server is started.
pub enum How {
    /// As it is.
    Plainly,
    /// With every instruction counted into this file.
    Counted(PathBuf),
}

impl How {
    /// The server's program on the server's core.
    pub fn command(&self, bench: &Bench, program: &str) -> Command {
        match self {
            Self::Plainly => bench.cores.server(program),
            Self::Counted(file) => callgrind::command(&bench.cores, file, program),
        }
    }
}

/// How many calls a server has answered since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// In the way that is measured.
    pub well: u64,
    /// Well, but from elsewhere than is measured.
    pub elsewhere: u64,
    /// With an error.
    pub refused: u64,
    /// Without a record in the audit log: there was no time to write it.
    pub unrecorded: u64,
}

impl Answered {
    /// The sum of two servers.
    pub fn and(self, other: Self) -> Self {
        Self {
            well: self.well + other.well,
            elsewhere: self.elsewhere + other.elsewhere,
            refused: self.refused + other.refused,
            unrecorded: self.unrecorded + other.unrecorded,
        }
    }

    /// What came since an earlier count.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            well: self.well - earlier.well,
            elsewhere: self.elsewhere - earlier.elsewhere,
            refused: self.refused - earlier.refused,
            unrecorded: self.unrecorded - earlier.unrecorded,
        }
    }
}

/// The bytes of one call's messages, without the five of the gRPC frame.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The request.
    pub request: usize,
    /// The answer.
    pub response: usize,
}

/// How a server is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A unary rpc.
    Grpc,
    /// A GET over HTTP/1.1, with this in `authorization`.
    Get(Option<&'static str>),
}

/// A server whose calls are measured.
pub trait Server {
    /// How it is called.
    fn protocol(&self) -> Protocol {
        Protocol::Grpc
    }

    /// The URL of the rpc, or of the resource.
    fn url(&self) -> String;

    /// The messages of the requests, all equally long, which are sent in turn; a GET has none.
    fn requests(&self) -> Vec<Vec<u8>>;

    /// What it has answered. The load generator takes every gRPC error for a success, so the server is asked.
    fn answered(&self) -> Result<Answered, Error>;

    /// The processor time that it has used.
    fn cpu(&self) -> Result<Duration, Error>;

    /// Asks it to end, and waits for that.
    fn stop(self) -> Result<(), Error>;
}

/// A port of loopback that is free now.
pub fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(cannot("find a free port"))?;
    Ok(listener.local_addr().map_err(cannot("find a free port"))?.port())
}
