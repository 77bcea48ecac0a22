//! Answers that wait in the spool of a real process, and what becomes of them when it starts again.

use std::{fs, path::PathBuf};

use bearerd::proto::{
    GetTokenRequest, InvalidateTokenRequest, Token, invalidate_token_request::Rejected,
    token_service_client::TokenServiceClient,
};
use tonic::{Code, Status};

use crate::support::{
    Bearerd, PATIENCE, Provider, Redis, eventually,
    house::reason,
    replicas::{configuration, files},
};

/// Where a record is kept that is damaged.
const ASIDE: &str = "aside";

/// A replica with a spool, and a strict provider that keeps its answers back, so that something can happen meanwhile.
struct Scene {
    provider: Provider,
    redis: Redis,
    bearerd: Bearerd,
    config: String,
    first: String,
}

impl Scene {
    async fn new() -> Self {
        let provider = Provider::start(&[("ACCESS_TTL", "3600"), ("ROTATE", "1"), ("LATENCY_MS", "1500")]).await;
        let redis = Redis::start().await;
        let first = provider.mint_refresh_token("service", "offline_access read").await;
        let config =
            configuration(&redis.url(), &provider.token_url()).replace("[seal]", "spool = \"@DIR@/spool\"\n\n[seal]");
        let bearerd = Bearerd::start(&config, &files(&first)).await;
        Self { provider, redis, bearerd, config, first }
    }

    /// Asks in the background.
    async fn ask(&self) -> tokio::task::JoinHandle<Result<Token, Status>> {
        let mut client = TokenServiceClient::connect(self.bearerd.grpc()).await.unwrap();
        tokio::spawn(async move {
            let request = GetTokenRequest { credential: "crm".to_owned(), ..GetTokenRequest::default() };
            client.get_token(request).await.map(|answer| answer.into_inner().token.unwrap())
        })
    }

    async fn get(&self) -> Token {
        self.ask().await.await.unwrap().unwrap()
    }

    /// The token that replaces this one.
    async fn replaced(&self, token: &Token) -> Token {
        let mut client = TokenServiceClient::connect(self.bearerd.grpc()).await.unwrap();
        let request = InvalidateTokenRequest {
            credential: "crm".to_owned(),
            rejected: Some(Rejected::Generation(token.generation)),
            ..InvalidateTokenRequest::default()
        };
        client.invalidate_token(request).await.unwrap().into_inner().token.unwrap()
    }

    /// Waits until the provider has acted; its answer is still on the way then.
    async fn has_acted(&self) {
        eventually(PATIENCE, async || self.provider.log().await.iter().any(|entry| entry.status == Some(200))).await;
    }

    fn answers(&self) -> Vec<PathBuf> {
        let files = self.bearerd.directory().join("spool").read_dir().unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "answer")).collect()
    }

    async fn grant(&self) -> String {
        self.redis.keys().await.into_iter().find(|key| key.ends_with(":grant")).unwrap()
    }

    /// Damages the record while the provider answers; the answer goes into the spool then. The record as it was is kept aside.
    async fn answer_for_a_damaged_record(&self) -> String {
        let asking = self.ask().await;
        self.has_acted().await;
        let grant = self.grant().await;
        let _: () = self.redis.cli(&["RENAME", &grant, ASIDE]).await;
        let _: () = self.redis.cli(&["SET", &grant, "of another type"]).await;
        let (code, word, _) = reason(&asking.await.unwrap().unwrap_err());
        assert_eq!((code, word.as_str()), (Code::DataLoss, "RECORD_UNREADABLE"));
        assert_eq!(self.answers().len(), 1);
        grant
    }

    async fn start_again(mut self) -> Self {
        self.bearerd = self.bearerd.start_again(&self.config).await;
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_for_a_record_that_cannot_be_read_is_there_when_it_was_mended() {
    let scene = Scene::new().await;
    let grant = scene.answer_for_a_damaged_record().await;
    // Also for a process that was started meanwhile.
    let scene = scene.start_again().await;
    eventually(PATIENCE, async || scene.bearerd.log().contains("an answer that waits cannot be stored yet")).await;
    assert_eq!(scene.answers().len(), 1);

    let _: () = scene.redis.cli(&["DEL", &grant]).await;
    eventually(PATIENCE, async || scene.answers().is_empty()).await;
    let token = scene.get().await;
    assert!(scene.provider.introspect(&token.access_token).await);
    assert_eq!(scene.provider.log().await.len(), 1, "the token is the one of the answer that was kept");
    assert!(scene.provider.alive(&scene.first).await);
}

/// The record is put back as it was, with the refresh token that the answer replaces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_record_comes_back_does_not_present_the_spent_refresh_token() {
    let scene = Scene::new().await;
    let grant = scene.answer_for_a_damaged_record().await;
    let _: () = scene.redis.cli(&["RENAME", ASIDE, &grant]).await;
    eventually(PATIENCE, async || match scene.ask().await.await.unwrap() {
        Ok(token) => scene.provider.introspect(&token.access_token).await,
        Err(status) => {
            let word = reason(&status).1;
            assert!(matches!(&*word, "REFRESH_IN_PROGRESS" | "REFRESH_OUTCOME_UNKNOWN"), "{word}");
            false
        }
    })
    .await;
    assert_eq!(scene.provider.log().await.len(), 1, "it was presented once");
    assert!(scene.provider.alive(&scene.first).await);
    eventually(PATIENCE, async || scene.answers().is_empty()).await;
}

/// As if the process had been killed between the commit and the removal of the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_stored_long_ago_is_not_kept_for_another_try() {
    let mut scene = Scene::new().await;
    let asking = scene.ask().await;
    scene.has_acted().await;
    scene.redis.kill();
    eventually(PATIENCE, async || scene.answers().len() == 1).await;
    let file = scene.answers().remove(0);
    let content = fs::read(&file).unwrap();
    scene.redis.start_again().await;
    asking.await.unwrap().ok();
    eventually(PATIENCE, async || scene.answers().is_empty()).await;
    let first = scene.get().await;
    let second = scene.replaced(&first).await;
    assert!(second.generation > first.generation);

    scene.bearerd.process().kill();
    fs::write(&file, content).unwrap();
    let scene = scene.start_again().await;
    eventually(PATIENCE, async || scene.answers().is_empty()).await;
    let kept: Option<String> = scene.redis.cli(&["HGET", &scene.grant().await, "q_rev"]).await;
    assert_eq!(kept, None, "its refresh token is spent");
    assert_eq!(scene.get().await.generation, second.generation);
    assert!(scene.provider.alive(&scene.first).await);
}
