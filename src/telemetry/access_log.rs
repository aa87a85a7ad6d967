//! The access log: a format and a sink. Writing a line never waits.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thread_local::ThreadLocal;

use super::format::{LogFormat, Stamp};
use super::metrics::{Collect, Kind, Page};
use super::sink::{Sink, SinkConfig, Target};
use crate::expr::{Name, VarSource, Variable};

/// Where and how the access log is written.
pub struct AccessLogConfig {
    /// `nginx_config.http.access_log`.
    pub target: Target,
    /// `access_log_format` and its escape.
    pub format: LogFormat,
    /// `access_log_buffer`: bytes a thread collects before the writer is woken. Default 16 384.
    pub buffer_bytes: usize,
    /// How long a line waits at most. Default 3 s.
    pub flush_interval: Duration,
}

impl AccessLogConfig {
    /// With APISIX's buffer and flush interval.
    #[must_use]
    pub const fn new(target: Target, format: LogFormat) -> Self {
        Self {
            target,
            format,
            buffer_bytes: 16_384,
            flush_interval: Duration::from_secs(3),
        }
    }
}

/// A handle to the access log; cheap to clone. Dropping the last writes what is left.
#[derive(Clone)]
pub struct AccessLog(Arc<Inner>);

struct Inner {
    format: LogFormat,
    sink: Sink,
    stamps: ThreadLocal<RefCell<Stamp>>,
}

impl AccessLog {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened or the thread not started.
    pub fn start(config: AccessLogConfig) -> io::Result<Self> {
        let sink = SinkConfig {
            wake_bytes: config.buffer_bytes,
            buffer_bytes: config.buffer_bytes.saturating_mul(4).max(MIN_QUEUE_BYTES),
            flush_interval: config.flush_interval,
        };
        Ok(Self(Arc::new(Inner {
            format: config.format,
            sink: Sink::start("access-log", config.target, sink)?,
            stamps: ThreadLocal::new(),
        })))
    }

    /// Writes the line of one exchange that ended at `now`. `names` are the parameters the route
    /// redacts (`RouteInfo::redacted_args`). Returns false where the line was dropped.
    pub fn record(&self, vars: &dyn VarSource, names: &[Box<str>], now: SystemTime) -> bool {
        let mut stamp = self.0.stamps.get_or_default().borrow_mut();
        stamp.set(now);
        let render = |line: &mut Vec<u8>| self.0.format.render(vars, names, &stamp, line);
        self.0.sink.line(render)
    }

    /// Writes a line that is ready: no line feed inside. Returns false where it was dropped.
    #[expect(
        clippy::must_use_candidate,
        reason = "a dropped line is counted already"
    )]
    pub fn write(&self, line: &[u8]) -> bool {
        self.0.sink.line(|buffer| buffer.extend_from_slice(line))
    }

    /// Whether the format shows response headers, which are kept only then.
    #[must_use]
    pub fn wants_response_headers(&self) -> bool {
        let is_header = |variable: &Variable| matches!(variable, Variable::ResponseHeader(_));
        self.0.format.variables().any(is_header)
    }

    /// Whether the format shows it, which may be measured only then.
    #[must_use]
    pub fn wants(&self, name: Name) -> bool {
        let mut variables = self.0.format.variables();
        variables.any(|variable| *variable == Variable::Known(name))
    }

    /// Lines dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.sink.dropped()
    }

    /// Opens the file anew (SIGUSR1).
    pub fn reopen(&self) {
        self.0.sink.reopen();
    }

    /// Waits until what was written so far has left, but no longer than `limit`; whether it has.
    #[must_use]
    pub fn flush(&self, limit: Duration) -> bool {
        self.0.sink.flush(limit)
    }
}

impl Collect for AccessLog {
    fn collect(&self, page: &mut Page) {
        for (name, help, value) in [
            (
                "claviger_access_log_dropped_total",
                "Access log lines that were not written.",
                self.0.sink.dropped(),
            ),
            (
                "claviger_access_log_failures_total",
                "Times the access log could not be written or reopened.",
                self.0.sink.failures(),
            ),
        ] {
            page.family(name, help, Kind::Counter);
            page.integer(&[], value);
        }
    }
}

/// What each thread may have waiting at least: a second's worth of lines while a disk stalls.
const MIN_QUEUE_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::telemetry::Escape;
    use crate::telemetry::metrics::Metrics;

    struct Echo;

    impl VarSource for Echo {
        fn var(&self, _variable: &Variable) -> Option<Cow<'_, str>> {
            Some(Cow::Borrowed("/a?key=s3cret"))
        }
    }

    #[test]
    fn a_line_is_written_redacted_and_counted_when_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let format = LogFormat::parse("$request_uri [$time_local]", Escape::Default);
        let config = AccessLogConfig::new(Target::File(path.clone()), format);
        let log = AccessLog::start(config).expect("starts");
        assert!(log.record(&Echo, &["key".into()], SystemTime::UNIX_EPOCH));
        assert!(log.flush(Duration::from_secs(5)));
        assert_eq!(
            std::fs::read_to_string(&path).expect("reads"),
            "/a?key=*** [01/Jan/1970:00:00:00 +0000]\n"
        );
        let metrics = Metrics::new("apisix_");
        metrics.register(Arc::new(log));
        let page = String::from_utf8(metrics.render()).expect("pages are text");
        assert!(
            page.contains("\nclaviger_access_log_dropped_total 0\n"),
            "{page}"
        );
    }
}
