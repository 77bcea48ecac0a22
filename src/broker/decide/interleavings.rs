//! Whatever order things happen in: several tries at one grant, each of which can stop at any point, driven through the
//! functions of this file's parent and through nothing else, with a record and a provider that are as simple as can be.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{samples::rotating, *};
use crate::{
    failure::FailureCause,
    grant::{
        answer::{Answer, Granted, RefusalError},
        profile::RetryDead,
        rotation::{Need, Recovery, RotationProfile},
    },
    provider::SendError,
    store::{AttemptId, GrantRecord, GrantSecrets, GrantState, Intent, LastFailure, Material, Purpose, Verdict},
    token::{Generation, TokenType},
};

const LEASE: u64 = 20;
const TAKEOVER: u64 = 24;
const MARGIN: u64 = 5;
const WINDOW: u64 = 300;
const HOME: &str = "here";

/// No wait after a failure is longer than this.
const REST: u64 = 100;

/// One thing that happens. An index says to which of the tries under way.
#[derive(Clone, Debug)]
enum Happening {
    Pass { seconds: u64 },
    Claim,
    Dispatch(Index),
    Send(Index, Journey),
    Conclude(Index),
    Die(Index),
    Import,
}

/// What becomes of a request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Journey {
    Fine,
    NeverLeft,
    LostOnTheWay,
    AnswerLost,
    Busy,
}

/// The grant as it is stored.
struct Row {
    revision: u64,
    refresh_token: u32,
    intent: Option<Noted>,
    sends: u32,
    settled: Option<usize>,
    failure: Option<(FailureCause, u32, u64)>,
    dead: Option<FailureCause>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Noted {
    by: usize,
    first: u64,
    last: u64,
}

/// A try, and how far it came.
struct Try {
    at: Stage,
    expected: u64,
    next: u64,
    seen: Option<usize>,
    refresh_token: u32,
    recovering: bool,
    failures: u32,
    dispatched: u64,
    gave_up: bool,
    died: bool,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Held,
    Dispatched,
    Answered(Heard),
    Over,
}

/// What came back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    Granted(u32),
    Refused(RefusalError),
    NotSent,
    Nothing,
}

/// An authorization server with one grant at a time.
struct Server {
    rotation: RotationProfile,
    current: u32,
    issued: u32,
    /// When a refresh token that is not the newest was first used.
    used: BTreeMap<u32, u64>,
    grant: BTreeSet<u32>,
    alive: bool,
}

impl Server {
    fn answer(&mut self, presented: u32, now: u64) -> Heard {
        if !self.alive || !self.grant.contains(&presented) {
            return Heard::Refused(RefusalError::InvalidGrant);
        }
        let newest = presented == self.current;
        match self.rotation {
            RotationProfile::None => Heard::Granted(presented),
            RotationProfile::OldSurvives => self.issue(presented, now),
            RotationProfile::Grace { window: _ } if !newest && now - self.used[&presented] <= WINDOW => {
                Heard::Granted(self.current)
            }
            RotationProfile::Grace { window: _ } | RotationProfile::Strict if newest => self.issue(presented, now),
            RotationProfile::Grace { window: _ } | RotationProfile::Strict => {
                self.alive = false;
                Heard::Refused(RefusalError::InvalidGrant)
            }
        }
    }

    fn issue(&mut self, presented: u32, now: u64) -> Heard {
        self.used.entry(presented).or_insert(now);
        self.issued += 1;
        self.current = self.issued;
        self.grant.insert(self.current);
        Heard::Granted(self.current)
    }

    /// The owner logs in: a new grant, and the old one is of no use any more.
    fn log_in(&mut self) -> u32 {
        self.grant.clear();
        self.alive = true;
        self.issue(0, 0);
        self.current
    }
}

struct World {
    now: u64,
    row: Row,
    lease: Option<(usize, u64)>,
    tries: Vec<Try>,
    server: Server,
    presented: Vec<(usize, u32)>,
    /// Whether something happened after which nobody can keep the grant: an answer that nobody has any more, or a try
    /// that stood still for so long that it was taken for dead.
    beyond_help: bool,
}

