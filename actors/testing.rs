//! How the runtime is tested: workloads made of closures, and ranks as plain threads without
//! supervisor or disk. Public for the tests of other packages; not part of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, unbounded};
use octet_kernels::device::{Backend, Open};
use octet_kernels::graph::{Layout, Ownership, ParameterId, Program, Variables};
use octet_kernels::lazy;
use octet_kernels::ops::adamw::AdamW;
use octet_kernels::update::{OptimizerSpec, Storage};

use crate::actor::{Actor, Closed, Port};
use crate::agreement::Agreement;
use crate::contract::{
    Batch, Drive, EvaluationTask, ProgramId, Purpose, Record, StepShape, UpdateGroup,
    UpdateSettings, Workload,
};
use crate::engine::Engine;
use crate::fault::{ActorName, Fault};
use crate::loader::{BatchSlot, Loader, LoaderMessage, Order};
use crate::outside::SystemClock;
use crate::rank::{DataPath, Rank, RankEnds, RankMessage, RankReply, StepNumbers, StepOutcome};
use crate::rank_memory::{RankMemory, Zero};
use crate::report::StepReport;
use crate::snapshot::{LogicalTensor, Slot, SnapshotLayout, SnapshotSlots};
use crate::step_report::{StepAt, Times, step_report};
use crate::transfer::initialise;

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

/// What a trial on plain threads gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Of parameters, moments and cursor.
    pub digest: String,
    /// Reports of all steps; times are zero.
    pub reports: Vec<StepReport>,
    /// How often each step was tried.
    pub attempts: Vec<usize>,
    /// What the snapshot at the end holds, by name.
    pub tensors: BTreeMap<String, Vec<u8>>,
}

impl Trial {
    /// A saved tensor of four-byte elements. Panics if there is none of that name.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        let bytes = self.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name} is saved"));
        bytes.chunks_exact(size_of::<f32>()).map(bytemuck::pod_read_unaligned).collect()
    }
}

/// A stretch of a run; the next leg goes on from the snapshot that this one leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// Number of ranks.
    pub ranks: usize,
    /// Placement of the optimizer state.
    pub zero: Zero,
    /// Number of steps.
    pub steps: u64,
}

/// Trains on `ranks` plain threads.
///
/// # Errors
/// The first fault of any rank.
pub fn train(
    workload: &Arc<dyn Workload>,
    ranks: usize,
    zero: Zero,
    steps: u64,
) -> Result<Trial, Fault> {
    train_in_legs(workload, &[Leg { ranks, zero, steps }])
}

/// Trains on plain threads, stopped after every leg and resumed on other ranks: on devices that do
/// everything at once, and again on devices whose streams run late, which must give the same.
///
/// # Errors
/// The first fault of any rank; one of ours if it is not the same.
pub fn train_in_legs(workload: &Arc<dyn Workload>, legs: &[Leg]) -> Result<Trial, Fault> {
    let trial = train_in(workload, legs, Setting::default())?;
    let late = |ranks| lazy::open(ranks, 1, None);
    let other = train_in(workload, legs, Setting { devices: &late, ..Setting::default() })?;
    // Losses may be no numbers, which are not equal to themselves.
    let all = |trial: &Trial| format!("{} {:?}", trial.digest, (&trial.reports, &trial.attempts));
    if all(&trial) != all(&other) {
        let what = format!("late streams give {}\nand not {}", all(&other), all(&trial));
        return Err(Fault::ours(ActorName::Supervisor, what));
    }
    Ok(trial)
}

/// Opens the devices of so many ranks.
pub type Devices<'d> = &'d dyn Fn(usize) -> Vec<Open>;

/// Changes the first values of a parameter, given its name; values are `f32` master weights.
pub type FirstValues<'f> = &'f dyn Fn(&str, &mut [f32]);

/// Called on a rank's thread at the two ends of what may not take memory: when plan and batch are
/// there, and when the step is given to the device, before the report is made.
pub type Watch = Arc<dyn Fn(u64, Moment) + Send + Sync>;

/// An end of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It begins.
    Before,
    /// It is done.
    After,
}

/// How a trial is run, besides what is trained by whom.
#[derive(Clone, Copy)]
pub struct Setting<'s> {
    /// What ranks compute on.
    pub devices: Devices<'s>,
    /// Other first values of the trainable parameters than the workload's.
    pub first_values: FirstValues<'s>,
    /// Who looks at every step.
    pub watch: Option<&'s Watch>,
    /// Batches of the data's order that are passed over before the first step.
    pub passed_over: u64,
}

