//! TLS handshakes of clients: how many, how they ended, how long they took.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::page::{Collect, Kind, Page};
use super::series::{Bounds, Histogram};

/// Label `reason` of `claviger_tls_handshake_failures_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// Not over in time.
    Timeout,
    /// The address had as many in flight as it may have.
    PerAddress,
    /// The client spoke plain HTTP.
    PlainHttp,
    /// The client went away.
    Closed,
    /// The name, or its lack, got an alert before any certificate was chosen.
    Refused,
    /// The client's certificate is missing, or is none that the name accepts.
    ClientCertificate,
    /// Client and name have no protocol version, cipher, group or signature algorithm in common.
    NothingInCommon,
    /// The client sent an alert: mostly, that it does not trust the certificate.
    ClientAlert,
    /// What came is no TLS, or OpenSSL refused it for another reason.
    Protocol,
}

impl HandshakeFailure {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Timeout,
        Self::PerAddress,
        Self::PlainHttp,
        Self::Closed,
        Self::Refused,
        Self::ClientCertificate,
        Self::NothingInCommon,
        Self::ClientAlert,
        Self::Protocol,
    ];

    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::PerAddress => "per_address",
            Self::PlainHttp => "plain_http",
            Self::Closed => "closed",
            Self::Refused => "refused",
            Self::ClientCertificate => "client_certificate",
            Self::NothingInCommon => "nothing_in_common",
            Self::ClientAlert => "client_alert",
            Self::Protocol => "protocol",
        }
    }
}

/// Counts handshakes of the TLS listeners. Share it in an `Arc`.
pub struct HandshakeCounts {
    in_flight: AtomicUsize,
    full: AtomicU64,
    resumed: AtomicU64,
    failed: [AtomicU64; HandshakeFailure::ALL.len()],
    bounds: Bounds,
    took: Histogram,
}

/// A connection on its way through a handshake, counted out when dropped.
#[derive(Debug)]
pub struct OpenHandshake<'c>(&'c AtomicUsize);

impl HandshakeCounts {
    /// A connection begins. Keep the guard until its handshake is over, however it ends.
    #[must_use]
    pub fn begin(&self) -> OpenHandshake<'_> {
        self.in_flight.fetch_add(1, Relaxed);
        OpenHandshake(&self.in_flight)
    }

    /// A handshake is complete, `took` after the client's first byte.
    pub fn complete(&self, resumed: bool, took: Duration) {
        let counter = if resumed { &self.resumed } else { &self.full };
        counter.fetch_add(1, Relaxed);
        self.took.observe(&self.bounds, took);
    }

    /// A connection on a TLS listener ended without one.
    pub fn fail(&self, failure: HandshakeFailure) {
        self.failed[failure as usize].fetch_add(1, Relaxed);
    }

    /// How many ended so.
    #[must_use]
    pub fn failed(&self, failure: HandshakeFailure) -> u64 {
        self.failed[failure as usize].load(Relaxed)
    }

    /// How many are under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }
}

impl Default for HandshakeCounts {
    fn default() -> Self {
        let bounds = Bounds::seconds(&SECONDS);
        Self {
            in_flight: AtomicUsize::default(),
            full: AtomicU64::default(),
            resumed: AtomicU64::default(),
            failed: Default::default(),
            took: Histogram::new(&bounds),
            bounds,
        }
    }
}

impl Collect for HandshakeCounts {
    fn collect(&self, page: &mut Page) {
        let failures = HandshakeFailure::ALL.map(|failure| (failure.label(), self.failed(failure)));
        page.family(
            "claviger_tls_handshakes_total",
            "Connections of TLS listeners, by how their handshake ended.",
            Kind::Counter,
        );
        for (result, count) in [
            ("full", self.full.load(Relaxed)),
            ("resumed", self.resumed.load(Relaxed)),
            ("failed", failures.iter().map(|(_, count)| count).sum()),
        ] {
            page.integer(&[("result", result)], count);
        }
        page.family(
            "claviger_tls_handshake_failures_total",
            "Connections of TLS listeners without a complete handshake, by reason.",
            Kind::Counter,
        );
        for (reason, count) in failures {
            page.integer(&[("reason", reason)], count);
        }
        page.family(
            "claviger_tls_handshakes_in_flight",
            "Connections of TLS listeners whose handshake is not over.",
            Kind::Gauge,
        );
        page.integer(&[], self.in_flight() as u64);
        page.family(
            "claviger_tls_handshake_duration_seconds",
            "Time of complete handshakes, from the client's first byte.",
            Kind::Histogram,
        );
        let (counts, milliseconds) = self.took.read();
        for (label, count) in self.bounds.labels.iter().zip(&counts) {
            page.raw_integer("_bucket", "", label, *count);
        }
        page.raw("_sum", "", "", milliseconds / 1000.0);
        page.raw_integer("_count", "", "", counts.last().copied().unwrap_or_default());
    }
}

impl Drop for OpenHandshake<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Upper bounds of `claviger_tls_handshake_duration_seconds`.
const SECONDS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_counted_by_how_they_end() {
        let counts = HandshakeCounts::default();
        let open = counts.begin();
        assert_eq!(counts.in_flight(), 1);
        drop(open);
        counts.complete(false, Duration::from_millis(3));
        counts.complete(true, Duration::from_secs(7));
        counts.fail(HandshakeFailure::Timeout);
        counts.fail(HandshakeFailure::Protocol);
        counts.fail(HandshakeFailure::Protocol);
        let mut page = Page::new("apisix_", 0);
        counts.collect(&mut page);
        let text = String::from_utf8(page.into_text()).expect("pages are text");
        for line in [
            "claviger_tls_handshakes_total{result=\"full\"} 1",
            "claviger_tls_handshakes_total{result=\"resumed\"} 1",
            "claviger_tls_handshakes_total{result=\"failed\"} 3",
            "claviger_tls_handshake_failures_total{reason=\"timeout\"} 1",
            "claviger_tls_handshake_failures_total{reason=\"protocol\"} 2",
            "claviger_tls_handshake_failures_total{reason=\"closed\"} 0",
            "claviger_tls_handshakes_in_flight 0",
            "claviger_tls_handshake_duration_seconds_bucket{le=\"0.001\"} 0",
            "claviger_tls_handshake_duration_seconds_bucket{le=\"0.005\"} 1",
            "claviger_tls_handshake_duration_seconds_bucket{le=\"+Inf\"} 2",
            "claviger_tls_handshake_duration_seconds_sum 7.003",
            "claviger_tls_handshake_duration_seconds_count 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