impl World {
    fn new(rotation: RotationProfile) -> Self {
        let mut server =
            Server { rotation, current: 0, issued: 0, used: BTreeMap::new(), grant: BTreeSet::new(), alive: false };
        let refresh_token = server.log_in();
        let row = Row { revision: 1, refresh_token, intent: None, sends: 0, settled: None, failure: None, dead: None };
        Self { now: 1000, row, lease: None, tries: Vec::new(), server, presented: Vec::new(), beyond_help: false }
    }

    fn recovery(&self) -> Recovery {
        Recovery {
            rotation: self.server.rotation,
            takeover: Duration::from_secs(TAKEOVER),
            store_came_back: false,
            margin: Duration::from_secs(MARGIN),
        }
    }

    fn record(&self) -> GrantRecord {
        let since = |moment: u64| Duration::from_secs(self.now - moment);
        let row = &self.row;
        GrantRecord {
            revision: Generation::new(row.revision),
            state: row.dead.map_or(GrantState::Active, GrantState::Dead),
            secrets: GrantSecrets {
                material: Material::RefreshToken(row.refresh_token.to_string().into()),
                binding: HOME.into(),
                ..GrantSecrets::default()
            },
            intent: row.intent.map(|intent| Intent {
                attempt: AttemptId::from(intent.by.to_string()),
                age: since(intent.first),
                quiet: since(intent.last),
                sends: row.sends,
                settled: row.settled == Some(intent.by),
            }),
            failure: row.failure.map(|(cause, count, until)| LastFailure {
                cause,
                count,
                wait: Duration::from_secs(until.saturating_sub(self.now)),
                early: false,
            }),
            report: None,
            strikes: 0,
            quarantine: None,
            revival: None,
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Pass { seconds } => self.now += seconds,
            Happening::Claim => drop(self.claim()),
            Happening::Dispatch(index) => self.on(index, |at| *at == Stage::Held, Self::dispatch),
            Happening::Send(index, journey) => {
                self.on(index, |at| *at == Stage::Dispatched, |world, number| world.send(number, *journey));
            }
            Happening::Conclude(index) => self.on(index, |at| matches!(at, Stage::Answered(_)), Self::conclude),
            Happening::Die(index) => self.on(index, |at| *at != Stage::Over, Self::die),
            Happening::Import => self.import(),
        }
    }

    fn on(&mut self, index: &Index, fits: impl Fn(&Stage) -> bool, act: impl FnOnce(&mut Self, usize)) {
        let fitting: Vec<usize> = (0..self.tries.len()).filter(|number| fits(&self.tries[*number].at)).collect();
        if !fitting.is_empty() {
            act(self, *index.get(&fitting));
        }
    }

    /// The number of the new try, if it may work.
    fn claim(&mut self) -> Option<usize> {
        let record = self.record();
        if record.is_resting(Purpose { needed: true, ..Purpose::default() })
            || self.lease.is_some_and(|(_, until)| self.now < until)
        {
            return None;
        }
        let grant = rotating();
        let Plan::Ask { refresh_token: Some(_), recovering } =
            plan(&grant, &HOME.into(), Some(&record), &self.recovery(), Need::Now)
        else {
            return None;
        };
        let number = self.tries.len();
        self.lease = Some((number, self.now + LEASE));
        self.tries.push(Try {
            at: Stage::Held,
            expected: self.row.revision,
            next: self.row.revision + 1,
            seen: self.row.intent.map(|intent| intent.by),
            refresh_token: self.row.refresh_token,
            recovering,
            failures: record.failure.map_or(0, |failure| failure.count),
            dispatched: 0,
            gave_up: false,
            died: false,
        });
        Some(number)
    }

    fn dispatch(&mut self, number: usize) {
        let this = &self.tries[number];
        let holds = self.lease.is_some_and(|(owner, until)| owner == number && self.now + LEASE / 2 <= until);
        let unmoved = self.row.revision == this.expected && self.row.intent.map(|intent| intent.by) == this.seen;
        if !(holds && unmoved) {
            self.tries[number].at = Stage::Over;
            return self.release(number);
        }
        let first = self.row.intent.map_or(self.now, |intent| intent.first);
        self.row.intent = Some(Noted { by: number, first, last: self.now });
        self.row.sends += 1;
        self.tries[number].dispatched = self.now;
        self.tries[number].at = Stage::Dispatched;
    }

