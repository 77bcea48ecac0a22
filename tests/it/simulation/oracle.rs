//! What must hold, looked at after every step: the oracle sees the store and the providers as they are, and what the
//! replicas are told and tell. It knows what cannot be promised, and takes nothing else for an excuse.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use bearerd::{
    broker::Served,
    failure::FailureCause,
    secret::ExposeSecret,
    store::{AttemptId, Place, Settle, UnitName, Verdict, Written},
    token::{Generation, Wanted},
};
use tokio::{task, time::Instant};

use super::{
    keys::{Key, Temper},
    provider::{Effect, Family, Issued},
    run::{MAX_AGE, TIMING},
    wire::PATIENCE,
};

/// How long after a rejection another replica may still serve the token if it heard of it; if not, beyond the time that
/// it believes its memory. It is for a look into the store that is under way.
const LOOKING: Duration = Duration::from_secs(5);

/// How long a replica that is not stopped needs at most from its intent to its request: a reply may be lost.
const PROMPT: Duration = Duration::from_secs(6);

/// How long a replica remembers what it stored, in case the store goes back in time.
const REMEMBERED: Duration = Duration::from_secs(300);

/// How long a grant stays dead before it is tried again.
const REVIVED_AFTER: Duration = Duration::from_secs(300);

/// What must be counted never.
pub const DOUBLE: &str = "asked twice outside the rule";
pub const LOST: &str = "lost without a documented reason";

/// A replica, or the one that took its place.
pub type ReplicaId = usize;

#[derive(Default)]
pub struct Oracle {
    /// What did not hold.
    pub faults: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
    tries: Vec<Try>,
    by_attempt: HashMap<String, usize>,
    by_task: HashMap<task::Id, usize>,
    by_revision: HashMap<(UnitName, Generation), Vec<usize>>,
    revisions: HashMap<UnitName, Generation>,
    /// Access tokens that were stored.
    stored: HashMap<String, Generation>,
    /// Who spent a refresh token.
    spent: HashMap<(Family, u32), usize>,
    /// By place: the newest generation that callers said no to.
    refused: HashMap<Place, Generation>,
    /// By place: the most that callers wanted to be left.
    wanted_left: HashMap<Place, Duration>,
    rejected: HashMap<Place, Vec<(Instant, Generation)>>,
    /// When grants were last seen dead.
    dead: HashMap<UnitName, Instant>,
    /// When grants died.
    died: HashMap<UnitName, Instant>,
    /// Tasks that took the turn to try a dead grant.
    turns: HashSet<task::Id>,
    /// Whose provider called a good refresh token invalid; and of these, whose late answer took its place then.
    ill: HashSet<UnitName>,
    replaced_in_illness: HashSet<UnitName>,
    /// What the store forgot: nothing is promised for it any more (see `docs/reliability.md`).
    forgotten: Forgotten,
    /// The newest revision that was acknowledged to a replica, and when.
    acknowledged: HashMap<(ReplicaId, UnitName), (Instant, Generation)>,
    /// Who stored a refresh token without a try, because that was asked for.
    imports: HashSet<String>,
    /// By replica: what it answered reports of.
    floors: HashMap<(ReplicaId, Place), Generation>,
}

/// What a store that went back in time no longer knows.
#[derive(Default)]
struct Forgotten {
    families: HashSet<Family>,
    units: HashMap<UnitName, Undone>,
}

struct Undone {
    at: Instant,
    /// The newest revision that was forgotten.
    revision: Generation,
    /// The first generation that was made since.
    first: Generation,
}

impl Forgotten {
    /// Whether nothing holds any more of what was begun at this moment.
    fn undoes(&self, unit: &UnitName, begun: Instant) -> bool {
        self.units.get(unit).is_some_and(|undone| begun <= undone.at)
    }

    /// Whether a token was made before.
    fn is_older(&self, unit: &UnitName, generation: Generation) -> bool {
        self.units.get(unit).is_some_and(|undone| generation < undone.first)
    }

    /// Whether a replica may have heard that something newer than this token was stored, which is gone: then the token is
    /// dead to it.
    fn is_replaced(&self, unit: &UnitName, generation: Generation) -> bool {
        self.units.get(unit).is_some_and(|undone| generation < undone.revision)
    }
}

