//! The process's metrics. One registry, handed to whoever counts; nothing process-wide.

/// All metrics of the process.
pub struct Metrics {
    _private: (),
}

impl Metrics {
    /// A fresh registry. `prefix` is APISIX's `metric_prefix` (`apisix_`).
    #[must_use]
    pub fn new(_prefix: &str) -> Self {
        Self { _private: () }
    }
}
