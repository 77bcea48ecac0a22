//! Candidates: an imported refresh token replaces a grant only after it has given a token.
//!
//! A candidate has a record, a lease and an intent of its own in the unit [`Unit::Candidate`], so that what holds for every
//! refresh holds for it: the intent before the request, recovery, spool and quarantine. While a candidate waits for its
//! outcome, the grant's own refresh token is not presented: the two may be of one family, and a strict provider takes the
//! wrong order for theft. Whoever needs a token of the grant settles the candidate first, on any replica.
//!
//! A proven candidate is promoted in two steps: its secrets and token are written over the grant's, then its own record is
//! emptied. A replica that finds the second step missing repeats it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{Instrument, error, info, warn};

use super::{
    Core, Error, Target,
    attempt::{self, Hold},
    quarantine, refresh, seed,
};
use crate::{
    failure::FailureCause,
    grant::{
        Grant,
        rotation::{Need, RotationProfile},
    },
    name::Scopes,
    secret::SecretString,
    store::{
        Acknowledged, AttemptId, Claim, Claimed, GrantRecord, GrantSecrets, GrantState, Import, Loaded, Material,
        Names, Place, Purpose, StoreError, Unit, Written,
        names::{Fingerprint, TokenName},
    },
    token::{Generation, Token, TokenKey},
};

/// How many refresh tokens that were presented are remembered of a grant; older ones go.
const REMEMBERED: usize = 32;

/// A candidate whose outcome stays unknown for longer is given up, where the grant has another refresh token to go on with.
const LONGEST_DOUBT: Duration = Duration::from_secs(600);

/// Others may write at the same moment; that often in a row they do not.
const TRIES: usize = 8;

/// What the grant's own refresh token has to wait for.
pub(super) enum Before {
    /// Nothing.
    Nothing,
    /// Something was settled, and the grant is to be read again.
    Changed,
}

/// How far a candidate is.
enum Standing<'a> {
    /// There is none, or the provider refused it.
    None,
    /// It has not given a token yet.
    Waiting,
    /// It has, and replaces the grant.
    Proven((&'a GrantSecrets, &'a SecretString)),
    /// It was refused, and a late answer to it is kept.
    Remedied,
}

/// The refresh tokens that must not be presented again once this grant's own was.
pub(super) fn presented(names: &Names, secrets: &GrantSecrets) -> Vec<Fingerprint> {
    match &secrets.material {
        Material::RefreshToken(token) => seed::with_newest(&secrets.presented, names.fingerprint(token), REMEMBERED),
        Material::Nothing | Material::Static(_) => secrets.presented.clone(),
    }
}

/// The same of a record that may be absent.
pub(super) fn presented_so_far(names: &Names, record: Option<&GrantRecord>) -> Vec<Fingerprint> {
    record.map(|record| presented(names, &record.secrets)).unwrap_or_default()
}

/// Whether a refresh token is one that this record says was presented or replaced.
fn knows(names: &Names, record: Option<&GrantRecord>, token: &SecretString) -> bool {
    presented_so_far(names, record).contains(&names.fingerprint(token))
}

/// Refuses a refresh token that a strict provider would take for stolen.
pub(super) async fn refuse_presented(core: &Core, target: &Target, token: &SecretString) -> Result<(), Error> {
    match target.credential.profile.rotation {
        RotationProfile::None | RotationProfile::OldSurvives => return Ok(()),
        RotationProfile::Strict | RotationProfile::Grace { window: _ } => {}
    }
    let names = core.store.names();
    let grant = core.read(target).await?.loaded;
    let candidate = core.read(&core.candidate(target)).await?.loaded;
    // One that waits and was never sent may be handed over again.
    let unsent = |record: &&GrantRecord| record.secrets.untried && record.intent.is_none() && !is_dead(record);
    let candidate = candidate.record.as_ref().filter(|record| !unsent(record));
    if knows(names, grant.record.as_ref(), token) || knows(names, candidate, token) {
        let problem = "bearerd has this token already, or has presented it before, and a second use could end the grant; \
                       hand over a new one";
        return Err(Error::invalid("refresh_token", problem));
    }
    Ok(())
}

