//! The units of consumers and credentials by row: a consumer's place among the documents'
//! consumers; behind them the credentials. In blocks that copies share until one of theirs changes.

use std::sync::Arc;

use super::consumers::ConsumerUnit;
use super::unit::Unit;

pub(super) type ConsumerPiece = Arc<Unit<ConsumerUnit>>;

/// All units.
#[derive(Default, Clone)]
pub(super) struct Roster {
    blocks: Vec<Arc<Block>>,
    /// Equal where the same units stand at the same places of the list `consumers`.
    layout: u64,
}

/// [`ROWS`] units; the last block may hold fewer.
#[derive(Clone)]
struct Block {
    units: Box<[ConsumerPiece]>,
    refused: usize,
    /// Some unit has findings.
    findings: bool,
}

impl Block {
    fn of(units: Box<[ConsumerPiece]>) -> Self {
        Self {
            refused: units.iter().filter(|unit| unit.value.refused).count(),
            findings: units.iter().any(|unit| unit.diagnostics.is_some()),
            units,
        }
    }
}

impl Roster {
    /// Units by row, each with its place in the list `consumers`.
    pub(super) fn of(units: &[(u32, ConsumerPiece)]) -> Self {
        let block = |units: &[(u32, ConsumerPiece)]| {
            let units = units.iter().map(|(_, unit)| Arc::clone(unit));
            Arc::new(Block::of(units.collect()))
        };
        let places = units.iter().map(|(place, unit)| mark(*place, unit));
        Self {
            layout: places.fold(0, |layout, mark| layout ^ mark),
            blocks: units.chunks(ROWS).map(block).collect(),
        }
    }

    /// Whether the same units stand at the same places of the list.
    pub(super) fn is_laid_out_as(&self, other: &Self) -> bool {
        self.layout == other.layout
    }

    pub(super) fn get(&self, row: usize) -> Option<&ConsumerPiece> {
        self.blocks.get(row / ROWS)?.units.get(row % ROWS)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ConsumerPiece> {
        self.blocks.iter().flat_map(|block| block.units.iter())
    }

    /// The same with other units in some rows, which come in order.
    pub(super) fn with(&self, changes: &[Change]) -> Self {
        let mut changed = self.clone();
        for change in changes {
            if let Some(before) = self.get(change.row) {
                changed.layout ^= mark(change.place, before) ^ mark(change.place, &change.unit);
            }
        }
        for run in changes.chunk_by(|a, b| a.row / ROWS == b.row / ROWS) {
            let first = run.first().map_or(0, |change| change.row);
            let Some(block) = changed.blocks.get_mut(first / ROWS) else {
                continue;
            };
            let mut units = block.units.clone();
            for change in run {
                if let Some(unit) = units.get_mut(change.row % ROWS) {
                    *unit = Arc::clone(&change.unit);
                }
            }
            *block = Arc::new(Block::of(units));
        }
        changed
    }

    /// How many units refuse.
    pub(super) fn refused(&self) -> usize {
        self.blocks.iter().map(|block| block.refused).sum()
    }

    /// The units that have findings.
    pub(super) fn with_findings(&self) -> impl Iterator<Item = &ConsumerPiece> {
        let blocks = self.blocks.iter().filter(|block| block.findings);
        blocks.flat_map(|block| block.units.iter())
    }
}

/// Another unit in a row.
pub(super) struct Change {
    pub(super) row: usize,
    /// Its place in the list `consumers`, which holds credentials too.
    pub(super) place: u32,
    pub(super) unit: ConsumerPiece,
}

/// Differs for every unit at every place, as long as the unit lives.
fn mark(place: u32, unit: &ConsumerPiece) -> u64 {
    let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
    hasher.hash_one((place, Arc::as_ptr(unit).addr()))
}

/// Units to a block.
const ROWS: usize = 64;
