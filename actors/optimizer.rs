//! The optimizer: this rank's shard of master weights and moments. Norm, clip or skip, update, and
//! the gather of fresh parameters.
//!
//! Every rank decides from the same gathered block sums in the same order, so all skip or none
//! does.

use std::ops::Range;

use octet_kernels::collectives::RANKS_MAX;
use octet_kernels::dtype::DType;
use octet_kernels::graph::Layout;
use octet_kernels::memory::DeviceSlice;
use octet_kernels::ops::adamw::{self, AdamW, adamw};
use octet_kernels::ops::global_norm::{Norm, block_sums, clip_factor};

use crate::contract::{UpdateGroup, UpdateSettings, Workload};
use crate::fault::Fault;
use crate::rank_memory::Zero;
use crate::worker::Engine;

/// The optimizer's protocol.
#[derive(Debug)]
pub enum OptimizerMessage {
    /// All buckets are reduced: compute the global norm and whether anybody overflowed.
    Norm {
        /// Largest norm that is not clipped.
        clip_norm: f64,
        /// This rank gave the step up.
        abandoned: bool,
    },
    /// Update the kept shard and gather fresh parameters.
    Update {
        /// Numbers of this step.
        settings: UpdateSettings,
        /// The step, from 0.
        step: u64,
    },
}

/// Flags that travel with the block sums.
const OVERFLOW: f64 = 1.0;
const ABANDONED: f64 = 2.0;

/// Consecutive elements of a bucket that updates treat alike.
#[derive(Debug, Clone, PartialEq)]
struct Segment {
    elements: Range<usize>,
    group: UpdateGroup,
}

/// The actor: what it remembers between the messages of one step.
#[derive(Debug)]
pub struct Optimizer {
    /// By bucket, then by the rank whose shard it is.
    segments: Vec<Vec<Vec<Segment>>>,
    /// By rank: where its block sums start in the norm region, in f64.
    norm_at: Vec<usize>,
    /// Block sums in block order.
    sums: Vec<f64>,
    /// The last norm.
    pub norm: Norm,
    /// Whether any rank's live extent overflowed in this step.
    pub overflow: bool,
    /// Whether any rank gave this step up.
    pub abandoned: bool,
    /// By bucket: the fingerprint of this rank's shard after the last update.
    pub fingerprint: Vec<u64>,
}

impl Optimizer {
    /// An optimizer for the workload's parameters on this rank.
    pub fn new(workload: &dyn Workload, ranks: usize) -> Self {
        let layout = workload.layout();
        let shards = |bucket| (0..ranks).map(move |rank| layout.shard(bucket, rank, ranks));
        let segments = (0..layout.buckets.len())
            .map(|bucket| shards(bucket).map(|shard| segments(workload, bucket, &shard)).collect())
            .collect();
        let mut end = 0;
        let norm_at = (0..ranks)
            .map(|rank| {
                let start = end;
                let buckets = 0..layout.buckets.len();
                let elements: usize = buckets.map(|b| layout.shard(b, rank, ranks).len()).sum();
                end += elements / layout.block + 1;
                start
            })
            .collect();
        Self {
            segments,
            norm_at,
            sums: vec![0.0; layout.blocks()],
            norm: Norm { norm: 0.0, factor: 1.0, finite: true },
            overflow: false,
            abandoned: false,
            fingerprint: vec![0; layout.buckets.len()],
        }
    }

    /// Takes one message to its end.
    ///
    /// # Errors
    /// A fault of the world when another rank left or took too long.
    pub fn apply(&mut self, engine: &Engine, message: OptimizerMessage) -> Result<(), Fault> {
        match message {
            OptimizerMessage::Norm { clip_norm, abandoned } => {
                self.take_norm(engine, clip_norm, abandoned)
            }
            OptimizerMessage::Update { settings, step } => self.update(engine, &settings, step),
        }
        .map_err(|e| engine.fault(e))
    }

