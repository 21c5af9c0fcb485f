//! One rank: the thread that owns a device and runs worker, reducer and optimizer in turn.
//!
//! It alone issues work for its device, in step-plan order, so no two ranks can order collectives
//! differently. It waits only on the data path: for full slots, and in collectives.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender};
use octet_kernels::collectives::Communicator;
use octet_kernels::device::Pinned;
use octet_kernels::ops::Stream;

use crate::actor::{Actor, Flow, Port};
use crate::agreement::Agreement;
use crate::contract::{Record, Results, StepShape, Turn};
use crate::crew::Crew;
use crate::engine::Engine;
use crate::evaluator::EvaluatorMessage;
use crate::fault::{ActorName, Fault};
use crate::loader::{BatchSlot, SLOTS, SlotShape, parts_of};
use crate::outcome::DEPTH_MAX;
use crate::outside::Clock;
use crate::snapshot::Slot;
use crate::step_plan::StepPlan;
use crate::transfer::restore;
use crate::watchdog::{Activity, Pulse};

pub(crate) mod stepping;
#[cfg(test)]
mod tests;

pub use stepping::StepNumbers;

use stepping::{Given, Pending, Ready};

/// How long a rank waits for another rank in a collective, or for its loader. The watchdog names
/// whoever is stuck before that.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(900);

