//! Training steps without a run around them: how fast they are, and where their time goes.
//!
//! One rank, random tokens, nothing written. It issues the very step plan of a run; a profile
//! issues it node by node, so its sum is a little above an ordinary step's time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use octet_actors::contract::{ProgramId, Purpose, Record, Workload};
use octet_actors::crew::{Crew, StepInput};
use octet_actors::engine::Engine;
use octet_actors::rank::StepNumbers;
use octet_actors::rank_memory::{RankMemory, Zero};
use octet_actors::snapshot::{SnapshotLayout, SnapshotSlots};
use octet_actors::step_plan::{Entry, Run, StepPlan, Work, records};
use octet_actors::transfer::{initialise, restore};
use octet_kernels::cpu::CpuDevice;
use octet_kernels::cpu::gemm::{Matrix, Output, Size};
use octet_kernels::device::Backend;
use octet_kernels::graph::{Cost, Target};

use crate::backend::Chosen;
use crate::config::Config;
use crate::experiment::Experiment;
use crate::failure::Failure;
use crate::text::Text;

#[cfg(test)]
mod tests;

/// Side of the square matrices whose product is the machine's measured peak.
const PEAK_SIDE: usize = 1024;

/// There is only one rank to wait for.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What took how long, summed over the steps that were given the profile.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Share {
    /// How often it ran.
    pub count: usize,
    /// Seconds.
    pub seconds: f64,
    /// FLOPs, as the ops count them.
    pub flops: f64,
    /// Bytes of operands, each read or written once.
    pub bytes: f64,
}

/// Time by op name, and by entry of the step plan for what is no op.
pub type Profile = BTreeMap<&'static str, Share>;

/// A model, its state and one step's records.
pub struct StepBench {
    engine: Engine,
    crew: Crew,
    chosen: Chosen,
    plan: StepPlan,
    records: Vec<Vec<u64>>,
    step: u64,
}

impl StepBench {
    /// Builds the model of `config` on what was chosen and draws tokens below `vocabulary`.
    ///
    /// # Errors
    /// [`Failure`] for a configuration whose parts do not fit together, or too little memory.
    pub fn new(config: &Config, vocabulary: usize, chosen: Chosen) -> Result<Self, Failure> {
        let text = Some(Text::random(config, vocabulary));
        let workload: Arc<dyn Workload> =
            Arc::new(Experiment::for_target(config, vocabulary, text, chosen.target)?);
        let memory = RankMemory::new(&*workload, 1, 0, Zero::Zero1)?;
        let largest = workload.shapes();
        let plan = StepPlan::new(&*workload, &largest[0], 1, 0, Zero::Zero1)?;
        let lanes = 0..workload.batch().lanes;
        let records = records(&*workload, &largest[0], &lanes);
        let records = records.into_iter().map(|(m, program)| record(&*workload, m, program));
        let records = records.collect::<Result<Vec<_>, _>>()?;
        let open = chosen.backend.open(1, TIMEOUT)?.remove(0);
        let (device, communicator) = open()?;
        let engine = Engine::new(workload, memory, device)?;
        let crew = Crew::new(&engine, communicator)?;
        first_state(&engine)?;
        Ok(Self { engine, crew, chosen, plan, records, step: 0 })
    }

    /// Tokens of a step.
    pub fn tokens(&self) -> u64 {
        self.engine.workload.tokens_per_step()
    }

    /// Model FLOPs of a step.
    pub fn flops(&self) -> f64 {
        self.engine.workload.flops_per_step()
    }

    /// Runs a step to its end and returns its seconds. With a profile, adds up what took how long:
    /// a device is waited for behind each piece.
    ///
    /// # Errors
    /// [`Failure`] from an op that meets other devices.
    pub fn step(&mut self, mut profile: Option<&mut Profile>) -> Result<f64, Failure> {
        let (engine, crew, step) = (&self.engine, &mut self.crew, self.step);
        let settings = engine.workload.update(step);
        let record = |record: usize| bytemuck::cast_slice(&self.records[record]);
        let numbers = StepNumbers { step, batch: step, updates: Some(step) };
        let input = StepInput { numbers, settings, round: 0, call: None, record: &record };
        let start = Instant::now();
        for entry in &self.plan.entries {
            match (&mut profile, &entry.work) {
                (None, _) => crew.issue(engine, entry, &input)?,
                (Some(profile), Work::Run(run)) => {
                    by_node(crew, engine, (entry, run), &input, profile)?;
                }
                (Some(profile), work) => {
                    let issue = || crew.issue(engine, entry, &input);
                    timed(engine, profile, (name(work), Cost::default()), issue)?;
                }
            }
        }
        engine.device.finish()?;
        self.step += 1;
        Ok(start.elapsed().as_secs_f64())
    }

