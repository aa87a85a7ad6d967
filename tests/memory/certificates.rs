//! What a certificate costs that stands, with its key, in a document of a secret manager.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Once;
use std::time::Instant;

use claviger::config::source::{Source, SourceOptions};
use claviger::tls::dev::{Authority, LeafOptions};
use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use serde_json::json;

use super::*;

/// Enough that what all of them share is nothing to each, and an eighth of 10 000, so that tables
/// are as full as they are with those; as they are with the few.
const CERTIFICATES: usize = 10_000 / 8;
const FEW: usize = 10_000 / 64;
/// The bar of the whole program (issue 5).
const BAR: usize = 12 * 1024;
/// With RSA in leaf, link and key: PEM texts alone are 4 KiB. Half a KiB above the bar, so far.
const BAR_OF_RSA: usize = BAR + 512;

/// Lets OpenSSL's memory be counted, too.
pub(super) fn count_openssl() {
    type Allocate = extern "C" fn(usize, *const c_char, c_int) -> *mut c_void;
    type Reallocate = extern "C" fn(*mut c_void, usize, *const c_char, c_int) -> *mut c_void;
    type Release = extern "C" fn(*mut c_void, *const c_char, c_int);
    unsafe extern "C" {
        fn CRYPTO_set_mem_functions(a: Allocate, r: Reallocate, f: Release) -> c_int;
    }
    extern "C" fn allocate(size: usize, _: *const c_char, _: c_int) -> *mut c_void {
        // SAFETY: any size may be asked for; what comes back is ours.
        unsafe { counted(libc::malloc(size)) }
    }
    extern "C" fn reallocate(
        at: *mut c_void,
        size: usize,
        file: *const c_char,
        line: c_int,
    ) -> *mut c_void {
        if size == 0 {
            release(at, file, line);
            return std::ptr::null_mut();
        }
        // SAFETY: OpenSSL got the block here, and gives it up for the one it gets back.
        unsafe {
            LIVE.fetch_sub(libc::malloc_usable_size(at), Relaxed);
            counted(libc::realloc(at, size))
        }
    }
    extern "C" fn release(at: *mut c_void, _: *const c_char, _: c_int) {
        // SAFETY: OpenSSL got the block here, or it is none.
        unsafe {
            LIVE.fetch_sub(libc::malloc_usable_size(at), Relaxed);
            libc::free(at);
        }
    }
    /// # Safety
    /// The block came from `malloc`, or is none.
    unsafe fn counted(at: *mut c_void) -> *mut c_void {
        // SAFETY: the caller's promise. It says 0 of none.
        LIVE.fetch_add(unsafe { libc::malloc_usable_size(at) }, Relaxed);
        at
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the three stand for one allocator; OpenSSL refuses them once it holds memory.
        let done = unsafe { CRYPTO_set_mem_functions(allocate, reallocate, release) };
        assert_eq!(done, 1, "nothing has used OpenSSL yet");
    });
}

/// Certificates with ECDSA keys under one intermediate.
fn ecdsa(count: usize) -> Vec<String> {
    let root = Authority::new().expect("root");
    let middle = root.intermediate("middle").expect("middle");
    let issue = |n: usize| {
        let name = format!("host-{n}.example.test");
        let issued = middle.issue(&[&name], &LeafOptions::default());
        let issued = issued.expect("leaf");
        let key = issued.key_pem.expose_str().expect("PEM");
        json!({"cert": issued.cert_pem, "key": key}).to_string()
    };
    (0..count).map(issue).collect()
}

/// Certificates of RSA all through. They have one key, since making one takes long; each is read
/// for itself all the same.
fn rsa(count: usize) -> Vec<String> {
    let generate = || Rsa::generate(2048).and_then(PKey::from_rsa).expect("key");
    let (root, middle, leaf) = (generate(), generate(), generate());
    let authority = signed("root", &root, ("root", &root), None);
    let link = signed("middle", &middle, ("root", &root), Some(&authority));
    let key = leaf.private_key_to_pem_pkcs8().expect("PEM");
    let key = String::from_utf8(key).expect("PEM");
    let pem = |certificate: &X509| {
        let pem = certificate.to_pem().expect("PEM");
        String::from_utf8(pem).expect("PEM")
    };
    let chain = pem(&link);
    let issue = |n: usize| {
        let name = format!("host-{n}.example.test");
        let certificate = signed(&name, &leaf, ("middle", &middle), Some(&link));
        json!({"cert": pem(&certificate) + &chain, "key": key}).to_string()
    };
    (0..count).map(issue).collect()
}

