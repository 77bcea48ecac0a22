//! The address of a Redis set-up: one server, Sentinels that know the primary, or the nodes of a cluster.

use std::{fmt, net::IpAddr};

use redis::{IntoConnectionInfo, RedisConnectionInfo};
use url::{Host, Url};

/// Where servers and cluster nodes listen if the address does not say.
const SERVER_PORT: u16 = 6379;

/// Where Sentinels listen likewise.
const SENTINEL_PORT: u16 = 26379;

/// A Redis set-up, and how to log in to its servers.
pub struct Address {
    kind: Kind,
    encrypted: bool,
    endpoints: Vec<Endpoint>,
    login: RedisConnectionInfo,
}

/// What is behind an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One server; who it is may change behind a name or a virtual address.
    Server,
    /// Sentinels, which know the primary by this name.
    Sentinel {
        /// The name that the Sentinels monitor it under.
        primary: String,
    },
    /// Some nodes of a cluster, which know the others.
    Cluster,
}

/// One host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Why a text is no address, as the end of a sentence that begins with the setting's name. It repeats nothing of the
/// text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It has no scheme and host, or characters that do not belong there.
    #[error("is not a URL")]
    NotUrl,
    /// The scheme is another one.
    #[error("has a scheme that is not known here")]
    Scheme,
    /// A path of this host instead of a host.
    #[error("names a Unix socket")]
    Socket,
    /// Nothing stands where the host should be.
    #[error("names no host")]
    NoHost,
    /// A part of the list of hosts is empty or is no `host:port`.
    #[error("has a list with something in it that is no host:port")]
    BadHost,
    /// A list of hosts for a single server.
    #[error("names several hosts")]
    SeveralHosts,
    /// Something follows `?` or `#`.
    #[error("has a query or fragment")]
    Query,
    /// What follows the host, or the primary's name, is no number.
    #[error("has a path that is no database number")]
    Database,
    /// The Sentinels are not told which primary is meant.
    #[error("does not name the primary that the Sentinels are asked for")]
    NoPrimary,
    /// A primary's name that no Sentinel would take.
    #[error("has a name of a primary that Sentinels do not know")]
    PrimaryName,
    /// A cluster with a database number.
    #[error("has a path, but a cluster has only one database")]
    ClusterPath,
}

impl AddressError {
    /// What would be right.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NotUrl | Self::NoHost | Self::Query | Self::Database => {
                "write it in the form \"redis://host:6379/0\" or \"rediss://host:6379/0\", with '/', '#', '?' and '@' in a \
                 password percent-encoded (%2F, %23, %3F, %40), or leave the password to password = { file = \"…\" }"
            }
            Self::Socket => "bearerd reaches Redis over TCP only: write redis://127.0.0.1:6379",
            Self::Scheme => {
                "known are redis://, redis+sentinel:// and redis+cluster://, rediss in place of redis for TLS, and valkey in \
                 place of redis"
            }
            Self::BadHost => {
                "write the hosts as \"h1:6379,h2:6379,[2001:db8::3]:6379\", with '/', '#', '?' and '@' in a password \
                 percent-encoded (%2F, %23, %3F, %40)"
            }
            Self::SeveralHosts => "several hosts go with redis+sentinel:// or redis+cluster://",
            Self::NoPrimary => "write it in the form \"redis+sentinel://h1:26379,h2:26379/mymaster\"",
            Self::PrimaryName => "a name that Sentinels monitor has letters, digits, '.', '-' and '_'",
            Self::ClusterPath => "write it in the form \"redis+cluster://h1:6379,h2:6379\"",
        }
    }
}

impl Address {
    /// Reads `redis://host`, `redis+sentinel://h1,h2/primary`, `redis+cluster://h1,h2`, or one of these with `rediss`.
    /// A name and password in front of the first host belong to the servers that hold data.
    ///
    /// # Errors
    ///
    /// Any other form.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = split(text)?;
        if scheme.ends_with("unix") {
            return Err(AddressError::Socket);
        }
        let known = [("rediss", true), ("valkeys", true), ("redis", false), ("valkey", false)];
        let form = known.iter().find_map(|(name, encrypted)| Some((*encrypted, scheme.strip_prefix(name)?)));
        let (encrypted, form) = form.ok_or(AddressError::Scheme)?;
        if rest.contains(['?', '#']) {
            return Err(AddressError::Query);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (kind, port, database) = kind(form, path)?;
        let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        let endpoints: Vec<Endpoint> = hosts.split(',').map(|host| endpoint(host, port)).collect::<Result<_, _>>()?;
        if kind == Kind::Server && endpoints.len() > 1 {
            return Err(AddressError::SeveralHosts);
        }
        Ok(Self { kind, encrypted, endpoints, login: login(user)?.set_db(database) })
    }

