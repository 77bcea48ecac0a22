//! Content codings of answers (RFC 9110 §8.4). bearerd asks for none, because it finds an echoed token only in a plain
//! body. A body that comes coded all the same is decoded within a size limit.

use std::io::{self, Read};

use brotli_decompressor::Decompressor;
use bytes::Bytes;
use flate2::{
    bufread::GzDecoder,
    read::{DeflateDecoder, ZlibDecoder},
};
use http::{
    HeaderMap,
    header::{CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE},
};
use ruzstd::decoding::{
    FrameDecoder, StreamingDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

/// The most codings of one body.
const MAX_LAYERS: usize = 3;

/// The largest window of a zstd body, in bytes (RFC 9659 §3).
const ZSTD_WINDOW: u64 = 8 * 1024 * 1024;

/// How many bytes of an unknown coding's name are repeated.
const NAME_SHOWN: usize = 40;

/// Words that stand in `Content-Encoding` and name no coding of the bytes: character sets, and the codings of transfer
/// and of mail.
const NO_CODINGS: [&str; 22] = [
    "identity",
    "none",
    "null",
    "plain",
    "text",
    "raw",
    "binary",
    "7bit",
    "8bit",
    "base64",
    "quoted-printable",
    "chunked",
    "aws-chunked",
    "ascii",
    "us-ascii",
    "utf8",
    "latin1",
    "utf-*",
    "iso-*",
    "iso8859*",
    "windows-*",
    "cp1*",
];

/// A body without its content codings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The body.
    pub body: Bytes,
    /// Whether it had a coding, so that `Content-Encoding` is not true of it any more.
    pub was_coded: bool,
}

/// A body that cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// Why.
    pub problem: CodingProblem,
    /// What was decoded before the problem, at most as much as the limit allows.
    pub beginning: Bytes,
}

/// Why a body cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodingProblem {
    /// A coding that bearerd does not know.
    #[error("its content coding \"{0}\" is not supported; gzip, deflate, br and zstd are")]
    Unknown(String),
    /// The body is not what its coding says, or ends early.
    #[error("its content coding {0} is damaged")]
    Damaged(&'static str),
    /// More codings than any server needs.
    #[error("it has more than three content codings")]
    TooMany,
    /// It is larger than allowed once it is decoded.
    #[error("it is too large once it is decoded")]
    TooLarge,
}

/// What a body of some other format holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inside {
    /// It is not packed.
    Nothing,
    /// It is packed and holds this.
    Content(Bytes),
    /// It is packed and larger than allowed once it is unpacked; it begins with this.
    TooLarge(Bytes),
}

/// The plain body, at most `limit` bytes of it.
///
/// Codings that `Content-Encoding` declares are undone. Text that was packed without saying so is unpacked too: a
/// `Content-Type` of text, JSON, XML or a form, or none, on a body with the first bytes of gzip, zstd or zlib. Any other
/// type and any attachment is the content itself, for example a `.gz` file, and stays as it is; see [`inside`].
///
/// # Errors
///
/// [`Undecodable`].
pub fn plain(headers: &HeaderMap, body: Bytes, limit: usize) -> Result<Plain, Undecodable> {
    // An answer to HEAD names the coding of a body that does not come.
    if body.is_empty() {
        return Ok(Plain { body, was_coded: false });
    }
    let codings = declared(headers).map_err(|problem| Undecodable { problem, beginning: Bytes::new() })?;
    let mut layers = codings.len();
    let mut plain = Plain { body, was_coded: layers > 0 };
    for coding in codings.into_iter().rev() {
        plain.body = coding.undo(&plain.body, limit)?;
    }
    while layers < MAX_LAYERS && is_text(headers) {
        let Some(coding) = Coding::by_magic(&plain.body) else { break };
        match coding.undo(&plain.body, limit) {
            Ok(body) => plain = Plain { body, was_coded: true },
            Err(Undecodable { problem: CodingProblem::TooLarge, beginning }) => {
                return Err(Undecodable { problem: CodingProblem::TooLarge, beginning });
            }
            // It only looked packed.
            Err(_) => break,
        }
        layers += 1;
    }
    Ok(plain)
}

