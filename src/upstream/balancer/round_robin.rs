//! `roundrobin`: weighted round robin over a threshold that steps down by the weights' greatest
//! common divisor (`spec/00` §4.1): weights 3 and 1 give A A A B. Exact over every full cycle,
//! also under concurrency: one atomic counter, and the cycle is a function of its value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Balancer, BalancerDef, BalancerParts, PickCtx};

pub(super) const DEF: BalancerDef = BalancerDef {
    name: "roundrobin",
    build: |parts| Box::new(RoundRobin::build(parts)),
};

/// Position in the cycle; survives reloads that leave the nodes as they are.
struct Position(AtomicU64);

struct RoundRobin {
    bands: Box<[Band]>,
    /// Picks in a full cycle; 0 where no node has a weight.
    cycle: u64,
    position: Arc<Position>,
}

/// A part of the cycle in which the threshold admits the same nodes.
struct Band {
    /// First position.
    start: u64,
    /// Nodes whose weight reaches the threshold, in order.
    nodes: Box<[u32]>,
}

impl RoundRobin {
    fn build(parts: &BalancerParts<'_>) -> Self {
        let (bands, cycle) = bands(parts.weights);
        let key = format!("{}/round-robin", parts.key);
        // A random start keeps many gateways from hitting the first node together.
        let start = || Position(AtomicU64::new(rand::random_range(0..cycle.max(1))));
        Self {
            bands,
            cycle,
            position: parts.kept.entry(&key, start),
        }
    }

    fn at(&self, position: u64) -> usize {
        let position = position % self.cycle;
        let after = self.bands.partition_point(|band| band.start <= position);
        let band = &self.bands[after - 1];
        let offset = (position - band.start) % band.nodes.len() as u64;
        let offset = usize::try_from(offset).expect("it is below the number of nodes");
        band.nodes[offset] as usize
    }
}

/// How many positions are tried in order, so that shares stay exact when a node is out, before
/// the first usable node is taken.
const IN_ORDER: usize = 16;

impl Balancer for RoundRobin {
    fn pick(&self, _: &PickCtx<'_>, usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        if self.cycle == 0 {
            return None;
        }
        for _ in 0..IN_ORDER {
            let node = self.at(self.position.0.fetch_add(1, Ordering::Relaxed));
            if usable(node) {
                return Some(node);
            }
        }
        // The last band admits every node that has a weight.
        let all = &self.bands.last()?.nodes;
        all.iter()
            .map(|&node| node as usize)
            .find(|&node| usable(node))
    }
}

/// The cycle's bands, and its length. Between two neighbouring weights the threshold admits the
/// same nodes for (difference / divisor) rounds.
fn bands(weights: &[u32]) -> (Box<[Band]>, u64) {
    let divisor = weights.iter().copied().fold(0, divisor);
    let mut levels: Vec<u32> = weights
        .iter()
        .copied()
        .filter(|&weight| weight > 0)
        .collect();
    levels.sort_unstable_by(|left, right| right.cmp(left));
    levels.dedup();
    let lower = levels.iter().skip(1).copied().chain([0]);
    let mut bands = Vec::with_capacity(levels.len());
    let mut start = 0;
    for (&level, lower) in levels.iter().zip(lower) {
        let admitted = (0_u32..)
            .zip(weights)
            .filter(|&(_, &weight)| weight >= level);
        let nodes: Box<[u32]> = admitted.map(|(node, _)| node).collect();
        let rounds = u64::from((level - lower) / divisor);
        let length = rounds * nodes.len() as u64;
        bands.push(Band { start, nodes });
        start += length;
    }
    (bands.into_boxed_slice(), start)
}

const fn divisor(mut left: u32, mut right: u32) -> u32 {
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::net::IpAddr;

    use super::*;
    use crate::expr::{VarSource, Variable};
    use crate::kept::Kept;

    struct NoVars;

    impl VarSource for NoVars {
        fn var(&self, _: &Variable) -> Option<Cow<'_, str>> {
            None
        }
    }

    fn build(weights: &[u32], kept: &Kept) -> RoundRobin {
        RoundRobin::build(&BalancerParts {
            weights,
            key: "upstream/1/0",
            kept,
        })
    }

    fn pick(balancer: &RoundRobin, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let ctx = PickCtx {
            client: IpAddr::from([127, 0, 0, 1]),
            vars: &NoVars,
        };
        balancer.pick(&ctx, &usable)
    }

    fn sequence(weights: &[u32]) -> Vec<usize> {
        let balancer = build(weights, &Kept::new());
        (0..balancer.cycle)
            .map(|position| balancer.at(position))
            .collect()
    }

    /// The threshold algorithm itself, step by step.
    fn naive(weights: &[u32]) -> Vec<usize> {
        let step = weights.iter().copied().fold(0, divisor);
        let mut threshold = weights.iter().copied().max().unwrap_or(0);
        let mut picks = Vec::new();
        while threshold > 0 {
            picks.extend((0..weights.len()).filter(|&node| weights[node] >= threshold));
            threshold -= step;
        }
        picks
    }

    #[test]
    fn weights_three_and_one_give_a_a_a_b() {
        assert_eq!(sequence(&[3, 1]), [0, 0, 0, 1]);
        assert_eq!(sequence(&[300, 100]), [0, 0, 0, 1]);
        assert_eq!(sequence(&[1, 0, 1]), [0, 2]);
    }

    #[test]
    fn the_cycle_is_that_of_the_threshold_algorithm() {
        for weights in [
            &[1, 2, 3][..],
            &[5, 1, 1],
            &[6, 4, 10],
            &[7],
            &[0, 0],
            &[1, 0, 9, 9],
            &[],
        ] {
            assert_eq!(sequence(weights), naive(weights), "{weights:?}");
        }
    }

    #[test]
    fn shares_are_exact_under_concurrency() {
        let weights = [5, 3, 2];
        let balancer = build(&weights, &Kept::new());
        let picks = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| -> Vec<_> {
                        (0..250).map(|_| pick(&balancer, |_| true)).collect()
                    })
                })
                .collect();
            let picks = threads
                .into_iter()
                .flat_map(|thread| thread.join().expect("no panic"));
            picks.collect::<Vec<_>>()
        });
        for (node, weight) in weights.into_iter().enumerate() {
            let share = picks.iter().filter(|pick| **pick == Some(node)).count();
            assert_eq!(share, 100 * weight as usize, "1000 picks are 100 cycles");
        }
    }

    #[test]
    fn unusable_and_weightless_nodes_are_passed_over() {
        let balancer = build(&[1_000_000, 1, 0], &Kept::new());
        assert_eq!(
            pick(&balancer, |node| node != 0),
            Some(1),
            "also far away in the cycle"
        );
        assert_eq!(pick(&balancer, |node| node == 2), None);
        assert_eq!(pick(&build(&[0], &Kept::new()), |_| true), None);
    }

    #[test]
    fn the_position_survives_a_reload() {
        let kept = Kept::new();
        let first = build(&[1, 1, 1], &kept);
        let before = pick(&first, |_| true).expect("a node");
        let second = build(&[1, 1, 1], &kept);
        assert_eq!(pick(&second, |_| true), Some((before + 1) % 3));
    }
}
