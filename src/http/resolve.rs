//! Names to addresses, for calls to protected APIs: only addresses that may be connected to come back, and the
//! connection goes to one of them. There is no second lookup, so a name that answers differently a moment later (DNS
//! rebinding) gains nothing.

use std::{
    error::Error,
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::client::legacy::connect::dns::Name;
use tower::Service;

use super::address::{AddressKind, kind};

/// How far a name may lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// To public addresses.
    #[default]
    Public,
    /// To private ones too. Never to a metadata service or a link-local address.
    Private,
}

/// Asks for the addresses of a name.
pub type Lookup = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> + Send + Sync>;

/// The lookup of the operating system.
pub fn system() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// A name leads only to where it may not. For the log: callers are not told addresses.
#[derive(Debug, thiserror::Error)]
#[error("{name} leads to {addresses}, which {why}")]
pub struct NotAllowed {
    name: String,
    addresses: String,
    why: &'static str,
}

/// A resolver that leaves out what may not be connected to.
#[derive(Clone)]
pub(super) struct Filter {
    pub(super) lookup: Lookup,
    pub(super) reach: Reach,
}

type BoxError = Box<dyn Error + Send + Sync>;
type Resolving = Pin<Box<dyn Future<Output = Result<std::vec::IntoIter<SocketAddr>, BoxError>> + Send>>;

impl Service<Name> for Filter {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Resolving;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Resolving {
        let (name, reach) = (name.as_str().to_owned(), self.reach);
        let found = (self.lookup)(name.clone());
        Box::pin(async move { Ok(allowed(name, found.await?, reach)?.into_iter()) })
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({:?})", self.reach)
    }
}

fn allowed(name: String, found: Vec<IpAddr>, reach: Reach) -> Result<Vec<SocketAddr>, NotAllowed> {
    let local = is_localhost(&name);
    let good = |address: &IpAddr| if local { address.to_canonical().is_loopback() } else { reach.covers(*address) };
    let (good, bad): (Vec<IpAddr>, Vec<IpAddr>) = found.into_iter().partition(good);
    if good.is_empty() && !bad.is_empty() {
        return Err(refusal(name, &bad, local));
    }
    Ok(good.into_iter().map(|address| SocketAddr::new(address, 0)).collect())
}

fn refusal(name: String, bad: &[IpAddr], local: bool) -> NotAllowed {
    let addresses = bad.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let why = match (local, bad.iter().copied().map(kind).max()) {
        (true, _) => "is not this host",
        (false, Some(AddressKind::Never)) => "is never called: link-local, multicast, unspecified, or cloud metadata",
        (false, Some(AddressKind::Private | AddressKind::Public) | None) => {
            "is not public; allow_private_addresses = true in the credential would allow it"
        }
    };
    NotAllowed { name, addresses, why }
}

/// A name that means this host, wherever it is asked for (RFC 6761 §6.3).
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

impl Reach {
    fn covers(self, address: IpAddr) -> bool {
        match kind(address) {
            AddressKind::Public => true,
            AddressKind::Private => self == Self::Private,
            AddressKind::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The addresses that are left, or `None` if the name is refused.
    fn left(name: &str, found: &[&str], reach: Reach) -> Option<Vec<String>> {
        let found = found.iter().map(|address| address.parse().unwrap()).collect();
        let left = allowed(name.to_owned(), found, reach).ok()?;
        Some(left.into_iter().map(|address| address.ip().to_string()).collect())
    }

    #[test]
    fn e007_only_what_may_be_connected_to_is_left() {
        use Reach::{Private, Public};
        for (name, found, reach, expected) in [
            ("api.example", &["1.1.1.1"][..], Public, Some(&["1.1.1.1"][..])),
            ("api.example", &["10.0.0.1", "1.1.1.1", "::1"], Public, Some(&["1.1.1.1"])),
            ("api.example", &["10.0.0.1"], Public, None),
            ("api.example", &["::ffff:10.0.0.1"], Public, None),
            ("api.example", &["10.0.0.1", "127.0.0.1"], Private, Some(&["10.0.0.1", "127.0.0.1"])),
            ("api.example", &["169.254.169.254"], Private, None),
            ("api.example", &["169.254.169.254", "10.0.0.1"], Private, Some(&["10.0.0.1"])),
            ("api.example", &["fd00:ec2::254", "::ffff:169.254.169.254"], Private, None),
            // The operator wrote the name of this host, and it leads nowhere else.
            ("localhost", &["127.0.0.1", "::1"], Public, Some(&["127.0.0.1", "::1"])),
            ("LOCALHOST.", &["127.0.0.1"], Public, Some(&["127.0.0.1"])),
            ("a.localhost", &["127.0.0.1", "1.1.1.1"], Public, Some(&["127.0.0.1"])),
            ("a.localhost", &["10.0.0.1"], Private, None),
            ("notlocalhost", &["127.0.0.1"], Public, None),
            ("localhost.example", &["127.0.0.1"], Public, None),
            // A name without addresses is a name without addresses.
            ("api.example", &[], Public, Some(&[])),
        ] {
            let expected = expected.map(|texts| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
            assert_eq!(left(name, found, reach), expected, "{name} {found:?} {reach:?}");
        }
    }

    #[test]
    fn the_log_is_told_what_to_do() {
        let refused = |found: &str| {
            let found = vec![found.parse().unwrap()];
            allowed("api.example".to_owned(), found, Reach::Public).err().unwrap().to_string()
        };
        let private = refused("10.0.0.1");
        for part in ["api.example", "10.0.0.1", "allow_private_addresses"] {
            assert!(private.contains(part), "{private}");
        }
        assert!(!refused("169.254.169.254").contains("allow_private_addresses"));
    }
}