/// Whether a body has the first bytes of a packed format.
pub fn is_packed(body: &[u8]) -> bool {
    Coding::by_magic(body).is_some()
}

/// What a body holds if it is packed, whatever its type is.
pub fn inside(body: &Bytes, limit: usize) -> Inside {
    let Some(coding) = Coding::by_magic(body) else { return Inside::Nothing };
    match coding.undo(body, limit) {
        Ok(content) => Inside::Content(content),
        Err(Undecodable { problem: CodingProblem::TooLarge, beginning }) => Inside::TooLarge(beginning),
        Err(Undecodable { problem: _, beginning }) if beginning.is_empty() => Inside::Nothing,
        Err(Undecodable { problem: _, beginning }) => Inside::Content(beginning),
    }
}

/// The codings that are declared, in the order in which they were applied.
fn declared(headers: &HeaderMap) -> Result<Vec<Coding>, CodingProblem> {
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        for word in value.as_bytes().split(|byte| *byte == b',') {
            let word = String::from_utf8_lossy(word).to_ascii_lowercase();
            let word = word.split(';').next().unwrap_or_default().trim().trim_matches('"');
            codings.extend(Coding::named(word)?);
        }
    }
    if codings.len() > MAX_LAYERS { Err(CodingProblem::TooMany) } else { Ok(codings) }
}