    fn take_norm(
        &mut self,
        engine: &Engine,
        clip_norm: f64,
        abandoned: bool,
    ) -> octet_kernels::error::Result<()> {
        let (memory, layout) = (&engine.memory, engine.workload.layout());
        let (rank, ranks) = (memory.rank, memory.ranks);
        let region = engine.arena.slice(memory.norm);
        let f64s = |start: usize, count: usize| region.part(start * 8, count * 8);
        let end = |r: usize| self.norm_at.get(r + 1).copied().unwrap_or(region.bytes() / 8);
        let mut parts = [region.part(0, 0); RANKS_MAX];
        for (r, part) in parts[..ranks].iter_mut().enumerate() {
            *part = f64s(self.norm_at[r], end(r) - self.norm_at[r]);
        }
        // SAFETY: regions of this rank's arena, on this rank's thread.
        let own: &mut [f64] = unsafe { parts[rank].as_mut_slice() };
        let mut next = 0;
        for bucket in 0..layout.buckets.len() {
            let shard = layout.shard(bucket, rank, ranks);
            let blocks = shard.len() / layout.block;
            // SAFETY: as above; the reducer is done with the bucket.
            let gradient = unsafe { memory.gradient(&engine.arena, 0, &shard).as_slice() };
            block_sums(&engine.device, gradient, layout.block, &mut own[next..next + blocks]);
            next += blocks;
        }
        // SAFETY: as above.
        let overflow = unsafe { engine.arena.slice(memory.overflow).as_slice::<i32>() }[0] != 0;
        own[next] = OVERFLOW * f64::from(overflow) + ABANDONED * f64::from(abandoned);
        // SAFETY: nobody touches the region until all parts are here.
        unsafe { engine.communicator.borrow_mut().all_gather(parts[rank], &parts[..ranks]) }?;
        // SAFETY: as above.
        self.order(layout, unsafe { region.as_slice() }, ranks);
        self.norm = clip_factor(&self.sums, clip_norm);
        Ok(())
    }

    /// From rank order to block order.
    fn order(&mut self, layout: &Layout, gathered: &[f64], ranks: usize) {
        let mut next = [0; RANKS_MAX];
        next[..ranks].copy_from_slice(&self.norm_at);
        for bucket in 0..layout.buckets.len() {
            for (rank, next) in next[..ranks].iter_mut().enumerate() {
                let shard = layout.shard(bucket, rank, ranks);
                let (first, blocks) = (shard.start / layout.block, shard.len() / layout.block);
                self.sums[first..first + blocks].copy_from_slice(&gathered[*next..*next + blocks]);
                *next += blocks;
            }
        }
        let flags = next[..ranks].iter().fold(0, |flags, &at| flags | gathered[at] as u32);
        self.overflow = flags & OVERFLOW as u32 != 0;
        self.abandoned = flags & ABANDONED as u32 != 0;
    }

    fn update(
        &mut self,
        engine: &Engine,
        settings: &UpdateSettings,
        step: u64,
    ) -> octet_kernels::error::Result<()> {
        let (memory, layout) = (&engine.memory, engine.workload.layout());
        let (rank, ranks) = (memory.rank, memory.ranks);
        for bucket in 0..layout.buckets.len() {
            for owner in 0..ranks {
                if memory.zero == Zero::Zero1 && owner != rank {
                    continue;
                }
                let fingerprint = self.update_shard(engine, settings, step, bucket, owner);
                if owner == rank {
                    self.fingerprint[bucket] = fingerprint;
                }
            }
            if memory.zero == Zero::Zero1 {
                gather_parameters(engine, bucket)?;
            }
        }
        Ok(())
    }

    fn update_shard(
        &self,
        engine: &Engine,
        settings: &UpdateSettings,
        step: u64,
        bucket: usize,
        owner: usize,
    ) -> u64 {
        let mut fingerprint = 0u64;
        for segment in &self.segments[bucket][owner] {
            let parts = Parts::of(engine, bucket, &segment.elements);
            let hyper = AdamW {
                learning_rate: settings.learning_rate * segment.group.learning_rate,
                beta1: settings.beta1,
                beta2: settings.beta2,
                eps: settings.epsilon,
                weight_decay: segment.group.weight_decay,
                step: step + 1,
                gradient_scale: self.norm.factor,
            };
            // SAFETY: this rank's shard of four different regions, on this rank's thread, after the
            // reducer and before the gather.
            let shard = unsafe {
                adamw::Shard {
                    parameters: parts.weights.as_mut_slice(),
                    gradients: parts.gradient.as_slice(),
                    first_moments: parts.first_moment.as_mut_slice(),
                    second_moments: parts.second_moment.as_mut_slice(),
                    first_element: segment.elements.start as u64,
                }
            };
            fingerprint = fingerprint.wrapping_add(adamw(&engine.device, &hyper, shard));
            store_narrow(engine, bucket, &segment.elements, parts.weights);
        }
        fingerprint
    }
}

