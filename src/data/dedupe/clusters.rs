//! Which documents belong together.
//!
//! Duty: joins documents from several threads at once; the first document of a cluster stands for
//! it, whatever the order of the joins, since a root is only ever put below a smaller one.
//! Limits: 4 bytes for each document. Prohibition: no locks.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Disjoint sets of documents.
pub(super) struct Clusters(Vec<AtomicU32>);

impl Clusters {
    /// So many documents, each alone.
    pub(super) fn new(documents: u32) -> Self {
        Self((0..documents).map(AtomicU32::new).collect())
    }

    /// The first document of the cluster of a document.
    pub(super) fn first(&self, mut document: u32) -> u32 {
        loop {
            let above = self.0[document as usize].load(Relaxed);
            if above == document {
                return document;
            }
            // Halves the path. Another thread may have done better meanwhile.
            let higher = self.0[above as usize].load(Relaxed);
            let _ = self.0[document as usize].compare_exchange(above, higher, Relaxed, Relaxed);
            document = higher;
        }
    }

    /// Joins the clusters of two documents.
    pub(super) fn join(&self, one: u32, other: u32) {
        let (mut one, mut other) = (one, other);
        loop {
            (one, other) = (self.first(one), self.first(other));
            if one == other {
                return;
            }
            let (small, large) = (one.min(other), one.max(other));
            // Fails if `large` is not the root any more.
            if self.0[large as usize].compare_exchange(large, small, Relaxed, Relaxed).is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