    fn send(&mut self, number: usize, journey: Journey) {
        let presented = self.tries[number].refresh_token;
        let heard = match journey {
            Journey::NeverLeft => Heard::NotSent,
            Journey::LostOnTheWay => Heard::Nothing,
            Journey::Busy => Heard::Refused(RefusalError::Unavailable),
            Journey::Fine | Journey::AnswerLost => {
                self.look_at_the_rule(number, presented);
                self.presented.push((number, presented));
                let heard = self.server.answer(presented, self.now);
                let lost = journey == Journey::AnswerLost;
                self.beyond_help |= lost && matches!(heard, Heard::Granted(_));
                if lost { Heard::Nothing } else { heard }
            }
        };
        self.tries[number].at = Stage::Answered(heard);
    }

    /// G1: a refresh token is presented again only by somebody who knows of the first time, after whoever presented it
    /// then had given up, died, or stood still for so long that it had to be taken for dead.
    fn look_at_the_rule(&mut self, number: usize, presented: u32) {
        if matches!(self.server.rotation, RotationProfile::None | RotationProfile::OldSurvives) {
            return;
        }
        let earlier: Vec<usize> =
            self.presented.iter().filter(|(_, token)| *token == presented).map(|(number, _)| *number).collect();
        for other in earlier {
            let (this, other) = (&self.tries[number], &self.tries[other]);
            let apart = this.dispatched.abs_diff(other.dispatched);
            self.beyond_help |= apart >= TAKEOVER && !other.gave_up && !other.died;
            assert!(other.gave_up || other.died || apart >= TAKEOVER, "presented twice within {apart} s");
            assert!(this.recovering || this.dispatched < other.dispatched, "presented twice unknowingly");
        }
    }

    fn conclude(&mut self, number: usize) {
        let Stage::Answered(heard) = self.tries[number].at else { return };
        let outcome = match heard {
            Heard::Granted(token) => Ok(Answer::Granted(granted(token))),
            Heard::Refused(error) => Ok(Answer::Refused(error.into())),
            Heard::NotSent => Err(SendError::NotSent("refused".into())),
            Heard::Nothing => Err(SendError::OutcomeUnknown("time".into())),
        };
        let grant = rotating();
        let this = &self.tries[number];
        let around = Circumstances {
            grant: &grant,
            recovering: this.recovering,
            extent: Extent::Default,
            failures: this.failures,
            deaths: 0,
            retry_dead: RetryDead::Rarely,
            refusals: 0,
            jitter: 0.5,
        };
        match fate(outcome, &around) {
            Fate::Store(_) => self.commit(number, heard),
            Fate::Note { cause, verdict, rest: _ } => self.settle(number, cause, verdict),
            Fate::Keep { kept, .. } => panic!("no answer was unusable, and {kept:?} came of one"),
            Fate::Refuse { cause, .. } => panic!("no request for another token was made, and {cause:?} came of one"),
        }
        self.tries[number].at = Stage::Over;
        self.release(number);
    }

    fn commit(&mut self, number: usize, heard: Heard) {
        let this = &self.tries[number];
        let Heard::Granted(refresh_token) = heard else { panic!("something was stored that was not granted") };
        if self.row.revision != this.expected {
            return;
        }
        // G2: no stored revision goes back.
        assert!(this.next > self.row.revision);
        self.row = Row {
            revision: this.next,
            refresh_token,
            intent: None,
            sends: 0,
            settled: None,
            failure: None,
            dead: None,
        };
    }

    fn settle(&mut self, number: usize, cause: FailureCause, verdict: Verdict) {
        let this = &self.tries[number];
        if self.row.revision != this.expected {
            return;
        }
        let (wait, certain) = match verdict {
            Verdict::BackOff { wait } => (wait, true),
            Verdict::OutcomeUnknown { wait } => (wait, false),
            Verdict::Dead { again: _ } => (Duration::ZERO, true),
        };
        if verdict.is_dead() {
            assert!(matches!(this.at, Stage::Answered(Heard::Refused(RefusalError::InvalidGrant))));
            assert_eq!(cause == FailureCause::RefreshOutcomeLost, this.recovering, "{cause:?}");
            self.row.dead = Some(cause);
        }
        if certain && self.row.intent.is_some_and(|intent| intent.by == number) {
            self.row.sends -= 1;
            if self.row.sends == 0 {
                self.row.intent = None;
            }
        }
        self.row.settled = Some(number);
        self.row.failure = Some((cause, this.failures + 1, self.now + wait.as_secs() + 1));
        self.tries[number].gave_up = true;
    }

