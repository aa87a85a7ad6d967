//! How long a client may take for a request head, in all. Pingora bounds each read, so a client
//! that drips a byte now and then would keep its connection for ever (Pingora issue #447).
//!
//! For HTTP/1 a whole connection is one future, so the deadline can stand around it and the proxy
//! tells it, through a task-local, when a head has arrived and when a request is over. HTTP/2
//! streams run in tasks of their own and cannot; `h2_idle_timeout` bounds those connections.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use pingora_timeout::fast_timeout::fast_sleep;

/// Bounds for request heads of one HTTP/1 connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeaderDeadline {
    /// For the first head, from the moment the connection is ready. Zero: no bound.
    pub first: Duration,
    /// For each later head, from its first byte; until that comes the connection idles, which
    /// Pingora bounds (`set_keepalive`). Zero: no bound.
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
    // Tokio's own timers would wake its driver with a system call for nearly each connection.
    bounded_by(fast_sleep, deadline, connection).await
}

/// [`bounded`] by timers of this kind.
async fn bounded_by<T, S: Future<Output = ()>>(
    sleep: impl Fn(Duration) -> S,
    deadline: HeaderDeadline,
    connection: impl Future<Output = T>,
) -> Option<T> {
    // Even: waiting for a head; odd: serving. Grows by two with each request. Only this task
    // touches it, so nothing needs ordering.
    let state = Arc::new(AtomicU32::new(0));
    let mut connection = pin!(STATE.scope(state.clone(), connection));
    let mut timer = pin!(sleep(deadline.first));
    let mut seen = 0;
    // Whether the timer runs for the head that is awaited now.
    let mut armed = !deadline.first.is_zero();
    let mut fired = !armed;
    poll_fn(|task| {
        if let Poll::Ready(outcome) = connection.as_mut().poll(task) {
            return Poll::Ready(Some(outcome));
        }
        let now = state.load(Ordering::Relaxed);
        let rings = !fired && timer.as_mut().poll(task).is_ready();
        fired |= rings;
        if now != seen {
            seen = now;
            armed = false;
        } else if armed && rings {
            return Poll::Ready(None);
        } else if !armed && !rings && now & SERVING == 0 && !deadline.later.is_zero() {
            // Woken, not by the timer, and still no whole head: its first bytes have come.
            timer.set(sleep(deadline.later));
            armed = true;
            fired = timer.as_mut().poll(task).is_ready();
        }
        Poll::Pending
    })
    .await
}

tokio::task_local! {
    static STATE: Arc<AtomicU32>;
}

const SERVING: u32 = 1;

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
            let outcome = bounded_by(sleep, DEADLINE, connection).await;
            (start.elapsed().as_secs(), outcome.is_some())
        })
    }

    #[test]
    fn a_first_head_that_never_comes_ends_the_connection() {
        let never = async { sleep(Duration::from_secs(1000)).await };
        assert_eq!(run(never), (10, false));
    }

    #[test]
    fn a_later_head_is_bounded_from_its_first_byte() {
        let (seconds, ended) = run(async {
            header_seen();
            sleep(Duration::from_secs(25)).await;
            request_done();
            sleep(Duration::from_secs(300)).await;
            // Each wait ends with a byte that does not complete the head.
            loop {
                sleep(Duration::from_secs(3)).await;
            }
        });
        assert!(!ended);
        assert_eq!(seconds, 25 + 300 + 40);
    }

    #[test]
    fn a_head_that_stops_midway_is_bounded_too() {
        let (seconds, ended) = run(async {
            for _ in 0..2 {
                header_seen();
                request_done();
                sleep(Duration::from_secs(1)).await;
            }
            sleep(Duration::from_secs(1)).await;
            sleep(Duration::from_secs(1000)).await;
        });
        assert!(!ended);
        assert_eq!(seconds, 1 + 1 + 40);
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
