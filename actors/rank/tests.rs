//! Ranks on plain threads: the same bits for any number of ranks and any placement.

use std::sync::Arc;
use std::time::Duration;

use octet_kernels::collectives::{Communicator, JoinTree};
use octet_kernels::cuda::testing::Pretended;
use octet_kernels::device::{Event, Open};
use octet_kernels::dtype::DType;
use octet_kernels::error::Error;
use octet_kernels::graph::{
    Goal, Granularity, Graph, Init, Layout, Ownership, Parameter, ParameterId, Policy, Program,
    Target, Variables,
};
use octet_kernels::lazy;
use octet_kernels::memory::DeviceSlice;
use octet_kernels::ops::activation::gelu;
use octet_kernels::ops::cross_entropy::cross_entropy;
use octet_kernels::ops::dropout::dropout;
use octet_kernels::ops::embedding::embedding;
use octet_kernels::ops::linear::linear;
use octet_kernels::ops::lion::Lion;
use octet_kernels::update::{OptimizerSpec, Storage};

use crate::contract::{Batch, Phase, ProgramId, Purpose, StepShape, Workload};
use crate::fault::{ActorName, Blame, Fault};
use crate::outcome::ROUNDS;
use crate::rank_memory::{RankMemory, Zero};
use crate::step_plan::{Mark, StepPlan, Work};
use crate::testing::{Leg, Setting, Toy, Trial, adamw, outcomes, train, train_in, train_in_legs};

mod emulated;

const SYMBOLS: usize = 11;
const WIDTH: usize = 24;
const ROWS: usize = 6;

fn parameter(name: &str, shape: &[usize], dtype: DType) -> Parameter {
    Parameter {
        name: name.to_string(),
        shape: shape.to_vec(),
        dtype,
        trainable: true,
        decay: shape.len() > 1,
        init: Init::Normal { std: 0.3 },
    }
}

/// Predicts `(3 x + 1) mod SYMBOLS` from `x`.
fn toy(dtype: DType, lanes: usize) -> Arc<dyn Workload> {
    Arc::new(build(dtype, lanes))
}

fn train_on(workload: &Arc<dyn Workload>, ranks: usize) -> Trial {
    train(workload, ranks, Zero::Zero1, 4).unwrap()
}

fn program(variables: &Variables, layout: &Layout, rate: f32, target: Target) -> Program {
    let mut g = Graph::new(variables);
    let x = g.input("x", &[ROWS], DType::I32);
    let y = g.input("y", &[ROWS], DType::I32);
    let scale = g.input("scale", &[], DType::F32);
    let [table, hidden, bias, head] = [0, 1, 2, 3].map(|id| g.parameter(ParameterId(id)));
    let h = embedding(&mut g, x, table).unwrap();
    let h = linear(&mut g, h, hidden, Some(bias)).unwrap();
    let h = gelu(&mut g, h).unwrap();
    let h = dropout(&mut g, h, rate, 1).unwrap();
    let scores = linear(&mut g, h, head, None).unwrap();
    let (loss, sum, targets) = cross_entropy(&mut g, scores, y, scale).unwrap();
    for (name, tensor) in [("loss", loss), ("loss_sum", sum), ("targets", targets)] {
        g.fetch(name, tensor);
    }
    let policy = Policy { target, ..Policy::default() };
    Program::compile("toy", g, &Goal::Train { loss }, policy, layout).unwrap()
}

