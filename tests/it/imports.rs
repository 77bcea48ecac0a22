//! An imported refresh token replaces a grant only when it has given a token (contract: import).

use bearerd::{
    proto::{
        DescribeGrantRequest, DescribeGrantResponse, GetTokenRequest, GrantState, ImportGrantRequest,
        import_grant_request::Secret,
    },
    sandbox::{Fault, Options, Outcome, Rotation},
};
use tonic::{Code, Status};

use crate::support::{
    PATIENCE, eventually,
    house::{House, ROTATING, reason},
};

const ADA: &str = "ada";

fn import(refresh_token: &str) -> ImportGrantRequest {
    ImportGrantRequest {
        credential: "demo".to_owned(),
        secret: Some(Secret::RefreshToken(refresh_token.to_owned())),
        ..ImportGrantRequest::default()
    }
}

async fn imported(house: &House, request: ImportGrantRequest) -> Result<u64, Status> {
    house.grants.clone().import_grant(request).await.map(|answer| answer.into_inner().generation)
}

async fn describe(house: &House, subject: &str) -> DescribeGrantResponse {
    let (credential, subject) = ("demo".to_owned(), subject.to_owned());
    let request = DescribeGrantRequest { credential, subject, ..DescribeGrantRequest::default() };
    house.grants.clone().describe_grant(request).await.unwrap().into_inner()
}

fn state(described: &DescribeGrantResponse) -> (GrantState, bool, bool) {
    (described.state(), described.import_pending, described.outcome_unknown)
}

/// Has the grant's refresh token used.
async fn refreshed(house: &House) -> u64 {
    let current = house.get("demo").await.unwrap().generation;
    house.report("demo", current).await.unwrap().1.unwrap().generation
}

/// N3: `echo garbage | bearerd grant import` ended a healthy grant.
#[tokio::test]
async fn a_refresh_token_that_the_provider_refuses_leaves_the_grant_as_it_was() {
    let house = House::with(ROTATING).await;
    let before = house.get("demo").await.unwrap();
    let refused = imported(&house, import("garbage")).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "REAUTHORIZATION_REQUIRED".to_owned(), None));
    assert!(refused.message().contains("was not stored: the provider refuses it"), "{refused:?}");
    assert_eq!(state(&describe(&house, "").await), (GrantState::Active, false, false));
    assert!(house.get("demo").await.unwrap() == before);
    assert!(refreshed(&house).await > before.generation);
    assert_eq!(house.asked(), 3);

    // It is known now, and not sent again.
    assert_eq!(reason(&imported(&house, import("garbage")).await.unwrap_err()).1, "INVALID_REQUEST");
    assert_eq!(house.asked(), 3);

    // Where there was no grant, there is none.
    let hers = ImportGrantRequest { subject: ADA.to_owned(), ..import("garbage of hers") };
    assert_eq!(reason(&imported(&house, hers).await.unwrap_err()).1, "REAUTHORIZATION_REQUIRED");
    assert_eq!(state(&describe(&house, ADA).await), (GrantState::Absent, false, false));
    let ask = GetTokenRequest { credential: "demo".to_owned(), subject: ADA.to_owned(), ..GetTokenRequest::default() };
    assert_eq!(reason(&house.ask(ask).await.unwrap_err()).1, "REAUTHORIZATION_REQUIRED");
    assert_eq!(house.asked(), 4);
}

/// N3.
#[tokio::test]
async fn a_refusal_that_is_about_something_else_than_the_refresh_token_lets_it_be_imported_later() {
    let house = House::with(ROTATING).await;
    let before = house.get("demo").await.unwrap().generation;
    let good = house.sandbox.mint_refresh_token("demo");
    for (fault, why) in [
        (Fault::ErrorWord("invalid_client".to_owned()), "CLIENT_CONFIGURATION_REJECTED"),
        (Fault::ErrorWord("invalid_scope".to_owned()), "INSUFFICIENT_SCOPE"),
    ] {
        house.sandbox.fail_next(fault);
        let refused = imported(&house, import(&good)).await.unwrap_err();
        assert_eq!(reason(&refused).1, why);
        assert_eq!(state(&describe(&house, "").await), (GrantState::Active, false, false));
        assert_eq!(house.get("demo").await.unwrap().generation, before);
    }
    let generation = imported(&house, import(&good)).await.unwrap();
    assert_eq!(house.get("demo").await.unwrap().generation, generation);
}