/// How often a rank that copies a snapshot out looks whether that is done.
pub const LOOK_EVERY: Duration = Duration::from_millis(1);

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
        /// Updates of all steps before, those that were skipped not counted; none if the step
        /// before has not said yet how it went.
        updates: Option<u64>,
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
    /// Copy this rank's part of the state, as the steps before have left it, into a snapshot slot;
    /// steps may be given meanwhile.
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
    /// The device has all of a step: it may be given the next one.
    Enqueued,
    /// How a step went, in the order in which they were given.
    Stepped(Box<StepOutcome>),
    /// All parts are with the evaluator.
    Evaluated,
    /// The conversation is over.
    Drove,
    /// The slot holds this rank's part. Comes before the outcome of a step that was given later.
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
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepOutcome {
    /// Scalars of the rank's runs, in plan order.
    pub runs: Vec<RunScalars>,
    /// Global gradient norm.
    pub norm: f64,
    /// The update was skipped, since the norm is not finite or something overflowed.
    pub skipped: bool,
    /// A live extent overflowed on some rank.
    pub overflow: bool,
    /// A step before it overflowed: it changed nothing, and comes again behind that one.
    pub held: bool,
    /// The step was given up at a micro-batch's end, to save and stop: it changed nothing.
    pub abandoned: bool,
    /// By bucket: fingerprint of this rank's shard.
    pub fingerprint: Vec<u64>,
    /// Milliseconds waited for a batch.
    pub loader_ms: f64,
    /// Milliseconds that the communication stream worked.
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
    /// Steps that may be with the device at once.
    pub depth: usize,
    /// How long it waits for a batch.
    pub patience: Duration,
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
    depth: usize,
    patience: Duration,
    /// Steps that the device has and that have not said how they went.
    flying: VecDeque<(Ready, Given)>,
    /// Of the last step.
    round: usize,
    /// A snapshot is being copied out.
    saving: bool,
    /// What of it still went on when its outcome was read.
    pending: Pending,
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
        let crew = Crew::new(&engine, communicator)?;
        let RankEnds { slots, data, depth, patience, clock, .. } = ends;
        let RankEnds { supervisor, evaluator, agreement, pulse, .. } = ends;
        assert!((1..=DEPTH_MAX).contains(&depth), "{depth} steps at once");
        let shape = SlotShape::new(&*engine.workload, &engine.memory.tree, engine.memory.rank);
        for _ in 0..SLOTS {
            let memory = engine.device.host_memory(shape.bytes()).map_err(|e| engine.fault(e))?;
            // A loader that is gone is its own fault, not this rank's.
            let _gone = data.free.send(BatchSlot::new(shape, memory));
        }
        let pins = slots.iter().filter(|_| engine.memory.rank == 0).filter_map(Slot::memory);
        // SAFETY: the slots stay mapped as long as this rank has them, and it drops them last.
        let pinned = pins.map(|memory| unsafe { engine.device.pin(memory) });
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
            depth,
            patience,
            flying: VecDeque::with_capacity(depth),
            round: 0,
            saving: false,
            pending: None,
        })
    }

    /// Gives the device a snapshot to copy out.
    fn snapshot(&mut self, slot: usize) -> Result<(), Fault> {
        let Self { engine, crew, slots, pulse, .. } = self;
        let memory = &engine.memory;
        let plan = StepPlan::snapshot(&*engine.workload, memory.ranks, memory.rank, memory.zero);
        let plan = plan.map_err(|e| Fault::ours(engine.name(), e))?;
        let [from, to] = memory.snapshot_events();
        let note =
            |event| engine.device.record(event, Stream::CopyOut).map_err(|e| engine.fault(e));
        note(from)?;
        for entry in &plan.entries {
            // A slot in a file takes each piece at the disk's pace.
            beat(pulse, Activity::Saving);
            crew.save(engine, entry, &slots[slot])?;
        }
        note(to)?;
        self.saving = true;
        Ok(())
    }

    /// Waits for the device: copies may be under way of memory that goes with the steps in flight.
    pub fn leave(&self) {
        let _said_already = self.engine.device.finish();
    }

    /// Whether a snapshot is being copied out.
    pub fn is_saving(&self) -> bool {
        self.saving
    }

    /// Whether the device does something that is to be told once it is done.
    pub fn is_watching(&self) -> bool {
        self.saving || !self.flying.is_empty()
    }

    /// Tells what the device has done since it was last looked at. Waits only if it can be given no
    /// more steps. Who only waits shows no life.
    ///
    /// # Errors
    /// A fault of the world from the device.
    pub fn look(&mut self) -> Result<(), Fault> {
        while let Some((_, given)) = self.flying.front() {
            let full = self.flying.len() == self.depth;
            if !full && !self.has_said(given)? {
                break;
            }
            self.land()?;
        }
        self.look_at_snapshot()
    }

    /// Waits until the first step in flight has said how it went, and tells it.
    pub(crate) fn land(&mut self) -> Result<(), Fault> {
        let Some((ready, given)) = self.flying.pop_front() else { return Ok(()) };
        let reply = self.outcome(ready, &given)?;
        // What was to be copied before it changed anything is copied.
        self.look_at_snapshot()?;
        self.supervisor.tell(reply);
        if self.flying.is_empty() {
            beat(&self.pulse, if self.saving { Activity::Saving } else { Activity::Idle });
        }
        Ok(())
    }

    fn look_at_snapshot(&mut self) -> Result<(), Fault> {
        let (device, [from, to]) = (&self.engine.device, self.engine.memory.snapshot_events());
        if self.saving && device.reached(to).map_err(|e| self.engine.fault(e))? {
            let time = device.elapsed(from, to).map_err(|e| self.engine.fault(e))?;
            self.saving = false;
            self.supervisor.tell(RankReply::Snapped { ms: time.as_secs_f64() * 1e3 });
            // Who idles is never suspected of a hang.
            let steps = !self.flying.is_empty();
            beat(&self.pulse, if steps { Activity::Computing } else { Activity::Idle });
        }
        Ok(())
    }

    fn evaluate(&mut self, ticket: u64, task: usize, step: u64) -> Result<RankReply, Fault> {
        let about = self.engine.workload.evaluations()[task].clone();
        let mut parts =
            parts_of(about.parts, self.engine.memory.rank, self.engine.memory.ranks).peekable();
        let mut result = Vec::new();
        while parts.peek().is_some() && !self.agreement.gives_up() {
            let batch = self.batch(ticket)?;
            for record in 0..batch.filled {
                self.look()?;
                beat(&self.pulse, Activity::Evaluating);
                let index = parts.next().expect("a record for every part");
                self.crew.forward(&self.engine, about.program, batch.record(record), 0)?;
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
        let workload = self.engine.workload.clone();
        let programs = workload.programs();
        let bytes = self.engine.memory.input[0].bytes.next_multiple_of(64);
        let mut record = vec![[0u64; 8]; bytes / 64];
        let mut last = None;
        loop {
            self.look()?;
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
                    let bytes = bytemuck::cast_slice(&record);
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
        let flow = self.act(message);
        if flow.is_err() {
            self.leave();
        }
        flow
    }
}

impl Rank {
    fn act(&mut self, message: RankMessage) -> Result<Flow, Fault> {
        if !matches!(message, RankMessage::Step { .. }) {
            // Whatever else there is comes behind all steps.
            while !self.flying.is_empty() {
                self.land()?;
            }
        }
        let reply = match message {
            RankMessage::Restore { slot } => {
                beat(&self.pulse, Activity::Starting);
                restore(&self.engine, &self.slots[slot])?;
                RankReply::Restored
            }
            RankMessage::Step { ticket, step, batch, updates, attempt } => {
                let ready = self.make_ready(ticket, batch, attempt)?;
                self.fly(ready, StepNumbers { step, batch, updates })?;
                self.supervisor.tell(RankReply::Enqueued);
                self.look()?;
                return Ok(Flow::Continue);
            }
            RankMessage::Evaluate { ticket, task, step } => self.evaluate(ticket, task, step)?,
            RankMessage::Drive { step } => self.drive(step)?,
            RankMessage::Snapshot { slot } => {
                beat(&self.pulse, Activity::Saving);
                self.snapshot(slot)?;
                self.look()?;
                return Ok(Flow::Continue);
            }
            RankMessage::Stop => {
                // Other ranks may still wait for what this one has to give them.
                self.engine.device.finish().map_err(|e| self.engine.fault(e))?;
                return Ok(Flow::Stop);
            }
        };
        // What was given before is over before this is.
        self.look()?;
        beat(&self.pulse, if self.saving { Activity::Saving } else { Activity::Idle });
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
