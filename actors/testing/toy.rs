//! A workload made of closures.

use std::fmt;
use std::sync::Arc;

use octet_kernels::graph::{Layout, Ownership, ParameterId, Program, Variables};
use octet_kernels::ops::adamw::AdamW;
use octet_kernels::update::{OptimizerSpec, Storage};

use crate::contract::{
    Batch, Drive, EvaluationTask, ProgramId, Purpose, Record, StepShape, UpdateGroup,
    UpdateSettings, Workload,
};
use crate::fault::Fault;

/// Fills a record for a purpose and a program.
pub type Fill = Box<dyn Fn(Purpose, &Program, &mut Record<'_>) + Send + Sync>;
/// The shape of a step and an attempt.
pub type Shape = Box<dyn Fn(u64, usize) -> StepShape + Send + Sync>;
/// A conversation after a step.
pub type Talk = Box<dyn Fn(u64) -> Option<Box<dyn Drive>> + Send + Sync>;

/// A workload made of closures.
pub struct Toy {
    /// Parameters, states, step buffers.
    pub variables: Variables,
    /// Their layout: small blocks, so that tiny models have several.
    pub layout: Layout,
    /// All programs.
    pub programs: Vec<Program>,
    /// How steps are cut.
    pub batch: Batch,
    /// What a step is.
    pub shape: Shape,
    /// Where records come from.
    pub fill: Fill,
    /// Held-out tasks.
    pub evaluations: Vec<EvaluationTask>,
    /// Attempts of a step.
    pub attempts: usize,
    /// Conversations.
    pub talk: Talk,
    /// Learning rate.
    pub learning_rate: f64,
    /// How parameters change.
    pub optimizer: OptimizerSpec,
    /// Which rank owns what.
    pub ownership: fn(&Layout, usize) -> Ownership,
}

/// AdamW with its state in f32.
pub fn adamw() -> OptimizerSpec {
    let rule = AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8 };
    OptimizerSpec { rule: Arc::new(rule), storage: Storage::F32 }
}

impl fmt::Debug for Toy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toy").field("batch", &self.batch).finish_non_exhaustive()
    }
}

impl Workload for Toy {
    fn variables(&self) -> &Variables {
        &self.variables
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn programs(&self) -> &[Program] {
        &self.programs
    }

    fn batch(&self) -> Batch {
        self.batch
    }

    fn seed(&self) -> u64 {
        17
    }

    fn shape(&self, step: u64, attempt: usize) -> Arc<StepShape> {
        Arc::new((self.shape)(step, attempt))
    }

    /// Toys alternate between a few shapes at most.
    fn shapes(&self) -> Vec<Arc<StepShape>> {
        let mut shapes = Vec::new();
        for (step, attempt) in (0..8).flat_map(|s| (0..self.attempts).map(move |a| (s, a))) {
            let shape = self.shape(step, attempt);
            if !shapes.contains(&shape) {
                shapes.push(shape);
            }
        }
        shapes
    }

    fn attempts(&self) -> usize {
        self.attempts
    }

    fn update(&self, _step: u64) -> UpdateSettings {
        UpdateSettings { learning_rate: self.learning_rate, clip_norm: 1.0 }
    }

    fn optimizer(&self) -> &OptimizerSpec {
        &self.optimizer
    }

    fn ownership(&self, ranks: usize) -> Ownership {
        (self.ownership)(&self.layout, ranks)
    }

    fn update_group(&self, parameter: ParameterId) -> UpdateGroup {
        let decays = self.variables.parameters()[parameter.0].decay;
        UpdateGroup { learning_rate: 1.0, weight_decay: if decays { 0.1 } else { 0.0 } }
    }

    fn fill(
        &self,
        purpose: Purpose,
        program: ProgramId,
        record: &mut Record<'_>,
    ) -> Result<(), Fault> {
        (self.fill)(purpose, &self.programs[program.0], record);
        Ok(())
    }

    fn evaluations(&self) -> &[EvaluationTask] {
        &self.evaluations
    }

    fn drive(&self, step: u64) -> Option<Box<dyn Drive>> {
        (self.talk)(step)
    }

    fn tokens_per_sample(&self) -> u64 {
        1
    }

    fn flops_per_sample(&self) -> f64 {
        self.programs.iter().map(|p| p.cost().flops).sum()
    }
}