/// A lease, and what its holder found.
pub struct Hold<'a> {
    pub place: &'a Place,
    pub attempt: &'a AttemptId,
    pub revision: Generation,
    /// A refresh token was perhaps sent, and its answer is missing.
    pub unanswered: bool,
    /// The token that was there: its generation, what was left of it, and its whole life.
    pub token: Option<(Generation, Duration, Duration)>,
    pub temper: &'a Temper,
    /// The grant is dead, and is tried again.
    pub dead: Option<Revival>,
}

/// How a dead grant comes to be tried again.
#[derive(Clone, Copy)]
pub struct Revival {
    pub cause: FailureCause,
    /// An answer is in quarantine.
    pub kept: bool,
    pub by_operator: bool,
}

/// Who is about to ask a provider.
pub struct Asker<'a> {
    pub replica: ReplicaId,
    pub task: Option<task::Id>,
    /// It was told a moment ago that the store is back.
    pub store_came_back: bool,
    /// Whether another replica could act for a while.
    pub was_free: &'a dyn Fn(ReplicaId) -> bool,
}

/// A try of a replica at a refresh.
struct Try {
    replica: ReplicaId,
    unit: UnitName,
    revision: Generation,
    harmless: bool,
    /// How long another has to leave it alone.
    takeover: Duration,
    /// Asking again may end the grant.
    risky: bool,
    /// When it began to count: with the intent, or with the lease where there is none.
    since: Instant,
    dispatched: bool,
    /// What is wrong if it sends: an earlier answer is missing, and nobody needs another one yet.
    ahead_of_time: Option<String>,
    /// The grant was dead.
    revives: bool,
    /// It looked, and the provider wanted no rest.
    may_ask: bool,
    asked: Option<Instant>,
    answered: Option<Answered>,
    effect: Option<Effect>,
    /// The store knows how it ended.
    closed: bool,
    stored: Option<Instant>,
    /// Another replica may not have waited any longer.
    overtaken: bool,
    /// The request went out, or arrived, when nobody could count on it any more.
    late: bool,
    /// The replica is gone.
    dead: bool,
}

/// What a replica learned from a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// It has a token.
    Token,
    /// The provider certainly did nothing.
    Nothing,
    /// Nobody can say.
    Unknown,
}

impl Try {
    /// Whether another try may ask although this one has not ended. Its replica must not have been able to end it, and
    /// must be another one: what goes on in itself a replica knows. When the store has come back an answer is expected,
    /// unless this one was overtaken already: the record speaks of the last who asked, and whether that one has settled.
    fn may_be_overtaken(&self, asker: &Asker<'_>, asked: Instant, since: Instant, settled: bool) -> bool {
        let now = Instant::now();
        let hindered =
            now - since > PROMPT || self.dead || asked - self.since > PROMPT || !(asker.was_free)(self.replica);
        let is_expected = asker.store_came_back && !settled;
        let known = self.risky && self.waits() && (self.replica == asker.replica || is_expected);
        self.stored.is_none_or(|at| at >= since) && now - self.since >= self.takeover && hindered && !known
    }

    /// Whether its replica lives and holds an answer that only has to be stored.
    fn waits(&self) -> bool {
        self.answered == Some(Answered::Token) && self.stored.is_none() && !self.dead
    }

    /// Nothing will come of it any more, as far as its own replica knows. A token that can be asked for again need not
    /// be stored.
    fn is_over(&self) -> bool {
        let token = self.answered == Some(Answered::Token);
        self.closed || self.answered.is_some_and(|_| !token || self.harmless)
    }

    /// Whether it was told that nobody consented to what it asked for.
    fn was_not_consented(&self) -> bool {
        self.effect == Some(Effect::NotConsented) && self.answered == Some(Answered::Nothing)
    }

    /// Whether its answer is gone, if there was one.
    fn has_lost(&self) -> bool {
        self.stored.is_none() && (self.answered == Some(Answered::Unknown) || self.dead)
    }
}

impl Oracle {
    pub fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// G2: no revision goes back.
    pub fn revision(&mut self, unit: &UnitName, revision: Generation) {
        let known = self.revisions.entry(unit.clone()).or_default();
        if revision < *known {
            let text = format!("G2: the revision of {unit:?} went back from {known} to {revision}");
            *known = revision;
            self.fault(text);
        }
        self.revisions.insert(unit.clone(), revision);
    }

