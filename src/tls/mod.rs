//! Certificates, which name they serve, and what a name allows. Knows OpenSSL's objects, but no
//! connection and no secret manager: values come in, parsed pieces go out. Two tasks ask others:
//! [`on_demand`]'s for values, of names that clients asked for, and [`stapling`]'s authorities.
#![deny(unsafe_code)]

pub mod certificate;
pub mod chains;
pub mod client_auth;
pub mod client_certificate;
pub mod dev;
pub mod ffi;
pub mod identity;
pub mod key;
pub mod ocsp;
pub mod on_demand;
pub mod pair;
mod pem;
pub mod policy;
pub mod present;
pub mod presented;
pub mod rehearsal;
pub mod revocation;
pub mod session_cache;
pub mod sni;
pub mod sni_store;
pub mod stapling;
pub mod tickets;

pub use certificate::{
    CaBundle, CertificateError, CertificateWarning, CertifiedKey, Moment, Purpose, Validity,
};
pub use chains::Chains;
pub use client_auth::{ClientAuth, ClientRules, Forward};
pub use client_certificate::ClientCertificate;
pub use identity::{IdentityState, TlsIdentity};
pub use key::{KeyAlgorithm, KeySlot};
pub use on_demand::OnDemand;
pub use pair::{Newest, PairChoice, PairError, choose_pair};
pub use policy::{Protocol, Protocols, TlsPolicy};
pub use presented::{ClientVerdict, Presented, Standing};
pub use rehearsal::{Failure, Rehearsal, Rehearsed};
pub use revocation::{RevocationError, RevocationLists};
pub use session_cache::SessionCache;
pub use sni_store::{SniEntry, SniStore};
pub use stapling::Stapling;
pub use tickets::{SharedKeys, TicketKeys};
