//! Answers that find another revision in the store than the one they were asked from.

use std::{sync::Arc, time::Duration};

use bearerd::{
    clock::Moment,
    failure::FailureCause,
    name::{CredentialName, Resources, Scopes, Subject},
    sandbox::{Fault, Options, Outcome, Presented, Sandbox},
    store::{
        AttemptId, Commit, GrantSecrets, Material, Place, Quarantine, Ring, Settle, Store, Unit, Verdict, Written,
        redis::{Redis as RedisStore, RedisConfig},
    },
    token::{Expiry, Generation, GrantKey, Token, TokenKey, TokenType},
};
use tonic::Code;

use crate::{
    store_redis::settings,
    support::{
        PATIENCE, Redis, eventually,
        house::{House, ROTATING, reason},
    },
};

/// A provider that keeps its answers back, so that there is time for something else to happen.
fn slow() -> Options {
    Options { latency: Duration::from_secs(1), ..Options::default() }
}

/// Another holder of the same grant, who stores what the provider never gave to this grant.
struct Rival {
    store: RedisStore,
    place: Place,
    binding: String,
}

impl Rival {
    async fn new(redis: &Redis, sandbox: &Sandbox) -> Self {
        let ring = Ring::new([("test", (0..32).collect::<Vec<u8>>().as_slice())]).unwrap();
        let settings = RedisConfig { prefix: "bearerd".into(), ..settings(&redis.url()) };
        let store = RedisStore::open(&settings, ring).await.unwrap();
        let grant = GrantKey { credential: CredentialName::new("demo").unwrap(), subject: Subject::default() };
        let scopes = Scopes::new(["read"]).unwrap();
        let key = TokenKey { grant, scopes, resources: Resources::default() };
        let place = store.names().place(Unit::Grant(&key.grant), &key);
        Self { store, place, binding: format!("{} demo-confidential", sandbox.token_url()) }
    }

    /// Commits a refresh token, whatever is there, and returns the generation.
    async fn commit(&self, refresh_token: &str) -> Generation {
        let loaded = self.store.load(&self.place).await.unwrap();
        let seeds = loaded.record.as_ref().map(|record| record.secrets.seeds.clone()).unwrap_or_default();
        let material = Material::RefreshToken(refresh_token.into());
        let secrets = GrantSecrets { material, binding: self.binding.clone(), seeds, ..GrantSecrets::default() };
        let lifetime = Duration::from_secs(300);
        let token = Token {
            value: "of-the-rival".into(),
            kind: TokenType::Bearer,
            generation: loaded.next,
            scopes: Scopes::default(),
            expiry: Some(Expiry { deadline: Moment::now().after(lifetime), lifetime, stated: true }),
        };
        let commit = Commit {
            place: &self.place,
            attempt: &AttemptId::random(),
            expected: loaded.revision(),
            next: loaded.next,
            secrets: &secrets,
            token: &token,
        };
        assert_eq!(self.store.commit(&commit).await.unwrap(), Written::Done);
        loaded.next
    }

    /// Notes that the provider gives nothing for this revision any more, whose token goes too.
    async fn die(&self, generation: Generation) {
        let settle = Settle {
            unit: &self.place.unit,
            attempt: &AttemptId::random(),
            expected: generation,
            verdict: Verdict::Dead { again: None },
            report: None,
            early: false,
            cause: FailureCause::ReauthorizationRequired,
        };
        self.store.settle(&settle).await.unwrap();
        self.store.reject(&self.place, generation, 0).await.unwrap();
    }

    async fn kept(&self) -> bool {
        self.store.load(&self.place).await.unwrap().record.is_some_and(|record| record.quarantine.is_some())
    }
}

