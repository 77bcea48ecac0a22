//! Encryption at rest. Every secret in a store is sealed with an AEAD whose associated data is the place it stands in,
//! so that a ciphertext moved to another key, field or revision does not open.
//!
//! The cipher is AES-256-GCM-SIV (RFC 8452): a nonce that should ever repeat, after a restored snapshot of a virtual
//! machine for example, reveals at most that two records are equal.

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::token::Generation;

/// The version that stands first in every sealed value.
const VERSION: u8 = 1;

/// The keys that open records; the first of them also seals. Clones share them, so that all who hold one change to other
/// keys at the same moment.
#[derive(Clone)]
pub struct Ring {
    keys: Arc<ArcSwap<Vec<Key>>>,
}

struct Key {
    id: String,
    key: LessSafeKey,
}

/// Where a sealed value stands. It is authenticated with the value.
#[derive(Clone, Copy, Debug)]
pub struct Seat<'a> {
    /// The record's name.
    pub key: &'a str,
    /// The field in it.
    pub field: &'a str,
    /// The record's revision.
    pub revision: Generation,
}

/// A sealed value; as text it is base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sealed(pub Vec<u8>);

impl Sealed {
    /// The id of the key that sealed it, as its header says; `None` if it has no such header.
    pub fn key_id(&self) -> Option<&str> {
        split_header(&self.0).map(|(id, _, _)| id)
    }
}

impl From<Sealed> for String {
    fn from(sealed: Sealed) -> Self {
        STANDARD.encode(sealed.0)
    }
}

impl TryFrom<String> for Sealed {
    type Error = SealError;

    fn try_from(text: String) -> Result<Self, SealError> {
        STANDARD.decode(text).map(Self).map_err(|_| SealError::Damaged)
    }
}

/// Why a value cannot be sealed or opened. None of these says anything of the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// A ring needs a key.
    #[error("there is no seal key")]
    NoKey,
    /// A key has the wrong length or its name does not fit.
    #[error("seal key {0:?} is not 32 bytes long, or its id is not 1 to 64 bytes long")]
    BadKey(String),
    /// Two keys share a name.
    #[error("there are two seal keys with the id {0:?}")]
    TwoKeys(String),
    /// The value is sealed with a key that is not here.
    #[error("it is sealed with the key {0:?}, which is not among the configured seal keys")]
    UnknownKey(String),
    /// The key of this id does not open the value.
    #[error("it is damaged, was moved from another place, or key {0:?} is not the one that sealed it")]
    NotOpened(String),
    /// The value is no sealed value at all.
    #[error("it is damaged")]
    Damaged,
}

impl Ring {
    /// A ring of these keys (id, 32 bytes), the sealing one first.
    pub fn new<'a>(keys: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, SealError> {
        let mut ring: Vec<Key> = Vec::new();
        for (id, bytes) in keys {
            if ring.iter().any(|key| key.id == id) {
                return Err(SealError::TwoKeys(id.to_owned()));
            }
            ring.push(Key::new(id, bytes)?);
        }
        if ring.is_empty() {
            return Err(SealError::NoKey);
        }
        Ok(Self { keys: Arc::new(ArcSwap::from_pointee(ring)) })
    }

    /// Takes over the keys of another ring, for this one and all its clones.
    pub fn replace_with(&self, other: &Self) {
        self.keys.store(other.keys.load_full());
    }

    /// The ids of the keys, the sealing one first.
    pub fn ids(&self) -> Vec<String> {
        self.keys.load().iter().map(|key| key.id.clone()).collect()
    }

    /// Seals a value for its seat.
    pub fn seal(&self, seat: &Seat<'_>, plain: &[u8]) -> Result<Sealed, SealError> {
        let keys = self.keys.load();
        let key = keys.first().ok_or(SealError::NoKey)?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| SealError::Damaged)?;
        let header = key.header();
        let mut sealed = Zeroizing::new(plain.to_vec());
        let tag = key
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(seat.aad(&header)), &mut sealed)
            .map_err(|_| SealError::Damaged)?;
        Ok(Sealed([&header, &nonce[..], &sealed, tag.as_ref()].concat()))
    }

    /// Opens a value that was sealed for this seat.
    pub fn open(&self, seat: &Seat<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (id, header, rest) = split_header(&sealed.0).ok_or(SealError::Damaged)?;
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.id == id).ok_or_else(|| SealError::UnknownKey(id.to_owned()))?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Damaged)?;
        let mut plain = Zeroizing::new(body.to_vec());
        let length = key
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(seat.aad(header)), &mut plain)
            .map_err(|_| SealError::NotOpened(key.id.clone()))?
            .len();
        plain.truncate(length);
        Ok(plain)
    }
}

impl Key {
    fn new(id: &str, bytes: &[u8]) -> Result<Self, SealError> {
        let bad = || SealError::BadKey(id.to_owned());
        if id.is_empty() || id.len() > 64 {
            return Err(bad());
        }
        let key = UnboundKey::new(&AES_256_GCM_SIV, bytes).map_err(|_| bad())?;
        Ok(Self { id: id.to_owned(), key: LessSafeKey::new(key) })
    }

