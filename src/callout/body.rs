//! Reads bodies up to a bound, into memory that is wiped.

use reqwest::Response;
use zeroize::Zeroizing;

use crate::wipe;

/// Why a body was not read to its end.
#[derive(Debug)]
pub enum Unread {
    /// It is longer than the bound.
    TooLarge,
    /// The connection broke.
    Broken(reqwest::Error),
}

/// The body, if it is at most `limit` bytes long.
///
/// # Errors
/// It is longer, or does not come to its end.
pub async fn read(mut response: Response, limit: usize) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let expected = response.content_length().unwrap_or(0);
    let expected = usize::try_from(expected).unwrap_or(usize::MAX);
    if expected > limit {
        return Err(Unread::TooLarge);
    }
    let mut body = Zeroizing::new(Vec::with_capacity(expected));
    while let Some(chunk) = response.chunk().await.map_err(Unread::Broken)? {
        if body.len() + chunk.len() > limit {
            return Err(Unread::TooLarge);
        }
        append(&mut body, &chunk);
        wipe::received(chunk);
    }
    Ok(body)
}

/// Appends without leaving an unwiped copy behind when the buffer has to grow.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    let needed = body.len() + chunk.len();
    if needed > body.capacity() {
        let mut grown = Zeroizing::new(Vec::with_capacity(needed.max(body.len() * 2)));
        grown.extend_from_slice(body);
        *body = grown;
    }
    body.extend_from_slice(chunk);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_grow_without_losing_a_byte() {
        let mut body = Zeroizing::new(Vec::new());
        for chunk in [&b"ab"[..], b"", b"cdefgh", b"i"] {
            append(&mut body, chunk);
        }
        assert_eq!(body.as_slice(), b"abcdefghi");
    }
}
