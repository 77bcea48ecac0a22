//! A provider that rotates refresh tokens, as slow as it is told to be, and counts who asked. It knows every subject: the
//! sandbox looks through all live tokens whenever it issues one, which a hundred thousand of them make slow. It is this
//! same program, started once more.

use std::{
    collections::HashMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use axum::{Form, Router, extract::State, http::StatusCode, response::IntoResponse, routing::post};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::net::TcpListener;

use super::child::{Child, tell};
use crate::{
    bench::Bench,
    error::{Error, cannot, failed},
};

/// A running provider.
pub struct Provider(Child);

/// What it has counted since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Requests.
    pub requests: u64,
    /// Those whose refresh token was not the newest one.
    pub refused: u64,
    /// Requests in each second since the first one.
    pub seconds: Vec<u64>,
}

impl Provider {
    /// Starts one on the core of the load. It keeps each answer back for some time, and its tokens live so long.
    pub fn start(bench: &Bench, latency: Duration, lifetime: Duration) -> Result<Self, Error> {
        let mut command = bench.cores.load(bench.itself()?);
        command.args(["serve-provider", &latency.as_millis().to_string(), &lifetime.as_secs().to_string()]);
        Child::start(&mut command, "the provider").map(Self)
    }

    /// The token endpoint.
    pub fn token_url(&self) -> String {
        format!("http://{}/token", self.0.address)
    }

    /// What it has counted.
    pub fn asked(&self) -> Result<Asked, Error> {
        let text = self.0.ask()?;
        let numbers: Result<Vec<u64>, _> = text.split(' ').map(str::parse).collect();
        match numbers.as_deref() {
            Ok([requests, refused, seconds @ ..]) => {
                Ok(Asked { requests: *requests, refused: *refused, seconds: seconds.to_vec() })
            }
            Ok(_) | Err(_) => Err(failed(format!("the provider says something new: {text}"))),
        }
    }
}

/// The refresh token that a subject's grant begins with.
pub fn first_refresh_token(subject: &str) -> String {
    refresh_token(subject, 0)
}

/// As long as most are, and the same one never comes again.
fn refresh_token(subject: &str, rotation: u64) -> String {
    format!("rt.{:x>30}.{rotation}", format!(".{subject}"))
}

/// What the process knows.
struct Knowledge {
    latency: Duration,
    lifetime: u64,
    began: Instant,
    /// How often each grant was refreshed; one that is missing never was.
    rotations: HashMap<String, u64>,
    asked: Asked,
}

impl Knowledge {
    /// Takes a refresh token, if it is the newest one, for the next.
    fn rotate(&mut self, presented: &str) -> Option<(String, String)> {
        self.count();
        let next = self.next(presented);
        self.asked.refused += u64::from(next.is_none());
        next
    }

    fn count(&mut self) {
        if self.asked.requests == 0 {
            self.began = Instant::now();
        }
        self.asked.requests += 1;
        let second = usize::try_from(self.began.elapsed().as_secs()).unwrap_or_default();
        if self.asked.seconds.len() <= second {
            self.asked.seconds.resize(second + 1, 0);
        }
        if let Some(count) = self.asked.seconds.get_mut(second) {
            *count += 1;
        }
    }

    fn next(&mut self, presented: &str) -> Option<(String, String)> {
        let (grant, rotation) = presented.rsplit_once('.')?;
        let rotation: u64 = rotation.parse().ok()?;
        let kept = self.rotations.entry(grant.to_owned()).or_default();
        if *kept != rotation {
            return None;
        }
        *kept += 1;
        Some((format!("at{grant}.{kept}.{:x>8}", ""), format!("{grant}.{kept}")))
    }
}

#[derive(Deserialize)]
struct Question {
    refresh_token: String,
}

async fn token(State(knowledge): State<Arc<Mutex<Knowledge>>>, Form(question): Form<Question>) -> impl IntoResponse {
    let (issued, latency, lifetime) = {
        let mut knowledge = knowledge.lock();
        (knowledge.rotate(&question.refresh_token), knowledge.latency, knowledge.lifetime)
    };
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let json = [("content-type", "application/json"), ("cache-control", "no-store")];
    match issued {
        Some((access, refresh)) => {
            let body = format!(
                r#"{{"access_token":"{access}","token_type":"Bearer","expires_in":{lifetime},"refresh_token":"{refresh}"}}"#
            );
            (StatusCode::OK, json, body)
        }
        None => (StatusCode::BAD_REQUEST, json, r#"{"error":"invalid_grant"}"#.to_owned()),
    }
}

/// Serves until it is killed; this is what the child process does.
pub fn serve(latency: &str, lifetime: &str) -> Result<(), Error> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| failed(format!("{text} is no number")));
    let knowledge = Arc::new(Mutex::new(Knowledge {
        latency: Duration::from_millis(number(latency)?),
        lifetime: number(lifetime)?,
        began: Instant::now(),
        rotations: HashMap::new(),
        asked: Asked::default(),
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(cannot("start the runtime"))?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(cannot("listen"))?;
        let address = listener.local_addr().map_err(cannot("listen"))?.to_string();
        let told = Arc::clone(&knowledge);
        thread::spawn(move || tell(&address, || in_words(&told.lock().asked)));
        let router = Router::new().route("/token", post(token)).with_state(knowledge);
        axum::serve(listener, router).await.map_err(cannot("serve"))
    })
}

fn in_words(asked: &Asked) -> String {
    let numbers = [asked.requests, asked.refused].into_iter().chain(asked.seconds.iter().copied());
    numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_token_is_taken_once() {
        let asked = Asked::default();
        let (latency, rotations) = (Duration::ZERO, HashMap::new());
        let mut knowledge = Knowledge { latency, lifetime: 60, began: Instant::now(), rotations, asked };
        let (first, other) = (first_refresh_token("ada"), first_refresh_token("grace"));
        let (access, second) = knowledge.rotate(&first).unwrap();
        assert_eq!(knowledge.rotate(&first), None);
        let (next_access, third) = knowledge.rotate(&second).unwrap();
        assert!(access != next_access && second != third);
        assert!(knowledge.rotate(&other).is_some() && knowledge.rotate("what").is_none());
        assert_eq!((knowledge.asked.requests, knowledge.asked.refused), (5, 2));
    }
}
