//! The process's log: what the `log` macros say, one line each, as text or JSON, without anyone
//! waiting for the disk. Never receives a secret: callers name references, not values.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};

use super::escape::json_inside;
use super::metrics::{Collect, Kind, Page};
use super::redact::MASK;
use super::sink::{Sink, SinkConfig, Target};
use crate::clock::Clock;

/// Shape of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// `2026-08-01T12:14:56.007Z WARN claviger::reload: text key=value`.
    #[default]
    Text,
    /// `{"time":…,"level":…,"target":…,"message":…,…}`.
    Json,
}

/// Where, what and how the log is written.
pub struct LoggerConfig {
    /// `nginx_config.error_log`.
    pub target: Target,
    /// `nginx_config.error_log_level`; see [`parse_level`].
    pub level: LevelFilter,
    /// Text or JSON.
    pub shape: Shape,
    /// Other levels for targets and what is below them (`pingora_core`); the longest wins.
    /// Libraries never say more than `info`: their `debug` prints request heads.
    pub levels: Vec<(String, LevelFilter)>,
}

impl LoggerConfig {
    /// Text lines; libraries say warnings, or with `debug` what is below them too.
    #[must_use]
    pub fn new(target: Target, level: LevelFilter) -> Self {
        let libraries = if level >= LevelFilter::Debug {
            LOUDEST_LIBRARY
        } else {
            level.min(LevelFilter::Warn)
        };
        Self {
            target,
            level: libraries,
            shape: Shape::Text,
            levels: vec![(OURS.to_owned(), level)],
        }
    }
}

/// Reads nginx's word for a level. `notice` is our `info`, `crit` and above our `error`.
#[must_use]
pub fn parse_level(word: &str) -> Option<LevelFilter> {
    match word {
        "debug" => Some(LevelFilter::Debug),
        "info" | "notice" => Some(LevelFilter::Info),
        "warn" => Some(LevelFilter::Warn),
        "error" | "crit" | "alert" | "emerg" => Some(LevelFilter::Error),
        _ => None,
    }
}

/// A handle to the log; cheap to clone.
#[derive(Clone)]
pub struct Logger(Arc<Inner>);

struct Inner {
    sink: Sink,
    shape: Shape,
    level: LevelFilter,
    /// Longest target first.
    levels: Vec<(String, LevelFilter)>,
    clock: Arc<dyn Clock>,
}

impl Logger {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened or the thread not started.
    pub fn start(config: LoggerConfig, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let mut levels = config.levels;
        levels.sort_by_key(|(target, _)| std::cmp::Reverse(target.len()));
        Ok(Self(Arc::new(Inner {
            sink: Sink::start("log", config.target, BOUNDS)?,
            shape: config.shape,
            level: config.level,
            levels,
            clock,
        })))
    }

