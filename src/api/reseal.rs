//! `ResealRecords`, page by page. A page token carries all that a pass knows, so each page can be asked of any replica.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::status::Refusal;
use crate::{
    broker::{Error, Pass, Passed},
    proto::{ResealRecordsRequest, ResealRecordsResponse, SealedRecords},
    store::{Census, census::UNKNOWN},
};

/// What a page token holds. It comes back from whoever may administer everything, and leads to nothing but a count.
#[derive(Serialize, Deserialize)]
struct Page {
    from: String,
    so_far: Census,
}

pub(super) fn pass(request: &ResealRecordsRequest) -> Result<Pass, Refusal> {
    let reseal = !request.only_count;
    if request.page_token.is_empty() {
        return Ok(Pass { reseal, ..Pass::default() });
    }
    let page = URL_SAFE_NO_PAD.decode(&request.page_token).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let Page { from, so_far } = page.ok_or_else(|| Error::InvalidRequest {
        field: "page_token",
        problem: "is none that this rpc gave; leave it empty to begin anew".to_owned(),
    })?;
    Ok(Pass { from: Some(from), so_far, reseal })
}

pub(super) fn page(passed: Passed) -> ResealRecordsResponse {
    let Passed { census, keys, next } = passed;
    let of = |key: &str| census.sealed.get(key).copied().unwrap_or_default();
    let configured =
        keys.iter().enumerate().map(|(at, key)| SealedRecords { records: of(key), key: key.clone(), seals: at == 0 });
    let others = SealedRecords { key: UNKNOWN.to_owned(), records: of(UNKNOWN), seals: false };
    ResealRecordsResponse {
        keys: configured.chain((others.records > 0).then_some(others)).collect(),
        resealed: census.resealed,
        unreadable: census.unreadable,
        next_page_token: next.map(|from| token(&Page { from, so_far: census })).unwrap_or_default(),
    }
}

fn token(page: &Page) -> String {
    // Strings and numbers always make JSON.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(page).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_is_read_back_and_a_forged_one_refused() {
        let mut census = Census { resealed: 2, ..Census::default() };
        census.sealed.insert("old".to_owned(), 3);
        let passed = Passed { census: census.clone(), keys: vec!["new".to_owned()], next: Some("17".to_owned()) };
        let page_token = page(passed).next_page_token;
        let back = pass(&ResealRecordsRequest { page_token, only_count: true }).unwrap();
        assert_eq!((back.from.as_deref(), back.so_far, back.reseal), (Some("17"), census, false));
        for page_token in ["x", "e30", "!"] {
            assert!(pass(&ResealRecordsRequest { page_token: page_token.to_owned(), only_count: true }).is_err());
        }
    }
}
