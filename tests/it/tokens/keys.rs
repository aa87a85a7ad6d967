//! A key for every algorithm, made anew by each test.

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;

use claviger::jwt::{Algorithm, Family, SigningKey};

/// What signs, and what verifies: two PEMs, or twice one secret.
#[derive(Clone)]
pub struct Key {
    /// Name of the algorithm, or `Ed448`.
    pub name: &'static str,
    pub algorithm: Algorithm,
    pub private: String,
    pub public: String,
}

impl Key {
    /// A key of our own making, as our program signs with it.
    pub fn signs(&self) -> SigningKey {
        let private = self.private.as_bytes();
        match self.algorithm.family() {
            Family::Hmac => SigningKey::from_secret(self.algorithm, private).unwrap(),
            _ => SigningKey::from_pem(self.algorithm, private).unwrap(),
        }
    }

    pub fn is_secret(&self) -> bool {
        self.algorithm.family() == Family::Hmac
    }
}

/// One for each algorithm, and two for EdDSA. All RSA algorithms share a key: those are dear.
pub fn all() -> Vec<Key> {
    let rsa = rsa();
    let named = Algorithm::ALL.map(|algorithm| of(algorithm.name(), algorithm, &rsa));
    let ed448 = PKey::generate_ed448().unwrap();
    named
        .into_iter()
        .chain([pair("Ed448", Algorithm::EdDSA, &ed448)])
        .collect()
}

/// Another key of each kind.
pub fn others(keys: &[Key]) -> Vec<Key> {
    let rsa = rsa();
    let other = |key: &Key| match key.name {
        "Ed448" => pair("Ed448", key.algorithm, &PKey::generate_ed448().unwrap()),
        name => of(name, key.algorithm, &rsa),
    };
    keys.iter().map(other).collect()
}

fn rsa() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

fn of(name: &'static str, algorithm: Algorithm, rsa: &PKey<Private>) -> Key {
    let ec = |curve| {
        let group = EcGroup::from_curve_name(curve).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    };
    match algorithm {
        Algorithm::ES256 => pair(name, algorithm, &ec(Nid::X9_62_PRIME256V1)),
        Algorithm::ES384 => pair(name, algorithm, &ec(Nid::SECP384R1)),
        Algorithm::ES512 => pair(name, algorithm, &ec(Nid::SECP521R1)),
        Algorithm::EdDSA => pair(name, algorithm, &PKey::generate_ed25519().unwrap()),
        _ if algorithm.family() == Family::Hmac => {
            let mut bytes = [0; 40];
            openssl::rand::rand_bytes(&mut bytes).unwrap();
            let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            Key {
                name,
                algorithm,
                private: secret.clone(),
                public: secret,
            }
        }
        _ => pair(name, algorithm, rsa),
    }
}

fn pair(name: &'static str, algorithm: Algorithm, key: &PKey<Private>) -> Key {
    let text = |pem: Vec<u8>| String::from_utf8(pem).unwrap();
    Key {
        name,
        algorithm,
        private: text(key.private_key_to_pem_pkcs8().unwrap()),
        public: text(key.public_key_to_pem().unwrap()),
    }
}
