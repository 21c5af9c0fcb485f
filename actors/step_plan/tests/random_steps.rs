//! Plans of random steps, checked by running them on symbols: a gradient is the text of the sum
//! that it is.

use std::collections::BTreeMap;
use std::ops::Range;

use octet_kernels::collectives::LaneTree;
use octet_kernels::dtype::DType;
use octet_kernels::error::Error;
use octet_kernels::graph::{
    Goal, Granularity, Graph, Init, Layout, Ownership, Parameter, ParameterId, Policy, Program,
    State, StateUse, StepBuffer, StepBufferId, Variables,
};
use octet_kernels::ops::cross_entropy::cross_entropy;
use octet_kernels::ops::exponential_average::exponential_average;
use octet_kernels::ops::linear::linear;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use crate::contract::{Batch, Phase, ProgramId, StepShape};
use crate::rank_memory::Zero;
use crate::sim::toy::Random;
use crate::step_plan::tests::meetings::Meet;
use crate::step_plan::{Load, Mark, Run, StepPlan, Work, check_meetings, records};
use crate::testing::{Toy, adamw};

const WIDTH: usize = 4;
const PARAMETERS: usize = 6;
/// Micro-batches that a group may have.
const GROUP_MAX: usize = 16;
const BUFFER: StepBufferId = StepBufferId(0);

/// A workload of random programs and a random step of it.
pub(super) struct Case {
    pub(super) workload: Toy,
    pub(super) shape: StepShape,
    pub(super) ranks: usize,
}

fn variables(sums: bool) -> Variables {
    let mut variables = Variables::new();
    for i in 0..PARAMETERS {
        variables.parameter(Parameter {
            name: format!("w{i}"),
            shape: vec![WIDTH, WIDTH],
            dtype: DType::F32,
            // One is frozen.
            trainable: i != 2,
            decay: true,
            init: Init::Constant(1.0),
        });
    }
    let (name, dtype) = ("rows".to_string(), DType::F32);
    variables.step_buffer(StepBuffer { name, slice: vec![3], micro_batches: GROUP_MAX, dtype });
    if sums {
        variables.state(State {
            name: "count".to_string(),
            shape: vec![2],
            dtype: DType::I32,
            usage: StateUse::StepSum,
            init: 0.0,
        });
    }
    variables
}

/// A chain of layers over some parameters, with or without a gradient.
fn program(
    variables: &Variables,
    layout: &Layout,
    weights: &[usize],
    trains: bool,
    extra: bool,
    meets: bool,
) -> Program {
    let mut g = Graph::new(variables);
    let mut h = g.input("x", &[WIDTH, WIDTH], DType::F32);
    let y = g.input("y", &[WIDTH], DType::I32);
    let scale = g.input("scale", &[], DType::F32);
    if extra {
        g.input("extra", &[3], DType::I32);
    }
    for &i in weights {
        let w = g.parameter(ParameterId(i));
        h = linear(&mut g, h, w, None).unwrap();
        if meets {
            h = g.apply_one(Meet, &[h]).unwrap();
        }
    }
    let (loss, _, _) = cross_entropy(&mut g, h, y, scale).unwrap();
    g.fetch("loss", loss);
    let goal = if trains { Goal::Train { loss } } else { Goal::Forward };
    Program::compile("some", g, &goal, Policy::default(), layout).unwrap()
}

/// Moves the frozen parameter towards another one, where a step ends.
fn average(variables: &Variables, layout: &Layout) -> Program {
    let mut g = Graph::new(variables);
    let [frozen, other] = [2, 4].map(|id| g.parameter(ParameterId(id)));
    exponential_average(&mut g, frozen, other, 0.5).unwrap();
    Program::compile("average", g, &Goal::Forward, Policy::default(), layout).unwrap()
}

pub(super) fn case(seed: u64) -> Case {
    case_of(seed, false)
}