    /// Makes this the process's log. The one call stands in `cli`.
    ///
    /// # Errors
    /// There is one already.
    pub fn install(&self) -> Result<(), SetLoggerError> {
        log::set_boxed_logger(Box::new(self.clone()))?;
        log::set_max_level(self.most_talkative());
        Ok(())
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
    pub fn flush_within(&self, limit: Duration) -> bool {
        self.0.sink.flush(limit)
    }

    fn most_talkative(&self) -> LevelFilter {
        let levels = self.0.levels.iter().map(|(_, level)| *level);
        levels.fold(self.0.level, Ord::max)
    }
}

impl Inner {
    fn level_of(&self, target: &str) -> LevelFilter {
        let below = |name: &str| {
            let rest = target.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let found = self.levels.iter().find(|(name, _)| below(name));
        let level = found.map_or(self.level, |(_, level)| *level);
        if is_ours(target) {
            level
        } else if target.starts_with(MUTE) {
            LevelFilter::Off
        } else {
            level.min(LOUDEST_LIBRARY)
        }
    }

    fn write(&self, record: &Record<'_>) {
        // Formatted outside the sink: an argument's `Display` may itself log.
        let mut message = record.args().to_string();
        let mut level = record.level();
        if is_noise(record, &message) {
            level = Level::Debug;
            if level > self.level_of(OURS) {
                return;
            }
        }
        if !is_ours(record.target()) {
            message = without_requests(message);
        }
        let mut line = String::with_capacity(message.len() + 128);
        let time = timestamp(self.clock.wall());
        match self.shape {
            Shape::Text => write_text(&mut line, &time, level, record, &message),
            Shape::Json => write_json(&mut line, &time, level, record, &message),
        }
        self.sink.line(|out| out.extend_from_slice(line.as_bytes()));
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.0.level_of(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.write(record);
        }
    }

    fn flush(&self) {
        // Whether it sufficed makes no difference to a caller that gives no limit.
        let _ = self.flush_within(Duration::from_secs(1));
    }
}

impl Collect for Logger {
    fn collect(&self, page: &mut Page) {
        let help = "Log lines that were not written.";
        page.family("claviger_log_dropped_total", help, Kind::Counter);
        page.integer(&[], self.dropped());
    }
}

/// Whether it is what a client can cause at will and an operator cannot mend; that is said at
/// `debug` only. Pingora calls a port scan an error; our own counters say how many there are.
fn is_noise(record: &Record<'_>, message: &str) -> bool {
    let is =
        |(target, start): &(&str, &str)| record.target() == *target && message.starts_with(start);
    NOISE.iter().any(is)
}

fn is_ours(target: &str) -> bool {
    let rest = target.strip_prefix(OURS);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// A library's message without the parts of requests that may hold credentials: queries (of any
/// name: a library knows no route), and the raw heads Pingora quotes when it cannot parse them.
fn without_requests(message: String) -> String {
    let quoted = QUOTES
        .iter()
        .filter_map(|start| message.find(start).map(|at| at + start.len()));
    let end = quoted.min().unwrap_or(message.len());
    if end == message.len() && !message.contains('?') {
        return message;
    }
    let mut kept = String::with_capacity(end + MASK.len());
    let mut rest = &message[..end];
    while let Some(at) = rest.find('?') {
        let query = &rest[at + 1..];
        let length = query.find(char::is_whitespace).unwrap_or(query.len());
        kept.push_str(&rest[..=at]);
        if length > 0 {
            kept.push_str(MASK);
        }
        rest = &query[length..];
    }
    kept.push_str(rest);
    if end < message.len() {
        kept.push_str(MASK);
    }
    kept
}

fn write_text(line: &mut String, time: &str, level: Level, record: &Record<'_>, message: &str) {
    let target = record.target();
    // Writing into a string cannot fail.
    let _ = write!(line, "{time} {level} {target}: ");
    push_visible(line, message);
    let mut fields = Fields(|key: &str, value: &str| {
        let _ = write!(line, " {key}=");
        let plain = |c: char| c.is_alphanumeric() || "-_./:$@#%".contains(c);
        if !value.is_empty() && value.chars().all(plain) {
            line.push_str(value);
        } else {
            line.push('"');
            push_visible(line, &value.replace('\\', "\\\\").replace('"', "\\\""));
            line.push('"');
        }
    });
    let _ = record.key_values().visit(&mut fields);
}

fn write_json(line: &mut String, time: &str, level: Level, record: &Record<'_>, message: &str) {
    line.push('{');
    push_field(line, "time", time);
    push_field(line, "level", level.as_str());
    push_field(line, "target", record.target());
    push_field(line, "message", message);
    let mut fields = Fields(|key: &str, value: &str| match key {
        "time" | "level" | "target" | "message" => push_field(line, &format!("field_{key}"), value),
        _ => push_field(line, key, value),
    });
    // The visitor never stops early.
    let _ = record.key_values().visit(&mut fields);
    line.push('}');
}

fn push_field(line: &mut String, key: &str, value: &str) {
    if line.len() > 1 {
        line.push(',');
    }
    line.push('"');
    line.push_str(&json_inside(key));
    line.push_str("\":\"");
    line.push_str(&json_inside(value));
    line.push('"');
}

/// Appends text with control characters escaped, so that it stays on its line and on its
/// terminal. Tabs stay.
fn push_visible(line: &mut String, text: &str) {
    for c in text.chars() {
        if (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

pub(super) fn timestamp(now: SystemTime) -> String {
    let at = time::OffsetDateTime::from(now);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second, micro) = at.to_hms_micro();
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z")
}

/// Hands each structured field to a closure as text.
struct Fields<F>(F);

impl<'kvs, F: FnMut(&str, &str)> VisitSource<'kvs> for Fields<F> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        (self.0)(key.as_str(), &value.to_string());
        Ok(())
    }
}

/// AWS's SDK. It puts answers it does not understand into warnings as they came, credentials and
/// all; what failed is said by `secrets`.
const MUTE: &str = "aws_";
/// Our own targets start with it.
const OURS: &str = "claviger";

/// Libraries say no more than this, whatever is configured: below it Pingora prints whole request
/// heads and `rustify` whole answers of a secret manager.
const LOUDEST_LIBRARY: LevelFilter = LevelFilter::Info;

/// What Pingora puts before bytes a client sent.
const QUOTES: &[&str] = &["buf: "];

/// Target and start of message.
const NOISE: &[(&str, &str)] = &[
    ("pingora_core::services::listening", "Downstream handshake"),
    ("pingora_core::apps", "H2 handshake error"),
    ("pingora_core::apps::http_app", "HTTP server fails to"),
];

/// Each line wakes the writer; a thread may have 1 MiB waiting.
const BOUNDS: SinkConfig = SinkConfig {
    wake_bytes: 0,
    buffer_bytes: 1 << 20,
    flush_interval: Duration::from_secs(1),
};

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::clock::SystemClock;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            lines.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(shape: Shape, level: LevelFilter, write: impl Fn(&Logger)) -> String {
        let lines = Lines::default();
        let mut config = LoggerConfig::new(Target::Writer(Box::new(lines.clone())), level);
        config.shape = shape;
        let logger = Logger::start(config, Arc::new(SystemClock)).expect("starts");
        write(&logger);
        assert!(logger.flush_within(Duration::from_secs(5)));
        let lines = lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(lines.clone()).expect("lines are text")
    }

    fn say(logger: &Logger, level: Level, target: &str, message: &str) {
        let mut record = Record::builder();
        record.level(level).target(target);
        logger.log(&record.args(format_args!("{message}")).build());
    }

    #[test]
    fn a_message_cannot_forge_a_line() {
        let nasty = "x\n2026-01-01T00:00:00Z ERROR claviger: forged\r\u{1b}[2J\u{2028}\"é";
        for shape in [Shape::Text, Shape::Json] {
            let text = lines(shape, LevelFilter::Info, |logger| {
                let pairs = [("route", "a b\n\"")];
                let mut record = Record::builder();
                record
                    .level(Level::Warn)
                    .target("claviger::t")
                    .key_values(&pairs);
                logger.log(&record.args(format_args!("{nasty}")).build());
            });
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(!text.trim_end().contains(char::is_control), "{text:?}");
            if shape == Shape::Json {
                let json: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
                assert_eq!(json["message"], nasty);
                assert_eq!(json["route"], "a b\n\"");
                assert_eq!(json["level"], "WARN");
            } else {
                assert!(text.contains("Z WARN claviger::t: x\\n2026"), "{text:?}");
                assert!(text.ends_with("é route=\"a b\\n\\\"\"\n"), "{text:?}");
            }
        }
    }

    #[test]
    fn levels_are_by_target_and_noise_is_no_error() {
        let say_all = |logger: &Logger| {
            say(logger, Level::Info, "claviger::reload", "1");
            say(logger, Level::Debug, "claviger::reload", "2");
            say(logger, Level::Info, "pingora_core::server", "3");
            say(logger, Level::Warn, "clavigerish", "4");
            let listening = "pingora_core::services::listening";
            say(
                logger,
                Level::Error,
                listening,
                "Downstream handshake error: 5",
            );
            say(logger, Level::Error, listening, "Accept() failed 6");
            say(
                logger,
                Level::Debug,
                "pingora_proxy::proxy_h2",
                "Request to h2: 7",
            );
        };
        let numbers = |text: &str| -> String {
            let last = |line: &str| line.chars().last();
            text.lines().filter_map(last).collect()
        };
        assert_eq!(
            numbers(&lines(Shape::Text, LevelFilter::Info, say_all)),
            "146"
        );
        assert_eq!(
            numbers(&lines(Shape::Text, LevelFilter::Debug, say_all)),
            "123456"
        );
    }

    #[test]
    fn a_librarys_message_shows_no_part_of_a_request_that_may_hold_a_credential() {
        for (message, expected) in [
            ("all is well", "all is well"),
            ("really? yes", "really? yes"),
            ("GET /a?mykey=s3,cret&b=1, Host: h", "GET /a?*** Host: h"),
            ("/?a /b?c", "/?*** /b?***"),
            (
                "bad head buf: GET /?a\\r\\nAuthorization: s3cret",
                "bad head buf: ***",
            ),
        ] {
            assert_eq!(without_requests(message.to_owned()), expected);
        }
    }

    #[test]
    fn nginx_words_for_levels_are_understood() {
        assert_eq!(parse_level("notice"), Some(LevelFilter::Info));
        assert_eq!(parse_level("crit"), Some(LevelFilter::Error));
        assert_eq!(parse_level("loud"), None);
    }
}