    /// A lease was taken. G4: not without a reason, if there is a token.
    pub fn held(&mut self, (replica, task): (ReplicaId, Option<task::Id>), hold: &Hold<'_>) {
        let Hold { place, attempt, revision, temper, .. } = *hold;
        self.look_at_revival(task, hold);
        let ahead_of_time = self.look_for_a_reason(hold);
        let index = self.tries.len();
        self.tries.push(Try {
            replica,
            unit: place.unit.clone(),
            revision,
            harmless: temper.rotation.is_none(),
            takeover: temper.takeover(),
            risky: temper.is_risky(),
            since: Instant::now(),
            dispatched: false,
            ahead_of_time,
            revives: hold.dead.is_some(),
            may_ask: false,
            asked: None,
            answered: None,
            effect: None,
            closed: false,
            stored: None,
            overtaken: false,
            late: false,
            dead: false,
        });
        self.by_attempt.insert(attempt.as_str().to_owned(), index);
        self.by_revision.entry((place.unit.clone(), revision)).or_default().push(index);
        if let Some(task) = task {
            self.by_task.insert(task, index);
        }
    }

    /// A dead grant is tried again seldom, and only where nothing is risked by it.
    fn look_at_revival(&mut self, task: Option<task::Id>, hold: &Hold<'_>) {
        let Some(Revival { cause, kept, by_operator: false }) = hold.dead else { return };
        let unit = &hold.place.unit;
        let rested = self.died.get(unit).is_none_or(|at| at.elapsed() >= REVIVED_AFTER);
        let in_turn = task.is_some_and(|task| self.turns.remove(&task));
        if cause != FailureCause::ReauthorizationRequired || hold.unanswered || kept || !rested || !in_turn {
            self.fault(format!(
                "a dead grant is tried again: {unit:?}, {}, unanswered {}, in quarantine {kept}, rested {rested}, in turn \
                 {in_turn}",
                cause.word(),
                hold.unanswered
            ));
        }
        self.count("dead grant tried again");
    }

    fn of(&mut self, attempt: &AttemptId) -> Option<&mut Try> {
        let index = *self.by_attempt.get(attempt.as_str())?;
        self.tries.get_mut(index)
    }

    /// A replica learned that a write of its own is in the store.
    pub fn acknowledged(&mut self, replica: ReplicaId, unit: &UnitName, revision: Generation) {
        let known = self.acknowledged.entry((replica, unit.clone())).or_insert((Instant::now(), revision));
        if known.1 < revision {
            *known = (Instant::now(), revision);
        }
    }

    /// An intent was written: of no revision that is older than what its replica had stored itself not long before.
    pub fn dispatched(&mut self, attempt: &AttemptId) {
        let Some(this) = self.of(attempt).filter(|this| !this.dispatched) else { return };
        let (held, revision, whose) = (this.since, this.revision, (this.replica, this.unit.clone()));
        this.since = Instant::now();
        this.dispatched = true;
        if let Some(fault) = this.ahead_of_time.take() {
            self.fault(fault);
        }
        let Some((at, newest)) = self.acknowledged.get(&whose).copied() else { return };
        if revision < newest && at <= held && at.elapsed() < REMEMBERED {
            self.fault(format!("{whose:?} sends the refresh token of {revision}, and had stored {newest} itself"));
        }
    }

    /// G4; and what is wrong if this hold sends, because an answer that is missing is not asked for again ahead of time
    /// where that risks the grant. Only the claim tells that one is missing, so whoever finds it may give the lease back.
    fn look_for_a_reason(&mut self, hold: &Hold<'_>) -> Option<String> {
        let (place, Some((generation, left, life))) = (hold.place, hold.token) else { return None };
        let refused = self.refused.get(place).is_some_and(|refused| generation <= *refused)
            || self.forgotten.is_replaced(&place.unit, generation);
        // A replica that waited for the store's reply counts from when it asked.
        let left = left.saturating_sub(PATIENCE);
        let due = left <= hold.temper.ahead.min(life / 2);
        let too_short = self.wanted_left.get(place).is_some_and(|wanted| left < *wanted);
        if !refused && !due && !too_short {
            self.fault(format!("G4: a lease was taken on {place:?}, where {generation} has {left:?} left"));
        }
        let needed = refused || too_short || left.is_zero();
        let needless = hold.unanswered && hold.temper.waits_for_need() && !needed;
        needless.then(|| format!("{place:?} is recovered ahead of time: {generation} has {left:?} left"))
    }

