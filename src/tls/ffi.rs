//! The few calls of OpenSSL that rust-openssl does not wrap.
#![expect(
    unsafe_code,
    reason = "foreign functions; each call says why it is sound"
)]

mod resumption;

use std::ffi::{c_char, c_int, c_long, c_uint, c_ulong};
use std::time::Duration;

use foreign_types_shared::{ForeignType, ForeignTypeRef};
use openssl::asn1::{Asn1GeneralizedTimeRef, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::pkey::{HasPublic, PKey, PKeyRef, Private};
use openssl::ssl::{SslContextBuilder, SslOptions, SslRef, SslStream};
use openssl::x509::store::X509StoreBuilderRef;
use openssl::x509::{X509CrlRef, X509NameRef, X509Ref};
use openssl_sys as sys;
use pingora_core::tls::ext;

pub use resumption::{set_session_cache, set_ticket_keys};

unsafe extern "C" {
    fn SSL_set_session_id_context(ssl: *mut sys::SSL, context: *const u8, len: c_uint) -> c_int;
    fn SSL_set_options(ssl: *mut sys::SSL, options: u64) -> u64;
    fn SSL_clear_options(ssl: *mut sys::SSL, options: u64) -> u64;
    fn SSL_SESSION_set1_id_context(
        session: *mut sys::SSL_SESSION,
        context: *const u8,
        len: c_uint,
    ) -> c_int;
    fn SSL_CTX_set_timeout(ctx: *mut sys::SSL_CTX, seconds: c_long) -> c_long;
    fn EVP_PKEY_get_group_name(
        key: *const sys::EVP_PKEY,
        name: *mut c_char,
        size: usize,
        length: *mut usize,
    ) -> c_int;
    fn EVP_PKEY_dup(key: *mut sys::EVP_PKEY) -> *mut sys::EVP_PKEY;
    fn X509_STORE_add_crl(store: *mut sys::X509_STORE, crl: *mut sys::X509_CRL) -> c_int;
    fn X509_NAME_print_ex(
        out: *mut sys::BIO,
        name: *const sys::X509_NAME,
        indent: c_int,
        flags: c_ulong,
    ) -> c_int;
}

/// The same key once more. What OpenSSL computes ahead at a key's first use, some kilobytes for RSA,
/// goes with the copy that was used.
///
/// # Errors
/// OpenSSL has no memory.
pub fn copy_of_key(key: &PKeyRef<Private>) -> Result<PKey<Private>, ErrorStack> {
    // SAFETY: `key` is live; OpenSSL reads it and counts nothing of it up.
    let copy = unsafe { EVP_PKEY_dup(key.as_ptr()) };
    if copy.is_null() {
        return Err(ErrorStack::get());
    }
    // SAFETY: a new key that nobody else owns.
    Ok(unsafe { PKey::from_ptr(copy) })
}

/// Content of the `server_name` extension of the ClientHello being handled, if it has one.
/// Empty outside of a client-hello callback.
#[must_use]
pub fn server_name_extension(ssl: &SslRef) -> Option<&[u8]> {
    let mut data: *const u8 = std::ptr::null();
    let mut len: usize = 0;
    // SAFETY: `ssl` is live; both outputs point to locals. OpenSSL reports 0 when there is no
    // ClientHello at hand or no such extension.
    let found = unsafe {
        sys::SSL_client_hello_get0_ext(ssl.as_ptr(), SERVER_NAME, &raw mut data, &raw mut len)
    };
    if found != 1 {
        return None;
    }
    if data.is_null() || len == 0 {
        return Some(&[]);
    }
    // SAFETY: on success OpenSSL points `data` at `len` bytes owned by the ClientHello it keeps
    // until the callback returns; the borrow of `ssl` ends before that.
    Some(unsafe { std::slice::from_raw_parts(data, len) })
}

/// The same time, in the type that times of certificates have.
#[must_use]
pub fn as_time(at: &Asn1GeneralizedTimeRef) -> &Asn1TimeRef {
    // SAFETY: in C both are `ASN1_STRING`, told apart by the tag inside, which functions for
    // `ASN1_TIME` look at: that is the choice of either form (`asn1.h`). The borrow stays the same.
    unsafe { Asn1TimeRef::from_ptr(at.as_ptr().cast()) }
}

/// The connection of a stream, to be changed between two steps of its handshake.
#[must_use]
pub fn ssl_of<S>(stream: &mut SslStream<S>) -> &mut SslRef {
    // SAFETY: the stream owns the connection and is borrowed mutably while the result lives, so that
    // nothing else reaches it.
    unsafe { ext::ssl_mut(stream.ssl()) }
}

/// Sessions resume on this connection only if they were made under the same context.
///
/// # Errors
/// OpenSSL refused; the handshake must not go on.
pub fn set_session_context(ssl: &mut SslRef, context: &[u8; 32]) -> Result<(), ErrorStack> {
    // SAFETY: `ssl` is live and borrowed mutably; OpenSSL copies the 32 bytes, its maximum.
    let done = unsafe { SSL_set_session_id_context(ssl.as_ptr(), context.as_ptr(), 32) };
    if done == 1 {
        Ok(())
    } else {
        Err(ErrorStack::get())
    }
}

/// The session that this handshake is making resumes under this context, whatever was said of the
/// connection when the handshake began.
///
/// # Errors
/// OpenSSL refused; the handshake must not go on.
pub fn bind_session(ssl: &mut SslRef, context: &[u8; 32]) -> Result<(), ErrorStack> {
    let Some(session) = ssl.session() else {
        return Ok(());
    };
    // SAFETY: the session is live and the connection's own: `ssl` is borrowed mutably, and until the
    // handshake is over it stands in no cache. OpenSSL copies the 32 bytes, its maximum.
    let done = unsafe { SSL_SESSION_set1_id_context(session.as_ptr(), context.as_ptr(), 32) };
    if done == 1 {
        Ok(())
    } else {
        Err(ErrorStack::get())
    }
}

/// Sets options of one connection and clears others.
pub fn change_options(ssl: &mut SslRef, set: SslOptions, clear: SslOptions) {
    // SAFETY: `ssl` is live and borrowed mutably; both calls only change its option bits.
    unsafe {
        SSL_clear_options(ssl.as_ptr(), clear.bits());
        SSL_set_options(ssl.as_ptr(), set.bits());
    }
}

/// How long a session may be resumed.
pub fn set_session_lifetime(context: &mut SslContextBuilder, lifetime: Duration) {
    let seconds = c_long::try_from(lifetime.as_secs()).unwrap_or(c_long::MAX);
    // SAFETY: `context` is live and borrowed mutably; the call stores one number.
    unsafe {
        SSL_CTX_set_timeout(context.as_ptr(), seconds);
    }
}

/// Calls `of` with OpenSSL's name of the curve an elliptic key is on; empty where it has none.
pub fn with_curve<T: HasPublic, R>(key: &PKeyRef<T>, of: impl FnOnce(&[u8]) -> R) -> R {
    let mut name = [0u8; 80];
    let mut length = 0;
    // SAFETY: `key` is live; OpenSSL writes at most `size` bytes into the buffer, and one number.
    let done = unsafe {
        EVP_PKEY_get_group_name(
            key.as_ptr(),
            name.as_mut_ptr().cast(),
            name.len(),
            &raw mut length,
        )
    };
    let known = if done == 1 { name.get(..length) } else { None };
    of(known.unwrap_or_default())
}

/// Whether a certificate is one of an authority (RFC 5280 §4.2.1.9).
#[must_use]
pub fn is_authority(certificate: &X509Ref) -> bool {
    // SAFETY: `certificate` is live; OpenSSL reads its extensions once and keeps what they say, under
    // a lock of the certificate's own.
    let flags = unsafe { sys::X509_get_extension_flags(certificate.as_ptr()) };
    flags & sys::EXFLAG_CA != 0
}

/// A client whose certificates, chain and all, take more bytes than this is refused with an alert.
pub fn set_max_certificates(ssl: &mut SslRef, bytes: u16) {
    // SAFETY: `ssl` is live and borrowed mutably; the call stores one number.
    unsafe {
        sys::SSL_ctrl(
            ssl.as_ptr(),
            SET_MAX_CERT_LIST,
            c_long::from(bytes),
            std::ptr::null_mut(),
        );
    }
}

/// Lets the store know what was revoked.
///
/// # Errors
/// OpenSSL refused.
pub fn add_crl(store: &mut X509StoreBuilderRef, crl: &X509CrlRef) -> Result<(), ErrorStack> {
    // SAFETY: both are live, the store borrowed mutably; OpenSSL takes a share of the list.
    let done = unsafe { X509_STORE_add_crl(store.as_ptr(), crl.as_ptr()) };
    if done == 1 {
        Ok(())
    } else {
        Err(ErrorStack::get())
    }
}

/// A distinguished name as RFC 2253 writes it, which is what nginx's variables show: last part
/// first, everything but printable ASCII escaped.
///
/// # Errors
/// OpenSSL refused.
pub fn name_rfc2253(name: &X509NameRef) -> Result<String, ErrorStack> {
    // SAFETY: the buffer is made here, checked, and freed below on every way out; `name` is live.
    // The bytes OpenSSL points to belong to the buffer and are copied before it is freed.
    unsafe {
        let out = sys::BIO_new(sys::BIO_s_mem());
        if out.is_null() {
            return Err(ErrorStack::get());
        }
        let printed = X509_NAME_print_ex(out, name.as_ptr(), 0, XN_FLAG_RFC2253);
        let mut data: *mut c_char = std::ptr::null_mut();
        let length = sys::BIO_get_mem_data(out, &raw mut data);
        let text = match usize::try_from(length) {
            Ok(length) if printed >= 0 && !data.is_null() => {
                let bytes = std::slice::from_raw_parts(data.cast::<u8>(), length);
                Ok(String::from_utf8_lossy(bytes).into_owned())
            }
            // A name without any part has no bytes.
            Ok(0) if printed >= 0 => Ok(String::new()),
            _ => Err(ErrorStack::get()),
        };
        sys::BIO_free_all(out);
        text
    }
}

/// OpenSSL's `SSL_CTRL_SET_MAX_CERT_LIST`.
const SET_MAX_CERT_LIST: c_int = 51;

/// OpenSSL's `XN_FLAG_RFC2253`: `ASN1_STRFLGS_RFC2253`, separator `,` and `+`, reversed, short
/// names, unknown fields dumped.
const XN_FLAG_RFC2253: c_ulong = 0x0111_0317;

/// TLS extension type `server_name` (RFC 6066 §3).
const SERVER_NAME: c_uint = 0;
