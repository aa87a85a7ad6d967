//! `plugin_attr.prometheus` as far as the metrics themselves are concerned (`spec/05` §1).
//! Addresses and paths of the listener are the bootstrap's.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::diagnostic::without_values;

/// How metrics are named, bucketed and bounded.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct MetricsConfig {
    /// Put before APISIX's names. Default `apisix_`; ours keep `claviger_`.
    pub metric_prefix: String,
    /// Upper bounds of `http_latency`, in milliseconds. Default 1 to 60 000.
    pub default_buckets: Vec<f64>,
    /// Per metric name (`http_status`, `http_latency`, `bandwidth`).
    pub metrics: BTreeMap<String, FamilyConfig>,
    /// Ours: how many label sets the request metrics may have together. Past it, new ones share
    /// series whose consumer, node and extra labels read `overflow`. Default 10 000.
    pub max_series: usize,
}

/// What can be set for one metric.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct FamilyConfig {
    /// Further labels: each an object of one label name and `$variable`.
    pub extra_labels: Vec<BTreeMap<String, String>>,
    /// Seconds after which a series that nothing counted into is dropped. Zero keeps it for ever.
    pub expire: u64,
}

/// A `plugin_attr.prometheus` that does not say what it means.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("plugin_attr.prometheus.{field}: {expected}")]
pub struct MetricsConfigError {
    /// Dotted path.
    pub field: String,
    /// What was expected there.
    pub expected: String,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            metric_prefix: "apisix_".to_owned(),
            default_buckets: DEFAULT_BUCKETS_MS.to_vec(),
            metrics: BTreeMap::new(),
            max_series: 10_000,
        }
    }
}

impl MetricsConfig {
    /// Reads `plugin_attr.prometheus`; `null` is the default.
    ///
    /// # Errors
    /// A field has the wrong type, a name is no metric name, or the buckets do not rise.
    pub fn parse(json: &serde_json::Value) -> Result<Self, MetricsConfigError> {
        if json.is_null() {
            return Ok(Self::default());
        }
        let config: Self =
            serde_path_to_error::deserialize(json).map_err(|error| MetricsConfigError {
                field: error.path().to_string(),
                expected: without_values(&error.inner().to_string()),
            })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), MetricsConfigError> {
        if !self.metric_prefix.is_empty() && !is_name(&self.metric_prefix) {
            return Err(refuse("metric_prefix", "expected letters, digits and `_`"));
        }
        let buckets = &self.default_buckets;
        let fit = |bound: &f64| bound.is_finite() && (0.001..1e12).contains(bound);
        if !buckets.iter().all(fit) || buckets.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(refuse(
                "default_buckets",
                "expected rising positive numbers",
            ));
        }
        for (metric, family) in &self.metrics {
            for name in family.extra_labels.iter().flat_map(BTreeMap::keys) {
                if !is_name(name) || name.starts_with("__") || RESERVED.contains(&name.as_str()) {
                    let field = format!("metrics.{metric}.extra_labels");
                    return Err(refuse(&field, "expected label names of its own"));
                }
            }
        }
        Ok(())
    }
}

fn refuse(field: &str, expected: &str) -> MetricsConfigError {
    MetricsConfigError {
        field: field.to_owned(),
        expected: expected.to_owned(),
    }
}

fn is_name(name: &str) -> bool {
    let first = |c: u8| c.is_ascii_alphabetic() || c == b'_';
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|c| first(*c))
        && bytes.iter().all(|c| first(*c) || c.is_ascii_digit())
}

/// APISIX 3.18: `apisix/plugins/prometheus/exporter.lua`.
const DEFAULT_BUCKETS_MS: [f64; 15] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0,
    30_000.0, 60_000.0,
];

const RESERVED: &[&str] = &[
    "code",
    "type",
    "le",
    "route",
    "matched_uri",
    "matched_host",
    "service",
    "consumer",
    "node",
    "request_type",
    "request_llm_model",
    "llm_model",
    "response_source",
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_configuration_is_apisix_default() {
        let config = MetricsConfig::parse(&serde_json::Value::Null).expect("null is fine");
        assert_eq!(config.metric_prefix, "apisix_");
        assert_eq!(config.default_buckets.len(), 15);
    }

    #[test]
    fn what_cannot_be_a_metric_is_refused_by_field() {
        for (json, field) in [
            (json!({"metric_prefix": "a-b"}), "metric_prefix"),
            (json!({"metric_prefix": 1}), "metric_prefix"),
            (json!({"default_buckets": [2, 1]}), "default_buckets"),
            (json!({"default_buckets": [0]}), "default_buckets"),
            (
                json!({"metrics": {"http_status": {"extra_labels": [{"code": "$x"}]}}}),
                "metrics.http_status.extra_labels",
            ),
        ] {
            let error = MetricsConfig::parse(&json).expect_err("must be refused");
            assert_eq!(error.field, field);
        }
    }
}
