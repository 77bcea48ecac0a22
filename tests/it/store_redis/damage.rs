//! Records that somebody damaged: told as unreadable, never taken for something else, and left as they are.

use bearerd::{
    clock::Moment,
    failure::FailureCause,
    store::{Claim, Claimed, Dispatch, Purpose, Settle, Step, Verdict},
};
use redis::{AsyncConnectionConfig, FromRedisValue};

use super::*;
use crate::store_contract::held;

/// Runs a command, and waits longer for its answer than is usual: values can be large here.
async fn patiently<T: FromRedisValue>(redis: &Redis, words: &[&str]) -> T {
    let settings = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await.unwrap();
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.unwrap()
}

/// All keys with their content.
async fn content(redis: &Redis) -> Vec<(String, Vec<Vec<u8>>)> {
    let mut all = Vec::new();
    for key in redis.keys().await {
        let kind: String = patiently(redis, &["TYPE", &key]).await;
        let mut values: Vec<Vec<u8>> = match kind.as_str() {
            "hash" => patiently(redis, &["HGETALL", &key]).await,
            "list" => patiently(redis, &["LRANGE", &key, "0", "-1"]).await,
            _ => vec![patiently(redis, &["GET", &key]).await],
        };
        // Redis gives the fields of a hash in no order.
        values.sort_unstable();
        all.push((key, values));
    }
    all.sort_unstable();
    all
}

/// Damages one grant and its token after the other with these Lua scripts, whose keys are the two; each time only what
/// is told may be known of it, and it stays as it is.
async fn are_told_and_kept(damages: &[String]) {
    let (store, redis) = new_store().await;
    for (number, damage) in damages.iter().enumerate() {
        let desk = Desk::of(&store, &format!("subject {number}"), "read");
        desk.refresh("first").await;
        let base = format!("test:{{{}}}", desk.place.unit.as_str());
        let (grant, token) = (format!("{base}:grant"), format!("{base}:token:{}", desk.place.token.as_str()));
        let _: () = patiently(&redis, &["EVAL", damage, "2", &grant, &token]).await;
        let before = content(&redis).await;

        let owner = AttemptId::random();
        let claim =
            |refused| Claim { place: &desk.place, owner: &owner, lease: LONG, refused, purpose: Purpose::default() };
        let (any, newer) = (claim(Generation::ZERO), claim(Generation::MAX));
        for (asked, answer) in [
            ("load", store.load(&desk.place).await.err()),
            ("claim", store.claim(&any).await.err()),
            ("claim of a newer one", store.claim(&newer).await.err()),
        ] {
            assert!(matches!(answer, Some(StoreError::Unreadable(_))), "{damage}: {asked}: {answer:?}");
        }
        assert_eq!(content(&redis).await, before, "{damage}");
    }
}

fn owned(scripts: &[&str]) -> Vec<String> {
    scripts.iter().map(|script| (*script).to_owned()).collect()
}

#[tokio::test]
async fn a_key_of_another_type() {
    are_told_and_kept(&owned(&[
        "redis.call('DEL', KEYS[1]); redis.call('SET', KEYS[1], 'x')",
        "redis.call('DEL', KEYS[1]); redis.call('RPUSH', KEYS[1], 'x')",
        "redis.call('DEL', KEYS[2]); redis.call('SET', KEYS[2], 'x')",
    ]))
    .await;
}

#[tokio::test]
async fn a_sealed_value_that_was_cut_swapped_or_lost() {
    are_told_and_kept(&owned(&[
        "local s = redis.call('HGET', KEYS[1], 'sealed'); redis.call('HSET', KEYS[1], 'sealed', s:sub(1, -2))",
        "local s = redis.call('HGET', KEYS[2], 'sealed'); redis.call('HSET', KEYS[2], 'sealed', s:sub(1, 20))",
        "redis.call('HSET', KEYS[1], 'sealed', '')",
        "redis.call('HSET', KEYS[1], 'q_rev', '7', 'q_sealed', redis.call('HGET', KEYS[1], 'sealed'))",
        "redis.call('HSET', KEYS[2], 'sealed', '')",
        "redis.call('HSET', KEYS[1], 'sealed', redis.call('HGET', KEYS[2], 'sealed'))",
        "redis.call('HSET', KEYS[2], 'sealed', redis.call('HGET', KEYS[1], 'sealed'))",
        "redis.call('HDEL', KEYS[2], 'sealed')",
    ]))
    .await;
}