    fn die(&mut self, number: usize) {
        let this = &mut self.tries[number];
        self.beyond_help |= matches!(this.at, Stage::Answered(Heard::Granted(_)));
        this.died = true;
        this.at = Stage::Over;
    }

    fn import(&mut self) {
        let refresh_token = self.server.log_in();
        let revision = self.row.revision + 1;
        self.row = Row { revision, refresh_token, intent: None, sends: 0, settled: None, failure: None, dead: None };
        self.beyond_help = false;
    }

    fn release(&mut self, number: usize) {
        self.lease = self.lease.filter(|(owner, _)| *owner != number);
    }

    /// G9: as long as nothing happened that nobody can mend, somebody has the living refresh token, and the grant is
    /// not given up.
    fn look_at_the_grant(&self) {
        if self.beyond_help || self.server.rotation != RotationProfile::Strict {
            return;
        }
        let held = self.tries.iter().any(|this| {
            this.expected == self.row.revision && this.at == Stage::Answered(Heard::Granted(self.server.current))
        });
        assert!(self.server.alive, "the provider ended the grant");
        assert!(held || self.row.refresh_token == self.server.current, "nobody has the living refresh token");
        assert_eq!(self.row.dead, None);
    }

    /// G6: whatever was left behind, one living replica brings it to an end, and nobody has to help.
    fn is_settled_by_whoever_comes(&mut self) {
        let before = self.row.revision;
        for _ in 0..4 {
            self.now += TAKEOVER.max(LEASE) + REST;
            if let Some(number) = self.claim() {
                self.dispatch(number);
                self.send(number, Journey::Fine);
                self.conclude(number);
                self.look_at_the_grant();
            }
            if self.row.revision > before || self.row.dead.is_some() {
                return;
            }
        }
        panic!("the grant is neither alive nor given up");
    }
}

fn granted(refresh_token: u32) -> Granted {
    Granted {
        access_token: "at".into(),
        kind: TokenType::Bearer,
        expires_in: None,
        refresh_token: Some(refresh_token.to_string().into()),
        scopes: None,
    }
}

fn happenings() -> impl Strategy<Value = Happening> {
    let journey = prop_oneof![
        6 => Just(Journey::Fine),
        1 => Just(Journey::NeverLeft),
        1 => Just(Journey::LostOnTheWay),
        1 => Just(Journey::AnswerLost),
        1 => Just(Journey::Busy),
    ];
    prop_oneof![
        4 => prop_oneof![0..3_u64, LEASE..TAKEOVER, TAKEOVER..30, 60..400_u64].prop_map(|seconds| Happening::Pass { seconds }),
        6 => Just(Happening::Claim),
        6 => any::<Index>().prop_map(Happening::Dispatch),
        6 => (any::<Index>(), journey).prop_map(|(index, journey)| Happening::Send(index, journey)),
        6 => any::<Index>().prop_map(Happening::Conclude),
        1 => any::<Index>().prop_map(Happening::Die),
        1 => Just(Happening::Import),
    ]
}

fn rotations() -> impl Strategy<Value = RotationProfile> {
    let window = Duration::from_secs(WINDOW);
    prop::sample::select(vec![
        RotationProfile::Strict,
        RotationProfile::Strict,
        RotationProfile::Grace { window },
        RotationProfile::OldSurvives,
        RotationProfile::None,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_things_spends_a_refresh_token_twice_or_loses_a_grant(
        rotation in rotations(),
        happenings in vec(happenings(), 1..60),
    ) {
        let mut world = World::new(rotation);
        for happening in &happenings {
            let before = world.row.revision;
            world.happen(happening);
            assert!(world.row.revision >= before);
            world.look_at_the_grant();
        }
        world.is_settled_by_whoever_comes();
    }
}
