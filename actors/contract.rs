//! What the runtime is asked to run. The packages above implement [`Workload`]; nothing here knows
//! what a batch means.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use octet_kernels::graph::{Layout, Ownership, ParameterId, Program, StepBufferId, Variables};
use octet_kernels::update::OptimizerSpec;

use crate::fault::Fault;
use crate::report::mean;

/// A program, by its position in [`Workload::programs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgramId(pub usize);

/// How the samples of a step are cut. Steps may differ in size (a ramp), not in lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Samples of a micro-batch.
    pub micro: usize,
    /// Samples of a step.
    pub global: usize,
    /// Lanes: a power of two that divides the micro-batches of a step. Part of a run's identity.
    pub lanes: usize,
}

impl Batch {
    /// Micro-batches of a step.
    pub fn micro_batches(&self) -> usize {
        self.global / self.micro
    }

    /// The lane that micro-batch `micro_batch` of a step belongs to: lanes are contiguous.
    pub fn lane_of(&self, micro_batch: usize) -> usize {
        micro_batch / (self.micro_batches() / self.lanes)
    }

    /// The micro-batches of consecutive lanes.
    pub fn micro_batches_of(&self, lanes: &Range<usize>) -> Range<usize> {
        let per_lane = self.micro_batches() / self.lanes;
        lanes.start * per_lane..lanes.end * per_lane
    }

    /// The same cut of a step of so many micro-batches.
    #[must_use]
    pub fn with_micro_batches(self, micro_batches: usize) -> Self {
        Self { global: self.micro * micro_batches, ..self }
    }

    /// Number of the first sample of a micro-batch within a run whose steps are all of this size.
    pub fn first_sample(&self, step: u64, micro_batch: usize) -> u64 {
        step * self.global as u64 + (micro_batch * self.micro) as u64
    }
}

/// A part of a step. Phases run in order; collectives between them are the same on every rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Every micro-batch of the range runs its program on the rank that owns its lane.
    Each {
        /// Micro-batches of the step. A step buffer's first slice is the range's first micro-batch.
        micro_batches: Range<usize>,
        /// One program per micro-batch of the range.
        programs: Vec<ProgramId>,
    },
    /// Every rank gets all slices of a step buffer that `Each` over this range has written.
    Gather {
        /// The buffer.
        buffer: StepBufferId,
        /// The group.
        micro_batches: Range<usize>,
    },
    /// One program over a whole group, on the rank that owns the group's first micro-batch, whose
    /// record is its input.
    Once {
        /// The program.
        program: ProgramId,
        /// The group.
        micro_batches: Range<usize>,
    },
    /// A step buffer goes from the rank that owns the group's first micro-batch to all others.
    Broadcast {
        /// The buffer.
        buffer: StepBufferId,
        /// The group.
        micro_batches: Range<usize>,
    },
}

/// One step: its phases, and programs that run on every rank after an update that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepShape {
    /// Micro-batches of the step: a multiple of the lanes, at most those of [`Workload::batch`].
    pub micro_batches: usize,
    /// In order.
    pub phases: Vec<Phase>,
    /// Forward programs without a record: they see the step's sums and the fresh parameters, and
    /// they alone may write what every rank has (replicated states, frozen parameters).
    pub finally: Vec<ProgramId>,
}

/// The numbers of one optimizer step, after clipping by global norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdateSettings {
    /// Learning rate.
    pub learning_rate: f64,
    /// Largest global norm; infinite for no clipping.
    pub clip_norm: f64,
}

/// How an update treats one parameter, the same in every step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdateGroup {
    /// Factor of the step's learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// A held-out task: a forward program over numbered parts, whose results are added up.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationTask {
    /// Name in reports.
    pub name: String,
    /// A forward program.
    pub program: ProgramId,
    /// Number of parts, each one record.
    pub parts: u64,
    /// Steps between two evaluations, one more comes at the end; 0 for never, `None` for as often
    /// as the schedule says.
    pub every: Option<u64>,
    /// What is added up over the parts, in `F64`: tensors (`F32` or `I32`) that the program
    /// fetches, every element on its own, in this order.
    pub sums: Vec<String>,
    /// What the sums of all parts mean.
    pub reading: Reading,
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Findings {
    /// Mean loss per target, in nats; not a number without a target.
    pub loss: f64,
    /// Number of targets.
    pub targets: u64,
    /// Loss of the targets that are text, in bits per byte of that text.
    pub bits_per_byte: Option<f64>,
    /// Further numbers, by name.
    pub measures: Vec<(String, f64)>,
}

