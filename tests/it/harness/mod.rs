//! What tests stand on: the program, a client, an upstream, certificates, ports.

#![allow(
    dead_code,
    reason = "a shared toolbox; which tools are used changes with the tests"
)]

pub mod certs;
pub mod chaos;
pub mod client;
pub mod dns;
pub mod gateway;
pub mod h2;
pub mod moto;
pub mod openbao;
pub mod ports;
pub mod relay;
pub mod tools;
pub mod upstream;
pub mod wire;

pub use client::Connection;
pub use gateway::{Gateway, wait_until};
pub use openbao::OpenBao;
pub use relay::{Relay, Relaying};
pub use tools::tool;
pub use upstream::{Behaviour, Upstream};
