//! Programs in which ranks meet: such nodes are entries of their own, on the other stream, and
//! every rank comes to all of them.

use std::sync::Arc;

use octet_kernels::cpu::CpuRun;
use octet_kernels::dtype::DType;
use octet_kernels::error::Result;
use octet_kernels::graph::{
    Backward, Goal, Granularity, Graph, Init, Layout, Ownership, Parameter, Policy, Program,
    Variables,
};
use octet_kernels::ops::mean_squared_error::mean_squared_error;
use octet_kernels::ops::{Op, Stream};
use octet_kernels::shape::Spec;

use crate::contract::{Batch, Phase, ProgramId, StepShape, Workload};
use crate::rank_memory::{RankMemory, Zero};
use crate::step_plan::{Entry, StepPlan, Work};
use crate::testing::{Toy, adamw, train};

const ROWS: usize = 4;

/// Copies its input when every rank has come.
#[derive(Debug)]
pub(super) struct Meet;

impl Op for Meet {
    fn name(&self) -> &'static str {
        "meet"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![inputs[0].clone()])
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let gradient = backward.need(0)?;
        backward.give(0, Self, &[gradient])
    }

    fn stream(&self) -> Stream {
        Stream::Communication
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        run.communicator()?.barrier()?;
        run.output::<f32>(0).copy_from_slice(run.input(0));
        Ok(())
    }
}

/// Fits a vector to its input through a meeting, forward and backward.
fn toy() -> Toy {
    let mut variables = Variables::new();
    let w = variables.parameter(Parameter {
        name: "w".to_string(),
        shape: vec![ROWS],
        dtype: DType::F32,
        trainable: true,
        decay: false,
        init: Init::Constant(1.0),
    });
    let layout = Layout::new(&variables, Granularity { block: 64, bucket: 64 });
    let mut g = Graph::new(&variables);
    let (w, x) = (g.parameter(w), g.input("x", &[ROWS], DType::F32));
    let scale = g.input("scale", &[], DType::F32);
    let met = g.apply_one(Meet, &[w]).unwrap();
    let (loss, sum) = mean_squared_error(&mut g, met, x, scale).unwrap();
    for (name, tensor) in [("loss", loss), ("loss_sum", sum)] {
        g.fetch(name, tensor);
    }
    let goal = Goal::Train { loss };
    let program = Program::compile("meeting", g, &goal, Policy::default(), &layout).unwrap();
    Toy {
        variables,
        layout,
        programs: vec![program],
        batch: Batch { micro: 1, global: 8, lanes: 4 },
        shape: Box::new(|_, _| StepShape {
            micro_batches: 8,
            phases: vec![Phase::Each { micro_batches: 0..8, programs: vec![ProgramId(0); 8] }],
            finally: vec![],
        }),
        fill: Box::new(|_, program, record| {
            record.field::<f32>(program, "x").fill(3.0);
            record.field::<f32>(program, "scale")[0] = 0.125;
        }),
        evaluations: vec![],
        attempts: 1,
        talk: Box::new(|_| None),
        learning_rate: 0.1,
        optimizer: adamw(),
        ownership: Ownership::even,
    }
}

#[test]
fn a_meeting_is_an_entry_between_two_waits() {
    let toy = toy();
    let plan = StepPlan::new(&toy, &toy.shape(0, 0), 2, 1, Zero::Zero1).unwrap();
    let met: Vec<usize> = (0..plan.entries.len())
        .filter(|&i| {
            let entry = &plan.entries[i];
            entry.stream == Stream::Communication && matches!(entry.work, Work::Run(_))
        })
        .collect();
    assert_eq!(met.len(), 2 * 4, "forward and backward of the rank's four micro-batches");
    for &i in &met {
        let computes = |entry: &&Entry| entry.stream == Stream::Compute;
        let entry = &plan.entries[i];
        let before = plan.entries[..i].iter().rev().find(computes).unwrap();
        let Work::Run(run) = &entry.work else { unreachable!() };
        assert_eq!(run.nodes.len(), 1);
        // At once, or behind a record that has come behind it.
        let passed = |mark| plan.entries.iter().filter(move |e| e.mark == Some(mark));
        let through = entry.after.iter().flat_map(|&mark| passed(mark)).flat_map(|e| &e.after);
        let mut behind = entry.after.iter().chain(through);
        assert!(behind.any(|mark| before.mark == Some(*mark)));
        let next = plan.entries[i + 1..].iter().find(computes).unwrap();
        assert!(next.after.contains(&entry.mark.unwrap()));
    }
}

#[test]
fn ranks_meet_inside_programs() {
    let workload: Arc<dyn Workload> = Arc::new(toy());
    let one = train(&workload, 1, Zero::Zero0, 3).unwrap();
    assert!(one.reports[2].loss < one.reports[0].loss);
    for ranks in [2, 4] {
        assert_eq!(train(&workload, ranks, Zero::Zero1, 3).unwrap(), one, "{ranks} ranks");
    }
}

#[test]
fn ranks_that_would_not_meet_are_refused() {
    // Three ranks own two lanes, one and one: the first would meet alone.
    let toy = toy();
    let refused = (0..3).find_map(|rank| RankMemory::new(&toy, 3, rank, Zero::Zero1).err());
    let refused = refused.expect("a refusal").to_string();
    assert!(refused.contains("meet"), "{refused}");
}