/// With `meets`, ranks meet inside some programs.
pub(super) fn case_of(seed: u64, meets: bool) -> Case {
    let mut random = Random::new(seed);
    let variables = variables(random.once_in(2));
    let bucket = 16 * (1 + random.below(3) as usize);
    let layout = Layout::new(&variables, Granularity { block: 16, bucket });
    let mut programs: Vec<Program> = (0..5)
        .map(|i| {
            let mut weights: Vec<usize> = (0..PARAMETERS).filter(|_| random.once_in(2)).collect();
            // Without a trainable weight there is nothing to differentiate.
            weights.push([0, 1, 3, 4, 5][random.below(5) as usize]);
            weights.sort_unstable();
            weights.dedup();
            if random.once_in(2) {
                weights.reverse();
            }
            program(&variables, &layout, &weights, i < 3, i % 2 == 1, meets && i % 3 != 1)
        })
        .collect();
    let lanes = 1 << random.below(4);
    let global = lanes * (1 + random.below(2) as usize);
    let ranks = 1 + random.below(lanes as u64) as usize;
    let mut shape = shape(&mut random, global);
    if random.once_in(2) {
        shape.finally.push(ProgramId(programs.len()));
    }
    programs.push(average(&variables, &layout));
    let workload = Toy {
        variables,
        layout,
        programs,
        batch: Batch { micro: 1, global, lanes },
        shape: Box::new(|_, _| StepShape::default()),
        fill: Box::new(|_, _, _| {}),
        evaluations: vec![],
        attempts: 1,
        talk: Box::new(|_| None),
        learning_rate: 0.1,
        optimizer: adamw(),
        ownership: Ownership::even,
    };
    Case { workload, shape, ranks }
}

/// Groups of micro-batches, each with some phases.
fn shape(random: &mut Random, global: usize) -> StepShape {
    let mut phases = Vec::new();
    let mut start = 0;
    while start < global {
        let end = (start + 1 + random.below(global as u64) as usize).min(global);
        let group = || start..end;
        for _ in 0..1 + random.below(3) {
            let program = ProgramId(random.below(5) as usize);
            phases.push(match random.below(5) {
                0 => Phase::Gather { buffer: BUFFER, micro_batches: group() },
                1 => Phase::Broadcast { buffer: BUFFER, micro_batches: group() },
                2 => Phase::Once { program, micro_batches: group() },
                _ => {
                    let any = |_| ProgramId(random.below(5) as usize);
                    Phase::Each { micro_batches: group(), programs: group().map(any).collect() }
                }
            });
        }
        start = end;
    }
    StepShape { micro_batches: global, phases, finally: vec![] }
}

impl Case {
    pub(super) fn tree(&self) -> LaneTree {
        LaneTree::new(self.workload.batch.lanes, self.ranks).unwrap()
    }

    /// Every run of the step: program, micro-batch, slice.
    fn runs(&self) -> Vec<(ProgramId, usize, usize)> {
        let mut runs = Vec::new();
        for phase in &self.shape.phases {
            match phase {
                Phase::Each { micro_batches, programs } => {
                    let each = programs.iter().zip(micro_batches.clone()).enumerate();
                    runs.extend(each.map(|(slice, (&program, m))| (program, m, slice)));
                }
                Phase::Once { program, micro_batches } => {
                    runs.push((*program, micro_batches.start, 0));
                }
                _ => {}
            }
        }
        runs
    }

    fn writes(&self, program: ProgramId) -> &[(ParameterId, usize)] {
        self.workload.programs[program.0].gradient_writes()
    }

    /// Lanes in the order in which gradients are written.
    pub(super) fn gradient_lanes(&self) -> Vec<usize> {
        let runs = self.runs();
        let writing = runs.iter().filter(|run| !self.writes(run.0).is_empty());
        writing.map(|run| self.workload.batch.lane_of(run.1)).collect()
    }

    /// The sum that a lane must have for a parameter.
    fn lane_sum(&self, lane: usize, id: ParameterId) -> String {
        let mut sum = String::new();
        for (program, m, _) in self.runs() {
            if self.workload.batch.lane_of(m) == lane {
                for (_, node) in self.writes(program).iter().filter(|w| w.0 == id) {
                    let leaf = leaf(program, m, *node);
                    sum = if sum.is_empty() { leaf } else { format!("({sum}+{leaf})") };
                }
            }
        }
        if sum.is_empty() { "0".to_string() } else { sum }
    }

