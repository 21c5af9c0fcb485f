//! A model with a loss and a sum of its own, as mixtures of experts have them: under any objective
//! that reads it, and not in evaluations.

use std::sync::Arc;

use octet_kernels::dtype::DType;
use octet_kernels::error::Result;
use octet_kernels::graph::{
    Graph, Init, Parameter, ParameterId, Policy, State, StateId, StateUse, Tensor, Variables,
};
use octet_kernels::ops::copy::{add_into, copy_into};
use octet_kernels::ops::embedding::embedding;
use octet_kernels::ops::fill::Fill;
use octet_kernels::ops::integers::total;
use octet_kernels::ops::mean_squared_error::mean_squared_error;
use octet_kernels::ops::scale::scale;

use super::super::{Builder, Composition};
use crate::models::testing::{Bench, Field};
use crate::models::{AfterUpdate, Extras, Head, Model, Part, Parts, Scope, TokenBatch};
use crate::objectives::{BatchShape, NextToken, Objective};

const SHAPE: BatchShape = BatchShape { sequences: 1, sequence_length: 4 };
const VOCABULARY: usize = 5;
const WIDTH: usize = 3;
/// Of the squares of its rows, beside the objective's loss.
const WEIGHT: f32 = 0.25;

/// Keeps its rows small, and counts what its tokens add up to in a step.
#[derive(Debug)]
struct Tenant {
    table: ParameterId,
    step_sum: StateId,
    last: StateId,
}

impl Tenant {
    fn new(scope: &mut Scope<'_>) -> Self {
        let mut state = |name: &str, usage| {
            let name = name.to_owned();
            scope.state(State { name, shape: vec![1], dtype: DType::I32, usage, init: 0.0 })
        };
        let step_sum = state("step_sum", StateUse::StepSum);
        let last = state("last", StateUse::Replicated);
        let table = scope.parameter(Parameter {
            name: "embedding.weight".to_owned(),
            shape: vec![VOCABULARY, WIDTH],
            dtype: DType::F32,
            trainable: true,
            decay: true,
            init: Init::Normal { std: 0.5 },
        });
        Self { table, step_sum, last }
    }
}

impl Model for Tenant {
    fn hidden(&self, g: &mut Graph<'_>, batch: &TokenBatch, extras: &mut Extras) -> Result<Tensor> {
        let table = g.parameter(self.table);
        let rows = embedding(g, batch.tokens, table)?;
        let elements = (SHAPE.tokens() * WIDTH) as f32;
        let given = extras.scale(g)?;
        let given = scale(g, given, WEIGHT / elements)?;
        let zeros = g.apply_one(Fill { shape: vec![SHAPE.tokens(), WIDTH], value: 0.0 }, &[])?;
        let (loss, sum) = mean_squared_error(g, rows, zeros, given)?;
        let shown = scale(g, sum, 1.0 / elements)?;
        extras.add("small", loss, shown);
        if batch.training {
            let sum = total(g, batch.tokens)?;
            let sum = g.reshape(sum, &[1])?;
            let step_sum = g.state(self.step_sum);
            add_into(g, sum, step_sum)?;
        }
        Ok(rows)
    }

    fn head(&self, g: &mut Graph<'_>, rows: Tensor) -> Result<Head> {
        Ok(Head { rows, weight: g.parameter(self.table), bias: None })
    }

    fn width(&self) -> usize {
        WIDTH
    }

    fn init(&self, _shape: [usize; 2]) -> Init {
        Init::Constant(0.0)
    }

    fn dtype(&self) -> DType {
        DType::F32
    }

    fn after_update(&self) -> Option<&dyn AfterUpdate> {
        Some(self)
    }

    fn matrix_parameters(&self) -> usize {
        VOCABULARY * WIDTH
    }

    fn head_parameters(&self) -> usize {
        VOCABULARY * WIDTH
    }

    fn flops_per_token(&self, _sequence_length: usize, _pairs: f64) -> f64 {
        6.0 * self.matrix_parameters() as f64
    }
}

