//! Steps with `GetToken`: from the provider, from memory, and ahead of expiry.

use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tokio::time::{interval, timeout};

use super::{
    super::{
        show::{milliseconds, short},
        stage::{SHORT_LIFE, SHORT_LIVED},
    },
    Journal, Saw, Surprise, Tour, demo, ensure, ensure_newer,
};
use crate::proto::{GetTokenRequest, Token};

/// How often the same token is asked for.
const REPEATS: u32 = 200;

/// How often somebody asks for a token that runs out.
const PACE: Duration = Duration::from_millis(20);

/// What was seen of a token that ran out.
struct Watched {
    next: Token,
    answers: u64,
    slowest: Duration,
}

impl Tour<'_> {
    pub(super) async fn first_token(&mut self) -> Result<Saw, Surprise> {
        let (journal, began) = (self.journal(), Instant::now());
        self.held = self.get(demo()).await?;
        let (took, generation) = (began.elapsed(), self.held.generation);
        let asked = self.asked(journal, 1)?;
        let saw = format!("generation {}, from the provider in {}", short(generation), milliseconds(took));
        Ok(Saw::new(asked, saw, json!({ "generation": generation, "seconds": took.as_secs_f64() })))
    }

    pub(super) async fn same_token(&mut self) -> Result<Saw, Surprise> {
        let (journal, began) = (self.journal(), Instant::now());
        for _ in 0..REPEATS {
            let token = self.get(demo()).await?;
            ensure(token == self.held, "the token of before", || format!("generation {}", token.generation))?;
        }
        let (each, generation) = (began.elapsed() / REPEATS, self.held.generation);
        let asked = self.asked(journal, 0)?;
        let saw = format!("generation {} again, from memory in {} each", short(generation), milliseconds(each));
        Ok(Saw::new(asked, saw, json!({ "generation": generation, "seconds": each.as_secs_f64() })))
    }

    pub(super) async fn replaced_ahead(&mut self) -> Result<Saw, Surprise> {
        let journal = Journal::of(&self.stage.hasty);
        let first = self.get(short_lived()).await?;
        let endless = |_| Surprise::Unexpected { expected: "a new token in time".to_owned(), got: "none".to_owned() };
        let seen = timeout(SHORT_LIFE * 2, self.watch(&first)).await.map_err(endless)??;
        let early = left(&first);
        ensure_newer(seen.next.generation, first.generation)?;
        // The first of these requests was for the token itself.
        let asked = journal.grew_by(&self.stage.hasty, 2)?;
        let when = match early {
            Some(early) => format!("replaced {:.1} s early", early.as_secs_f64()),
            None => "replaced at its end".to_owned(),
        };
        let saw = format!("fetched, {when}; slowest of {} answers {}", seen.answers, milliseconds(seen.slowest));
        let facts = json!({
            "generation": seen.next.generation,
            "replaced": first.generation,
            "early_seconds": early.unwrap_or_default().as_secs_f64(),
            "answers": seen.answers,
            "slowest_seconds": seen.slowest.as_secs_f64(),
        });
        Ok(Saw::new(asked, saw, facts))
    }

    /// Asks for a token again and again until it is another one.
    async fn watch(&mut self, first: &Token) -> Result<Watched, Surprise> {
        let mut pace = interval(PACE);
        let (mut answers, mut slowest) = (0, Duration::ZERO);
        loop {
            pace.tick().await;
            let began = Instant::now();
            let next = self.get(short_lived()).await?;
            answers += 1;
            slowest = slowest.max(began.elapsed());
            if next.generation != first.generation {
                return Ok(Watched { next, answers, slowest });
            }
        }
    }
}

fn short_lived() -> GetTokenRequest {
    GetTokenRequest { credential: SHORT_LIVED.to_owned(), ..GetTokenRequest::default() }
}

/// What is left of a token's life; `None` if that is over.
fn left(token: &Token) -> Option<Duration> {
    let end = SystemTime::try_from(token.expires_at?).ok()?;
    end.duration_since(SystemTime::now()).ok()
}