    /// The sum of consecutive lanes in the one tree.
    fn tree_sum(&self, lanes: Range<usize>, id: ParameterId) -> String {
        if lanes.len() == 1 {
            return self.lane_sum(lanes.start, id);
        }
        let middle = lanes.start + lanes.len() / 2;
        let (left, right) = (lanes.start..middle, middle..lanes.end);
        format!("[{}+{}]", self.tree_sum(left, id), self.tree_sum(right, id))
    }

    /// Runs a rank's plan on symbols.
    fn check_gradients(&self, rank: usize, plan: &StepPlan) {
        let mut gradients: BTreeMap<(usize, usize), String> = BTreeMap::new();
        let mut reduced = Vec::new();
        let stale = || "stale".to_string();
        for entry in &plan.entries {
            match &entry.work {
                Work::Zero { buffer, parameters } => {
                    for id in parameters {
                        gradients.insert((*buffer, id.0), "0".to_string());
                    }
                }
                Work::Run(run) => {
                    for &(id, node) in self.writes(run.program) {
                        if !run.nodes.contains(&node) {
                            continue;
                        }
                        let of = self.workload.layout.buckets_of(id);
                        let late = of.clone().any(|bucket| reduced.contains(&bucket));
                        assert!(!of.is_empty() && !late, "written after its reduction");
                        let leaf = leaf(run.program, run.micro_batch, node);
                        let cell = gradients.entry((run.buffer, id.0)).or_insert_with(stale);
                        let first = run.first_in_lane[id.0];
                        *cell = if first { leaf } else { format!("({cell}+{leaf})") };
                    }
                }
                Work::Fold { into, from, elements } => {
                    for i in 0..PARAMETERS {
                        if self.first_part_in(i, elements) {
                            let from = gradients.get(&(*from, i)).cloned().unwrap_or_else(stale);
                            let into = gradients.entry((*into, i)).or_insert_with(stale);
                            *into = format!("[{into}+{from}]");
                        }
                    }
                }
                Work::Reduce { bucket } => {
                    self.check_bucket(rank, *bucket, &gradients);
                    reduced.push(*bucket);
                }
                _ => {}
            }
        }
        let all: Vec<usize> = (0..self.workload.layout.buckets.len()).collect();
        assert_eq!(reduced, all, "every bucket once, in order");
    }

    /// Symbols stand for the part of a parameter that lies in its first bucket.
    fn first_part_in(&self, parameter: usize, elements: &Range<usize>) -> bool {
        let layout = &self.workload.layout;
        let trained = !layout.buckets_of(ParameterId(parameter)).is_empty();
        trained && elements.contains(&layout.placements[parameter].start)
    }

    fn check_bucket(&self, rank: usize, bucket: usize, found: &BTreeMap<(usize, usize), String>) {
        for piece in self.tree().pieces().iter().filter(|piece| piece.rank == rank) {
            let about = &self.workload.layout.buckets[bucket];
            let begins = |id: &&ParameterId| self.first_part_in(id.0, &about.elements);
            for &id in about.parameters.iter().filter(begins) {
                let wanted = self.tree_sum(piece.subtree.lanes(), id);
                assert_eq!(found.get(&(piece.buffer, id.0)), Some(&wanted), "of parameter {id:?}");
            }
        }
    }

