//! What is asked of an authority about a certificate, and what its answer is worth (OCSP: RFC 6960,
//! in the lightweight form of RFC 5019). Makes no call and looks at no clock.

use std::time::{Duration, SystemTime};

use openssl::asn1::Asn1GeneralizedTimeRef;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::ocsp::{
    OcspBasicResponseRef, OcspCertId, OcspCertStatus, OcspFlag, OcspRequest, OcspResponse,
    OcspResponseStatus,
};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509VerifyResult};

use super::certificate::{CertifiedKey, time};
use super::ffi;
use crate::callout::Endpoint;

/// What is to be asked about one certificate.
pub struct Question {
    leaf: X509,
    issuer: X509,
    responder: Endpoint,
}

/// Why nothing can be asked about a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unasked {
    /// The authority's certificate is needed, both to ask and to believe the answer.
    #[error("the certificate that issued it does not follow in the chain")]
    NoIssuer,
    /// The certificate names nobody who could be asked over HTTP.
    #[error("it names no OCSP responder (authority information access)")]
    NoResponder,
}

/// A certificate is good, says its authority.
pub struct Good {
    /// The response, DER, as clients get it.
    pub der: Box<[u8]>,
    /// Until when it holds; `None` where the authority does not say.
    pub next_update: Option<SystemTime>,
}

/// Why a response must not be stapled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The certificate is revoked.
    #[error("the certificate is revoked")]
    Revoked,
    /// The authority does not know the certificate.
    #[error("the responder does not know the certificate")]
    Unknown,
    /// The responder refuses to answer.
    #[error("the responder refuses: {0}")]
    Refused(&'static str),
    /// It is no OCSP response.
    #[error("expected an OCSP response")]
    Garbled,
    /// It is about another certificate.
    #[error("the response is not about the certificate")]
    Elsewhere,
    /// Neither the authority nor who it made its responder has signed it.
    #[error("the response is not signed by the certificate's authority")]
    Unsigned,
    /// Its time has not come.
    #[error("the response is not valid yet")]
    Early,
    /// Its time is over.
    #[error("the response is not valid any more")]
    Late,
}

impl Question {
    /// What is to be asked about the leaf of this pair.
    ///
    /// # Errors
    /// Nobody can be asked.
    pub fn about(pair: &CertifiedKey) -> Result<Self, Unasked> {
        let leaf = pair.leaf();
        let issued = |link: &&X509| link.issued(leaf) == X509VerifyResult::OK;
        let issuer = pair.intermediates().iter().find(issued);
        let issuer = issuer.ok_or(Unasked::NoIssuer)?;
        let responders = leaf.ocsp_responders().map_err(|_| Unasked::NoResponder)?;
        let mut responders = responders.iter();
        let responder = responders.find_map(|url| Endpoint::parse(url).ok());
        Ok(Self {
            leaf: leaf.clone(),
            issuer: issuer.clone(),
            responder: responder.ok_or(Unasked::NoResponder)?,
        })
    }

    /// Who is asked.
    #[must_use]
    pub fn responder(&self) -> &Endpoint {
        &self.responder
    }

    /// The request, DER. Without a nonce, so that responders may answer with what they have signed.
    ///
    /// # Errors
    /// OpenSSL refused.
    pub fn request(&self) -> Result<Vec<u8>, ErrorStack> {
        let mut request = OcspRequest::new()?;
        request.add_id(self.id()?)?;
        request.to_der()
    }

    /// What this answer is worth at this moment. Without `verify` anybody may have signed it.
    ///
    /// # Errors
    /// It must not be stapled.
    pub fn judge(&self, answer: &[u8], verify: bool, now: SystemTime) -> Result<Good, Unfit> {
        let response = OcspResponse::from_der(answer).map_err(|_| Unfit::Garbled)?;
        if response.status() != OcspResponseStatus::SUCCESSFUL {
            return Err(Unfit::Refused(refusal(response.status())));
        }
        let basic = response.basic().map_err(|_| Unfit::Garbled)?;
        if verify {
            self.verify(&basic).map_err(|_| Unfit::Unsigned)?;
        }
        let id = self.id().map_err(|_| Unfit::Elsewhere)?;
        let found = basic.find_status(&id).ok_or(Unfit::Elsewhere)?;
        if moment(found.this_update)? > now + SKEW {
            return Err(Unfit::Early);
        }
        let next_update = found.next_update().map(moment).transpose()?;
        if next_update.is_some_and(|end| end <= now) {
            return Err(Unfit::Late);
        }
        match found.status {
            OcspCertStatus::GOOD => {}
            OcspCertStatus::REVOKED => return Err(Unfit::Revoked),
            _ => return Err(Unfit::Unknown),
        }
        // Not the answer itself, behind which anything may stand.
        let der = response.to_der().map_err(|_| Unfit::Garbled)?;
        Ok(Good {
            der: der.into_boxed_slice(),
            next_update,
        })
    }

    /// Whether the authority has signed it, or who has a certificate of the authority for that.
    fn verify(&self, basic: &OcspBasicResponseRef) -> Result<(), ErrorStack> {
        let mut trusted = X509StoreBuilder::new()?;
        trusted.add_cert(self.issuer.clone())?;
        // The authority may be an intermediate.
        trusted.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
        let mut signers = Stack::new()?;
        signers.push(self.issuer.clone())?;
        basic.verify(&signers, &trusted.build(), OcspFlag::NO_EXPLICIT)
    }

    /// How the certificate is named in requests. SHA-1 keeps nothing safe here, and is what every
    /// responder knows.
    fn id(&self) -> Result<OcspCertId, ErrorStack> {
        OcspCertId::from_cert(MessageDigest::sha1(), &self.leaf, &self.issuer)
    }
}

fn moment(at: &Asn1GeneralizedTimeRef) -> Result<SystemTime, Unfit> {
    time(ffi::as_time(at)).map_err(|_| Unfit::Garbled)
}

fn refusal(status: OcspResponseStatus) -> &'static str {
    match status {
        OcspResponseStatus::MALFORMED_REQUEST => "malformed request",
        OcspResponseStatus::INTERNAL_ERROR => "internal error",
        OcspResponseStatus::TRY_LATER => "try later",
        OcspResponseStatus::SIG_REQUIRED => "signature required",
        OcspResponseStatus::UNAUTHORIZED => "unauthorized",
        _ => "another status",
    }
}

/// How far the responder's clock may be ahead.
const SKEW: Duration = Duration::from_secs(300);