/// The four vectors of an update, for one segment.
struct Parts {
    weights: DeviceSlice,
    gradient: DeviceSlice,
    first_moment: DeviceSlice,
    second_moment: DeviceSlice,
}

impl Parts {
    fn of(engine: &Engine, bucket: usize, elements: &Range<usize>) -> Self {
        let memory = &engine.memory;
        let kept = |vector| memory.kept_part(&engine.arena, vector, bucket, elements);
        let narrow = engine.workload.layout().buckets[bucket].dtype.is_narrow();
        Self {
            weights: if narrow { kept(memory.masters) } else { stored(engine, bucket, elements) },
            gradient: memory.gradient(&engine.arena, 0, elements),
            first_moment: kept(memory.first_moment),
            second_moment: kept(memory.second_moment),
        }
    }
}

/// Parameters as they are stored.
pub(crate) fn stored(engine: &Engine, bucket: usize, elements: &Range<usize>) -> DeviceSlice {
    let bytes = engine.workload.layout().parameter_span(bucket, elements);
    engine.arena.slice(engine.memory.parameters.part(bytes.start, bytes.len()))
}

/// Rounds master weights into narrow parameters; nothing to do for `F32`.
pub(crate) fn store_narrow(
    engine: &Engine,
    bucket: usize,
    elements: &Range<usize>,
    weights: DeviceSlice,
) {
    let target = stored(engine, bucket, elements);
    // SAFETY: this rank's memory, on this rank's thread; masters and parameters are apart.
    unsafe {
        let weights: &[f32] = weights.as_slice();
        match engine.workload.layout().buckets[bucket].dtype {
            DType::Bf16 => {
                let stored: &mut [half::bf16] = target.as_mut_slice();
                stored.iter_mut().zip(weights).for_each(|(s, &w)| *s = half::bf16::from_f32(w));
            }
            DType::F16 => {
                let stored: &mut [half::f16] = target.as_mut_slice();
                stored.iter_mut().zip(weights).for_each(|(s, &w)| *s = half::f16::from_f32(w));
            }
            _ => {}
        }
    }
}

fn gather_parameters(engine: &Engine, bucket: usize) -> octet_kernels::error::Result<()> {
    let (ranks, rank) = (engine.memory.ranks, engine.memory.rank);
    let layout = engine.workload.layout();
    let mut parts = [stored(engine, bucket, &layout.shard(bucket, rank, ranks)); RANKS_MAX];
    for (peer, part) in parts[..ranks].iter_mut().enumerate() {
        *part = stored(engine, bucket, &layout.shard(bucket, peer, ranks));
    }
    // SAFETY: nobody reads the bucket's parameters before the gather is complete.
    unsafe { engine.communicator.borrow_mut().all_gather(parts[rank], &parts[..ranks]) }
}

fn segments(workload: &dyn Workload, bucket: usize, shard: &Range<usize>) -> Vec<Segment> {
    let layout = workload.layout();
    let mut segments: Vec<Segment> = Vec::new();
    let members = &layout.buckets[bucket].parameters;
    for (i, id) in members.iter().enumerate() {
        let start = layout.placements[id.0].start;
        let next = members.get(i + 1).map(|next| layout.placements[next.0].start);
        // Padding goes with the parameter before it: it is zero and stays zero.
        let end = next.unwrap_or(layout.buckets[bucket].elements.end);
        let (start, end) = (start.max(shard.start), end.min(shard.end));
        if start >= end {
            continue;
        }
        let group = workload.update_group(*id);
        match segments.last_mut() {
            Some(last) if last.group == group => last.elements.end = end,
            _ => segments.push(Segment { elements: start..end, group }),
        }
    }
    segments
}