fn is_dead(record: &GrantRecord) -> bool {
    match record.state {
        GrantState::Dead(_) => true,
        GrantState::Active => false,
    }
}

impl Core {
    /// Where the imported refresh token of a grant is tried: the token that the credential asks for by default.
    pub(super) fn candidate(&self, target: &Target) -> Target {
        let slot = &target.slot;
        let key = default_key(target);
        // Under the name that the token has beside the grant, so that it is taken over only where the parameters are the same.
        let names = self.store.names();
        let token = target.credential.place(names, &key).token;
        let place = Place { unit: names.unit(Unit::Candidate(&key.grant)), token };
        let slot = self.cache.slot_apart(key, slot.edition, place);
        Target { credential: Arc::clone(&target.credential), slot }
    }

    /// Whether this is a candidate, which is no grant yet.
    pub(super) fn is_candidate(&self, target: &Target) -> bool {
        self.store.names().unit(Unit::Candidate(&target.slot.key.grant)) == target.slot.place.unit
    }

    /// Tries an imported refresh token, and has it replace the grant if it gives a token. Nobody's departure ends this.
    pub(super) async fn verify(
        self: &Arc<Self>,
        target: Target,
        token: SecretString,
        scopes: Scopes,
    ) -> Result<Generation, Error> {
        let core = Arc::clone(self);
        let work = async move {
            let lease = take_lease(&core, &target).await?;
            let outcome = verify(&core, &target, token, scopes).await;
            if let Err(error) = core.store.release(&target.slot.place.unit, &lease).await {
                warn!(credential = %target.credential.name, %error, "cannot release a lease; it ends by itself");
            }
            outcome
        };
        let ended = |_| Error::RefreshInProgress { left: Duration::ZERO };
        self.tasks.spawn(work.in_current_span()).await.map_err(ended)?
    }
}

fn default_key(target: &Target) -> TokenKey {
    let credential = &target.credential;
    let grant = target.slot.key.grant.clone();
    TokenKey { grant, scopes: credential.scopes.clone(), resources: credential.resources.clone() }
}

/// Waits until no refresh of the grant is under way, and keeps others from beginning one.
async fn take_lease(core: &Core, target: &Target) -> Result<AttemptId, Error> {
    let mut events = core.store.events();
    let give_up = Instant::now() + core.timing.max_wait;
    let owner = AttemptId::random();
    // No token is wanted, so neither a token nor a refusal of one stands in the way.
    let place = &Place { unit: target.slot.place.unit.clone(), token: TokenName::from("import") };
    let purpose = Purpose { needed: true, yields: false, dead: true };
    loop {
        let lease = core.timing.lease;
        let claim = Claim { place, owner: &owner, lease, refused: Generation::MAX, purpose };
        match core.store.claim(&claim).await? {
            // Nobody refreshes a grant that rests, and whoever begins when it has rested finds the candidate first.
            Claimed::Held { .. } | Claimed::Resting(_) | Claimed::Newer(_) | Claimed::Refused(_) => return Ok(owner),
            Claimed::Busy(left) if Instant::now() >= give_up => return Err(Error::RefreshInProgress { left }),
            Claimed::Busy(_) => refresh::wait_for_change(&mut events, &place.unit, refresh::POLL_LONGEST).await,
        }
    }
}