    /// A replica goes from its last look at the clock to the provider: too late only if it stands still from here on.
    pub fn sending(&mut self, task: Option<task::Id>) {
        let Some(this) = task.and_then(|task| self.tries.get(*self.by_task.get(&task)?)) else { return };
        if !this.harmless && this.since.elapsed() > TIMING.commit_budget {
            let text = format!("sent although its time was over: {}", this.describe());
            self.fault(text);
        }
    }

    /// G1: a request is about to leave. Returns its number. Whoever did not answer for itself is overtaken only if it was
    /// not free to do so.
    pub fn asking(&mut self, asker: &Asker<'_>) -> usize {
        let Some(index) = asker.task.and_then(|task| self.by_task.get(&task).copied()) else {
            self.fault("a request leaves that nobody took a lease for");
            return usize::MAX;
        };
        let now = Instant::now();
        let this = &self.tries[index];
        if !this.may_ask {
            let text = format!("a provider is asked that wants a rest, or was not looked at: {}", this.describe());
            self.fault(text);
        }
        let this = &self.tries[index];
        let (unit, revision, since) = (this.unit.clone(), this.revision, this.since);
        let late = now - since >= this.takeover;
        let others = self.by_revision[&(unit.clone(), revision)].clone();
        let settled = self.is_settled(&others, index);
        let mut recovers = false;
        for other in others.into_iter().filter(|other| *other != index) {
            let Some(asked) = self.tries[other].asked else { continue };
            let other = &mut self.tries[other];
            if other.is_over() && other.stored.is_none() {
                recovers |= other.answered != Some(Answered::Nothing) && !other.harmless;
                continue;
            }
            let undone = self.forgotten.undoes(&unit, other.since.min(since));
            if late || undone || other.may_be_overtaken(asker, asked, since, settled) {
                other.overtaken = true;
                *self.counts.entry("takeover").or_default() += 1;
                continue;
            }
            let text = format!("G1: {unit:?} at {revision} is asked for again, after {}", other.describe());
            *self.counts.entry(DOUBLE).or_default() += 1;
            self.faults.push(text);
        }
        if recovers {
            self.count("recovery");
        }
        let this = &mut self.tries[index];
        this.asked = Some(now);
        this.late = late;
        self.count("request");
        index
    }

    /// Whether the last of these that was allowed to ask has said what came of it.
    fn is_settled(&self, tries: &[usize], but: usize) -> bool {
        let others = tries.iter().filter(|index| **index != but).map(|index| &self.tries[*index]);
        others.filter(|this| this.dispatched).max_by_key(|this| this.since).is_some_and(|this| this.closed)
    }

    /// What a request did at the provider. A grant may end only for reasons that nobody can help.
    pub fn effect(&mut self, index: usize, effect: Effect, in_time: bool) {
        let Some(this) = self.tries.get_mut(index) else { return };
        this.effect = Some(effect);
        this.late |= !in_time;
        let late = this.late;
        match effect {
            Effect::Rotated(family, serial) => {
                self.spent.insert((family, serial), index);
            }
            Effect::Killed(family, serial) => {
                let forgotten = self.forgotten.families.contains(&family);
                let unit = self.tries[index].unit.clone();
                let in_illness = self.replaced_in_illness.contains(&unit);
                let why = match self.spent.get(&(family, serial)).map(|first| &self.tries[*first]) {
                    _ if forgotten => "lost: the store went back in time",
                    _ if in_illness => {
                        "lost: a provider was ill, and a late answer took the place of a good refresh token"
                    }
                    _ if late => "lost: a request arrived when nobody expected it any more",
                    Some(first) if first.late => "lost: a request arrived when nobody expected it any more",
                    Some(first) if first.overtaken => "lost: an answer could not be stored in time",
                    Some(first) if first.stored.is_some() => "",
                    Some(first) if first.answered == Some(Answered::Unknown) => "lost: an answer did not arrive",
                    Some(first) if first.dead => "lost: a replica died with the answer",
                    Some(_) | None => "",
                };
                if why.is_empty() {
                    let first = self.spent.get(&(family, serial)).map(|first| self.tries[*first].describe());
                    self.count(LOST);
                    self.fault(format!("a living grant was ended: {family:?} {serial}, spent by {first:?}"));
                } else {
                    self.count(why);
                }
            }
            Effect::Ill => {
                let unit = self.tries[index].unit.clone();
                self.ill.insert(unit);
            }
            Effect::Issued | Effect::Refused | Effect::NotConsented => {}
        }
    }

