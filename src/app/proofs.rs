//! Reads again what proofs are made of and checked with, and hands it on when it has changed: the server's certificate,
//! authorities, and keys of issuers. They need no change of the configuration to be in use.
//!
//! Files are looked at again and again instead of being watched: Kubernetes replaces them by swapping a symbolic link
//! above them, which says nothing to whoever watches the file itself.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    config::{self, ServerTls, Source},
    identity::{Identity, KeySet, Kubernetes},
    secret::{ExposeSecret, SecretString, same},
    server::{ClientsConfig, Tls, TlsConfig},
};

/// How often files are read.
const EVERY: Duration = Duration::from_secs(2);

/// Takes what stands in the files now; the error is a few words.
type Apply = Box<dyn FnMut(&[SecretString]) -> Result<(), String> + Send>;

/// Files that make sense only together, and what is done with them.
pub(super) struct Followed {
    what: &'static str,
    sources: Vec<Source>,
    /// What was there when it was last tried, good or not, so that a bad file is told of once.
    seen: Result<Vec<SecretString>, String>,
    apply: Apply,
}

impl Followed {
    fn new(what: &'static str, sources: Vec<Source>, apply: Apply) -> Self {
        let seen = Ok(sources.iter().map(|source| source.content().clone()).collect());
        Self { what, sources, seen, apply }
    }

    fn look(&mut self) {
        let now: Result<Vec<SecretString>, String> = self.sources.iter().map(Source::read).collect();
        if is_same(&now, &self.seen) {
            return;
        }
        let outcome = now.as_ref().map_err(Clone::clone).and_then(|texts| (self.apply)(texts));
        match outcome {
            Ok(()) => info!(what = self.what, "read again, and in use from now on"),
            Err(error) => warn!(what = self.what, %error, "changed and cannot be used; what was there before stays"),
        }
        self.seen = now;
    }
}

fn is_same(one: &Result<Vec<SecretString>, String>, other: &Result<Vec<SecretString>, String>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => {
            let same = |(a, b): (&SecretString, &SecretString)| same(a.expose_secret(), b.expose_secret());
            one.len() == other.len() && one.iter().zip(other).all(same)
        }
        (Err(one), Err(other)) => one == other,
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

/// Looks at all of them for ever.
pub(super) async fn follow(mut followed: Vec<Followed>) {
    if followed.is_empty() {
        return std::future::pending().await;
    }
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // A file system that does not answer must hold up nobody else.
        let looked = spawn_blocking(move || {
            followed.iter_mut().for_each(Followed::look);
            followed
        });
        match looked.await {
            Ok(back) => followed = back,
            Err(_) => return,
        }
    }
}

/// The server's certificate and key and the authorities of callers.
pub(super) fn of_tls(read: &ServerTls, tls: &Tls) -> Followed {
    let mut sources = vec![read.certificate.clone(), read.key.clone()];
    sources.extend(read.clients.iter().map(|clients| clients.ca.clone()));
    let (base, tls) = (tls_config(read), tls.clone());
    Followed::new(
        "server.tls",
        sources,
        Box::new(move |texts| {
            let mut config = base.clone();
            let mut texts = texts.iter();
            if let (Some(certificate), Some(key)) = (texts.next(), texts.next()) {
                config.certificate = certificate.expose_secret().to_owned();
                config.key = key.clone();
            }
            if let (Some(clients), Some(ca)) = (&mut config.clients, texts.next()) {
                clients.ca = ca.expose_secret().to_owned();
            }
            tls.replace(&config).map_err(|error| error.to_string())
        }),
    )
}

/// TLS as the configuration has it.
pub(super) fn tls_config(read: &ServerTls) -> TlsConfig {
    let clients = read.clients.as_ref().map(|clients| ClientsConfig {
        ca: clients.ca.content().expose_secret().to_owned(),
        trust_domain: clients.trust_domain.clone(),
        required: clients.required,
    });
    let certificate = read.certificate.content().expose_secret().to_owned();
    TlsConfig { certificate, key: read.key.content().clone(), clients }
}

/// What a Kubernetes issuer is verified with.
pub(super) fn of_identity(read: &config::Identity, identity: &Identity) -> Vec<Followed> {
    let Some(kubernetes) = identity.kubernetes() else { return Vec::new() };
    let follow = |what, source: &Option<Source>, apply: fn(&Kubernetes, &SecretString) -> Result<(), String>| {
        let kubernetes = Arc::clone(kubernetes);
        let apply: Apply = Box::new(move |texts| texts.iter().try_for_each(|text| apply(&kubernetes, text)));
        source.clone().map(|source| Followed::new(what, vec![source], apply))
    };
    let jwks = follow("identity.kubernetes.jwks", &read.jwks, |kubernetes, text| {
        let keys = KeySet::parse(text.expose_secret().as_bytes()).map_err(|error| error.to_string())?;
        kubernetes.replace_keys(keys);
        Ok(())
    });
    let ca = follow("identity.kubernetes.ca", &read.ca, |kubernetes, text| {
        kubernetes.trust(text.expose_secret()).map_err(|_| "it is no authority in PEM".to_owned())
    });
    let token = follow("identity.kubernetes.token", &read.token, |kubernetes, text| {
        kubernetes.show(text.clone());
        Ok(())
    });
    jwks.into_iter().chain(ca).chain(token).collect()
}
