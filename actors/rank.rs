//! One rank: the thread that owns a device and runs worker, reducer and optimizer in turn.
//!
//! It alone issues work for its device, in step-plan order, so no two ranks can order collectives
//! differently. It waits only on the data path: for full slots, and in collectives.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use octet_kernels::collectives::Communicator;
use octet_kernels::device::{Decision, OVERFLOW, Pinned};
use octet_kernels::ops::Stream;

use crate::actor::{Actor, Flow, Port};
use crate::agreement::{Agreement, UPDATE};
use crate::contract::{Record, Results, StepShape, Turn};
use crate::crew::{Crew, StepInput};
use crate::engine::Engine;
use crate::evaluator::EvaluatorMessage;
use crate::fault::{ActorName, Fault};
use crate::loader::{BatchSlot, SLOTS, SlotShape, parts_of};
use crate::optimizer::{decision, fingerprints};
use crate::outside::Clock;
use crate::rank_memory::{METRIC_BYTES, scalars};
use crate::snapshot::Slot;
use crate::step_plan::{Keep, StepPlan, Work};
use crate::transfer::{restore, save};
use crate::watchdog::{Activity, Pulse};

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
        /// The batch that it learns from.
        batch: u64,
        /// Updates of all steps before, those that were skipped not counted.
        updates: u64,
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
    /// Where all ranks give a step up, if somebody asks for it.
    pub agreement: Arc<Agreement>,
    /// Shows the watchdog that it lives.
    pub pulse: Option<Pulse>,
}

/// All that a step needs.
pub(crate) struct Ready {
    pub(crate) plan: Arc<StepPlan>,
    pub(crate) batch: BatchSlot,
    loader_ms: f64,
}

/// How a step went, before anything is read back.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stepped {
    decision: Decision,
    abandoned: bool,
    reduce_ms: f64,
}

/// The actor.
pub struct Rank {
    engine: Engine,
    crew: Crew,
    _pinned: Vec<Pinned>,
    slots: Vec<Slot>,
    data: DataPath,
    clock: Arc<dyn Clock>,
    supervisor: Port<RankReply>,
    evaluator: Port<EvaluatorMessage>,
    agreement: Arc<Agreement>,
    pulse: Option<Pulse>,
    plans: Vec<(Arc<StepShape>, Arc<StepPlan>)>,
}

impl Rank {
    /// A rank on its engine, with its way to the others. Takes the host memory of its batches, and
    /// as the first one shows its device that of the snapshots.
    ///
    /// # Errors
    /// A fault of the world when there is no memory.
    pub fn new(
        engine: Engine,
        communicator: Box<dyn Communicator>,
        ends: RankEnds,
    ) -> Result<Self, Fault> {
        let crew = Crew::new(&engine, communicator);
        let RankEnds { slots, data, clock, supervisor, evaluator, agreement, pulse } = ends;
        let shape = SlotShape::new(&*engine.workload, &engine.memory.tree, engine.memory.rank);
        for _ in 0..SLOTS {
            let memory = engine.device.host_memory(shape.bytes()).map_err(|e| engine.fault(e))?;
            // A loader that is gone is its own fault, not this rank's.
            let _gone = data.free.send(BatchSlot::new(shape, memory));
        }
        let pins = slots.iter().filter(|_| engine.memory.rank == 0);
        // SAFETY: the slots stay mapped as long as this rank has them, and it drops them last.
        let pinned = pins.map(|slot| unsafe { engine.device.pin(slot.memory()) });
        let pinned = pinned.collect::<Result<_, _>>().map_err(|e| engine.fault(e))?;
        Ok(Self {
            engine,
            crew,
            _pinned: pinned,
            slots,
            data,
            clock,
            supervisor,
            evaluator,
            agreement,
            pulse,
            plans: Vec::new(),
        })
    }

