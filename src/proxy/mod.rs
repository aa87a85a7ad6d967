//! Connections and requests: accepts them, runs the phases, answers errors.

pub mod drain;
pub mod handshake;
pub mod header_deadline;
pub mod listener;
pub mod signals;
