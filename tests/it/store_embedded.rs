//! What only the embedded store promises: one process at a time, and a file that outlives it.

use std::{fs, path::Path, sync::Arc};

use bearerd::{
    clock::Moment,
    store::{AttemptId, Ring, Store, StoreError, embedded::Embedded},
    token::Generation,
};
use redb::{Database, ReadableDatabase, TableDefinition};
use tempfile::TempDir;

use crate::{
    store_contract::{Desk, LONG, SHORT, bearer, canary, held, refresh_token},
    support::{PATIENCE, eventually},
};

const GRANTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("grants");

/// A ring of keys, each of this byte alone; the first one seals.
pub fn ring(keys: &[(&str, u8)]) -> Ring {
    let keys: Vec<_> = keys.iter().map(|(id, byte)| (*id, [*byte; 32])).collect();
    Ring::new(keys.iter().map(|(id, key)| (*id, key.as_slice()))).unwrap()
}

fn open(directory: &TempDir) -> Arc<Embedded> {
    Arc::new(Embedded::open(&file(directory), ring(&[("a", 1)])).unwrap())
}

fn file(directory: &TempDir) -> std::path::PathBuf {
    directory.path().join("bearerd.redb")
}

fn desk(store: &Arc<Embedded>) -> Desk {
    Desk::new(&shared(store))
}

fn shared(store: &Arc<Embedded>) -> Arc<dyn Store> {
    Arc::<Embedded>::clone(store)
}

#[track_caller]
fn refused(path: &Path, ring: Ring) -> String {
    match Embedded::open(path, ring).err() {
        Some(StoreError::Open(why)) => why,
        other => panic!("not refused but {other:?}"),
    }
}

/// A store for the contract, with the directory that it stands in.
pub async fn new_store() -> (Arc<dyn Store>, TempDir) {
    let directory = TempDir::new().unwrap();
    (open(&directory), directory)
}

#[tokio::test]
async fn a_file_is_open_once() {
    let directory = TempDir::new().unwrap();
    let first = open(&directory);
    let why = refused(&file(&directory), ring(&[("a", 1)]));
    assert!(why.contains("bearerd.redb: it is in use by another process"), "{why}");
    desk(&first).refresh("first").await;
    drop(first);
    assert_eq!(desk(&open(&directory)).token().await.as_deref(), Some("first-access"));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let directory = TempDir::new().unwrap();
    let sender = AttemptId::random();
    let store = open(&directory);
    let revision = desk(&store).refresh("first").await;
    desk(&store).hold(&sender).await;
    desk(&store).dispatch(&sender, revision, None).await;
    drop(store);

    let store = open(&directory);
    assert_eq!(desk(&store).token().await.as_deref(), Some("first-access"));
    // Leases end with the process; what was sent does not.
    let (record, next) = held(desk(&store).claim(&AttemptId::random()).await);
    let record = record.unwrap();
    assert!(next > revision);
    assert_eq!((record.revision, refresh_token(&record)), (revision, "first-refresh"));
    assert_eq!(record.intent.unwrap().attempt, sender);
}

#[tokio::test]
async fn another_key_is_refused_and_a_further_one_is_not() {
    let directory = TempDir::new().unwrap();
    desk(&open(&directory)).refresh("first").await;
    let why = refused(&file(&directory), ring(&[("b", 1)]));
    assert!(why.contains("the key \"a\""), "{why}");
    let why = refused(&file(&directory), ring(&[("a", 2)]));
    assert!(why.contains("damaged"), "{why}");

    let both = Arc::new(Embedded::open(&file(&directory), ring(&[("b", 2), ("a", 1)])).unwrap());
    assert_eq!(desk(&both).token().await.as_deref(), Some("first-access"));
}

#[tokio::test]
async fn a_file_of_something_else_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let text = "the letters of a lifetime\n".repeat(1000);
    fs::write(file(&directory), &text).unwrap();
    let why = refused(&file(&directory), ring(&[("a", 1)]));
    assert!(why.contains("bearerd.redb"), "{why}");
    assert_eq!(fs::read_to_string(file(&directory)).unwrap(), text);
}

