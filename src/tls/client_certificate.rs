//! A client's verified certificate, as variables and header fields show it: in nginx's forms, and
//! in those of RFC 9440. Each text is made when it is first asked for, and once.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use openssl::hash::MessageDigest;
use openssl::x509::{X509, X509NameRef, X509Ref};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::ffi;
use super::revocation::time;

/// A certificate that its name's rules accepted.
pub struct ClientCertificate {
    leaf: X509,
    /// Who vouches for it, in order, as verified; without the root.
    issuers: Vec<X509>,
    not_after: SystemTime,
    in_force_until: SystemTime,
    subject: OnceLock<Box<str>>,
    issuer: OnceLock<Box<str>>,
    serial: OnceLock<Box<str>>,
    fingerprint: OnceLock<Box<str>>,
    pem: OnceLock<Box<str>>,
    indented: OnceLock<Box<str>>,
    escaped: OnceLock<Box<str>>,
    starts: OnceLock<Box<str>>,
    ends: OnceLock<Box<str>>,
    fields: OnceLock<Fields>,
}

/// RFC 9440 §2.
struct Fields {
    certificate: Option<HeaderValue>,
    chain: Option<HeaderValue>,
}

impl ClientCertificate {
    /// The certificate, and the chain it was verified by: all of it, leaf first, or nothing.
    pub(super) fn new(leaf: X509, chain: impl IntoIterator<Item = X509>) -> Self {
        let mut issuers: Vec<_> = chain.into_iter().skip(1).collect();
        // One whose end cannot be read has ended.
        let end = |of: &X509| time(of.not_after()).unwrap_or(SystemTime::UNIX_EPOCH);
        let not_after = end(&leaf);
        let in_force_until = issuers.iter().map(end).fold(not_after, SystemTime::min);
        issuers.pop_if(|last| is_self_issued(last));
        Self {
            issuers,
            not_after,
            in_force_until,
            leaf,
            subject: OnceLock::new(),
            issuer: OnceLock::new(),
            serial: OnceLock::new(),
            fingerprint: OnceLock::new(),
            pem: OnceLock::new(),
            indented: OnceLock::new(),
            escaped: OnceLock::new(),
            starts: OnceLock::new(),
            ends: OnceLock::new(),
            fields: OnceLock::new(),
        }
    }

    /// End of its validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// When the first of it and those it was verified by ends, the root included.
    #[must_use]
    pub fn in_force_until(&self) -> SystemTime {
        self.in_force_until
    }

    /// Subject as RFC 2253 writes it.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.subject.get_or_init(|| name(self.leaf.subject_name()))
    }

    /// Issuer as RFC 2253 writes it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.issuer.get_or_init(|| name(self.leaf.issuer_name()))
    }

    /// Serial number: upper-case hexadecimal, an even number of digits.
    #[must_use]
    pub fn serial(&self) -> &str {
        self.serial.get_or_init(|| {
            let number = self.leaf.serial_number().to_bn();
            let digits = number.and_then(|number| number.to_hex_str().map(|text| text.to_owned()));
            match digits {
                Ok(digits) if digits == "0" => "00".into(),
                digits => digits.unwrap_or_default().into(),
            }
        })
    }

    /// SHA-1 of the certificate: lower-case hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| {
            let mut text = String::with_capacity(40);
            if let Ok(digest) = self.leaf.digest(MessageDigest::sha1()) {
                for byte in &*digest {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "{byte:02x}");
                }
            }
            text.into()
        })
    }

    /// The certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        self.pem.get_or_init(|| {
            let pem = self.leaf.to_pem().ok();
            let pem = pem.and_then(|pem| String::from_utf8(pem).ok());
            pem.unwrap_or_default().into()
        })
    }

    /// The same, each line but the first begun with a tab and without a last line end
    /// (`$ssl_client_cert`).
    #[must_use]
    pub fn indented_pem(&self) -> &str {
        self.indented
            .get_or_init(|| self.pem().trim_end().replace('\n', "\n\t").into())
    }

    /// The same with everything percent-encoded that a URI's component may not hold.
    #[must_use]
    pub fn escaped_pem(&self) -> &str {
        self.escaped.get_or_init(|| {
            let escaped = utf8_percent_encode(self.pem(), ESCAPED);
            escaped.to_string().into()
        })
    }

    /// Start of validity, such as `Nov 22 11:00:00 2026 GMT`.
    #[must_use]
    pub fn starts(&self) -> &str {
        self.starts
            .get_or_init(|| self.leaf.not_before().to_string().into())
    }

    /// End of validity in the same form.
    #[must_use]
    pub fn ends(&self) -> &str {
        self.ends
            .get_or_init(|| self.leaf.not_after().to_string().into())
    }

    /// Whole days until the end of validity; 0 past it.
    #[must_use]
    pub fn days_left(&self, now: SystemTime) -> u64 {
        let left = self.not_after.duration_since(now);
        left.map_or(0, |left| left.as_secs() / 86_400)
    }

    /// Value of `Client-Cert` (RFC 9440 §2.2).
    #[must_use]
    pub fn client_cert(&self) -> Option<&HeaderValue> {
        self.fields().certificate.as_ref()
    }

    /// Value of `Client-Cert-Chain` (RFC 9440 §2.3): those who vouch for the certificate, in order,
    /// without the root. `None` where the root issued it.
    #[must_use]
    pub fn client_cert_chain(&self) -> Option<&HeaderValue> {
        self.fields().chain.as_ref()
    }

    fn fields(&self) -> &Fields {
        self.fields.get_or_init(|| {
            let links: Option<Vec<_>> = self.issuers.iter().map(|link| sequence(link)).collect();
            let chain = links.filter(|links| !links.is_empty());
            Fields {
                certificate: sequence(&self.leaf).and_then(value),
                chain: chain.and_then(|links| value(links.join(", "))),
            }
        })
    }
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ClientCertificate")
            .field(&self.subject())
            .finish()
    }
}

fn name(name: &X509NameRef) -> Box<str> {
    ffi::name_rfc2253(name).unwrap_or_default().into()
}

fn is_self_issued(certificate: &X509Ref) -> bool {
    let order = certificate
        .subject_name()
        .try_cmp(certificate.issuer_name());
    order.is_ok_and(std::cmp::Ordering::is_eq)
}

/// RFC 9651 §3.3.5: a byte sequence.
fn sequence(certificate: &X509Ref) -> Option<String> {
    let der = certificate.to_der().ok()?;
    Some(format!(":{}:", STANDARD.encode(der)))
}

fn value(text: String) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()
}

/// nginx: `NGX_ESCAPE_URI_COMPONENT`.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[cfg(test)]
mod tests;