    /// Every owned run once, in order, all of its nodes in order, with its record.
    fn check_runs(&self, rank: usize, plan: &StepPlan) {
        let owned = self.workload.batch.micro_batches_of(&self.tree().lanes_of(rank));
        let lanes = self.tree().lanes_of(rank);
        let records = records(&self.workload, &self.shape, &lanes);
        let mine = self.runs().into_iter().filter(|run| owned.contains(&run.1));
        let all = || plan.entries.iter().map(|entry| &entry.work);
        let mut loads = all().filter(|work| matches!(work, Work::Load(_)));
        let mut works = all().filter(|work| matches!(work, Work::Run(_) | Work::Keep(_)));
        let mut rows = 0;
        for (program, micro_batch, slice) in mine {
            let Some(Work::Load(Load { record, row, .. })) = loads.next() else {
                panic!("no record")
            };
            assert_eq!(*row, rows);
            let (of, like) = records[*record];
            let fields = |id: ProgramId| self.workload.programs[id.0].fields();
            assert_eq!((of, fields(like)), (micro_batch, fields(program)));
            let nodes = self.workload.programs[program.0].nodes();
            let mut done = 0;
            while done < nodes {
                let piece: &Run = match works.next() {
                    Some(Work::Run(run)) => run,
                    other => panic!("instead of a run: {other:?}"),
                };
                let is = (piece.program, piece.micro_batch, piece.slice, piece.nodes.start);
                assert_eq!(is, (program, micro_batch, slice, done));
                assert_eq!(piece.row, rows);
                assert!(piece.nodes.end > done);
                done = piece.nodes.end;
            }
            assert_eq!(done, nodes);
            let Some(Work::Keep(keep)) = works.next() else { panic!("nothing is kept") };
            let is = (keep.program, keep.micro_batch, keep.slice, keep.row);
            assert_eq!(is, (program, micro_batch, slice, rows));
            rows += 1;
        }
        assert!(works.next().is_none() && loads.next().is_none() && plan.rows == rows);
        let distinct = records.iter().enumerate().all(|(i, a)| !records[..i].contains(a));
        assert!(distinct, "a record is filled twice");
    }

    /// Gathers cover the group's slices, rank after rank.
    fn check_gathers(&self, plan: &StepPlan) {
        let of_shape = self.shape.phases.iter().filter_map(|phase| match phase {
            Phase::Gather { micro_batches, .. } => Some(micro_batches.clone()),
            _ => None,
        });
        let of_plan = plan.entries.iter().filter_map(|entry| match &entry.work {
            Work::Gather { parts } => Some(parts),
            _ => None,
        });
        let bytes = 3 * size_of::<f32>();
        for (group, parts) in of_shape.zip(of_plan) {
            let mut end = self.workload.layout.step_buffers[0];
            for part in parts.iter().filter(|part| part.bytes > 0) {
                assert_eq!(part.offset, end);
                end += part.bytes;
            }
            assert_eq!(end, self.workload.layout.step_buffers[0] + group.len() * bytes);
        }
    }
}

/// What one node of one run gives.
fn leaf(program: ProgramId, micro_batch: usize, node: usize) -> String {
    format!("{}.{micro_batch}.{node}", program.0)
}

/// The plans of all ranks; none if the step is refused.
pub(super) fn plans_of(case: &Case, zero: Zero) -> Vec<StepPlan> {
    let plan = |rank| StepPlan::new(&case.workload, &case.shape, case.ranks, rank, zero).ok();
    (0..case.ranks).map_while(plan).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn any_step_on_any_number_of_ranks(seed in any::<u64>()) {
        let case = case(seed);
        let lanes = case.gradient_lanes();
        let zero = if seed % 2 == 0 { Zero::Zero0 } else { Zero::Zero1 };
        let plan = |rank| StepPlan::new(&case.workload, &case.shape, case.ranks, rank, zero);
        if lanes.is_empty() || !lanes.is_sorted() {
            let refused = (0..case.ranks).all(|rank| matches!(plan(rank), Err(Error::Plan(_))));
            prop_assert_eq!(refused, true, "lanes in the order {:?}", lanes);
            return Ok(());
        }
        let plans: Vec<StepPlan> = (0..case.ranks).map(|rank| plan(rank).unwrap()).collect();
        for (rank, plan) in plans.iter().enumerate() {
            prop_assert_eq!(&plan.entries[0].work, &Work::Begin);
            prop_assert_eq!(check_meetings(plan, &plans[0]).map_err(|e| e.to_string()), Ok(()));
            let sums = plan.entries.iter().filter(|e| e.work == Work::SumStates).count();
            prop_assert_eq!(sums, case.workload.variables.states().len());
            case.check_gradients(rank, plan);
            case.check_runs(rank, plan);
            case.check_gathers(plan);
        }
    }
}

#[test]
fn both_kinds_of_cases_are_tried() {
    let sorted = |seed| {
        let lanes = case(seed).gradient_lanes();
        !lanes.is_empty() && lanes.is_sorted()
    };
    let good = (0..200).filter(|&seed| sorted(seed)).count();
    assert!((40..180).contains(&good), "{good} of 200");
}

