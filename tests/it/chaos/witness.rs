//! What happened, from those who cannot be mistaken: the append-only file of Redis, where every intent and every commit
//! stands, and the provider's log, where every refresh token that was presented does.

use std::collections::HashMap;

use crate::support::Entry;

/// The time of one refresh token: from the write that brought it to the one that replaces it.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Who wrote that it is about to present the refresh token, in order.
    pub intents: Vec<Intent>,
    /// Whose answer ended it.
    pub committed: Option<String>,
    /// Why the grant was declared dead.
    pub dead: Option<String>,
}

/// "The refresh token was, perhaps, sent."
#[derive(Clone, Debug)]
pub struct Intent {
    /// The attempt.
    pub attempt: String,
    /// When, in µs.
    pub at: u64,
    /// What the attempt itself wrote about its failure.
    pub settled: Option<String>,
}

/// Reads the commands of Redis, of one grant.
pub fn windows(changes: &[Vec<String>]) -> Vec<Window> {
    let mut windows = vec![Window::default()];
    for words in changes {
        let (Some("HSET"), Some(true)) =
            (words.first().map(String::as_str), words.get(1).map(|key| key.ends_with(":grant")))
        else {
            continue;
        };
        let fields: HashMap<&str, &str> =
            words[2..].chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
        note(&mut windows, &fields);
    }
    windows
}

fn note(windows: &mut Vec<Window>, fields: &HashMap<&str, &str>) {
    let window = windows.last_mut().unwrap();
    let field = |name| fields.get(name).map(|value: &&str| (*value).to_owned());
    // Without a time it is the same intent again, of one whose answer was lost.
    if let (Some(attempt), Some(sent)) = (field("intent"), field("sent_us")) {
        let at = sent.parse().unwrap();
        window.intents.push(Intent { attempt, at, settled: None });
    }
    if let (Some(settled), Some(cause)) = (field("settled"), field("fail")) {
        for intent in window.intents.iter_mut().filter(|intent| intent.attempt == settled) {
            intent.settled = Some(cause.clone());
        }
    }
    window.dead = field("dead").or_else(|| window.dead.take());
    if fields.contains_key("rev") {
        // An import has no intent before it.
        let attempt = field("attempt").unwrap();
        if window.intents.iter().any(|intent| intent.attempt == attempt) {
            window.committed = Some(attempt);
        }
        windows.push(Window::default());
    }
}

/// A refresh token that was presented: its window, and what the provider answered, in order.
#[derive(Clone, Debug)]
pub struct Presented {
    pub window: Window,
    pub statuses: Vec<u16>,
}

/// Puts both together. Until both tell the same story there is none; the reason why is the error.
pub fn story(changes: &[Vec<String>], log: &[Entry]) -> Result<Vec<Presented>, String> {
    let mut tokens: Vec<(&str, Vec<u16>)> = Vec::new();
    for entry in log {
        let (Some(token), Some(status)) = (entry.presented.as_deref(), entry.status) else {
            return Err(format!("request {} is being handled", entry.n));
        };
        match tokens.iter_mut().find(|(known, _)| *known == token) {
            Some((_, statuses)) => statuses.push(status),
            None => tokens.push((token, vec![status])),
        }
    }
    // Whatever was answered ended its window, or the grant.
    let windows = windows(changes).into_iter().filter(|window| window.committed.is_some() || window.dead.is_some());
    let windows: Vec<Window> = windows.collect();
    if windows.len() != tokens.len() {
        return Err(format!("{} refresh tokens were presented, {} have an outcome", tokens.len(), windows.len()));
    }
    let together = windows.into_iter().zip(tokens);
    Ok(together.map(|(window, (_, statuses))| Presented { window, statuses }).collect())
}

impl Presented {
    /// Why a refresh token could be presented more than once, each time; the error says why it could not.
    pub fn repeats(&self, takeover: u64) -> Result<Vec<&'static str>, String> {
        let Window { intents, .. } = &self.window;
        if self.statuses.len() > intents.len() {
            return Err(format!("presented {} times with {} intents", self.statuses.len(), intents.len()));
        }
        // Each intent after the first one has to be allowed; that its request arrived is another matter.
        let why = intents.windows(2).map(|pair| match &pair[0].settled {
            Some(_) => Ok("the sender itself had no answer"),
            None if pair[1].at - pair[0].at >= takeover => Ok("the sender was not heard of for the takeover time"),
            None => Err(format!("repeated after {} ms", (pair[1].at - pair[0].at) / 1000)),
        });
        let why: Vec<_> = why.collect::<Result<_, _>>()?;
        Ok(why.into_iter().rev().take(self.statuses.len() - 1).collect())
    }

    /// Whether the grant ended here.
    pub fn ended(&self) -> bool {
        self.statuses.iter().any(|status| *status != 200)
    }
}

#[test]
fn a_history_is_read() {
    let change = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let changes = [
        "SET x:lease a",
        "HSET x:grant rev 1 since 1 attempt i sealed s made_us 1",
        "HSET x:grant intent a sent_us 10 sends 1",
        "HSET x:grant rev 2 attempt a sealed s made_us 11",
        "HSET x:grant intent b sent_us 20 sends 1",
        "HSET x:grant intent b",
        "HSET x:grant intent c sent_us 29 sends 2",
        "HSET x:grant dead REFRESH_OUTCOME_LOST",
        "HSET x:grant settled c fail REFRESH_OUTCOME_LOST failures 1 retry_us 30",
    ]
    .map(change);
    let entry = |n, token: &str, status| Entry {
        n,
        grant_type: None,
        client_id: None,
        presented: Some(token.to_owned()),
        status,
        error: None,
        issued: None,
    };
    let log = [entry(1, "r", Some(200)), entry(2, "s", Some(200)), entry(3, "s", Some(400))];
    let story = story(&changes, &log).unwrap();
    assert_eq!(story.iter().map(Presented::ended).collect::<Vec<_>>(), [false, true]);
    assert_eq!(story[0].repeats(9).unwrap(), [""; 0]);
    assert_eq!(story[1].repeats(9).unwrap(), ["the sender was not heard of for the takeover time"]);
    assert!(story[1].repeats(10).unwrap_err().contains("repeated after"));
    assert!(super::witness::story(&changes, &log[..1]).unwrap_err().contains("1 refresh tokens"));
    assert!(super::witness::story(&changes, &[entry(1, "r", None)]).is_err());
}
