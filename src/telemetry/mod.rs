//! Sinks for plain data: metrics, logging, access log, audit log. Never sees a secret by type.

pub mod access_log;
pub mod audit;
mod budget;
mod escape;
pub mod format;
pub mod logging;
pub mod metrics;
pub mod redact;
pub mod sink;

pub use access_log::AccessLog;
pub use audit::Audit;
pub use budget::{HeldBack, LineBudget};
pub use escape::Escape;
pub use format::LogFormat;
pub use logging::Logger;
pub use metrics::Metrics;