async fn verify(core: &Arc<Core>, target: &Target, token: SecretString, scopes: Scopes) -> Result<Generation, Error> {
    let candidate = &core.candidate(target);
    make_room(core, target, candidate).await?;
    refuse_presented(core, target, &token).await?;
    let loaded = core.read(candidate).await?.loaded;
    let secrets = GrantSecrets {
        material: Material::RefreshToken(token),
        scopes_known: !scopes.is_empty(),
        subject: Some(target.slot.key.grant.subject.clone()),
        scopes,
        binding: target.credential.bindings().own().to_owned(),
        issuer: target.credential.bindings().issuer().map(str::to_owned),
        seeds: Vec::new(),
        presented: presented_so_far(core.store.names(), loaded.record.as_ref()),
        untried: true,
    };
    if replace(core, candidate, &loaded, &secrets).await? == Written::Moved {
        return Err(Error::RefreshInProgress { left: Duration::ZERO });
    }
    let tried = try_once(core, candidate, Need::Now, Some(loaded.next)).await;
    let loaded = core.read(candidate).await?.loaded;
    match (tried, standing(&loaded, candidate)) {
        (_, Standing::Proven(proven)) => promote(core, target, candidate, &loaded, proven).await,
        (Ok(()), Standing::None | Standing::Waiting | Standing::Remedied) => {
            Err(Error::RefreshInProgress { left: Duration::ZERO })
        }
        (Err(Error::Failed { cause, retry_after }), _) => {
            Err(import_failed(core, candidate, &loaded, cause, retry_after).await?)
        }
        // Whether the token was sent is for the next one to see who needs a token of this grant.
        (Err(error), _) => Err(error),
    }
}

/// What the operator is told of an import that gave no token.
async fn import_failed(
    core: &Core,
    candidate: &Target,
    loaded: &Loaded,
    cause: FailureCause,
    retry_after: Option<Duration>,
) -> Result<Error, Error> {
    let credential = &candidate.credential.name;
    let record = loaded.record.as_ref();
    if record.is_some_and(|record| record.intent.is_some() && !is_dead(record)) {
        warn!(%credential, cause = cause.word(), "no answer to an imported refresh token; it and the former grant are kept");
        return Ok(Error::ImportUnanswered { retry_after });
    }
    if !record.is_some_and(|record| is_dead(record) && is_remedied(record, candidate)) {
        empty(core, candidate, loaded).await?;
    }
    warn!(%credential, cause = cause.word(), "an imported refresh token gave no token; the former grant is as before");
    Ok(Error::ImportRefused { cause, retry_after })
}

/// Settles what an earlier import left, as far as this one depends on it.
async fn make_room(core: &Arc<Core>, target: &Target, candidate: &Target) -> Result<(), Error> {
    let loaded = core.read(candidate).await?.loaded;
    match standing(&loaded, candidate) {
        Standing::None | Standing::Remedied => Ok(()),
        Standing::Proven(proven) => promote(core, target, candidate, &loaded, proven).await.map(drop),
        Standing::Waiting => {
            let takeover = core.recovery(&target.credential).takeover;
            let intent = loaded.record.as_ref().and_then(|record| record.intent.as_ref());
            match intent {
                // Its sender may be storing the answer.
                Some(intent) if !intent.settled && intent.quiet < takeover => {
                    Err(Error::RefreshInProgress { left: takeover - intent.quiet })
                }
                Some(_) | None => Ok(()),
            }
        }
    }
}

/// Settles an import that is under way before the grant's own refresh token is presented; called by the lease's holder.
pub(super) async fn settle_first(
    core: &Arc<Core>,
    target: &Target,
    record: Option<&GrantRecord>,
    need: Need,
) -> Result<Before, Error> {
    if !matches!(target.credential.grant, Grant::RefreshToken { .. }) {
        return Ok(Before::Nothing);
    }
    let candidate = &core.candidate(target);
    let loaded = core.read(candidate).await?.loaded;
    match standing(&loaded, candidate) {
        Standing::None => return Ok(Before::Nothing),
        Standing::Proven(proven) => promote(core, target, candidate, &loaded, proven).await.map(drop)?,
        Standing::Remedied => {
            quarantine::revive(core, &candidate.slot.place, &candidate.credential.bindings()).await?;
        }
        Standing::Waiting => match try_once(core, candidate, need, None).await {
            Ok(()) => {}
            Err(error @ Error::Failed { .. }) => go_on_without(core, candidate, record, need, error).await?,
            Err(error) => return Err(error),
        },
    }
    Ok(Before::Changed)
}