/// A certificate with the extensions that authorities give; of an authority where the name has no
/// dot.
fn signed(
    name: &str,
    key: &PKey<Private>,
    issuer: (&str, &PKey<Private>),
    by: Option<&X509>,
) -> X509 {
    let named = |name: &str| {
        let mut builder = X509NameBuilder::new()?;
        builder.append_entry_by_text("CN", name)?;
        Ok::<_, openssl::error::ErrorStack>(builder.build())
    };
    let build = || {
        let mut builder = X509Builder::new()?;
        builder.set_version(2)?;
        builder.set_subject_name(named(name)?.as_ref())?;
        builder.set_issuer_name(named(issuer.0)?.as_ref())?;
        builder.set_pubkey(key)?;
        builder.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
        builder.set_not_after(Asn1Time::days_from_now(90)?.as_ref())?;
        let constraints = BasicConstraints::new().critical().build()?;
        if name.contains('.') {
            builder.append_extension(constraints)?;
            builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
            builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
            let context = builder.x509v3_context(None, None);
            let names = SubjectAlternativeName::new().dns(name).build(&context)?;
            builder.append_extension(names)?;
        } else {
            let usage = KeyUsage::new().critical().key_cert_sign().build()?;
            builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
            builder.append_extension(usage)?;
        }
        let by = by.map(AsRef::as_ref);
        let own = SubjectKeyIdentifier::new().build(&builder.x509v3_context(by, None))?;
        builder.append_extension(own)?;
        if by.is_some() {
            let context = builder.x509v3_context(by, None);
            let theirs = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
            builder.append_extension(theirs)?;
        }
        builder.sign(issuer.1, MessageDigest::sha256())?;
        Ok::<_, openssl::error::ErrorStack>(builder.build())
    };
    build().expect("certificate")
}

/// Bytes held for these certificates: documents, secrets, values and snapshot, as the program
/// holds them.
fn held(pairs: &[String]) -> usize {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let mut yaml = format!(
        "secrets:\n  - {{ id: file/main, path: '{}', ttl: 600 }}\nssls:\n",
        folder.path().display()
    );
    for (n, pair) in pairs.iter().enumerate() {
        write_private(&folder.path().join(format!("h{n}.json")), pair);
        let _ = writeln!(
            yaml,
            "  - {{ id: h{n}, sni: host-{n}.example.test, cert: $secret://file/main/h{n}/cert, \
             key: $secret://file/main/h{n}/key }}"
        );
    }
    let file = folder.path().join("apisix.yaml");
    write_private(&file, &(yaml + "#END\n"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new("apisix_"));
    let env = compile_env(&Bootstrap::default(), &metrics, &clock).expect("defaults are sound");
    let before = LIVE.load(Relaxed);
    // From a file: of a text that stands in none, all would be kept.
    let mut source = Source::new(file, SourceOptions::default());
    let documents = source.load().expect("the resources are sound");
    let secrets = Secrets::new(SecretsSettings::default(), Arc::clone(&clock), Arc::new(()));
    assert!(reload::configure(&documents, &secrets, None).is_empty());
    let in_use = references(&documents);
    let view = runtime.block_on(secrets.ensure(&in_use, Duration::from_secs(60)));
    drop(in_use);
    let values = LIVE.load(Relaxed).saturating_sub(before);
    let began = Instant::now();
    let snapshot = compile(&documents, &view, None, &env, clock.wall());
    let took = began.elapsed();
    assert!(
        snapshot.diagnostics.is_empty(),
        "{:?}",
        snapshot.diagnostics
    );
    assert_eq!(snapshot.counts["ssls"].refused, 0);
    runtime.shutdown_timeout(Duration::from_secs(10));
    let held = LIVE.load(Relaxed).saturating_sub(before);
    eprintln!(
        "{} certificates: {values} bytes before they were compiled, {held} after; {took:?}",
        pairs.len()
    );
    drop((source, documents, secrets, view, snapshot));
    held
}

fn assert_bar(kind: &str, bar: usize, pairs: &[String]) {
    let few = &pairs[..FEW];
    // What is made once in a process is made by now.
    held(few);
    let each = (held(pairs) - held(few)) / (pairs.len() - FEW);
    eprintln!("a certificate ({kind}) takes {each} bytes");
    assert!(each <= bar, "{each} bytes, not {bar}");
    // A bound that twice the memory would meet is none.
    assert!(each * 2 > bar, "{each} bytes: the bound is loose");
}

#[test]
fn a_certificate_costs_no_more_than_the_bar() {
    let _alone = alone();
    assert_bar("ECDSA", BAR, &ecdsa(CERTIFICATES));
    assert_bar("RSA", BAR_OF_RSA, &rsa(CERTIFICATES));
}
