//! Certificate revocation lists (RFC 5280 §5), as configured. Nothing is fetched.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::sha::Sha256;
use openssl::x509::X509Crl;

/// Why a text holds no usable lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// There is no PEM block of that kind.
    #[error("no PEM revocation list (X509 CRL) found")]
    NoList,
    /// A block is torn, or what it holds is no revocation list.
    #[error("a PEM revocation list does not parse")]
    BadList,
}

/// One or more lists, each of one issuer.
pub struct RevocationLists {
    lists: Vec<X509Crl>,
    fresh_until: Option<SystemTime>,
    digest: [u8; 32],
}

impl RevocationLists {
    /// Parses one or more PEM lists. Text between them is passed over.
    ///
    /// # Errors
    /// There is none, or one does not parse.
    pub fn parse(pem: &[u8]) -> Result<Self, RevocationError> {
        let mut lists = Vec::new();
        let mut fresh_until: Option<SystemTime> = None;
        let mut digest = Sha256::new();
        let mut rest = pem;
        while let Some(start) = memchr::memmem::find(rest, BEGIN) {
            rest = &rest[start..];
            let end = memchr::memmem::find(rest, END).ok_or(RevocationError::BadList)?;
            let (block, after) = rest.split_at(end + END.len());
            rest = after;
            let list = X509Crl::from_pem(block).map_err(|_| RevocationError::BadList)?;
            let der = list.to_der().map_err(|_| RevocationError::BadList)?;
            digest.update(&openssl::sha::sha256(&der));
            let end = list.next_update().map(time).transpose();
            let end = end.map_err(|()| RevocationError::BadList)?;
            fresh_until = [fresh_until, end].into_iter().flatten().min();
            lists.push(list);
        }
        if lists.is_empty() {
            return Err(RevocationError::NoList);
        }
        Ok(Self {
            lists,
            fresh_until,
            digest: digest.finish(),
        })
    }

    /// The lists, in the order of the text.
    #[must_use]
    pub fn lists(&self) -> &[X509Crl] {
        &self.lists
    }

    /// When the first of them ends (`nextUpdate`); `None` where none says so.
    #[must_use]
    pub fn fresh_until(&self) -> Option<SystemTime> {
        self.fresh_until
    }

    /// Digest over all of them, in order.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// A time before 1970 counts as 1970.
pub(super) fn time(at: &Asn1TimeRef) -> Result<SystemTime, ()> {
    let since = Asn1Time::from_unix(0).and_then(|epoch| epoch.diff(at));
    let since = since.map_err(|_| ())?;
    let seconds = i64::from(since.days) * 86_400 + i64::from(since.secs);
    let seconds = u64::try_from(seconds).unwrap_or(0);
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}

const BEGIN: &[u8] = b"-----BEGIN X509 CRL-----";
const END: &[u8] = b"-----END X509 CRL-----";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::dev::Authority;

    fn list(authority: &Authority, ends_in_secs: i64) -> String {
        authority.revoke(&[], ends_in_secs).expect("list")
    }

    #[test]
    fn the_list_that_ends_first_counts() {
        let (one, two) = (Authority::new(), Authority::named("two"));
        let (one, two) = (one.expect("authority"), two.expect("authority"));
        let (long, short) = (list(&one, 7200), list(&two, 3600));
        let both = format!("{long} and\n{short}");
        let both = RevocationLists::parse(both.as_bytes()).expect("both parse");
        let alone = RevocationLists::parse(short.as_bytes()).expect("it parses");
        assert_eq!(both.lists().len(), 2);
        assert_eq!(both.fresh_until(), alone.fresh_until());
        assert_ne!(both.digest(), alone.digest());
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let authority = Authority::new().expect("authority");
        let list = list(&authority, 3600);
        let certificate = authority.cert_pem().expect("pem");
        let torn = &list[..list.len() - 30];
        let garbage = list.replace("\nMI", "\nXX");
        for (text, error) in [
            ("", RevocationError::NoList),
            (&*certificate, RevocationError::NoList),
            (torn, RevocationError::BadList),
            (&*garbage, RevocationError::BadList),
            (&*format!("{list}{torn}"), RevocationError::BadList),
        ] {
            let refused = RevocationLists::parse(text.as_bytes()).err();
            assert_eq!(refused, Some(error), "{text}");
        }
    }
}