    /// A task took the turn to try a dead grant.
    pub fn took_turn(&mut self, task: Option<task::Id>) {
        self.turns.extend(task);
    }

    /// A late answer took the place of a grant's refresh token.
    pub fn adopted(&mut self, unit: &UnitName) {
        if self.ill.contains(unit) {
            self.replaced_in_illness.insert(unit.clone());
        }
        self.count("late answer adopted");
    }

    pub fn answered(&mut self, index: usize, answered: Answered) {
        if let Some(this) = self.tries.get_mut(index) {
            this.answered = Some(answered);
        }
    }

    /// A commit was carried out, or refused; `now` is what stands in the store after it.
    pub fn committed(
        &mut self,
        attempt: &AttemptId,
        (written, is_there): (Written, bool),
        token: (&str, Generation),
        (before, expected, after): (Generation, Generation, Generation),
    ) {
        if before != after && before != expected {
            self.fault(format!("G2: {after} was written over {before} by somebody who had seen {expected}"));
        }
        if written == Written::Done && is_there {
            self.stored.insert(token.0.to_owned(), token.1);
        }
        let Some(this) = self.of(attempt) else { return };
        this.closed = true;
        let first = is_there && this.stored.is_none();
        let revived = first && this.revives;
        if first {
            this.stored = Some(Instant::now());
        }
        let unexcused = written == Written::Moved && after == before && before == expected;
        if unexcused {
            self.fault(format!("a commit on {before} was refused although nobody else wrote"));
        }
        if revived {
            self.count("grant revived");
        }
        if first {
            self.count("refresh");
        }
    }

    /// A refresh token was stored as it was handed over.
    pub fn imported(&mut self, attempt: &AttemptId) {
        self.imports.insert(attempt.as_str().to_owned());
    }

    /// An imported refresh token replaces a grant once it has given a token.
    pub fn replaced(&mut self, unit: &UnitName, attempt: &AttemptId, untried: bool) {
        if untried && !self.imports.contains(attempt.as_str()) {
            self.fault(format!("{unit:?} was replaced by a refresh token that had given no token"));
        }
    }

    /// A write was carried out once more, after the store had lost it: never over anything newer.
    pub fn reasserted(
        &mut self,
        attempt: &AttemptId,
        token: Option<(&str, Generation)>,
        (before, revision): (Generation, Generation),
    ) {
        if before >= revision {
            self.fault(format!("G2: {revision} was written once more over {before}"));
        }
        self.count("written once more");
        let Some((value, generation)) = token else { return };
        self.stored.insert(value.to_owned(), generation);
        if let Some(this) = self.of(attempt) {
            this.closed = true;
            this.stored.get_or_insert_with(Instant::now);
        }
    }

    /// A replica looked whether a provider wants a rest, and asks only if not.
    pub fn looked(&mut self, task: Option<task::Id>, rests: bool) {
        let Some(index) = task.and_then(|task| self.by_task.get(&task).copied()) else { return };
        self.tries[index].may_ask = !rests;
        if rests {
            self.count("left alone");
        }
    }

