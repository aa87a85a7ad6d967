//! Claviger: an edge proxy and API gateway that keeps every credential in a secret manager.
//!
//! The rooms, in layer order; a room imports only from layers below its own
//! (`tests/it/layers.rs` holds this, `ARCHITECTURE.md` explains it):
//!
//! | Layer | Rooms |
//! |---|---|
//! | 0 | [`clock`] [`diagnostic`] [`ip_set`] [`kept`] [`sealed`] [`sharded`] [`wipe`] |
//! | 1 | [`http`] [`callout`] [`expr`] [`jwt`] [`telemetry`] |
//! | 2 | [`secrets`] [`config`] |
//! | 3 | [`tls`] [`ldap`] [`upstream`] [`consumer`] [`routing`] |
//! | 4 | [`plugins`] |
//! | 5 | [`snapshot`] |
//! | 6 | [`reload`] |
//! | 7 | [`proxy`] [`admin`] |
//! | 8 | [`server`] [`cli`] |

pub mod clock;
pub mod diagnostic;
pub mod ip_set;
pub mod kept;
pub mod sealed;
pub mod sharded;
pub mod wipe;

pub mod callout;
pub mod expr;
pub mod http;
pub mod jwt;
pub mod telemetry;

pub mod config;
pub mod secrets;

pub mod consumer;
pub mod ldap;
pub mod routing;
pub mod tls;
pub mod upstream;

pub mod plugins;

pub mod snapshot;

pub mod reload;

pub mod admin;
pub mod proxy;

pub mod cli;
pub mod server;