/// Whether the type is one whose content is never itself a packed file.
fn is_text(headers: &HeaderMap) -> bool {
    if headers.contains_key(CONTENT_DISPOSITION) {
        return false;
    }
    let Some(kind) = headers.get(CONTENT_TYPE) else { return true };
    let kind = String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.starts_with("text/")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || ["json", "xml", "javascript", "x-www-form-urlencoded", "x-ndjson", "graphql", "yaml", "jwt"]
            .iter()
            .any(|name| kind.strip_prefix("application/") == Some(name))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// The coding of this name, in lower case, or `None` for a word that names no coding.
    fn named(word: &str) -> Result<Option<Self>, CodingProblem> {
        match word {
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "deflate" => Ok(Some(Self::Deflate)),
            "br" => Ok(Some(Self::Brotli)),
            "zstd" => Ok(Some(Self::Zstd)),
            // A media type at the wrong place.
            word if word.is_empty() || word.contains('/') => Ok(None),
            word if NO_CODINGS.iter().any(|name| fits(name, word)) => Ok(None),
            word => Err(CodingProblem::Unknown(word.escape_default().take(NAME_SHOWN).collect())),
        }
    }

    /// The coding that a body shows by its first bytes. Brotli and raw deflate have none.
    fn by_magic(body: &[u8]) -> Option<Self> {
        match body {
            [0x1f, 0x8b, 0x08, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => Some(Self::Deflate),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// The body without this coding. One that lacks its first bytes was never coded and is the answer as it is.
    fn undo(self, body: &Bytes, limit: usize) -> Result<Bytes, Undecodable> {
        let mut plain = Bounded { bytes: Vec::new(), limit };
        let decoded = match self {
            Self::Gzip | Self::Zstd if Self::by_magic(body) != Some(self) => return Ok(body.clone()),
            Self::Gzip => gunzip(body, &mut plain),
            Self::Zstd => unzstd(body, &mut plain),
            Self::Brotli => plain.fill(Decompressor::new(&**body, 4096)),
            Self::Deflate => inflate(body, &mut plain),
        };
        let beginning = plain.bytes.into();
        match decoded {
            Ok(End::Reached) => Ok(beginning),
            Ok(End::Beyond) => Err(Undecodable { problem: CodingProblem::TooLarge, beginning }),
            Err(_) => Err(Undecodable { problem: CodingProblem::Damaged(self.name()), beginning }),
        }
    }
}

fn fits(name: &str, word: &str) -> bool {
    name.strip_suffix('*').map_or(name == word, |beginning| word.starts_with(beginning))
}

/// Bytes up to a limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

enum End {
    /// The source ended.
    Reached,
    /// The source has more than the limit allows.
    Beyond,
}

impl Bounded {
    /// Reads no further than one byte beyond the limit, however much would come.
    fn fill(&mut self, source: impl Read) -> io::Result<End> {
        let most = self.limit.saturating_sub(self.bytes.len()).saturating_add(1);
        let read = source.take(u64::try_from(most).unwrap_or(u64::MAX)).read_to_end(&mut self.bytes);
        let beyond = self.bytes.len() > self.limit;
        self.bytes.truncate(self.limit);
        read.map(|_| if beyond { End::Beyond } else { End::Reached })
    }
}

/// All members (RFC 1952 §2.2). What follows the last one is padding.
fn gunzip(mut rest: &[u8], plain: &mut Bounded) -> io::Result<End> {
    while Coding::by_magic(rest) == Some(Coding::Gzip) {
        if let End::Beyond = plain.fill(GzDecoder::new(&mut rest))? {
            return Ok(End::Beyond);
        }
    }
    Ok(End::Reached)
}

/// All frames (RFC 8878 §3.1).
fn unzstd(mut rest: &[u8], plain: &mut Bounded) -> io::Result<End> {
    while !rest.is_empty() {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW);
        match StreamingDecoder::new_with_decoder(&mut rest, decoder) {
            Ok(frame) => {
                if let End::Beyond = plain.fill(frame)? {
                    return Ok(End::Beyond);
                }
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let skipped = usize::try_from(length).map_err(io::Error::other)?;
                rest = rest.get(skipped..).ok_or(io::ErrorKind::UnexpectedEof)?;
            }
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(End::Reached)
}

/// With the wrapper of zlib (RFC 1950), as RFC 9110 §8.4.1.2 wants it, or without, as many servers send it.
fn inflate(body: &[u8], plain: &mut Bounded) -> io::Result<End> {
    match plain.fill(ZlibDecoder::new(body)) {
        Err(_) if plain.bytes.is_empty() => plain.fill(DeflateDecoder::new(body)),
        decoded => decoded,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    const TEXT: &[u8] = b"hello, hello, hello";

    /// [`TEXT`] in brotli.
    const BROTLI: [u8; 22] = [
        0x1b, 0x12, 0x00, 0xf8, 0x8d, 0x94, 0x6e, 0xde, 0x44, 0x09, 0x52, 0x86, 0x96, 0x6c, 0x2c, 0x6f, 0x11, 0x4f,
        0x24, 0xd0, 0x71, 0x00,
    ];

    /// 16 MiB of zeros in brotli.
    const BROTLI_BOMB: [u8; 31] = [
        0xcb, 0xff, 0xff, 0x3f, 0xf8, 0x27, 0x00, 0xe2, 0xb1, 0x40, 0x20, 0xf7, 0xfe, 0x2f, 0xff, 0xff, 0xff, 0xf0,
        0x4f, 0x00, 0xc4, 0x61, 0x11, 0x80, 0xee, 0xfd, 0x1f, 0x00, 0x00, 0x00, 0x00,
    ];

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        compress_to_vec(text, CompressionLevel::Fastest)
    }

    fn decode(fields: &[(HeaderName, &'static str)], body: &[u8], limit: usize) -> Result<(Vec<u8>, bool), String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_static(value));
        }
        let plain = plain(&headers, Bytes::copy_from_slice(body), limit);
        plain.map(|plain| (plain.body.to_vec(), plain.was_coded)).map_err(|error| error.problem.to_string())
    }

    fn coded(codings: &[&'static str], body: &[u8]) -> Result<(Vec<u8>, bool), String> {
        let fields: Vec<_> = codings.iter().map(|coding| (CONTENT_ENCODING, *coding)).collect();
        decode(&fields, body, 1000)
    }

    fn refused(codings: &[&'static str], body: &[u8], why: &str) {
        let error = coded(codings, body).unwrap_err();
        assert!(error.contains(why), "{codings:?}: {error}");
    }

    /// C-K1, row 14.
    #[test]
    fn a_coding_that_comes_unasked_is_undone() {
        for (codings, body) in [
            (&["gzip"][..], gzip(TEXT)),
            (&["GZIP"], gzip(TEXT)),
            (&["x-gzip"], gzip(TEXT)),
            (&["\"gzip\""], gzip(TEXT)),
            (&["deflate"], zlib(TEXT)),
            (&["deflate"], deflate(TEXT)),
            (&["br"], BROTLI.to_vec()),
            (&["zstd"], zstd(TEXT)),
            (&["gzip, br"], BROTLI.to_vec()),
            (&["deflate, gzip"], gzip(&deflate(TEXT))),
            (&["zstd", "gzip"], gzip(&zstd(TEXT))),
            (&["gzip"], [gzip(b"hello, "), gzip(b"hello, hello")].concat()),
            (&["zstd"], [zstd(b"hello, "), zstd(b"hello, hello")].concat()),
            (&["zstd"], [zstd(TEXT), vec![0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9]].concat()),
            // Padding.
            (&["gzip"], [gzip(TEXT), vec![0; 9]].concat()),
        ] {
            // "gzip, br" holds a text that was never gzipped.
            assert_eq!(coded(codings, &body), Ok((TEXT.to_vec(), true)), "{codings:?}");
        }
        assert_eq!(coded(&["gzip"], TEXT), Ok((TEXT.to_vec(), true)), "said, and not done");
    }

    /// C-K1, row 13.
    #[test]
    fn a_word_that_is_no_coding_changes_nothing() {
        for word in [
            "",
            "identity",
            "none",
            "utf-8",
            "UTF-8",
            "utf8",
            "utf-16le",
            "iso-8859-1",
            "ISO8859_1",
            "windows-1252",
            "us-ascii",
            "aws-chunked",
            "chunked",
            "8bit",
            "base64",
            "text/plain",
            "application/json; charset=utf-8",
            ",",
            "utf-8, identity",
        ] {
            assert_eq!(coded(&[word], TEXT), Ok((TEXT.to_vec(), false)), "{word:?}");
        }
        assert_eq!(coded(&["aws-chunked, gzip"], &gzip(TEXT)), Ok((TEXT.to_vec(), true)));
        assert_eq!(coded(&["utf-8", "br", ""], &BROTLI), Ok((TEXT.to_vec(), true)));
    }

    #[test]
    fn an_unknown_or_damaged_coding_is_named() {
        for word in ["compress", "x-own", "exi", "dcb", "snappy", "lz4", "xz"] {
            refused(&[word], TEXT, &format!("\"{word}\" is not supported"));
        }
        let escaped = Err(CodingProblem::Unknown("x-\\u{1b}[31m".to_owned()));
        assert_eq!(Coding::named("x-\u{1b}[31m"), escaped);
        refused(&["gzip, gzip, gzip, gzip"], TEXT, "more than three");
        let cut = |body: Vec<u8>| body[..body.len() - 3].to_vec();
        for (coding, body) in
            [("gzip", gzip(TEXT)), ("deflate", zlib(TEXT)), ("br", BROTLI.to_vec()), ("zstd", zstd(TEXT))]
        {
            refused(&[coding], &cut(body), &format!("{coding} is damaged"));
        }
        refused(&["br"], b"hello", "br is damaged");
        refused(&["deflate"], b"hello", "deflate is damaged");
        // What came before the damage is at hand.
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let body = gzip(TEXT);
        let error = plain(&headers, Bytes::copy_from_slice(&body[..body.len() - 5]), 1000).unwrap_err();
        assert_eq!(error.beginning, TEXT);
        // HEAD.
        assert_eq!(coded(&["x-own"], b""), Ok((Vec::new(), false)));
    }

    /// S11: gzip without `Content-Encoding`.
    #[test]
    fn a_text_that_was_packed_without_saying_so_is_unpacked_and_a_packed_file_is_not() {
        for body in [gzip(TEXT), zlib(TEXT), zstd(TEXT)] {
            for kind in ["text/html; charset=utf-8", "application/json", "Application/Problem+JSON", "image/svg+xml"] {
                assert_eq!(decode(&[(CONTENT_TYPE, kind)], &body, 1000), Ok((TEXT.to_vec(), true)), "{kind}");
            }
            assert_eq!(decode(&[], &body, 1000), Ok((TEXT.to_vec(), true)));
            for field in [
                (CONTENT_TYPE, "application/gzip"),
                (CONTENT_TYPE, "application/octet-stream"),
                (CONTENT_TYPE, "application/x-tar"),
                (CONTENT_DISPOSITION, "attachment; filename=\"report.csv.gz\""),
            ] {
                assert_eq!(decode(&[field], &body, 1000), Ok((body.clone(), false)));
            }
            assert_eq!(inside(&Bytes::copy_from_slice(&body), 1000), Inside::Content(Bytes::from_static(TEXT)));
            assert_eq!(inside(&Bytes::copy_from_slice(&body), 5), Inside::TooLarge(Bytes::from_static(b"hello")));
            // Twice, and said once or not at all.
            let twice = gzip(&body);
            assert_eq!(coded(&["gzip"], &twice), Ok((TEXT.to_vec(), true)));
            assert_eq!(coded(&[], &twice), Ok((TEXT.to_vec(), true)));
        }
        for plain in [&b"x^2 + y^2"[..], b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", TEXT] {
            assert_eq!(decode(&[(CONTENT_TYPE, "text/plain")], plain, 1000), Ok((plain.to_vec(), false)));
        }
        assert_eq!(inside(&Bytes::from_static(TEXT), 1000), Inside::Nothing);
    }

    #[test]
    fn e012_a_bomb_is_not_unpacked() {
        let zeros = vec![0; 64 << 20];
        let bombs = [
            ("gzip", gzip(&zeros)),
            ("deflate", zlib(&zeros)),
            ("deflate", deflate(&zeros)),
            ("zstd", zstd(&zeros)),
            ("br", BROTLI_BOMB.to_vec()),
        ];
        for (coding, bomb) in bombs {
            assert!(bomb.len() < 100_000, "{coding}");
            let too_large = Err("it is too large once it is decoded".to_owned());
            assert_eq!(decode(&[(CONTENT_ENCODING, coding)], &bomb, 1 << 20), too_large, "{coding}");
        }
        let exactly = decode(&[(CONTENT_ENCODING, "gzip")], &gzip(&[0; 1024]), 1024);
        assert_eq!(exactly.map(|(plain, _)| plain.len()), Ok(1024));
    }

    proptest! {
        #[test]
        fn nothing_panics(mut body in any::<Vec<u8>>(), magic in 0_usize..5) {
            let (coding, first): (&str, &[u8]) = [
                ("gzip", &[0x1f, 0x8b, 0x08][..]),
                ("zstd", &[0x28, 0xb5, 0x2f, 0xfd]),
                ("deflate", &[0x78, 0x9c]),
                ("br", &[]),
                ("utf-8", &[0x28, 0xb5, 0x2f, 0xfd]),
            ][magic];
            body.splice(0..0, first.iter().copied());
            let _ = decode(&[(CONTENT_ENCODING, coding)], &body, 1000);
            inside(&body.into(), 1000);
        }
    }
}