    /// What is behind it.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Whether connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Whether a user name or a password stands in it.
    pub fn has_login(&self) -> bool {
        self.login.username().is_some() || self.login.password().is_some()
    }

    /// Whether a password stands in it.
    pub fn has_password(&self) -> bool {
        self.login.password().is_some()
    }

    /// Whether what is kept there stays on this host. Sentinels and nodes of a cluster that do run here can name any other
    /// host as the one that has the data.
    pub fn stays_on_this_host(&self) -> bool {
        self.kind == Kind::Server && self.endpoints.iter().all(Endpoint::is_loopback)
    }

    /// Whether another address leads to the same data, whoever logs in there.
    pub fn leads_where(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.encrypted == other.encrypted
            && self.endpoints == other.endpoints
            && self.login.db() == other.login.db()
    }

    /// The server, the Sentinels or the first nodes.
    pub(super) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Name, password and database for the servers that hold data.
    pub(super) fn login(&self) -> &RedisConnectionInfo {
        &self.login
    }
}

impl Endpoint {
    /// Reads `host:port` as servers write it, where the address of IPv6 stands without brackets.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }

    fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            // The one name that cannot lead elsewhere (RFC 6761 §6.3).
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

fn split(text: &str) -> Result<(&str, &str), AddressError> {
    let (scheme, rest) = text.split_once(':').ok_or(AddressError::NotUrl)?;
    // An IPv6 address or a text with spaces has a colon too.
    if scheme.is_empty() || !scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+') {
        return Err(AddressError::NotUrl);
    }
    Ok((scheme, rest.strip_prefix("//").ok_or(AddressError::NoHost)?))
}

/// What the end of the scheme and the path say together, with the port that goes with it, and the database.
fn kind(form: &str, path: &str) -> Result<(Kind, u16, i64), AddressError> {
    match form {
        "" => Ok((Kind::Server, SERVER_PORT, database(path)?)),
        "+sentinel" => {
            let (primary, number) = path.split_once('/').unwrap_or((path, ""));
            let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            match primary {
                "" => Err(AddressError::NoPrimary),
                name if !name.chars().all(known) => Err(AddressError::PrimaryName),
                name => Ok((Kind::Sentinel { primary: name.to_owned() }, SENTINEL_PORT, database(number)?)),
            }
        }
        "+cluster" if path.is_empty() => Ok((Kind::Cluster, SERVER_PORT, 0)),
        "+cluster" => Err(AddressError::ClusterPath),
        _ => Err(AddressError::Scheme),
    }
}

fn database(path: &str) -> Result<i64, AddressError> {
    match path {
        "" => Ok(0),
        number => number.parse::<u32>().map(i64::from).map_err(|_| AddressError::Database),
    }
}

fn endpoint(text: &str, port: u16) -> Result<Endpoint, AddressError> {
    if text.is_empty() {
        return Err(AddressError::NoHost);
    }
    let url = Url::parse(&format!("redis://{text}")).map_err(|_| AddressError::BadHost)?;
    let host = match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => return Err(AddressError::BadHost),
    };
    Ok(Endpoint { host, port: url.port().unwrap_or(port) })
}