    /// FLOP/s of a large matrix product on the same threads and of the model's precision, the best
    /// of a few; of a GPU, what its data sheet says of products of bf16.
    pub fn peak(&self) -> f64 {
        let threads = match (self.chosen.target, self.chosen.backend) {
            (Target::Gpu(gpu), _) => return gpu.half_flops_per_s,
            (_, Backend::Cpu { threads }) => threads,
            (_, Backend::Cuda { .. }) => 1,
        };
        let side = PEAK_SIDE;
        let (a, b) = (vec![1.0f32; side * side], vec![1.0f32; side * side]);
        let mut c = vec![0.0f32; side * side];
        let size = Size { m: side, n: side, k: side };
        let device = CpuDevice::new(threads);
        let precision = self.engine.workload.programs()[0].matmul;
        let mut seconds = f64::INFINITY;
        for _ in 0..8 {
            let start = Instant::now();
            let output = Output::new(&mut c, side, false);
            let [a, b] = [&a, &b].map(|data| Matrix::rows(data, side).rounded(precision));
            device.gemm(size, a, b, output);
            seconds = seconds.min(start.elapsed().as_secs_f64());
        }
        2.0 * (side * side * side) as f64 / seconds
    }
}

/// What stands in the profile for work that is no op.
fn name(work: &Work) -> &'static str {
    match work {
        Work::Begin => "(begin)",
        Work::Zero { .. } => "(zero)",
        Work::Load(_) => "(load)",
        Work::Run(_) => "(run)",
        Work::Keep(_) => "(keep)",
        Work::Fold { .. } => "(fold)",
        Work::Gather { .. } | Work::Broadcast { .. } | Work::SumStates => "(exchange)",
        Work::Reduce { .. } => "(reduce)",
        Work::Squares | Work::GatherSquares | Work::Decide => "(norm)",
        Work::Update { .. } => "(update)",
        Work::GatherParameters { .. } => "(gather)",
        Work::Outcome => "(outcome)",
        Work::Finally { .. } => "(finally)",
        Work::Rest | Work::Save { .. } | Work::SaveShared => "(save)",
    }
}

/// Runs the nodes of a run one at a time.
fn by_node(
    crew: &mut Crew,
    engine: &Engine,
    (entry, run): (&Entry, &Run),
    input: &StepInput<'_>,
    profile: &mut Profile,
) -> Result<(), Failure> {
    let program = &engine.workload.programs()[run.program.0];
    for (i, cost) in program.costs().enumerate().take(run.nodes.end).skip(run.nodes.start) {
        let work = Work::Run(Run { nodes: i..i + 1, ..run.clone() });
        let node = Entry { work, ..entry.clone() };
        timed(engine, profile, (cost.op, cost.cost), || crew.issue(engine, &node, input))?;
    }
    Ok(())
}

/// Does some work, waits for it, and notes how long it took.
fn timed<E: Into<Failure>>(
    engine: &Engine,
    profile: &mut Profile,
    (name, cost): (&'static str, Cost),
    work: impl FnOnce() -> Result<(), E>,
) -> Result<(), Failure> {
    let start = Instant::now();
    work().map_err(Into::into)?;
    engine.device.finish()?;
    let share = profile.entry(name).or_default();
    share.count += 1;
    share.seconds += start.elapsed().as_secs_f64();
    share.flops += cost.flops;
    share.bytes += cost.bytes;
    Ok(())
}

/// Initial parameters and moments of zero.
fn first_state(engine: &Engine) -> Result<(), Failure> {
    let workload = &*engine.workload;
    let layout = Arc::new(SnapshotLayout::of(workload));
    let slot = SnapshotSlots::create(layout.bytes())?.slot(0, &layout);
    initialise(workload, &slot);
    restore(engine, &slot)?;
    Ok(())
}

/// The record of a micro-batch of the first step.
fn record(
    workload: &dyn Workload,
    micro_batch: usize,
    program: ProgramId,
) -> Result<Vec<u64>, Failure> {
    let bytes = workload.programs()[program.0].input_bytes;
    let mut words = vec![0u64; bytes.div_ceil(size_of::<u64>())];
    let purpose = Purpose::Train { step: 0, attempt: 0, micro_batch };
    workload.fill(purpose, program, &mut Record::new(bytemuck::cast_slice_mut(&mut words)))?;
    Ok(words)
}
