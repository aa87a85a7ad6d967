//! Takes the content encoding off a body (RFC 9110 §8.4), with a bound on what comes out.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// An encoding that can be taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Brotli,
}

/// A body that is not what its encoding says.
#[derive(Debug, thiserror::Error)]
#[error("body is not in its content encoding")]
pub(super) struct DecodeError {
    /// What came out before the fault.
    pub(super) decoded: Vec<u8>,
    /// The decoder's own words.
    pub(super) source: io::Error,
}

impl Encoding {
    /// The encoding a head declares; `None` for others and for several.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let Some(value) = values.next() else {
            return Some(Self::Identity);
        };
        let known = match value.to_str().ok()?.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Self::Identity,
            "gzip" | "x-gzip" => Self::Gzip,
            "br" => Self::Brotli,
            _ => return None,
        };
        values.next().is_none().then_some(known)
    }
}

/// The decoded body, cut off at `max_bytes`; `None` where it is not encoded.
pub(super) fn decode(
    encoding: Encoding,
    body: &[u8],
    max_bytes: usize,
) -> Result<Option<Vec<u8>>, DecodeError> {
    match encoding {
        Encoding::Identity => Ok(None),
        Encoding::Gzip => read(MultiGzDecoder::new(body), max_bytes).map(Some),
        Encoding::Brotli => {
            let decoder = brotli_decompressor::Decompressor::new(body, 4096);
            read(decoder, max_bytes).map(Some)
        }
    }
}

fn read(source: impl Read, max_bytes: usize) -> Result<Vec<u8>, DecodeError> {
    let mut decoded = Vec::new();
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX);
    match source.take(limit).read_to_end(&mut decoded) {
        Ok(_) => Ok(decoded),
        Err(source) => Err(DecodeError { decoded, source }),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http::HeaderValue;

    use super::*;

    pub(in crate::plugins::transform) fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    /// `hello hello` in one uncompressed meta-block.
    pub(in crate::plugins::transform) const BROTLI: &[u8] = b"\x0b\x05\x80hello hello\x03";

    #[test]
    fn bodies_are_decoded_up_to_the_bound() {
        let zipped = gzip(&vec![b'a'; 1 << 20]);
        let decoded = decode(Encoding::Gzip, &zipped, 1000).expect("body is gzip");
        assert_eq!(decoded.expect("body was encoded").len(), 1000);
        let decoded = decode(Encoding::Brotli, BROTLI, 1000).expect("body is brotli");
        assert_eq!(decoded.as_deref(), Some(&b"hello hello"[..]));
        let decoded = decode(Encoding::Brotli, BROTLI, 5).expect("body is brotli");
        assert_eq!(decoded.as_deref(), Some(&b"hello"[..]));
        let plain = decode(Encoding::Identity, b"x", 5).expect("nothing to decode");
        assert_eq!(plain, None);
    }

    #[test]
    fn broken_bodies_give_what_came_before_the_fault() {
        let zipped = gzip(b"hello");
        let cut = &zipped[..zipped.len() - 4];
        let error = decode(Encoding::Gzip, cut, 1000).expect_err("body is cut");
        assert_eq!(error.decoded, b"hello");
        for encoding in [Encoding::Gzip, Encoding::Brotli] {
            assert!(
                decode(encoding, b"\xff\xff\xff garbage", 1000).is_err(),
                "{encoding:?}"
            );
        }
    }

    #[test]
    fn only_single_known_encodings_are_taken_off() {
        for (values, expected) in [
            (&[][..], Some(Encoding::Identity)),
            (&["identity"], Some(Encoding::Identity)),
            (&["GZip"], Some(Encoding::Gzip)),
            (&["br"], Some(Encoding::Brotli)),
            (&["zstd"], None),
            (&["gzip, br"], None),
            (&["gzip", "br"], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            assert_eq!(Encoding::of(&headers), expected, "{values:?}");
        }
    }
}
