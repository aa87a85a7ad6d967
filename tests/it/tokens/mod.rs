//! Signed tokens: the standards' own, and those of the libraries that clients use.

mod clients;
mod jwe;
mod jwks;
mod keys;
mod vectors;
