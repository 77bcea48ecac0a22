//! File descriptors: each connection takes one, and so do the store, providers and upstreams. A process that gives all of them to
//! its clients can refresh no token.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::{
    config::Config,
    server::{ADMIN_CONNECTIONS, AdminConfig},
};

/// What the process itself has open, and connections to the store and to providers, at least.
const RESERVE: usize = 64;

/// Connections that are allowed however few descriptors there are.
const FEWEST: usize = 16;

/// How many connections listeners may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connections {
    pub grpc: usize,
    pub grpc_per_address: usize,
    pub admin: usize,
}

impl Connections {
    /// As configured, as far as the descriptors reach. The soft limit of the process is raised as far as needed and allowed.
    pub fn within_descriptors(config: &Config) -> Self {
        let (server, limits) = (&config.server, &config.limits);
        let configured = Self {
            grpc: server.max_connections,
            grpc_per_address: server.max_connections_per_address,
            admin: ADMIN_CONNECTIONS,
        };
        // A call under way can have a connection to its upstream.
        let outbound = RESERVE.saturating_add(limits.max_in_flight);
        let needed = configured.grpc.saturating_add(configured.admin).saturating_add(outbound);
        let limit = raise_limit(needed);
        let possible = configured.fitting(limit);
        if possible != configured {
            warn!(
                descriptors = limit,
                max_connections = possible.grpc,
                max_connections_per_address = possible.grpc_per_address,
                "server.max_connections cannot be reached: the limit of open files is too low; connections are limited to what it \
                 leaves (raise the hard limit, for example LimitNOFILE or `ulimit -Hn`, to {needed})"
            );
        }
        possible
    }

    /// How the admin port is served.
    pub fn admin(self, config: &Config) -> AdminConfig {
        AdminConfig { metrics: config.server.metrics, max_connections: self.admin }
    }

    /// Leaves a quarter of the descriptors, and at least [`RESERVE`], to everything that is no client's connection. An address
    /// keeps its part.
    fn fitting(self, limit: usize) -> Self {
        let admin = self.admin.min(limit / 8).max(1);
        let room = limit.saturating_sub(RESERVE.max(limit / 4) + admin).max(FEWEST);
        if self.grpc <= room {
            return Self { admin, ..self };
        }
        let per_address = self.grpc_per_address.saturating_mul(room).div_ceil(self.grpc).max(FEWEST);
        Self { grpc: room, grpc_per_address: per_address.min(self.grpc_per_address), admin }
    }
}

/// How many files this process may have open, after the soft limit was raised so far, if the hard limit allows it.
fn raise_limit(needed: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(needed).unwrap_or(u64::MAX).min(maximum.unwrap_or(u64::MAX));
    let Some(soft) = current.filter(|soft| *soft < wanted) else { return number(current) };
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        Ok(()) => number(Some(wanted)),
        Err(error) => {
            warn!(%error, soft, "the limit of open files cannot be raised; it stays as it is");
            number(Some(soft))
        }
    }
}

/// `None`: there is no limit.
fn number(limit: Option<u64>) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: Connections = Connections { grpc: 10_000, grpc_per_address: 2500, admin: 128 };

    /// S10.
    #[test]
    fn case_31_clients_never_get_the_descriptors_that_the_store_and_providers_need() {
        for limit in (200..3_000).chain([65_536, 1 << 20, usize::MAX]) {
            let Connections { grpc, grpc_per_address, admin } = CONFIGURED.fitting(limit);
            assert!(limit - grpc - admin >= RESERVE.max(limit / 8), "{grpc} and {admin} of {limit}");
            assert!(grpc_per_address >= FEWEST && grpc_per_address <= grpc, "{grpc_per_address} of {grpc}");
        }
        assert_eq!(CONFIGURED.fitting(1024), Connections { grpc: 640, grpc_per_address: 160, admin: 128 });
        assert_eq!(CONFIGURED.fitting(20_000), CONFIGURED, "what fits stays as it was configured");
        let few = Connections { grpc: 4, grpc_per_address: 4, admin: 128 };
        assert_eq!(few.fitting(1024), few);
        assert_eq!(CONFIGURED.fitting(0).grpc, FEWEST, "a client gets in however few there are");
    }
}