fn build(dtype: DType, lanes: usize) -> Toy {
    let mut variables = Variables::new();
    let table = variables.parameter(parameter("table", &[SYMBOLS, WIDTH], dtype));
    let hidden = variables.parameter(parameter("hidden", &[WIDTH, WIDTH], dtype));
    let bias = variables.parameter(parameter("bias", &[WIDTH], dtype));
    let head = variables.parameter(parameter("head", &[SYMBOLS, WIDTH], dtype));
    let layout = Layout::new(&variables, Granularity { block: 64, bucket: 400 });
    assert!(layout.buckets.len() > 1);
    assert_eq!([table, hidden, bias, head].map(|id| id.0), [0, 1, 2, 3]);
    let program = program(&variables, &layout, 0.0, Target::Cpu);
    let batch = Batch { micro: ROWS, global: ROWS * 16, lanes };
    Toy {
        variables,
        layout,
        programs: vec![program],
        batch,
        shape: Box::new(|_, _| StepShape {
            micro_batches: 16,
            phases: vec![Phase::Each { micro_batches: 0..16, programs: vec![ProgramId(0); 16] }],
            finally: vec![],
        }),
        fill: Box::new(move |purpose, program, record| {
            let Purpose::Train { step, micro_batch, .. } = purpose else { panic!("no tasks") };
            let first = batch.first_sample(step, micro_batch) as usize;
            let x = |row: usize| ((first + row) * 7 + first / 5) % SYMBOLS;
            for (row, cell) in record.field::<i32>(program, "x").iter_mut().enumerate() {
                *cell = x(row) as i32;
            }
            for (row, cell) in record.field::<i32>(program, "y").iter_mut().enumerate() {
                *cell = ((3 * x(row) + 1) % SYMBOLS) as i32;
            }
            record.field::<f32>(program, "scale")[0] = 1.0 / batch.global as f32;
        }),
        evaluations: vec![],
        attempts: 1,
        talk: Box::new(|_| None),
        learning_rate: 0.02,
        optimizer: adamw(),
        ownership: Ownership::even,
    }
}

#[test]
fn any_number_of_ranks_and_any_placement_gives_the_same_bits() {
    for dtype in [DType::F32, DType::Bf16] {
        let workload = toy(dtype, 8);
        let one = train(&workload, 1, Zero::Zero0, 12).unwrap();
        let (first, last) = (one.reports[0].loss, one.reports[11].loss);
        assert!(last < 0.7 * first, "{first} to {last}: it does not learn");
        for ranks in [1, 2, 3, 4, 8] {
            for zero in [Zero::Zero0, Zero::Zero1] {
                let other = train(&workload, ranks, zero, 12).unwrap();
                assert_eq!(other, one, "{ranks} ranks, {zero:?}, {dtype}");
            }
        }
    }
}

/// Every rule with every storage.
fn optimizers() -> Vec<OptimizerSpec> {
    let lion = || OptimizerSpec { rule: Arc::new(Lion { beta1: 0.9, beta2: 0.99 }), ..adamw() };
    let storages = [Storage::F32, Storage::Bf16, Storage::Blocks8];
    let of = |storage| [adamw(), lion()].map(|spec| OptimizerSpec { storage, ..spec });
    storages.into_iter().flat_map(of).collect()
}

#[test]
fn every_rule_and_storage_goes_on_bit_for_bit_on_other_ranks() {
    let mut digests = std::collections::BTreeSet::new();
    for optimizer in optimizers() {
        for dtype in [DType::F32, DType::Bf16] {
            let what = format!("{}, {:?}, {dtype}", optimizer.rule.name(), optimizer.storage);
            let lion = optimizer.rule.name() == "Lion";
            let learning_rate = if lion { 0.005 } else { 0.02 };
            let toy = Toy { optimizer: optimizer.clone(), learning_rate, ..build(dtype, 8) };
            let workload: Arc<dyn Workload> = Arc::new(toy);
            let whole = train(&workload, 1, Zero::Zero0, 12).unwrap();
            let (first, last) = (whole.reports[0].loss, whole.reports[11].loss);
            assert!(last < 0.85 * first, "{what}: {first} to {last}: it does not learn");
            for cut in [[(2, Zero::Zero1), (8, Zero::Zero1)], [(3, Zero::Zero0), (1, Zero::Zero1)]]
            {
                let leg = |(ranks, zero)| Leg { ranks, zero, steps: 6 };
                assert_eq!(train_in_legs(&workload, &cut.map(leg)).unwrap(), whole, "{what}");
            }
            assert!(digests.insert(whole.digest), "{what}: as another");
        }
    }
}

#[test]
fn whoever_owns_what_the_bits_are_the_same() {
    for (dtype, optimizer) in [DType::F32, DType::Bf16].into_iter().zip([0, 4]) {
        let optimizer = optimizers().swap_remove(optimizer);
        let toy = |ownership| -> Arc<dyn Workload> {
            Arc::new(Toy { ownership, optimizer: optimizer.clone(), ..build(dtype, 8) })
        };
        let even = train_on(&toy(Ownership::even), 4);
        for ranks in [1, 2, 3, 8] {
            assert_eq!(train_on(&toy(Ownership::by_unit), ranks), even, "{ranks} ranks");
        }
        let owners = Ownership::by_unit(toy(Ownership::even).layout(), 2);
        assert_ne!(owners, Ownership::even(toy(Ownership::even).layout(), 2));
    }
}