/// From the sums of all parts of a task to what they mean: a pure function.
#[derive(Clone)]
pub struct Reading(Arc<ReadingFunction>);

type ReadingFunction = dyn Fn(&[f64]) -> Findings + Send + Sync;

impl Reading {
    /// Such a function.
    pub fn new(function: impl Fn(&[f64]) -> Findings + Send + Sync + 'static) -> Self {
        Self(Arc::new(function))
    }

    /// Of a loss and its number of targets: the mean.
    pub fn mean() -> Self {
        Self::new(|sums| {
            let [sum, targets] = sums else { return Findings::default() };
            let targets = *targets as u64;
            Findings { loss: mean(*sum, targets), targets, ..Findings::default() }
        })
    }

    /// As [`Self::mean`]; and of the part of that loss on targets that are text, and the bytes of
    /// their text: the bits per byte.
    pub fn of_text() -> Self {
        Self::new(|sums| {
            let [sum, targets, text_sum, bytes] = sums else { return Findings::default() };
            let bits_per_byte = (*bytes > 0.0).then(|| text_sum / std::f64::consts::LN_2 / bytes);
            Findings { bits_per_byte, ..Self::mean().read(&[*sum, *targets]) }
        })
    }

    /// What these sums mean.
    pub fn read(&self, sums: &[f64]) -> Findings {
        (self.0)(sums)
    }
}

impl Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reading")
    }
}

impl PartialEq for Reading {
    /// Only the very same function is equal.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What a record is filled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A micro-batch of a step.
    Train {
        /// The batch, from 0: the step's own, or a later one where data was passed over.
        step: u64,
        /// 0 unless the step is repeated with larger programs.
        attempt: usize,
        /// The micro-batch within the step.
        micro_batch: usize,
    },
    /// A part of a task.
    Evaluate {
        /// Position in [`Workload::evaluations`].
        task: usize,
        /// The part.
        part: u64,
    },
}

/// The input bytes of one run of a program.
#[derive(Debug)]
pub struct Record<'a> {
    bytes: &'a mut [u8],
}

impl<'a> Record<'a> {
    /// A record over these bytes, at least [`Program::input_bytes`] and aligned to 64.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes }
    }

    /// The named input as elements. Panics if the program has no such input or it has another size.
    pub fn field<T: bytemuck::Pod>(&mut self, program: &Program, name: &str) -> &mut [T] {
        let missing = || panic!("program {} has no input {name}", program.name);
        let field = program.field(name).unwrap_or_else(missing);
        assert_eq!(field.spec.dtype.bytes(), size_of::<T>(), "{name} is {}", field.spec);
        bytemuck::cast_slice_mut(&mut self.bytes[field.offset..][..field.spec.bytes()])
    }
}

impl Record<'_> {
    /// Several inputs at once, as elements. Panics as [`Self::field`], and if a name comes twice.
    pub fn fields<T: bytemuck::Pod, const N: usize>(
        &mut self,
        program: &Program,
        names: [&str; N],
    ) -> [&mut [T]; N] {
        let ranges = names.map(|name| {
            let missing = || panic!("program {} has no input {name}", program.name);
            let field = program.field(name).unwrap_or_else(missing);
            assert_eq!(field.spec.dtype.bytes(), size_of::<T>(), "{name} is {}", field.spec);
            field.offset..field.offset + field.spec.bytes()
        });
        let parts = self.bytes.get_disjoint_mut(ranges).expect("inputs are apart and inside");
        parts.map(bytemuck::cast_slice_mut)
    }
}

/// The fetched results of one run.
pub trait Results {
    /// The leading rows of a fetched tensor, as [`Self::read`].
    ///
    /// # Errors
    /// As [`Self::read`].
    fn read_rows(&self, name: &str, rows: usize, into: &mut Vec<f32>) -> Result<(), Fault>;

    /// Copies a fetched tensor out: narrow floats widened, `I32` as the bits that it has.
    ///
    /// # Errors
    /// A fault of ours when nothing of that name is fetched; of the world from the device.
    fn read(&self, name: &str, into: &mut Vec<f32>) -> Result<(), Fault>;
}

