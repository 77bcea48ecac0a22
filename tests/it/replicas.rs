//! Several real processes on one real Redis, and a real authorization server that ends a grant when a rotated refresh
//! token is used twice. Its log is the oracle.

use std::{
    collections::HashSet,
    env,
    time::{Duration, Instant, SystemTime},
};

use bearerd::proto::{
    DescribeGrantRequest, GetTokenRequest, InvalidateTokenOutcome as Outcome, grant_admin_client::GrantAdminClient,
    token_service_client::TokenServiceClient,
};
use futures_util::future::join_all;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::support::{
    Bearerd, PATIENCE, Provider, Redis, eventually, fingerprint,
    replicas::{Replicas, SEAL_KEY, configuration, files},
};

const SUBJECT: &str = "subject-canary@example.org";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_simultaneous_reports_make_one_refresh_twenty_times_in_a_row() {
    const ROUNDS: usize = 20;
    let replicas = Replicas::start(3600).await;
    let mut current = replicas.get(0).await.unwrap().generation;
    assert_eq!(replicas.refreshes().await, 1);
    for round in 1..=ROUNDS {
        let reports = join_all((0..300).map(|caller| replicas.report(caller % 3, current))).await;
        let generations: HashSet<u64> = reports.into_iter().map(|report| report.unwrap().1.generation).collect();
        assert_eq!(generations.len(), 1, "round {round}: every caller holds the same new token");
        let next = generations.into_iter().next().unwrap();
        assert!(next > current, "round {round}");
        current = next;
        assert_eq!(replicas.refreshes().await, 1 + round, "round {round}");
    }
    assert!(replicas.provider.alive(&replicas.first).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_reports_are_answered_without_the_provider() {
    let replicas = Replicas::start(3600).await;
    let old = replicas.get(0).await.unwrap().generation;
    let (outcome, new) = replicas.report(0, old).await.unwrap();
    assert_eq!(outcome, Outcome::Refreshed);
    for replica in 0..3 {
        let (outcome, token) = replicas.report(replica, old).await.unwrap();
        assert_eq!((outcome, token.generation), (Outcome::AlreadyReplaced, new.generation), "replica {replica}");
    }
    assert_eq!(replicas.refreshes().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejection_on_one_replica_reaches_the_others() {
    let replicas = Replicas::start(3600).await;
    let old = replicas.get(0).await.unwrap().generation;
    for replica in 1..3 {
        assert_eq!(replicas.get(replica).await.unwrap().generation, old, "it came from the store");
    }
    let (_, new) = replicas.report(0, old).await.unwrap();
    for replica in 1..3 {
        eventually(PATIENCE, async || replicas.get(replica).await.unwrap().generation == new.generation).await;
    }
    assert_eq!(replicas.refreshes().await, 2);
}

/// What one caller saw in a steady load.
#[derive(Default)]
struct Seen {
    calls: usize,
    expired: usize,
    slowest: Duration,
    generations: HashSet<u64>,
}

async fn keep_getting(replicas: &Replicas, replica: usize, until: Instant) -> Seen {
    let mut seen = Seen::default();
    while Instant::now() < until {
        // Whatever the answer takes: a token that had ended before it was asked for was never to be served.
        let (asked, now) = (Instant::now(), SystemTime::now());
        let token = replicas.get(replica).await.unwrap();
        seen.slowest = seen.slowest.max(asked.elapsed());
        seen.expired += usize::from(SystemTime::try_from(token.expires_at.unwrap()).unwrap() <= now);
        seen.generations.insert(token.generation);
        seen.calls += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    seen
}

/// `STEADY_SECONDS` makes it longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_steady_load_short_lived_tokens_are_refreshed_once_each_and_nobody_gets_an_expired_one() {
    let seconds = env::var("STEADY_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let replicas = Replicas::start(2).await;
    replicas.get(0).await.unwrap();
    let until = Instant::now() + Duration::from_secs(seconds);
    let all = join_all((0..30).map(|caller| keep_getting(&replicas, caller % 3, until))).await;
    let generations: HashSet<u64> = all.iter().flat_map(|seen| seen.generations.iter().copied()).collect();
    let (calls, expired): (usize, usize) = (all.iter().map(|s| s.calls).sum(), all.iter().map(|s| s.expired).sum());
    let slowest = all.iter().map(|seen| seen.slowest).max().unwrap_or_default();
    let refreshes = replicas.refreshes().await;
    println!(
        "{calls} calls in {seconds} s: {refreshes} refreshes, {} generations, slowest {slowest:?}",
        generations.len()
    );
    assert_eq!(expired, 0);
    assert!(calls > 100);
    // Each refresh made a token that was used: nothing was asked for twice. The last may have come after the load.
    assert!(refreshes >= generations.len() && refreshes <= generations.len() + 1, "{refreshes} {}", generations.len());
    // A token of 2 s lives 1.8 s after the skew and is replaced no earlier than half of that before its end.
    let most = usize::try_from(seconds).unwrap() * 10 / 9 + 2;
    assert!(refreshes <= most, "{refreshes} refreshes in {seconds} s");
    assert!(replicas.provider.alive(&replicas.first).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_holds_no_secret_and_no_subject_and_forgets_in_time() {
    let replicas = Replicas::start(120).await;
    let token = replicas.get(0).await.unwrap();
    let (_, token) = replicas.report(1, token.generation).await.unwrap();
    // On behalf of somebody, so that a subject is in play.
    let mut admin = GrantAdminClient::connect(replicas.each[0].grpc()).await.unwrap();
    let refresh = replicas.provider.mint_refresh_token("jane", "offline_access read").await;
    let import = bearerd::proto::ImportGrantRequest {
        credential: "crm".to_owned(),
        subject: SUBJECT.to_owned(),
        secret: Some(bearerd::proto::import_grant_request::Secret::RefreshToken(refresh.clone())),
        ..bearerd::proto::ImportGrantRequest::default()
    };
    admin.import_grant(import).await.unwrap();
    let ask =
        GetTokenRequest { credential: "crm".to_owned(), subject: SUBJECT.to_owned(), ..GetTokenRequest::default() };
    let hers = replicas.clients.to(2).get_token(ask).await.unwrap().into_inner().token.unwrap();
    assert_ne!(hers.access_token, token.access_token);

    let keys = replicas.redis.keys().await;
    let of = |kind: &str| keys.iter().filter(|key| key.contains(kind)).collect::<Vec<_>>();
    let (tokens, grants) = (of(":token:"), of(":grant"));
    // The third of each is the candidate's, whose revision goes on at the next import.
    assert_eq!((tokens.len(), grants.len(), of(":lease").len()), (3, 3, 0), "{keys:?}");
    for key in tokens {
        let left: i64 = replicas.redis.cli(&["PTTL", key]).await;
        assert!((60_000..=120_000).contains(&left), "{key}: {left} ms of 120 s");
    }
    for key in grants {
        assert_eq!(replicas.redis.cli::<i64>(&["PTTL", key]).await, -1, "{key}");
    }
    let everything = replicas.redis.files();
    let secrets = [&token.access_token, &hers.access_token, &replicas.first, &refresh];
    for secret in secrets.into_iter().map(String::as_str).chain([SUBJECT, "web-secret", SEAL_KEY]) {
        let found = memchr::memmem::find(&everything, secret.as_bytes()).is_some();
        assert!(!found, "the files of Redis hold {}", fingerprint(secret));
        for replica in &replicas.each {
            assert!(!replica.log().contains(secret), "a log holds {}", fingerprint(secret));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_one_process_of_an_embedded_store_loses_no_grant() {
    let provider = Provider::start(&[("ACCESS_TTL", "3600"), ("ROTATE", "1")]).await;
    let first = provider.mint_refresh_token("service", "offline_access read").await;
    let config = configuration("", &provider.token_url()).replace(
        "kind = \"redis\"\nurl = \"\"\nallow_insecure = true",
        "kind = \"embedded\"\npath = \"@DIR@/bearerd.redb\"",
    );
    let mut bearerd = Bearerd::start(&config, &files(&first)).await;
    let mut generation = 0;
    for _ in 0..5 {
        let mut client = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
        let request = GetTokenRequest {
            credential: "crm".to_owned(),
            refused_generation: generation,
            ..GetTokenRequest::default()
        };
        let token = client.get_token(request).await.unwrap().into_inner().token.unwrap();
        assert!(token.generation > generation);
        generation = token.generation;
        bearerd = bearerd.start_again(&config).await;
    }
    assert!(provider.alive(&first).await);
    let mut admin = GrantAdminClient::connect(bearerd.grpc()).await.unwrap();
    let ask = DescribeGrantRequest { credential: "crm".to_owned(), ..DescribeGrantRequest::default() };
    assert_eq!(admin.describe_grant(ask).await.unwrap().into_inner().generation, generation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_replica_ends_in_time_and_says_so_to_its_probes() {
    let mut replicas = Replicas::start(3600).await;
    replicas.get(0).await.unwrap();
    let replica = &mut replicas.each[0];
    replica.process().signal("TERM");
    eventually(PATIENCE, async || replica.process().ended().is_some()).await;
    assert!(replica.process().ended().is_some_and(|status| status.success()), "{}", replica.log());
    replicas.get(1).await.unwrap();
}

/// The provider has rotated the refresh token, Redis is away, and then the process is killed: the answer is on the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_redis_could_not_take_outlives_the_process() {
    let provider = Provider::start(&[("ACCESS_TTL", "3600"), ("ROTATE", "1"), ("LATENCY_MS", "1500")]).await;
    let mut redis = Redis::start().await;
    let first = provider.mint_refresh_token("service", "offline_access read").await;
    let config =
        configuration(&redis.url(), &provider.token_url()).replace("[seal]", "spool = \"@DIR@/spool\"\n\n[seal]");
    let bearerd = Bearerd::start(&config, &files(&first)).await;
    let mut client = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
    let ask = || GetTokenRequest { credential: "crm".to_owned(), ..GetTokenRequest::default() };
    let asking = tokio::spawn(async move { client.get_token(ask()).await.map(drop) });

    eventually(PATIENCE, async || provider.log().await.iter().any(|entry| entry.status == Some(200))).await;
    redis.kill();
    let spool = bearerd.directory().join("spool");
    let answers = || {
        spool.read_dir().unwrap().filter(|file| {
            file.as_ref().is_ok_and(|file| file.path().extension().is_some_and(|extension| extension == "answer"))
        })
    };
    eventually(PATIENCE, async || answers().count() == 1).await;
    redis.start_again().await;
    let bearerd = bearerd.start_again(&config).await;
    asking.abort();

    eventually(PATIENCE, async || answers().count() == 0).await;
    let mut client = TokenServiceClient::connect(bearerd.grpc()).await.unwrap();
    let token = client.get_token(ask()).await.unwrap().into_inner().token.unwrap();
    assert!(provider.introspect(&token.access_token).await);
    let log = provider.log().await;
    assert_eq!(log.len(), 1, "the token is the one of the answer that was kept: {log:?}");
    assert!(provider.alive(&first).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_valid_tokens_are_served_and_then_all_is_as_before() {
    let mut replicas = Replicas::start(3600).await;
    let token = replicas.get(0).await.unwrap();
    replicas.redis.kill();
    // Long enough for memory to want a look into the store.
    eventually(PATIENCE, async || replicas.get(0).await.unwrap().degraded).await;
    assert_eq!(replicas.get(0).await.unwrap().generation, token.generation);
    // Nobody refreshes a rotating grant without the store.
    for status in [replicas.get(1).await.unwrap_err(), replicas.report(0, token.generation).await.unwrap_err()] {
        let info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
        assert_eq!((status.code(), info.reason.as_str()), (tonic::Code::Unavailable, "STORE_UNAVAILABLE"));
    }
    // It can serve, and so it is ready; what needs the store is told apart.
    let readiness = async || {
        let answer = reqwest::get(format!("{}/readyz", replicas.each[0].admin())).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let health = HealthClient::new(Channel::from_shared(replicas.each[0].grpc()).unwrap().connect_lazy());
    let serves = async |service: &str| {
        let question = HealthCheckRequest { service: service.to_owned() };
        let answer = health.clone().check(question).await.unwrap().into_inner();
        answer.status() == ServingStatus::Serving
    };
    eventually(PATIENCE, async || {
        let (status, body) = readiness().await;
        assert_eq!(status, 200, "{body}");
        body.contains("degraded")
    })
    .await;
    eventually(PATIENCE, async || !serves("bearerd.v1.GrantAdmin").await).await;
    assert!(serves("").await && serves("bearerd.v1.TokenService").await);
    assert_eq!(replicas.each[0].metric("bearerd_store_up").await, 0.0);

    // One line for the change, and not one for every look (N9). It says what is done.
    let warnings: Vec<String> =
        replicas.each[0].log().lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect();
    let lost: Vec<_> = warnings.iter().filter(|line| line.contains("lost the store")).collect();
    assert_eq!(lost.len(), 1, "{warnings:?}");
    assert!(lost[0].contains("valid tokens in memory are served"), "{lost:?}");

    replicas.redis.start_again().await;
    for replica in 0..3 {
        eventually(PATIENCE, async || {
            replicas.get(replica).await.is_ok_and(|now| now.generation == token.generation && !now.degraded)
        })
        .await;
    }
    eventually(PATIENCE, async || readiness().await.1 == "ready\n").await;
    eventually(PATIENCE, async || serves("bearerd.v1.GrantAdmin").await).await;
    assert_eq!(replicas.each[0].metric("bearerd_store_up").await, 1.0);
    let (outcome, _) = replicas.report(1, token.generation).await.unwrap();
    assert_eq!(outcome, Outcome::Refreshed);
    assert_eq!(replicas.refreshes().await, 2);
}