    /// A failure was noted, in a record of this revision. A grant that died of a lost answer has to say so.
    pub fn settled(&mut self, settle: &Settle<'_>, written: Written, revision: Generation) {
        let Settle { attempt, expected, verdict, cause, .. } = *settle;
        if written == Written::Done && revision != expected {
            self.fault(format!("G2: {} was noted of {revision} by somebody who had seen {expected}", cause.word()));
        }
        let Some(this) = self.of(attempt) else { return };
        this.closed = true;
        let (effect, late) = (this.effect, this.late);
        if this.was_not_consented() {
            let text = format!("what was asked for is held against the grant: {}", this.describe());
            self.fault(text);
        }
        if verdict.is_dead() && written == Written::Done {
            self.died.insert(settle.unit.clone(), Instant::now());
        }
        if let (Some(Effect::Killed(family, serial)), Verdict::Dead { .. }, Written::Done) = (effect, verdict, written)
        {
            let first = self.spent.get(&(family, serial)).map(|first| &self.tries[*first]);
            // Who is late knows nothing of those who did not wait.
            let lost = !late && !self.forgotten.families.contains(&family) && first.is_some_and(Try::has_lost);
            if lost && cause != FailureCause::RefreshOutcomeLost {
                self.fault(format!("a grant died of a lost answer, and the cause is said to be {}", cause.word()));
            }
        }
    }

    /// A lease was given back: a refusal is noted before.
    pub fn released(&mut self, attempt: &AttemptId) {
        let Some(this) = self.of(attempt).filter(|this| this.was_not_consented() && !this.closed) else { return };
        let text = format!("a refusal was not noted: {}", this.describe());
        self.fault(text);
    }

    /// A refusal of one token was noted.
    pub fn refused(&mut self, attempt: &AttemptId, at_once: bool) {
        if at_once {
            self.fault("a refusal of another token than the credential's own lets the next one come at once");
        }
        if let Some(this) = self.of(attempt) {
            this.closed = true;
        }
        self.count("refused for what was asked");
    }

    /// A token is rejected: because somebody said so, and not before it is old enough. One that is gone already, as after
    /// an import, has no age.
    pub fn rejected(&mut self, place: &Place, generation: Generation, age: Option<Duration>, temper: &Temper) {
        if self.refused.get(place).is_none_or(|refused| *refused < generation) {
            self.fault(format!("G4: {generation} of {place:?} is rejected, which nobody reported"));
        }
        if let Some(age) = age.filter(|age| *age < temper.min_age) {
            self.fault(format!("{generation} of {place:?} is rejected {age:?} after it was asked for"));
        }
        self.rejected.entry(place.clone()).or_default().push((Instant::now(), generation));
    }

    pub fn died(&mut self, replica: ReplicaId) {
        for this in self.tries.iter_mut().filter(|this| this.replica == replica) {
            this.dead = true;
        }
    }

    /// G5, and the end of G9: no replica that lives, or was stopped in peace, has left an answer lying about.
    pub fn abandoned(&mut self, replica: ReplicaId) {
        let left: Vec<String> = self
            .tries
            .iter()
            .filter(|this| this.replica == replica && !this.dead)
            // What was begun just now is still under way.
            .filter(|this| this.asked.is_some_and(|asked| asked.elapsed() > TIMING.lease))
            .filter(|this| !this.is_over() && !this.harmless)
            .map(Try::describe)
            .collect();
        for text in left {
            self.fault(format!("G5: a refresh was abandoned: {text}"));
        }
    }

    /// Whether whoever wrote this intent, of which nothing came yet, has had time enough.
    pub fn is_left(&self, attempt: &AttemptId) -> bool {
        let this = self.by_attempt.get(attempt.as_str()).and_then(|index| self.tries.get(*index));
        this.is_none_or(|this| this.since.elapsed() > TIMING.lease)
    }

    /// A caller says no to what it has, or wants more.
    pub fn asks(&mut self, place: &Place, wanted: &Wanted) {
        let refused = self.refused.entry(place.clone()).or_default();
        *refused = wanted.refused.max(*refused);
        let left = self.wanted_left.entry(place.clone()).or_default();
        *left = wanted.min_remaining.max(*left);
    }

    /// What a replica owes to a caller that comes now, if it could hear the store for so long.
    pub fn debt(&self, replica: ReplicaId, place: &Place, free_for: Duration) -> Debt {
        let now = Instant::now();
        let own = self.floors.get(&(replica, place.clone())).copied().unwrap_or_default();
        let known = self.rejected.get(place).map(Vec::as_slice).unwrap_or_default();
        let bound = |at: Instant| if free_for > now - at { LOOKING } else { MAX_AGE + LOOKING };
        let old = known.iter().filter(|(at, _)| now - *at > bound(*at)).map(|(_, generation)| *generation);
        Debt { own, others: old.max().unwrap_or_default() }
    }

