//! What a `GetToken` costs that is answered from memory, beside the least that it could cost: one look into the cache.
//!
//! `get_token` is the whole way through the broker, permit in hand; `moka_get` is a bare lookup of the same key, which
//! clones an `Arc`. Their ratio says what the rest of the way adds. Each is measured from one task, and from many at
//! once, which shows what the callers have to share.

use std::{collections::BTreeMap, error::Error, future::Future, hint::black_box, sync::Arc, time::Duration};

use bearerd::{
    broker::{Broker, Credential, Parts, StoreOutage, Timing},
    cache::CacheConfig,
    caller::Caller,
    clock::Clock,
    grant::{Client, ClientAuth, Endpoint, Grant, rotation::RotationProfile},
    http,
    name::{CredentialName, Resources, Scopes, Subject},
    policy::{Action, Permit, Policy, Request},
    provider::Provider,
    rejection::Rules,
    sandbox::{DEMO_CONFIDENTIAL, DEMO_SECRET, Options, Sandbox},
    store::{Ring, embedded::Embedded},
    telemetry::Telemetry,
    token::{TokenKey, Wanted},
    upstream::{Fence, Upstream},
};
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use tokio::{runtime::Runtime, task::JoinSet, time::Instant};

/// How many tasks ask at once: far more than there are threads to run them.
const TASKS: u64 = 64;

/// The token outlives every run, so that nothing but the memory is measured.
const LIFETIME: Duration = Duration::from_secs(86_400);

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::new()?;
    let directory = tempfile::tempdir()?;
    let sandbox =
        runtime.block_on(Sandbox::start(Options { access_token_lifetime: LIFETIME, ..Options::default() }))?;
    let store = Embedded::open(&directory.path().join("bench.redb"), Ring::new([("bench", [7; 32].as_slice())])?)?;
    let credential = credential(&sandbox)?;
    let name = credential.name.clone();
    let broker = runtime.block_on(async { parts(store, credential).map(Broker::start) })?;
    let permit = Policy::local_only().permit(&Caller::Local, Request::new(Action::Get, name, Subject::default()))?;
    // The one request to the provider: from here on the token is in memory.
    runtime.block_on(broker.get_token(permit.clone(), Wanted::default()))?;

    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .configure_from_args();
    measure(criterion.benchmark_group("get_token"), &runtime, through_broker(&broker, &permit));
    measure(criterion.benchmark_group("moka_get"), &runtime, bare_lookup(&permit));
    criterion.final_summary();

    assert_eq!(sandbox.journal().len(), 1, "every measured token came from memory");
    runtime.block_on(sandbox.stop());
    Ok(())
}

fn credential(sandbox: &Sandbox) -> Result<Credential, Box<dyn Error>> {
    let auth = ClientAuth::SecretBasic(DEMO_SECRET.into());
    let client = Client { id: DEMO_CONFIDENTIAL.to_owned(), auth };
    let endpoint = Endpoint { token_url: sandbox.token_url().parse()?, client, parameters: Vec::new() };
    Ok(Credential {
        name: CredentialName::new("crm")?,
        grant: Grant::ClientCredentials(endpoint),
        rotation: RotationProfile::default(),
        scopes: Scopes::new(["read", "write"])?,
        resources: Resources::default(),
        base_url: None,
        fence: Fence::default(),
        rejected_when: Rules::default(),
        default_lifetime: None,
        min_age: Duration::from_secs(10),
        refresh_ahead: Duration::from_secs(300),
        keep_alive: false,
        store_outage: StoreOutage::default(),
        call_timeout: Duration::from_secs(30),
        max_response_bytes: 1 << 20,
    })
}

fn parts(store: Embedded, credential: Credential) -> Result<Parts, Box<dyn Error>> {
    Ok(Parts {
        spool: None,
        store: Arc::new(store),
        credentials: BTreeMap::from([(credential.name.clone(), credential)]),
        timing: Timing {
            http_timeout: Duration::from_secs(10),
            commit_budget: Duration::from_secs(3),
            lease: Duration::from_secs(20),
            max_wait: Duration::from_secs(25),
        },
        cache: CacheConfig { max_tokens: 100_000, max_age: None },
        provider: Arc::new(Provider::new(http::for_token_endpoints()?)),
        upstream: Upstream::new(http::for_upstreams()?),
        telemetry: Arc::new(Telemetry::default()),
        clock: Clock::default(),
        seed: 0,
    })
}

/// Asks the broker that many times, one after the other.
fn through_broker<'a>(broker: &'a Broker, permit: &'a Permit) -> impl Fn(u64) -> Work + 'a {
    |times| {
        let (broker, permit) = (broker.clone(), permit.clone());
        Box::pin(async move {
            for _ in 0..times {
                let served = black_box(broker.get_token(permit.clone(), Wanted::default()).await);
                assert!(served.is_ok(), "a token in memory is always served");
            }
        })
    }
}

/// Looks into a cache of the same kind, by the same kind of key, that many times.
fn bare_lookup(permit: &Permit) -> impl Fn(u64) -> Work {
    let scopes = Scopes::granted(["read", "write"]);
    let key = TokenKey { grant: permit.grant().clone(), scopes, resources: Resources::default() };
    let cache = moka::sync::Cache::new(100_000);
    cache.insert(key.clone(), Arc::new(()));
    move |times| {
        let (cache, key) = (cache.clone(), key.clone());
        Box::pin(async move {
            for _ in 0..times {
                assert!(black_box(cache.get(black_box(&key))).is_some(), "what was put in is there");
            }
        })
    }
}

type Work = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Measures `ask`, which makes a task of so many requests.
fn measure(mut group: BenchmarkGroup<'_, WallTime>, runtime: &Runtime, ask: impl Fn(u64) -> Work) {
    group.throughput(Throughput::Elements(1));
    group.bench_function("one_task", |bencher| {
        bencher.iter_custom(|times| {
            let started = Instant::now();
            runtime.block_on(ask(times));
            started.elapsed()
        });
    });
    // One iteration is a request of each task.
    group.throughput(Throughput::Elements(TASKS));
    group.bench_function("many_tasks", |bencher| {
        bencher.iter_custom(|times| {
            let started = Instant::now();
            runtime.block_on(async {
                let tasks: JoinSet<()> = (0..TASKS).map(|_| ask(times)).collect();
                tasks.join_all().await;
            });
            started.elapsed()
        });
    });
    group.finish();
}