    fn header(&self) -> Vec<u8> {
        // The length fits: ids have at most 64 bytes.
        let length = u8::try_from(self.id.len()).unwrap_or(u8::MAX);
        [&[VERSION, length], self.id.as_bytes()].concat()
    }
}

impl Seat<'_> {
    /// Every part with its length before it: parts that are only strung together can be shifted against each other.
    fn aad(&self, header: &[u8]) -> Vec<u8> {
        let mut aad = Vec::with_capacity(header.len() + self.key.len() + self.field.len() + 32);
        for part in [header, self.key.as_bytes(), self.field.as_bytes()] {
            aad.extend_from_slice(&(part.len() as u64).to_be_bytes());
            aad.extend_from_slice(part);
        }
        aad.extend_from_slice(&self.revision.get().to_be_bytes());
        aad
    }
}

fn split_header(sealed: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let [version, length, rest @ ..] = sealed else { return None };
    if *version != VERSION {
        return None;
    }
    let (id, _) = rest.split_at_checked(usize::from(*length))?;
    let (header, body) = sealed.split_at_checked(2 + id.len())?;
    Some((std::str::from_utf8(id).ok()?, header, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAT: Seat<'_> = Seat { key: "crm/abc", field: "grant", revision: Generation::new(7) };

    fn ring(ids: &[(&str, u8)]) -> Ring {
        let keys: Vec<(&str, Vec<u8>)> = ids.iter().map(|(id, byte)| (*id, vec![*byte; 32])).collect();
        Ring::new(keys.iter().map(|(id, key)| (*id, key.as_slice()))).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_in_its_seat_only() {
        let ring = ring(&[("a", 1)]);
        let sealed = ring.seal(&SEAT, b"refresh-token").unwrap();
        assert_eq!(ring.open(&SEAT, &sealed).unwrap().as_slice(), b"refresh-token");
        assert!(!sealed.0.windows(7).any(|window| window == b"refresh"));
        let elsewhere = [
            Seat { key: "crm/abd", ..SEAT },
            Seat { field: "token", ..SEAT },
            Seat { revision: Generation::new(8), ..SEAT },
            Seat { key: "crm/abcg", field: "rant", ..SEAT },
        ];
        for seat in elsewhere {
            assert_eq!(ring.open(&seat, &sealed).unwrap_err(), SealError::NotOpened("a".into()), "{seat:?}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let ring = ring(&[("a", 1)]);
        let sealed = ring.seal(&SEAT, b"x").unwrap();
        for at in 0..sealed.0.len() {
            let mut damaged = sealed.clone();
            damaged.0[at] ^= 1;
            assert!(ring.open(&SEAT, &damaged).is_err(), "byte {at}");
            assert!(ring.open(&SEAT, &Sealed(sealed.0[..at].to_vec())).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn all_keys_open_and_a_missing_one_is_named() {
        let old = ring(&[("2025", 1)]).seal(&SEAT, b"x").unwrap();
        assert!(ring(&[("2026", 2), ("2025", 1)]).open(&SEAT, &old).is_ok());
        assert_eq!(ring(&[("2026", 2)]).open(&SEAT, &old).unwrap_err(), SealError::UnknownKey("2025".into()));
        let wrong = ring(&[("2025", 9)]).open(&SEAT, &old).unwrap_err();
        // C-K16: another key under the same id.
        assert!(wrong.to_string().contains("or key \"2025\" is not the one that sealed it"), "{wrong}");
    }

    #[test]
    fn no_nonce_is_used_twice_and_none_is_kept() {
        let ring = ring(&[("a", 1)]);
        let nonces = (0..10_000).map(|_| ring.seal(&SEAT, b"x").unwrap().0[3..15].to_vec());
        assert_eq!(nonces.collect::<std::collections::BTreeSet<_>>().len(), 10_000);
    }

    #[test]
    fn what_was_never_sealed_or_in_another_form_is_not_believed() {
        let ring = ring(&[("a", 1)]);
        let Sealed(mut other) = ring.seal(&SEAT, b"x").unwrap();
        other[0] += 1;
        for text in [&b"refresh-token"[..], b"", b"{}", &[0; 64], &other] {
            assert_eq!(ring.open(&SEAT, &Sealed(text.to_vec())).unwrap_err(), SealError::Damaged, "{text:?}");
        }
    }

    #[test]
    fn a_ring_has_distinct_keys_of_the_right_length() {
        let short: &[u8] = &[1; 31];
        let whole: &[u8] = &[1; 32];
        assert_eq!(Ring::new([]).err(), Some(SealError::NoKey));
        assert_eq!(Ring::new([("a", short)]).err(), Some(SealError::BadKey("a".into())));
        assert_eq!(Ring::new([("a", whole), ("a", whole)]).err(), Some(SealError::TwoKeys("a".into())));
    }
}