    /// A grant was seen dead.
    pub fn dead(&mut self, unit: &UnitName) {
        self.dead.insert(unit.clone(), Instant::now());
    }

    /// A caller was told that the grant is gone: it was, at some time since the caller began.
    pub fn told_dead(&mut self, key: &Key, began: Instant) {
        // Whoever joins a flight shares what happened before.
        let (unit, began) = (&key.place.unit, began.checked_sub(TIMING.max_wait).unwrap_or(began));
        if self.dead.get(unit).is_none_or(|at| *at < began) && !self.forgotten.undoes(unit, began) {
            self.fault(format!("a caller was told that {key:?} needs a new grant, and it does not"));
        }
    }

    /// The store went back in time, to these revisions; what it forgot is not promised any more.
    pub fn went_back(
        &mut self,
        forgot: Vec<(UnitName, Generation)>,
        families: impl IntoIterator<Item = Family>,
        first: Generation,
    ) {
        let now = Instant::now();
        self.forgotten.families.extend(families);
        for (unit, revision) in forgot {
            self.rejected.retain(|place, _| place.unit != unit);
            self.died.remove(&unit);
            self.floors.retain(|(_, place), _| place.unit != unit);
            let lost = self.revisions.insert(unit.clone(), revision).unwrap_or_default();
            let before = self.forgotten.units.get(&unit).map_or(Generation::ZERO, |undone| undone.revision);
            self.forgotten.units.insert(unit, Undone { at: now, revision: lost.max(before), first });
        }
    }

    /// A report was answered.
    pub fn reported(&mut self, replica: ReplicaId, place: &Place, generation: Generation) {
        let floor = self.floors.entry((replica, place.clone())).or_default();
        *floor = generation.max(*floor);
    }

    /// A caller got a token: G3, G7, G8, G9.
    pub fn served(&mut self, key: &Key, served: &Served, issued: Option<Issued>, due: &Due) {
        let (token, replica) = (&served.token, due.replica);
        let (value, generation) = (token.value.expose_secret(), token.generation);
        match self.stored.get(value) {
            None => self.fault(format!("G3: {value} was served, and never stored")),
            Some(stored) if *stored != generation => {
                self.fault(format!("G3: {value} was served as {generation}, and stored as {stored}"));
            }
            Some(_) => {}
        }
        let undone = self.forgotten.is_older(&key.place.unit, generation);
        if generation <= due.wanted.refused && !undone {
            self.fault(format!("{generation} was served to somebody who refused {}", due.wanted.refused));
        }
        if generation <= due.debt.own && !undone {
            self.fault(format!("G7: replica {replica} served {generation} after it took a report of {}", due.debt.own));
        }
        if generation <= due.debt.others && !undone && !served.degraded && !due.disturbed {
            self.fault(format!(
                "G7: replica {replica} served {generation} long after {} was rejected",
                due.debt.others
            ));
        }
        let Some(issued) = issued else {
            self.fault(format!("G8: {value} was never issued"));
            return;
        };
        if (issued.credential.as_str(), issued.subject.as_str()) != (&*key.credential, key.subject)
            || issued.scopes != key.scopes
        {
            self.fault(format!("G8: {issued:?} was served for {key:?}"));
        }
        if issued.ends <= Instant::now() {
            self.fault(format!("G9: {value} was served {:?} after its end", Instant::now() - issued.ends));
        }
        self.count("served");
    }
}

impl Try {
    fn describe(&self) -> String {
        let Self { replica, unit, revision, answered, effect, closed, overtaken, late, dead, .. } = self;
        format!(
            "replica {replica} on {unit:?} at {revision}, {:?} ago: answered {answered:?}, effect {effect:?}, closed \
             {closed}, stored {}, overtaken {overtaken}, late {late}, dead {dead}",
            Instant::now() - self.since,
            self.stored.is_some()
        )
    }
}

/// Generations that a replica must not serve any more: after its own answer to a report, and after another's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Debt {
    pub own: Generation,
    pub others: Generation,
}

/// What a caller could expect.
pub struct Due {
    pub replica: ReplicaId,
    pub wanted: Wanted,
    pub debt: Debt,
    /// The replica was stopped or cut off while the caller waited.
    pub disturbed: bool,
}