/// Which refresh tokens were presented, as family and rotation, and whether there was a token for them.
fn presented(sandbox: &Sandbox) -> Vec<(usize, u64, bool)> {
    let place = |presented: Option<Presented>| presented.map_or((usize::MAX, 0), |at| (at.family, at.rotation));
    let entries = sandbox.journal().into_iter();
    entries
        .map(|entry| (place(entry.presented).0, place(entry.presented).1, entry.outcome == Outcome::Issued))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_is_tried_before_the_grant_is_given_up() {
    let (redis, sandbox) = (Redis::start().await, Arc::new(Sandbox::start(slow()).await.unwrap()));
    let house = House::beside(&redis, &sandbox, ROTATING).await;
    let rival = Rival::new(&redis, &sandbox).await;
    // The provider has acted, the answer is on its way, and another revision is stored meanwhile.
    let (token, generation) = tokio::join!(house.get("demo"), async {
        eventually(PATIENCE, async || house.asked() == 1).await;
        rival.commit("never-issued").await
    });
    let token = token.unwrap();
    assert_eq!((token.generation, token.access_token.as_str()), (generation.get(), "of-the-rival"));
    assert!(rival.kept().await);

    // The stored refresh token proves to be no good. The one that came too late is the first one's successor.
    let (_, newer) = house.report("demo", token.generation).await.unwrap();
    assert!(newer.unwrap().generation > token.generation);
    assert_eq!(presented(&sandbox), [(0, 0, true), (usize::MAX, 0, false), (0, 1, true)]);
    assert!(!rival.kept().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_is_tried_once() {
    let (redis, sandbox) = (Redis::start().await, Arc::new(Sandbox::start(slow()).await.unwrap()));
    let house = House::beside(&redis, &sandbox, ROTATING).await;
    let rival = Rival::new(&redis, &sandbox).await;
    let (_, generation) = tokio::join!(house.get("demo"), async {
        eventually(PATIENCE, async || house.asked() == 1).await;
        rival.commit("never-issued").await
    });
    for _ in 0..2 {
        sandbox.fail_next(Fault::ErrorWord("invalid_grant".to_owned()));
    }
    let dead = (Code::FailedPrecondition, "REAUTHORIZATION_REQUIRED".to_owned(), None);
    assert_eq!(reason(&house.report("demo", generation.get()).await.unwrap_err()), dead);
    assert_eq!(house.asked(), 3);
    assert_eq!(reason(&house.report("demo", generation.get()).await.unwrap_err()), dead);
    assert_eq!(house.asked(), 3, "a dead grant is not asked for again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_revives_a_grant_that_died_for_want_of_it() {
    let (redis, sandbox) = (Redis::start().await, Arc::new(Sandbox::start(slow()).await.unwrap()));
    let house = House::beside(&redis, &sandbox, ROTATING).await;
    let rival = Rival::new(&redis, &sandbox).await;
    let (_, ()) = tokio::join!(house.get("demo"), async {
        eventually(PATIENCE, async || house.asked() == 1).await;
        let generation = rival.commit("never-issued").await;
        rival.die(generation).await;
    });
    house.get("demo").await.unwrap();
    assert_eq!(presented(&sandbox), [(0, 0, true), (0, 1, true)]);
}

/// The answer was kept before the grant died, by somebody who has ended since and could not look again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_grant_with_a_late_answer_beside_it_is_revived() {
    let (redis, sandbox) = (Redis::start().await, Arc::new(Sandbox::start(Options::default()).await.unwrap()));
    let house = House::beside(&redis, &sandbox, ROTATING).await;
    let rival = Rival::new(&redis, &sandbox).await;
    let first = house.get("demo").await.unwrap().generation;
    let living = rival.store.load(&rival.place).await.unwrap().record.unwrap();
    let generation = rival.commit("never-issued").await;
    rival.die(generation).await;
    let late = Quarantine {
        unit: &rival.place.unit,
        attempt: &AttemptId::random(),
        expected: living.revision,
        next: Generation::new(first + 1),
        secrets: &living.secrets,
    };
    assert_eq!(rival.store.quarantine(&late).await.unwrap(), Written::Done);
    assert!(house.get("demo").await.unwrap().generation > generation.get());
    assert_eq!(presented(&sandbox), [(0, 0, true), (0, 1, true)]);
    assert!(!rival.kept().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_grant_about_a_refresh_token_of_yesterday_ends_nothing() {
    let house = House::furnished(slow(), ROTATING).await;
    house.sandbox.fail_next(Fault::ErrorWord("invalid_grant".to_owned()));
    let (token, ()) = tokio::join!(house.get("demo"), async {
        eventually(PATIENCE, async || house.asked() == 1).await;
        let secret = bearerd::proto::import_grant_request::Secret::RefreshToken(house.sandbox.mint_refresh_token("x"));
        let import = bearerd::proto::ImportGrantRequest {
            credential: "demo".to_owned(),
            secret: Some(secret),
            no_verify: true,
            ..bearerd::proto::ImportGrantRequest::default()
        };
        house.grants.clone().import_grant(import).await.unwrap();
    });
    token.unwrap();
    assert_eq!(presented(&house.sandbox), [(0, 0, false), (1, 0, true)]);
}