#[test]
fn a_lane_that_begins_too_early_is_named() {
    let mut case = case(1);
    case.workload.batch = Batch { micro: 1, global: 4, lanes: 4 };
    let each = |program| Phase::Each { micro_batches: 0..4, programs: vec![ProgramId(program); 4] };
    case.shape = StepShape { micro_batches: 4, phases: vec![each(0), each(1)], finally: vec![] };
    let refused =
        StepPlan::new(&case.workload, &case.shape, 2, 0, Zero::Zero1).unwrap_err().to_string();
    assert!(refused.contains("micro-batch 0 (lane 0)"), "{refused}");
    assert!(refused.contains("lane 3 has begun"), "{refused}");
    case.shape = StepShape { micro_batches: 4, phases: vec![each(3)], finally: vec![] };
    let refused =
        StepPlan::new(&case.workload, &case.shape, 2, 0, Zero::Zero1).unwrap_err().to_string();
    assert!(refused.contains("no program of the step writes a gradient"), "{refused}");
    assert!(
        StepPlan::new(&case.workload, &case.shape, 5, 0, Zero::Zero1).is_err(),
        "more ranks than lanes"
    );
}

#[test]
fn gradients_leave_while_backward_goes_on() {
    let mut case = case(2);
    let (variables, layout) = (&case.workload.variables, &case.workload.layout);
    let all = [0, 1, 2, 3, 4, 5];
    case.workload.programs[0] = program(variables, layout, &all, true, false, false);
    case.workload.batch = Batch { micro: 1, global: 2, lanes: 2 };
    let each = Phase::Each { micro_batches: 0..2, programs: vec![ProgramId(0); 2] };
    case.shape = StepShape { micro_batches: 2, phases: vec![each], finally: vec![] };
    let plan = StepPlan::new(&case.workload, &case.shape, 2, 1, Zero::Zero1).unwrap();
    let last_run = plan.entries.iter().rposition(|e| matches!(e.work, Work::Run(_))).unwrap();
    let first = plan.entries.iter().position(|e| matches!(e.work, Work::Reduce { .. })).unwrap();
    assert!(first < last_run, "nothing is reduced before the last node");
    // The weight nearest to the loss is final first, and its bucket is the first.
    assert_eq!(layout_order(&case), [5, 4, 3, 1, 0]);
}

fn layout_order(case: &Case) -> Vec<usize> {
    case.workload.layout.buckets.iter().flat_map(|b| &b.parameters).map(|id| id.0).collect()
}

#[test]
fn the_next_forward_waits_for_each_bucket_only_where_it_reads_it() {
    let mut case = case(2);
    let (variables, layout) = (&case.workload.variables, &case.workload.layout);
    let all = [0, 1, 2, 3, 4, 5];
    case.workload.programs = vec![program(variables, layout, &all, true, false, false)];
    case.workload.batch = Batch { micro: 1, global: 1, lanes: 1 };
    let each = Phase::Each { micro_batches: 0..1, programs: vec![ProgramId(0)] };
    case.shape = StepShape { micro_batches: 1, phases: vec![each], finally: vec![] };
    let plan = StepPlan::new(&case.workload, &case.shape, 1, 0, Zero::Zero1).unwrap();
    let gathered = plan.entries.iter().filter_map(|entry| match entry.work {
        Work::GatherParameters { bucket } => Some(bucket),
        _ => None,
    });
    let runs = plan.entries.iter().filter(|entry| matches!(entry.work, Work::Run(_)));
    let waits = runs.flat_map(|run| run.after.iter());
    let buckets = 0..case.workload.layout.buckets.len();
    let fresh = |mark: &Mark| buckets.clone().find(|&bucket| Mark::fresh(bucket) == *mark);
    let waits: Vec<usize> = waits.filter_map(fresh).collect();
    // What is read first is gathered first, and waited for first; padding is never waited for.
    assert!(waits.len() > 1);
    assert_eq!(gathered.take(waits.len()).collect::<Vec<usize>>(), waits);
}