/// The client library decodes what is encoded in name and password.
fn login(user: &str) -> Result<RedisConnectionInfo, AddressError> {
    let info = format!("redis://{user}@host").into_connection_info().map_err(|_| AddressError::NotUrl)?;
    Ok(info.redis_settings().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(address: &Address) -> String {
        let hosts: Vec<String> = address.endpoints().iter().map(Endpoint::to_string).collect();
        let login = address.login();
        let user = (login.username().unwrap_or("-"), login.password().unwrap_or("-"));
        let tls = if address.is_encrypted() { "tls" } else { "tcp" };
        format!("{:?} {tls} {} {}:{} {}", address.kind(), hosts.join(","), user.0, user.1, login.db())
    }

    #[test]
    fn each_form_is_read() {
        let sentinel = "Sentinel { primary: \"my.master-1\" }";
        for (text, expected) in [
            ("redis://h", "Server tcp h:6379 -:- 0"),
            ("redis://h/", "Server tcp h:6379 -:- 0"),
            ("rediss://h:7000/3", "Server tls h:7000 -:- 3"),
            ("redis://:pw@10.0.0.1", "Server tcp 10.0.0.1:6379 -:pw 0"),
            ("redis://me:a%40b%2Fc@[::1]:7000", "Server tcp [::1]:7000 me:a@b/c 0"),
            ("redis+sentinel://a/my.master-1", &format!("{sentinel} tcp a:26379 -:- 0")),
            ("redis+sentinel://a:1,b,[::1]/my.master-1/2", &format!("{sentinel} tcp a:1,b:26379,[::1]:26379 -:- 2")),
            ("rediss+sentinel://me:pw@a,b/my.master-1", &format!("{sentinel} tls a:26379,b:26379 me:pw 0")),
            ("redis+cluster://a,b:7001,c", "Cluster tcp a:6379,b:7001,c:6379 -:- 0"),
            ("rediss+cluster://me:pw@a/", "Cluster tls a:6379 me:pw 0"),
            ("valkey://h", "Server tcp h:6379 -:- 0"),
            ("valkeys://h:7000/3", "Server tls h:7000 -:- 3"),
            ("valkeys+sentinel://a/my.master-1", &format!("{sentinel} tls a:26379 -:- 0")),
        ] {
            let address = Address::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(shown(&address), expected, "{text}");
            assert_eq!(address.has_login(), text.contains('@'), "{text}");
        }
    }

    #[test]
    fn this_host_is_known_by_all_its_names() {
        for (text, stays) in [
            ("redis://localhost", true),
            ("redis://LOCALHOST:7000/1", true),
            ("redis://127.0.0.1", true),
            ("redis://127.9.9.9", true),
            ("redis://[::1]", true),
            ("redis://[::ffff:127.0.0.1]", true),
            ("redis+cluster://127.0.0.1:7000,127.0.0.1:7001", false),
            ("redis+cluster://127.0.0.1,redis-1", false),
            ("redis+sentinel://localhost/mymaster", false),
            ("redis+sentinel://sentinel/mymaster", false),
            ("redis://redis", false),
            ("redis://localhost.example", false),
            ("redis://127.0.0.1.example", false),
            ("redis://0.0.0.0", false),
            ("redis://10.0.0.1", false),
            ("redis://[fd00::1]", false),
        ] {
            assert_eq!(Address::parse(text).unwrap().stays_on_this_host(), stays, "{text}");
        }
        for (text, password) in [("redis://h", false), ("redis://me@h", false), ("redis://:pw@h", true)] {
            assert_eq!(Address::parse(text).unwrap().has_password(), password, "{text}");
        }
    }

    #[test]
    fn each_mistake_is_told() {
        use AddressError::{
            BadHost, ClusterPath, Database, NoHost, NoPrimary, NotUrl, PrimaryName, Query, Scheme, SeveralHosts, Socket,
        };
        for (text, expected) in [
            ("", NotUrl),
            ("h", NotUrl),
            ("a b://h", NotUrl),
            ("redis://me@you@h\u{7f}:99999", BadHost),
            ("http://h", Scheme),
            ("redis+sentinels://h/m", Scheme),
            ("rediscluster://h", Scheme),
            ("unix:///run/redis.sock", Socket),
            ("redis+unix:///run/redis.sock", Socket),
            // A password that is not percent-encoded.
            ("redis://:a/b@h", Database),
            ("redis://:a#b@h", Query),
            ("redis://:a?b@h", Query),
            ("redis:h", NoHost),
            ("redis://", NoHost),
            ("redis+cluster://a,,b", NoHost),
            ("redis+cluster://a,", NoHost),
            ("redis+cluster://a,b:x", BadHost),
            ("redis+sentinel://a b/m", BadHost),
            ("redis://a,b", SeveralHosts),
            ("redis://h?db=1", Query),
            ("redis+cluster://h#x", Query),
            ("redis://h/x", Database),
            ("redis://h/-1", Database),
            ("redis+sentinel://h/m/x", Database),
            ("redis+sentinel://h/m/1/2", Database),
            ("redis+sentinel://h", NoPrimary),
            ("redis+sentinel://h//1", NoPrimary),
            ("redis+sentinel://h/my%20master", PrimaryName),
            ("redis+cluster://h/0", ClusterPath),
        ] {
            assert_eq!(Address::parse(text).err(), Some(expected), "{text}");
            assert!(!text.contains('@') || expected.remedy().contains("percent-encoded"), "{text}");
        }
    }
}
