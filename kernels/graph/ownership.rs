//! Who owns which elements: sums their gradients, keeps their optimizer state and updates them.
//!
//! A table, so that whoever fills it decides: even shards, or whole units for a rule that needs
//! whole matrices. Ranks only read it.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::graph::Layout;

/// By bucket and rank, the elements that are the rank's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership(Vec<Vec<Range<usize>>>);

impl Ownership {
    /// A table by bucket, then by rank.
    ///
    /// # Errors
    /// [`Error::Plan`] unless every element of every bucket has one owner and shards are whole
    /// blocks.
    pub fn new(layout: &Layout, shards: Vec<Vec<Range<usize>>>) -> Result<Self> {
        let refuse = |what: String| Err(Error::Plan(what));
        if shards.len() != layout.buckets.len() {
            return refuse(format!("owners of {} buckets", shards.len()));
        }
        for (i, (bucket, shards)) in layout.buckets.iter().zip(&shards).enumerate() {
            let mut owned: Vec<_> = shards.iter().filter(|shard| !shard.is_empty()).collect();
            owned.sort_by_key(|shard| shard.start);
            let mut next = bucket.elements.start;
            for shard in owned {
                let whole = (shard.start - bucket.elements.start).is_multiple_of(layout.block)
                    && shard.len().is_multiple_of(layout.block);
                if shard.start != next || !whole {
                    return refuse(format!("bucket {i} is not owned in whole blocks, each once"));
                }
                next = shard.end;
            }
            if next != bucket.elements.end {
                return refuse(format!("bucket {i} has elements without an owner"));
            }
        }
        Ok(Self(shards))
    }

    /// Of every bucket a shard for every rank, as even as whole blocks can be.
    pub fn even(layout: &Layout, ranks: usize) -> Self {
        let of_bucket = |elements: &Range<usize>| {
            let blocks = elements.len() / layout.block;
            let edge = |rank: usize| elements.start + (rank * blocks / ranks) * layout.block;
            (0..ranks).map(|rank| edge(rank)..edge(rank + 1)).collect()
        };
        Self(layout.buckets.iter().map(|bucket| of_bucket(&bucket.elements)).collect())
    }

    /// Every unit, and so every parameter, whole on one rank: on the one that has least so far.
    pub fn by_unit(layout: &Layout, ranks: usize) -> Self {
        let nothing = |bucket: &crate::graph::layout::Bucket| {
            vec![bucket.elements.start..bucket.elements.start; ranks]
        };
        let mut shards: Vec<Vec<_>> = layout.buckets.iter().map(nothing).collect();
        let mut owned = vec![0; ranks];
        for unit in &layout.units {
            let least = (0..ranks).min_by_key(|&rank| owned[rank]).unwrap_or(0);
            owned[least] += unit.elements.len();
            for bucket in unit.buckets.clone() {
                shards[bucket][least] = layout.buckets[bucket].elements.clone();
            }
        }
        Self(shards)
    }

    /// The elements of a bucket that a rank owns.
    pub fn shard(&self, bucket: usize, rank: usize) -> Range<usize> {
        self.0[bucket][rank].clone()
    }

    /// Elements that a rank owns of all buckets.
    pub fn elements(&self, rank: usize) -> usize {
        self.0.iter().map(|shards| shards[rank].len()).sum()
    }
}