/// What follows from a candidate that gave no token: the grant's own refresh token is used again, or waits with it.
async fn go_on_without(
    core: &Core,
    candidate: &Target,
    grant: Option<&GrantRecord>,
    need: Need,
    failed: Error,
) -> Result<(), Error> {
    let credential = &candidate.credential.name;
    let loaded = core.read(candidate).await?.loaded;
    let Some(record) = &loaded.record else { return Ok(()) };
    if !record.secrets.untried {
        return Ok(());
    }
    if is_dead(record) {
        warn!(%credential, "the provider refused an imported refresh token; the former grant is as before");
        return match is_remedied(record, candidate) {
            true => Ok(()),
            false => empty(core, candidate, &loaded).await,
        };
    }
    let in_doubt = record.intent.as_ref().map(|intent| intent.age);
    let is_over = match in_doubt {
        None => true,
        Some(age) => need == Need::Now && age > LONGEST_DOUBT,
    };
    if !is_over || !grant.is_some_and(|grant| seed::is_living(grant) && is_bound(grant, candidate)) {
        return Err(failed);
    }
    error!(%credential, %failed, "an imported refresh token gave no token and is given up; the former grant is used again");
    empty(core, candidate, &loaded).await
}

/// Whether a late answer is kept for a refused candidate.
fn is_remedied(record: &GrantRecord, candidate: &Target) -> bool {
    quarantine::remedy(record, &candidate.credential.bindings()).is_some()
}

fn is_bound(record: &GrantRecord, target: &Target) -> bool {
    record.secrets.belong_to(&target.credential.bindings())
}

fn standing<'a>(loaded: &'a Loaded, candidate: &Target) -> Standing<'a> {
    let Some(record) = loaded.record.as_ref().filter(|record| is_bound(record, candidate)) else {
        return Standing::None;
    };
    match (&record.secrets.material, record.state) {
        (Material::Nothing | Material::Static(_), _) => Standing::None,
        (Material::RefreshToken(_), GrantState::Active) if record.secrets.untried => Standing::Waiting,
        (Material::RefreshToken(token), GrantState::Active) => Standing::Proven((&record.secrets, token)),
        (Material::RefreshToken(_), GrantState::Dead(_)) => {
            if is_remedied(record, candidate) {
                Standing::Remedied
            } else {
                Standing::None
            }
        }
    }
}

/// Presents a candidate once. Where its revision is known, another one is not presented in its place.
async fn try_once(core: &Arc<Core>, candidate: &Target, need: Need, known: Option<Generation>) -> Result<(), Error> {
    let attempt = AttemptId::random();
    let (place, lease) = (&candidate.slot.place, core.timing.lease);
    let purpose = Purpose { needed: need == Need::Now, yields: false, dead: false };
    let claim = Claim { place, owner: &attempt, lease, refused: Generation::MAX, purpose };
    match core.store.claim(&claim).await? {
        Claimed::Held { record, next, refusal } => {
            let hold = Hold { attempt, record, next, refusal, need, since: Instant::now(), mark: None };
            if known.is_some_and(|known| known != hold.revision()) {
                attempt::release(core, candidate, &hold).await;
                return Err(Error::RefreshInProgress { left: Duration::ZERO });
            }
            Box::pin(attempt::work(core, candidate, hold)).await.map(drop)
        }
        Claimed::Busy(left) => Err(Error::RefreshInProgress { left }),
        Claimed::Resting(record) => Err(Error::resting(&record)),
        Claimed::Refused(refusal) => Err(Error::refused(&refusal)),
        Claimed::Newer(_) => Ok(()),
    }
}