/// What a conversation wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// One of the workload's `programs` over the record that it has filled.
    Run(ProgramId),
    /// Nothing now: it is asked again at once, without results, and may wait for a moment itself.
    Wait,
    /// Nothing any more.
    End,
}

/// A conversation with one rank: each run's record depends on what the last run gave (sampling).
pub trait Drive: Send {
    /// Fills the next record and names its program. `last` is what the last run gave, if one came
    /// just before.
    ///
    /// # Errors
    /// A fault, which ends the drive.
    fn next(
        &mut self,
        programs: &[Program],
        last: Option<&dyn Results>,
        record: &mut Record<'_>,
    ) -> Result<Turn, Fault>;
}

/// Everything the runtime must know about what is trained.
pub trait Workload: Debug + Send + Sync + 'static {
    /// Parameters, states and step buffers.
    fn variables(&self) -> &Variables;

    /// Their flat layout.
    fn layout(&self) -> &Layout;

    /// All programs of the run, sharing the variables.
    fn programs(&self) -> &[Program];

    /// The first values of a parameter: a pure function.
    fn first_values(&self, parameter: ParameterId) -> Vec<f32> {
        self.variables().first_values(parameter, self.seed())
    }

    /// Whether first values come from elsewhere, and may be gone or others by now: the first state
    /// is then saved, and found again only where it was.
    fn begins_elsewhere(&self) -> bool {
        false
    }

    /// How the largest step is cut.
    fn batch(&self) -> Batch;

    /// The run's seed.
    fn seed(&self) -> u64;

    /// The phases of a step with the batch number `step`: a pure function. `attempt` grows when a
    /// step overflowed.
    fn shape(&self, step: u64, attempt: usize) -> Arc<StepShape>;

    /// Shapes that memory is planned for: no step has more runs, records or marks on a rank than
    /// one of these. By default those of step 0.
    fn shapes(&self) -> Vec<Arc<StepShape>> {
        (0..self.attempts()).map(|attempt| self.shape(0, attempt)).collect()
    }

    /// How many attempts a step has before an overflow is a fault.
    fn attempts(&self) -> usize {
        1
    }

    /// How parameters change, and how what that needs is stored.
    fn optimizer(&self) -> &OptimizerSpec;

    /// Which of so many ranks owns what.
    fn ownership(&self, ranks: usize) -> Ownership {
        Ownership::even(self.layout(), ranks)
    }

    /// The optimizer's numbers for a step, a pure function.
    fn update(&self, step: u64) -> UpdateSettings;

    /// How updates treat a parameter. Neighbours that are treated alike are updated together.
    fn update_group(&self, parameter: ParameterId) -> UpdateGroup;

    /// Fills one record. Called from loader threads, in any order.
    ///
    /// # Errors
    /// A fault of the world, such as a damaged shard.
    fn fill(
        &self,
        purpose: Purpose,
        program: ProgramId,
        record: &mut Record<'_>,
    ) -> Result<(), Fault>;

    /// Held-out tasks.
    fn evaluations(&self) -> &[EvaluationTask] {
        &[]
    }

    /// A conversation to hold with rank 0 after a step, if one is due.
    fn drive(&self, _step: u64) -> Option<Box<dyn Drive>> {
        None
    }

    /// Number of the first sample of a step with the batch number `step`: a pure function, which
    /// does not decrease.
    fn samples_before(&self, step: u64) -> u64 {
        self.batch().first_sample(step, 0)
    }

    /// Samples of a step with the batch number `step`.
    fn samples_of(&self, step: u64) -> u64 {
        self.samples_before(step + 1) - self.samples_before(step)
    }

    /// Number of the first sample of a micro-batch within the run.
    fn first_sample(&self, step: u64, micro_batch: usize) -> u64 {
        self.samples_before(step) + (micro_batch * self.batch().micro) as u64
    }

    /// Tokens (or what the workload counts) of one sample.
    fn tokens_per_sample(&self) -> u64;

    /// Model FLOPs of one sample, recompute not counted.
    fn flops_per_sample(&self) -> f64;

    /// Tokens of the largest step.
    fn tokens_per_step(&self) -> u64 {
        self.batch().global as u64 * self.tokens_per_sample()
    }

    /// Model FLOPs of the largest step.
    fn flops_per_step(&self) -> f64 {
        self.batch().global as f64 * self.flops_per_sample()
    }
}