    /// The whole step, behind so many updates: every entry of the plan in order. It takes no
    /// memory. What a micro-batch would do is left out once the step is given up; ranks still meet
    /// in what is between them.
    pub(crate) fn step(
        &mut self,
        plan: &StepPlan,
        batch: &BatchSlot,
        (step, updates): (u64, u64),
    ) -> Result<Stepped, Fault> {
        let (engine, clock, ticket) = (&self.engine, &*self.clock, batch.ticket);
        let settings = engine.workload.update(step);
        let input = StepInput {
            step,
            updates: Some(updates),
            settings,
            record: &|record| batch.record(record),
        };
        let mut stepped = Stepped::default();
        // Runs below it are begun, with records that come in while an earlier one goes on.
        let mut end = usize::MAX;
        for entry in &plan.entries {
            if let Work::Load(load) = &entry.work {
                if !self.agreement.begins(ticket, load.row as u16) {
                    end = end.min(load.row);
                }
            } else if let Work::Squares = entry.work {
                stepped.abandoned = end < usize::MAX || !self.agreement.begins(ticket, UPDATE);
                if stepped.abandoned {
                    return Ok(stepped);
                }
            }
            if entry.work.row().is_some_and(|row| row >= end) {
                self.crew.skip(engine, entry)?;
            } else if entry.stream == Stream::Communication {
                beat(&self.pulse, Activity::WaitingForRanks);
                let start = seconds(clock);
                self.crew.issue(engine, entry, &input)?;
                stepped.reduce_ms += (seconds(clock) - start) * 1e3;
            } else {
                beat(&self.pulse, Activity::Computing);
                self.crew.issue(engine, entry, &input)?;
            }
        }
        stepped.decision = decision(engine)?;
        if stepped.decision.skip == 0 {
            for &program in &plan.finally {
                self.crew.forward(engine, program, None, step)?;
            }
        }
        Ok(stepped)
    }

    /// The plan of a step and its batch.
    pub(crate) fn make_ready(
        &mut self,
        ticket: u64,
        batch: u64,
        attempt: usize,
    ) -> Result<Ready, Fault> {
        let shape = self.engine.workload.shape(batch, attempt);
        let plan = self.plan(&shape)?;
        let start = seconds(&*self.clock);
        let batch = self.batch(ticket)?;
        let loader_ms = (seconds(&*self.clock) - start) * 1e3;
        Ok(Ready { plan, batch, loader_ms })
    }

    /// What the step that was just taken gave. It is the report that takes memory, not the step.
    pub(crate) fn outcome(&mut self, ready: Ready, stepped: Stepped) -> Result<RankReply, Fault> {
        let Stepped { decision, abandoned, reduce_ms } = stepped;
        // What is read back comes behind the copies of all records: only then is the slot free.
        let runs = self.scalars(&ready.plan)?;
        self.hand_back(ready.batch);
        Ok(RankReply::Stepped(Box::new(StepOutcome {
            runs,
            norm: decision.norm,
            skipped: decision.skip != 0,
            overflow: decision.skip & OVERFLOW != 0,
            abandoned,
            fingerprint: fingerprints(&self.engine, decision)?,
            loader_ms: ready.loader_ms,
            reduce_ms,
        })))
    }