impl AfterUpdate for Tenant {
    fn trace(&self, g: &mut Graph<'_>) -> Result<()> {
        let (step_sum, last) = (g.state(self.step_sum), g.state(self.last));
        copy_into(g, step_sum, last)?;
        g.fetch("last", last);
        Ok(())
    }
}

/// A composition of one next-token track over the tenant, under a name.
fn composition() -> Composition {
    let mut variables = Variables::new();
    let tenant = Tenant::new(&mut Scope::new(&mut variables).named("tenant"));
    let model = Arc::new(Part::new("tenant", Box::new(tenant)));
    let (mut drafts, parts) = (Vec::new(), Parts::of(vec![model.clone()]));
    let mut builder = Builder {
        name: "",
        model,
        parts: &parts,
        shape: SHAPE,
        vocabulary: VOCABULARY,
        variables: &mut variables,
        drafts: &mut drafts,
    };
    NextToken::default().build(&mut builder).unwrap();
    let (tracks, finally, writer) = (Vec::new(), Vec::new(), None);
    let mut made = Composition { variables, parts, drafts, tracks, finally, writer };
    made.after_updates();
    made
}

fn fields(training: bool, extra_scale: f32) -> Vec<(&'static str, Field)> {
    let mut fields = vec![
        ("tokens", Field::Integers(vec![1, 4, 2, 2])),
        ("labels", Field::Integers(vec![4, 2, 2, -1])),
        ("positions", Field::Integers(vec![0, 1, 2, 3])),
        ("segments", Field::Integers(vec![0; 4])),
    ];
    fields.push(match training {
        true => ("scale", Field::Floats(vec![0.5])),
        false => ("bytes", Field::Integers(vec![1; 4])),
    });
    if training {
        fields.push(("extra_scale", Field::Floats(vec![extra_scale])));
    }
    fields
}

#[test]
fn what_a_model_adds_is_trained_shown_and_summed() {
    let Composition { variables, drafts, finally, .. } = composition();
    assert_eq!(drafts.len(), 3);
    assert_eq!(finally.len(), 1);
    let mut bench = Bench::new(variables);
    let compile = |bench: &Bench, number: usize| {
        drafts[number].compile(&bench.variables, &bench.layout, Policy::default()).unwrap()
    };
    let [train, evaluate, after] = [0, 1, 2].map(|number| compile(&bench, number));
    let table = bench.load("tenant.embedding.weight");
    let row = |token: usize| &table[token * WIDTH..(token + 1) * WIDTH];
    let squares = [1, 4, 2, 2].map(|token| row(token).iter().map(|x| x * x).sum::<f32>());
    let mean = squares.iter().sum::<f32>() / 12.0;

    let plain = bench.run(&train, &fields(true, 0.0));
    let without = bench.gradient("tenant.embedding.weight");
    let whole = bench.run(&train, &fields(true, 0.5));
    let with = bench.gradient("tenant.embedding.weight");
    assert!((whole["tenant/small.loss_sum"][0] - mean).abs() < 1e-6);
    let added = whole["loss"][0] - plain["loss"][0];
    assert!((added - 0.5 * WEIGHT * mean).abs() < 1e-6, "{added} of {mean}");
    assert_eq!(whole["loss_sum"], plain["loss_sum"]);
    for (at, (with, without)) in with.iter().zip(without).enumerate() {
        let times = [0.0, 1.0, 2.0, 0.0, 1.0][at / WIDTH];
        let expected = times * 0.5 * WEIGHT * 2.0 * table[at] / 12.0;
        assert!((with - without - expected).abs() < 1e-6, "{at}");
    }
    // An evaluation is of the objective alone.
    let measured = bench.run(&evaluate, &fields(false, 0.0));
    assert!(!measured.contains_key("tenant/small.loss_sum"));
    assert_eq!(measured["loss_sum"], plain["loss_sum"]);
    // Two micro-batches of the tokens 1 + 4 + 2 + 2.
    assert_eq!(bench.run(&after, &[])["last"], [18.0]);
}
