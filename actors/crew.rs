//! Worker, reducer and optimizer of one rank: the three that run in turn on its thread, each the
//! owner of its part of the arena, and the one place that says whose work an entry of a plan is.

use octet_kernels::collectives::Communicator;

use crate::contract::{ProgramId, UpdateSettings};
use crate::engine::Engine;
use crate::fault::Fault;
use crate::optimizer::Optimizer;
use crate::outcome::OutcomeCells;
use crate::rank::StepNumbers;
use crate::reducer::Reducer;
use crate::snapshot::Slot;
use crate::step_plan::{Entry, Work};
use crate::transfer::{save_bucket, save_shared};
use crate::worker::{Fetched, Worker};

/// What entries of a plan are about, besides what they say.
#[derive(Clone, Copy)]
pub struct StepInput<'s> {
    /// Which step it is.
    pub numbers: StepNumbers,
    /// Numbers of its update.
    pub settings: UpdateSettings,
    /// Which cell and events of those that steps take in turn.
    pub round: usize,
    /// Number of this call on the communication stream within the step, if its time counts.
    pub call: Option<usize>,
    /// A record by its place in the rank's slot.
    pub record: &'s dyn Fn(usize) -> &'s [u8],
}

/// The three, and where steps leave what they have to say.
pub struct Crew {
    worker: Worker,
    reducer: Reducer,
    optimizer: Optimizer,
    /// Of the last steps.
    pub outcomes: OutcomeCells,
}

impl Crew {
    /// The crew of an engine, and its way to the other ranks.
    ///
    /// # Errors
    /// A fault of the world when there is no host memory.
    pub fn new(engine: &Engine, communicator: Box<dyn Communicator>) -> Result<Self, Fault> {
        Ok(Self {
            worker: Worker::new(engine),
            reducer: Reducer::new(communicator),
            optimizer: Optimizer::new(&*engine.workload, engine.memory.ranks),
            outcomes: OutcomeCells::new(engine).map_err(|e| engine.fault(e))?,
        })
    }

    /// Does an entry's work: behind the marks that it waits for, setting its own.
    ///
    /// # Errors
    /// A fault of the world from the device, or when another rank left or took too long.
    pub fn issue(
        &mut self,
        engine: &Engine,
        entry: &Entry,
        input: &StepInput<'_>,
    ) -> Result<(), Fault> {
        let Self { worker, reducer, optimizer, outcomes } = self;
        let numbers = &input.numbers;
        let clock = input.call.map(|call| engine.memory.call_events(input.round, call));
        let note = |event: usize| match clock {
            Some(events) => engine.device.record(events[event], entry.stream),
            None => Ok(()),
        };
        let waits = engine.wait(entry.stream, &entry.after).and_then(|()| note(0));
        waits.map_err(|e| engine.fault(e))?;
        match &entry.work {
            Work::Begin => worker.begin(engine),
            Work::Zero { buffer, parameters } => worker.zero(engine, *buffer, parameters),
            Work::Load(load) => worker.load(engine, load, (input.record)(load.record), numbers),
            Work::Run(run) => worker.run(engine, run, reducer.communicator()),
            Work::Keep(keep) => worker.keep(engine, keep),
            Work::Fold { into, from, elements } => worker.fold(engine, *into, *from, elements),
            Work::Gather { parts } => reducer.gather(engine, parts),
            Work::Broadcast { root, span } => reducer.broadcast(engine, *root, *span),
            Work::Reduce { bucket } => reducer.reduce(engine, *bucket),
            Work::SumStates => reducer.sum_states(engine),
            Work::GatherSquares => reducer.gather_squares(engine),
            Work::GatherParameters { bucket } => reducer.gather_parameters(engine, *bucket),
            Work::Squares => optimizer.squares(engine),
            Work::Decide => optimizer.decide(engine, input.settings.clip_norm, numbers.updates),
            Work::Update { bucket } => optimizer.update(engine, &input.settings, *bucket),
            Work::Rest | Work::Save { .. } | Work::SaveShared => {
                unreachable!("{:?} is no part of a step", entry.work)
            }
            Work::Outcome => outcomes.copy(engine, input.round),
            Work::Finally { program } => {
                outcomes.updated(engine, input.round).and_then(|updated| {
                    let run =
                        || worker.finally(engine, *program, numbers.step, reducer.communicator());
                    updated.then(run).unwrap_or(Ok(()))
                })
            }
        }
        .and_then(|()| note(1))
        .and_then(|()| engine.mark(entry.stream, entry.mark))
        .map_err(|e| engine.fault(e))
    }

    /// Does an entry of a snapshot's plan.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn save(&self, engine: &Engine, entry: &Entry, slot: &Slot) -> Result<(), Fault> {
        engine
            .wait(entry.stream, &entry.after)
            .and_then(|()| match entry.work {
                Work::Save { bucket } => save_bucket(engine, slot, bucket),
                Work::SaveShared => save_shared(engine, slot),
                _ => Ok(()),
            })
            .and_then(|()| engine.mark(entry.stream, entry.mark))
            .map_err(|e| engine.fault(e))
    }

    /// Only sets the mark of an entry that is left out.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn skip(&self, engine: &Engine, entry: &Entry) -> Result<(), Fault> {
        engine.mark(entry.stream, entry.mark).map_err(|e| engine.fault(e))
    }

    /// Runs a whole program outside a step's micro-batches, for this step.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn forward(
        &mut self,
        engine: &Engine,
        program: ProgramId,
        record: &[u8],
        step: u64,
    ) -> Result<(), Fault> {
        let communicator = self.reducer.communicator();
        let done = self.worker.forward(engine, program, record, step, communicator);
        done.map_err(|e| engine.fault(e))
    }

    /// What the last [`Self::forward`] of a program gave.
    pub fn fetched<'e>(&'e self, engine: &'e Engine, program: ProgramId) -> Fetched<'e> {
        Fetched { engine, worker: &self.worker, program }
    }
}
