//! How the runtime is tested: workloads made of closures, and ranks as plain threads without
//! supervisor or disk. Public for the tests of other packages; not part of a run.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, unbounded};
use octet_kernels::collectives::{Communicator, LocalGroup};
use octet_kernels::cpu::CpuDevice;
use octet_kernels::graph::{Layout, Program, Variables};
use octet_kernels::memory::Arena;

use crate::actor::{Actor, Closed, Port};
use crate::contract::{
    Batch, Drive, EvaluationTask, ProgramId, Purpose, Record, StepShape, UpdateSettings, Workload,
};
use crate::fault::Fault;
use crate::loader::{BatchSlot, Loader, LoaderMessage, Order, SLOTS, SlotShape};
use crate::outside::SystemClock;
use crate::rank::{DataPath, Rank, RankEnds, RankMessage, RankReply, StepOutcome};
use crate::rank_memory::{RankMemory, Zero};
use crate::report::StepReport;
use crate::snapshot::{Slot, SnapshotLayout, SnapshotSlots};
use crate::step_report::{Times, step_report};
use crate::transfer::initialise;
use crate::worker::Engine;

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
    /// Learning rate of AdamW.
    pub learning_rate: f64,
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

    fn attempts(&self) -> usize {
        self.attempts
    }

    fn update(&self, _step: u64) -> UpdateSettings {
        UpdateSettings {
            learning_rate: self.learning_rate,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.1,
            clip_norm: 1.0,
        }
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

    fn tokens_per_step(&self) -> u64 {
        self.batch.global as u64
    }

    fn flops_per_step(&self) -> f64 {
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
    let layout = Arc::new(SnapshotLayout::new(workload.variables(), workload.layout()));
    let slots = SnapshotSlots::create(layout.bytes()).expect("memory for snapshots");
    let slot = slots.slot(0, &layout);
    initialise(&**workload, &slot);
    let mut stands = Vec::new();
    let group = LocalGroup::new(ranks, Duration::from_secs(60));
    for (rank, communicator) in group.into_iter().enumerate() {
        let (workload, slot) = (workload.clone(), slot.clone());
        stands.push(thread::spawn(move || {
            Stand::new(&workload, Box::new(communicator), rank, ranks, zero, slot).run(steps)
        }));
    }
    let mut by_rank = Vec::new();
    for stand in stands {
        by_rank.push(stand.join().expect("a rank panicked")?);
    }
    slot.commit(steps, &serde_json::json!({ "step": steps }), 1).expect("the cursor is short");
    let times = Times { seconds: 1.0, checkpoint_ms: 0.0 };
    let reports = (0..steps as usize)
        .map(|step| {
            let outcomes: Vec<StepOutcome> = by_rank.iter().map(|o| o[step].clone()).collect();
            let mut report = step_report(&**workload, step as u64, &outcomes, times);
            report.wait_ms = crate::report::WaitMs::default();
            report
        })
        .collect();
    Ok(Trial { digest: slot.seal().expect("it was committed"), reports })
}

/// One rank and its loader, fed by hand.
struct Stand {
    rank: Rank,
    loader: Loader,
    replies: Receiver<RankReply>,
    free: Receiver<BatchSlot>,
    attempts: usize,
}

impl Stand {
    fn new(
        workload: &Arc<dyn Workload>,
        communicator: Box<dyn Communicator>,
        rank: usize,
        ranks: usize,
        zero: Zero,
        slot: Slot,
    ) -> Self {
        let memory = RankMemory::new(&**workload, ranks, rank, zero).expect("a plan");
        let arena = Arena::allocate(&memory.arena).expect("memory");
        let shape = SlotShape::new(&**workload, &memory.tree, rank);
        let (full_in, full) = unbounded();
        let (free_in, free) = unbounded();
        for _ in 0..SLOTS {
            let _open = free_in.send(BatchSlot::new(shape.records, shape.record_bytes));
        }
        let to_rank = Port::new(move |slot| full_in.send(slot).map_err(|_| Closed));
        let loader = Loader::new(workload.clone(), &memory.tree, rank, to_rank);
        let (replies_in, replies) = unbounded();
        let engine = Engine {
            workload: workload.clone(),
            memory,
            arena,
            device: CpuDevice::new(1),
            communicator: communicator.into(),
        };
        let ends = RankEnds {
            slots: vec![slot],
            data: DataPath { full, free: free_in },
            clock: Arc::new(SystemClock::new()),
            supervisor: Port::new(move |reply| replies_in.send(reply).map_err(|_| Closed)),
            evaluator: Port::new(|_| Ok(())),
            abandon: Arc::new(AtomicBool::new(false)),
            pulse: None,
        };
        let attempts = workload.attempts();
        Self { rank: Rank::new(engine, ends), loader, replies, free, attempts }
    }

    fn run(mut self, steps: u64) -> Result<Vec<StepOutcome>, Fault> {
        self.rank.apply(RankMessage::Restore { slot: 0 })?;
        assert_eq!(self.replies.recv(), Ok(RankReply::Restored));
        let mut outcomes = Vec::new();
        for step in 0..steps {
            for attempt in 0..self.attempts {
                let outcome = self.step(step, attempt)?;
                if !outcome.overflow || attempt + 1 == self.attempts {
                    outcomes.push(outcome);
                    break;
                }
            }
        }
        self.rank.apply(RankMessage::Snapshot { slot: 0 })?;
        Ok(outcomes)
    }

    fn step(&mut self, step: u64, attempt: usize) -> Result<StepOutcome, Fault> {
        let ticket = step * self.attempts as u64 + attempt as u64;
        while let Ok(slot) = self.free.try_recv() {
            self.loader.apply(LoaderMessage::Free(slot))?;
        }
        self.loader.apply(LoaderMessage::Order(Order::Step { ticket, step, attempt }))?;
        self.rank.apply(RankMessage::Step { ticket, step, attempt })?;
        match self.replies.recv() {
            Ok(RankReply::Stepped(outcome)) => Ok(*outcome),
            other => panic!("instead of a step: {other:?}"),
        }
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
