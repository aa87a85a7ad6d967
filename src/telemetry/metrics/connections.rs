//! Connections and requests in flight, as nginx's stub status counts them (`spec/05` §1).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::page::{Collect, Kind, Page};

/// Counters the listeners and the proxy keep. Share it in an `Arc`.
#[derive(Debug, Default)]
pub struct Connections {
    accepted: AtomicU64,
    handled: AtomicU64,
    active: AtomicI64,
    requests: AtomicU64,
    in_flight: AtomicI64,
}

impl Connections {
    /// Counts an accepted connection, also one that is refused at once.
    pub fn accept(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    /// Counts a connection that is served. It is open until the guard is dropped.
    #[must_use]
    pub fn open(self: &Arc<Self>) -> OpenConnection {
        self.handled.fetch_add(1, Relaxed);
        self.active.fetch_add(1, Relaxed);
        OpenConnection(Arc::clone(self))
    }

    /// Counts a request. It is in flight until the guard is dropped; keep it in the request's
    /// context, which is dropped also where Pingora skips `logging`.
    #[must_use]
    pub fn begin_request(self: &Arc<Self>) -> OpenRequest {
        self.requests.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        OpenRequest(Arc::clone(self))
    }

    /// Connections open now.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.active.load(Relaxed).max(0).unsigned_abs()
    }

    /// Requests in flight now; a drain waits for zero.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed).max(0).unsigned_abs()
    }
}

impl Collect for Connections {
    fn collect(&self, page: &mut Page) {
        let (active, writing) = (self.active(), self.in_flight());
        page.apisix_family(
            "nginx_http_current_connections",
            "Number of HTTP connections.",
            Kind::Gauge,
        );
        for (state, value) in [
            ("accepted", self.accepted.load(Relaxed)),
            ("active", active),
            ("handled", self.handled.load(Relaxed)),
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

/// An open connection; dropping it counts it as closed.
#[derive(Debug)]
pub struct OpenConnection(Arc<Connections>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
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
        connections.accept();
        let open = connections.open();
        let request = connections.begin_request();
        assert_eq!((connections.active(), connections.in_flight()), (1, 1));
        drop((open, request));
        assert_eq!((connections.active(), connections.in_flight()), (0, 0));
        let mut page = Page::new("apisix_", 0);
        connections.collect(&mut page);
        let text = String::from_utf8(page.into_text()).expect("pages are text");
        assert!(text.contains("apisix_http_requests_total 1\n"), "{text}");
        assert!(text.contains("{state=\"handled\"} 1\n"), "{text}");
    }
}
