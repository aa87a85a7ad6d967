//! How sessions resume: the callbacks for sessions in memory and for the keys of tickets.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

use foreign_types_shared::ForeignTypeRef;
use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtxRef;
use openssl::error::ErrorStack;
use openssl::rand::rand_bytes;
use openssl::ssl::{
    SslContext, SslContextBuilder, SslRef, SslSession, SslSessionCacheMode, SslVersion,
};
use openssl_sys as sys;

use crate::tls::session_cache::SessionCache;
use crate::tls::tickets::{KEY_NAME, TicketKeySource, TicketMaterial};

unsafe extern "C" {
    fn SSL_CTX_set_tlsext_ticket_key_evp_cb(
        ctx: *mut sys::SSL_CTX,
        callback: Option<TicketCallback>,
    ) -> c_int;
    fn OSSL_PARAM_construct_utf8_string(
        key: *const c_char,
        text: *mut c_char,
        len: usize,
    ) -> sys::OSSL_PARAM;
}

/// `SSL_CTX_set_tlsext_ticket_key_evp_cb(3)`.
type TicketCallback = unsafe extern "C" fn(
    ssl: *mut sys::SSL,
    name: *mut u8,
    iv: *mut u8,
    cipher: *mut sys::EVP_CIPHER_CTX,
    mac: *mut sys::EVP_MAC_CTX,
    seal: c_int,
) -> c_int;

/// Sessions without a ticket are kept in this cache, and in none of OpenSSL's.
pub fn set_session_cache(context: &mut SslContextBuilder, cache: Arc<SessionCache>, tickets: bool) {
    let mode = SslSessionCacheMode::SERVER | SslSessionCacheMode::NO_INTERNAL;
    context.set_session_cache_mode(mode);
    let kept = Arc::clone(&cache);
    context.set_new_session_callback(move |_, session| {
        // With tickets those of TLS 1.3 come along, too, and nobody will ask for them.
        if tickets && session.protocol_version() == SslVersion::TLS1_3 {
            return;
        }
        if let (Ok(id), Ok(encoded)) = (session.id().try_into(), session.to_der()) {
            kept.insert(id, encoded);
        }
    });
    let find = move |_: &mut SslRef, id: &[u8]| {
        let encoded = cache.find(id)?;
        SslSession::from_der(&encoded).ok()
    };
    // SAFETY: the session was made this moment, and so belongs to no other context.
    unsafe { context.set_get_session_callback(find) };
}

/// Session tickets of connections of this context are sealed and opened with these keys: AES-256-CBC
/// under HMAC-SHA256 (RFC 5077 §4). Whatever fails costs a full handshake, never the connection.
///
/// # Errors
/// OpenSSL refused.
pub fn set_ticket_keys<T: TicketKeySource>(
    context: &mut SslContextBuilder,
    keys: Arc<T>,
) -> Result<(), ErrorStack> {
    let place = Arc::as_ptr(&keys).cast_mut().cast::<c_void>();
    // Dropped with the context, and so after its last connection.
    context.set_ex_data(SslContext::new_ex_index::<Arc<T>>()?, keys);
    // SAFETY: `context` is live and borrowed mutably. Index 0 is the application's own
    // (`SSL_CTX_set_app_data`), which OpenSSL gives out to nobody, and nobody else uses on this
    // context; `place` is good for as long as the context, by the line above. The callback has the
    // type that OpenSSL wants.
    let done = unsafe {
        sys::SSL_CTX_set_ex_data(context.as_ptr(), APP_DATA, place) == 1
            && SSL_CTX_set_tlsext_ticket_key_evp_cb(context.as_ptr(), Some(ticket_key::<T>)) == 1
    };
    if done { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Answers 0 where there is no key: OpenSSL then issues no ticket, or takes the one presented for
/// unknown; 2 opens a ticket and has it replaced.
unsafe extern "C" fn ticket_key<T: TicketKeySource>(
    ssl: *mut sys::SSL,
    name: *mut u8,
    iv: *mut u8,
    cipher: *mut sys::EVP_CIPHER_CTX,
    mac: *mut sys::EVP_MAC_CTX,
    seal: c_int,
) -> c_int {
    // SAFETY: OpenSSL calls this for a live connection of a context on which `set_ticket_keys::<T>`
    // put a pointer to a `T` that lives as long as the context.
    let keys = unsafe {
        let place = sys::SSL_CTX_get_ex_data(sys::SSL_get_SSL_CTX(ssl), APP_DATA);
        place.cast::<T>().as_ref()
    };
    let Some(keys) = keys else {
        return NO_TICKET;
    };
    // SAFETY: the context is OpenSSL's, made for this call alone.
    let cipher = unsafe { CipherCtxRef::from_ptr_mut(cipher) };
    if seal == 1 {
        // SAFETY: for sealing both are buffers of the caller that are to be written, 16 bytes each
        // (`TLSEXT_KEYNAME_LENGTH`, `EVP_MAX_IV_LENGTH`).
        let (name, iv) = unsafe {
            (
                &mut *name.cast::<[u8; KEY_NAME]>(),
                &mut *iv.cast::<[u8; IV]>(),
            )
        };
        let Some(key) = keys.seal() else {
            return NO_TICKET;
        };
        *name = key.name;
        let ready = rand_bytes(iv)
            .and_then(|()| {
                let aes = Some(Cipher::aes_256_cbc());
                cipher.encrypt_init(aes, Some(&*key.cipher), Some(iv))
            })
            .and_then(|()| keyed(mac, &key));
        return if ready.is_ok() { TICKET } else { NO_TICKET };
    }
    // SAFETY: both point into the ticket that was presented, which OpenSSL found to be that long,
    // and are only read.
    let (name, iv) = unsafe { (&*name.cast::<[u8; KEY_NAME]>(), &*iv.cast::<[u8; IV]>()) };
    let Some((key, newest)) = keys.open(name) else {
        return NO_TICKET;
    };
    let aes = Some(Cipher::aes_256_cbc());
    let ready = cipher
        .decrypt_init(aes, Some(&*key.cipher), Some(iv))
        .and_then(|()| keyed(mac, &key));
    // SAFETY: the connection is live, and only looked at.
    let version = unsafe { SslRef::from_ptr(ssl) }.version2();
    match ready {
        Err(_) => NO_TICKET,
        // A ticket of TLS 1.3 is for one use (RFC 8446 appendix C.4).
        Ok(()) if newest && version != Some(SslVersion::TLS1_3) => TICKET,
        Ok(()) => TICKET_TO_REPLACE,
    }
}

fn keyed(mac: *mut sys::EVP_MAC_CTX, key: &TicketMaterial) -> Result<(), ErrorStack> {
    // SAFETY: `mac` is the caller's, made for this call alone; the parameters are read during the
    // call and point to constants; the key is copied. Length 0 has OpenSSL look for the text's end.
    let done = unsafe {
        let digest = c"SHA256".as_ptr().cast_mut();
        let parameters = [
            OSSL_PARAM_construct_utf8_string(c"digest".as_ptr(), digest, 0),
            sys::OSSL_PARAM_construct_end(),
        ];
        sys::EVP_MAC_init(mac, key.mac.as_ptr(), key.mac.len(), parameters.as_ptr())
    };
    if done == 1 {
        Ok(())
    } else {
        Err(ErrorStack::get())
    }
}

/// Of the ex data of a context.
const APP_DATA: c_int = 0;

/// `EVP_MAX_IV_LENGTH`, which is that of AES-CBC.
const IV: usize = 16;

const NO_TICKET: c_int = 0;
const TICKET: c_int = 1;
const TICKET_TO_REPLACE: c_int = 2;
