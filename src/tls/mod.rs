//! Certificates, which name they serve, and what a name allows. Knows OpenSSL's objects, but no
//! connection and no secret manager: values come in, parsed pieces go out.
#![deny(unsafe_code)]

pub mod dev;
