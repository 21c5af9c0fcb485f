//! One rank: the thread that owns a device and runs worker, reducer and optimizer in turn.
//!
//! It alone issues work for its device, in step-plan order, so no two ranks can order collectives
//! differently. It waits only on the data path: for full slots, and in collectives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use octet_kernels::memory::DeviceSlice;

use crate::actor::{Actor, Flow, Port};
use crate::contract::{Record, Results, StepShape};
use crate::evaluator::EvaluatorMessage;
use crate::fault::{ActorName, Fault};
use crate::loader::{BatchSlot, parts_of};
use crate::optimizer::{Optimizer, OptimizerMessage};
use crate::outside::Clock;
use crate::rank_memory::{METRIC_BYTES, scalars};
use crate::reducer::{Reducer, ReducerMessage};
use crate::snapshot::Slot;
use crate::step_plan::{Entry, StepPlan};
use crate::transfer::{restore, save};
use crate::watchdog::{Activity, Pulse};
use crate::worker::{Engine, Fetched, Worker, WorkerMessage};

#[cfg(test)]
mod tests;

/// How long a rank waits for another rank in a collective, or for its loader. The watchdog names
/// whoever is stuck before that.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(900);

/// Shapes of steps whose plans are kept: as many as a recipe alternates between.
const PLANS_MAX: usize = 16;

/// The rank's protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RankMessage {
    /// Take parameters and optimizer state from a snapshot slot.
    Restore {
        /// The slot.
        slot: usize,
    },
    /// Run a step.
    Step {
        /// Number of the piece of work: which batch slot belongs to it.
        ticket: u64,
        /// The step, from 0.
        step: u64,
        /// How often it overflowed before.
        attempt: usize,
    },
    /// Run this rank's parts of a held-out task.
    Evaluate {
        /// Number of the piece of work.
        ticket: u64,
        /// Position of the task.
        task: usize,
        /// Steps done.
        step: u64,
    },
    /// Hold the conversation that is due after `step` steps, if this is rank 0.
    Drive {
        /// Steps done.
        step: u64,
    },
    /// Copy this rank's part of the state into a snapshot slot.
    Snapshot {
        /// The slot.
        slot: usize,
    },
    /// Leave.
    Stop,
}

/// What a rank tells the supervisor.
#[derive(Debug, Clone, PartialEq)]
pub enum RankReply {
    /// Parameters are in place.
    Restored,
    /// A step is done.
    Stepped(Box<StepOutcome>),
    /// All parts are with the evaluator.
    Evaluated,
    /// The conversation is over.
    Drove,
    /// The slot holds this rank's part.
    Snapped {
        /// Milliseconds that it took.
        ms: f64,
    },
}

/// What a run fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunScalars {
    /// The micro-batch.
    pub micro_batch: usize,
    /// The program.
    pub program: usize,
    /// The fetched scalars' bits, in fetch order.
    pub words: Vec<u32>,
}

/// One rank's view of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutcome {
    /// Scalars of the rank's runs, in plan order.
    pub runs: Vec<RunScalars>,
    /// Global gradient norm.
    pub norm: f64,
    /// The update was skipped, since the norm is not finite or something overflowed.
    pub skipped: bool,
    /// A live extent overflowed on some rank.
    pub overflow: bool,
    /// The step was given up at a micro-batch's end, to save and stop: it changed nothing.
    pub abandoned: bool,
    /// By bucket: fingerprint of this rank's shard.
    pub fingerprint: Vec<u64>,
    /// Milliseconds waited for a batch.
    pub loader_ms: f64,
    /// Milliseconds in collectives.
    pub reduce_ms: f64,
}

/// A rank's ends of the data path.
#[derive(Debug)]
pub struct DataPath {
    /// Full slots from the loader.
    pub full: Receiver<BatchSlot>,
    /// Empty slots back to it.
    pub free: Sender<BatchSlot>,
}

