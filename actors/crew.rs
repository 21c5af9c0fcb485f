//! Worker, reducer and optimizer of one rank, and whose work an entry of a step plan is.

use crate::contract::{ProgramId, UpdateSettings, Workload};
use crate::engine::Engine;
use crate::fault::Fault;
use crate::optimizer::{Optimizer, OptimizerMessage};
use crate::reducer::{Reducer, ReducerMessage};
use crate::step_plan::{Entry, Work};
use crate::worker::{Worker, WorkerMessage};

/// What entries of a plan are about, besides what they say.
#[derive(Clone, Copy)]
pub struct StepInput<'s> {
    /// The step, from 0.
    pub step: u64,
    /// Numbers of its update.
    pub settings: UpdateSettings,
    /// A record by its place in the rank's slot.
    pub record: &'s dyn Fn(usize) -> &'s [u8],
}

/// The three actors that run in turn on a rank's thread.
#[derive(Debug)]
pub struct Crew {
    worker: Worker,
    reducer: Reducer,
    optimizer: Optimizer,
}

impl Crew {
    /// The crew of a rank in a group of so many.
    pub fn new(workload: &dyn Workload, ranks: usize) -> Self {
        let optimizer = Optimizer::new(workload, ranks);
        Self { worker: Worker, reducer: Reducer, optimizer }
    }

    /// Issues an entry: behind the marks that it waits for, setting its own.
    ///
    /// # Errors
    /// A fault of the world from the device, or when another rank left or took too long.
    pub fn issue(
        &mut self,
        engine: &Engine,
        entry: &Entry,
        input: &StepInput<'_>,
    ) -> Result<(), Fault> {
        engine.wait(entry.stream, &entry.after);
        self.apply(engine, &entry.work, input)?;
        engine.mark(entry.stream, entry.mark);
        Ok(())
    }

    /// Only sets the marks of an entry that is left out.
    pub fn skip(&self, engine: &Engine, entry: &Entry) {
        engine.mark(entry.stream, entry.mark);
    }

    /// Runs a whole program outside a step's micro-batches.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn forward(
        &mut self,
        engine: &Engine,
        program: ProgramId,
        record: Option<&[u8]>,
        step: u64,
    ) -> Result<(), Fault> {
        self.worker.apply(engine, WorkerMessage::Forward(program, record, step))
    }

    /// Hands a piece of work to its owner.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn apply(
        &mut self,
        engine: &Engine,
        work: &Work,
        input: &StepInput<'_>,
    ) -> Result<(), Fault> {
        let StepInput { step, settings, record } = *input;
        let owner = match work {
            Work::Begin => Task::Worker(WorkerMessage::Begin),
            Work::Zero { buffer, parameters } => {
                Task::Worker(WorkerMessage::Zero(*buffer, parameters))
            }
            Work::Load(load) => Task::Worker(WorkerMessage::Load(load, record(load.record), step)),
            Work::Run(run) => Task::Worker(WorkerMessage::Run(run)),
            Work::Keep(keep) => Task::Worker(WorkerMessage::Keep(keep)),
            Work::Fold { into, from, elements } => {
                Task::Worker(WorkerMessage::Fold(*into, *from, elements.clone()))
            }
            Work::Gather { parts } => Task::Reducer(ReducerMessage::Gather(parts)),
            Work::Broadcast { root, span } => {
                Task::Reducer(ReducerMessage::Broadcast(*root, *span))
            }
            Work::Reduce { bucket } => Task::Reducer(ReducerMessage::Reduce(*bucket)),
            Work::SumStates => Task::Reducer(ReducerMessage::SumStates),
            Work::GatherSquares => Task::Reducer(ReducerMessage::GatherSquares),
            Work::GatherParameters { bucket } => {
                Task::Reducer(ReducerMessage::GatherParameters(*bucket))
            }
            Work::Squares => Task::Optimizer(OptimizerMessage::Squares),
            Work::Decide => {
                Task::Optimizer(OptimizerMessage::Decide { clip_norm: settings.clip_norm })
            }
            Work::Update { bucket } => {
                Task::Optimizer(OptimizerMessage::Update { bucket: *bucket, settings, step })
            }
        };
        match owner {
            Task::Worker(message) => self.worker.apply(engine, message),
            Task::Reducer(message) => self.reducer.apply(engine, message),
            Task::Optimizer(message) => self.optimizer.apply(engine, message),
        }
    }
}

/// Whose work it is.
enum Task<'p> {
    Worker(WorkerMessage<'p>),
    Reducer(ReducerMessage<'p>),
    Optimizer(OptimizerMessage),
}