    fn plan(&mut self, shape: &Arc<StepShape>) -> Result<Arc<StepPlan>, Fault> {
        if let Some((_, plan)) = self.plans.iter().find(|(s, _)| s == shape) {
            return Ok(plan.clone());
        }
        let memory = &self.engine.memory;
        let plan =
            StepPlan::new(&*self.engine.workload, shape, memory.ranks, memory.rank, memory.zero)
                .map_err(|e| Fault::ours(self.name(), e))?;
        let rows = memory.metrics.bytes / (memory.columns * METRIC_BYTES).max(1);
        if memory.columns > 0 && plan.rows > rows {
            let what = format!("a step of {} runs, planned for {rows}", plan.rows);
            return Err(Fault::ours(self.name(), what));
        }
        if plan.marks > memory.events.all {
            let what = format!("a step of {} marks, planned for {}", plan.marks, memory.events.all);
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

    fn scalars(&self, plan: &StepPlan) -> Result<Vec<RunScalars>, Fault> {
        let (memory, programs) = (&self.engine.memory, self.engine.workload.programs());
        let mut table = vec![0u32; memory.metrics.bytes / METRIC_BYTES];
        let region = self.engine.slice(memory.metrics);
        // SAFETY: the step is over; the table belongs to this thread.
        unsafe { self.engine.device.download(region, bytemuck::cast_slice_mut(&mut table)) }
            .map_err(|e| self.engine.fault(e))?;
        let one = |keep: &Keep| {
            let count = scalars(&programs[keep.program.0]);
            let words = table[keep.row * memory.columns..][..count].to_vec();
            RunScalars { micro_batch: keep.micro_batch, program: keep.program.0, words }
        };
        Ok(plan.keeps().map(one).collect())
    }

    fn evaluate(&mut self, ticket: u64, task: usize, step: u64) -> Result<RankReply, Fault> {
        let about = self.engine.workload.evaluations()[task].clone();
        let mut parts =
            parts_of(about.parts, self.engine.memory.rank, self.engine.memory.ranks).peekable();
        let mut result = Vec::new();
        while parts.peek().is_some() && !self.agreement.gives_up() {
            let batch = self.batch(ticket)?;
            for record in 0..batch.filled {
                beat(&self.pulse, Activity::Evaluating);
                let index = parts.next().expect("a record for every part");
                let bytes = Some(batch.record(record));
                self.crew.forward(&self.engine, about.program, bytes, 0)?;
                let fetched = self.crew.fetched(&self.engine, about.program);
                let mut sums = Vec::with_capacity(about.sums.len());
                for name in &about.sums {
                    fetched.read(name, &mut result)?;
                    sums.extend(result.iter().map(fetched.number(name)));
                }
                self.evaluator.tell(EvaluatorMessage::Part { step, task, index, sums });
            }
            self.hand_back(batch);
        }
        Ok(RankReply::Evaluated)
    }

    fn drive(&mut self, step: u64) -> Result<RankReply, Fault> {
        let drive = (self.engine.memory.rank == 0).then(|| self.engine.workload.drive(step));
        let Some(Some(mut drive)) = drive else { return Ok(RankReply::Drove) };
        let programs = self.engine.workload.programs();
        let bytes = self.engine.memory.input[0].bytes.next_multiple_of(64);
        let mut record = vec![[0u64; 8]; bytes / 64];
        let mut last = None;
        loop {
            let mut writer = Record::new(bytemuck::cast_slice_mut(&mut record));
            let fetched = last.map(|program| self.crew.fetched(&self.engine, program));
            let results = fetched.as_ref().map(|f| f as &dyn Results);
            beat(&self.pulse, Activity::Computing);
            if self.agreement.gives_up() {
                break;
            }
            last = match drive.next(programs, results, &mut writer)? {
                Turn::End => break,
                Turn::Wait => None,
                Turn::Run(program) => {
                    let bytes = Some(bytemuck::cast_slice(&record));
                    self.crew.forward(&self.engine, program, bytes, step)?;
                    Some(program)
                }
            };
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
                restore(&self.engine, &self.slots[slot])?;
                RankReply::Restored
            }
            RankMessage::Step { ticket, step, batch, updates, attempt } => {
                let ready = self.make_ready(ticket, batch, attempt)?;
                let stepped = self.step(&ready.plan, &ready.batch, (step, updates))?;
                self.outcome(ready, stepped)?
            }
            RankMessage::Evaluate { ticket, task, step } => self.evaluate(ticket, task, step)?,
            RankMessage::Drive { step } => self.drive(step)?,
            RankMessage::Snapshot { slot } => {
                beat(&self.pulse, Activity::Saving);
                let start = seconds(&*self.clock);
                let waits = self.engine.wait_for_parameters();
                waits.map_err(|e| self.engine.fault(e))?;
                save(&self.engine, &self.slots[slot])?;
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