#[test]
fn scales_need_blocks_of_whole_scales() {
    let optimizer = OptimizerSpec { storage: Storage::Blocks8, ..adamw() };
    let toy = build(DType::F32, 4);
    let layout = Layout::new(&toy.variables, Granularity { block: 32, bucket: 400 });
    let toy = Toy { layout, optimizer, ..toy };
    let error = RankMemory::new(&toy, 1, 0, Zero::Zero1).unwrap_err();
    assert!(error.to_string().contains("blocks of 32 elements, scales of 64"), "{error}");
}

#[test]
fn a_later_step_may_have_more_runs_than_the_first() {
    let mut toy = build(DType::F32, 4);
    let train = |micro_batches: std::ops::Range<usize>| {
        let programs = vec![ProgramId(0); micro_batches.len()];
        Phase::Each { micro_batches, programs }
    };
    // Even steps train every other micro-batch of a lane, odd steps all.
    toy.shape = Box::new(move |step, _| {
        let used = if step % 2 == 0 { 2 } else { 4 };
        let phases = (0..4).map(|lane| train(lane * 4..lane * 4 + used)).collect();
        StepShape { micro_batches: 16, phases, finally: vec![] }
    });
    let workload: Arc<dyn Workload> = Arc::new(toy);
    let one = train_on(&workload, 1);
    assert!(one.reports[1].loss > 1.5 * one.reports[0].loss, "odd steps sum over more targets");
    assert_eq!(train_on(&workload, 4), one);
}

#[test]
fn lanes_are_part_of_the_identity_and_the_seed_of_everything_else() {
    let four = train(&toy(DType::F32, 4), 2, Zero::Zero1, 3).unwrap();
    let eight = train(&toy(DType::F32, 8), 2, Zero::Zero1, 3).unwrap();
    assert_ne!(four.digest, eight.digest);
    let close = (four.reports[2].loss - eight.reports[2].loss).abs();
    assert!(close < 1e-5, "{close}");
}

/// Trains on devices whose streams run late, in any legal order; one of their waits may be missing.
fn train_late(
    workload: &Arc<dyn Workload>,
    leg: Leg,
    seed: u64,
    missing: Option<Event>,
) -> Result<Trial, Fault> {
    let devices = |ranks| lazy::open(ranks, seed, missing);
    train_in(workload, &[leg], Setting { devices: &devices, ..Setting::default() })
}

#[test]
fn streams_that_run_late_in_any_order_give_the_same_bits() {
    let workload = toy(DType::F32, 4);
    for (ranks, zero) in [(1, Zero::Zero1), (2, Zero::Zero0), (2, Zero::Zero1), (3, Zero::Zero1)] {
        let leg = Leg { ranks, zero, steps: 3 };
        let at_once = train(&workload, ranks, zero, 3).unwrap();
        for seed in 0..6 {
            let late = train_late(&workload, leg, seed, None).unwrap();
            assert_eq!(late, at_once, "{ranks} ranks, {zero:?}, seed {seed}");
        }
    }
}

/// Those of these events whose waits a device may leave out, and in 40 orders what a trial gives,
/// as far as `part` looks at it, is never another.
fn unnoticed(
    workload: &Arc<dyn Workload>,
    events: &[usize],
    part: impl Fn(Trial) -> String,
) -> Vec<usize> {
    let leg = Leg { ranks: 2, zero: Zero::Zero1, steps: 3 };
    let right = part(train(workload, 2, Zero::Zero1, 3).unwrap());
    let noticed = |event: usize| {
        let late = |seed| train_late(workload, leg, seed, Some(Event(event))).unwrap();
        (0..40).any(|seed| part(late(seed)) != right)
    };
    events.iter().copied().filter(|&event| !noticed(event)).collect()
}

