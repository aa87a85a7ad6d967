//! Weighted round robin over a gcd-stepped weight threshold (`spec/00` §4.1): weights 3:1 give
//! A A A B, exact over every full cycle, also when many threads take turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Balancer;

/// A random start, so that instances do not all begin with the first node.
pub(super) fn start() -> AtomicUsize {
    AtomicUsize::new(usize::from(rand::random::<u16>()))
}

/// One cycle, cut into runs of the threshold in which the same nodes take part.
pub(super) struct RoundRobin {
    runs: Box<[Run]>,
    cycle: usize,
    position: Arc<AtomicUsize>,
}

struct Run {
    /// First turn of the run.
    start: usize,
    /// Nodes at or over the threshold, in declared order.
    nodes: Box<[usize]>,
}

impl RoundRobin {
    pub(super) fn build(weights: &[u32], position: Arc<AtomicUsize>) -> Self {
        let step = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1);
        let mut thresholds: Vec<u32> = weights
            .iter()
            .copied()
            .filter(|weight| *weight > 0)
            .collect();
        thresholds.sort_unstable();
        thresholds.dedup();
        let mut runs = Vec::with_capacity(thresholds.len());
        let mut cycle = 0;
        for (index, threshold) in thresholds.iter().enumerate().rev() {
            let below = index.checked_sub(1).map_or(0, |index| thresholds[index]);
            let nodes: Box<[usize]> = (0..weights.len())
                .filter(|node| weights[*node] >= *threshold)
                .collect();
            let levels = ((threshold - below) / step) as usize;
            let turns = levels * nodes.len();
            runs.push(Run {
                start: cycle,
                nodes,
            });
            cycle += turns;
        }
        Self {
            runs: runs.into(),
            cycle,
            position,
        }
    }

    fn turn(&self, turn: usize) -> Option<usize> {
        let run = self
            .runs
            .partition_point(|run| run.start <= turn)
            .checked_sub(1)?;
        let run = &self.runs[run];
        Some(run.nodes[(turn - run.start) % run.nodes.len()])
    }
}

impl Balancer for RoundRobin {
    fn next(&self) -> Option<usize> {
        match self.cycle {
            0 => None,
            1 => self.turn(0),
            cycle => self.turn(self.position.fetch_add(1, Ordering::Relaxed) % cycle),
        }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(weights: &[u32], turns: usize) -> Vec<Option<usize>> {
        let balancer = RoundRobin::build(weights, Arc::new(AtomicUsize::new(0)));
        (0..turns).map(|_| balancer.next()).collect()
    }

    #[test]
    fn heavier_nodes_come_first_and_more_often() {
        let a = Some(0);
        let b = Some(1);
        assert_eq!(order(&[3, 1], 8), [a, a, a, b, a, a, a, b]);
        assert_eq!(order(&[1, 1], 4), [a, b, a, b]);
        assert_eq!(
            order(&[4, 2], 3),
            [a, a, b],
            "weights are reduced by their gcd"
        );
    }

    #[test]
    fn weight_zero_is_never_picked() {
        assert_eq!(order(&[0, 5], 3), [Some(1); 3]);
        assert_eq!(order(&[0, 0], 2), [None; 2]);
        assert_eq!(order(&[], 1), [None]);
    }

    #[test]
    fn a_cycle_is_exact_under_concurrency() {
        let balancer = RoundRobin::build(&[5, 3, 2], Arc::new(AtomicUsize::new(17)));
        let counts: Vec<AtomicUsize> = (0..3).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..250 {
                        let node = balancer.next().expect("nodes have weight");
                        counts[node].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let counts: Vec<usize> = counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        assert_eq!(counts, [500, 300, 200]);
    }
}