#[tokio::test]
async fn a_sweep_takes_expired_tokens_only() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    let brief = Desk::of(&shared(&store), "brief", "read");
    let kept = Desk::of(&shared(&store), "kept", "read");
    let fixed = Desk::of(&shared(&store), "fixed", "read");
    kept.refresh("kept").await;
    for (desk, life) in [(&brief, Some(SHORT)), (&fixed, None)] {
        let token = bearer(desk.load().await.next, "value", life);
        desk.commit_token(&AttemptId::random(), Generation::ZERO, &token, "word").await.unwrap();
    }
    // One that is replaced by one with a longer life is not due any more.
    let replaced = Desk::of(&shared(&store), "replaced", "read");
    let token = bearer(replaced.load().await.next, "brief", Some(SHORT));
    replaced.commit_token(&AttemptId::random(), Generation::ZERO, &token, "word").await.unwrap();
    replaced.refresh("replaced").await;

    let end = Moment::now().after(SHORT * 2);
    eventually(PATIENCE, async || end.has_passed(&Moment::now())).await;
    assert_eq!(store.sweep().await.unwrap(), 1);
    assert_eq!(store.sweep().await.unwrap(), 0);
    assert_eq!(kept.token().await.as_deref(), Some("kept-access"));
    assert_eq!(replaced.token().await.as_deref(), Some("replaced-access"));
    assert_eq!(fixed.token().await.as_deref(), Some("value"));
    assert_eq!(brief.token().await, None);
    assert_eq!(refresh_token(&brief.record().await), "word-refresh");
}

#[tokio::test]
async fn a_damaged_row_is_told_and_kept() {
    let directory = TempDir::new().unwrap();
    let place = {
        let store = open(&directory);
        desk(&store).refresh("first").await;
        desk(&store).place
    };
    let whole = stored(&directory, place.unit.as_str(), None);
    let cut = whole[..whole.len() / 2].to_vec();
    let absurd = String::from_utf8(whole).unwrap().replacen("\"rev\":", "\"rev\":9999", 1).into_bytes();
    let token = bearer(Generation::MAX, "second", Some(LONG));
    for damaged in [cut, absurd, b"{\"rev\":\"x\"}".to_vec()] {
        stored(&directory, place.unit.as_str(), Some(&damaged));
        let store = shared(&open(&directory));
        let owner = AttemptId::random();
        let claim = bearerd::store::Claim {
            place: &place,
            owner: &owner,
            lease: LONG,
            refused: Generation::MAX,
            purpose: bearerd::store::Purpose::default(),
        };
        let commit = Desk::new(&store).commit_token(&owner, Generation::ZERO, &token, "second").await;
        for answer in [store.load(&place).await.err(), store.claim(&claim).await.err(), commit.err()] {
            assert!(matches!(answer, Some(StoreError::Unreadable(_))), "{answer:?}");
        }
        drop(store);
        assert_eq!(stored(&directory, place.unit.as_str(), None), damaged);
    }
}

/// Reads a grant's row from the file, or writes it.
fn stored(directory: &TempDir, unit: &str, new: Option<&[u8]>) -> Vec<u8> {
    let database = Database::open(file(directory)).unwrap();
    if let Some(row) = new {
        let transaction = database.begin_write().unwrap();
        transaction.open_table(GRANTS).unwrap().insert(unit, row).unwrap();
        transaction.commit().unwrap();
    }
    let table = database.begin_read().unwrap().open_table(GRANTS).unwrap();
    table.get(unit).unwrap().unwrap().value().to_vec()
}

#[tokio::test]
async fn the_file_tells_no_secret() {
    let directory = TempDir::new().unwrap();
    canary::leave(&shared(&open(&directory))).await;
    canary::assert_silent("the file", &fs::read(file(&directory)).unwrap());
}
