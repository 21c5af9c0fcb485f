//! How the runtime is tested: workloads made of closures, and ranks as plain threads without
//! supervisor or disk. Public for the tests of other packages; not part of a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use octet_kernels::device::{Backend, Open};
use octet_kernels::lazy;

use crate::contract::Workload;
use crate::fault::{ActorName, Fault};
use crate::rank::StepOutcome;
use crate::rank_memory::Zero;
use crate::report::StepReport;
use crate::snapshot::{LogicalTensor, Slot, SnapshotLayout, SnapshotSlots};
use crate::step_report::{StepAt, Times, step_report};
use crate::transfer::initialise;

mod stand;
mod toy;

use stand::{Stand, Tried};
pub use toy::{Fill, Shape, Talk, Toy, adamw};

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
    /// Digest of a snapshot that was copied out while the steps after it went on: half of them.
    pub halfway: Option<String>,
    /// Order-free sum of the master weights in the snapshot at the end, each rank's as soon as it
    /// has said that its part is there.
    pub copied: u64,
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
/// everything at once, and again on devices whose streams run late and that are given a step before
/// the one before has said how it went, which must give the same.
///
/// # Errors
/// The first fault of any rank; one of ours if it is not the same.
pub fn train_in_legs(workload: &Arc<dyn Workload>, legs: &[Leg]) -> Result<Trial, Fault> {
    let trial = train_in(workload, legs, Setting::default())?;
    let late = |ranks| lazy::open(ranks, 1, None);
    let other =
        train_in(workload, legs, Setting { devices: &late, depth: 2, ..Setting::default() })?;
    // Losses may be no numbers, which are not equal to themselves.
    let all = |trial: &Trial| {
        let Trial { digest, halfway, copied, reports, attempts, .. } = trial;
        format!("{digest} {halfway:?} {copied} {reports:?} {attempts:?}")
    };
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
    /// Steps after which a snapshot is taken while the next ones go on; [`train_in`] knows.
    pub halfway: u64,
    /// Steps that ranks are given before the first of them has said how it went.
    pub depth: usize,
}

impl Default for Setting<'_> {
    /// The CPU, which does everything at once.
    fn default() -> Self {
        fn at_once(ranks: usize) -> Vec<Open> {
            let cpu = Backend::Cpu { threads: 1 }.open(ranks, Duration::from_secs(60));
            cpu.expect("the CPU is there")
        }
        Self {
            devices: &at_once,
            first_values: &|_, _| (),
            watch: None,
            passed_over: 0,
            halfway: 0,
            depth: 1,
        }
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
    let [slot, halfway] = [0, 1].map(|i| slots.slot(i, &layout));
    initialise(&**workload, &slot);
    let all = legs.iter().map(|leg| leg.steps).sum::<u64>();
    let setting = Setting { halfway: all / 2, ..setting };
    for parameter in workload.variables().parameters().iter().filter(|p| p.trainable) {
        let tensor = layout.tensors().iter().find(|t| t.name == parameter.name);
        let values = slot.tensor(tensor.expect("every parameter is in the slot"));
        // SAFETY: nobody else has the slot before the first rank starts.
        (setting.first_values)(&parameter.name, unsafe { values.as_mut_slice() });
    }
    let times = Times { seconds: 1.0, checkpoint_ms: 0.0 };
    let (mut reports, mut attempts) = (Vec::new(), Vec::new());
    let (mut late, mut copied) = (false, 0u64);
    for leg in legs {
        let first = reports.len() as u64;
        let updates = reports.iter().filter(|report: &&StepReport| !report.skipped).count() as u64;
        let from = (first, updates);
        let (by_rank, sums) = run_leg(workload, leg, [&slot, &halfway], from, setting)?;
        copied = sums;
        late |= by_rank.iter().flatten().any(|tried| tried.saving);
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
    let halfway = (setting.halfway > 0).then(|| {
        halfway.commit(setting.halfway, &serde_json::Value::Null, 2).expect("no cursor");
        let digest = halfway.seal().expect("it was committed");
        if late { "it outlived the next step".to_string() } else { digest }
    });
    let view = slot.view().expect("it was committed");
    let tensor = |t: &LogicalTensor| (t.name.clone(), view.bytes(t).to_vec());
    let tensors = layout.tensors().iter().map(tensor).collect();
    Ok(Trial { digest, reports, attempts, tensors, halfway, copied })
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
    let both = [0, 1].map(|i| slots.slot(i, &layout));
    initialise(&**workload, &both[0]);
    let (by_rank, _) = run_leg(workload, leg, both.each_ref(), (0, 0), setting)?;
    let outcome = |rank: Vec<Tried>| rank.into_iter().map(|tried| tried.outcome).collect();
    Ok(by_rank.into_iter().map(outcome).collect())
}

/// Outcomes by rank, then by step; and the sum of what all ranks have copied out at the end.
fn run_leg(
    workload: &Arc<dyn Workload>,
    leg: &Leg,
    slots: [&Slot; 2],
    (first, updates): (u64, u64),
    setting: Setting<'_>,
) -> Result<(Vec<Vec<Tried>>, u64), Fault> {
    let Leg { ranks, zero, steps } = *leg;
    let mut stands = Vec::new();
    for (rank, open) in (setting.devices)(ranks).into_iter().enumerate() {
        let (workload, slots) = (workload.clone(), slots.map(Slot::clone));
        let (watch, passed_over) = (setting.watch.cloned(), setting.passed_over);
        let (halfway, depth) = (setting.halfway, setting.depth);
        stands.push(thread::spawn(move || {
            let mut stand = Stand::new(&workload, open, (rank, ranks, zero), slots, depth);
            (stand.watch, stand.passed_over, stand.halfway) = (watch, passed_over, halfway);
            stand.updates = updates;
            stand.run(first..first + steps)
        }));
    }
    let joined = stands.into_iter().map(|stand| stand.join().expect("a rank panicked"));
    let (by_rank, sums): (Vec<_>, Vec<u64>) =
        joined.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    Ok((by_rank, sums.into_iter().fold(0, u64::wrapping_add)))
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
