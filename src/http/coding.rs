//! Content codings of an answer. None is asked for, because an echoed token is found in a plain body only; what comes
//! compressed all the same is decoded as far as the size limit allows, or refused.

use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::{HeaderMap, header::CONTENT_ENCODING};

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodingError {
    /// It has a coding that was not asked for and is not known, or is damaged.
    Unreadable,
    /// It is larger than allowed once it is decoded.
    TooLarge,
}

/// The plain body, at most `limit` bytes of it, and whether it was coded.
pub fn plain(headers: &HeaderMap, body: Bytes, limit: usize) -> Result<(Bytes, bool), CodingError> {
    match coding(headers) {
        // An answer to HEAD names the coding of a body that does not come.
        _ if body.is_empty() => Ok((body, false)),
        Coding::Identity => Ok((body, false)),
        Coding::Gzip => gunzip(&body, limit).map(|plain| (plain.into(), true)),
        Coding::Other => Err(CodingError::Unreadable),
    }
}

enum Coding {
    Identity,
    Gzip,
    Other,
}

fn coding(headers: &HeaderMap) -> Coding {
    let mut names = headers.get_all(CONTENT_ENCODING).iter().map(|value| value.as_bytes().trim_ascii());
    match (names.next(), names.next()) {
        (None, _) => Coding::Identity,
        (Some(name), None) if name.is_empty() || name.eq_ignore_ascii_case(b"identity") => Coding::Identity,
        (Some(name), None) if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => {
            Coding::Gzip
        }
        (Some(_), _) => Coding::Other,
    }
}

/// Decodes no further than one byte beyond the limit, however much the body would become.
fn gunzip(body: &[u8], limit: usize) -> Result<Vec<u8>, CodingError> {
    let mut plain = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(body).take(most).read_to_end(&mut plain).map_err(|_| CodingError::Unreadable)?;
    if plain.len() > limit { Err(CodingError::TooLarge) } else { Ok(plain) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use http::HeaderValue;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(codings: &[&'static str], body: &[u8], limit: usize) -> Result<(Vec<u8>, bool), CodingError> {
        let mut headers = HeaderMap::new();
        for coding in codings {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        plain(&headers, Bytes::copy_from_slice(body), limit).map(|(body, was_coded)| (body.to_vec(), was_coded))
    }

    #[test]
    fn e012_what_was_not_asked_for_is_decoded_within_the_limit_or_refused() {
        let packed = gzip(b"hello");
        for (codings, body, expected) in [
            (&[][..], &b"hello"[..], Ok((b"hello".to_vec(), false))),
            (&["identity"], b"hello", Ok((b"hello".to_vec(), false))),
            (&["GZIP"], &packed, Ok((b"hello".to_vec(), true))),
            (&["x-gzip"], &[packed.clone(), packed.clone()].concat(), Ok((b"hellohello".to_vec(), true))),
            // Nobody says that it is packed, so it is a file like any other.
            (&[], &packed, Ok((packed.clone(), false))),
            (&["gzip"], b"", Ok((Vec::new(), false))),
            (&["gzip"], b"hello", Err(CodingError::Unreadable)),
            (&["gzip"], &packed[..packed.len() - 1], Err(CodingError::Unreadable)),
            (&["br"], b"hello", Err(CodingError::Unreadable)),
            (&["gzip, gzip"], &packed, Err(CodingError::Unreadable)),
            (&["gzip", "gzip"], &packed, Err(CodingError::Unreadable)),
        ] {
            assert_eq!(decode(codings, body, 100), expected, "{codings:?}");
        }
    }

    #[test]
    fn e012_a_bomb_is_not_unpacked() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        assert_eq!(decode(&["gzip"], &bomb, 1 << 20), Err(CodingError::TooLarge));
        assert_eq!(decode(&["gzip"], &gzip(&[0; 1024]), 1024).map(|(plain, _)| plain.len()), Ok(1024));
    }
}
