//! Rounds of random faults under load, and an account of everything that happened in them.

use std::{
    env,
    time::{Duration, Instant},
};

use bearerd::proto::{ImportGrantRequest, grant_admin_client::GrantAdminClient, import_grant_request::Secret};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::sleep;

use super::{
    account::{Account, WAY_BACK, callers_are_content, comes_back, keep},
    faults::{self, Blow, Fault},
    load::Load,
    scene::{Scene, TAKEOVER},
    witness::{Intent, Presented, story},
};

/// `ROUNDS` and `SEED` say how many and which; each round prints the seed that repeats it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make chaos"]
async fn nothing_is_lost_but_what_cannot_be_promised() {
    play(number("SEED", 1), number("ROUNDS", 20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_rounds_lose_nothing_but_what_cannot_be_promised() {
    play(7, 3).await;
}

/// A number that is set in the environment, or this one.
pub fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

async fn play(seed: u64, rounds: u64) {
    let mut stage = Stage::set().await;
    let began = Instant::now();
    for seed in seed..seed + rounds {
        if let Err(fault) = stage.round(seed).await {
            let kept = keep(seed, &stage.scene.replicas, &stage.logs, &stage.scene.replicas.redis.changes()).await;
            panic!("{fault}\nlogs: {kept}\nagain: make chaos ROUNDS=1 FAILOVERS=0 SEED={seed}\n{}", stage.account);
        }
    }
    println!("{}in {:?}", stage.account, began.elapsed());
}

struct Stage {
    scene: Scene,
    /// The first refresh token of the grant that lives now.
    grant: String,
    /// How many refresh tokens are accounted for.
    told: usize,
    logs: String,
    account: Account,
}

impl Stage {
    async fn set() -> Self {
        let scene = Scene::strict(4).await;
        let grant = scene.replicas.first.clone();
        Self { scene, grant, told: 0, logs: String::new(), account: Account::default() }
    }

    /// One round: faults, everything well again, and a look at what became of the grant and of the callers.
    async fn round(&mut self, seed: u64) -> Result<(), String> {
        let mut random = StdRng::seed_from_u64(seed);
        let load = Load::start(&self.scene.replicas.clients, &self.scene.replicas.provider.desk());
        load.moves_on().await;
        let mut blows = Vec::new();
        for _ in 0..random.random_range(1..=2) {
            sleep(Duration::from_millis(random.random_range(0..1000))).await;
            let fault = Fault::draw(&mut random);
            blows.push(fault.strike(&mut self.scene).await);
            *self.account.faults.entry(fault.kind()).or_default() += 1;
        }
        let longest = *[1500, 1500, 4500, 9000].get(random.random_range(0..4)).unwrap();
        sleep(Duration::from_millis(random.random_range(100..longest))).await;
        faults::heal(&mut self.scene, &mut blows, &mut self.logs).await;

        let faults: Vec<Fault> = blows.iter().map(|blow| blow.fault).collect();
        let alive = comes_back(&self.scene.replicas, &self.grant, &load).await;
        let alive = alive.map_err(|fault| format!("round {seed}, {faults:?}: {fault}"))?;
        let result = self.judge(&blows, alive).await;
        let tally = load.end().await;
        let result = result.and_then(|lost| callers_are_content(&tally, &blows, lost));
        println!("round {seed}: {faults:?}: {}", result.as_ref().err().map_or("well", String::as_str));
        self.account.rounds += 1;
        self.account.tally.add(tally);
        if !alive {
            self.consent_anew().await;
        }
        result.map_err(|fault| format!("round {seed}, {faults:?}: {fault}"))
    }

    /// Accounts for every refresh token that was presented since the last time. True: a grant was lost, with an excuse.
    async fn judge(&mut self, blows: &[Blow], alive: bool) -> Result<bool, String> {
        let story = self.story().await?;
        self.account.requests = story.iter().map(|presented| presented.statuses.len()).sum();
        self.account.tokens = story.len();
        let mut lost = false;
        for at in self.told..story.len() {
            let presented = &story[at];
            for why in presented.repeats(TAKEOVER).map_err(|fault| format!("{fault}: {presented:?}"))? {
                *self.account.repeats.entry(why).or_default() += 1;
            }
            let committed = presented.window.committed.as_ref();
            let saved = committed.is_some_and(|attempt| blows.iter().any(|blow| blow.spooled.contains(attempt)));
            self.account.saved += usize::from(saved);
            if presented.ended() {
                let after_an_end = at > 0 && story[at - 1].ended() && presented.statuses.len() == 1;
                let excuse = if after_an_end { None } else { Some(self.excuse(presented, blows)?) };
                *self.account.lost.entry(excuse.unwrap_or("(and its late answer)")).or_default() += 1;
                lost = true;
            }
        }
        self.told = story.len();
        match (alive, lost) {
            (false, false) => Err("the grant has ended, and no refresh token was presented twice".to_owned()),
            _ => Ok(lost),
        }
    }

    /// Waits until Redis and the provider tell the same.
    async fn story(&self) -> Result<Vec<Presented>, String> {
        let mut story = Err(String::new());
        let give_up = Instant::now() + WAY_BACK;
        while story.is_err() && Instant::now() < give_up {
            let log = self.scene.replicas.provider.log().await;
            story = self::story(&self.scene.replicas.redis.changes(), &log);
            sleep(Duration::from_millis(50)).await;
        }
        story
    }

    fn excuse(&self, presented: &Presented, blows: &[Blow]) -> Result<&'static str, String> {
        let no_excuse = |why: &str| Err(format!("a grant was lost, {why}: {presented:?} {blows:?}"));
        for pair in presented.window.intents.windows(2) {
            let Some(sender) = self.sender(&pair[0], &pair[1]) else { return no_excuse("by nobody") };
            let mut excuses = blows.iter().filter_map(|blow| blow.excuses(sender, &pair[0], &pair[1], TAKEOVER));
            if let Some(excuse) = excuses.next() {
                return Ok(excuse);
            }
        }
        no_excuse("without an excuse")
    }

    /// The replica of the first of two attempts. Whoever asks again names the one before, so both went along its line.
    fn sender(&self, first: &Intent, second: &Intent) -> Option<usize> {
        let carried = |replica: usize, intent: &Intent| self.scene.redis_lines[replica].carried(&intent.attempt);
        let senders: Vec<usize> = (0..3).filter(|replica| carried(*replica, first)).collect();
        let other = senders.iter().find(|replica| !carried(**replica, second));
        other.or(senders.first()).copied()
    }

    /// What an operator does after a grant has ended.
    async fn consent_anew(&mut self) {
        self.grant = self.scene.replicas.provider.mint_refresh_token("service", "offline_access read").await;
        let mut admin = GrantAdminClient::connect(self.scene.replicas.each[0].grpc()).await.unwrap();
        let import = ImportGrantRequest {
            credential: "crm".to_owned(),
            secret: Some(Secret::RefreshToken(self.grant.clone())),
            no_verify: true,
            ..ImportGrantRequest::default()
        };
        admin.import_grant(import).await.unwrap();
    }
}
