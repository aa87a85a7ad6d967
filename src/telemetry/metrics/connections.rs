//! Connections and requests in flight, as nginx's stub status counts them (`spec/05` §1).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::page::{Collect, Kind, Page};

/// How many connections there are and were. Counters only grow.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    /// Open now, those in a TLS handshake included.
    pub active: AtomicUsize,
    /// Accepted since start.
    pub accepted: AtomicU64,
    /// Of these, the ones not refused for the limit.
    pub handled: AtomicU64,
    /// Closed because a request head took too long.
    pub header_timeouts: AtomicU64,
}

/// Counters the listeners and the proxy keep. Share it in an `Arc`.
#[derive(Debug, Default)]
pub struct Connections {
    /// Connections.
    pub counts: ConnectionCounts,
    requests: AtomicU64,
    in_flight: AtomicI64,
}

impl Connections {
    /// Counts a request. It is in flight until the guard is dropped; keep it in the request's
    /// context, which is dropped also where Pingora skips `logging`.
    #[must_use]
    pub fn begin_request(self: &Arc<Self>) -> OpenRequest {
        self.requests.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        OpenRequest(Arc::clone(self))
    }

    /// Requests in flight now; a drain waits for zero.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed).max(0).unsigned_abs()
    }
}

impl Collect for Connections {
    fn collect(&self, page: &mut Page) {
        let active = self.counts.active.load(Relaxed) as u64;
        let writing = self.in_flight();
        page.apisix_family(
            "nginx_http_current_connections",
            "Number of HTTP connections.",
            Kind::Gauge,
        );
        for (state, value) in [
            ("accepted", self.counts.accepted.load(Relaxed)),
            ("active", active),
            ("handled", self.counts.handled.load(Relaxed)),
            ("reading", 0),
            // HTTP/2 may have more requests than connections.
            ("waiting", active.saturating_sub(writing)),
            ("writing", writing),
        ] {
            page.raw_integer("", &format!("state=\"{state}\""), "", value);
        }
        page.apisix_family(
            "http_requests_total",
            "The total number of client requests since the gateway started.",
            Kind::Gauge,
        );
        page.raw_integer("", "", "", self.requests.load(Relaxed));
    }
}

/// A request in flight; dropping it counts it as over.
#[derive(Debug)]
pub struct OpenRequest(Arc<Connections>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_counts_down_when_it_is_dropped() {
        let connections = Arc::new(Connections::default());
        connections.counts.accepted.fetch_add(1, Relaxed);
        connections.counts.handled.fetch_add(1, Relaxed);
        let request = connections.begin_request();
        assert_eq!(connections.in_flight(), 1);
        drop(request);
        assert_eq!(connections.in_flight(), 0);
        let mut page = Page::new("apisix_", 0);
        connections.collect(&mut page);
        let text = String::from_utf8(page.into_text()).expect("pages are text");
        assert!(text.contains("apisix_http_requests_total 1\n"), "{text}");
        assert!(text.contains("{state=\"handled\"} 1\n"), "{text}");
    }
}
