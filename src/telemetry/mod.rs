//! Sinks for plain data: metrics, logging, access log. Never sees a secret by type.

pub mod metrics;