/// Everything that a rank is connected to.
pub struct RankEnds {
    /// The snapshot slots.
    pub slots: Vec<Slot>,
    /// The loader.
    pub data: DataPath,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Hears of everything that is done.
    pub supervisor: Port<RankReply>,
    /// Hears of every held-out part.
    pub evaluator: Port<EvaluatorMessage>,
    /// Set once: give up at the next micro-batch.
    pub abandon: Arc<AtomicBool>,
    /// Shows the watchdog that it lives.
    pub pulse: Option<Pulse>,
}

/// All that a step needs.
pub(crate) struct Ready {
    pub(crate) plan: Arc<StepPlan>,
    pub(crate) batch: BatchSlot,
    loader_ms: f64,
}

/// The actor.
pub struct Rank {
    engine: Engine,
    worker: Worker,
    reducer: Reducer,
    optimizer: Optimizer,
    slots: Vec<Slot>,
    data: DataPath,
    clock: Arc<dyn Clock>,
    supervisor: Port<RankReply>,
    evaluator: Port<EvaluatorMessage>,
    abandon: Arc<AtomicBool>,
    pulse: Option<Pulse>,
    plans: Vec<(Arc<StepShape>, Arc<StepPlan>)>,
}

impl Rank {
    /// A rank on its engine.
    pub fn new(engine: Engine, ends: RankEnds) -> Self {
        let optimizer = Optimizer::new(&*engine.workload, engine.memory.ranks);
        let RankEnds { slots, data, clock, supervisor, evaluator, abandon, pulse } = ends;
        Self {
            engine,
            worker: Worker,
            reducer: Reducer,
            optimizer,
            slots,
            data,
            clock,
            supervisor,
            evaluator,
            abandon,
            pulse,
            plans: Vec::new(),
        }
    }

    /// The whole step: every entry of the plan in order, then the norm, then the update. It takes
    /// no memory. Returns the milliseconds in collectives.
    pub(crate) fn step(
        &mut self,
        plan: &StepPlan,
        batch: &BatchSlot,
        step: u64,
    ) -> Result<f64, Fault> {
        let (engine, clock) = (&self.engine, &*self.clock);
        let settings = engine.workload.update(step);
        let mut reduce_ms = 0.0;
        let mut abandoned = false;
        for entry in &plan.entries {
            if let Entry::Run(run) = entry {
                // Only at a micro-batch's begin; the rank still meets the others in collectives.
                abandoned |= run.load && self.abandon.load(Ordering::Relaxed);
                if abandoned {
                    continue;
                }
            }
            let work = match entry {
                Entry::Begin => Ok(WorkerMessage::Begin),
                Entry::Zero { buffer, parameters } => Ok(WorkerMessage::Zero(*buffer, parameters)),
                Entry::Run(run) => Ok(WorkerMessage::Run(run, batch.record(run.record), step)),
                Entry::Fold { into, from, elements } => {
                    Ok(WorkerMessage::Fold(*into, *from, elements.clone()))
                }
                Entry::Gather { parts } => Err(ReducerMessage::Gather(parts)),
                Entry::Broadcast { root, span } => Err(ReducerMessage::Broadcast(*root, *span)),
                Entry::Reduce { bucket } => Err(ReducerMessage::Reduce(*bucket)),
                Entry::SumStates => Err(ReducerMessage::SumStates),
            };
            match work {
                Ok(message) => {
                    beat(&self.pulse, Activity::Computing);
                    self.worker.apply(engine, message)?;
                }
                Err(message) => {
                    beat(&self.pulse, Activity::WaitingForRanks);
                    let start = seconds(clock);
                    self.reducer.apply(engine, message)?;
                    reduce_ms += (seconds(clock) - start) * 1e3;
                }
            }
        }
        beat(&self.pulse, Activity::WaitingForRanks);
        let clip_norm = settings.clip_norm;
        self.optimizer.apply(engine, OptimizerMessage::Norm { clip_norm, abandoned })?;
        if !self.skips() {
            self.optimizer.apply(engine, OptimizerMessage::Update { settings, step })?;
            for &program in &plan.finally {
                self.worker.apply(engine, WorkerMessage::Forward(program, None, step))?;
            }
        }
        Ok(reduce_ms)
    }

