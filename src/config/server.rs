//! `[server]`: where bearerd listens and what it takes from a connection.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    key::Key,
    reader::{Reader, Value},
    tls::{self, ServerTls},
    value::{Wrong, boolean, bytes, number, parsed, some_time, string},
};

pub(super) const KEYS: &[Key] = &[
    Key::new("listen"),
    Key::new("unix_socket"),
    Key::new("admin_listen"),
    Key::new("metrics"),
    Key::hidden("tls"),
    Key::new("plaintext"),
    Key::new("reflection"),
    Key::new("shutdown_timeout"),
    Key::new("max_message_bytes"),
    Key::new("max_connections"),
    Key::new("max_connections_per_address"),
    Key::new("max_connection_age"),
    Key::new("max_concurrent_streams"),
];

/// Where few connections are allowed at all, a quarter of them would be too little for a single host.
const FEWEST_PER_ADDRESS: usize = 16;

/// The listeners.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where gRPC is served over TCP; there is this or a Unix-domain socket, or both.
    pub listen: Option<SocketAddr>,
    /// The Unix-domain socket where gRPC is served; a relative path begins at the working directory.
    pub unix_socket: Option<PathBuf>,
    /// Where HTTP is served for probes and metrics.
    pub admin_listen: SocketAddr,
    /// Whether metrics are served there. They name credentials and how much each is used.
    pub metrics: bool,
    /// The server's certificate, if connections are encrypted here.
    pub tls: Option<ServerTls>,
    /// Whether another listener than loopback may go without TLS, because something in front of it encrypts.
    pub plaintext: bool,
    /// Whether the gRPC reflection service is offered.
    pub reflection: bool,
    /// How long running requests may take to end after the signal to stop.
    pub shutdown_timeout: Duration,
    /// The largest gRPC message that is taken, in bytes. What is sent is bounded by each credential's `max_response_bytes`.
    pub max_message_bytes: usize,
    /// How many connections may be open at a time.
    pub max_connections: usize,
    /// How many of them one address may have (of IPv6, one /64).
    pub max_connections_per_address: usize,
    /// How old a connection may become before its client is asked to make a new one.
    pub max_connection_age: Duration,
    /// How many requests one connection may have under way.
    pub max_concurrent_streams: u32,
}

/// Reads the table.
pub(super) fn read(reader: &Reader<'_>) -> Server {
    let unix_socket: Option<PathBuf> = reader.optional("unix_socket", string).map(PathBuf::from);
    // Whoever asks for a socket alone gets no port beside it.
    let unwritten = unix_socket.is_none().then_some(SocketAddr::from(([127, 0, 0, 1], 7443)));
    let streams = reader.optional("max_concurrent_streams", number(1..=1_000_000)).unwrap_or(1024);
    let connections = reader.optional("max_connections", bytes(1..=1_000_000)).unwrap_or(10_000);
    let admin_listen = reader.optional("admin_listen", address).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7480)));
    let server = Server {
        listen: reader.optional("listen", address).or(unwritten),
        unix_socket,
        admin_listen,
        metrics: reader.optional("metrics", boolean).unwrap_or(admin_listen.ip().is_loopback()),
        tls: reader.optional_table("tls", tls::KEYS).and_then(|reader| tls::read(&reader)),
        plaintext: reader.optional("plaintext", boolean).unwrap_or(false),
        reflection: reader.optional("reflection", boolean).unwrap_or(true),
        shutdown_timeout: reader.optional("shutdown_timeout", some_time).unwrap_or(Duration::from_secs(20)),
        max_message_bytes: reader
            .optional("max_message_bytes", bytes(4096..=256 * 1024 * 1024))
            // A body of max_request_bytes with all else that a call has.
            .unwrap_or(5 * 1024 * 1024),
        max_connections: connections,
        max_connections_per_address: reader
            .optional("max_connections_per_address", bytes(1..=1_000_000))
            .unwrap_or(connections.div_ceil(4).max(FEWEST_PER_ADDRESS)),
        max_connection_age: reader.optional("max_connection_age", some_time).unwrap_or(Duration::from_secs(30 * 60)),
        max_concurrent_streams: u32::try_from(streams).unwrap_or(u32::MAX),
    };
    fit(reader, &server);
    server
}

fn fit(reader: &Reader<'_>, server: &Server) {
    let encrypted = reader.value("tls").is_some();
    if encrypted && server.plaintext {
        reader.misfit("plaintext", "does not go with [server.tls]", "leave one of them out");
    }
    if !encrypted && !server.plaintext && server.listen.is_some_and(|listen| !listen.ip().is_loopback()) {
        reader.misfit(
            "listen",
            "is not a loopback address and would serve tokens unencrypted",
            "add [server.tls], or plaintext = true if something in front of it encrypts",
        );
    }
    if server.listen == Some(server.admin_listen) && server.admin_listen.port() != 0 {
        reader.misfit("admin_listen", "is the same address as listen", "write another port");
    }
    if encrypted && server.listen.is_none() {
        reader.misfit("tls", "is there, but a Unix-domain socket is not encrypted", "add listen, or leave it out");
    }
}

fn address(value: &Value<'_>) -> Result<SocketAddr, Wrong> {
    let right = "write an IP address and a port, for example \"127.0.0.1:7443\" or \"[::]:7443\"";
    parsed(value, "is not an address to listen on", |text| text.parse().map_err(|_| right))
}