#[test]
fn a_wait_that_a_device_leaves_out_changes_the_bits() {
    let workload = toy(DType::F32, 4);
    let plan = StepPlan::new(&*workload, &workload.shape(0, 0), 2, 0, Zero::Zero1).unwrap();
    // The host has waited for the outcome of the step before, and so for all that came before it.
    let within = plan.entries.iter().filter(|entry| entry.work != Work::Begin);
    let within = within.filter_map(|entry| entry.mark.filter(|&mark| mark != Mark::OUTCOME));
    let waited = |mark: &Mark| plan.entries.iter().any(|entry| entry.after.contains(mark));
    let marks: Vec<usize> = within.filter(waited).map(|mark| mark.0).collect();
    let lasting = Mark::lasting(workload.layout().buckets.len());
    assert!(marks.len() > 10 && marks.iter().any(|&mark| mark < lasting), "{marks:?}");
    let unnoticed = unnoticed(&workload, &marks, |trial| format!("{trial:?}"));
    assert!(unnoticed.is_empty(), "{unnoticed:?} of {marks:?}");
}

/// A snapshot after the first step is copied out while the second changes what it copies.
#[test]
fn an_update_that_does_not_wait_for_a_snapshot_changes_what_it_holds() {
    let workload = toy(DType::F32, 4);
    let marks: Vec<usize> =
        (0..workload.layout().buckets.len()).map(|bucket| Mark::saved(bucket).0).collect();
    let held = |trial: Trial| trial.halfway.unwrap();
    assert_eq!(unnoticed(&workload, &marks, held), Vec::<usize>::new());
}

#[test]
fn a_snapshot_that_is_declared_good_too_soon_is_noticed() {
    let workload = toy(DType::F32, 4);
    let memory = RankMemory::new(&*workload, 2, 0, Zero::Zero1).unwrap();
    let [_, end] = memory.snapshot_events();
    let held = |trial: Trial| trial.copied.to_string();
    assert_eq!(unnoticed(&workload, &[end.0], held), Vec::<usize>::new());
}

/// Trains on pretended GPUs of a machine with these settings; `None` where there can be none.
fn train_pretended(
    workload: &Arc<dyn Workload>,
    leg: Leg,
    settings: &str,
) -> Option<Result<Trial, crate::fault::Fault>> {
    let machine = Pretended::new("rank", settings)?;
    let devices = |ranks| machine.devices(ranks).expect("there are as many");
    Some(train_in(workload, &[leg], Setting { devices: &devices, ..Setting::default() }))
}

#[test]
fn pretended_gpus_give_the_cpus_bits_on_any_ranks() {
    for dtype in [DType::F32, DType::Bf16] {
        let workload = toy(dtype, 8);
        let expected = train(&workload, 1, Zero::Zero0, 4).unwrap();
        let legs = [(1, Zero::Zero0), (2, Zero::Zero1), (3, Zero::Zero1), (8, Zero::Zero1)];
        for (seed, (ranks, zero)) in legs.into_iter().enumerate() {
            let leg = Leg { ranks, zero, steps: 4 };
            let settings = format!("devices=8,seed={seed}");
            let Some(trial) = train_pretended(&workload, leg, &settings) else { return };
            assert_eq!(trial.unwrap(), expected, "{ranks} ranks, {zero:?}, {dtype}");
        }
    }
}

#[test]
fn what_a_pretended_gpu_fails_with_is_a_fault_that_says_what_is_left_to_do() {
    let workload = toy(DType::F32, 4);
    let cases = [
        // Another engine can go on with a device whose context broke.
        ("fail=work:100:719", Blame::World, "CUDA_ERROR_LAUNCH_FAILED"),
        ("fail=cuEventRecord:10:700", Blame::World, "CUDA_ERROR_ILLEGAL_ADDRESS"),
        // It would find one that is gone as it is.
        ("fail=work:100:46", Blame::Lasting, "CUDA_ERROR_DEVICE_UNAVAILABLE"),
    ];
    for (settings, blame, what) in cases {
        let leg = |ranks| Leg { ranks, zero: Zero::Zero1, steps: 4 };
        let Some(trial) = train_pretended(&workload, leg(1), settings) else { return };
        let fault = trial.unwrap_err();
        assert!(fault.what.contains(what), "{settings}: {fault}");
        assert_eq!((fault.blame, fault.actor), (blame, ActorName::Rank(0)), "{settings}");
        // Nobody waits for a rank whose device has failed.
        let two = format!("devices=2,{settings}");
        assert!(train_pretended(&workload, leg(2), &two).unwrap().is_err(), "{settings}");
    }
}