/// N3: the swap gives up the tokens of the former grant, whatever their scopes.
#[tokio::test]
async fn an_import_replaces_the_grant_and_all_its_tokens_at_once() {
    let house = House::with(ROTATING).await;
    let narrow = || GetTokenRequest {
        credential: "demo".to_owned(),
        scopes: vec!["write".to_owned()],
        ..GetTokenRequest::default()
    };
    let (before, other) = (house.get("demo").await.unwrap(), house.ask(narrow()).await);
    let asked = house.asked();
    let generation = imported(&house, import(&house.sandbox.mint_refresh_token("demo"))).await.unwrap();
    assert!(generation > before.generation);
    assert_eq!(house.asked(), asked + 1, "one refresh verifies it");
    let after = house.get("demo").await.unwrap();
    assert_eq!((after.generation, house.asked()), (generation, asked + 1), "its token is used");
    if other.is_ok() {
        assert!(house.ask(narrow()).await.unwrap().generation > generation);
    }
    assert_eq!(state(&describe(&house, "").await), (GrantState::Active, false, false));
    assert!(house.sandbox.journal().iter().all(|entry| entry.outcome == Outcome::Issued));
}

/// N3: `--no-verify`.
#[tokio::test]
async fn a_grant_that_is_not_verified_is_not_tried_until_it_has_given_a_token() {
    let house = House::with(ROTATING).await;
    house.get("demo").await.unwrap();
    let request = ImportGrantRequest { no_verify: true, ..import(&house.sandbox.mint_refresh_token("demo")) };
    let generation = imported(&house, request).await.unwrap();
    assert_eq!(house.asked(), 1);
    assert_eq!(state(&describe(&house, "").await), (GrantState::NotTried, false, false));
    assert!(house.get("demo").await.unwrap().generation > generation);
    assert_eq!(state(&describe(&house, "").await), (GrantState::Active, false, false));
}

/// N3: the provider may have acted or not. Whoever needs a token next settles it.
#[tokio::test]
async fn an_import_without_an_answer_is_kept_beside_the_grant_and_tried_first() {
    let house = House::with(ROTATING).await;
    let before = house.get("demo").await.unwrap();
    let good = house.sandbox.mint_refresh_token("demo");
    house.sandbox.fail_next(Fault::Status(500));
    let unanswered = imported(&house, import(&good)).await.unwrap_err();
    assert_eq!(reason(&unanswered).1, "REFRESH_OUTCOME_UNKNOWN");
    assert!(unanswered.message().contains("it and the former grant are kept"), "{unanswered:?}");
    assert_eq!(state(&describe(&house, "").await), (GrantState::Active, true, true));
    assert!(house.get("demo").await.unwrap() == before, "a valid token is served meanwhile");

    eventually(PATIENCE, async || house.report("demo", before.generation).await.is_ok()).await;
    assert!(house.get("demo").await.unwrap().generation > before.generation);
    assert_eq!(state(&describe(&house, "").await), (GrantState::Active, false, false));
    assert_eq!(house.asked(), 3, "the former refresh token was not presented");
    house.sandbox.revoke_grant(&good);
    let refused = house.report("demo", house.get("demo").await.unwrap().generation).await.unwrap_err();
    assert_eq!(reason(&refused).1, "REAUTHORIZATION_REQUIRED", "it is the imported grant that is used");
}

/// N3: the answer was lost with the imported grant; the one before it goes on.
#[tokio::test]
async fn an_import_whose_answer_was_lost_ends_without_the_grant_that_it_was_to_replace() {
    let house = House::with(ROTATING).await;
    let before = house.get("demo").await.unwrap().generation;
    let lost = house.sandbox.mint_refresh_token("demo");
    house.sandbox.fail_next(Fault::DropAfterHandling);
    assert_eq!(reason(&imported(&house, import(&lost)).await.unwrap_err()).1, "REFRESH_OUTCOME_UNKNOWN");
    // It is not handed over once more: bearerd presents it itself, once.
    assert_eq!(reason(&imported(&house, import(&lost)).await.unwrap_err()).1, "INVALID_REQUEST");
    eventually(PATIENCE, async || house.report("demo", before).await.is_ok()).await;
    assert_eq!(state(&describe(&house, "").await), (GrantState::Active, false, false));
    assert!(!house.sandbox.family_alive(&lost));
    assert!(refreshed(&house).await > before);
    let refused = house.sandbox.journal().iter().filter(|entry| entry.outcome != Outcome::Issued).count();
    assert_eq!(refused, 1, "the lost one, once");
}

