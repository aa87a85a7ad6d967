//! From bootstrap configuration to the logs: the process's, the access log, the audit log.

use std::sync::Arc;

use super::ServerError;
use super::early;
use super::environment::Environment;
use super::settings::SettingsError;
use crate::clock::Clock;
use crate::config::bootstrap::{AUDIT_KEY, Bootstrap, Declared};
use crate::telemetry::access_log::AccessLogConfig;
use crate::telemetry::audit::Seal;
use crate::telemetry::logging::{LoggerConfig, Shape, parse_level};
use crate::telemetry::sink::Target;
use crate::telemetry::{AccessLog, Audit, Escape, LogFormat, Logger};

/// The process's log.
///
/// # Errors
/// The level is no level, or the file cannot be opened.
pub fn logger(bootstrap: &Bootstrap, clock: Arc<dyn Clock>) -> Result<Logger, ServerError> {
    let word = SettingsError::Word {
        field: "nginx_config.error_log_level",
        expected: "debug, info, notice, warn, error, crit, alert or emerg",
    };
    let level = parse_level(bootstrap.log_level()).ok_or(word)?;
    let target = Target::parse(&bootstrap.nginx_config.error_log);
    make_folder(&target)?;
    let mut config = LoggerConfig::new(target, level);
    if bootstrap.claviger.log.json {
        config.shape = Shape::Json;
    }
    Logger::start(config, clock).map_err(|source| ServerError::Io {
        what: format!(
            "cannot open the error log {}",
            bootstrap.nginx_config.error_log
        ),
        source,
    })
}

pub(super) fn access_log(bootstrap: &Bootstrap) -> Result<Option<AccessLog>, ServerError> {
    let http = &bootstrap.nginx_config.http;
    if !http.enable_access_log || http.access_log == "off" {
        return Ok(None);
    }
    let word = SettingsError::Word {
        field: "nginx_config.http.access_log_format_escape",
        expected: "default, json or none",
    };
    let escape = Escape::parse(&http.access_log_format_escape).ok_or(word)?;
    let format = if bootstrap.claviger.log.access_json {
        LogFormat::object(&serde_json::from_str(ACCESS_JSON).unwrap_or_default())
            .unwrap_or_else(|_| LogFormat::parse(&http.access_log_format, Escape::Json))
    } else {
        LogFormat::parse(&http.access_log_format, escape)
    };
    let target = Target::parse(&http.access_log);
    make_folder(&target)?;
    let mut config = AccessLogConfig::new(target, format);
    config.buffer_bytes = usize::try_from(http.access_log_buffer).unwrap_or(usize::MAX);
    let opened = AccessLog::start(config);
    opened.map(Some).map_err(|source| ServerError::Io {
        what: format!("cannot open the access log {}", http.access_log),
        source,
    })
}

/// How lines of the audit log are sealed. The key is read from its manager, where there is one.
///
/// # Errors
/// The key has no value, or one that is no key.
pub fn audit_seal(
    bootstrap: &Bootstrap,
    declared: &Declared,
    clock: &Arc<dyn Clock>,
    environment: &Environment,
) -> Result<Seal, SettingsError> {
    match early::audit_key(bootstrap, declared, clock, environment)? {
        None => Ok(Seal::Plain),
        Some(key) => Seal::keyed(key.expose()).map_err(|error| SettingsError::Reference {
            place: declared
                .setting(AUDIT_KEY)
                .map(|item| item.place.clone())
                .unwrap_or_default(),
            field: AUDIT_KEY.into(),
            why: error.to_string(),
        }),
    }
}

/// The audit log, begun with the line that the process started.
pub(super) fn audit(
    bootstrap: &Bootstrap,
    declared: &Declared,
    clock: &Arc<dyn Clock>,
    environment: &Environment,
) -> Result<Option<Audit>, ServerError> {
    let Some(path) = &bootstrap.claviger.audit.path else {
        return Ok(None);
    };
    let seal = audit_seal(bootstrap, declared, clock, environment)?;
    let started = Audit::start(path, seal, Arc::clone(clock));
    let audit = started.map_err(|source| ServerError::Io {
        what: format!("cannot open the audit log {}", path.display()),
        source,
    })?;
    audit.record(
        "started",
        vec![("version", env!("CARGO_PKG_VERSION").into())],
    );
    Ok(Some(audit))
}

fn make_folder(target: &Target) -> Result<(), ServerError> {
    if let Target::File(path) = target
        && let Some(folder) = path.parent()
    {
        std::fs::create_dir_all(folder).map_err(|source| ServerError::Io {
            what: format!("cannot make the folder {}", folder.display()),
            source,
        })?;
    }
    Ok(())
}

/// `claviger.log.access_json`: the default line's facts as an object.
const ACCESS_JSON: &str = r#"{
    "time": "$time_iso8601", "client": "$remote_addr", "method": "$request_method", "host": "$http_host",
    "uri": "$real_request_uri", "status": "$status", "bytes": "$body_bytes_sent", "request_time": "$request_time",
    "upstream": "$upstream_addr", "upstream_status": "$upstream_status", "upstream_time": "$upstream_response_time",
    "route": "$route_id", "consumer": "$consumer_name", "request_id": "$apisix_request_id",
    "user_agent": "$http_user_agent", "referer": "$http_referer"
}"#;