/// Has a proven candidate replace the grant, and returns the grant's generation.
async fn promote(
    core: &Core,
    target: &Target,
    candidate: &Target,
    loaded: &Loaded,
    (secrets, token): (&GrantSecrets, &SecretString),
) -> Result<Generation, Error> {
    let names = core.store.names();
    let key = default_key(target);
    let place = target.credential.place(names, &key);
    for _ in 0..TRIES {
        let grant = core.store.load(&place).await?;
        if core.went_back(&place.unit, grant.revision()).await? {
            continue;
        }
        // An earlier promotion got as far as this, and the grant may have gone on since.
        if grant.record.as_ref().is_some_and(seed::is_living) && knows(names, grant.record.as_ref(), token) {
            empty(core, candidate, loaded).await?;
            return Ok(grant.revision());
        }
        let mut merged = presented_so_far(names, grant.record.as_ref());
        for print in &secrets.presented {
            merged = seed::with_newest(&merged, print.clone(), REMEMBERED);
        }
        let seeds = seeds(core, target, grant.record.as_ref());
        let secrets = GrantSecrets { seeds, presented: merged, ..secrets.clone() };
        let token = loaded.token.clone().map(|token| Token { generation: grant.next, ..token });
        let promoted = Acknowledged {
            unit: &place.unit,
            attempt: &AttemptId::random(),
            revision: grant.next,
            secrets: &secrets,
            token: token.as_ref().map(|token| (&place, token)),
        };
        if core.store.reassert(&promoted).await? == Written::Done {
            core.lately.promoted(&promoted);
            info!(credential = %target.credential.name, generation = %grant.next, "an imported grant gave a token and is in use");
            empty(core, candidate, loaded).await?;
            return Ok(grant.next);
        }
    }
    Err(Error::StoreUnavailable("the grant kept changing while an imported one replaced it".into()))
}

/// The fingerprints of configured secrets that are known after an import. A configured secret that was never used counts as
/// replaced too, else it would replace this one.
pub(super) fn seeds(core: &Core, target: &Target, record: Option<&GrantRecord>) -> Vec<Fingerprint> {
    match target.credential.first_secret(&target.slot.key) {
        Some(first) => seed::remember(record, core.store.names().fingerprint(first)),
        None => record.map(|record| record.secrets.seeds.clone()).unwrap_or_default(),
    }
}

/// Forgets a candidate, but for the fingerprints of what was presented.
async fn empty(core: &Core, candidate: &Target, loaded: &Loaded) -> Result<(), Error> {
    let Some(record) = &loaded.record else { return Ok(()) };
    let was_sent = !record.secrets.untried || record.intent.is_some() || is_dead(record);
    let presented = match was_sent {
        true => presented(core.store.names(), &record.secrets),
        false => record.secrets.presented.clone(),
    };
    let secrets = GrantSecrets { presented, binding: record.secrets.binding.clone(), ..GrantSecrets::default() };
    // Another one took its place: then there is nothing to forget.
    replace(core, candidate, loaded, &secrets).await.map(drop).map_err(Error::from)
}

/// Forgets a candidate that an import without a try replaces.
pub(super) async fn withdraw(core: &Core, target: &Target) -> Result<(), Error> {
    let candidate = &core.candidate(target);
    let loaded = core.read(candidate).await?.loaded;
    match standing(&loaded, candidate) {
        Standing::None => Ok(()),
        Standing::Waiting | Standing::Proven(_) | Standing::Remedied => empty(core, candidate, &loaded).await,
    }
}

/// Whether a candidate was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It was not.
    No,
    /// It was, and its outcome is not known.
    Perhaps,
}

/// Tells of a candidate that waits, if there is one.
pub(super) async fn pending(core: &Core, target: &Target) -> Result<Option<Sent>, Error> {
    if !matches!(target.credential.grant, Grant::RefreshToken { .. }) {
        return Ok(None);
    }
    let candidate = &core.candidate(target);
    let loaded = core.read(candidate).await?.loaded;
    let was_sent = loaded.record.as_ref().is_some_and(|record| record.intent.is_some());
    Ok(match standing(&loaded, candidate) {
        Standing::None => None,
        Standing::Waiting if was_sent => Some(Sent::Perhaps),
        Standing::Waiting | Standing::Proven(_) | Standing::Remedied => Some(Sent::No),
    })
}

async fn replace(
    core: &Core,
    candidate: &Target,
    loaded: &Loaded,
    secrets: &GrantSecrets,
) -> Result<Written, StoreError> {
    let unit = &candidate.slot.place.unit;
    let (attempt, expected, next) = (&AttemptId::random(), loaded.revision(), loaded.next);
    let import = Import { unit, attempt, expected, next, secrets };
    let written = core.store.import(&import).await?;
    if written == Written::Done {
        core.lately.replaced(&import);
    }
    Ok(written)
}
