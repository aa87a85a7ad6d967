//! Work that takes a core for long, on all of them: ten thousand certificates are parsed so. Results
//! come in the order of what they were made of, however many threads there are.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::wipe;

/// `each` of the items, in their order. Few items are done here; of many, others do a share, on
/// threads that wipe what they free where this one does.
pub(super) fn map<T: Sync, R: Send>(items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    map_on(cores.min(MOST_THREADS), items, each)
}

fn map_on<T: Sync, R: Send>(threads: usize, items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = threads.min(items.len() / WORTH_A_THREAD);
    if threads < 2 {
        return items.iter().map(each).collect();
    }
    let next = AtomicUsize::new(0);
    let share = || {
        let mut done = Vec::with_capacity(items.len() / threads);
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            match items.get(place) {
                Some(item) => done.push((place, each(item))),
                None => return done,
            }
        }
    };
    let wiping = wipe::is_on_this_thread();
    let mut done = thread::scope(|scope| {
        let helper = || {
            let builder = thread::Builder::new().name("compile".to_owned());
            // Where none can be had, the others do its share.
            let helper = builder.spawn_scoped(scope, || {
                if wiping {
                    wipe::on_this_thread();
                }
                share()
            });
            helper.ok()
        };
        let helpers: Vec<_> = (1..threads).filter_map(|_| helper()).collect();
        let mut done = share();
        for helper in helpers {
            done.extend(helper.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

/// So many items make up for starting a thread.
const WORTH_A_THREAD: usize = 8;
/// Loading leaves the other cores to traffic.
const MOST_THREADS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stand_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..1000).collect();
        let doubled: Vec<usize> = items.iter().map(|item| item * 2).collect();
        for threads in [1, 3] {
            assert_eq!(map_on(threads, &items, |item| item * 2), doubled);
        }
        assert_eq!(map(&items[..3], |item| item * 2), doubled[..3]);
        assert!(map(&[], |item: &usize| *item).is_empty());
    }

    #[test]
    fn many_items_are_shared_and_helpers_wipe_where_their_caller_does() {
        let caller = thread::spawn(|| {
            wipe::on_this_thread();
            let barrier = std::sync::Barrier::new(2);
            let items = vec![(); 2 * WORTH_A_THREAD];
            let first = AtomicUsize::new(0);
            map_on(2, &items, |()| {
                // The first two items meet, so two threads have them.
                if first.fetch_add(1, Ordering::Relaxed) < 2 {
                    barrier.wait();
                }
                (thread::current().id(), wipe::is_on_this_thread())
            })
        });
        let seen = caller.join().expect("no panic");
        let threads: std::collections::HashSet<_> = seen.iter().map(|(id, _)| *id).collect();
        assert_eq!(threads.len(), 2);
        assert!(seen.iter().all(|(_, wipes)| *wipes));
    }
}
