//! Connections and requests: accepts them, runs the phases, answers errors.

pub mod handshake;
