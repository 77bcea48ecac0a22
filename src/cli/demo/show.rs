//! How the tour looks: a line for each step, or a JSON object.

use std::{future::Future, time::Duration};

use serde::Serialize;

use super::{
    super::output::{Exit, Failure, Streams},
    Saw, Surprise,
    stage::LATENCY,
    stay::Invitation,
};

/// The width of what a step does.
const WIDTH: usize = 42;

/// Where what a step saw begins: beside what it did, or below it.
const BESIDE: usize = WIDTH + 12;
const BELOW: usize = 6;

/// Where a line ends at the latest.
const LINE: usize = 80;

/// Shows the tour.
pub struct Show<'s, 'o> {
    streams: &'s mut Streams<'o>,
    json: bool,
    steps: u32,
}

#[derive(Serialize)]
struct StepJson<'a> {
    step: u32,
    did: &'a str,
    good: bool,
    #[serde(flatten)]
    saw: Option<&'a Saw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<'s, 'o> Show<'s, 'o> {
    /// A show on these streams.
    pub fn new(streams: &'s mut Streams<'o>, json: bool) -> Self {
        Self { streams, json, steps: 0 }
    }

    /// Says what is going to be seen.
    pub fn open(&mut self) -> Result<(), Failure> {
        self.text(&format!(
            "A provider that rotates refresh tokens, an API that wants access tokens, and\n\
             bearerd between them: real servers in this process, on loopback. The provider\n\
             takes {} for an answer; \"asked\" counts token requests in its journal. A\n\
             generation is a token's number, which only grows; its last digits stand here.\n\n    \
             {:<WIDTH$} asked  what happened\n",
            milliseconds(LATENCY),
            "what is done"
        ))
    }

    /// Shows one step, what it does before and what it saw after it; one that fails ends the tour.
    pub async fn step(&mut self, did: &str, step: impl Future<Output = Result<Saw, Surprise>>) -> Result<(), Failure> {
        self.steps += 1;
        let number = self.steps;
        self.text(&format!("{number:>2}  {did:<WIDTH$} "))?;
        let (saw, error) = match step.await {
            Ok(saw) => (Some(saw), None),
            Err(surprise) => (None, Some(surprise.to_string())),
        };
        match (&saw, &error) {
            (Some(saw), _) => self.text(&format!("{:>5}{}\n", saw.asked, wrapped(&saw.saw)))?,
            (None, error) => {
                let failed = format!("FAILED: {}", error.as_deref().unwrap_or_default());
                self.text(&format!("    ?{}\n", wrapped(&failed)))?;
            }
        }
        let good = saw.is_some();
        self.object(&StepJson { step: number, did, good, saw: saw.as_ref(), error })?;
        let failure = || Failure::new(Exit::Failure, format!("step {number} did not do what it says"));
        if good { Ok(()) } else { Err(failure()) }
    }

    /// Sums up.
    pub fn close(&mut self, took: Duration) -> Result<(), Failure> {
        let text = format!("\nAll {} steps did what they say, in {:.1} s.\n", self.steps, took.as_secs_f64());
        self.text(&text)
    }

    /// Says what to do next.
    pub fn farewell(&mut self) -> Result<(), Failure> {
        self.text(
            "Next: `bearerd demo --stay` keeps all of it running and prints commands to try.\n\
             For your own provider: bearerd.sample.toml explains every setting,\n\
             `bearerd check` checks your file and `bearerd serve` runs it.\n",
        )
    }

    /// Says what can be tried now.
    pub fn invite(&mut self, invitation: &Invitation) -> Result<(), Failure> {
        self.text(&invitation.text())?;
        self.object(invitation)
    }

    fn text(&mut self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { self.streams.data(text.as_bytes()) }
    }

    fn object(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        if self.json { self.streams.json(value) } else { Ok(()) }
    }
}

/// A text behind what the step did, or below it where it is too long for that. Lines end between words.
fn wrapped(text: &str) -> String {
    if text.chars().count() <= LINE - BESIDE {
        return format!("  {text}");
    }
    let mut wrapped = String::new();
    let mut column = LINE;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column + 1 + length > LINE {
            wrapped.extend(["\n", &" ".repeat(BELOW)]);
            column = BELOW;
        } else {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

/// A generation in short: what changes from one to the next.
pub fn short(generation: u64) -> String {
    format!("…{:06}", generation % 1_000_000)
}

/// Milliseconds, for people.
pub fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    if milliseconds < 10.0 { format!("{milliseconds:.2} ms") } else { format!("{milliseconds:.0} ms") }
}

#[cfg(test)]
mod tests {
    use std::{future::ready, io};

    use serde_json::{Value, json};

    use super::*;

    async fn shown(json: bool, outcome: Result<Saw, Surprise>) -> (bool, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut streams = Streams { input: &mut io::empty(), out: &mut out, err: &mut err };
        let good = Show::new(&mut streams, json).step("GetToken", ready(outcome)).await.is_ok();
        (good, String::from_utf8(out).unwrap())
    }

    fn saw() -> Saw {
        Saw { asked: 1, saw: "a token".to_owned(), facts: json!({ "generation": 7 }) }
    }

    fn surprise() -> Surprise {
        Surprise::Unexpected { expected: "1".to_owned(), got: "2".to_owned() }
    }

    #[tokio::test]
    async fn a_step_is_a_line() {
        let (good, line) = shown(false, Ok(saw())).await;
        assert_eq!((good, line), (true, format!(" 1  {:WIDTH$}     1  a token\n", "GetToken")));
    }

    #[tokio::test]
    async fn a_long_line_ends_between_words_at_80_columns() {
        let saw =
            Saw { saw: "generation …974538, from the provider in 105 ms, once and for all".to_owned(), ..saw() };
        let (_, lines) = shown(false, Ok(saw)).await;
        assert!(lines.lines().count() > 1 && lines.lines().all(|line| line.chars().count() <= 80), "{lines}");
        let words: Vec<&str> = lines.split_whitespace().skip(3).collect();
        assert_eq!(words.join(" "), "generation …974538, from the provider in 105 ms, once and for all");
    }

    #[tokio::test]
    async fn a_surprise_fails_and_is_told() {
        let (good, line) = shown(false, Err(surprise())).await;
        assert!(!good && line.ends_with("?  FAILED: expected 1, got 2\n"), "{line}");
        let (good, line) = shown(true, Err(surprise())).await;
        let object: Value = serde_json::from_str(&line).unwrap();
        let expected = json!({ "step": 1, "did": "GetToken", "good": false, "error": "expected 1, got 2" });
        assert_eq!((good, object), (false, expected));
    }

    #[tokio::test]
    async fn in_json_a_step_is_one_object_and_nothing_else() {
        let (good, line) = shown(true, Ok(saw())).await;
        let object: Value = serde_json::from_str(&line).unwrap();
        let facts = json!({ "generation": 7 });
        let expected =
            json!({ "step": 1, "did": "GetToken", "good": true, "asked": 1, "saw": "a token", "facts": facts });
        assert_eq!((good, object), (true, expected));
    }
}
