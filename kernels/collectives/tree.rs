//! The one binary tree over the lanes of a batch, and which part of it each rank adds up.
//!
//! Duty: pure arithmetic on lane, buffer and piece numbers; the same answer on every rank.
//! Prohibition: nothing here touches memory or knows who is connected how.
//!
//! With 8 lanes the tree is `((0+1)+(2+3))+((4+5)+(6+7))`. It never depends on the number of ranks:
//! that only decides who owns which lanes. A rank adds what its own lanes complete, and sends its
//! maximal complete subtrees (the *pieces*); whoever receives a shard of all pieces joins them.

use std::ops::Range;

use crate::error::{Error, Result};

#[cfg(test)]
mod tests;

/// Most lanes of a batch: eight per GPU of a full node.
pub const LANES_MAX: usize = 64;

/// Most sums that wait for their sibling at once, the one just added included.
pub(super) const DEPTH_MAX: usize = LANES_MAX.ilog2() as usize + 1;

/// A complete aligned subtree: lanes `index << level .. (index + 1) << level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subtree {
    /// Its lanes' count as a power of two.
    pub level: usize,
    /// Its place among the subtrees of that level.
    pub index: usize,
}

impl Subtree {
    /// The lanes that it sums.
    pub fn lanes(self) -> Range<usize> {
        self.index << self.level..(self.index + 1) << self.level
    }
}

/// One addition: `into = into + from`. The left operand is always the earlier lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fold {
    /// Number of the buffer or piece that holds the left operand and receives the sum.
    pub into: usize,
    /// Number of the right operand, free afterwards.
    pub from: usize,
}

/// What a rank does for one of its lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneStep {
    /// Its number, from 0.
    pub lane: usize,
    /// The gradient buffer that the lane's micro-batches are summed in; the first overwrites.
    pub buffer: usize,
    /// The additions between gradient buffers once the lane is complete, in order.
    pub folds: Vec<Fold>,
}

/// A maximal complete subtree of one rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Piece {
    /// Who holds it.
    pub rank: usize,
    /// In which of that rank's gradient buffers it ends.
    pub buffer: usize,
    /// Which lanes it sums.
    pub subtree: Subtree,
}

/// The lanes of a batch dealt to ranks: contiguous, as evenly as possible, the first get the extra.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaneTree {
    lanes: usize,
    ranks: usize,
}

impl LaneTree {
    /// `lanes` is a power of two up to [`LANES_MAX`]; `ranks` is any number from 1 to `lanes`.
    ///
    /// # Errors
    /// [`Error::Plan`] otherwise.
    pub fn new(lanes: usize, ranks: usize) -> Result<Self> {
        if !lanes.is_power_of_two() || lanes > LANES_MAX {
            let why = format!("{lanes} lanes: expected a power of two up to {LANES_MAX}");
            return Err(Error::Plan(why));
        }
        if ranks == 0 || ranks > lanes {
            return Err(Error::Plan(format!(
                "{ranks} ranks for {lanes} lanes: expected 1..={lanes}"
            )));
        }
        Ok(Self { lanes, ranks })
    }

    /// Number of lanes.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Number of ranks.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// The lanes of a rank. Panics if there is no such rank.
    pub fn lanes_of(&self, rank: usize) -> Range<usize> {
        assert!(rank < self.ranks, "rank {rank} of {}", self.ranks);
        let (each, extra) = (self.lanes / self.ranks, self.lanes % self.ranks);
        let start = |rank: usize| rank * each + rank.min(extra);
        start(rank)..start(rank + 1)
    }

    /// The rank's maximal complete subtrees, in lane order. Number `i` ends in gradient buffer `i`.
    pub fn subtrees_of(&self, rank: usize) -> Vec<Subtree> {
        self.run(rank).1
    }

    /// What the rank does as its lanes complete in order: a binary counter of gradient buffers.
    pub fn steps_of(&self, rank: usize) -> Vec<LaneStep> {
        self.run(rank).0
    }

    /// Gradient buffers that the rank needs.
    pub fn buffers(&self, rank: usize) -> usize {
        self.steps_of(rank).iter().map(|step| step.buffer + 1).max().unwrap_or(0)
    }

    /// Gradient buffers that the neediest rank needs: log2(lanes) + 1 for a single rank.
    pub fn max_buffers(&self) -> usize {
        (0..self.ranks).map(|rank| self.buffers(rank)).max().unwrap_or(0)
    }