/// N3: a second use of a refresh token may end the grant that lives.
#[tokio::test]
async fn a_refresh_token_that_was_presented_before_is_not_imported() {
    let house = House::with(ROTATING).await;
    house.get("demo").await.unwrap();
    let first = house.sandbox.mint_refresh_token("demo");
    imported(&house, import(&first)).await.unwrap();
    let second = house.sandbox.mint_refresh_token("demo");
    imported(&house, import(&second)).await.unwrap();
    refreshed(&house).await;
    let asked = house.asked();
    for used in [&first, &second] {
        for no_verify in [false, true] {
            let refused = imported(&house, ImportGrantRequest { no_verify, ..import(used) }).await.unwrap_err();
            assert_eq!(reason(&refused).1, "INVALID_REQUEST");
            assert!(refused.message().contains("a second use could end the grant"), "{refused:?}");
        }
    }
    assert_eq!(house.asked(), asked, "nothing is sent");
    refreshed(&house).await;
    assert!(house.sandbox.family_alive(&second));
}

/// N3: where the provider does not rotate, the same refresh token is good for ever.
#[tokio::test]
async fn where_refresh_tokens_do_not_rotate_the_one_in_use_may_be_imported() {
    let options = Options { rotation: Rotation::Off, ..Options::default() };
    let house = House::furnished(options, &[ROTATING, "rotation = \"none\"\n"].concat()).await;
    let token = house.sandbox.mint_refresh_token("demo");
    for _ in 0..3 {
        imported(&house, import(&token)).await.unwrap();
        refreshed(&house).await;
    }
    // Also after the provider said by mistake that it is no good.
    house.sandbox.fail_next(Fault::ErrorWord("invalid_grant".to_owned()));
    let current = house.get("demo").await.unwrap().generation;
    assert_eq!(reason(&house.report("demo", current).await.unwrap_err()).1, "REAUTHORIZATION_REQUIRED");
    imported(&house, import(&token)).await.unwrap();
    refreshed(&house).await;
}

/// N3: imports wait for refreshes and for each other, and the last one stays.
#[tokio::test]
async fn imports_and_refreshes_at_the_same_time_present_each_refresh_token_once() {
    let options = Options { latency: std::time::Duration::from_millis(200), ..Options::default() };
    let house = House::furnished(options, ROTATING).await;
    let current = house.get("demo").await.unwrap().generation;
    let [one, other] = [(); 2].map(|()| house.sandbox.mint_refresh_token("demo"));
    let (report, one_in, other_in) =
        tokio::join!(house.report("demo", current), imported(&house, import(&one)), imported(&house, import(&other)));
    report.unwrap();
    for result in [&one_in, &other_in] {
        let in_progress = |status: &Status| reason(status).1 == "REFRESH_IN_PROGRESS";
        assert!(result.as_ref().err().is_none_or(in_progress), "{result:?}");
    }
    assert!(one_in.is_ok() || other_in.is_ok());
    refreshed(&house).await;
    assert!(
        house.sandbox.journal().iter().all(|entry| entry.outcome == Outcome::Issued),
        "{:?}",
        house.sandbox.journal()
    );
}

/// There is no provider to ask.
#[tokio::test]
async fn a_static_secret_is_stored_as_it_is() {
    let house = House::with("[credentials.demo]\ngrant = \"static\"\nscheme = \"bearer\"\n").await;
    let request = ImportGrantRequest { secret: Some(Secret::StaticSecret("key".to_owned())), ..import("") };
    imported(&house, request).await.unwrap();
    assert_eq!(state(&describe(&house, "").await), (GrantState::Active, false, false));
    assert_eq!(house.get("demo").await.unwrap().access_token, "key");
}