#[tokio::test]
async fn a_number_that_is_none_or_absurd() {
    let mut damages = Vec::new();
    for field in ["rev", "since", "q_rev", "retry_us", "failures", "sends", "intent_us", "made_us"] {
        for number in ["x", "", "-1", "1e3", "nan", "0x10", "99999999999999999999"] {
            damages.push(format!("redis.call('HSET', KEYS[1], '{field}', '{number}')"));
        }
    }
    for number in ["x", "", "-1", "nan", "9223372036854775808", "99999999999999999999"] {
        damages.push(format!("redis.call('HSET', KEYS[2], 'gen', '{number}')"));
    }
    for revision in ["9223372036854775808", "9007199254740992", "18446744073709551615"] {
        damages.push(format!("redis.call('HSET', KEYS[1], 'rev', '{revision}')"));
    }
    are_told_and_kept(&damages).await;
}

#[tokio::test]
async fn a_cause_of_failure_that_does_not_exist() {
    are_told_and_kept(&owned(&[
        "redis.call('HSET', KEYS[1], 'fail', 'BAD_MOOD')",
        "redis.call('HSET', KEYS[1], 'dead', 'BAD_MOOD')",
    ]))
    .await;
}

#[tokio::test]
async fn what_cannot_be_counted_is_not_written() {
    let (store, redis) = new_store().await;
    let desk = Desk::new(&store);
    let attempt = AttemptId::random();
    let revision = desk.refresh("first").await;
    desk.hold(&attempt).await;
    let grant = format!("test:{{{}}}:grant", desk.place.unit.as_str());
    for field in ["sends", "failures"] {
        let _: i64 = redis.cli(&["HSET", &grant, field, "x"]).await;
    }
    let token = format!("test:{{{}}}:token:{}", desk.place.unit.as_str(), desk.place.token.as_str());
    let _: i64 = redis.cli(&["HSET", &token, "gen", "x"]).await;
    let before = content(&redis).await;

    let unit = &desk.place.unit;
    let dispatch = Dispatch { unit, attempt: &attempt, expected: revision, seen: None, need: Duration::ZERO };
    let (verdict, cause) = (Verdict::Dead { again: None }, FailureCause::ProviderUnavailable);
    // By somebody who has no lease to give back.
    let settle =
        Settle { unit, attempt: &AttemptId::random(), expected: revision, verdict, cause, report: None, early: false };
    for answer in [
        store.dispatch(&dispatch).await.err(),
        store.settle(&settle).await.err(),
        store.reject(&desk.place, Generation::MAX, 1).await.err(),
    ] {
        assert!(matches!(answer, Some(StoreError::Unreadable(_))), "{answer:?}");
    }
    assert_eq!(content(&redis).await, before);
}

#[tokio::test]
async fn a_wait_from_before_the_clock_was_set_back_is_not_believed() {
    let (store, redis) = new_store().await;
    let desk = Desk::new(&store);
    desk.settle(&AttemptId::random(), Generation::ZERO, Verdict::BackOff { wait: LONG }).await;
    assert!(matches!(desk.claim(&AttemptId::random()).await, Claimed::Resting(_)));
    let grant = format!("test:{{{}}}:grant", desk.place.unit.as_str());
    let _: i64 = redis.cli(&["HINCRBY", &grant, "retry_us", "3600000000"]).await;
    desk.hold(&AttemptId::random()).await;
}

/// Lua for 2^n bytes, doubled into being, because repeating one takes longer.
fn bytes(n: u32) -> String {
    format!("local bytes = 'x' for i = 1, {n} do bytes = bytes .. bytes end ")
}

/// More than any record of ours has, and as much as one may have.
const FAR_TOO_MANY: u32 = 24;
const MANY: u32 = 22;

#[tokio::test]
async fn case_46_a_value_of_many_megabytes_is_not_taken_in() {
    let many = bytes(FAR_TOO_MANY);
    are_told_and_kept(&[
        format!("{many} redis.call('HSET', KEYS[1], 'sealed', bytes)"),
        format!("{many} redis.call('HSET', KEYS[1], 'attempt', bytes)"),
        format!("{many} redis.call('HSET', KEYS[1], 'not ours', bytes)"),
        format!("{many} redis.call('HSET', KEYS[2], 'sealed', bytes)"),
    ])
    .await;
}

