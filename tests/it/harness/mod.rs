//! What tests stand on: the program, a client, an upstream, certificates, ports.

#![allow(
    dead_code,
    reason = "a shared toolbox; which tools are used changes with the tests"
)]

pub mod audit;
pub mod casdoor;
pub mod certs;
pub mod chaos;
pub mod client;
pub mod dns;
mod door;
pub mod drongo;
pub mod gateway;
pub mod google;
pub mod h2;
pub mod h2_node;
pub mod moto;
pub mod nginx;
pub mod openbao;
pub mod pipe;
pub mod ports;
pub mod relay;
pub mod responder;
pub mod service;
pub mod slapd;
pub mod tools;
pub mod upstream;
pub mod wire;
pub mod wolf;

pub use client::Connection;
pub use drongo::Drongo;
pub use gateway::{Gateway, wait_until};
pub use google::Google;
pub use h2_node::{Act, H2Node};
pub use nginx::Nginx;
pub use openbao::OpenBao;
pub use pipe::Pipe;
pub use relay::{Relay, Relaying};
pub use responder::{Responder, Standing, serial};
pub use service::{Service, said};
pub use slapd::Slapd;
pub use tools::tool;
pub use upstream::{Behaviour, Upstream};