    /// The pieces of all ranks in lane order: the order in which [`Self::join_tree`] counts them.
    pub fn pieces(&self) -> Vec<Piece> {
        let of_rank = |rank| {
            let subtrees = self.subtrees_of(rank).into_iter().enumerate();
            subtrees.map(move |(buffer, subtree)| Piece { rank, buffer, subtree })
        };
        (0..self.ranks).flat_map(of_rank).collect()
    }

    /// All-to-alls that bring every piece to its shards' owners: in number `i` a rank sends the
    /// shards of its subtree `i`, or nothing if it has fewer. 1 when the ranks are a power of two.
    pub fn rounds(&self) -> usize {
        (0..self.ranks).map(|rank| self.subtrees_of(rank).len()).max().unwrap_or(0)
    }

    /// How the pieces of all ranks are summed: what is left of the tree.
    pub fn join_tree(&self) -> JoinTree {
        let mut tree = JoinTree { pieces: 0, merges: [0; LANES_MAX] };
        let mut stack = Vec::new();
        for piece in self.pieces() {
            tree.merges[tree.pieces] = push(&mut stack, piece.subtree) as u8;
            tree.pieces += 1;
        }
        debug_assert_eq!(stack.len(), 1, "the pieces of all ranks complete the tree");
        tree
    }

    /// Runs the binary counter over the rank's lanes: the steps, and what is on the stack at last.
    fn run(&self, rank: usize) -> (Vec<LaneStep>, Vec<Subtree>) {
        let mut stack = Vec::new();
        let step = |lane| {
            let buffer = stack.len();
            let merges = push(&mut stack, Subtree { level: 0, index: lane });
            let folds = (0..merges).map(|k| Fold { into: buffer - k - 1, from: buffer - k });
            LaneStep { lane, buffer, folds: folds.collect() }
        };
        let steps = self.lanes_of(rank).map(step).collect();
        (steps, stack)
    }
}

/// Puts a subtree on top and merges siblings while there are any. Returns how many merges.
fn push(stack: &mut Vec<Subtree>, subtree: Subtree) -> usize {
    stack.push(subtree);
    let mut merges = 0;
    while let [.., left, right] = stack[..]
        && left.level == right.level
        && left.index.is_multiple_of(2)
        && left.index + 1 == right.index
    {
        stack.truncate(stack.len() - 2);
        stack.push(Subtree { level: left.level + 1, index: left.index / 2 });
        merges += 1;
    }
    merges
}

/// The order in which a list of pieces is summed, as a program for a stack: push piece 0, merge the
/// top two `merges()[0]` times, push piece 1, and so on. One sum is left. Plain data, no heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinTree {
    pieces: usize,
    merges: [u8; LANES_MAX],
}

impl JoinTree {
    /// Pairs of neighbours, then pairs of pairs; an odd one out goes up a level unchanged.
    /// With five ranks: `((0+1)+(2+3))+4`. Panics outside `1..=LANES_MAX`.
    pub fn of_ranks(ranks: usize) -> Self {
        assert!((1..=LANES_MAX).contains(&ranks), "{ranks} ranks");
        let mut merges = [0; LANES_MAX];
        let mut waiting = 0;
        for (rank, count) in merges[..ranks].iter_mut().enumerate() {
            let last = rank + 1 == ranks;
            *count = if last { waiting } else { rank.trailing_ones() as u8 };
            waiting = waiting + 1 - *count;
        }
        Self { pieces: ranks, merges }
    }

    /// Number of pieces.
    pub fn pieces(&self) -> usize {
        self.pieces
    }

    /// For each piece, how many times the top two sums merge after it was pushed.
    pub fn merges(&self) -> &[u8] {
        &self.merges[..self.pieces]
    }

    /// The additions by piece number, in order; the sum ends in piece 0.
    pub fn folds(&self) -> Vec<Fold> {
        let mut folds = Vec::new();
        let mut stack = Vec::new();
        for (piece, &merges) in self.merges().iter().enumerate() {
            stack.push(piece);
            for _ in 0..merges {
                if let [.., into, from] = stack[..] {
                    folds.push(Fold { into, from });
                    stack.pop();
                }
            }
        }
        folds
    }
}
