//! Addresses and values of a node in one run.

use crate::device::RunArguments;
use crate::dtype::DType;
use crate::graph::{
    Bindings, Goal, Granularity, Graph, Layout, Policy, Program, RunContext, StateUse, Target,
    Variables,
};
use crate::launch::{Argument, Launch, Memory};
use crate::memory::DeviceSlice;
use crate::operands::{Operands, Value};
use crate::ops::rms_norm::rms_norm;
use crate::random::{RandomStream, Site};

/// A norm of the live rows of an input on a GPU, its weight a state, the extent the last input.
fn program(variables: &Variables, layout: &Layout) -> Program {
    let mut g = Graph::new(variables);
    let x = g.input("x", &[8, 16], DType::F32);
    let live = g.input("live", &[], DType::I32);
    let weight = g.state(crate::graph::StateId(0));
    let rows = g.with_live(x, live);
    let y = g.scoped("norm", |g| rms_norm(g, rows, weight, 1e-5)).unwrap();
    g.fetch("y", y);
    let policy = Policy { target: Target::H200, ..Policy::default() };
    Program::compile("norm", g, &Goal::Forward, policy, layout).unwrap()
}

#[test]
fn arguments_are_the_places_of_the_operands() {
    let mut variables = Variables::new();
    variables.state(crate::graph::State {
        name: "weight".to_string(),
        shape: vec![16],
        dtype: DType::F32,
        usage: StateUse::Local,
        init: 1.0,
    });
    let layout = Layout::new(&variables, Granularity::default());
    let program = program(&variables, &layout);
    let mut memory = vec![0u64; 64 << 10];
    let all = DeviceSlice::from_host(&mut memory);
    let (input, rest) = (all.part(0, program.input_bytes), program.input_bytes);
    let bindings = Bindings {
        parameters: &[],
        gradients: &[],
        states: all.part(rest, layout.state_bytes),
        step: all.part(0, 0),
        input,
        activations: all.part(16 << 10, program.activation_bytes),
        libraries: all.part(32 << 10, 1 << 10),
        overflow: all.part(48 << 10, 4),
        arguments: all.part(52 << 10, size_of::<RunArguments>()),
    };
    let context = RunContext { seed: 3, slice: 0, first_in_lane: &[], communicator: None };
    let node = &program.planned(0..1)[0];
    let operands = Operands { program: &program, node, bindings: &bindings, context: &context };
    let [Launch::Kernel(kernel)] = &node.launches.as_ref().unwrap().list[..] else { panic!() };
    let values: Vec<Value> = kernel.arguments.iter().map(|a| operands.value(a)).collect();
    let field = |name: &str| program.field(name).unwrap().offset;
    let y = program.fetched("y", &bindings, 0).unwrap();
    assert_eq!(values[0], Value::Address(Some(input.part(field("x"), 8 * 16 * 4))));
    assert_eq!(values[1], Value::Address(Some(bindings.states.part(layout.states[0], 16 * 4))));
    assert_eq!(values[2], Value::Address(Some(y)));
    assert_eq!(values[4], Value::Address(Some(input.part(field("live"), 4))));
    // Capacity, rows of a block, columns.
    assert_eq!(values[5..8], [8, 8, 16].map(Value::Word));
    assert_eq!(values[8], Value::Word(1e-5f32.to_bits()));
    // The weight has all its rows; cells and keys are the run's.
    assert_eq!(operands.value(&Argument::Live(Memory::Input(1))), Value::Address(None));
    assert_eq!(operands.value(&Argument::Overflow), Value::Address(Some(bindings.overflow)));
    assert_eq!(operands.value(&Argument::RunArguments), Value::Address(Some(bindings.arguments)));
    assert_eq!(operands.value(&Argument::Accumulate(0)), Value::Word(0));
    assert_eq!(operands.libraries(), bindings.libraries);
    let [low, high] = RandomStream { seed: 3, site: Site::new("norm/rms_norm/0") }.key();
    let key = u64::from(high) << 32 | u64::from(low);
    assert_eq!(operands.value(&Argument::Key), Value::Long(key));
}