#[tokio::test]
async fn case_46_large_values_do_not_leave_redis() {
    let (store, redis) = new_store().await;
    let desk = Desk::new(&store);
    desk.refresh("first").await;
    let sent = async || {
        let stats: String = patiently(&redis, &["INFO", "stats"]).await;
        let line = stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    let grant = format!("test:{{{}}}:grant", desk.place.unit.as_str());
    let fill = format!("{} redis.call('HSET', KEYS[1], 'sealed', bytes)", bytes(FAR_TOO_MANY));
    let before = sent().await;
    let _: () = patiently(&redis, &["EVAL", &fill, "1", &grant]).await;
    assert!(matches!(store.load(&desk.place).await, Err(StoreError::Unreadable(_))));
    let mut next = None;
    loop {
        let stepped = store.reseal(&Step { from: next.as_deref(), reseal: true }).await.unwrap();
        next = stepped.next;
        if next.is_none() {
            break;
        }
    }
    let root = format!("{} redis.call('SET', KEYS[1], bytes)", bytes(FAR_TOO_MANY));
    let _: () = patiently(&redis, &["EVAL", &root, "1", "test:root"]).await;
    assert!(matches!(store.ping().await, Err(StoreError::Unreadable(_))));
    assert!(matches!(open_with(&redis, ring("test", 1)).await, Err(StoreError::Unreadable(_))));
    let sent = sent().await - before;
    assert!(sent < 1 << 20, "{sent} bytes were sent");
}

#[tokio::test]
async fn case_46_a_record_as_large_as_two_answers_of_a_provider_is_read() {
    let (store, redis) = new_store().await;
    let desk = Desk::new(&store);
    desk.refresh("first").await;
    let grant = format!("test:{{{}}}:grant", desk.place.unit.as_str());
    let fill = format!("{} redis.call('HSET', KEYS[1], 'filler', bytes)", bytes(MANY));
    let _: () = patiently(&redis, &["EVAL", &fill, "1", &grant]).await;
    assert_eq!(desk.token().await.as_deref(), Some("first-access"));
}

/// S13: a key's TTL is the store's word alone, and is not believed beyond what is sealed.
#[tokio::test]
async fn case_35_a_token_whose_key_lost_its_ttl_ends_all_the_same() {
    const LIFE: Duration = Duration::from_millis(1_500);
    let (store, redis) = new_store().await;
    let (kept, restored) = (Desk::of(&store, "kept", "read"), Desk::of(&store, "restored", "read"));
    let key = |desk: &Desk| format!("test:{{{}}}:token:{}", desk.place.unit.as_str(), desk.place.token.as_str());
    let began = Moment::now();
    for desk in [&kept, &restored] {
        let attempt = AttemptId::random();
        let (_, next) = held(desk.claim(&attempt).await);
        let token = bearer(next, "brief", Some(LIFE));
        desk.commit_token(&attempt, Generation::ZERO, &token, "brief").await.unwrap();
    }
    let _: i64 = redis.cli(&["PERSIST", &key(&kept)]).await;
    let copy: Vec<u8> = redis.cli(&["DUMP", &key(&restored)]).await;
    assert_eq!(kept.token().await.as_deref(), Some("brief"));
    eventually(PATIENCE, async || kept.token().await.is_none() && restored.token().await.is_none()).await;
    assert!(Moment::now().since(&began) + Duration::from_millis(5) > LIFE);

    let mut connection = redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let restore = redis::cmd("RESTORE").arg(key(&restored)).arg(0).arg(copy).arg("REPLACE").to_owned();
    let _: () = restore.query_async(&mut connection).await.unwrap();
    for desk in [&kept, &restored] {
        assert_eq!(redis.cli::<i64>(&["PTTL", &key(desk)]).await, -1);
        assert_eq!(desk.token().await, None);
        // Nor does it keep the next one from being made.
        held(desk.claim_for(&AttemptId::random(), LONG, Generation::ZERO).await);
    }
}