impl Default for Setting<'_> {
    /// The CPU, which does everything at once.
    fn default() -> Self {
        fn at_once(ranks: usize) -> Vec<Open> {
            let cpu = Backend::Cpu { threads: 1 }.open(ranks, Duration::from_secs(60));
            cpu.expect("the CPU is there")
        }
        Self { devices: &at_once, first_values: &|_, _| (), watch: None, passed_over: 0 }
    }
}

/// As [`train_in_legs`], from other first values of the trainable parameters than the workload's.
///
/// # Errors
/// The first fault of any rank.
pub fn train_from(
    workload: &Arc<dyn Workload>,
    first_values: FirstValues<'_>,
    legs: &[Leg],
) -> Result<Trial, Fault> {
    train_in(workload, legs, Setting { first_values, ..Setting::default() })
}

/// As [`train_in_legs`], under the eyes of `watch`.
///
/// # Errors
/// The first fault of any rank.
pub fn train_watched(
    workload: &Arc<dyn Workload>,
    legs: &[Leg],
    watch: &Watch,
) -> Result<Trial, Fault> {
    train_in(workload, legs, Setting { watch: Some(watch), ..Setting::default() })
}

/// Trains on plain threads in a setting, once.
///
/// # Errors
/// The first fault of any rank.
pub fn train_in(
    workload: &Arc<dyn Workload>,
    legs: &[Leg],
    setting: Setting<'_>,
) -> Result<Trial, Fault> {
    let layout = Arc::new(SnapshotLayout::of(&**workload));
    let slots = SnapshotSlots::create(layout.bytes()).expect("memory for snapshots");
    let slot = slots.slot(0, &layout);
    initialise(&**workload, &slot);
    for parameter in workload.variables().parameters().iter().filter(|p| p.trainable) {
        let tensor = layout.tensors().iter().find(|t| t.name == parameter.name);
        let values = slot.tensor(tensor.expect("every parameter is in the slot"));
        // SAFETY: nobody else has the slot before the first rank starts.
        (setting.first_values)(&parameter.name, unsafe { values.as_mut_slice() });
    }
    let times = Times { seconds: 1.0, checkpoint_ms: 0.0 };
    let (mut reports, mut attempts) = (Vec::new(), Vec::new());
    for leg in legs {
        let first = reports.len() as u64;
        let by_rank = run_leg(workload, leg, &slot, first, setting)?;
        for step in 0..leg.steps {
            let of_step = |rank: &Vec<Tried>| rank[step as usize].outcome.clone();
            let outcomes: Vec<StepOutcome> = by_rank.iter().map(of_step).collect();
            let tokens = workload.samples_before(first + step) * workload.tokens_per_sample();
            let batch = setting.passed_over + first + step;
            let at = StepAt { step: first + step, batch, tokens };
            let mut report = step_report(&**workload, at, &outcomes, times);
            report.wait_ms = crate::report::WaitMs::default();
            reports.push(report);
            attempts.push(by_rank[0][step as usize].attempts);
        }
    }
    let steps = reports.len() as u64;
    slot.commit(steps, &serde_json::json!({ "step": steps }), 1).expect("the cursor is short");
    let digest = slot.seal().expect("it was committed");
    let view = slot.view().expect("it was committed");
    let tensor = |t: &LogicalTensor| (t.name.clone(), view.bytes(t).to_vec());
    let tensors = layout.tensors().iter().map(tensor).collect();
    Ok(Trial { digest, reports, attempts, tensors })
}

/// What every step said to every rank: by rank, then by step.
///
/// # Errors
/// The first fault of any rank.
pub fn outcomes(
    workload: &Arc<dyn Workload>,
    leg: &Leg,
    setting: Setting<'_>,
) -> Result<Vec<Vec<StepOutcome>>, Fault> {
    let layout = Arc::new(SnapshotLayout::of(&**workload));
    let slots = SnapshotSlots::create(layout.bytes()).expect("memory for snapshots");
    let slot = slots.slot(0, &layout);
    initialise(&**workload, &slot);
    let by_rank = run_leg(workload, leg, &slot, 0, setting)?;
    let outcome = |rank: Vec<Tried>| rank.into_iter().map(|tried| tried.outcome).collect();
    Ok(by_rank.into_iter().map(outcome).collect())
}

/// A step as one rank saw it.
struct Tried {
    attempts: usize,
    outcome: StepOutcome,
}

