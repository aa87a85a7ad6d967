//! For tests: pairs (certificates and key, PEM) that parse and fit, and cannot be served.

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509NameBuilder};

/// A sound leaf under an intermediate whose RSA key has 1024 bits.
pub(crate) fn small_ca() -> (Vec<u8>, Vec<u8>) {
    small_ca_within(&now().expect("openssl makes it"))
}

/// The same for a time of its own.
pub(crate) fn small_ca_within(times: &[Asn1Time; 2]) -> (Vec<u8>, Vec<u8>) {
    let made = || {
        let ca = PKey::from_rsa(Rsa::generate(1024)?)?;
        let leaf = p256()?;
        let chain = [
            certificate("a.test", &leaf, "small", &ca, times)?,
            certificate("small", &ca, "root", &ca, times)?,
        ];
        Ok::<_, ErrorStack>((chain.concat(), leaf.private_key_to_pem_pkcs8()?))
    };
    made().expect("openssl makes it")
}

/// A leaf whose key has the right public half and another private one.
pub(crate) fn torn() -> (Vec<u8>, Vec<u8>) {
    let made = || {
        let (leaf, other) = (p256()?, p256()?);
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let other = other.ec_key()?;
        let torn = EcKey::from_private_components(
            &group,
            other.private_key(),
            leaf.ec_key()?.public_key(),
        )?;
        let cert = certificate("a.test", &leaf, "a.test", &leaf, &now()?)?;
        Ok::<_, ErrorStack>((cert, torn.private_key_to_pem()?))
    };
    made().expect("openssl makes it")
}

fn now() -> Result<[Asn1Time; 2], ErrorStack> {
    Ok([Asn1Time::from_unix(0)?, Asn1Time::days_from_now(30)?])
}

fn p256() -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

fn certificate(
    subject: &str,
    key: &PKey<Private>,
    issuer: &str,
    signer: &PKey<Private>,
    [from, to]: &[Asn1Time; 2],
) -> Result<Vec<u8>, ErrorStack> {
    let name = |text| {
        let mut name = X509NameBuilder::new()?;
        name.append_entry_by_nid(Nid::COMMONNAME, text)?;
        Ok::<_, ErrorStack>(name.build())
    };
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    let serial = BigNum::from_u32(7)?.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(name(subject)?.as_ref())?;
    builder.set_issuer_name(name(issuer)?.as_ref())?;
    builder.set_pubkey(key)?;
    builder.set_not_before(from)?;
    builder.set_not_after(to)?;
    let context = builder.x509v3_context(None, None);
    let names = SubjectAlternativeName::new().dns(subject).build(&context)?;
    builder.append_extension(names)?;
    builder.sign(signer, MessageDigest::sha256())?;
    builder.build().to_pem()
}
