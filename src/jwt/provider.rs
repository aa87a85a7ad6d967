//! `jsonwebtoken`'s cryptography, by OpenSSL. The crate asks plain functions for a signer or
//! verifier at each token and hands them a key's bytes; parsing those costs more than the check
//! itself, so that [`super::SigningKey`] and [`super::VerifyingKey`] lend their parsed key instead.

use std::cell::RefCell;
use std::sync::Arc;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};

use super::KeyError;
use super::key::{Private, Public};

/// Makes this room the crate's cryptography. The crate has one place for it per process, and
/// without it panics at the first token: each way to a key calls this, as often as it likes.
pub fn install() {
    // An error says that it is done already; nobody else in this program does it.
    let _ = PROVIDER.install_default();
}

/// Runs `work`, in which the crate signs with this key.
pub(super) fn lend_private<T>(key: &Arc<Private>, work: impl FnOnce() -> T) -> T {
    lend(Loan::Private(Arc::clone(key)), work)
}

/// Runs `work`, in which the crate verifies with this key, and by this algorithm alone.
pub(super) fn lend_public<T>(
    key: &Arc<Public>,
    algorithm: Algorithm,
    work: impl FnOnce() -> T,
) -> T {
    lend(Loan::Public(Arc::clone(key), algorithm), work)
}

/// What this thread's call into the crate uses in the place of the key it is given.
#[derive(Clone)]
enum Loan {
    Private(Arc<Private>),
    Public(Arc<Public>, Algorithm),
}

thread_local! {
    static LOAN: RefCell<Option<Loan>> = const { RefCell::new(None) };
}

fn lend<T>(loan: Loan, work: impl FnOnce() -> T) -> T {
    /// Takes the loan back, also when `work` unwinds.
    struct Return(Option<Loan>);

    impl Drop for Return {
        fn drop(&mut self) {
            LOAN.with(|place| place.replace(self.0.take()));
        }
    }

    let _return = Return(LOAN.with(|place| place.replace(Some(loan))));
    work()
}

fn loan() -> Option<Loan> {
    LOAN.with(|place| place.borrow().clone())
}

struct WithPrivate(Algorithm, Arc<Private>);

impl Signer<Vec<u8>> for WithPrivate {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        self.1
            .sign(self.0, message)
            .ok_or_else(signature::Error::new)
    }
}

impl JwtSigner for WithPrivate {
    fn algorithm(&self) -> Algorithm {
        self.0
    }
}

struct WithPublic(Algorithm, Arc<Public>);

impl Verifier<Vec<u8>> for WithPublic {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        if self.1.verify(self.0, message, signature) {
            Ok(())
        } else {
            Err(signature::Error::new())
        }
    }
}

impl JwtVerifier for WithPublic {
    fn algorithm(&self) -> Algorithm {
        self.0
    }
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    let key = match loan() {
        Some(Loan::Private(key)) => key,
        _ => Arc::new(Private::from_crate(*algorithm, key).map_err(refused)?),
    };
    Ok(Box::new(WithPrivate(*algorithm, key)))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let key = match loan() {
        Some(Loan::Public(_, lent)) if lent != *algorithm => {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        Some(Loan::Public(key, _)) => key,
        _ => Arc::new(Public::from_crate(*algorithm, key).map_err(refused)?),
    };
    Ok(Box::new(WithPublic(*algorithm, key)))
}

fn refused(error: KeyError) -> Error {
    ErrorKind::Provider(error.to_string()).into()
}

fn unsupported() -> Error {
    ErrorKind::UnsupportedAlgorithm.into()
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    // Thumbprints and JWKs out of private keys: nothing here asks for them.
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(unsupported()),
        rsa_pub_components_from_public_key: |_| Err(unsupported()),
        ec_pub_components_from_private_key: |_, _| Err(unsupported()),
        ed_pub_components_from_private_key: |_, _| Err(unsupported()),
        compute_digest: |_, _| Err(unsupported()),
    },
};
