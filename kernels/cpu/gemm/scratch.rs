//! The memory into which workers pack their operands, taken once per device.
//!
//! One holder per worker at a time; nothing here grows.

use std::sync::atomic::{AtomicBool, Ordering};

use super::kernel::{A_STRIDE, KC, Kernels};
use crate::cpu::isa::Isa;
use crate::dtype::Precision;
use crate::error::Result;
use crate::memory::{Arena, ArenaPlan, DeviceSlice};

/// Packing buffers for every worker of a pool.
pub struct Scratch {
    isa: Isa,
    workers: Vec<Worker>,
    // Keeps the workers' memory alive.
    arena: Arena,
}

struct Worker {
    held: AtomicBool,
    a: DeviceSlice,
    b: DeviceSlice,
}

// SAFETY: the arena's memory is reached through `panels` alone, which lets one holder in at a time.
unsafe impl Sync for Scratch {}

impl Scratch {
    /// Takes the buffers for `threads` workers.
    ///
    /// # Errors
    /// When so much memory has no address.
    pub fn new(isa: Isa, threads: usize) -> Result<Self> {
        let plan = plan(isa, threads);
        let arena = Arena::in_host_memory(&plan)?;
        let worker = |regions: &[crate::memory::Region]| Worker {
            held: AtomicBool::new(false),
            a: arena.slice(regions[0].span),
            b: arena.slice(regions[1].span),
        };
        let workers = plan.regions().chunks(2).map(worker).collect();
        Ok(Self { isa, workers, arena })
    }

    /// Bytes that [`Self::new`] takes.
    pub fn bytes_for(isa: Isa, threads: usize) -> usize {
        plan(isa, threads).bytes()
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.arena.bytes()
    }

    /// The buffers of one worker. Panics if they are held already or there is no such worker.
    pub fn panels(&self, worker: usize) -> Panels<'_> {
        let worker = &self.workers[worker];
        assert!(!worker.held.swap(true, Ordering::Acquire), "packing buffers held twice");
        Panels { isa: self.isa, worker }
    }

    pub(super) fn kernels(&self, precision: Precision) -> &'static Kernels {
        Kernels::of(self.isa, precision)
    }
}

/// The packing buffers of one worker, held until this is dropped.
pub struct Panels<'a> {
    isa: Isa,
    worker: &'a Worker,
}

impl Panels<'_> {
    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    pub(super) fn kernels(&self, precision: Precision) -> &'static Kernels {
        Kernels::of(self.isa, precision)
    }

    /// Room for a group of rows of A and for a block of columns of B, both `KC` deep.
    pub(super) fn buffers(&mut self) -> (&mut [f32], &mut [f32]) {
        // SAFETY: `held` lets nobody else in; the scratch outlives this; its regions are disjoint.
        unsafe { (self.worker.a.as_mut_slice(), self.worker.b.as_mut_slice()) }
    }
}

impl Drop for Panels<'_> {
    fn drop(&mut self) {
        self.worker.held.store(false, Ordering::Release);
    }
}

fn plan(isa: Isa, threads: usize) -> ArenaPlan {
    // Those for other precisions need no more.
    let kernels = Kernels::of(isa, Precision::F32);
    let mut plan = ArenaPlan::new();
    for worker in 0..threads {
        let bytes = |elements: usize| elements * size_of::<f32>();
        let (rows, columns) = (kernels.group_rows, kernels.block_columns);
        plan.reserve(format!("worker {worker}: rows of A"), bytes(rows * A_STRIDE));
        plan.reserve(format!("worker {worker}: columns of B"), bytes(columns * KC));
    }
    plan
}
