//! Where the sums behind the global norm lie: gathered rank by rank, added block by block.

use std::ops::Range;

use octet_kernels::graph::{Layout, Ownership};

/// A region of cells of eight bytes. Each rank's part holds the sums of its blocks (`f64`) and then
/// one cell whose low word is its overflow flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormLayout {
    /// By rank: its cells.
    pub parts: Vec<Range<usize>>,
    /// By rank: the cell of its flag.
    pub flags: Vec<usize>,
    /// By block, in block order: the cell of its sum.
    pub order: Vec<i32>,
}

impl NormLayout {
    /// The region of so many ranks.
    pub fn new(layout: &Layout, owners: &Ownership, ranks: usize) -> Self {
        let mut order = vec![0; layout.blocks()];
        let mut cells = 0;
        let mut parts = Vec::with_capacity(ranks);
        for rank in 0..ranks {
            let first = cells;
            for bucket in 0..layout.buckets.len() {
                let shard = owners.shard(bucket, rank);
                for block in shard.step_by(layout.block) {
                    order[block / layout.block] = cells as i32;
                    cells += 1;
                }
            }
            cells += 1;
            parts.push(first..cells);
        }
        let flags = parts.iter().map(|part| part.end - 1).collect();
        Self { parts, flags, order }
    }

    /// Bytes of the region.
    pub fn bytes(&self) -> usize {
        (self.order.len() + self.flags.len()) * size_of::<f64>()
    }
}
