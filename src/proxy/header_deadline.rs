//! How long a client may take for a request head, in all. Pingora bounds each read, so a client
//! that drips a byte now and then would keep its connection for ever (Pingora issue #447).
//!
//! For HTTP/1 a whole connection is one future, so the deadline can stand around it and the proxy
//! tells it, through a task-local, when a head has arrived and when a request is over. HTTP/2
//! streams run in tasks of their own and cannot; `h2_idle_timeout` bounds those connections.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Bounds for request heads of one HTTP/1 connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeaderDeadline {
    /// For the first head, from the moment the connection is ready. Zero: no bound.
    pub first: Duration,
    /// For each later head, from the end of the request before, so it includes the time a
    /// connection may idle. Kept to within a quarter more. Zero: no bound.
    pub later: Duration,
}

/// Tells the connection that a request head has arrived. Call it in `early_request_filter`;
/// elsewhere (HTTP/2, tests) it does nothing.
pub fn header_seen() {
    let seen = |state: &Arc<AtomicU32>| {
        state.store(state.load(Ordering::Relaxed) | SERVING, Ordering::Relaxed);
    };
    // There is none outside of an HTTP/1 connection.
    STATE.try_with(seen).ok();
}

/// Tells the connection that a request is over and the next head may come. Call it in `logging`.
pub fn request_done() {
    let done = |state: &Arc<AtomicU32>| {
        let next = (state.load(Ordering::Relaxed) | SERVING).wrapping_add(1);
        state.store(next, Ordering::Relaxed);
    };
    STATE.try_with(done).ok();
}

/// Lifts the deadline from this connection for good (it turned out to speak HTTP/2).
pub(super) fn lift() {
    header_seen();
}

/// Runs a connection; `None` when a head took too long, which drops the future and closes it.
pub(super) async fn bounded<T>(
    deadline: HeaderDeadline,
    connection: impl Future<Output = T>,
) -> Option<T> {
    // Even: waiting for a head; odd: serving. Grows by two with each request. Only this task
    // touches it, so nothing needs ordering.
    let state = Arc::new(AtomicU32::new(0));
    let connection = STATE.scope(state.clone(), connection);
    tokio::select! {
        biased;
        outcome = connection => Some(outcome),
        () = expired(deadline, &state) => None,
    }
}

async fn expired(deadline: HeaderDeadline, state: &AtomicU32) {
    if !deadline.first.is_zero() {
        tokio::time::sleep(deadline.first).await;
        if state.load(Ordering::Relaxed) == 0 {
            return;
        }
    }
    if deadline.later.is_zero() {
        return std::future::pending().await;
    }
    // Looking now and then costs a request nothing, where a timer of its own would.
    let mut seen = state.load(Ordering::Relaxed);
    let mut looks = 0;
    loop {
        tokio::time::sleep(deadline.later / LOOKS).await;
        let now = state.load(Ordering::Relaxed);
        looks = if now == seen { looks + 1 } else { 0 };
        seen = now;
        if looks >= LOOKS && seen & SERVING == 0 {
            return;
        }
    }
}

tokio::task_local! {
    static STATE: Arc<AtomicU32>;
}

const SERVING: u32 = 1;
const LOOKS: u32 = 4;

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    const DEADLINE: HeaderDeadline = HeaderDeadline {
        first: Duration::from_secs(10),
        later: Duration::from_secs(40),
    };

    /// How many seconds a connection lives, and whether it ended by itself.
    fn run(connection: impl Future<Output = ()>) -> (u64, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let start = Instant::now();
            let outcome = bounded(DEADLINE, connection).await;
            (start.elapsed().as_secs(), outcome.is_some())
        })
    }

    #[test]
    fn a_first_head_that_never_comes_ends_the_connection() {
        let never = async { sleep(Duration::from_secs(1000)).await };
        assert_eq!(run(never), (10, false));
    }

    #[test]
    fn a_later_head_that_never_comes_ends_the_connection() {
        let (seconds, ended) = run(async {
            header_seen();
            sleep(Duration::from_secs(25)).await;
            request_done();
            sleep(Duration::from_secs(1000)).await;
        });
        assert!(!ended);
        assert!((65..=75).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_long_request_and_prompt_ones_are_left_alone() {
        let long = run(async {
            header_seen();
            sleep(Duration::from_secs(1000)).await;
        });
        assert_eq!(long, (1000, true));
        let many = run(async {
            for _ in 0..100 {
                header_seen();
                sleep(Duration::from_secs(1)).await;
                request_done();
                sleep(Duration::from_secs(30)).await;
            }
        });
        assert_eq!(many, (3100, true));
    }

    #[test]
    fn outside_of_a_connection_nothing_happens() {
        header_seen();
        request_done();
    }
}