#[test]
fn an_outcome_that_is_read_too_soon_is_noticed() {
    let workload = toy(DType::F32, 4);
    let memory = RankMemory::new(&*workload, 2, 0, Zero::Zero1).unwrap();
    let events: Vec<usize> = (0..ROUNDS).map(|round| memory.outcome_event(round).0).collect();
    let told = |trial: Trial| format!("{:?}", trial.reports);
    assert_eq!(unnoticed(&workload, &events, told), Vec::<usize>::new());
}

#[test]
fn noise_belongs_to_the_samples_that_are_seen() {
    let mut toy = build(DType::F32, 4);
    // Records of all batches are alike: only noise can tell them apart.
    toy.fill = Box::new(|_, program, record| {
        record.field::<i32>(program, "x").fill(3);
        record.field::<i32>(program, "y").fill(4);
        record.field::<f32>(program, "scale")[0] = 0.01;
    });
    toy.programs = vec![program(&toy.variables, &toy.layout, 0.5, Target::Cpu)];
    let workload: Arc<dyn Workload> = Arc::new(toy);
    let losses = |ranks, passed_over| {
        let leg = Leg { ranks, zero: Zero::Zero1, steps: 2 };
        let setting = Setting { passed_over, ..Setting::default() };
        let trial = train_in(&workload, &[leg], setting).unwrap();
        trial.reports.iter().map(|report| report.loss).collect::<Vec<f64>>()
    };
    assert_ne!(losses(1, 0), losses(1, 5), "data was passed over");
    assert_eq!(losses(1, 5), losses(2, 5));
}

/// A way to the other ranks that is slow to gather.
struct Slow(Box<dyn Communicator>);

const DELAY: Duration = Duration::from_millis(3);

impl Communicator for Slow {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn barrier(&mut self) -> Result<(), Error> {
        self.0.barrier()
    }

    unsafe fn broadcast(&mut self, root: usize, buffer: DeviceSlice) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.0.broadcast(root, buffer) }
    }

    unsafe fn all_gather(&mut self, s: DeviceSlice, r: &[DeviceSlice]) -> Result<(), Error> {
        std::thread::sleep(DELAY);
        // SAFETY: the caller's promise.
        unsafe { self.0.all_gather(s, r) }
    }

    unsafe fn all_to_all(&mut self, s: &[DeviceSlice], r: &[DeviceSlice]) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.0.all_to_all(s, r) }
    }

    unsafe fn join(
        &mut self,
        tree: &JoinTree,
        dtype: DType,
        pieces: &[DeviceSlice],
        output: DeviceSlice,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.0.join(tree, dtype, pieces, output) }
    }

    fn abort(&mut self, why: &str) {
        self.0.abort(why);
    }
}

#[test]
fn the_time_of_collectives_is_that_of_their_stream() {
    let workload = toy(DType::F32, 4);
    let slow = |ranks| -> Vec<Open> {
        let at_once = (Setting::default().devices)(ranks).into_iter();
        let slow = |open: Open| {
            Box::new(|| {
                let (device, way) = open()?;
                Ok((device, Box::new(Slow(way)) as Box<dyn Communicator>))
            }) as Open
        };
        at_once.map(slow).collect()
    };
    let leg = Leg { ranks: 2, zero: Zero::Zero1, steps: 2 };
    let steps = outcomes(&workload, &leg, Setting { devices: &slow, ..Setting::default() });
    let steps = steps.unwrap().remove(0);
    // The sums of squares in each step, and the fresh parameters where the next step waits.
    let gathers = 1 + workload.layout().buckets.len() as u32;
    let least = [DELAY, gathers * DELAY].map(|time| time.as_secs_f64() * 1e3);
    let found: Vec<f64> = steps.iter().map(|outcome| outcome.reduce_ms).collect();
    assert!(found[0] >= least[0] && found[1] >= least[1], "{found:?}, not {least:?}");
}