    fn skips(&self) -> bool {
        self.optimizer.abandoned || self.optimizer.overflow || !self.optimizer.norm.finite
    }

    fn take_step(&mut self, ticket: u64, step: u64, attempt: usize) -> Result<RankReply, Fault> {
        let ready = self.make_ready(ticket, step, attempt)?;
        let reduce_ms = self.step(&ready.plan, &ready.batch, step)?;
        Ok(self.outcome(ready, reduce_ms))
    }

    /// The plan of a step and its batch.
    pub(crate) fn make_ready(
        &mut self,
        ticket: u64,
        step: u64,
        attempt: usize,
    ) -> Result<Ready, Fault> {
        let shape = self.engine.workload.shape(step, attempt);
        let plan = self.plan(&shape)?;
        let start = seconds(&*self.clock);
        let batch = self.batch(ticket)?;
        let loader_ms = (seconds(&*self.clock) - start) * 1e3;
        Ok(Ready { plan, batch, loader_ms })
    }

    /// What the step that was just taken gave. It is the report that takes memory, not the step.
    pub(crate) fn outcome(&mut self, ready: Ready, reduce_ms: f64) -> RankReply {
        self.hand_back(ready.batch);
        let runs = self.scalars(&ready.plan);
        RankReply::Stepped(Box::new(StepOutcome {
            runs,
            norm: self.optimizer.norm.norm,
            skipped: self.skips(),
            overflow: self.optimizer.overflow,
            abandoned: self.optimizer.abandoned,
            fingerprint: self.optimizer.fingerprint.clone(),
            loader_ms: ready.loader_ms,
            reduce_ms,
        }))
    }

    fn plan(&mut self, shape: &Arc<StepShape>) -> Result<Arc<StepPlan>, Fault> {
        if let Some((_, plan)) = self.plans.iter().find(|(s, _)| s == shape) {
            return Ok(plan.clone());
        }
        let memory = &self.engine.memory;
        let plan = StepPlan::new(&*self.engine.workload, shape, memory.ranks, memory.rank)
            .map_err(|e| Fault::ours(self.name(), e))?;
        let rows = memory.metrics.bytes / (memory.columns * METRIC_BYTES).max(1);
        if memory.columns > 0 && plan.rows > rows {
            let what = format!("a step of {} runs, planned for {rows}", plan.rows);
            return Err(Fault::ours(self.name(), what));
        }
        if self.plans.len() == PLANS_MAX {
            self.plans.remove(0);
        }
        let plan = Arc::new(plan);
        self.plans.push((shape.clone(), plan.clone()));
        Ok(plan)
    }

    /// The next slot of this work; slots of abandoned work go back.
    fn batch(&self, ticket: u64) -> Result<BatchSlot, Fault> {
        beat(&self.pulse, Activity::WaitingFor(ActorName::Loader(self.engine.memory.rank)));
        loop {
            let slot = self.data.full.recv_timeout(PEER_TIMEOUT).map_err(|e| match e {
                RecvTimeoutError::Timeout => Fault::world(self.name(), "no batch in 15 minutes"),
                RecvTimeoutError::Disconnected => Fault::world(self.name(), "the loader is gone"),
            })?;
            if slot.ticket == ticket {
                return Ok(slot);
            }
            self.hand_back(slot);
        }
    }

    fn hand_back(&self, slot: BatchSlot) {
        // A loader that is gone is its own fault, not this rank's.
        let _gone = self.data.free.send(slot);
    }

    fn scalars(&self, plan: &StepPlan) -> Vec<RunScalars> {
        let memory = &self.engine.memory;
        let table: DeviceSlice = self.engine.arena.slice(memory.metrics);
        // SAFETY: the step is over; the table belongs to this thread.
        let table: &[u32] = unsafe { table.as_slice() };
        let finished = plan.runs().filter_map(|run| Some((run, run.row?)));
        finished
            .map(|(run, row)| {
                let count = scalars(&self.engine.workload.programs()[run.program.0]);
                let words = table[row * memory.columns..][..count].to_vec();
                RunScalars { micro_batch: run.micro_batch, program: run.program.0, words }
            })
            .collect()
    }

