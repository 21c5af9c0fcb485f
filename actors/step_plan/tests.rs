//! Steps that are refused before they run.

use octet_kernels::dtype::DType;
use octet_kernels::graph::{
    Goal, Granularity, Graph, Init, Layout, Ownership, Parameter, ParameterId, Policy, Program,
    State, StateId, StateUse, StepBuffer, StepBufferId, Variables,
};
use octet_kernels::ops::copy::copy_into;
use octet_kernels::ops::mean_squared_error::mean_squared_error;

use crate::contract::{Batch, Phase, ProgramId, StepShape};
use crate::rank_memory::Zero;
use crate::step_plan::StepPlan;
use crate::testing::{Toy, adamw};

mod meetings;
mod order;
mod random_steps;

const BATCH: Batch = Batch { micro: 1, global: 4, lanes: 2 };
const TRAIN: ProgramId = ProgramId(0);
const MOVE: ProgramId = ProgramId(1);
const KEEP: ProgramId = ProgramId(2);
const OVERWRITE: ProgramId = ProgramId(3);

/// `train` fits a vector to its input, `move` leaves the input in a buffer of two slices, `keep`
/// copies the vector into a replicated state, `overwrite` into a frozen parameter.
fn toy() -> Toy {
    let mut variables = Variables::new();
    let mut parameter = |name: &str, trainable| {
        let (name, shape, init) = (name.to_string(), vec![4], Init::Constant(1.0));
        let dtype = DType::F32;
        variables.parameter(Parameter { name, shape, dtype, trainable, decay: false, init })
    };
    let (w, frozen) = (parameter("w", true), parameter("frozen", false));
    let (usage, init) = (StateUse::Replicated, 0.0);
    let shape = vec![4];
    variables.state(State { name: "average".into(), shape, dtype: DType::F32, usage, init });
    let slice = vec![4];
    let micro_batches = 2;
    let dtype = DType::F32;
    variables.step_buffer(StepBuffer { name: "rows".into(), slice, micro_batches, dtype });
    let layout = Layout::new(&variables, Granularity { block: 64, bucket: 64 });
    let compile = |name: &str, trace: &dyn Fn(&mut Graph<'_>) -> Goal| {
        let mut g = Graph::new(&variables);
        let goal = trace(&mut g);
        Program::compile(name, g, &goal, Policy::default(), &layout).unwrap()
    };
    let into = |g: &mut Graph<'_>, from: ParameterId, to| {
        let from = g.parameter(from);
        copy_into(g, from, to).unwrap();
        Goal::Forward
    };
    let programs = vec![
        compile("train", &|g| {
            let (w, x) = (g.parameter(w), g.input("x", &[4], DType::F32));
            let scale = g.input("scale", &[], DType::F32);
            Goal::Train { loss: mean_squared_error(g, w, x, scale).unwrap().0 }
        }),
        compile("move", &|g| {
            let (x, to) = (g.input("x", &[4], DType::F32), g.step_slice(StepBufferId(0)));
            copy_into(g, x, to).unwrap();
            Goal::Forward
        }),
        compile("keep", &|g| {
            let to = g.state(StateId(0));
            into(g, w, to)
        }),
        compile("overwrite", &|g| {
            let to = g.parameter(frozen);
            into(g, w, to)
        }),
    ];
    Toy {
        variables,
        layout,
        programs,
        batch: BATCH,
        shape: Box::new(|_, _| StepShape::default()),
        fill: Box::new(|_, _, _| {}),
        evaluations: vec![],
        attempts: 1,
        talk: Box::new(|_| None),
        learning_rate: 0.1,
        optimizer: adamw(),
        ownership: Ownership::even,
    }
}

fn each(program: ProgramId, micro_batches: std::ops::Range<usize>) -> Phase {
    Phase::Each { programs: vec![program; micro_batches.len()], micro_batches }
}

fn plan(phases: Vec<Phase>, finally: Vec<ProgramId>) -> Result<StepPlan, String> {
    let shape = StepShape { micro_batches: 4, phases, finally };
    StepPlan::new(&toy(), &shape, 2, 0, Zero::Zero1).map_err(|e| e.to_string())
}

#[test]
fn what_every_rank_has_is_written_where_every_rank_does() {
    assert!(plan(vec![each(TRAIN, 0..4)], vec![KEEP, OVERWRITE]).is_ok());
    for (program, name) in [(KEEP, "average"), (OVERWRITE, "frozen")] {
        let refused = plan(vec![each(program, 0..1), each(TRAIN, 0..4)], vec![]).unwrap_err();
        assert!(refused.contains(&format!("writes {name}")), "{refused}");
    }
    let refused = plan(vec![each(TRAIN, 0..4)], vec![MOVE]).unwrap_err();
    assert!(refused.contains("program move runs last"), "{refused}");
}

#[test]
fn a_step_buffer_has_a_slice_for_every_micro_batch() {
    let groups = |length: usize| {
        let moves = (0..4).step_by(length).map(|first| each(MOVE, first..first + length));
        plan(moves.chain([each(TRAIN, 0..4)]).collect(), vec![])
    };
    assert!(groups(2).is_ok());
    assert!(groups(4).unwrap_err().contains("step buffer rows has 2 slices"));
    let buffer = StepBufferId(0);
    let gather = Phase::Gather { buffer, micro_batches: 0..4 };
    let refused = plan(vec![each(MOVE, 0..2), gather, each(TRAIN, 0..4)], vec![]).unwrap_err();
    assert!(refused.contains("step buffer rows has 2 slices, not 4"), "{refused}");
}

#[test]
fn lanes_finish_in_order() {
    assert!(plan(vec![each(TRAIN, 0..2), each(TRAIN, 2..4)], vec![]).is_ok());
    let refused = plan(vec![each(TRAIN, 2..4), each(TRAIN, 0..2)], vec![]).unwrap_err();
    assert!(refused.contains("lanes finish in order"), "{refused}");
    assert!(plan(vec![each(MOVE, 0..2)], vec![]).unwrap_err().contains("no program of the step"));
}