/// Outcomes by rank, then by step.
fn run_leg(
    workload: &Arc<dyn Workload>,
    leg: &Leg,
    slot: &Slot,
    first: u64,
    setting: Setting<'_>,
) -> Result<Vec<Vec<Tried>>, Fault> {
    let Leg { ranks, zero, steps } = *leg;
    let mut stands = Vec::new();
    for (rank, open) in (setting.devices)(ranks).into_iter().enumerate() {
        let (workload, slot) = (workload.clone(), slot.clone());
        let (watch, passed_over) = (setting.watch.cloned(), setting.passed_over);
        stands.push(thread::spawn(move || {
            let mut stand = Stand::new(&workload, open, rank, ranks, zero, slot);
            (stand.watch, stand.passed_over) = (watch, passed_over);
            stand.run(first..first + steps)
        }));
    }
    stands.into_iter().map(|stand| stand.join().expect("a rank panicked")).collect()
}

/// One rank and its loader, fed by hand.
struct Stand {
    rank: Rank,
    loader: Loader,
    replies: Receiver<RankReply>,
    free: Receiver<BatchSlot>,
    attempts: usize,
    watch: Option<Watch>,
    passed_over: u64,
}

impl Stand {
    fn new(
        workload: &Arc<dyn Workload>,
        open: Open,
        rank: usize,
        ranks: usize,
        zero: Zero,
        slot: Slot,
    ) -> Self {
        let memory = RankMemory::new(&**workload, ranks, rank, zero).expect("a plan");
        let (full_in, full) = unbounded();
        let (free_in, free) = unbounded();
        let to_rank = Port::new(move |slot| full_in.send(slot).map_err(|_| Closed));
        let loader = Loader::new(workload.clone(), &memory.tree, rank, to_rank);
        let (replies_in, replies) = unbounded();
        let (device, communicator) = open().expect("the CPU is there");
        let engine = Engine::new(workload.clone(), memory, device).expect("memory");
        poison(&engine);
        let ends = RankEnds {
            slots: vec![slot],
            data: DataPath { full, free: free_in },
            clock: Arc::new(SystemClock::new()),
            supervisor: Port::new(move |reply| replies_in.send(reply).map_err(|_| Closed)),
            evaluator: Port::new(|_| Ok(())),
            agreement: Arc::new(Agreement::default()),
            pulse: None,
        };
        let attempts = workload.attempts();
        let rank = Rank::new(engine, communicator, ends).expect("memory");
        Self { rank, loader, replies, free, attempts, watch: None, passed_over: 0 }
    }

    fn run(mut self, steps: Range<u64>) -> Result<Vec<Tried>, Fault> {
        self.rank.apply(RankMessage::Restore { slot: 0 })?;
        assert_eq!(self.replies.recv(), Ok(RankReply::Restored));
        let mut outcomes = Vec::new();
        for step in steps {
            for attempt in 0..self.attempts {
                let outcome = self.step(step, attempt)?;
                if !outcome.overflow || attempt + 1 == self.attempts {
                    outcomes.push(Tried { attempts: attempt + 1, outcome });
                    break;
                }
            }
            self.rank.apply(RankMessage::Drive { step: step + 1 })?;
            assert_eq!(self.replies.recv(), Ok(RankReply::Drove));
        }
        self.rank.apply(RankMessage::Snapshot { slot: 0 })?;
        Ok(outcomes)
    }

    fn step(&mut self, step: u64, attempt: usize) -> Result<StepOutcome, Fault> {
        let ticket = step * self.attempts as u64 + attempt as u64;
        while let Ok(slot) = self.free.try_recv() {
            self.loader.apply(LoaderMessage::Free(slot))?;
        }
        let batch = step + self.passed_over;
        self.loader.apply(LoaderMessage::Order(Order::Step { ticket, batch, attempt }))?;
        // What the message `Step` does, in its three parts.
        let ready = self.rank.make_ready(ticket, batch, attempt)?;
        let watch = |moment| self.watch.iter().for_each(|watch| watch(step, moment));
        watch(Moment::Before);
        let numbers = StepNumbers { step, batch, updates: Some(step) };
        let given = self.rank.step(&ready, numbers)?;
        watch(Moment::After);
        match self.rank.outcome(ready, &given)? {
            RankReply::Stepped(outcome) => Ok(*outcome),
            other => panic!("instead of a step: {other:?}"),
        }
    }
}

/// Fills what a run must not rely on with NaN: nobody reads an activation, an input or a step
/// buffer that was not written before.
fn poison(engine: &Engine) {
    let memory = &engine.memory;
    let [one, other] = memory.input;
    for span in [memory.activations, one, other, memory.step, memory.staging] {
        // SAFETY: nobody else has the memory yet.
        unsafe { engine.device.upload(&vec![0xFF; span.bytes], engine.slice(span)) }
            .expect("memory");
    }
}

/// Whether a folder or file that a test would like to use is there; says so on stderr if not.
pub fn have(path: &Path) -> bool {
    use std::io::Write;
    let found = path.exists();
    if !found {
        let _closed = writeln!(std::io::stderr(), "skipped: {} is absent", path.display());
    }
    found
}