    fn evaluate(&mut self, ticket: u64, task: usize, step: u64) -> Result<RankReply, Fault> {
        let about = self.engine.workload.evaluations()[task].clone();
        let mut parts =
            parts_of(about.parts, self.engine.memory.rank, self.engine.memory.ranks).peekable();
        while parts.peek().is_some() && !self.abandon.load(Ordering::Relaxed) {
            let batch = self.batch(ticket)?;
            for record in 0..batch.filled {
                beat(&self.pulse, Activity::Evaluating);
                let index = parts.next().expect("a record for every part");
                let bytes = Some(batch.record(record));
                self.worker.apply(&self.engine, WorkerMessage::Forward(about.program, bytes, 0))?;
                let fetched = Fetched { engine: &self.engine, program: about.program };
                let loss_sum = f64::from(fetched.floats("loss_sum")?[0]);
                let targets = u64::from(fetched.floats("targets")?[0].to_bits());
                self.evaluator.tell(EvaluatorMessage::Part {
                    step,
                    task,
                    index,
                    loss_sum,
                    targets,
                });
            }
            self.hand_back(batch);
        }
        Ok(RankReply::Evaluated)
    }

    fn drive(&mut self, step: u64) -> Result<RankReply, Fault> {
        let drive = (self.engine.memory.rank == 0).then(|| self.engine.workload.drive(step));
        let Some(Some(mut drive)) = drive else { return Ok(RankReply::Drove) };
        let programs = self.engine.workload.programs();
        let bytes = self.engine.memory.input.bytes.next_multiple_of(64);
        let mut record = vec![[0u64; 8]; bytes / 64];
        let mut last = None;
        loop {
            let mut writer = Record::new(bytemuck::cast_slice_mut(&mut record));
            let fetched = last.map(|program| Fetched { engine: &self.engine, program });
            let results = fetched.as_ref().map(|f| f as &dyn Results);
            beat(&self.pulse, Activity::Computing);
            if self.abandon.load(Ordering::Relaxed) {
                break;
            }
            let Some(program) = drive.next(programs, results, &mut writer)? else { break };
            let bytes = Some(bytemuck::cast_slice(&record));
            self.worker.apply(&self.engine, WorkerMessage::Forward(program, bytes, step))?;
            last = Some(program);
        }
        Ok(RankReply::Drove)
    }
}

impl Actor for Rank {
    type Message = RankMessage;

    fn name(&self) -> ActorName {
        self.engine.name()
    }

    fn apply(&mut self, message: RankMessage) -> Result<Flow, Fault> {
        let reply = match message {
            RankMessage::Restore { slot } => {
                beat(&self.pulse, Activity::Starting);
                restore(&self.engine, &self.slots[slot]);
                RankReply::Restored
            }
            RankMessage::Step { ticket, step, attempt } => self.take_step(ticket, step, attempt)?,
            RankMessage::Evaluate { ticket, task, step } => self.evaluate(ticket, task, step)?,
            RankMessage::Drive { step } => self.drive(step)?,
            RankMessage::Snapshot { slot } => {
                beat(&self.pulse, Activity::Saving);
                let start = seconds(&*self.clock);
                save(&self.engine, &self.slots[slot]);
                RankReply::Snapped { ms: (seconds(&*self.clock) - start) * 1e3 }
            }
            RankMessage::Stop => return Ok(Flow::Stop),
        };
        beat(&self.pulse, Activity::Idle);
        self.supervisor.tell(reply);
        Ok(Flow::Continue)
    }
}

/// Compute threads of each rank when ranks share the cores of one machine.
pub fn threads_per_rank(cores: usize, ranks: usize) -> usize {
    (cores / ranks).max(1)
}

fn beat(pulse: &Option<Pulse>, activity: Activity) {
    if let Some(pulse) = pulse {
        pulse.beat(activity);
    }
}

fn seconds(clock: &dyn Clock) -> f64 {
    clock.monotonic().as_secs_f64()
}
